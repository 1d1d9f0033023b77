"""Step 4 of 6, inspect: finds the detectors' values in bytes and hides them in place.

Gets bytes and detectors; hands on bytes of the same length. Hyperscan reads everything once and reports where
candidates end; Python looks only there. Values that overlap are each hidden in full.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Any, Final

import hyperscan

from enforcer.masking.confirm import MAX_SPAN
from enforcer.masking.detectors import DETECTORS, Detector
from enforcer.masking.escapes import INSIDE, blanked, string_state

CONTEXT: Final = MAX_SPAN + max(detector.reach for detector in DETECTORS)
"""Bytes on either side of a byte that decide whether it is hidden, and whether what hides it counts."""

PIECE: Final = 64 * 1024
"""Bytes scanned at once. It bounds the memory that candidates take, whatever the length of a text."""

_DENSE: Final = 64
_REMEMBERED: Final = 1024
"""From so many candidates in a piece on, so many that proved wrong are remembered until its end, per pattern: tables
repeat themselves."""

_NUMBER: Final = re.compile(rb"[0-9]+")

_Candidates = list[tuple[int, int]]


def _collect(row: int, _start: int, end: int, _flags: int, candidates: Any) -> None:
    candidates.append((end, row))


class Scanner:
    """One set of detectors, compiled. A process has one scratch space per set, so a `Scanner` belongs to one thread."""

    def __init__(self, detectors: tuple[Detector, ...]) -> None:
        rows = [(pattern, confirm, detector) for detector in detectors for pattern, confirm in detector.candidates]
        self._confirms = [confirm for _, confirm, _ in rows]
        self._detectors = [detector for _, _, detector in rows]
        self._reaches = [detector.reach for _, _, detector in rows]
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        self._database.compile(
            expressions=[pattern for pattern, _, _ in rows],
            ids=list(range(len(rows))),
            elements=len(rows),
            flags=[0] * len(rows),
        )
        self._scan = self._database.scan

    def candidates(self, data: bytes) -> list[tuple[int, int]]:
        """Where in `data` a value may end (at that byte, or one before) and by which row. Almost always nowhere."""
        candidates: _Candidates = []
        self._scan(blanked(data) if b"\\" in data else data, _collect, 0, candidates)
        return candidates

    def hide(
        self, data: bytes, counts: Counter[str], low: int = 0, high: int | None = None, json: int | None = None
    ) -> bytes:
        """`data[low:high]` with its values hidden, and each that begins there counted; the same object if none is.

        Around `low` and `high`, `data` is context: `CONTEXT` bytes of it, or all there are. `json`: the
        `string_state` at `low` of a JSON text, where a number must become `null`, not asterisks.
        """
        if high is None:
            high = len(data)
        text = blanked(data) if b"\\" in data else data
        candidates: _Candidates = []
        self._scan(text, _collect, 0, candidates)
        found = self._confirmed(text, candidates) if candidates else ()
        if not found:
            return data if low == 0 and high == len(data) else data[low:high]
        parts: list[bytes] = []
        begun = reached = 0  # of the part last added
        at = low
        for start, minus_end, row in found:
            end = -minus_end
            detector = self._detectors[row]
            if low <= start < high and end > reached:
                counts[detector.name] += 1
            if start < reached:
                part = bytearray(parts.pop() + data[reached:end])
                part[start - begun : end - begun] = detector.hide(bytes(part[start - begun : end - begun]))
                parts.append(bytes(part))
                reached = max(reached, end)
                continue
            hidden = detector.hide(data[start:end])
            if json is not None and _NUMBER.fullmatch(data, start, end):
                if start > at:
                    json, at = string_state(json, data[at:start]), start
                if not json & INSIDE:
                    hidden = _nothing(data, start, end)
            parts += (data[reached:start], hidden)
            begun, reached = start, end
        parts.append(data[reached:])
        return b"".join(parts)[low:high]

    def _confirmed(self, text: bytes, candidates: _Candidates) -> list[tuple[int, int, int]]:
        """Start, minus end and row of the values among the candidates: left to right, of equal starts the longest
        first, then in detector order."""
        found = []
        confirms, reaches = self._confirms, self._reaches
        dense = len(candidates) >= _DENSE
        rejected: list[set[bytes]] = [set() for _ in confirms] if dense else []
        near = b""
        for end, row in candidates:
            if dense:
                reach = reaches[row]
                near = text[end - reach if end > reach else 0 : end + reach]
                if near in rejected[row]:
                    continue
            span = confirms[row](text, end)
            if span is not None:
                found.append((span[0], -span[1], row))
            elif dense and len(rejected[row]) < _REMEMBERED:
                rejected[row].add(near)
        found.sort()
        return found


def _nothing(data: bytes, start: int, end: int) -> bytes:
    """What stands for the JSON number `data[start:end]`: null, or 0 where a minus sign has already been read."""
    return (b"0" if data[start - 1 : start] == b"-" else b"null").ljust(end - start)
