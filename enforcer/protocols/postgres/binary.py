"""Step 4 of 6, inspect: what binary cells say, for detectors, which know values by their text.

Gets a value in PostgreSQL's binary format and its type; hands on a text in which a detector finds what it finds in the
value's text format. Only of types whose bytes do not show that themselves: large integers, numerics, addresses, arrays
and rows, which state the types of what is in them; and bytea, whose text format does not either. Never fails: what
fits no layout is what it is. Binary layouts: the `*_send` functions of PostgreSQL.
"""

from __future__ import annotations

import re
from binascii import unhexlify
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Final

from enforcer.protocols.postgres.messages import Field
from enforcer.protocols.postgres.values import BYTES, parameter_text

INT8: Final = 20
NUMERIC: Final = 1700
_INET, _CIDR = 869, 650
_MACS: Final = {829: 6, 774: 8}
"""macaddr, macaddr8 -> bytes."""

_CONTAINERS: Final = frozenset({1016, 1231, 1041, 651, 1040, 775, 2249, 2287})
"""Arrays of these types; rows, and arrays of rows."""

_OWN: Final = 16_384
"""FirstNormalObjectId: types from here on are the owner's, such as rows of tables."""

_SAYING: Final = frozenset({0, INT8, NUMERIC, _INET, _CIDR}) | frozenset(_MACS) | _CONTAINERS | BYTES
_DIGITS: Final = re.compile(rb"\\x((?:[0-9a-f]{2})+)")
_FAMILIES: Final = {2: 4, 3: 16}
"""PGSQL_AF_INET, PGSQL_AF_INET6 -> bytes of an address."""

_SHORT: Final = b"\x00\x00\x00"
"""Of an int8 below a million millions: shorter numbers are no detector's without a label."""
_NEVER: Final = ()
"""What nothing begins with."""

_BETWEEN: Final = b"\x00\x00"
"""As between cells: no value goes on across it."""

_MOST: Final = 8
"""Arrays and rows within each other."""

_NO_VALUE: Final = 0xFFFFFFFF


def saying(fields: tuple[Field, ...] | None, binary: tuple[bool, ...]) -> tuple[tuple[int, int], ...]:
    """(place, type OID) of the binary columns that `said` is to be asked of: OID 0 where nobody described them."""
    described = fields if fields is not None and len(fields) == len(binary) else None
    oids = [field.type_oid for field in described] if described is not None else [0] * len(binary)
    return tuple(
        (place, oid)
        for place, (oid, packed) in enumerate(zip(oids, binary, strict=True))
        if packed and (oid in _SAYING or oid >= _OWN)
    )


def say(values: list[bytes | None], width: int, columns: tuple[tuple[int, int], ...]) -> None:
    """Puts what they say in place of such cells, in rows of `width` cells."""
    for place, oid in columns:
        short = _SHORT if oid == INT8 else _NEVER
        for index in range(place, len(values), width):
            value = values[index]
            if value and not value.startswith(short):
                values[index] = said(value, oid)


def unsaid(own: list[bytes | None], told: list[bytes | None], values: list[bytes | None]) -> list[bytes | None]:
    """What becomes of cells that were `told`, whose `own` bytes may be others: these, NULL, or, where they are not,
    what is in `values`."""
    return [
        mine if new == old else new if mine == old else None for mine, old, new in zip(own, told, values, strict=True)
    ]


def said(raw: bytes, oid: int, depth: int = 0) -> bytes:
    """What a value says; `raw` itself where its own bytes do. Of a type that nobody told (0): all that it may say."""
    if oid:
        return _READERS[oid](raw) if oid in _READERS else _parts(raw, oid, depth) or raw
    texts = [raw] + [text for read in _BY_GUESS if (text := read(raw)) != raw]
    parts = _parts(raw, oid, depth)
    return _BETWEEN.join([*texts, parts] if parts else texts)


def hexadecimal(raw: bytes) -> bytes:
    """A text that may be bytea, or an array of it, with what its digits stand for behind it."""
    if raw[:2] != b"\\x" and (raw[:1] != b"{" or b"\\x" not in raw):
        return raw
    return _BETWEEN.join([raw, *map(unhexlify, _DIGITS.findall(raw))])


def _int8(raw: bytes) -> bytes:
    if len(raw) != 8 or raw.startswith(_SHORT):
        return raw
    return b"%d" % int.from_bytes(raw, "big", signed=True)


def _numeric(raw: bytes) -> bytes:
    text = parameter_text(raw, 1, NUMERIC) or ""
    return raw if text.startswith("\\") else text.encode()


def _address(raw: bytes) -> bytes:
    if len(raw) < 4 or _FAMILIES.get(raw[0]) != raw[3] or len(raw) != 4 + raw[3]:
        return raw
    return str(IPv4Address(raw[4:]) if raw[3] == 4 else IPv6Address(raw[4:])).encode()


def _mac(raw: bytes) -> bytes:
    return raw.hex(":").encode() if len(raw) in _MACS.values() else raw


_BY_GUESS: Final[tuple[Callable[[bytes], bytes], ...]] = (_int8, _numeric, _address, _mac)
_READERS: Final[dict[int, Callable[[bytes], bytes]]] = {
    INT8: _int8,
    NUMERIC: _numeric,
    _INET: _address,
    _CIDR: _address,
    **dict.fromkeys(_MACS, _mac),
    **dict.fromkeys(BYTES, hexadecimal),
}


def _parts(raw: bytes, oid: int, depth: int) -> bytes:
    """What is in an array or a row; empty where it is none."""
    if depth >= _MOST or (oid and oid < _OWN and oid not in _CONTAINERS):
        return b""
    items = _array(raw) or _row(raw)
    return _BETWEEN.join(said(value, of, depth + 1) for of, value in items)


def _array(raw: bytes) -> list[tuple[int, bytes]]:
    """Dimensions, flags, type; of each dimension size and bound; then the elements."""
    if len(raw) < 12:
        return []
    dimensions, kind = int.from_bytes(raw[:4], "big"), int.from_bytes(raw[8:12], "big")
    start = 12 + 8 * dimensions
    if not 1 <= dimensions <= 6 or raw[4:7] != b"\x00\x00\x00" or start > len(raw):
        return []
    items: list[tuple[int, bytes]] = []
    pos = start
    while pos < len(raw):
        pos, value = _value(raw, pos)
        if pos < 0:
            return []
        items.append((kind, value))
    return items


def _row(raw: bytes) -> list[tuple[int, bytes]]:
    """The number of fields; then of each its type and value."""
    count, pos = int.from_bytes(raw[:4], "big"), 4
    items: list[tuple[int, bytes]] = []
    while pos + 8 <= len(raw):
        kind = int.from_bytes(raw[pos : pos + 4], "big")
        pos, value = _value(raw, pos + 4)
        if pos < 0:
            return []
        items.append((kind, value))
    return items if pos == len(raw) and len(items) == count else []


def _value(raw: bytes, pos: int) -> tuple[int, bytes]:
    """The end of the value at `pos`, and the value, which is empty for NULL; an end of -1 where it is none."""
    size = int.from_bytes(raw[pos : pos + 4], "big")
    end = pos + 4
    if end > len(raw):
        return -1, b""
    if size == _NO_VALUE:
        return end, b""
    return (end + size, raw[end : end + size]) if size <= len(raw) - end else (-1, b"")
