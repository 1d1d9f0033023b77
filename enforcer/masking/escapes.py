"""Step 4 of 6, inspect: what backslashes hide from a scan of the bytes.

JSON may spell any character as `\\uXXXX`, so a card number can be there without one of its digits; and the `n` of `\\n`
looks like a letter in front of the next word. `Unescaper` undoes the first (the same JSON value, spelt otherwise),
`blanked` the second.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable
from functools import lru_cache
from typing import Final

# Characters that stay escaped: JSON needs it (controls, quote, backslash), or a page that embeds the text may.
# No detector's value holds one of them.
_KEEP: Final = frozenset('"\\<>&\u2028\u2029') | frozenset(map(chr, range(0x20)))

_KEPT: Final = re.compile("[" + re.escape("".join(sorted(_KEEP))) + "]")
_HEX: Final = rb"[0-9a-fA-F]"
_PAIR: Final = rb"\\u([dD][89abAB]" + _HEX + rb"{2})\\u([dD][c-fC-F]" + _HEX + rb"{2})"
_SINGLE: Final = rb"\\u(" + _HEX + rb"{4})"
_NUMBERED: Final = re.compile(_PAIR + rb"|" + _SINGLE)
# Escapes in a row; one that is cut; others. Each is consumed from its backslash, so that the second one of `\\u0041`
# begins nothing.
_CUT: Final = rb"\\(?:u" + _HEX + rb"{0,3})?\Z"
_ESCAPES: Final = re.compile(rb"((?:\\u" + _HEX + rb"{4})+|" + _CUT + rb"|(?:\\[^u])+|\\u)")
_IS_CUT: Final = re.compile(_CUT)
_HIGH: Final = re.compile(rb"\\u[dD][89abAB]" + _HEX + rb"{2}\Z")
_NUMBERED_LENGTH: Final = 6


@lru_cache(maxsize=1024)
def _character(digits: bytes) -> bytes | None:
    code = int(digits, 16)
    character = chr(code)
    if character in _KEEP or 0xD800 <= code <= 0xDFFF:  # half of a surrogate pair is no character
        return None
    return character.encode()


def _one(match: re.Match[bytes]) -> bytes:
    high, low, single = match.groups()
    if high:
        return chr(0x10000 + ((int(high, 16) & 0x3FF) << 10) + (int(low, 16) & 0x3FF)).encode()
    return _character(single) or match[0]


def _written(escapes: bytes) -> bytes:
    """What some escapes in a row mean."""
    if len(escapes) < _NUMBERED_LENGTH or escapes[1:2] != b"u":
        return escapes
    try:
        text = unhexlify(escapes.replace(b"\\u", b"")).decode("utf-16-be")
    except UnicodeDecodeError:
        return _NUMBERED.sub(_one, escapes)
    return _NUMBERED.sub(_one, escapes) if _KEPT.search(text) else text.encode()


class Remembered(dict[bytes, bytes]):
    """What short units mean, each computed once; so many of them."""

    def __init__(self, meaning: Callable[[bytes], bytes]) -> None:
        super().__init__()
        self._meaning = meaning

    def __missing__(self, unit: bytes) -> bytes:
        meant = self._meaning(unit)
        if len(unit) <= _SHORT:
            if len(self) >= _REMEMBERED:
                self.clear()
            self[unit] = meant
        return meant


_REMEMBERED: Final = 65536
_SHORT: Final = 24
_WRITTEN: Final = Remembered(_written)


def unescape(data: bytes) -> bytes:
    """JSON text `data` with characters in place of their `\\uXXXX` (RFC 8259, section 7): the same JSON value."""
    return _joined(_ESCAPES.split(data)) if b"\\u" in data else data


def _joined(parts: list[bytes]) -> bytes:
    """What stands as it is, and escapes, in turn, written out."""
    parts[1::2] = map(_WRITTEN.__getitem__, parts[1::2])
    return b"".join(parts)


class Unescaper:
    """`unescape` for a text that comes in pieces. Holds back an escape that is cut: 11 bytes at most."""

    __slots__ = ("_cut",)

    def __init__(self) -> None:
        self._cut = b""

    def feed(self, data: bytes, final: bool) -> bytes:
        if self._cut:
            data, self._cut = self._cut + data, b""
        if final:
            return unescape(data)
        if b"\\u" in data:
            parts = _ESCAPES.split(data)
            self._hold(parts)
            return _joined(parts)
        if (len(data) - len(data.rstrip(b"\\"))) % 2:
            data, self._cut = data[:-1], data[-1:]
        return data

    def _hold(self, parts: list[bytes]) -> None:
        """Takes from the end what later bytes may complete, to a character or (high surrogate) to a pair."""
        while len(parts) > 1 and not parts[-1]:
            escapes = parts[-2]
            if not self._cut and _IS_CUT.fullmatch(escapes):
                self._cut = escapes
                del parts[-2:]
            elif _HIGH.search(escapes):
                self._cut = escapes[-_NUMBERED_LENGTH:] + self._cut
                parts[-2] = escapes[:-_NUMBERED_LENGTH]
                return
            else:
                return


_LETTERS: Final = tuple(b"\\" + bytes((letter,)) for letter in b"bfnrtv")
_BLANK: Final = re.compile(rb"\\(?:[bfnrtv]|u" + _HEX + rb"{4}|x" + _HEX + rb"{2})")
_RARE: Final = 64
"""Bytes per backslash from which on one search is faster than a replacement for each letter."""
_NUMERIC: Final = re.compile(rb"\\(?:u" + _HEX + rb"{4}|x" + _HEX + rb"{2})")


def blanked(text: bytes) -> bytes:
    """`text` with NULs over its escapes that look like letters and digits (JSON, COPY, program text); same length.

    Whether the backslash is itself escaped is not looked at, so that the answer needs no more than the neighbourhood:
    the cost is that a value after a literal `\\\\n` is taken to begin one letter later."""
    if text.count(b"\\") * _RARE < len(text):
        return _BLANK.sub(lambda match: bytes(len(match[0])), text)
    for letter in _LETTERS:
        if letter in text:
            text = text.replace(letter, b"\0\0")
    if b"\\u" in text or b"\\x" in text:
        text = _NUMERIC.sub(lambda match: bytes(len(match[0])), text)
    return text


INSIDE: Final = 1
ESCAPED: Final = 2
"""Where in a JSON text a byte is, as bits: inside of a string; just after a backslash."""


def string_state(state: int, text: bytes) -> int:
    """The state after `text`, which began in `state`."""
    if state & ESCAPED and text:
        text, state = text[1:], state & INSIDE
    if b"\\" in text:
        text = text.replace(b"\\\\", b"")
        if text.endswith(b"\\"):
            state |= ESCAPED
        text = text.replace(b'\\"', b"")
    return state ^ (text.count(b'"') & 1)
