"""Step 4 of 6, inspect: MySQL's prepared statements, and what they are executed with.

Gets what was prepared, and the parameters of each execution; hands on the statement behind a number, and parameters as
text. A number must never mean to us what it does not mean to the server: the server gives it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.mysql.handshake import decode
from enforcer.protocols.mysql.packets import Reader, text_encoded
from enforcer.protocols.mysql.results import Layout
from enforcer.protocols.mysql.values import read_value

MAX_STATEMENTS: Final = 16_382
"""Statements remembered per connection; the default of max_prepared_stmt_count. Forgetting one would hide what is
executed, so the connection ends instead."""

MAX_STATEMENT_BYTES: Final = 32 << 20
"""Text of all remembered statements of a connection."""

MAX_LONG_DATA: Final = 32 << 20
"""Bytes of parameters that are sent ahead of their execution and wait for its verdict; as of a command."""

LAST: Final = 0xFFFFFFFF
"""MariaDB: the statement that was prepared last."""

_PARAMETER_COUNT: Final = 0x08
"""Flag of an execution: query attributes come with it."""


@dataclass(slots=True, eq=False)
class Statement:
    """A prepared statement. `parameters`: how many; `types`: (type, unsigned) of each, as last bound. `ahead`: values
    that were sent in pieces, `ahead_raw` as they came. `layout`: its columns, as its last execution told them."""

    text: bytes
    facts: dict[str, str]
    number: int = 0
    parameters: int = 0
    types: list[tuple[int, bool]] = field(default_factory=list)
    ahead: dict[int, list[bytes]] = field(default_factory=dict)
    ahead_raw: list[bytes] = field(default_factory=list)
    layout: Layout | None = None

    def forget_ahead(self) -> int:
        """Drops what was sent ahead; returns its bytes."""
        size = sum(map(len, self.ahead_raw))
        self.ahead.clear()
        self.ahead_raw.clear()
        return size


class Statements:
    """The prepared statements of one connection."""

    def __init__(self) -> None:
        self._by_number: dict[int, Statement] = {}
        self._last: Statement | None = None
        self._bytes = 0
        self._ahead = 0

    def get(self, number: int) -> Statement | None:
        return self._last if number == LAST else self._by_number.get(number)

    def add(self, statement: Statement) -> None:
        """Raises LimitExceeded."""
        self.close(statement.number)
        self._by_number[statement.number] = self._last = statement
        self._bytes += len(statement.text)
        if len(self._by_number) > MAX_STATEMENTS or self._bytes > MAX_STATEMENT_BYTES:
            raise LimitExceeded(Side.CLIENT, "too many prepared statements; close some")

    def close(self, number: int) -> None:
        statement = self._by_number.pop(number, None)
        if statement is not None:
            self._bytes -= len(statement.text)
            self._ahead -= statement.forget_ahead()
            if statement is self._last:
                self._last = None

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]  # as new: the server has dropped all of them

    def send_ahead(self, statement: Statement, index: int, value: bytes, raw: bytes) -> None:
        """Keeps a piece of a parameter until the execution it is for is judged. Raises LimitExceeded."""
        self._ahead += len(raw)
        if self._ahead > MAX_LONG_DATA:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_LONG_DATA} bytes of parameters wait for their execution")
        statement.ahead.setdefault(index, []).append(value)
        statement.ahead_raw.append(raw)

    def take_ahead(self, statement: Statement) -> list[bytes]:
        """What was sent ahead, as it came; it is kept no longer."""
        raw = list(statement.ahead_raw)
        self._ahead -= statement.forget_ahead()
        return raw


@dataclass(slots=True)
class Value:
    """A bound value. `text` is None for NULL; `raw`: as it stands in the message. `name`: of a query attribute, else
    empty."""

    kind: int
    flags: int
    text: bytes | None
    raw: bytes
    name: bytes = b""

    @property
    def shown(self) -> str | None:
        text = None if self.text is None else decode(self.text)
        return f"{decode(self.name)}={text}" if self.name else text


@dataclass(slots=True)
class Bound:
    """What an execution, or a query with attributes, binds: `before` and `after` stand around the values. `types`: what
    the statement's are once the server has it. `ahead`: values of parameters that were sent ahead."""

    before: bytes
    values: list[Value]
    after: bytes
    named: bool
    ahead: dict[int, bytes] = field(default_factory=dict)
    types: list[tuple[int, bool]] = field(default_factory=list)

    @property
    def shown(self) -> tuple[str | None, ...]:
        return tuple(
            decode(self.ahead[index]) if index in self.ahead else value.shown for index, value in enumerate(self.values)
        )

    def written(self) -> bytes:
        """The command, put together anew."""
        nulls = bytearray((len(self.values) + 7) // 8)
        types, values = [], []
        for index, value in enumerate(self.values):
            name = text_encoded(value.name) if self.named else b""
            types.append(bytes((value.kind, value.flags)) + name)
            if value.text is None and index not in self.ahead:
                nulls[index >> 3] |= 1 << (index & 7)
            values.append(value.raw)
        return self.before + bytes(nulls) + b"\x01" + b"".join(types) + b"".join(values) + self.after


def read_execution(payload: bytes, statement: Statement, attributes: bool) -> Bound:
    """COM_STMT_EXECUTE. `attributes`: query attributes were agreed on. Raises ProtocolError."""
    reader = Reader(payload, Side.CLIENT, 5)
    flags = reader.integer(1)
    reader.take(4)
    counted = attributes and bool(flags & _PARAMETER_COUNT)
    if not statement.parameters and not counted:
        reader.end()
        return Bound(payload, [], b"", named=False)
    count = reader.length() if counted else statement.parameters
    if count < statement.parameters:
        raise ProtocolError(Side.CLIENT, "an execution with fewer parameters than the statement has")
    ahead = {index: b"".join(pieces) for index, pieces in statement.ahead.items()}
    bound = Bound(payload[: reader.pos], [], b"", named=counted, ahead=ahead)
    if count:
        _read_values(reader, bound, count, statement)
    reader.end()
    return bound


def read_attributes(reader: Reader, payload: bytes) -> Bound:
    """The query attributes that stand before a COM_QUERY's text."""
    count, sets = reader.length(), reader.length()
    if sets != 1:
        raise ProtocolError(Side.CLIENT, "a query with more than one set of attributes")
    bound = Bound(payload[: reader.pos], [], b"", named=True)
    if count:
        _read_values(reader, bound, count, Statement(b"", {}))
    return bound


def _read_values(reader: Reader, bound: Bound, count: int, statement: Statement) -> None:
    nulls = reader.take((count + 7) // 8)
    names: list[bytes] = [b""] * count
    if reader.integer(1):
        for index in range(count):
            bound.types.append((reader.integer(1), bool(reader.integer(1) & 0x80)))
            if bound.named:
                names[index] = reader.text()
    else:
        bound.types = statement.types
    if len(bound.types) != count:
        raise ProtocolError(Side.CLIENT, "an execution does not say what its parameters are")
    for index, (kind, unsigned) in enumerate(bound.types):
        start, text = reader.pos, None
        if index not in bound.ahead and not nulls[index >> 3] >> (index & 7) & 1:
            text = read_value(reader, kind, unsigned, Side.CLIENT)
        raw = reader.data[start : reader.pos]
        bound.values.append(Value(kind, 0x80 if unsigned else 0, text, raw, names[index]))
