"""Step 4 of 6, inspect: PostgreSQL's values as text for people, policy and the record.

Gets parameter bytes with their format and type, hands on strings. Pure. Binary layouts: the `*send` functions
of PostgreSQL, network byte order.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Final
from uuid import UUID

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.statement_facts import is_utf8

_FLOAT4: Final = struct.Struct(">f")
_FLOAT8: Final = struct.Struct(">d")

TEXT_TYPES: Final = frozenset({18, 19, 25, 114, 142, 705, 1042, 1043})
"""OIDs of "char", name, text, json, xml, unknown, bpchar, varchar: their binary form is their text."""

STRINGS: Final = frozenset({19, 25, 1042, 1043})
"""Those of them that clients read as a text of any length, whatever it looks like."""

BYTES: Final = frozenset({17, 1001})
"""bytea, and arrays of it: in the text format hexadecimal digits, which clients take for what they stand for."""

MAX_SCALE: Final = 100
"""Decimals of a numeric that are written out for the record, and groups of four digits before them."""

ENCODED: Final = "latin-1"
"""What a text that is not UTF-8 is read as: loses nothing, and ASCII stays ASCII in every permitted encoding."""


_INSPECTED: Final = re.compile(r"(UTF8|UNICODE|SQLASCII|LATIN\d+|WIN(125\d|866|874)|ISO8859\d+|KOI8[RU]?|)")
"""Client encodings in which every byte below 0x80 is that ASCII character. In SJIS, BIG5, GBK, UHC, GB18030 and JOHAB
it can be half of another, which would mislead whoever scans the bytes."""


_SET_ENCODING: Final = re.compile(
    r"\s*SET\s+(?:(?:SESSION|LOCAL)\s+)?(?:CLIENT_ENCODING\s*(?:TO\s|=)|NAMES\s)\s*'?([\w-]+)'?\s*;?\s*", re.IGNORECASE
)


def check_encoding(name: str, side: Side) -> None:
    """Raises ProtocolError unless `name` is a client_encoding whose bytes can be scanned (empty: server's default,
    which the server reports)."""
    plain = "".join(filter(str.isalnum, name)).upper()  # as PostgreSQL compares encoding names
    if not _INSPECTED.fullmatch(plain):
        raise ProtocolError(side, f"client_encoding {name[:20]!a} is not inspected")


def refused_encoding(text: str) -> str:
    """Why a statement that sets the client_encoding is at fault; empty for any other."""
    named = _SET_ENCODING.fullmatch(text)
    if named is None or named[1].upper() == "DEFAULT":
        return ""
    try:
        check_encoding(named[1], Side.CLIENT)
    except ProtocolError as fault:
        return f"{fault.reason}; stay with UTF8"
    return ""


def decode(raw: bytes) -> str:
    """`raw` as text: UTF-8, else Latin-1 (`encoding_of` says so)."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode(ENCODED)


def encoding_of(raw: bytes) -> dict[str, str]:
    """`{"encoding": "latin-1"}` for a text that is not UTF-8, so that nobody takes its letters at face value."""
    return {} if is_utf8(raw) else {"encoding": ENCODED}


def _integer(raw: bytes) -> str:
    return str(int.from_bytes(raw, "big", signed=True))


def _hex(raw: bytes) -> str:
    return "\\x" + raw.hex()


_DAYS_BEFORE: Final = 730_425
"""Days from 0000-03-01 to 2000-01-01, where PostgreSQL's dates begin."""

_NUMERIC: Final = struct.Struct(">HhHH")
"""Digits of four decimals each, weight of the first, sign, decimals shown."""
_SIGNS: Final = {0x0000: "", 0x4000: "-"}


