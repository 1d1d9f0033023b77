"""Step 1 of 6, capture: the address space as a step function. Gets nested or disjoint ranges, hands on disjoint CIDRs.

A step function says for every address which id it has; it changes only at `starts`. Layers of tables are combined as
functions, so precedence is one small callable and nothing can be in two rows at once. Pure integers, no I/O.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass


class OverlapError(ValueError):
    """Two ranges overlap without one holding the other. CIDRs cannot; a damaged range table can."""


@dataclass(frozen=True, slots=True)
class Steps:
    """`ids[i]` holds from `starts[i]` up to the next start (the last one to the end of the space).

    `starts` ascends strictly from 0; neighbouring ids differ; id 0 means "no row says anything".
    """

    bits: int
    starts: list[int]
    ids: list[int]


def flatten(ranges: Iterable[tuple[int, int, int]], bits: int) -> Steps:
    """The step function of `(first, last, id)` ranges, where the narrowest range around an address wins.

    Of two equal ranges the later one wins. Raises OverlapError where ranges cross.
    """
    starts, ids = [0], [0]

    def emit(start: int, ident: int) -> None:
        if starts[-1] == start:
            ids[-1] = ident
            if len(ids) > 1 and ids[-2] == ident:
                starts.pop()
                ids.pop()
        elif ids[-1] != ident:
            starts.append(start)
            ids.append(ident)

    around: list[tuple[int, int]] = []  # (last, id) of the ranges that hold the current position, widest first

    def leave() -> None:
        last, _ = around.pop()
        emit(last + 1, around[-1][1] if around else 0)

    for first, last, ident in sorted(ranges, key=lambda row: (row[0], -row[1])):
        while around and around[-1][0] < first:
            leave()
        if around and last > around[-1][0]:
            raise OverlapError(f"{first}-{last} crosses a range that ends at {around[-1][0]}")
        emit(first, ident)
        around.append((last, ident))
    while around:
        leave()
    if starts[-1] == 1 << bits:  # the last range reached the end of the space
        starts.pop()
        ids.pop()
    return Steps(bits, starts, ids)


def combine(one: Steps, two: Steps, choose: Callable[[int, int], int]) -> Steps:
    """The step function of `choose(one(address), two(address))`; `choose` is asked once per pair of ids."""
    known: dict[tuple[int, int], int] = {}
    starts: list[int] = []
    ids: list[int] = []
    end = 1 << one.bits
    starts_one, starts_two = [*one.starts, end], [*two.starts, end]
    i = j = start = 0
    previous = -1
    while start < end:
        pair = (one.ids[i], two.ids[j])
        ident = known.get(pair)
        if ident is None:
            ident = known[pair] = choose(*pair)
        if ident != previous:
            starts.append(start)
            ids.append(ident)
            previous = ident
        next_one, next_two = starts_one[i + 1], starts_two[j + 1]
        if next_one <= next_two:
            i += 1
            start = next_one
        else:
            start = next_two
        if next_two <= next_one:
            j += 1
    return Steps(one.bits, starts, ids)


def over(base: Steps, top: Steps) -> Steps:
    """`top` where it says anything, else `base`."""
    return combine(base, top, lambda below, above: above or below)


def cidrs(steps: Steps) -> Iterator[tuple[int, int, int]]:
    """`(first, prefix length, id)` of the fewest CIDRs that cover each step, ascending, without id 0."""
    bits = steps.bits
    ends = [*steps.starts[1:], 1 << bits]
    for first, end, ident in zip(steps.starts, ends, steps.ids, strict=True):
        if not ident:
            continue
        start = first
        while start < end:
            # The largest block that starts here (its alignment) and does not pass the end.
            size = min(start & -start or 1 << bits, 1 << ((end - start).bit_length() - 1))
            yield start, bits + 1 - size.bit_length(), ident
            start += size


def addresses(steps: Steps, wanted: Callable[[int], bool]) -> int:
    """How many addresses have an id that is `wanted`."""
    ends = [*steps.starts[1:], 1 << steps.bits]
    return sum(end - first for first, end, ident in zip(steps.starts, ends, steps.ids, strict=True) if wanted(ident))
