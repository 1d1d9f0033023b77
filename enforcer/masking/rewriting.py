"""Step 4 of 6, inspect: detectors' values replaced as operators say, by texts of other lengths.

Gets what a `Scanner` reads; hands on the text with what takes the values' place. What is spelt in another way (encoded,
in UTF-16, in base64) and what overlaps in part is hidden in place, as by default. Texts that look like pseudonyms are
values where there are pseudonyms. A value is written as a whole, once all of it is known.
"""

from __future__ import annotations

import copy
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple, Self

import orjson

from enforcer.masking import language
from enforcer.masking.confirm import Span
from enforcer.masking.detectors import DETECTORS, Detector
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import INSIDE, string_state
from enforcer.masking.operators import REVEALING, Operators, number
from enforcer.masking.pseudonyms import LITERAL, LONGEST, Forms
from enforcer.masking.rows import Confirm, letters_and_digits
from enforcer.masking.scanner import _NUMBER, Scanner, _nothing, _overlay, _Reading
from enforcer.verdict import PSEUDONYMISE, Operator

HELD_MAX: Final = 256 * 1024
"""Bytes of the longest value that an operator gets: keys and tokens are much shorter."""

_PSEUDONYM: Final = "pseudonym"
EMAIL: Final = "email"
_LEFT: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-")


class _Group(NamedTuple):
    """Values that overlap, as keys of `_Reading.found`, in their order; mostly one."""

    start: int
    end: int
    keys: list[tuple[int, int, int]]


class Rewriting(Scanner):
    """A scanner that applies operators; `bound` to those of a rule before it is used."""

    def __init__(self, detectors: tuple[Detector, ...]) -> None:
        super().__init__(detectors)
        self._operators: Mapping[str, Operator] = {}
        self._apply: Operators | None = None

    def bound(self, operators: Mapping[str, Operator], apply: Operators) -> Self:
        """The same for these operators, by the names of detectors."""
        one = copy.copy(self)
        one._operators, one._apply = {**operators, _PSEUDONYM: Operator(PSEUDONYMISE)}, apply
        return one

    def _edge(self, reading: _Reading, high: int) -> int:
        """Before the values that go on beyond `high`: what overlaps them, or where they end, may not be known yet."""
        for group in _groups(reading):
            if group.start < high < group.end:
                if group.end - group.start > HELD_MAX:
                    raise MaskError(f"a value of more than {HELD_MAX >> 10} KiB cannot be replaced; redact it")
                return group.start
        return high

    def _written(
        self, data: bytes, reading: _Reading, counts: Counter[str], low: int, high: int, *, json: int | None
    ) -> bytes:
        parts: list[bytes] = []
        at = low
        for group in _groups(reading):
            if not low <= group.start < high:
                continue
            if json is not None:
                json = string_state(json, data[at : group.start])
            parts += (data[at : group.start], self._replaced(data, reading, group, json))
            if json is not None:
                json = string_state(json, data[group.start : group.end])
            at = group.end
            self._count(group, counts)
        if not parts:
            return data if low == 0 and high == len(data) else data[low:high]
        return b"".join([*parts, data[at:high]])

    def _count(self, group: _Group, counts: Counter[str]) -> None:
        reached = 0
        for _, minus_end, row in group.keys:
            if -minus_end > reached:
                reached = -minus_end
                if self._detectors[row].name != _PSEUDONYM:
                    counts[self._detectors[row].name] += 1

    def _replaced(self, data: bytes, reading: _Reading, group: _Group, json: int | None) -> bytes:
        """What takes a group's place. `json`: the state of a JSON text there."""
        value = data[group.start : group.end]
        outside = json is not None and not json & INSIDE and _NUMBER.fullmatch(value) is not None
        operator, detector = self._operator(reading, group)
        text = None
        if operator is not None and self._apply is not None:
            if operator.name == PSEUDONYMISE:
                operator = _fitting(operator, data, group)
            plain = _unquoted(value) if json is not None and json & INSIDE else value
            word = LITERAL if detector.name == _PSEUDONYM else detector.name.upper()
            text = self._apply.text(operator, plain.decode("utf-8", "surrogateescape"), word)
        if text is None:
            return _nothing(data, group.start, group.end) if outside else self._hidden(data, reading, group)
        if outside and number(text) is None:
            return _nothing(data, group.start, group.end)
        return _quoted(text) if json is not None and json & INSIDE else text.encode("utf-8", "surrogateescape")

    def _operator(self, reading: _Reading, group: _Group) -> tuple[Operator | None, Detector]:
        """The one for a group, and the detector that it is of; None where it is hidden as by default. Of several values
        nothing may stay readable that one of them hides; what can be taken back is taken back as a whole."""
        detectors = [self._detectors[row] for _, _, row in group.keys]
        if any(reading.found[key] is not None for key in group.keys):
            return None, detectors[0]
        operators = [(self._operators.get(detector.name), detector) for detector in detectors]
        for operator, detector in operators:
            if operator is not None and operator.name == PSEUDONYMISE:
                return operator, detector
        first = operators[0][0]
        return (None, detectors[0]) if len(operators) > 1 and first and first.name in REVEALING else operators[0]

    def _hidden(self, data: bytes, reading: _Reading, group: _Group) -> bytes:
        """A group hidden in place."""
        hidden = bytearray(data[group.start : group.end])
        for key in group.keys:
            value, own = data[key[0] : -key[1]], reading.found[key]
            _overlay(hidden, key[0] - group.start, value, self._detectors[key[2]].hide(value) if own is None else own)
        return bytes(hidden)


