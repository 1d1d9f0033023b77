"""Reads records for the command line, on a connection of its own that cannot write.

Gets a path; hands on plain dictionaries with JSON columns decoded. Reading neither blocks the writer
nor is blocked by it (WAL).
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import orjson

from enforcer.errors import RecordError, UsageError
from enforcer.recording.chain import Head
from enforcer.recording.schema import TABLES, check_version, read_head

Record = dict[str, Any]

_JSON_COLUMNS = frozenset({"argv", "params", "facts", "masked"})
_FLAGS = frozenset({"observed", "durable", "failed"})
_PREFIX = re.compile(r"[0-9a-f]{1,16}").fullmatch

# A session is listed with what became of it. Ends are looked up, not joined: a row that is there twice must not
# double the session.
_LIST = """
SELECT s.seq, s.time_ns, s.id, s.executor, s.executor_ident, s.user, s.pid, s.exe, s.destination, s.host, s.protocol,
       s.region, s.region_kind, s.prefix, s.policy, s.rule, s.action, s.reason, s.observed, s.generation,
       (SELECT count(*) FROM exchanges x WHERE x.session = s.id) AS exchanges,
       (SELECT count(*) FROM exchanges x WHERE x.session = s.id AND x.action = 'deny') AS denied,
       (SELECT coalesce(sum(m.value), 0) FROM exchanges x, json_each(x.masked) m WHERE x.session = s.id)
         + (SELECT coalesce(sum(m.value), 0) FROM outcomes o, json_each(o.masked) m WHERE o.session = s.id)
         AS masked_total,
       (SELECT e.cause FROM session_ends e WHERE e.session = s.id ORDER BY e.seq LIMIT 1) AS ended
  FROM sessions s
"""
_EXCHANGES = """
SELECT x.seq, x.time_ns, x.exchange, x.protocol, x.operation, x.text, x.params, x.facts, x.action, x.policy, x.rule,
       x.reason, x.detail, x.observed, x.durable, x.cut_bytes, x.cut_sha256,
       coalesce(o.time_ns, x.time_ns + x.duration_ns) AS outcome_time_ns, coalesce(x.status, o.status) AS status,
       coalesce(x.rows, o.rows) AS rows, coalesce(x.failed, o.failed) AS failed,
       coalesce(x.bytes_up, o.bytes_up) AS bytes_up, coalesce(x.bytes_down, o.bytes_down) AS bytes_down,
       coalesce(x.duration_ns, o.duration_ns) AS duration_ns, coalesce(x.masked, o.masked) AS masked
  FROM exchanges x LEFT JOIN outcomes o ON o.session = x.session AND o.exchange = x.exchange
 WHERE x.session = ? ORDER BY x.exchange, x.seq, o.seq
"""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which sessions to list; None means any. `action` `deny` includes sessions with a denied exchange. `region` is
    one member of the region set. `since_ns`: opened at or after this Unix time."""

    executor: str | None = None
    action: str | None = None
    region: str | None = None
    protocol: str | None = None
    since_ns: int | None = None
    limit: int = 50

    def conditions(self) -> tuple[str, list[str | int]]:
        """The WHERE clause (empty when nothing is filtered) and its values."""
        clauses: list[str] = []
        values: list[str | int] = []
        for clause, value in (
            ("s.executor = ?", self.executor),
            ("instr('/' || replace(s.region, ' ', '/') || '/', '/' || ? || '/') > 0", self.region),
            ("s.protocol = ?", self.protocol),
            ("s.time_ns >= ?", self.since_ns),
        ):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        if self.action == "deny":
            denied = "EXISTS (SELECT 1 FROM exchanges x WHERE x.session = s.id AND x.action = 'deny')"
            clauses.append(f"(s.action = 'deny' OR {denied})")
        elif self.action is not None:
            clauses.append("s.action = ?")
            values.append(self.action)
        return ("WHERE " + " AND ".join(clauses) if clauses else ""), values


