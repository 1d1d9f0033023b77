"""Step 4 of 6, inspect: finds the detectors' values in bytes and hides them in place.

Gets bytes and the names of detectors; hands on bytes of the same length. Hyperscan reads everything once and reports where
a candidate ends; Python looks only there. Values that overlap are each hidden in full.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from typing import Final

import hyperscan

from enforcer.masking.detectors import DETECTORS, MAX_AHEAD, MAX_BEHIND, MAX_SPAN, Detector
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import INSIDE, blanked, string_state

AHEAD: Final = MAX_AHEAD + MAX_SPAN
"""Bytes that a decision needs to see after the byte it is about."""

BEHIND: Final = 2 * MAX_SPAN + MAX_BEHIND
"""And before it: a value that covers the byte, a longer one that covers that value, and what confirms it."""

PIECE: Final = 64 * 1024
"""Bytes scanned at once. It bounds the memory that candidates take, whatever the length of a text."""

_DENSE: Final = 64
"""Candidates in one piece from which on equal ones are looked at once only."""

_NUMBER: Final = re.compile(rb"[0-9]+")

_Candidates = list[tuple[int, int]]
_Found = list[tuple[int, int, Detector]]


def _collect(row: int, _start: int, end: int, _flags: int, candidates: _Candidates) -> None:
    candidates.append((end, row))


class Scanner:
    """One set of detectors, compiled. A process has one scratch space per set, so a `Scanner` belongs to one thread."""

    def __init__(self, detectors: tuple[Detector, ...]) -> None:
        self._detectors = detectors
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[detector.pattern for detector in detectors],
            ids=list(range(len(detectors))),
            elements=len(detectors),
            flags=[0] * len(detectors),
        )
        self._scan = self._database.scan

    def suspects(self, data: bytes) -> bool:
        """Could `data` hold a value? Asked per row, and almost always answered no."""
        candidates: _Candidates = []
        self._scan(blanked(data) if b"\\" in data else data, _collect, 0, candidates)
        return bool(candidates)

    def hide(
        self, data: bytes, counts: Counter[str], low: int = 0, high: int | None = None, json: int | None = None
    ) -> bytes:
        """`data[low:high]` with its values hidden, and each that begins there counted; `data` itself if that is the same.

        Around `low` and `high`, `data` is context: `BEHIND` and `AHEAD` bytes of it, or all there are. `json`: the
        `string_state` at `low` of a JSON text, where a number must become `null`, not asterisks.
        """
        if high is None:
            high = len(data)
        text = blanked(data) if b"\\" in data else data
        candidates: _Candidates = []
        self._scan(text, _collect, 0, candidates)
        found = self._confirmed(text, candidates) if candidates else ()
        if not found:
            return data[low:high]
        out, reached, at = bytearray(data), 0, low
        for start, end, detector in found:
            if low <= start < high and end > reached:
                counts[detector.name] += 1
            reached = max(reached, end)
            hidden = detector.hide(bytes(out[start:end]))
            if json is not None and _NUMBER.fullmatch(data, start, end):
                if start > at:
                    json, at = string_state(json, data[at:start]), start
                if not json & INSIDE:
                    hidden = _nothing(data, start, end)
            out[start:end] = hidden
        return bytes(out[low:high])

    def _confirmed(self, text: bytes, candidates: _Candidates) -> _Found:
        """The values among the candidates: from left to right, of equal starts the longest first, then in detector order."""
        found = []
        detectors = self._detectors
        if len(candidates) < _DENSE:
            for end, row in candidates:
                span = detectors[row].confirm(text, end)
                if span is not None:
                    found.append((span[0], -span[1], row))
        else:
            rejected: set[tuple[int, bytes]] = set()
            for end, row in candidates:
                near = row, text[max(0, end - BEHIND) : end + AHEAD]
                if near in rejected:
                    continue
                span = detectors[row].confirm(text, end)
                if span is None:
                    rejected.add(near)
                else:
                    found.append((span[0], -span[1], row))
        found.sort()
        return [(start, -end, detectors[row]) for start, end, row in found]


def _nothing(data: bytes, start: int, end: int) -> bytes:
    """What stands for the JSON number `data[start:end]`: null, or 0 where a minus sign has already been read."""
    return (b"0" if data[start - 1 : start] == b"-" else b"null").ljust(end - start)
