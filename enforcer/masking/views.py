"""Step 4 of 6, inspect: a text as its reader will read it: with escapes, entities and percent-encoding written out.

Gets bytes, hands on the text that a second scan looks at, where each of its characters came from, and the bytes that
stand for a character that is to be hidden. One layer is undone, all notations at once; none is undone in what goes on.
"""

from __future__ import annotations

import re
from binascii import a2b_base64, a2b_qp, b2a_base64, unhexlify
from bisect import bisect_right
from html import unescape as unescape_html
from itertools import accumulate
from typing import Final

from enforcer.masking.escapes import Remembered
from enforcer.masking.secrets import STANDARD_BASE64

# Each is known from its own bytes, wherever a text is cut: percent-encoding (RFC 3986), a character reference of HTML,
# a number of a character in JSON and programs, a slash in JSON, and ASCII in UTF-16, three of it at least. What has one
# width per character is one unit however long it is.
_PERCENT: Final = rb"%[0-9A-Fa-f]{2}"
_REFERENCE: Final = rb"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][0-9A-Za-z]{1,7});"
# Those of printable ASCII, of one width each: in a row they are one unit.
_TENS: Final = rb"&#(?:3[2-9]|[4-9][0-9]);"
_HUNDREDS: Final = rb"&#1(?:[01][0-9]|2[0-6]);"
_HEXADECIMAL: Final = rb"&#x(?:[2-6][0-9A-Fa-f]|7[0-9A-Ea-e]);"
_CODE: Final = rb"\\u00[0-7][0-9A-Fa-f]"
_BYTE: Final = rb"\\x[0-9A-Fa-f]{2}"
_SPELT: Final = (
    # Each alternative begins with a character, not with a group: that lets the search skip all others.
    _PERCENT
    + rb"(?:"
    + _PERCENT
    + rb")*|"
    + _TENS
    + rb"(?:"
    + _TENS
    + rb")*|"
    + _HUNDREDS
    + rb"(?:"
    + _HUNDREDS
    + rb")*|"
    + _HEXADECIMAL
    + rb"(?:"
    + _HEXADECIMAL
    + rb")*|"
    + _REFERENCE
    + rb"|"
    + _CODE
    + rb"(?:"
    + _CODE
    + rb")*"
    rb"|\\u[0-9A-Fa-f]{4}|" + _BYTE + rb"(?:" + _BYTE + rb")*|\\/"
)
_WIDE: Final = rb"(?:[^\x00]\x00){3,}"
_UNIT: Final = re.compile(rb"(" + _SPELT + rb")")
_UNIT_OR_WIDE: Final = re.compile(rb"(" + _WIDE + rb"|" + _SPELT + rb")")
_WIDE_MARK: Final = rb"\x00[^\x00]\x00[^\x00]\x00"
MARKS: Final = (_PERCENT, _REFERENCE, _WIDE_MARK)
"""Patterns, one of which matches every text that has such a unit; those that begin with a backslash aside."""
_HAS_WIDE: Final = re.compile(_WIDE_MARK).search
LONGEST: Final = 10
"""Bytes that stand for one character, at most."""


def _width(unit: bytes) -> int:
    """Bytes per character; 0 for a unit that is one character as a whole."""
    if unit[1:2] == b"\0":
        return 2
    if unit[:1] == b"%":
        return 3
    if unit[:2] == b"\\x":
        return 4
    if unit[:1] == b"&":
        return len(found[0]) if (found := _ASCII_REFERENCE.match(unit)) else 0
    return 6 if unit[:4] == b"\\u00" and unit[4] < _EIGHT else 0


_EIGHT: Final = ord("8")
_ASCII_REFERENCE: Final = re.compile(rb"|".join((_TENS, _HUNDREDS, _HEXADECIMAL)))
# Two decimal digits, read as hexadecimal ones -> the number.
_DECIMAL: Final = bytes(16 * (c >> 4) + (c & 15) - 6 * (c >> 4) for c in range(0xA0)).ljust(256, b"\0")


