"""Step 4 of 6, inspect: the PostgreSQL messages that are read or written, as plain functions.

Gets whole messages, hands on their parts; builds the few messages we send ourselves. Knows no state.
Source: PostgreSQL documentation, "Message Formats" (protocol 3.0 and 3.2). Every reader raises ProtocolError
with the side that sent the message where its parts do not fill it exactly.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side

BODY: Final = 5
"""Offset of a typed message's body: type byte and length come before."""

_UINT16: Final = struct.Struct(">H")
INT32: Final = struct.Struct(">i")
_FIELD: Final = struct.Struct(">IhIhih")  # table OID, attribute, type OID, type size, modifier, format
_NULL: Final = b"\xff\xff\xff\xff"
_NO_VALUE: Final = 0xFFFFFFFF
_DATA_ROW: Final = ord("D")
_SHORT: Final = 1024
_LENGTHS: Final = tuple(length.to_bytes(4, "big") for length in range(_SHORT))
"""Lengths of most cells and rows, as they are written."""
_SASL: Final = 10
"""AuthenticationSASL, among the Authentication messages."""

MASKABLE_FIELDS: Final = frozenset(b"MDHWqstcdn")
"""Error fields that can quote data: message, detail (prints whole rows), hint, where, internal query, and
names of schema, table, column, type and constraint, which RAISE takes from anywhere."""

MAX_NAME: Final = 63
"""Bytes of a statement's or portal's name: PostgreSQL's NAMEDATALEN - 1. It cuts longer ones, so that two names
of ours could be one of the server's; and names travel in messages that nobody judges."""

FLUSH: Final = b"H\x00\x00\x00\x04"
SYNC: Final = b"S\x00\x00\x00\x04"


class Reader:
    """Walks one message's body; running past its end is `side`'s protocol error."""

    __slots__ = ("_end", "_pos", "_raw", "_side")

    def __init__(self, raw: bytes, side: Side, pos: int = BODY) -> None:
        self._raw = raw
        self._side = side
        self._pos = pos
        self._end = len(raw)

    def byte(self) -> int:
        return self.take(1)[0]

    def int16(self) -> int:
        return int.from_bytes(self.take(2), "big", signed=True)

    def uint16(self) -> int:
        return int.from_bytes(self.take(2), "big")

    def int32(self) -> int:
        return int.from_bytes(self.take(4), "big", signed=True)

    def uint32(self) -> int:
        return int.from_bytes(self.take(4), "big")

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size < 0 or self._pos + size > self._end:
            raise ProtocolError(self._side, "a part of a message reaches past its end")
        self._pos += size
        return self._raw[self._pos - size : self._pos]

    def string(self) -> bytes:
        """A NUL-terminated string, without its NUL."""
        end = self._raw.find(b"\x00", self._pos)
        if end < 0:
            raise ProtocolError(self._side, "a string in a message has no end")
        start, self._pos = self._pos, end + 1
        return self._raw[start:end]

    def name(self) -> bytes:
        """The name of a statement or portal. Raises LimitExceeded over MAX_NAME."""
        name = self.string()
        if len(name) > MAX_NAME:
            raise LimitExceeded(self._side, f"a statement or portal name has over {MAX_NAME} bytes")
        return name

    def value(self) -> bytes | None:
        """A length-prefixed value; length -1 is NULL."""
        size = self.int32()
        return None if size == -1 else self.take(size)

    def end(self) -> None:
        """The message must end here."""
        if self._pos != self._end:
            raise ProtocolError(self._side, "a message is longer than its parts")


@dataclass(frozen=True, slots=True)
class Field:
    """One column of a RowDescription. `format`: 0 text, 1 binary; a described statement always says 0."""

    name: bytes
    type_oid: int
    format: int


@dataclass(frozen=True, slots=True)
class FunctionCall:
    """A function by its OID, its arguments, and the format of its result. Format codes as in Bind."""

    oid: int
    formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_format: int


@dataclass(frozen=True, slots=True)
class Bind:
    """A Bind message. Format codes: none = all text, one = for all, else one each."""

    portal: bytes
    statement: bytes
    parameter_formats: tuple[int, ...]
    values: tuple[bytes | None, ...]
    result_formats: tuple[int, ...]


def read_string(raw: bytes, side: Side) -> bytes:
    """The only string of a message: a Query's statement, a CommandComplete's tag."""
    reader = Reader(raw, side)
    text = reader.string()
    reader.end()
    return text


