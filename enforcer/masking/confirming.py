"""Step 4 of 6, inspect: the loop over what the engine reports, which is where dense texts take their time.

Gets ends of candidates, hands on the values among them. What proved wrong is remembered until the end of a piece, for
tables repeat themselves.
"""

from __future__ import annotations

from typing import Any, Final

from enforcer.masking.rows import Confirm

Asking = list[list[tuple[Confirm, int]]]
"""Pattern -> what asks for it, with its row."""
Confirmed = list[tuple[int, int, int]]
"""Start, end and row of values."""

_DENSE: Final = 64
_REMEMBERED: Final = 1024
"""From so many candidates in a piece on, so many that proved wrong are remembered, per pattern."""


def collect(row: int, _start: int, end: int, _flags: int, candidates: Any) -> None:
    """What Hyperscan calls for each match."""
    candidates.append((end, row))


def confirmed(
    text: bytes, candidates: list[tuple[int, int]], asking: Asking, reaches: list[int], base64_mark: int
) -> tuple[Confirmed, list[int]]:
    """The values among the candidates; and the ends of those of the pattern `base64_mark`. `reaches`: per pattern, how
    far around its end one decides."""
    found: Confirmed = []
    base64: list[int] = []
    dense = len(candidates) >= _DENSE
    rejected: list[set[bytes]] = [set() for _ in asking] if dense else []
    near = b""
    for end, pattern in candidates:
        if pattern == base64_mark:
            base64.append(end)
            continue
        if dense:
            reach = reaches[pattern]
            near = text[end - reach if end > reach else 0 : end + reach]
            if near in rejected[pattern]:
                continue
        none = True
        for confirm, row in asking[pattern]:
            span = confirm(text, end)
            if span is not None:
                found.append((span[0], span[1], row))
                none = False
        if none and dense and len(rejected[pattern]) < _REMEMBERED:
            rejected[pattern].add(near)
    return found, base64
