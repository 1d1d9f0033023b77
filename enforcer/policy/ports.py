"""Step 3 of 6, decide: arithmetic on ports. Ranges are inclusive; what is handed on is ascending, disjoint and not
adjacent, so that equal sets of ports are equal lists.
"""

from __future__ import annotations

from collections.abc import Iterable

Ports = tuple[int, int]
ALL_PORTS: Ports = (1, 65535)


def union(ranges: Iterable[Ports]) -> list[Ports]:
    """Every port of `ranges`."""
    merged: list[Ports] = []
    for low, high in sorted(ranges):
        if merged and low <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(merged[-1][1], high))
        else:
            merged.append((low, high))
    return merged


def both(one: Iterable[Ports], two: Iterable[Ports]) -> list[Ports]:
    """The ports that are in `one` and in `two`."""
    others = list(two)
    return union(
        (max(low, other_low), min(high, other_high))
        for low, high in one
        for other_low, other_high in others
        if max(low, other_low) <= min(high, other_high)
    )


def minus(ranges: Iterable[Ports], taken: Iterable[Ports]) -> list[Ports]:
    """The ports of `ranges` that are not in `taken`."""
    left = union(ranges)
    for low, high in taken:
        below = [(first, min(last, low - 1)) for first, last in left]
        above = [(max(first, high + 1), last) for first, last in left]
        left = sorted((first, last) for first, last in (*below, *above) if first <= last)
    return left
