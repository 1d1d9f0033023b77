"""Step 4 of 6, inspect: pseudonyms in an answer taken back, whatever it is and however it is cut.

Gets texts as `text.TextMask` does; hands on the same with values where pseudonyms were, spelt as the text needs it.
Holds back no more than what may be the beginning of a pseudonym.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import Final
from urllib.parse import quote_from_bytes

import orjson

from enforcer.masking.escapes import INSIDE, Unescaper, string_state
from enforcer.masking.pseudonyms import Pseudonymiser
from enforcer.masking.text import TextMask

Spell = Callable[[bytes], bytes]
"""A value as a kind of text spells it."""

_PLAIN_IN_JSON: Final = re.compile(rb'[^"\\\x00-\x1f]*')
JSON_NUMBER: Final = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
_HEAD: Final = 64
_BLANK: Final = b" \t\r\n"


class Restored:
    """Text of which each value is spelt by `spell`."""

    def __init__(self, pseudonyms: Pseudonymiser, spell: Spell | None = None) -> None:
        self._pseudonyms = pseudonyms
        self._spell = spell
        self._held = b""
        self._before = b""  # what has left last: a letter before a digit, so that it begins no number

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:  # noqa: ARG002 - the interface
        text = self._before + self._held + data
        begin = len(self._before)
        end = len(text) if final else self._certain(text, begin)
        parts, at = list[bytes](), begin
        for start, stop, value in self._pseudonyms.found(text[:end], begin):
            raw = value.encode("utf-8", "surrogateescape")
            parts += (text[at:start], self._spelt(raw, text, start))
            at = stop
        parts.append(text[at:end])
        self._passed(text[begin:end])
        self._before, self._held = (b"", b"") if final else (text[max(0, end - 1) : end], text[end:])
        return b"".join(parts)

    def _certain(self, text: bytes, begin: int) -> int:
        """Up to where it is certain what is a pseudonym."""
        return max(begin, self._pseudonyms.forms.held(text))

    def _spelt(self, value: bytes, text: bytes, start: int) -> bytes:  # noqa: ARG002 - of JSON
        return value if self._spell is None else self._spell(value)

    def _passed(self, text: bytes) -> None:
        """`text`, as it was, is done with."""


class RestoredJson(Restored):
    """JSON text: a value in a string is escaped, twice in a string that is itself JSON; escapes that hide letters of a
    pseudonym are written out."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        super().__init__(pseudonyms)
        self._unescaper = Unescaper()
        self._state = 0
        self._head = b""  # how the string begins that the text so far ends in

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        out = super().feed(self._unescaper.feed(data, final), final, counts)
        if final:
            self._state, self._head, self._unescaper = 0, b"", Unescaper()
        return out

    def _spelt(self, value: bytes, text: bytes, start: int) -> bytes:
        state = string_state(self._state, text[len(self._before) : start])
        if not state & INSIDE:
            return value if JSON_NUMBER.fullmatch(value) else b'"' + json_string(value) + b'"'
        if _PLAIN_IN_JSON.fullmatch(value):
            return value
        opened = _opening(text, len(self._before), start)
        head = self._head if opened < 0 else text[opened : opened + _HEAD]
        return json_string(json_string(value)) if is_json(head) else json_string(value)

    def _passed(self, text: bytes) -> None:
        self._state = string_state(self._state, text)
        if not self._state & INSIDE:
            self._head = b""
            return
        opened = _opening(text, 0, len(text))
        if opened >= 0:
            self._head = text[opened : opened + _HEAD]
        elif len(self._head) < _HEAD:
            self._head = (self._head + text)[:_HEAD]


class RestoredUnsure:
    """Text that does not say what it is: JSON where it begins so."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        self._pseudonyms = pseudonyms
        self._begun: Restored | None = None

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        if self._begun is None:
            if not data.strip(_BLANK) and not final:
                return data
            self._begun = (RestoredJson if is_json(data) else Restored)(self._pseudonyms)
        out = self._begun.feed(data, final, counts)
        if final:
            self._begun = None
        return out


def _opening(text: bytes, begin: int, end: int) -> int:
    """Where the string begins that is open at `end`, behind its quote; -1 where that is before `begin`."""
    while (end := text.rfind(b'"', begin, end)) >= 0:
        before = text[max(begin, end - 256) : end]
        if (len(before) - len(before.rstrip(b"\\"))) % 2 == 0:
            return end + 1
    return -1


def is_json(text: bytes) -> bool:
    """Does `text` begin as a JSON document that holds others?"""
    return text.lstrip(_BLANK)[:1] in (b"{", b"[")


def json_string(value: bytes) -> bytes:
    """As it stands in a string of JSON."""
    try:
        return orjson.dumps(value.decode("utf-8"))[1:-1]
    except UnicodeDecodeError:
        return value.replace(b"\\", rb"\\").replace(b'"', rb"\"")


def in_markup(value: bytes) -> bytes:
    """As it stands in HTML and XML."""
    return escape(value.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")


def in_address(value: bytes) -> bytes:
    """As it stands in a path, a query or a form."""
    return quote_from_bytes(value, "@:-._~").encode("ascii")


class Chain:
    """One text through two masks, the second of which gets what the first lets go."""

    def __init__(self, first: TextMask, second: TextMask) -> None:
        self._first = first
        self.second = second

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        return self.second.feed(self._first.feed(data, final, counts), final, counts)