def _groups(reading: _Reading) -> Iterator[_Group]:
    """What overlaps, together, left to right."""
    keys: list[tuple[int, int, int]] = []
    end = 0
    for key in sorted(reading.found):
        if keys and key[0] >= end:
            yield _Group(keys[0][0], end, keys)
            keys = []
        keys.append(key)
        end = max(end, -key[1]) if len(keys) > 1 else -key[1]
    if keys:
        yield _Group(keys[0][0], end, keys)


def _fitting(operator: Operator, data: bytes, group: _Group) -> Operator:
    """A pseudonym must be told from what stands beside it. Raises MaskError where none can be."""
    after = data[group.end : group.end + 1]
    if after.isdigit():
        raise MaskError("a digit stands right behind a value, so that its pseudonym could not be told from it")
    beside = group.start > 0 and data[group.start - 1] in _LEFT
    return Operator(PSEUDONYMISE) if beside or after.isalnum() or after == b"-" else operator


def _quoted(text: str) -> bytes:
    """As it stands in a string of JSON."""
    raw = text.encode("utf-8", "surrogateescape")
    try:
        return orjson.dumps(text)[1:-1]
    except orjson.JSONEncodeError:  # bytes that are not UTF-8 stay what they are
        return raw.replace(b"\\", rb"\\").replace(b'"', rb"\"")


def _unquoted(value: bytes) -> bytes:
    """What stands so in a string of JSON."""
    if b"\\" not in value:
        return value
    try:
        text: Any = orjson.loads(b'"' + value + b'"')
    except orjson.JSONDecodeError:
        return value
    return str(text).encode()


# --- texts that look like pseudonyms


def _literal(before: re.Pattern[bytes], whole: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    """`whole`, where `before` ends at `end`."""
    begun = before.search(text, max(0, end - LONGEST), end)
    found = None if begun is None else whole.match(text, begun.start())
    return None if found is None else found.span()


def _around(whole: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    for found in whole.finditer(text, max(0, end - LONGEST), end + LONGEST):
        if found.start() < end <= found.end():
            return found.span()
    return None


# What gives those away that have the form of a value: of mail addresses, and of rows of digits.
_MARKS: Final = (rb"(?i:@example\.invalid)", rb"9(?:[ ()./-]{0,3}[0-9]){6}")


def _lookalikes(forms: Forms) -> Detector:
    spelt = b"|".join(re.escape(word.encode()) for word in forms.words)
    named = rb"(?i:" + spelt + rb")_[0-9]"
    # Also with more digits than pseudonyms have: where a stream is cut within them, it could not be told from one.
    named_whole = re.compile(named + rb"[0-9]{0,40}")
    _, *alike = map(re.compile, forms.patterns)
    candidates: list[tuple[bytes, Confirm]] = [(named, partial(_literal, re.compile(named + rb"\Z"), named_whole))]
    candidates += [(mark, partial(_around, whole)) for mark, whole in zip(_MARKS, alike, strict=False)]
    return Detector(
        name=_PSEUDONYM,
        candidates=tuple(candidates),
        reach=LONGEST,
        hide=letters_and_digits,
        examples=(b"EMAIL_1",),
        counter_examples=(b"EMAIL_",),
    )


# By default the domain of an address stays; an operator gets all of it.
_DOMAIN: Final = re.compile(rb"(?:[0-9A-Za-z\x80-\xff-]|\.(?=[0-9A-Za-z\x80-\xff]))*")


def _hide_local(address: bytes) -> bytes:
    local, at, domain = address.rpartition(b"@")
    return b"*" * len(local) + at + domain


def _whole(detector: Detector) -> Detector:
    return replace(detector, tail=_DOMAIN, hide=_hide_local) if detector.name == EMAIL else detector


@lru_cache(maxsize=16)
def rewriting(names: frozenset[str], operated: frozenset[str], words: tuple[str, ...] | None, alike: bool) -> Rewriting:
    """For the detectors `names`, of which `operated` have operators, made once; with pseudonyms of these words, where
    there are any."""
    chosen = [_whole(one) if one.name in operated else one for one in (*DETECTORS, *language.ROWS) if one.name in names]
    if words is not None:
        chosen.append(_lookalikes(Forms(words, alike=alike)))
    return Rewriting(tuple(chosen))
