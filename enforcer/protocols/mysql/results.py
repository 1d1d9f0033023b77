"""Step 4 of 6, inspect: the messages that MySQL's answers are made of: definitions, rows, OK and ERR.

Gets payloads; hands on what they hold, and builds them anew around masked values. Pure. Source: MySQL internals, "Text
Resultset", "Binary Protocol Resultset", "OK_Packet", "ERR_Packet", "Session State Information".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Rows
from enforcer.protocols.mysql.handshake import SESSION_TRACK, decode
from enforcer.protocols.mysql.packets import (
    FULL,
    HEADER,
    NULL,
    Reader,
    length_encoded,
    message_of,
    message_size,
    payload_of,
    text_encoded,
)
from enforcer.protocols.mysql.values import STRINGS, TEXTUAL, is_number, read_value, write_number
from enforcer.protocols.statement_facts import is_utf8

ACCESS_DENIED: Final = 1045, "28000"
"""ER_ACCESS_DENIED_ERROR: a connection that may not be."""

STATEMENT_DENIED: Final = 1142, "42000"
"""ER_TABLEACCESS_DENIED_ERROR: a command that may not be; the connection lives on."""

UNREACHABLE: Final = 2003, "HY000"
"""CR_CONN_HOST_ERROR, as clients say it themselves."""

MAX_MESSAGE: Final = 512
"""Bytes of an error's words; MYSQL_ERRMSG_SIZE, where clients cut them off."""

MORE_RESULTS: Final = 0x0008
CURSOR_EXISTS: Final = 0x0040
NO_BACKSLASHES: Final = 0x0200
STATE_CHANGED: Final = 0x4000
ANSI_QUOTES: Final = 0x8000
"""MariaDB only: a double quote begins a name."""

_SEPARATOR: Final = b"\x00"
_SHORT: Final = tuple(bytes((number,)) for number in range(256))
_VARIABLE, _SCHEMA = 0, 1
_UNSIGNED: Final = 0x20


@dataclass(slots=True)
class Definition:
    """One column. `origin`: `table.column` as it is stored, empty for what was computed. `shown`: as it is called.
    `legible`: are these in UTF-8?"""

    origin: str
    shown: str
    collation: int
    kind: int
    unsigned: bool
    legible: bool = True


def read_definition(payload: bytes) -> tuple[Definition, Reader]:
    """A column's definition, and what follows it: the default, in the answer to COM_FIELD_LIST."""
    reader = Reader(payload, Side.SERVER)
    reader.text()  # catalog
    reader.text()  # schema
    names = [reader.text() for _ in range(4)]
    table, org_table, name, org_name = map(decode, names)
    if reader.length() != 12:
        raise ProtocolError(Side.SERVER, "the fixed part of a column's definition has another length than 12")
    collation = reader.integer(2)
    reader.take(4)
    kind, flags = reader.integer(1), reader.integer(2)
    reader.take(3)
    origin = f"{org_table}.{org_name}" if org_name and org_table else org_name
    shown = f"{table}.{name}" if table else name
    legible = is_utf8(b"\0".join(names))
    return Definition(origin, shown, collation, kind, bool(flags & _UNSIGNED), legible), reader


class Layout:
    """The columns of a result. `binary`: its rows are in the binary protocol."""

    __slots__ = ("binary", "columns", "definitions", "plain", "strings", "textual")

    def __init__(self, definitions: list[Definition], names: tuple[str, ...], *, binary: bool) -> None:
        self.definitions = definitions
        self.columns = names
        self.plain = (False,) * len(definitions)
        self.textual = tuple(one.kind in TEXTUAL for one in definitions)
        self.strings = tuple(one.kind in STRINGS for one in definitions)
        self.binary = binary


def read_row(raw: bytes, layout: Layout) -> list[bytes | None]:
    """The cells of a row, all of them as text. Raises ProtocolError where they do not fill it."""
    if layout.binary:
        return _binary_cells(payload_of(raw), layout, [])
    if len(raw) < HEADER + FULL:
        return _text_cells(raw, HEADER, len(layout.columns))
    return _text_cells(payload_of(raw), 0, len(layout.columns))


