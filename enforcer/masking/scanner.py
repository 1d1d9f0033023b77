"""Step 4 of 6, inspect: finds the detectors' values in bytes, in every spelling, and hides them in place.

Gets bytes and detectors; hands on bytes of the same length. The engine reads everything once and reports where
candidates end; Python looks only there. Where the text has escapes it is read a second time, written out, and what
base64 in it encodes is read too.

Of values that overlap the one that begins first comes first, of those the longest, of those the earlier row of the
table. A value inside of one before it is that one's. What goes on beyond is a value of its own, from there on; and
neither keeps readable what the other hides.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from itertools import accumulate
from typing import Final, NamedTuple

from enforcer.masking import engine, language, phones, validators, views
from enforcer.masking.confirm import LABEL, MAX_SPAN, any_card, iban
from enforcer.masking.confirming import Ends, Reports, ends_of_runs
from enforcer.masking.contacts import ipv4
from enforcer.masking.detectors import DETECTORS, Detector
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import INSIDE, blanked, string_state
from enforcer.masking.rows import Confirm
from enforcer.masking.views import View

CONTEXT: Final = MAX_SPAN + max(detector.reach for detector in DETECTORS)
"""Characters on either side of one that decide whether it is hidden, and whether what hides it counts."""

HOLD: Final = CONTEXT * 4 // 3 + 8
"""The same in letters of base64, of which four are three characters."""

PIECE: Final = 64 * 1024
"""Bytes scanned at once. It bounds the memory that candidates take, whatever the length of a text."""

_SETTLED: Final = 192
"""Characters from the beginning of a window on in which the head of a value with a tail may be mistaken, for what is
before it cannot be seen: more than the reach of any such row, a multiple of three, and less than `CONTEXT`."""
_SETTLED_LETTERS: Final = _SETTLED // 3 * 4

_NUMBER: Final = re.compile(rb"[0-9][0-9.eE+-]*")
# Between what several runs of base64 encode: an end to every value, and as far as one looks, nothing of a label.
_BETWEEN: Final = b"\0" + b"{" * LABEL + b"\0"
_BETWEEN_FEW: Final = b"\0{\0"

# What is confirmed as fast as it is remembered to have been wrong.
_QUICK: Final = frozenset({any_card, iban, ipv4})

NOTHING: Final = -1


class Carry(NamedTuple):
    """What is known of the text before a window, and not seen in it.

    `plain` and `written`: rows of the values whose tails go on `_SETTLED` characters into the window, as it is and
    written out. `base64`: letters (modulo 4) before the window of a run of base64 that it begins within. `amid`: does
    the window begin amid letters, so that no run can begin there? `inner`: rows of the values whose tails go on
    `_SETTLED` characters into what that run encodes.
    """

    plain: tuple[int, ...] = ()
    written: tuple[int, ...] = ()
    base64: int = NOTHING
    amid: bool = False
    inner: tuple[int, ...] = ()


BEGINNING: Final = Carry()


class Hit(NamedTuple):
    """A value: where in the bytes, what kind, whether it is spelt there as it is, neither escaped nor encoded, and what
    confirmed it, if it was not the language model."""

    start: int
    end: int
    detector: Detector
    plain: bool
    confirm: Confirm | None


_Tails = list[tuple[int, int, int]]
"""Start, end and row of values that have a tail."""


def _across(tails: _Tails, place: int) -> tuple[int, ...]:
    """The rows of those that go on at `place`."""
    return tuple(dict.fromkeys(row for start, end, row in tails if start <= place < end))


class _Reading:
    """One window, read. `text`: the window, written out if there was anything to write out. `found`: start, minus end
    and row of each value -> the bytes that hide it, if its spelling is not plain. `plain`, `written`: the tails in the
    window as it is, and in `text`. `runs`: of base64: where whole groups begin and letters end, in `text`; `tails`: by
    run, those in what it encodes."""

    __slots__ = ("found", "plain", "runs", "tails", "text", "view", "written")

    def __init__(self, text: bytes, view: View | None) -> None:
        self.text = text
        self.view = view
        self.found: dict[tuple[int, int, int], bytes | None] = {}
        self.plain: _Tails = []
        self.written: _Tails = []
        self.runs: list[tuple[int, int]] = []
        self.tails: dict[int, _Tails] = {}

    def carried(self, seen: bytes, keep: int) -> Carry:
        """What the window that begins at `keep` of what was seen must know."""
        plain = _across(self.plain, keep + _SETTLED)
        if not self.written and not self.runs:
            return Carry(plain, (), NOTHING, self._amid(seen, keep))
        cut = keep if self.view is None else self.view.place(keep)
        written = _across(self.written, cut + _SETTLED)
        for run, (start, end) in enumerate(self.runs):
            if start < cut < end:
                letters = (cut - start) % 4
                inside = (cut + -letters % 4 + _SETTLED_LETTERS - start) // 4 * 3
                return Carry(plain, written, letters, True, _across(self.tails.get(run, []), inside))
        return Carry(plain, written, NOTHING, self._amid(seen, keep))

    def _amid(self, seen: bytes, keep: int) -> bool:
        """Is what stands before `keep` a letter of base64?"""
        if self.view is None:
            return self.text[keep - 1] in views.LETTERS
        before = View(seen[max(0, keep - 2 * views.LONGEST) : keep]).text
        return before != b"" and before[-1] in views.LETTERS


def _before(reading: _Reading, seen: bytes, end: int) -> int:
    """Where the `HOLD` characters begin that end at `end` of what was seen, or its beginning."""
    if reading.view is None:
        return max(0, end - HOLD)
    # Most units are short: a look at the last of them is enough.
    first = max(0, end - HOLD * views.LONGEST - 2 * views.LONGEST)
    view = View(seen[first:end])
    return first + view.raw(len(view.text) - HOLD) if len(view.text) > HOLD else 0


class Scanner:
    """One set of detectors, compiled. A process has one scratch space per set, so a `Scanner` belongs to one thread."""

    def __init__(self, detectors: tuple[Detector, ...], engine_name: str | None = None) -> None:
        rows = [(pattern, confirm, detector) for detector in detectors for pattern, confirm in detector.candidates]
        patterns = list(dict.fromkeys(pattern for pattern, _, _ in rows))
        self._detectors = [detector for _, _, detector in rows]
        self._confirms: list[Confirm | None] = [confirm for _, confirm, _ in rows]
        # Pattern -> what asks for it, with its row.
        self._asking: list[list[tuple[Confirm, int]]] = [[] for _ in patterns]
        for row, (pattern, confirm, _) in enumerate(rows):
            self._asking[patterns.index(pattern)].append((confirm, row))
        self._reaches = [
            0 if all(one in _QUICK for one, _ in asking) else max(self._detectors[row].reach for _, row in asking)
            for asking in self._asking
        ]
        self._base64_mark = len(patterns)
        self._scan = engine.make([*patterns, views.BASE64_MARK], engine_name or engine.name()).scan
        self._has_units = engine.make(views.MARKS, engine_name or engine.name()).matches
        for detector in detectors:
            validators.load(detector.validator)
            if detector.name == "phone":
                phones.load()
        named = [detector for detector in detectors if detector.name in language.NAMES]
        self._named = {detector.name: row for row, detector in enumerate(named, len(rows))}
        self._detectors += named
        self._confirms += [None] * len(named)
        if named:
            language.load()

    @property
    def reads_whole(self) -> bool:
        """Does a text have to be there from its beginning to its end? One that comes in pieces is refused then."""
        return bool(self._named)

    def suspects(self, data: bytes) -> list[int]:
        """Places in `data`: one at least inside of each value, or on the byte after it. Almost always none."""
        ends = Ends(self._base64_mark)
        self._scan(blanked(data) if b"\\" in data else data, ends)
        places = [max(0, end - 2) for _, end, _ in ends.found]
        if ends.base64 or self._is_escaped(data):
            places += [-minus_end - 1 for _, minus_end, _ in self._read(data, BEGINNING).found]
        return places

    def hits(self, data: bytes) -> list[Hit]:
        """The values in `data`, left to right, none over another. What replaces one that is not plain must be of its
        length."""
        hits: list[Hit] = []
        reached = 0
        found = self._read(data, BEGINNING).found
        for start, minus_end, row in sorted(found):
            if -minus_end > reached:
                plain = found[start, minus_end, row] is None
                spelt = plain and start >= reached
                hits.append(Hit(max(start, reached), -minus_end, self._detectors[row], spelt, self._confirms[row]))
                reached = -minus_end
        return hits

    def hide(
        self, data: bytes, counts: Counter[str], low: int = 0, high: int | None = None, json: int | None = None
    ) -> bytes:
        """`data[low:high]` with its values hidden, and each that begins there counted; the same object if none is.

        Around `low` and `high`, `data` is context. `json`: the `string_state` at `low` of a JSON text, where a number
        must become `null`, not asterisks.
        """
        reading = self._read(data, BEGINNING)
        return self._written(data, reading, counts, low, len(data) if high is None else high, json=json)

    def slide(
        self, seen: bytes, low: int, final: bool, counts: Counter[str], *, json: int | None, carry: Carry
    ) -> tuple[bytes, int, int, Carry]:
        """What of `seen` from `low` on is certain, hidden and counted as by `hide`; up to where that is; and for the
        next window, from where on it must see what was seen, and what else it must know: its `carry`."""
        if self._named:
            raise MaskError(f"names are looked for in whole texts of up to {language.LONGEST >> 10} KiB; ask for less")
        if not final and len(seen) - low <= HOLD:
            return b"", low, 0, carry
        reading = self._read(seen, carry)
        high = len(seen) if final else self._edge(reading, _before(reading, seen, len(seen)))
        if high <= low and not final:
            return b"", low, 0, carry
        out = self._written(seen, reading, counts, low, high, json=json)
        if final:
            return out, high, high, BEGINNING
        keep = _before(reading, seen, high)
        return out, high, keep, reading.carried(seen, keep) if keep else carry

    def _edge(self, reading: _Reading, high: int) -> int:  # noqa: ARG002 - where a value is cut, so is what hides it
        """Up to where what is certain before `high` can be written."""
        return high

    # --- reading

    def _is_escaped(self, data: bytes) -> bool:
        """May there be characters in `data` that are not spelt as they are?"""
        if b"\\" in data and views.has_escapes(data):
            return True
        return (b"%" in data or b"&" in data or b"\0" in data) and self._has_units(data)

    def _read(self, data: bytes, carry: Carry) -> _Reading:
        text = blanked(data) if b"\\" in data else data
        reports = self._reports(text)
        escaped = self._is_escaped(data)
        reading = _Reading(text, None)
        if not reports.found and not reports.base64 and not escaped and carry is BEGINNING:
            return reading
        base64, heads = self._read_text(reading, data, reports, carry)
        reading.plain = heads + self._read_tails(reading, data, carry.plain)
        if escaped:
            plain, view = reading, View(data)
            reading = _Reading(blanked(view.text) if b"\\" in view.text else view.text, view)
            reading.found, reading.plain = plain.found, plain.plain
            base64, heads = self._read_text(reading, data, self._reports(reading.text), carry)
        reading.written = heads + self._read_tails(reading, data, carry.written)
        if base64 or carry.base64 != NOTHING:
            self._read_base64(reading, base64, carry)
        return reading

    def _read_text(self, reading: _Reading, data: bytes, reports: Reports, carry: Carry) -> tuple[list[int], _Tails]:
        """Adds the values in the text; the ends of what may be heads of base64, and the values with tails."""
        tails: _Tails = []
        for start, stop, row in reports.found:
            end, tail = stop, self._detectors[row].tail
            if tail is not None:
                if start < _SETTLED and carry is not BEGINNING:
                    continue
                end = _tail_end(tail, reading.text, stop)
                tails.append((start, end, row))
            self._add(reading, data, start, end, row)
        return reports.base64, tails

    def _read_tails(self, reading: _Reading, data: bytes, rows: tuple[int, ...]) -> _Tails:
        """Adds what goes on from the window before."""
        tails: _Tails = []
        for row in rows:
            tail = self._detectors[row].tail
            end = _SETTLED if tail is None else _tail_end(tail, reading.text, _SETTLED)
            if end > _SETTLED:
                tails.append((_SETTLED, end, row))
                self._add(reading, data, _SETTLED, end, row)
        return tails

    def _add(self, reading: _Reading, data: bytes, start: int, end: int, row: int) -> None:
        """Adds the value from `start` to `end` of the text."""
        if reading.view is not None:
            self._add_escaped(reading, data, start, end, row)
        elif self._detectors[row].tail is not None and b"\\" in data[start:end]:
            self._add_spelt(reading, data, start, end, row)
        else:
            reading.found[start, -end, row] = None

    def _add_escaped(self, reading: _Reading, data: bytes, start: int, end: int, row: int) -> None:
        view = reading.view
        if view is None or start == end:
            return
        raw, raw_end = view.raw(start), view.raw_end(end)
        value = data[raw:raw_end]
        if value == view.text[start:end] and (self._detectors[row].tail is None or b"\\" not in value):
            reading.found.setdefault((raw, -raw_end, row), None)
            return
        hidden = view.hidden(start, end, self._detectors[row].hide(view.text[start:end]))
        reading.found.setdefault((raw, -raw_end, row), hidden)

    def _add_spelt(self, reading: _Reading, data: bytes, start: int, end: int, row: int) -> None:
        """A value with a tail that has backslashes in it: escapes stay whole, or go whole."""
        value = data[start:end]
        view = View(value)
        last = len(view.text)
        hidden = view.hidden(0, last, self._detectors[row].hide(view.text))
        hidden = value[: view.raw(0)] + hidden + value[view.raw_end(last) :] if last else value
        reading.found[start, -end, row] = hidden

    def _read_base64(self, reading: _Reading, ends: list[int], carry: Carry) -> None:
        """Adds the values in what the runs of base64 encode. All of them are read at once."""
        text = reading.text
        runs: list[tuple[int, int]] = []
        if carry.base64 != NOTHING:
            runs += ends_of_runs(text, [-carry.base64 % 4], views.LETTERS)
        starts = [end - views.HEAD for end in ends if end != views.HEAD or not carry.amid]
        runs += ends_of_runs(text, starts, views.LETTERS)
        if not runs:
            return
        # The same letters encode the same, wherever they stand: each are read once.
        letters = [text[start:end] for start, end in runs]
        pieces = views.decoded(letters)
        values = self._read_pieces(self._suspected(pieces))
        reading.runs = runs
        if not values and carry.base64 == NOTHING:
            return
        for run, one in enumerate(letters):
            within = run == 0 and carry.base64 != NOTHING
            found = values.get(one, [])
            if within and len(pieces[one]) > _SETTLED:
                found = found + [(_SETTLED, self._inner_end(row, pieces[one]), row) for row in carry.inner]
            if found:
                self._read_run(reading, run, pieces[one], found, carry if within else BEGINNING)
        if carry.base64 != NOTHING:
            reading.runs[0] = (-carry.base64, runs[0][1])

    def _suspected(self, pieces: dict[bytes, bytes]) -> dict[bytes, bytes]:
        """Those pieces in which there may be values: what parts them here takes no longer to scan than they do."""
        joined = _BETWEEN_FEW.join(pieces.values())
        ends = Ends(self._base64_mark)
        self._scan(blanked(joined) if b"\\" in joined else joined, ends)
        if not ends.found:
            return {}
        edges = list(accumulate((len(piece) + len(_BETWEEN_FEW) for piece in pieces.values()), initial=0))
        letters = list(pieces)
        suspected = {bisect_right(edges, end - 1) - 1 for _, end, _ in ends.found}
        return {letters[number]: pieces[letters[number]] for number in suspected}

    def _read_pieces(self, pieces: dict[bytes, bytes]) -> dict[bytes, _Tails]:
        """The values in each piece."""
        values: dict[bytes, _Tails] = {}
        if not pieces:
            return values
        edges = list(accumulate((len(piece) + len(_BETWEEN) for piece in pieces.values()), initial=0))
        joined = _BETWEEN.join(pieces.values())
        plain = blanked(joined) if b"\\" in joined else joined
        letters = list(pieces)
        for start, stop, row in self._reports(plain).found:
            number = bisect_right(edges, start) - 1
            end, tail = stop, self._detectors[row].tail
            if tail is not None:
                end = min(_tail_end(tail, plain, stop), edges[number] + len(pieces[letters[number]]))
            values.setdefault(letters[number], []).append((start - edges[number], end - edges[number], row))
        return values

    def _inner_end(self, row: int, piece: bytes) -> int:
        """Where the tail of a value ends that goes on `_SETTLED` bytes into what a run encodes."""
        tail = self._detectors[row].tail
        return _SETTLED if tail is None else _tail_end(tail, blanked(piece) if b"\\" in piece else piece, _SETTLED)

    def _read_run(self, reading: _Reading, run: int, piece: bytes, found: _Tails, carry: Carry) -> None:
        """Adds the values in `piece`, which one run encodes. `carry`: of a run that began before the window."""
        moved = 3 if carry.base64 > 0 else 0  # what the group before the first whole one encodes
        values: _Tails = []
        for start, end, row in found:
            if self._detectors[row].tail is not None:
                if start < _SETTLED and carry is not BEGINNING:
                    continue
                reading.tails.setdefault(run, []).append((start + moved, end + moved, row))
            if start < end <= len(piece):
                values.append((start, end, row))
        if values:
            self._add_base64(reading, piece, reading.runs[run], values)

    def _add_base64(
        self,
        reading: _Reading,
        piece: bytes,
        letters_of: tuple[int, int],
        values: list[tuple[int, int, int]],
    ) -> None:
        """Adds the values in `piece`, which some letters of the text, from one place to another, encode."""
        first, last = letters_of
        hidden = bytearray(piece)
        for start, end, row in values:
            _overlay(hidden, start, piece[start:end], self._detectors[row].hide(piece[start:end]))
        for start, end, row in values:
            low, high = first + start // 3 * 4, min(first + -(-end // 3) * 4, last)
            letters = reading.text[low:high]
            new = views.encoded(bytes(hidden[start // 3 * 3 : -(-end // 3) * 3]), letters)
            if reading.view is None:
                reading.found.setdefault((low, -high, row), new)
            else:
                raw, raw_end = reading.view.raw(low), reading.view.raw_end(high)
                reading.found.setdefault((raw, -raw_end, row), reading.view.hidden(low, high, new))

    def _reports(self, text: bytes) -> Reports:
        """The values in the text; and the ends of what looks like the head of base64."""
        reports = Reports(text, self._asking, self._reaches, self._base64_mark)
        self._scan(text, reports)
        if self._named:
            reports.found += [
                (start, end, self._named[name]) for name, start, end in language.find(text) if name in self._named
            ]
        return reports

    # --- writing

    def _written(
        self, data: bytes, reading: _Reading, counts: Counter[str], low: int, high: int, *, json: int | None
    ) -> bytes:
        found = reading.found
        if not found:
            return data if low == 0 and high == len(data) else data[low:high]
        parts: list[bytes | memoryview] = []
        shown = memoryview(data)
        begun = reached = 0  # of the part last added
        at = low
        for key in sorted(found):
            start, end, detector = key[0], -key[1], self._detectors[key[2]]
            if low <= start < high and end > reached:
                counts[detector.name] += 1
            value, hidden = data[start:end], found[key]
            if start < reached:
                part = bytearray(b"".join((parts.pop(), shown[reached:end])))
                _overlay(part, start - begun, value, detector.hide(value) if hidden is None else hidden)
                parts.append(bytes(part))
                reached = max(reached, end)
                continue
            if hidden is None:
                hidden = detector.hide(value)
                if json is not None and _NUMBER.fullmatch(value):
                    if start > at:
                        json, at = string_state(json, data[at:start]), start
                    if not json & INSIDE:
                        hidden = _nothing(data, start, end)
            parts += (shown[reached:start], hidden)
            begun, reached = start, end
        parts.append(shown[reached:])
        return b"".join(parts)[low:high]


def _tail_end(tail: re.Pattern[bytes], text: bytes, start: int) -> int:
    found = tail.match(text, start)
    return start if found is None else found.end()


def _overlay(text: bytearray, start: int, value: bytes, hidden: bytes) -> None:
    """Hides in `text` from `start` on what `hidden` hides of `value`; what is hidden there already stays so."""
    for place, (old, new) in enumerate(zip(value, hidden, strict=True), start):
        if old != new:
            text[place] = new


def _nothing(data: bytes, start: int, end: int) -> bytes:
    """What stands for the JSON number `data[start:end]`: null, or 0 where a minus sign has already been read."""
    return (b"0" if data[start - 1 : start] == b"-" else b"null").ljust(end - start)
