"""Step 4 of 6, inspect: a text as its reader will read it: with escapes, entities and percent-encoding written out.

Gets bytes, hands on the text that a second scan looks at, where each of its characters came from, and the bytes that
stand for a character that is to be hidden. One layer is undone, all notations at once; none is undone in what goes on.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, b2a_base64
from bisect import bisect_right
from html import unescape as unescape_html
from itertools import accumulate
from typing import Final

from enforcer.masking.secrets import STANDARD_BASE64

# Each is known from its own bytes, wherever a text is cut: percent-encoding (RFC 3986), a character reference of HTML,
# a number of a character in JSON and programs, a slash in JSON, and the NUL beside an ASCII character in UTF-16, where
# there is another one two bytes on.
_PERCENT: Final = rb"%[0-9A-Fa-f]{2}"
_REFERENCE: Final = rb"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,7});"
_UNIT: Final = re.compile(
    rb"(" + _PERCENT + rb"|" + _REFERENCE + rb"|\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|/)"
    rb"|(?<=\x00[^\x00])\x00(?!\x00)|(?<!\x00)\x00(?=[^\x00]\x00))"
)
MARKS: Final = (_PERCENT, _REFERENCE, rb"\x00[^\x00]\x00")
"""Patterns, one of which matches every text that has such a unit; those that begin with a backslash aside."""

_REMEMBERED: Final = 65536


class _Units(dict[bytes, bytes]):
    """Unit -> what it stands for."""

    def __missing__(self, unit: bytes) -> bytes:
        if len(self) >= _REMEMBERED:
            self.clear()
        meant = self[unit] = _meaning(unit)
        return meant


def _meaning(unit: bytes) -> bytes:
    head = unit[:1]
    if head == b"%":
        return bytes((int(unit[1:], 16),))
    if head == b"&":
        return unescape_html(unit.decode("ascii")).encode("utf-8", "replace")
    if head == b"\0":
        return b""
    if unit[1:2] == b"x":
        return bytes((int(unit[2:], 16),))
    return chr(int(unit[2:], 16)).encode("utf-8", "replace") if unit[1:2] == b"u" else unit[1:]


_UNITS: Final = _Units()


def _asterisk(unit: bytes) -> bytes:
    """A unit as long as `unit` that means an asterisk: a backslash before one would mean nothing in JSON."""
    if unit[:1] == b"\\":
        return unit if unit[1:] == b"/" else unit[:-2] + b"2a" if unit[1:2] == b"x" else b"\\u002a"
    return b"%2A" if unit[:1] == b"%" else b"*" * len(unit)


def is_escaped(data: bytes) -> bool:
    """Does `data` hold a backslash that may stand before a character's number, or the slash of base64?"""
    return b"\\" in data and (b"\\u" in data or b"\\x" in data or b"\\/" in data)


class View:
    """`data`, written out: `text`. Places are offsets, in `data` ("raw") or in `text`."""

    __slots__ = ("_parts", "_raw_edges", "_text_edges", "_written", "text")

    def __init__(self, data: bytes) -> None:
        parts = _UNIT.split(data)  # what stands as it is, and units, in turn
        written = parts[:]
        written[1::2] = map(_UNITS.__getitem__, parts[1::2])
        self._parts, self._written = parts, written
        self.text = b"".join(written)
        self._raw_edges: list[int] = []
        self._text_edges: list[int] = []

    def _edges(self) -> None:
        if not self._raw_edges:
            self._raw_edges = list(accumulate(map(len, self._parts), initial=0))
            self._text_edges = list(accumulate(map(len, self._written), initial=0))

    def raw(self, place: int) -> int:
        """Where in the data the character at `place` of the text begins."""
        self._edges()
        if place >= len(self.text):
            return self._raw_edges[-1]
        part = bisect_right(self._text_edges, place) - 1
        return self._raw_edges[part] + (0 if part % 2 else place - self._text_edges[part])

    def raw_end(self, place: int) -> int:
        """Where in the data the character before `place` of the text ends."""
        self._edges()
        part = bisect_right(self._text_edges, place - 1) - 1
        return self._raw_edges[part + 1] if part % 2 else self._raw_edges[part] + place - self._text_edges[part]

    def place(self, raw: int) -> int:
        """Where in the text the character stands that begins at `raw` of the data, or around it."""
        self._edges()
        if raw >= self._raw_edges[-1]:
            return len(self.text)
        part = bisect_right(self._raw_edges, raw) - 1
        return self._text_edges[part] + (0 if part % 2 else raw - self._raw_edges[part])

    def hidden(self, start: int, end: int, hidden: bytes) -> bytes:
        """The data from `raw(start)` to `raw_end(end)`, as long as before, with `hidden` for the text from `start` to
        `end`. A unit that stays means what it meant; one whose meaning is hidden means an asterisk, and is as long."""
        self._edges()
        out = []
        part = bisect_right(self._text_edges, start) - 1
        while self._text_edges[part] < end:
            low, high = max(start, self._text_edges[part]), min(end, self._text_edges[part + 1])
            new = hidden[low - start : high - start]
            if part % 2:
                unit = self._parts[part]
                out.append(unit if new == self.text[low:high] else _asterisk(unit))
            else:
                out.append(new)
            part += 1
        return b"".join(out)


# --- base64 (RFC 4648): what encodes printable ASCII betrays itself, for the two highest bits of every byte are few.

_LETTER: Final = rb"[0-9A-Za-z+/_-]"
# The first character holds six bits of a byte from 0x20 to 0x7e, the second its last two and four of the next, ...
_GROUP: Final = rb"[I-Za-f][C-HS-Xi-nyz0-3][ABEFIJMNQRUVYZcdghklopstwx014589]" + _LETTER
HEAD: Final = 16
BASE64_MARK: Final = rb"(?:^|[^0-9A-Za-z+/_-])(?:" + _GROUP + rb"){%d}" % (HEAD // 4)
"""The beginning of a run of base64 that encodes text: twelve printable ASCII characters."""
_RUN: Final = re.compile(_LETTER + rb"*")
LETTERS: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/_-")


def run_end(text: bytes, start: int) -> int:
    """Where the run of base64 letters ends that `start` is in."""
    found = _RUN.match(text, start)
    return start if found is None else found.end()


def decoded(text: bytes, start: int, end: int) -> bytes:
    """What the letters from `start` to `end` encode. A lone one at the end encodes nothing yet."""
    letters = text[start:end].translate(STANDARD_BASE64)
    rest = len(letters) % 4
    return a2b_base64(letters[:-1] if rest == 1 else letters + b"=" * (-len(letters) % 4))


def encoded(value: bytes, like: bytes) -> bytes:
    """`value` in base64, in the alphabet and of the length of `like`."""
    letters = b2a_base64(value, newline=False)
    if b"-" in like or b"_" in like:
        letters = letters.translate(_URL_BASE64)
    return letters[: len(like)]


_URL_BASE64: Final = bytes.maketrans(b"+/", b"-_")