def _text_cells(data: bytes, pos: int, count: int) -> list[bytes | None]:
    """Hot path: the cells that stand in `data` from `pos` on."""
    values: list[bytes | None] = []
    append, end = values.append, len(data)
    while pos < end:
        size = data[pos]
        pos += 1
        if size == NULL:
            append(None)
            continue
        if size > NULL:
            reader = Reader(data, Side.SERVER, pos - 1)
            size, pos = reader.length(), reader.pos
        append(data[pos : pos + size])
        pos += size
    if pos != end or len(values) != count:
        raise ProtocolError(Side.SERVER, "the cells of a row do not fill it")
    return values


def _binary_cells(payload: bytes, layout: Layout, pieces: list[bytes]) -> list[bytes | None]:
    """Also puts into `pieces` how each cell stands in the row."""
    count = len(layout.columns)
    reader = Reader(payload, Side.SERVER, 1)
    nulls = reader.take((count + 9) // 8)
    values: list[bytes | None] = []
    for index, column in enumerate(layout.definitions):
        if nulls[index + 2 >> 3] >> (index + 2 & 7) & 1:
            pieces.append(b"")
            values.append(None)
            continue
        start = reader.pos
        values.append(read_value(reader, column.kind, column.unsigned, Side.SERVER))
        pieces.append(payload[start : reader.pos])
    reader.end()
    return values


def write_rows(rows: Rows, values: list[bytes | None], layout: Layout) -> bytes:
    """`rows` with these cells, numbered as they are. What does not fit its column's type any more is NULL."""
    if len(values) != len(rows.values):
        raise ProtocolError(Side.SERVER, "masked rows have another number of cells")
    out: list[bytes] = []
    width, sequence, pos = len(layout.columns), rows.raw[3], 0
    for start in range(0, len(values), width):
        before, after = rows.values[start : start + width], values[start : start + width]
        if layout.binary:
            size = message_size(rows.raw, pos)
            body = _binary_row(before, after, layout, payload_of(rows.raw[pos : pos + size]))
            pos += size
        else:
            body = _text_row(before, after, layout)
        if len(body) < FULL:
            out += (len(body).to_bytes(3, "little"), _SHORT[sequence & 0xFF], body)
        else:
            out.append(message_of(body, sequence))
        sequence += len(body) // FULL + 1
    return b"".join(out)


def _text_row(before: list[bytes | None], values: list[bytes | None], layout: Layout) -> bytes:
    """Hot path: these cells in the text protocol."""
    parts: list[bytes] = []
    textual = layout.textual
    for index, value in enumerate(values):
        if value is None or not (
            textual[index] or value == before[index] or is_number(value, layout.definitions[index].kind)
        ):
            parts.append(b"\xfb")
        elif len(value) < NULL:
            parts += (_SHORT[len(value)], value)
        else:
            parts += (length_encoded(len(value)), value)
    return b"".join(parts)


def _binary_row(before: list[bytes | None], values: list[bytes | None], layout: Layout, payload: bytes) -> bytes:
    """These cells in the binary protocol; what is as it was in `payload` stands as it does there."""
    nulls, body, pieces = bytearray((len(values) + 9) // 8), [b"\x00", b""], list[bytes]()
    _binary_cells(payload, layout, pieces)
    for index, value in enumerate(values):
        piece = None if value is None else pieces[index]
        if value is not None and value != before[index]:
            column = layout.definitions[index]
            piece = text_encoded(value) if layout.textual[index] else write_number(value, column.kind, column.unsigned)
        if piece is None:
            nulls[index + 2 >> 3] |= 1 << (index + 2 & 7)
        else:
            body.append(piece)
    body[1] = bytes(nulls)
    return b"".join(body)


@dataclass(slots=True)
class Ok:
    """An OK. `state`: (kind, data) of each change of the session's state that is told; of a variable `name` is set."""

    header: int
    affected: int
    last_id: int
    status: int
    warnings: int
    info: bytes
    state: list[tuple[int, bytes, bytes]]


def read_ok(payload: bytes, capabilities: int) -> Ok:
    reader = Reader(payload, Side.SERVER)
    ok = Ok(reader.integer(1), reader.length(), reader.length(), reader.integer(2), reader.integer(2), b"", [])
    if not capabilities & SESSION_TRACK:
        ok.info = reader.rest()
        return ok
    ok.info = reader.text() if reader.left else b""
    if ok.status & STATE_CHANGED and reader.left:
        changes = Reader(reader.text(), Side.SERVER)
        while changes.left:
            kind, data = changes.integer(1), Reader(changes.text(), Side.SERVER)
            if kind == _VARIABLE:
                while data.left:
                    name = data.text()
                    ok.state.append((kind, name, data.text()))
            else:
                ok.state.append((kind, b"", data.rest()))
    reader.end()
    return ok


def write_ok(ok: Ok, capabilities: int) -> bytes:
    """The payload of an OK."""
    counts = length_encoded(ok.affected) + length_encoded(ok.last_id)
    head = bytes((ok.header,)) + counts + ok.status.to_bytes(2, "little") + ok.warnings.to_bytes(2, "little")
    if not capabilities & SESSION_TRACK:
        return head + ok.info
    state = b"".join(
        bytes((kind,)) + text_encoded(text_encoded(name) + text_encoded(data) if kind == _VARIABLE else data)
        for kind, name, data in ok.state
    )
    told = bool(ok.status & STATE_CHANGED)
    return head + (text_encoded(ok.info) if ok.info or told else b"") + (text_encoded(state) if told else b"")


def changed_schema(ok: Ok) -> str | None:
    """The database that is in use now, where that is told."""
    for kind, _, data in ok.state:
        if kind == _SCHEMA:
            return decode(Reader(data, Side.SERVER).text())
    return None


def changed_variable(ok: Ok, name: bytes) -> str | None:
    """What a variable of the session is now, where that is told."""
    return next((decode(data) for kind, named, data in ok.state if kind == _VARIABLE and named == name), None)


def ok_text(ok: Ok) -> bytes:
    """What may quote data in it, joined by NUL bytes; empty where there is nothing of that kind. A statement can choose
    the last insert id (`LAST_INSERT_ID(expression)`), and the value of many a variable."""
    values = [data for kind, _, data in ok.state if kind == _VARIABLE]
    if not ok.last_id and not ok.info and not values:
        return b""
    return _SEPARATOR.join((b"%d" % ok.last_id, ok.info, *values))


def masked_ok(payload: bytes, capabilities: int, data: bytes) -> bytes:
    """An OK with those values replaced; an insert id that was masked is 0. Raises ProtocolError where their number
    changed."""
    ok = read_ok(payload, capabilities)
    last_id, *values = data.split(_SEPARATOR)
    variables = [index for index, change in enumerate(ok.state) if change[0] == _VARIABLE]
    if len(values) != 1 + len(variables):
        raise ProtocolError(Side.SERVER, "a masked OK does not fit its parts")
    ok.last_id = ok.last_id if last_id == b"%d" % ok.last_id else 0
    ok.info = values[0]
    for index, value in zip(variables, values[1:], strict=True):
        ok.state[index] = (_VARIABLE, ok.state[index][1], value)
    return write_ok(ok, capabilities)


def read_error(payload: bytes) -> tuple[int, bytes, bytes]:
    """Code, SQLSTATE (empty before the login) and words of an ERR."""
    reader = Reader(payload, Side.SERVER, 1)
    code = reader.integer(2)
    state = reader.take(6)[1:] if reader.data[reader.pos : reader.pos + 1] == b"#" else b""
    return code, state, reader.rest()


def error(code: int, state: bytes, words: bytes) -> bytes:
    """The payload of an ERR."""
    return b"\xff" + code.to_bytes(2, "little") + (b"#" + state if state else b"") + words


def text_of(payload: bytes, capabilities: int) -> bytes:
    """What may quote data in an OK or ERR."""
    return read_error(payload)[2] if payload[0] == 0xFF else ok_text(read_ok(payload, capabilities))


def with_text(raw: bytes, capabilities: int, data: bytes) -> bytes:
    """An OK or ERR message with that replaced."""
    payload = payload_of(raw)
    if payload[0] == 0xFF:
        code, state, _ = read_error(payload)
        return message_of(error(code, state, data), raw[3])
    return message_of(masked_ok(payload, capabilities, data), raw[3])
