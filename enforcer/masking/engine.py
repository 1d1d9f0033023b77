"""Step 4 of 6, inspect: the engine that reads every byte once and says where values may end.

Gets patterns, reports row and end of each place where one of them may match. Hyperscan does it in one pass for all of
them; google-re2 stands in where Hyperscan has no wheel: the same places, several times slower.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final, Protocol

from enforcer.masking.confirming import Reports, report

try:
    import hyperscan
except ImportError:  # no wheel for this platform
    HAS_HYPERSCAN = False
else:
    HAS_HYPERSCAN = True

HYPERSCAN: Final = "hyperscan"
RE2: Final = "google-re2"


class Engine(Protocol):
    """Patterns, compiled. It belongs to one thread."""

    def scan(self, text: bytes, reports: Reports) -> None:
        """Adds row and end of every match in `text` to `reports`."""

    def matches(self, text: bytes) -> bool:
        """Is there one?"""


def _stop(_row: int, _start: int, _end: int, _flags: int, _context: Any) -> bool:
    return True


class Hyperscan:
    """The engine of choice."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=list(patterns),
            ids=list(range(len(patterns))),
            elements=len(patterns),
            flags=[0] * len(patterns),
        )
        self._scan = self._database.scan

    def scan(self, text: bytes, reports: Reports) -> None:
        self._scan(text, report, 0, reports)

    def matches(self, text: bytes) -> bool:
        try:
            self._scan(text, _stop, 0, None)
        except hyperscan.ScanTerminated:
            return True
        return False


class Re2:
    """The stand-in: a set says which patterns match at all, each of those is then sought place by place."""

    def __init__(self, patterns: Sequence[bytes]) -> None:
        import re2  # noqa: PLC0415 - only where it is needed

        options = re2.Options()
        options.encoding = re2.Options.Encoding.LATIN1
        options.longest_match = False
        options.never_capture = True
        options.log_errors = False
        options.max_mem = 256 << 20
        self._set = re2.Set.SearchSet(options)
        for pattern in patterns:
            self._set.Add(pattern)
        self._set.Compile()
        self._patterns = [re2.compile(pattern, options) for pattern in patterns]

    def scan(self, text: bytes, reports: Reports) -> None:
        for row in self._set.Match(text) or ():
            search = self._patterns[row].search
            ends = set()
            match = search(text)
            while match is not None:
                ends.add(match.end())
                # Matches may overlap: two values share the byte between them.
                match = search(text, match.start() + 1)
            for end in sorted(ends):
                reports.add(row, end)

    def matches(self, text: bytes) -> bool:
        return bool(self._set.Match(text))


@lru_cache(maxsize=1)
def name() -> str:
    """The engine that is used on this host."""
    return HYPERSCAN if HAS_HYPERSCAN else RE2


def make(patterns: Sequence[bytes], engine: str) -> Engine:
    """`engine` with `patterns`."""
    return Hyperscan(patterns) if engine == HYPERSCAN else Re2(patterns)
