"""Step 6 of 6, record: the tables, the migrations that made them, and the only way to open the database for writing.

Gets a path; hands on a connection whose schema is current and whose chain ends where its head says. Never writes a row.

Migrations are ordered and frozen: what one did is never edited, a change is a new one, with a new entry in `FORMS` when
it adds columns (a column once added is never renamed, moved or dropped, or old rows could not be verified).
"""

from __future__ import annotations

import os
import sqlite3
import stat
from functools import cache
from pathlib import Path

from enforcer.errors import RecordError
from enforcer.recording.chain import GENESIS, Head, row_hash
from enforcer.recording.sqlite import Database, Migrations

# Milliseconds a write waits for another process's lock (an operator's sqlite3 shell). Waiting flows time out later.
BUSY_TIMEOUT_MS = 2000
# Bytes the write-ahead log is cut back to after a checkpoint, so that one burst does not hold disk space for ever.
WAL_SIZE_LIMIT = 64 * 1024 * 1024

# Form (what a row's `form` column says) -> table -> columns that are hashed after time_ns, in that order, with their
# SQLite type. Every table also has seq, form, time_ns in front and prev_hash, hash behind.
FORMS: dict[int, dict[str, dict[str, str]]] = {
    1: {
        "sessions": {
            "id": "TEXT",
            "executor": "TEXT",
            "executor_ident": "TEXT",
            "cgroup": "TEXT",
            "pid": "INTEGER",
            "uid": "INTEGER",
            "user": "TEXT",
            "exe": "TEXT",
            "argv": "TEXT",
            "unit": "TEXT",
            "destination": "TEXT",
            "address": "TEXT",
            "port": "INTEGER",
            "host": "TEXT",
            "protocol": "TEXT",
            "region": "TEXT",
            "region_kind": "TEXT",
            "prefix": "TEXT",
            "table_source": "TEXT",
            "table_version": "TEXT",
            "generation": "INTEGER",
            "policy": "TEXT",
            "rule": "TEXT",
            "action": "TEXT",
            "reason": "TEXT",
            "detail": "TEXT",
            "observed": "INTEGER",
        },
        "exchanges": {
            "session": "TEXT",
            "exchange": "INTEGER",
            "protocol": "TEXT",
            "operation": "TEXT",
            "text": "TEXT",
            "params": "TEXT",
            "facts": "TEXT",
            "action": "TEXT",
            "policy": "TEXT",
            "rule": "TEXT",
            "reason": "TEXT",
            "detail": "TEXT",
            "observed": "INTEGER",
            "durable": "INTEGER",
            "status": "TEXT",
            "rows": "INTEGER",
            "failed": "INTEGER",
            "bytes_up": "INTEGER",
            "bytes_down": "INTEGER",
            "duration_ns": "INTEGER",
            "masked": "TEXT",
            "cut_bytes": "INTEGER",
            "cut_sha256": "TEXT",
        },
        "outcomes": {
            "session": "TEXT",
            "exchange": "INTEGER",
            "status": "TEXT",
            "rows": "INTEGER",
            "failed": "INTEGER",
            "bytes_up": "INTEGER",
            "bytes_down": "INTEGER",
            "duration_ns": "INTEGER",
            "masked": "TEXT",
        },
        "session_ends": {
            "session": "TEXT",
            "cause": "TEXT",
            "bytes_up": "INTEGER",
            "bytes_down": "INTEGER",
            "exchanges": "INTEGER",
            "duration_ns": "INTEGER",
        },
        "refusals": {
            "executor": "TEXT",
            "destination": "TEXT",
            "protocol": "TEXT",
            "reason": "TEXT",
            "count": "INTEGER",
            "pid": "INTEGER",
            "uid": "INTEGER",
        },
        "events": {
            "kind": "TEXT",
            "detail": "TEXT",
        },
    },
}
FORM = max(FORMS)
TABLES = tuple(FORMS[FORM])

_MIGRATION_SET = "records"
migrations = Migrations(_MIGRATION_SET)


@migrations()
def m001_sessions_exchanges_and_chain(db: Database) -> None:
    """Six tables of append-only rows (STRICT, so that a value keeps the type it was hashed with) and the head."""
    for table, columns in FORMS[1].items():
        body = ", ".join(f'"{name}" {kind}' for name, kind in columns.items())
        db.execute(
            f"CREATE TABLE {table} (seq INTEGER PRIMARY KEY, form INTEGER NOT NULL, time_ns INTEGER NOT NULL, {body}, "
            "prev_hash BLOB NOT NULL, hash BLOB NOT NULL) STRICT"
        )
    db.execute(
        "CREATE TABLE chain_head "
        "(id INTEGER PRIMARY KEY CHECK (id = 1), seq INTEGER NOT NULL, hash BLOB NOT NULL) STRICT"
    )
    db.execute("INSERT INTO chain_head VALUES (1, 0, ?)", [GENESIS])
    # `sessions list` filters and `sessions show`. None is UNIQUE: a worker that sends an id twice must not be able to
    # make the transaction fail that it shares with others.
    for table, column in (
        ("sessions", "id"),
        ("sessions", "executor"),
        ("sessions", "time_ns"),
        ("exchanges", "session"),
        ("outcomes", "session"),
        ("session_ends", "session"),
    ):
        db.execute(f"CREATE INDEX {table}_by_{column} ON {table} ({column})")
    db.execute("CREATE INDEX exchanges_denied ON exchanges (session) WHERE action = 'deny'")


