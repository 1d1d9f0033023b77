"""Reads the whole chain again and says whether every row is the one that was written.

Gets a database; hands on counts, the head and the first fault. Never writes, never repairs. What it proves, and what it
cannot, is in docs/records.md.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import orjson

from enforcer.recording.chain import GENESIS, Head, row_hash
from enforcer.recording.reader import connect
from enforcer.recording.schema import FORMS, TABLES, altered_schema, read_head, select_rows


class Kind(Enum):
    """The ways a chain can be broken."""

    ALTERED = "altered row"
    MISSING = "missing row"
    ORDER = "wrong order"
    TRUNCATED = "truncated"
    HEAD = "head mismatch"
    SCHEMA = "altered schema"
    FILE = "damaged file"


@dataclass(frozen=True, slots=True)
class Fault:
    """The first fault: at which seq (0: the file as a whole), in which table (empty: none), and in words."""

    kind: Kind
    seq: int
    table: str
    what: str

    def __str__(self) -> str:
        return f"{self.kind.value}: {self.what}"


@dataclass(frozen=True, slots=True)
class Report:
    """`rows` per table and `head` as far as the chain holds; `fault` is None when all of it does."""

    rows: dict[str, int]
    head: Head
    fault: Fault | None


def verify(source: sqlite3.Connection | Path) -> Report:
    """Recomputes the chain of `source` within one snapshot, so that a writer may go on meanwhile.

    Raises RecordError when a path cannot be read as a database at all, or was written by a newer version.
    """
    if isinstance(source, sqlite3.Connection):
        return _verify(source)
    connection = connect(source)
    try:
        return _verify(connection)
    finally:
        connection.close()


class _Broken(Exception):
    """Carries the first fault out of the walk."""

    def __init__(self, kind: Kind, seq: int, table: str, what: str) -> None:
        super().__init__(what)
        self.fault = Fault(kind, seq, table, what)


class _Walk:
    """The chain so far: rows per table, and the row that was verified last."""

    def __init__(self) -> None:
        self.rows = dict.fromkeys(TABLES, 0)
        self.head = Head(0, GENESIS)
        self.table = ""

    def step(self, table: str, row: tuple[Any, ...]) -> None:
        """Verifies the next row in order of seq. Raises _Broken."""
        seq, form, *values, prev_hash, digest = row
        expected = self.head.seq + 1
        where = f"row {seq} ({table})"
        if seq < expected:
            raise _Broken(Kind.ORDER, seq, table, f"{where} bears a number that {self.table or 'no row'} already used")
        if seq > expected:
            raise _Broken(Kind.MISSING, expected, "", f"row {expected} is gone; the next one found is {where}")
        if prev_hash != self.head.hash:
            what = f"{where} does not continue row {seq - 1}: one of the two was altered, moved or inserted"
            raise _Broken(Kind.ORDER, seq, table, what)
        if _recomputed(table, seq, form, values, prev_hash) != digest:
            raise _Broken(Kind.ALTERED, seq, table, f"{where} does not match its hash")
        self.rows[table] += 1
        self.head, self.table = Head(seq, digest), table

    def finish(self, recorded: Head | None) -> None:
        """Compares the end of the walk with the recorded head. Raises _Broken."""
        last = self.head.seq
        if recorded is None:
            raise _Broken(Kind.HEAD, last, "", "chain_head does not hold exactly one head")
        if recorded.seq > last:
            what = f"rows {last + 1} to {recorded.seq} at the end are gone"
            raise _Broken(Kind.TRUNCATED, last + 1, "", what)
        if recorded != self.head:
            what = f"the recorded head is row {recorded.seq} {recorded.hash.hex()}, the last row is {last} with "
            raise _Broken(Kind.HEAD, last, self.table, what + self.head.hash.hex())


def _verify(connection: sqlite3.Connection) -> Report:
    factories = connection.text_factory, connection.row_factory
    connection.text_factory, connection.row_factory = _lenient, None
    begin = not connection.in_transaction
    walk, fault = _Walk(), None
    try:
        if begin:
            connection.execute("BEGIN")
        _check_file(connection)
        for table, row in heapq.merge(*(_rows(connection, table) for table in TABLES), key=_by_seq):
            walk.step(table, row)
        walk.finish(read_head(connection))
    except _Broken as broken:
        fault = broken.fault
    except sqlite3.Error as error:
        fault = Fault(Kind.FILE, walk.head.seq, "", f"SQLite cannot read on after row {walk.head.seq}: {error}")
    finally:
        if begin and connection.in_transaction:
            connection.execute("ROLLBACK")
        connection.text_factory, connection.row_factory = factories
    return Report(walk.rows, walk.head, fault)


def _check_file(connection: sqlite3.Connection) -> None:
    """Schema and b-trees, indexes included: a row that its index leaves out would be hidden from `sessions list`."""
    difference = altered_schema(connection)
    if difference:
        raise _Broken(Kind.SCHEMA, 0, "", difference)
    (finding,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    if finding != "ok":
        raise _Broken(Kind.FILE, 0, "", " ".join(str(finding).split()))


def _rows(connection: sqlite3.Connection, table: str) -> Iterator[tuple[str, tuple[Any, ...]]]:
    for row in connection.execute(select_rows(table) + "ORDER BY seq"):
        yield table, row


def _by_seq(item: tuple[str, tuple[Any, ...]]) -> int:
    seq: int = item[1][0]
    return seq


def _recomputed(table: str, seq: int, form: object, values: list[Any], prev_hash: bytes) -> bytes | None:
    """The hash these values ought to have; None when they cannot have been written in the form they claim."""
    if not isinstance(form, int) or form not in FORMS or table not in FORMS[form]:
        return None
    present = 1 + len(FORMS[form][table])
    if any(value is not None for value in values[present:]):
        return None  # a column that a later form added was filled in afterwards
    try:
        return row_hash(prev_hash, form, table, seq, tuple(values[:present]))
    except orjson.JSONEncodeError:
        return None  # bytes where text was, or text that is not Unicode


def _lenient(raw: bytes) -> str:
    """Text of an altered row need not be UTF-8; it must come out as a fault of that row, not stop the walk."""
    return raw.decode(errors="surrogateescape")