def read_parse(raw: bytes) -> tuple[bytes, bytes, tuple[int, ...]]:
    """Parse: statement name, text, the parameter type OIDs the client stated (0: it left one open)."""
    reader = Reader(raw, Side.CLIENT)
    name, text = reader.name(), reader.string()
    oids = tuple(reader.uint32() for _ in range(reader.uint16()))
    reader.end()
    return name, text, oids


def read_bind(raw: bytes) -> Bind:
    reader = Reader(raw, Side.CLIENT)
    portal, statement = reader.name(), reader.name()
    formats = tuple(reader.int16() for _ in range(reader.uint16()))
    values = tuple(reader.value() for _ in range(reader.uint16()))
    results = tuple(reader.int16() for _ in range(reader.uint16()))
    reader.end()
    _check_formats(formats, len(values), results)
    return Bind(portal, statement, formats, values, results)


def read_function_call(raw: bytes) -> FunctionCall:
    reader = Reader(raw, Side.CLIENT)
    oid = reader.uint32()
    formats = tuple(reader.int16() for _ in range(reader.uint16()))
    values = tuple(reader.value() for _ in range(reader.uint16()))
    result = reader.int16()
    reader.end()
    _check_formats(formats, len(values), (result,))
    return FunctionCall(oid, formats, values, result)


def _check_formats(formats: tuple[int, ...], count: int, results: tuple[int, ...]) -> None:
    if any(code not in (0, 1) for code in formats + results):
        raise ProtocolError(Side.CLIENT, "a message holds a format code that is neither text nor binary")
    if len(formats) > 1 and len(formats) != count:
        raise ProtocolError(Side.CLIENT, "a message holds another number of format codes than of values")


def each_format(formats: tuple[int, ...], count: int) -> tuple[int, ...]:
    """The format code of each of `count` values: none = all text, one = for all."""
    codes = formats or (0,)
    return codes * count if len(codes) == 1 else codes


def read_target(raw: bytes) -> tuple[int, bytes]:
    """Describe or Close: `S` or `P` (statement, portal) and its name."""
    reader = Reader(raw, Side.CLIENT)
    kind, name = reader.byte(), reader.name()
    reader.end()
    if kind not in b"SP":
        raise ProtocolError(Side.CLIENT, "Describe or Close names neither a statement nor a portal")
    return kind, name


def read_execute(raw: bytes) -> bytes:
    """Execute: the portal's name."""
    reader = Reader(raw, Side.CLIENT)
    name = reader.name()
    reader.int32()
    reader.end()
    return name


def read_row_description(raw: bytes) -> tuple[Field, ...]:
    reader = Reader(raw, Side.SERVER)
    fields = []
    for _ in range(reader.uint16()):
        name = reader.string()
        _, _, type_oid, _, _, code = _FIELD.unpack(reader.take(_FIELD.size))
        fields.append(Field(name, type_oid, code))
    reader.end()
    return tuple(fields)


def read_parameter_description(raw: bytes) -> tuple[int, ...]:
    reader = Reader(raw, Side.SERVER)
    oids = tuple(reader.uint32() for _ in range(reader.uint16()))
    reader.end()
    return oids


def without_channel_binding(raw: bytes) -> bytes:
    """AuthenticationSASL without the mechanisms that bind a password to one TLS connection, which here are two; any
    other Authentication message, and one without such mechanisms, as it is."""
    reader = Reader(raw, Side.SERVER)
    if reader.int32() != _SASL:
        return raw
    kept, mechanisms = b"", 0
    while name := reader.string():
        if not name.endswith(b"-PLUS"):
            kept += name + b"\x00"
            mechanisms += 1
    reader.end()
    if not mechanisms:
        raise ProtocolError(Side.SERVER, "it takes passwords only with channel binding, which needs TLS unread")
    return message(b"R", INT32.pack(_SASL) + kept + b"\x00")


def claims_channel_binding(raw: bytes) -> bool:
    """Is this SASLInitialResponse of a client that could have bound its password to TLS (RFC 5802 section 6, `y`)?"""
    mechanism, _, rest = raw[BODY:].partition(b"\x00")
    return mechanism.startswith(b"SCRAM-") and rest[4:6] == b"y,"


def read_function_result(raw: bytes) -> bytes | None:
    """FunctionCallResponse: its value."""
    reader = Reader(raw, Side.SERVER)
    value = reader.value()
    reader.end()
    return value


