"""Opening the database: migrations from nothing, and everything that must not be opened."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from enforcer.errors import RecordError
from enforcer.recording.reader import connect
from enforcer.recording.schema import migrations, open_for_writing
from tests.recording.record_rows import one_of_each, record


def edit(path: Path, statement: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(statement)


def test_an_empty_place_becomes_a_private_database(database: Path) -> None:
    """Directory 0700, file 0600, its log as well, whatever the umask; all migrations applied."""
    connection, head = open_for_writing(database)
    with closing(connection):
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in database.parent.iterdir()}
        applied = connection.execute("SELECT name FROM _sqlite_migrations").fetchall()
    assert stat.S_IMODE(database.parent.stat().st_mode) == 0o700
    assert modes == {"sessions.db": 0o600, "sessions.db-wal": 0o600, "sessions.db-shm": 0o600}
    assert head.seq == 0
    assert applied == [("m001_sessions_exchanges_and_chain",)]
    assert repr(migrations) == "<Migrations 'records': [m001_sessions_exchanges_and_chain]>"


def test_numpy_is_not_loaded_where_it_is_installed(tmp_path: Path) -> None:
    """sqlite-utils would, for 30 MB of every supervisor; whoever needs it later still gets it."""
    (tmp_path / "numpy.py").write_text("mark = True\n")
    code = "import sys, enforcer.recording.schema; assert 'numpy' not in sys.modules; import numpy; assert numpy.mark"
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(tmp_path)}, check=True)


def test_opening_again_changes_nothing(database: Path) -> None:
    """Migrations run once; the head is the one that was left."""
    record(database, one_of_each())
    connection, head = open_for_writing(database)
    connection.close()
    assert head.seq == 7


def test_a_crash_before_the_first_migration_is_mended(database: Path) -> None:
    """An empty file is a database without tables and becomes a complete one."""
    database.parent.mkdir(mode=0o700)
    database.touch(mode=0o600)
    connection, _ = open_for_writing(database)
    connection.close()


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM refusals", "head is not its last row"),
        ("UPDATE chain_head SET seq = 6", "head is not its last row"),
        ("DELETE FROM chain_head", "head is not its last row"),
        ("UPDATE chain_head SET hash = zeroblob(32)", "last row 7 was altered"),
        ("UPDATE refusals SET count = 1", "last row 7 was altered"),
        ("UPDATE refusals SET form = 99", "last row 7 was altered"),
        ("UPDATE refusals SET reason = CAST(x'ff' AS TEXT)", "cannot be used"),
        ("CREATE VIEW v AS SELECT 1", "does not belong there"),
        ("INSERT INTO _sqlite_migrations VALUES (9, 'records', 'm999_later', '2030')", "written by a newer version"),
    ],
)
def test_a_database_that_is_newer_or_does_not_end_at_its_head_is_refused(
    database: Path, statement: str, message: str
) -> None:
    """The writer does not go on from a chain, a schema or a version that is not its own."""
    record(database, one_of_each())
    edit(database, statement)
    with pytest.raises(RecordError, match=message) as refused:
        open_for_writing(database)
    assert ";" in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("directory", "file"), [(0o755, 0o600), (0o710, 0o600), (0o700, 0o640), (0o700, 0o604)])
def test_a_database_open_to_others_is_refused(database: Path, directory: int, file: int) -> None:
    """Neither the directory nor the file may be reachable by another user."""
    record(database, one_of_each())
    database.chmod(file)
    database.parent.chmod(directory)
    with pytest.raises(RecordError, match="open to other users"):
        open_for_writing(database)


def test_a_symbolic_link_or_directory_in_its_place_is_refused(database: Path, tmp_path: Path) -> None:
    """What somebody put at the path is not followed."""
    database.parent.mkdir(mode=0o700)
    database.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RecordError, match="cannot be created"):
        open_for_writing(database)
    database.unlink()
    database.mkdir()
    with pytest.raises(RecordError, match="cannot be created"):
        open_for_writing(database)
    assert not (tmp_path / "elsewhere").exists()


def test_a_file_that_is_no_database_is_refused_and_left_alone(database: Path) -> None:
    """Somebody else's file is neither read nor overwritten."""
    database.parent.mkdir(mode=0o700)
    database.write_bytes(b"not a database" * 100)
    database.chmod(0o600)
    for attempt in (open_for_writing, connect):
        with pytest.raises(RecordError):
            attempt(database)
    assert database.read_bytes() == b"not a database" * 100
