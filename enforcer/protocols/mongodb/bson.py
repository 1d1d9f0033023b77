"""Step 4 of 6, inspect: BSON documents read where they lie, and rewritten in place.

Gets a message's bytes; hands on elements with their places in it, and documents in which single values are replaced:
whatever is not touched stays byte for byte. Source: bsonspec.org, version 1.1. Raises `Malformed` for what is none.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 200
"""Documents in documents: MongoDB's own limit."""

DOUBLE, STRING, DOCUMENT, ARRAY, BINARY, OBJECT_ID, BOOL, DATE = 0x01, 0x02, 0x03, 0x04, 0x05, 0x07, 0x08, 0x09
NULL, REGEX, POINTER, CODE, SYMBOL, SCOPED, INT32, TIMESTAMP, INT64 = (
    0x0A,
    0x0B,
    0x0C,
    0x0D,
    0x0E,
    0x0F,
    0x10,
    0x11,
    0x12,
)
DECIMAL, UNDEFINED, MAX_KEY, MIN_KEY = 0x13, 0x06, 0x7F, 0xFF

_FIXED: Final = {
    DOUBLE: 8,
    UNDEFINED: 0,
    OBJECT_ID: 12,
    BOOL: 1,
    DATE: 8,
    NULL: 0,
    INT32: 4,
    TIMESTAMP: 8,
    INT64: 8,
    DECIMAL: 16,
    MAX_KEY: 0,
    MIN_KEY: 0,
}
TEXTS: Final = frozenset((STRING, CODE, SYMBOL))
NUMBERS: Final = frozenset((INT32, INT64, DOUBLE))
CONTAINERS: Final = frozenset((DOCUMENT, ARRAY))
_INT32: Final = struct.Struct("<i")
_INT64: Final = struct.Struct("<q")
_DOUBLE: Final = struct.Struct("<d")
_PAIR: Final = struct.Struct("<QQ")


class Malformed(ValueError):
    """These bytes are no document."""


@dataclass(slots=True)  # not frozen: there is one per value, and that takes three times as long
class Element:
    """`kind`: its type. `name`: as it is written. `at`: where its type byte is; `start` and `end`: of its value."""

    kind: int
    name: bytes
    at: int
    start: int
    end: int


def size_of(data: bytes, start: int, limit: int) -> int:
    """The length of the document at `start`, which must end at `limit` or before."""
    if limit - start < 5:
        raise Malformed("a document is cut off")
    size: int = _INT32.unpack_from(data, start)[0]
    if size < 5 or size > limit - start or data[start + size - 1]:
        raise Malformed("a document's length is impossible")
    return size


def elements(data: bytes, start: int, limit: int) -> Iterator[Element]:
    """The elements of the document at `start`, in their order."""
    end = start + size_of(data, start, limit) - 1
    at = start + 4
    while at < end:
        kind = data[at]
        stop = data.find(b"\0", at + 1, end)
        if stop < 0:
            raise Malformed("a name has no end")
        value = stop + 1
        after = value + _length(data, kind, value, end)
        if after > end:
            raise Malformed("a value is longer than its document")
        yield Element(kind, data[at + 1 : stop], at, value, after)
        at = after


def _length(data: bytes, kind: int, start: int, end: int) -> int:
    fixed = _FIXED.get(kind)
    if fixed is not None:
        return fixed
    if kind == REGEX:
        first = data.find(b"\0", start, end)
        second = data.find(b"\0", first + 1, end) if first >= 0 else -1
        if second < 0:
            raise Malformed("a regular expression has no end")
        return second + 1 - start
    if end - start < 4:
        raise Malformed("a value is cut off")
    size: int = _INT32.unpack_from(data, start)[0]
    if kind in CONTAINERS:
        return size_of(data, start, end)
    if kind in TEXTS:
        if size < 1 or size > end - start - 4 or data[start + 3 + size]:
            raise Malformed("a string's length is impossible")
        return 4 + size
    if kind == BINARY and size >= 0:
        return 5 + size
    if kind == POINTER and size >= 1:
        return 4 + size + 12
    if kind == SCOPED and size >= 14:
        return size
    raise Malformed("a value of an unknown type, or of an impossible length")


def text(data: bytes, element: Element) -> str:
    """The string that `element` is; empty where it is none."""
    if element.kind not in TEXTS:
        return ""
    return data[element.start + 4 : element.end - 1].decode("utf-8", "backslashreplace")


