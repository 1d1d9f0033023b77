"""What a fuzz target is, and what the targets share: bytes that begin with options, dialogues, cuts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from enforcer.flow import Side

CORPORA = Path(__file__).parent.parent / "corpora"
# Between the parts of an input that stands for a dialogue: whose turn it is. Printable, for the sake of seeds in files.
TURN_CLIENT, TURN_SERVER = b"<client>", b"<server>"


@dataclass(frozen=True)
class Target:
    """`judge` raises where a promise breaks. `seeds`: inputs to begin with. `words`: what inputs are made of, which a
    fuzzer would be long in finding (libFuzzer's dictionary)."""

    name: str
    judge: Callable[[bytes], None]
    seeds: Callable[[], Iterable[bytes]]
    words: tuple[bytes, ...] = ()

    def kept(self) -> list[Path]:
        """Inputs that once failed."""
        return sorted((CORPORA / "fuzz" / self.name).glob("*"))


def options(data: bytes, count: int) -> tuple[list[int], bytes]:
    """The first `count` bytes as numbers (0 where the input is shorter), and the rest."""
    return [*data[:count], *[0] * (count - len(data[:count]))], data[count:]


def cut(data: bytes, step: int) -> Iterator[bytes]:
    """`data` in pieces of `step` bytes; whole where that is 0."""
    size = step or max(len(data), 1)
    return (data[at : at + size] for at in range(0, len(data), size))


def dialogue(data: bytes) -> list[tuple[Side, bytes]]:
    """The turns of an input: it begins with the client's."""
    turns: list[tuple[Side, bytes]] = []
    for part in data.split(TURN_CLIENT):
        mine, *theirs = part.split(TURN_SERVER)
        turns.append((Side.CLIENT, mine))
        turns += [(Side.SERVER, piece) for piece in theirs]
    return [(side, piece) for side, piece in turns if piece]


def written(turns: Iterable[tuple[Side, bytes]]) -> bytes:
    """The input that `dialogue` reads as these turns."""
    return b"".join((TURN_CLIENT if side is Side.CLIENT else TURN_SERVER) + piece for side, piece in turns)