def _meaning(unit: bytes) -> bytes:
    width = _width(unit)
    if width == 2:
        return unit[::2]
    if unit[:1] == b"&" and width:
        return _ascii(unit, width)
    if width:
        return unhexlify(unit.replace(unit[: width - 2], b""))
    if unit[:1] == b"&":
        return unescape_html(unit.decode("ascii")).encode("utf-8", "replace") or b"\0"  # `&#1;` is nothing in HTML
    return chr(int(unit[2:], 16)).encode("utf-8", "replace") if unit[1:2] == b"u" else unit[1:]


def _ascii(unit: bytes, width: int) -> bytes:
    """What references of one width mean."""
    digits = unhexlify(
        unit.replace(b";", b"").replace(b"&#x" if unit[2:3] == b"x" else b"&#1" if width == 6 else b"&#", b"")
    )
    if unit[2:3] == b"x":
        return digits
    return digits.translate(_DECIMAL if width == 5 else _HUNDRED_AND)


_HUNDRED_AND: Final = bytes((value + 100) % 256 for value in _DECIMAL)
_UNITS: Final = Remembered(_meaning)


def _asterisk(unit: bytes) -> bytes:
    """As long as `unit`, which is one character, and means an asterisk: a backslash before one would be no JSON."""
    if unit[1:2] == b"\0":
        return b"*\0"
    if unit[:1] == b"\\":
        return unit if unit[1:] == b"/" else b"\\x2a" if unit[1:2] == b"x" else b"\\u002a"
    return b"%2A" if unit[:1] == b"%" else b"*" * len(unit)


def has_escapes(data: bytes) -> bool:
    """Does `data` hold a backslash that may stand before a character's number, or the slash of base64?"""
    return b"\\u" in data or b"\\x" in data or b"\\/" in data


def _percent_decoded(data: bytes) -> bytes:
    """`data` without percent-encoding: as quoted-printable (RFC 2045, 6.7), which Python reads in C."""
    printable = _NO_ESCAPE.sub(b"%25", data).replace(b"=", b"=3D").replace(b"%", b"=")
    return a2b_qp(printable)