def _day(number: int) -> str:
    """The date so many days after 2000-01-01, in the Gregorian calendar. Raises ValueError outside of years 1 to 9999.

    Counted from 0000-03-01 on, so that a leap day is the last of its year: 400 years are 146,097 days, 5 months 153.
    """
    eras, day = divmod(number + _DAYS_BEFORE, 146_097)
    year = (day - day // 1460 + day // 36_524 - day // 146_096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    day -= (153 * month + 2) // 5 - 1
    year += 400 * eras + (month >= 10)
    if not 1 <= year <= 9999:
        raise ValueError
    return f"{year:04d}-{month + 3 if month < 10 else month - 9:02d}-{day:02d}"


def _clock(microseconds: int) -> str:
    seconds, fraction = divmod(microseconds, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour:02d}:{minute:02d}:{second:02d}" + (f".{fraction:06d}".rstrip("0") if fraction else "")


def _date(raw: bytes) -> str:
    return _day(int.from_bytes(raw, "big", signed=True))


def _timestamp(raw: bytes) -> str:
    days, microseconds = divmod(int.from_bytes(raw, "big", signed=True), 86_400_000_000)
    return f"{_day(days)} {_clock(microseconds)}"


def _time(raw: bytes) -> str:
    return _clock(int.from_bytes(raw, "big", signed=True))


def _numeric(raw: bytes) -> str:
    count, weight, sign, scale = _NUMERIC.unpack_from(raw)
    whole = weight + 1  # groups before the point, or, below zero, zero groups behind it
    if sign not in _SIGNS or len(raw) != _NUMERIC.size + 2 * count or scale > MAX_SCALE or abs(whole) > MAX_SCALE:
        return _hex(raw)  # also NaN and the infinities
    groups = ["0000"] * -whole + [f"{group:04d}" for (group,) in struct.iter_unpack(">H", raw[_NUMERIC.size :])]
    groups += ["0000"] * (whole - count)
    split = max(whole, 0)
    digits, decimals = "".join(groups[:split]).lstrip("0") or "0", "".join(groups[split:]).ljust(scale, "0")
    return _SIGNS[sign] + digits + ("." + decimals[:scale] if scale else "")


def _jsonb(raw: bytes) -> str:
    return decode(raw[1:]) if raw[:1] == b"\x01" else _hex(raw)


_ANY_SIZE: Final[dict[int, Callable[[bytes], str]]] = {1700: _numeric, 3802: _jsonb}
"""Type OID -> reader, of types whose values differ in size: numeric, jsonb."""

_BY_OID: Final[dict[int, tuple[int, Callable[[bytes], str]]]] = {
    16: (1, lambda raw: "true" if raw[0] else "false"),
    20: (8, _integer),
    21: (2, _integer),
    23: (4, _integer),
    26: (4, lambda raw: str(int.from_bytes(raw, "big"))),
    700: (4, lambda raw: f"{_FLOAT4.unpack(raw)[0]:.9g}"),
    701: (8, lambda raw: repr(_FLOAT8.unpack(raw)[0])),
    1082: (4, _date),
    1083: (8, _time),
    1114: (8, _timestamp),
    1184: (8, lambda raw: _timestamp(raw) + "+00"),
    2950: (16, lambda raw: str(UUID(bytes=raw))),
}
"""Type OID -> size in bytes and reader: bool, int8, int2, int4, oid, float4, float8, date, time, timestamp,
timestamptz, uuid."""


def parameter_text(raw: bytes | None, code: int, oid: int) -> str | None:
    """A Bind parameter as text. `code`: 0 text, 1 binary; `oid`: its type, 0 where unknown.

    A binary value of a type not known here, or of the wrong size for its type, is `\\x` and hex digits, as bytea is.
    """
    if raw is None:
        return None
    if code == 0 or oid in TEXT_TYPES:
        return decode(raw)
    size, read = _BY_OID.get(oid, (len(raw), _ANY_SIZE.get(oid, _hex)))
    try:
        return read(raw) if len(raw) == size else _hex(raw)
    except (ValueError, struct.error):  # before the first year, beyond the last of four digits, infinity; no numeric
        return _hex(raw)