def number(data: bytes, element: Element) -> int | None:
    """The integer that `element` is, also as a double; None where it is none."""
    if element.kind == INT32:
        return int(_INT32.unpack_from(data, element.start)[0])
    if element.kind == INT64:
        return int(_INT64.unpack_from(data, element.start)[0])
    if element.kind == DOUBLE:
        value: float = _DOUBLE.unpack_from(data, element.start)[0]
        return int(value) if value.is_integer() else None
    if element.kind == BOOL:
        return data[element.start]
    return None


def spelt(data: bytes, element: Element) -> bytes | None:
    """A value as a text in which detectors see what it says; empty for what has no words, None for null."""
    kind, start, end = element.kind, element.start, element.end
    if kind in TEXTS:
        return data[start + 4 : end - 1]
    if kind in (INT32, INT64):
        return b"%d" % (number(data, element) or 0)
    if kind == DOUBLE:
        value: float = _DOUBLE.unpack_from(data, start)[0]
        return b"%d" % int(value) if value.is_integer() else repr(value).encode()
    if kind == DECIMAL:
        return decimal(data, start).encode()
    if kind == BINARY:
        return data[start + 5 : end]
    if kind in (REGEX, POINTER, SCOPED):
        return data[start:end]
    return None if kind in (NULL, UNDEFINED) else b""


def decimal(data: bytes, start: int) -> str:
    """A Decimal128 in digits (IEEE 754, binary integer significand)."""
    from decimal import Decimal  # noqa: PLC0415 - rarely needed, and slow to load

    low, high = _PAIR.unpack_from(data, start)
    sign = high >> 63
    if (high >> 61) & 3 == 3:
        special = (high >> 58) & 0x1F
        return "NaN" if special == 0x1F else f"{'-' if sign else ''}{'Infinity' if special == 0x1E else '0'}"
    digits = tuple(map(int, str((high & 0x1FFFFFFFFFFFF) << 64 | low)))
    return str(Decimal((sign, digits, ((high >> 49) & 0x3FFF) - 6176)))


# --- writing

Edits = dict[int, tuple[int, bytes]]
"""Where an element's value starts -> its new type and bytes."""
Names = dict[int, bytes]
"""Where an element's type byte is -> its new name."""


class Rewriting:
    """What is replaced in the documents of `data`."""

    def __init__(self, data: bytes, edits: Edits, names: Names) -> None:
        self._data = data
        self._edits = edits
        self._names = names
        self._places = sorted([*edits, *names])

    def document(self, start: int, limit: int) -> bytes:
        """The document at `start` with its values and names replaced."""
        end = start + size_of(self._data, start, limit)
        return self._rebuilt(start, end) if self._touches(start, end) else self._data[start:end]

    def _touches(self, start: int, end: int) -> bool:
        first = bisect_left(self._places, start)
        return first < len(self._places) and self._places[first] < end

    def _rebuilt(self, start: int, end: int) -> bytes:
        data, parts = self._data, list[bytes]()
        for element in elements(data, start, end):
            renamed, edit = self._names.get(element.at), self._edits.get(element.start)
            if edit is None and element.kind in CONTAINERS and self._touches(element.start, element.end):
                edit = element.kind, self._rebuilt(element.start, element.end)
            if edit is None and renamed is None:
                parts.append(data[element.at : element.end])
                continue
            kind, value = edit or (element.kind, data[element.start : element.end])
            parts += (bytes((kind,)), element.name if renamed is None else renamed, b"\0", value)
        body = b"".join(parts)
        return _INT32.pack(len(body) + 5) + body + b"\0"


def string(value: bytes) -> bytes:
    return _INT32.pack(len(value) + 1) + value + b"\0"


def numeric(kind: int, text: bytes) -> bytes | None:
    """A number of this type that says `text`; None where none does."""
    try:
        if kind == DOUBLE:
            return _DOUBLE.pack(float(text))
        return (_INT32 if kind == INT32 else _INT64).pack(int(text))
    except (ValueError, struct.error):
        return None


def document(**fields: str | int | float) -> bytes:
    """A small document of our own."""
    body = b""
    for name, value in fields.items():
        if isinstance(value, str):
            kind, raw = STRING, string(value.encode("utf-8", "replace").replace(b"\0", b" "))
        elif isinstance(value, int):
            kind, raw = INT32, _INT32.pack(value)
        else:
            kind, raw = DOUBLE, _DOUBLE.pack(value)
        body += bytes((kind,)) + name.encode() + b"\0" + raw
    return _INT32.pack(len(body) + 5) + body + b"\0"


EMPTY_ARRAY: Final = _INT32.pack(5) + b"\0"