def connect(path: Path) -> sqlite3.Connection:
    """A connection that can only read. Raises RecordError when there is nothing to read at `path`."""
    missing = RecordError(f"no records at {path}; is the supervisor running?")
    try:
        if not path.exists():
            raise missing
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None)
    except (sqlite3.Error, OSError) as error:
        raise RecordError(f"{path} cannot be opened: {error}; read it as root") from error
    try:
        check_version(connection, path)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not names.intersection(TABLES):
            raise missing
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: SQLite quotes a damaged schema as it is
        connection.close()
        raise RecordError(f"{path} cannot be read: {error}; is it the session database, and readable?") from error
    except RecordError:
        connection.close()
        raise
    return connection


class Reader:
    """Queries on the database at `path`. Raises RecordError when it is missing, newer or cannot be read."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection = connect(path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def sessions(self, wanted: Filter) -> list[Record]:
        """Sessions, newest first, each with its number of exchanges, denied ones and masked values."""
        where, values = wanted.conditions()
        return self._query(f"{_LIST} {where} ORDER BY s.seq DESC LIMIT ?", [*values, wanted.limit])

    def session(self, prefix: str) -> Record:
        """The session whose id begins with `prefix`: all its columns, its `end` (None while it lives), and its
        `exchanges`, each with its outcome.

        Raises UsageError when `prefix` is no id or begins several, RecordError when no session has it.
        """
        if not _PREFIX(prefix):
            raise UsageError(f"{prefix!r} is not a session id; give up to 16 hexadecimal digits")
        # 'g' follows the last hexadecimal digit
        found = self._query("SELECT * FROM sessions WHERE id >= ? AND id < ? || 'g' ORDER BY seq LIMIT 6", [prefix] * 2)
        if not found:
            raise RecordError(f"no session begins with {prefix}; 'enforcer sessions list' shows those there are")
        if len(found) > 1:
            some = ", ".join(record["id"] for record in found[:5]) + (", ..." if len(found) > 5 else "")
            raise UsageError(f"{prefix} begins several sessions ({some}); give more digits")
        session = found[0]
        ends = self._query("SELECT * FROM session_ends WHERE session = ? ORDER BY seq LIMIT 1", [session["id"]])
        session["end"] = ends[0] if ends else None
        session["exchanges"] = self.exchanges(session["id"])
        return session

    def exchanges(self, session: str) -> list[Record]:
        """The exchanges of the session with that full id, in order, each with its outcome."""
        return self._query(_EXCHANGES, [session])

    def counts(self) -> dict[str, int]:
        """Rows per table."""
        return {
            table: self._query(f"SELECT count(*) AS n FROM {table}", [])[0]["n"]  # noqa: S608 (our own names)
            for table in TABLES
        }

    def head(self) -> Head:
        """The recorded head of the chain. Raises RecordError when there is not exactly one."""
        head = read_head(self._connection)
        if head is None:
            raise RecordError(f"{self._path} has no chain head; run 'enforcer sessions verify'")
        return head

    def _query(self, sql: str, values: list[str | int]) -> list[Record]:
        cursor = self._connection.cursor()
        cursor.row_factory = _decoded
        try:
            found: list[Record] = cursor.execute(sql, values).fetchall()
        except (sqlite3.Error, ValueError) as error:
            raise RecordError(f"{self._path} cannot be read: {error}; run 'enforcer sessions verify'") from error
        return found


def _decoded(cursor: sqlite3.Cursor, row: tuple[Any, ...]) -> Record:
    record: Record = {}
    for (name, *_), value in zip(cursor.description, row, strict=True):
        if value is None:
            record[name] = None
        elif name in _JSON_COLUMNS:
            record[name] = orjson.loads(value)
        elif name in _FLAGS:
            record[name] = bool(value)
        elif isinstance(value, bytes):
            record[name] = value.hex()
        else:
            record[name] = value
    return record