_NO_ESCAPE: Final = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class View:
    """`data`, written out: `text`. Places are offsets, in `data` ("raw") or in `text`."""

    __slots__ = ("_data", "_parts", "_raw_edges", "_text_edges", "_wide", "_written", "text")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._wide = _HAS_WIDE(data) is not None
        self._parts: list[bytes] = []
        self._written: list[bytes] = []
        self._raw_edges: list[int] = []
        self._text_edges: list[int] = []
        if not self._wide and b"&" not in data and b"\\" not in data:
            self.text = _percent_decoded(data)
        else:
            self._split()
            self.text = b"".join(self._written)

    def _split(self) -> None:
        """What stands as it is, and units, in turn."""
        self._parts = (_UNIT_OR_WIDE if self._wide else _UNIT).split(self._data)
        self._written = self._parts[:]
        self._written[1::2] = map(_UNITS.__getitem__, self._parts[1::2])

    def _edges(self) -> None:
        if not self._parts:
            self._split()
        if not self._raw_edges:
            self._raw_edges = list(accumulate(map(len, self._parts), initial=0))
            self._text_edges = list(accumulate(map(len, self._written), initial=0))

    def raw(self, place: int) -> int:
        """Where in the data the character at `place` of the text begins."""
        self._edges()
        if place >= len(self.text):
            return self._raw_edges[-1]
        part = bisect_right(self._text_edges, place) - 1
        return self._raw_edges[part] + (place - self._text_edges[part]) * self._step(part)

    def raw_end(self, place: int) -> int:
        """Where in the data the character before `place` of the text ends."""
        self._edges()
        part = bisect_right(self._text_edges, place - 1) - 1
        step = self._step(part)
        if not step:
            return self._raw_edges[part + 1]
        return self._raw_edges[part] + (place - self._text_edges[part]) * step

    def place(self, raw: int) -> int:
        """Where in the text the character stands that begins at `raw` of the data, or around it."""
        self._edges()
        if raw >= self._raw_edges[-1]:
            return len(self.text)
        part = bisect_right(self._raw_edges, raw) - 1
        step = self._step(part)
        return self._text_edges[part] + ((raw - self._raw_edges[part]) // step if step else 0)

    def _step(self, part: int) -> int:
        """Bytes per character in a part; 0 in one whose bytes are one character together."""
        return _width(self._parts[part]) if part % 2 else 1

    def hidden(self, start: int, end: int, hidden: bytes) -> bytes:
        """The data from `raw(start)` to `raw_end(end)`, as long as before, with `hidden` for the text from `start` to
        `end`. A character that stays is spelt as it was, a hidden one as an asterisk of the same length."""
        self._edges()
        out = []
        part = bisect_right(self._text_edges, start) - 1
        while part < len(self._parts) and self._text_edges[part] < end:
            edge = self._text_edges[part]
            low, high = max(start, edge), min(end, self._text_edges[part + 1])
            new = hidden[low - start : high - start]
            if part % 2:
                unit, step = self._parts[part], self._step(part)
                if step:
                    unit = unit[(low - edge) * step : (high - edge) * step]
                out.append(unit if new == self.text[low:high] else _hide(unit, step, self.text[low:high], new))
            else:
                out.append(new)
            part += 1
        return b"".join(out)


def _hide(unit: bytes, step: int, text: bytes, hidden: bytes) -> bytes:
    """`unit`, which means `text`, with asterisks for the characters that are others in `hidden`."""
    if not step:
        return _asterisk(unit)
    return b"".join(
        unit[place * step : (place + 1) * step] if old == new else _asterisk(unit[place * step : (place + 1) * step])
        for place, (old, new) in enumerate(zip(text, hidden, strict=True))
    )


# --- base64 (RFC 4648): what encodes printable ASCII betrays itself, for the two highest bits of every byte are few.

_LETTER: Final = rb"[0-9A-Za-z+/_-]"
# The first character holds six bits of a byte from 0x20 to 0x7e, the second its last two and four of the next, ...
_GROUP: Final = rb"[I-Za-f][C-HS-Xi-nyz0-3][ABEFIJMNQRUVYZcdghklopstwx014589]" + _LETTER
HEAD: Final = 16
BASE64_MARK: Final = rb"(?:^|[^0-9A-Za-z+/_-])(?:" + _GROUP + rb"){%d}" % (HEAD // 4)
"""The beginning of a run of base64 that encodes text: twelve printable ASCII characters."""
LETTERS: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz+/_-"


def decoded(runs: list[bytes]) -> dict[bytes, bytes]:
    """Run of letters -> what it encodes. A lone one at the end encodes nothing yet. All are read at once."""
    distinct = list(dict.fromkeys(runs))
    whole = b"".join([one + _FILL[len(one) % 4] for one in distinct])
    meant = a2b_base64(whole.translate(STANDARD_BASE64))
    pieces = {}
    start = 0
    for one in distinct:
        size = len(one)
        pieces[one] = meant[start : start + size * 3 // 4]
        start += (size + 3) // 4 * 3
    return pieces


_FILL: Final = (b"", b"AAA", b"AA", b"A")
"""By letters of a last group: what makes it whole."""


def encoded(value: bytes, like: bytes) -> bytes:
    """`value` in base64, in the alphabet and of the length of `like`."""
    letters = b2a_base64(value, newline=False)
    if b"-" in like or b"_" in like:
        letters = letters.translate(_URL_BASE64)
    return letters[: len(like)]


_URL_BASE64: Final = bytes.maketrans(b"+/", b"-_")
