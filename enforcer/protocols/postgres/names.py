"""Step 4 of 6, inspect: what prepared statements and portals of one connection stand for.

Gets what the client asked for (Parse, Bind, Close) and whether the server agreed; hands on the statement behind a
name. A name must never mean to us what it does not mean to the server: a Parse that fails leaves the old meaning.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.postgres.messages import Field
from enforcer.protocols.postgres.results import Layout, lay_out

MAX_NAMES: Final = 10_000
"""Statements, and portals, remembered per connection. Drivers keep some hundred (psycopg 100, asyncpg 100, pgjdbc
256); forgetting one would hide what is executed, so the connection ends instead."""

MAX_STATEMENT_BYTES: Final = 32 << 20
"""Text of all remembered statements of a connection: 10,000 of 3 KiB, or two as long as a message may be."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One judged request on its way. `in_flight`: messages of it that the server has yet to answer.

    `rewritten`: what the client says is masked on its way. `rows`: as the server's command tags count them; `counted`:
    DataRows seen since the last tag."""

    number: int
    masked: bool
    rewritten: bool = False
    in_flight: int = 0
    rows: int | None = None
    counted: int = 0
    status: str = ""
    failed: bool = False
    done: bool = False

    def add_rows(self, count: int) -> None:
        self.rows = (self.rows or 0) + count
        self.counted = 0


@dataclass(slots=True, eq=False)
class Statement:
    """A prepared statement. `fields`: the columns it returns once the server described them, () for none. `queries`:
    whose columns those are (`results.Definitions.behind`). `unsettles`: may it set the client's encoding, which says
    how later statements are read?"""

    text: str
    size: int = 0
    facts: dict[str, str] = field(default_factory=dict)
    oids: tuple[int, ...] = ()
    fields: tuple[Field, ...] | None = None
    queries: tuple[str, ...] | None = None
    unsettles: bool = False


@dataclass(slots=True, eq=False)
class Portal:
    """A bound statement, ready to run. `formats`: the result format codes of its Bind."""

    name: bytes
    statement: Statement
    formats: tuple[int, ...]
    exchange: Exchange | None = None
    fields: tuple[Field, ...] | None = None
    size: int = 0

    @property
    def described(self) -> tuple[Field, ...] | None:
        return self.fields if self.fields is not None else self.statement.fields

    def layout(self, cells: int) -> Layout:
        """Of a row with so many cells."""
        return lay_out(self.statement.queries, self.described, self.formats, cells)


Named = TypeVar("Named", Statement, Portal)


class Names(Generic[Named]):
    """Per name: what the server confirmed, then what outstanding messages propose, oldest first; None is absence.

    The server answers in order, so the message it answers is always the oldest proposal for its name.
    """

    def __init__(self) -> None:
        self._versions: dict[bytes, deque[Named | None]] = {}
        self._count = 0
        self._bytes = 0

    def latest(self, name: bytes) -> Named | None:
        """What `name` will mean to the server when it reads the client's next message."""
        versions = self._versions.get(name)
        return versions[-1] if versions else None

    def propose(self, name: bytes, value: Named | None) -> None:
        """A message goes upstream that gives `name` a meaning, or (None) takes it away. Raises LimitExceeded."""
        self._versions.setdefault(name, deque((None,))).append(value)
        self._weigh(value, 1)
        if self._count > MAX_NAMES or self._bytes > MAX_STATEMENT_BYTES:
            raise LimitExceeded(Side.CLIENT, "too many prepared statements or portals; close some")

    def confirm(self, name: bytes) -> None:
        """The server agreed to the oldest proposal for `name`."""
        versions = self._versions[name]
        self._weigh(versions.popleft(), -1)
        self._prune(name)

    def withdraw(self, name: bytes) -> None:
        """The server refused or skipped the oldest proposal for `name`."""
        versions = self._versions[name]
        self._weigh(versions[1], -1)
        del versions[1]
        self._prune(name)

    def forget(self, name: bytes) -> None:
        """The server has dropped what `name` meant, without a message that says so."""
        versions = self._versions.get(name)
        if versions:
            self._weigh(versions[0], -1)
            versions[0] = None
            self._prune(name)

    def forget_all(self) -> None:
        """The same, for every name."""
        for name in list(self._versions):
            self.forget(name)

    def _weigh(self, value: Named | None, sign: int) -> None:
        if value is not None:
            self._count += sign
            self._bytes += sign * value.size

    def _prune(self, name: bytes) -> None:
        versions = self._versions[name]
        if len(versions) == 1 and versions[0] is None:
            del self._versions[name]