def function_result(value: bytes | None) -> bytes:
    """A FunctionCallResponse of `value`."""
    return message(b"V", _NULL if value is None else INT32.pack(len(value)) + value)


def read_copy_format(raw: bytes) -> int:
    """CopyOutResponse: 0 where the stream is text (CSV too), 1 where it is binary."""
    return Reader(raw, Side.SERVER).byte()


def read_cells(data: bytes, pos: int, end: int, values: list[bytes | None]) -> int:
    """Adds the cells of the DataRow whose body is `data[pos:end]` to `values`, None for NULL; returns their number.

    Compiled, shifts are much faster than a call of `struct`."""
    if end - pos < 2:
        raise ProtocolError(Side.SERVER, "a DataRow has no column count")
    width = left = data[pos] << 8 | data[pos + 1]
    pos += 2
    while left:
        if pos + 4 > end:
            break
        size = data[pos] << 24 | data[pos + 1] << 16 | data[pos + 2] << 8 | data[pos + 3]
        pos += 4
        if size <= end - pos:
            values.append(data[pos : pos + size])
            pos += size
        elif size == _NO_VALUE:
            values.append(None)
        else:
            break
        left -= 1
    if pos != end or left:
        raise ProtocolError(Side.SERVER, "the cells of a DataRow do not fill it")
    return width


def cells_in(raw: bytes) -> list[bytes | None]:
    """All cells of DataRows, or of a FunctionCallResponse."""
    if raw[0] != _DATA_ROW:
        return [read_function_result(raw)]
    cells: list[bytes | None] = []
    pos = 0
    while pos < len(raw):
        end = pos + 1 + int.from_bytes(raw[pos + 1 : pos + BODY], "big")
        read_cells(raw, pos + BODY, end, cells)
        pos = end
    return cells


def data_rows(values: list[bytes | None], width: int) -> bytes:
    """DataRows of `width` of these cells each."""
    if not width:
        return message(b"D", _UINT16.pack(0))
    pack, count = INT32.pack, _UINT16.pack(width)
    parts: list[bytes] = []
    start, end = 0, len(values)
    while start < end:
        parts.append(b"D")
        place, size = len(parts), 6 + 4 * width
        parts.append(b"")
        parts.append(count)
        for value in values[start : start + width]:
            if value is None:
                parts.append(_NULL)
                continue
            length = len(value)
            size += length
            parts.append(_LENGTHS[length] if length < _SHORT else pack(length))
            parts.append(value)
        parts[place] = _LENGTHS[size] if size < _SHORT else pack(size)
        start += width
    return b"".join(parts)


def formats(codes: tuple[int, ...]) -> bytes:
    """Format codes with their number, as Bind has them."""
    return b"".join(code.to_bytes(2, "big") for code in (len(codes), *codes))


def values(cells: list[bytes | None]) -> bytes:
    """Values with their number, as Bind has them."""
    each = (_NULL if cell is None else INT32.pack(len(cell)) + cell for cell in cells)
    return _UINT16.pack(len(cells)) + b"".join(each)


def message(code: bytes, body: bytes) -> bytes:
    """A typed message."""
    return code + INT32.pack(len(body) + 4) + body


def copy_data(data: bytes) -> bytes:
    """`data` as CopyData; nothing for no data (an empty CopyData would be a row of its own to some clients)."""
    return message(b"d", data) if data else b""


def describe_portal(name: bytes) -> bytes:
    """Describe of a portal."""
    return message(b"D", b"P" + name + b"\x00")


def ready_for_query(status: bytes) -> bytes:
    """ReadyForQuery with transaction status `I`, `T` or `E`."""
    return message(b"Z", status)


def error_response(severity: str, sqlstate: str, title: str, detail: str, hint: str) -> bytes:
    """ErrorResponse: `severity` ERROR (the session goes on) or FATAL (the connection ends)."""
    fields = (("S", severity), ("V", severity), ("C", sqlstate), ("M", title), ("D", detail), ("H", hint))
    body = b"".join(code.encode() + text.replace("\x00", "").encode() + b"\x00" for code, text in fields)
    return message(b"E", body + b"\x00")


def read_error(raw: bytes) -> list[tuple[int, bytes]]:
    """ErrorResponse or NoticeResponse: its fields as (code, value), in order."""
    reader = Reader(raw, Side.SERVER)
    fields = []
    while code := reader.byte():
        fields.append((code, reader.string()))
    reader.end()
    return fields
