"""Step 4 of 6, inspect: masks texts that arrive in pieces, cut at any byte.

Gets pieces and whether each is the last; hands on what is already certain, holds back the rest (`HOLD` characters,
a line, or a whole JSON document where fields of it are named). However a text is cut, the same comes out in total.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final, Protocol

from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import Unescaper, string_state
from enforcer.masking.scanner import BEGINNING, PIECE, Scanner

MAX_DOCUMENT: Final = 8 << 20
"""Bytes of a text that must be whole to be masked: larger than API answers are, small beside the memory of a worker."""


class TextMask(Protocol):
    """One text being masked. After the final piece it stands ready for the next text."""

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        """What may go on now that `data` has arrived. Hidden values are added to `counts` by name. Raises MaskError."""


class Untouched:
    """For a specification that has nothing to say about this text."""

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:  # noqa: ARG002 - the interface
        return data


class Refused:
    """For a kind of text that cannot be masked as specified."""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:  # noqa: ARG002 - the interface
        raise MaskError(self._reason)


class Window:
    """Any text: a window slides over it that always holds enough on either side to decide about what leaves it."""

    __slots__ = ("_carry", "_left", "_scanner", "_seen", "_state")

    def __init__(self, scanner: Scanner) -> None:
        self._scanner = scanner
        self._seen = b""  # context that has left, then bytes held back
        self._left = 0  # how much of `_seen` has left
        self._carry = BEGINNING  # what else is known of the text before `_seen`
        self._state: int | None = None

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        if final and not self._seen and len(data) <= PIECE:
            return self._scanner.hide(data, counts, json=self._state)
        pieces = range(0, len(data), PIECE) or (0,)
        last = pieces[-1]
        out = b"".join([self._piece(data[i : i + PIECE], final and i == last, counts) for i in pieces])
        if final:
            self._reset()
        return out

    def _piece(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        seen, low = self._seen + data, self._left
        out, high, keep, self._carry = self._scanner.slide(
            seen, low, final, counts, json=self._state, carry=self._carry
        )
        if self._state is not None:
            self._state = string_state(self._state, seen[low:high])
        self._seen, self._left = seen[keep:], high - keep
        return out

    def _reset(self) -> None:
        self._seen, self._left, self._carry = b"", 0, BEGINNING


class JsonWindow(Window):
    """JSON text, also many documents in a row, without waiting for its end: characters spelt as escapes are written out
    (the same JSON), and a number that is a value becomes `null`, so that the document stays one."""

    __slots__ = ("_unescaper",)

    def __init__(self, scanner: Scanner) -> None:
        super().__init__(scanner)
        self._state = 0
        self._unescaper: Unescaper | None = None

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        if self._unescaper is None:
            if b"\\" not in data:
                return super().feed(data, final, counts)
            self._unescaper = Unescaper()
        pieces = range(0, len(data), PIECE) or (0,)
        last = pieces[-1]
        out = []
        for i in pieces:
            end = final and i == last
            out.append(super().feed(self._unescaper.feed(data[i : i + PIECE], end), end, counts))
        return b"".join(out)

    def _reset(self) -> None:
        super()._reset()
        self._state = 0
        self._unescaper = None


class Lines:
    """Text in lines, each of which `mask` gets once its end has come: nothing waits for the line after it."""

    __slots__ = ("_held", "_mask", "_size")

    def __init__(self, mask: Callable[[bytes, Counter[str]], bytes]) -> None:
        self._mask = mask
        self._held: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        end = len(data) if final else data.rfind(b"\n") + 1
        self._size += len(data)
        if end == 0 and not final:
            if self._size > MAX_DOCUMENT:
                raise MaskError(f"a line of more than {MAX_DOCUMENT >> 20} MiB cannot be masked; ask for shorter ones")
            self._held.append(data)
            return b""
        text = b"".join([*self._held, data[:end]])
        self._held = [data[end:]]
        self._size = len(data) - end
        return b"\n".join([self._mask(line, counts) if line else line for line in text.split(b"\n")])


class Whole:
    """A text that `mask` needs in one piece, up to `MAX_DOCUMENT` bytes."""

    __slots__ = ("_mask", "_pieces", "_size", "_what")

    def __init__(self, what: str, mask: Callable[[bytes, Counter[str]], bytes]) -> None:
        self._what = what
        self._mask = mask
        self._pieces: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        self._size += len(data)
        if self._size > MAX_DOCUMENT:
            self._pieces.clear()
            raise MaskError(
                f"{self._what} of more than {MAX_DOCUMENT >> 20} MiB cannot be masked by field; ask for less at a time"
            )
        self._pieces.append(data)
        if not final:
            return b""
        whole = b"".join(self._pieces)
        self._pieces, self._size = [], 0
        return self._mask(whole, counts)


# What servers quote rows and values in: `Key (ssn)=(078-05-1120) already exists.`, `Failing row contains (1, ...`,
# `invalid input syntax for type integer: "12x"`. To the last bracket, for a value may hold some, or to the end where a
# list goes on behind it; NUL parts fields.
_QUOTED: Final = re.compile(rb'\([^\x00]*\)(?=[^\x00,]*(?:\x00|\Z))|\([^\x00]*|: "[^\x00]*|dup key: [^\x00]*')
_SHOWN: Final = re.compile(rb"[0-9A-Za-z_\x80-\xff]")
_STARS: Final = 16
"""Asterisks that stand for any longer text."""


def hide_parts(text: bytes, counts: Counter[str]) -> bytes:
    """What may be data wholly, part by part as NUL bytes part it."""
    hidden = [b"*" * min(len(part), _STARS) for part in text.split(b"\0")]
    counts["error detail"] += sum(map(bool, hidden))
    return b"\0".join(hidden)


def hide_quoted(text: bytes, counts: Counter[str]) -> bytes:
    """An error message without the values it quotes: which of them belong to a masked column cannot be told."""
    hidden, quotes = _QUOTED.subn(lambda match: _SHOWN.sub(b"*", match[0]), text)
    if quotes:
        counts["error detail"] += quotes
    return hidden
