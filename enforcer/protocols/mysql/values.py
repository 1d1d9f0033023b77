"""Step 4 of 6, inspect: MySQL's values in the binary protocol, as the text protocol writes them.

Gets a value's bytes with its type; hands on text for people, policy, masking and the record. Pure. Source: MySQL
internals, "Binary Protocol Value", "Column Types".
"""

from __future__ import annotations

import re
import struct
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.mysql.packets import Reader, text_encoded

_FLOAT: Final = struct.Struct("<f")
_DOUBLE: Final = struct.Struct("<d")

INTEGERS: Final = {1: 1, 2: 2, 13: 2, 3: 4, 9: 4, 8: 8}
"""TINY, SHORT, YEAR, LONG, INT24, LONGLONG -> bytes."""

_SINGLE, _DOUBLE_TYPE, _NULL, _TIME = 4, 5, 6, 11
_DATES: Final = frozenset({7, 10, 12})
"""TIMESTAMP, DATE, DATETIME."""

COUNTED: Final = frozenset({0, 15, 16, *range(242, 256)})
"""DECIMAL, VARCHAR, BIT, and all from VECTOR to GEOMETRY: a length and so many bytes."""

TEXTUAL: Final = frozenset({15, 245, 247, 248, 249, 250, 251, 252, 253, 254})
"""VARCHAR, JSON, ENUM, SET, BLOBs, VAR_STRING, STRING: what may hold any text, and so a masked one. A masked value of
any other type is NULL, unless it is a number in place of a number: a client would fail on letters there."""

STRINGS: Final = TEXTUAL - {245}
"""Those that clients read as a text, whatever it looks like: not JSON."""


_NUMBER: Final = re.compile(rb"-?[0-9]+(?:\.[0-9]+)?")
_REAL: Final = {_SINGLE: _FLOAT, _DOUBLE_TYPE: _DOUBLE}
_DECIMALS: Final = frozenset({0, 246})


def is_number(value: bytes, kind: int) -> bool:
    """Is `value` one that a column of this type may hold, which holds numbers?"""
    return (kind in INTEGERS or kind in _REAL or kind in _DECIMALS) and _NUMBER.fullmatch(value) is not None


def write_number(value: bytes, kind: int, unsigned: bool) -> bytes | None:
    """A number in the binary protocol, None where it does not fit its type."""
    if not is_number(value, kind):
        return None
    if kind in _DECIMALS:
        return text_encoded(value)
    real = _REAL.get(kind)
    try:
        return (
            real.pack(float(value))
            if real is not None
            else int(value).to_bytes(INTEGERS[kind], "little", signed=not unsigned)
        )
    except (OverflowError, ValueError):
        return None


def read_value(reader: Reader, kind: int, unsigned: bool, side: Side) -> bytes:
    """The next value, as text. Raises ProtocolError for a type that is none, and for impossible lengths."""
    if kind in COUNTED:
        return reader.text()
    width = INTEGERS.get(kind)
    if width is not None:
        return b"%d" % int.from_bytes(reader.take(width), "little", signed=not unsigned)
    if kind == _SINGLE:
        return f"{_FLOAT.unpack(reader.take(4))[0]:.9g}".encode()
    if kind == _DOUBLE_TYPE:
        return repr(_DOUBLE.unpack(reader.take(8))[0]).encode()
    if kind in _DATES:
        return _date(reader.take(reader.integer(1)), side)
    if kind == _TIME:
        return _time(reader.take(reader.integer(1)), side)
    if kind == _NULL:
        return b""
    raise ProtocolError(side, f"a value of type {kind}, which is none")


def _date(raw: bytes, side: Side) -> bytes:
    if len(raw) not in (0, 4, 7, 11):
        raise ProtocolError(side, "a date of an impossible length")
    year, month, day = int.from_bytes(raw[:2], "little"), *(raw[2:4] or b"\0\0")
    text = b"%04d-%02d-%02d" % (year, month, day)
    if len(raw) > 4:
        text += b" %02d:%02d:%02d" % tuple(raw[4:7])
    if len(raw) > 7:
        text += b".%06d" % int.from_bytes(raw[7:], "little")
    return text


def _time(raw: bytes, side: Side) -> bytes:
    if len(raw) not in (0, 8, 12):
        raise ProtocolError(side, "a time of an impossible length")
    if not raw:
        return b"00:00:00"
    hours = int.from_bytes(raw[1:5], "little") * 24 + raw[5]
    text = b"%s%02d:%02d:%02d" % (b"-" if raw[0] else b"", hours, raw[6], raw[7])
    return text + (b".%06d" % int.from_bytes(raw[8:], "little") if len(raw) > 8 else b"")