def open_for_writing(path: Path) -> tuple[sqlite3.Connection, Head]:
    """A connection to the database at `path`, created when missing, and the head of its chain.

    The connection may be handed to another thread; it is in autocommit mode, WAL, synchronous=FULL.
    Raises RecordError when file or directory are open to others, the schema is newer or was altered, or the chain does
    not end at its head.
    """
    _make_private(path)
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise RecordError(f"{path} cannot be opened: {error}; check the file system") from error
    try:
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        check_version(connection, path)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute(f"PRAGMA journal_size_limit = {WAL_SIZE_LIMIT}")
        migrations.apply(Database(connection, execute_plugins=False))
        difference = altered_schema(connection)
        if difference:
            raise RecordError(f"{path}: {difference}; move the file away for examination and start again")
        return connection, _checked_head(connection, path)
    except (sqlite3.Error, UnicodeDecodeError) as error:  # SQLite quotes a damaged schema in its messages
        connection.close()
        raise RecordError(f"{path} cannot be used: {error}; free disk space or move the file away") from error
    except RecordError:
        connection.close()
        raise


def check_version(connection: sqlite3.Connection, path: Path) -> None:
    """Raises RecordError when a migration was applied that this version does not know."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if Migrations.migrations_table not in tables:
        return
    of_ours = f"SELECT name FROM {Migrations.migrations_table} WHERE migration_set = ?"  # noqa: S608 (a constant)
    applied = connection.execute(of_ours, [_MIGRATION_SET])
    newer = sorted({name for (name,) in applied} - _fresh()[1])
    if newer:
        raise RecordError(f"{path} was written by a newer version ({newer[0]}); upgrade enforcer to open it")


def altered_schema(connection: sqlite3.Connection) -> str | None:
    """The first difference between the schema of `connection` and the one that the migrations make, in words.

    A trigger or view that somebody added could change what is written or shown without touching a row.
    """
    expected, found = _fresh()[0], _schema_of(connection)
    for name in sorted(expected.keys() | found.keys()):
        if name not in expected:
            return f"the schema holds {name}, which does not belong there"
        if name not in found:
            return f"the schema lacks {name}"
        if expected[name] != found[name]:
            return f"the columns of {name} were altered"
    return None


def read_head(connection: sqlite3.Connection) -> Head | None:
    """The recorded head of the chain, None when its table does not hold exactly one row of the right form."""
    rows = connection.execute("SELECT seq, hash FROM chain_head").fetchall()
    if len(rows) != 1 or type(rows[0][0]) is not int or type(rows[0][1]) is not bytes:
        return None
    return Head(*rows[0])


def select_rows(table: str) -> str:
    """SELECT of every column of `table` in canonical order: seq, form, time_ns, columns, prev_hash, hash."""
    names = ", ".join(f'"{name}"' for name in FORMS[FORM][table])
    return f"SELECT seq, form, time_ns, {names}, prev_hash, hash FROM {table} "  # noqa: S608 (our own names)


def _checked_head(connection: sqlite3.Connection, path: Path) -> Head:
    """The head, after checking that the last row is the one it names. `verify` checks all the others."""
    head = read_head(connection)
    newest: tuple[int, str] = max(
        (connection.execute(f"SELECT coalesce(max(seq), 0) FROM {table}").fetchone()[0], table)  # noqa: S608
        for table in TABLES
    )
    seq, table = newest
    if head is None or head.seq != seq:
        raise RecordError(f"{path}: the chain's head is not its last row {seq}; run 'enforcer sessions verify'")
    if seq == 0:
        if head.hash == GENESIS:
            return head
        raise RecordError(f"{path}: the chain has a head but no rows; run 'enforcer sessions verify'")
    _, form, *values, prev_hash, digest = connection.execute(select_rows(table) + "WHERE seq = ?", [seq]).fetchone()
    columns = FORMS[form][table] if form in FORMS else FORMS[FORM][table]
    if digest != head.hash or row_hash(prev_hash, form, table, seq, tuple(values[: 1 + len(columns)])) != digest:
        raise RecordError(f"{path}: the chain's last row {seq} was altered; run 'enforcer sessions verify'")
    return head


def _make_private(path: Path) -> None:
    """Creates directory (0700) and file (0600), or checks that nobody else can reach what is there.

    SQLite gives the write-ahead log and its index the permissions of the file.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        directory = path.parent.stat()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            file = os.fstat(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise RecordError(f"{path} cannot be created: {error.strerror}; check path and permissions") from error
    for what, status, mode in ((path.parent, directory, "700"), (path, file, "600")):
        if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
            raise RecordError(f"{what} is open to other users; chown it to {os.geteuid()} and chmod it to {mode}")
    if not stat.S_ISREG(file.st_mode):
        raise RecordError(f"{path} is not a regular file; name another database")


def _schema_of(connection: sqlite3.Connection) -> dict[str, list[tuple[object, ...]]]:
    """Every object of the schema with its columns (a table's, or an index's), SQLite's own tables left out."""
    objects = connection.execute("SELECT type, name FROM sqlite_master WHERE name NOT LIKE 'sqlite#_%' ESCAPE '#'")
    pragma = {"table": "table_xinfo", "index": "index_xinfo", "view": "table_xinfo", "trigger": "table_xinfo"}
    return {
        # A kind that SQLite does not know differs by its name already, whatever its columns are.
        f"{kind} {name}": connection.execute(
            f"SELECT * FROM pragma_{pragma.get(kind, 'table_xinfo')}(?)",  # noqa: S608
            [name],
        ).fetchall()
        for kind, name in objects.fetchall()
    }


@cache
def _fresh() -> tuple[dict[str, list[tuple[object, ...]]], frozenset[str]]:
    """The schema that the migrations make of nothing, and their names."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    try:
        database = Database(connection, execute_plugins=False)
        migrations.apply(database)
        return _schema_of(connection), frozenset(done.name for done in migrations.applied(database))
    finally:
        connection.close()
