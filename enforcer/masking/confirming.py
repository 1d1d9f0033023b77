"""Step 4 of 6, inspect: what is done with each report of the engine, which is where dense texts take their time.

Gets ends of candidates, one by one, keeps the values among them. What proved wrong is remembered until the end of a
piece, for tables repeat themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from enforcer.masking.rows import Confirm

if TYPE_CHECKING:
    from mypy_extensions import i64

Asking = list[list[tuple[Confirm, int]]]
"""Pattern -> what asks for it, with its row."""
Confirmed = list[tuple[int, int, int]]
"""Start, end and row of values."""

_DENSE: Final = 32
"""From so many candidates that proved wrong in a piece on, they are remembered: so many per pattern."""
_REMEMBERED: Final = 1024


class Reports:
    """What is reported of one text: `found`, the values in it, and `base64`, the ends of the pattern `base64_mark`.

    `reaches`: per pattern, how far around its end one decides whether there is a value; 0 where asking again costs no
    more than to remember.
    """

    def __init__(self, text: bytes, asking: Asking, reaches: list[int], base64_mark: int) -> None:
        self.found: Confirmed = []
        self.base64: list[int] = []
        self._text = text
        self._asking = asking
        self._reaches = reaches
        self._base64_mark = base64_mark
        self._wrong = 0
        self._rejected: list[set[bytes]] = []

    def add(self, row: int, end: int) -> None:
        """The pattern `row` matches up to `end`."""
        if row == self._base64_mark:
            self.base64.append(end)
            return
        text = self._text
        reach: i64 = self._reaches[row]
        near = b""
        if reach and self._rejected:
            near = text[end - reach if end > reach else 0 : end + reach]
            if near in self._rejected[row]:
                return
        none = True
        for confirm, number in self._asking[row]:
            span = confirm(text, end)
            if span is not None:
                self.found.append((span[0], span[1], number))
                none = False
        if none and reach:
            self._remember(row, near)

    def _remember(self, row: int, near: bytes) -> None:
        self._wrong += 1
        if not self._rejected:
            if self._wrong == _DENSE:
                self._rejected = [set() for _ in self._asking]
        elif len(self._rejected[row]) < _REMEMBERED:
            self._rejected[row].add(near)


class Ends(Reports):
    """Where there may be values: nothing is asked about."""

    def __init__(self, base64_mark: int) -> None:
        super().__init__(b"", [], [], base64_mark)

    def add(self, row: int, end: int) -> None:
        if row == self._base64_mark:
            self.base64.append(end)
        else:
            self.found.append((end, end, row))


def report(row: int, _start: int, end: int, _flags: int, reports: Any) -> None:
    """What Hyperscan calls for each match."""
    known: Reports = reports
    known.add(row, end)


def ends_of_runs(text: bytes, starts: list[int], letters: bytes) -> list[tuple[int, int]]:
    """From each of `starts` on, up to where there are only `letters`."""
    within = bytes(byte in letters for byte in range(256))
    size: i64 = len(text)
    runs: list[tuple[int, int]] = []
    for start in starts:
        end: i64 = start
        while end < size and within[text[end]]:
            end += 1
        runs.append((start, end))
    return runs
