"""The chain: its canonical form against an independent implementation, and every way to break it."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from enforcer.errors import RecordError
from enforcer.recording.chain import GENESIS, row_hash
from enforcer.recording.schema import FORM, FORMS, TABLES
from enforcer.recording.verify import Kind, verify
from tests.recording.record_rows import exchange, one_of_each, record, session

DOCS = Path(__file__).parents[2] / "docs" / "records.md"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed database of fourteen rows in two transactions."""
    path = tmp_path_factory.mktemp("chain") / "state" / "sessions.db"
    record(path, one_of_each(), one_of_each())
    return path


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(whole, tmp_path / "copy.db"))


def edit(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def fault(path: Path) -> tuple[Kind, int, str]:
    found = verify(path).fault
    assert found is not None
    return found.kind, found.seq, found.table


def content(path: Path) -> list[list[tuple[object, ...]]]:
    """Every row of every table, as an auditor would read them."""
    with closing(sqlite3.connect(path)) as connection:
        return [
            connection.execute(f"SELECT * FROM {table} ORDER BY seq").fetchall() for table in (*TABLES, "chain_head")
        ]


def test_a_hash_computed_by_hand() -> None:
    """The canonical form is the documented one, for quotes, backslash, control and non-ASCII characters and NULL."""
    canonical = '[1,"events",3,17,"a\\"\\\\\\n\\u0001\x7fé\u2028😀",null,-5]'.encode()
    values = (17, 'a"\\\n\x01\x7fé\u2028😀', None, -5)
    assert row_hash(b"p" * 32, 1, "events", 3, values) == hashlib.sha256(b"p" * 32 + canonical).digest()


@given(st.lists(st.none() | st.text() | st.integers(-(2**63), 2**63 - 1)))
def test_the_standard_library_writes_the_same_canonical_form(values: list[str | int | None]) -> None:
    """An auditor needs only `json.dumps` and `hashlib` to recompute any row."""
    array = json.dumps([1, "outcomes", 9, *values], ensure_ascii=False, separators=(",", ":"))
    expected = hashlib.sha256(GENESIS + array.encode()).digest()
    if values:
        assert row_hash(GENESIS, 1, "outcomes", 9, tuple(values)) == expected


def test_the_documented_snippet_verifies_a_real_database(copy: Path) -> None:
    """The Python of docs/records.md runs as printed, and fails on an altered row."""
    found = re.search(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert found
    run = [sys.executable, "-c", found[1], str(copy)]
    report = verify(copy)
    assert subprocess.run(run, check=True, capture_output=True, text=True).stdout == f"14 {report.head.hash.hex()}\n"
    edit(copy, "UPDATE exchanges SET text = 'SELECT 3' WHERE seq = 5")
    assert "row 5 was altered" in subprocess.run(run, check=False, capture_output=True, text=True).stderr


def test_the_documented_columns_are_the_hashed_ones() -> None:
    """The table of columns in docs/records.md is the schema's."""
    text = DOCS.read_text()
    for table, columns in FORMS[FORM].items():
        assert f"| `{table}` | {', '.join(columns)} |" in text


def test_a_whole_chain_verifies(whole: Path) -> None:
    """Counts per table and the head are those of the rows that were sent."""
    report = verify(whole)
    assert report.fault is None
    assert report.rows == {
        "sessions": 2, "exchanges": 4, "outcomes": 2, "session_ends": 2, "refusals": 2, "events": 2,
    }  # fmt: skip
    assert report.head.seq == 14


def cells() -> Iterator[tuple[str, int, str]]:
    """Every cell of the first seven rows."""
    for seq, row in enumerate(one_of_each(), 1):
        for column in ("form", "time_ns", *FORMS[FORM][row["table"]], "prev_hash", "hash"):
            yield row["table"], seq, column


@pytest.mark.parametrize(("table", "seq", "column"), list(cells()))
@pytest.mark.parametrize("how", ["other", "null", "type"])
def test_every_edited_cell_is_found_in_its_row(copy: Path, table: str, seq: int, column: str, how: str) -> None:
    """Whatever single value is changed, emptied or turned into another type, the fault names that very row."""
    with closing(sqlite3.connect(copy)) as connection:
        (before,) = connection.execute(f"SELECT {column} FROM {table} WHERE seq = {seq}").fetchone()
        after: object = {
            int: lambda: before + 1,
            str: lambda: before + " ",
            bytes: lambda: before[:-1] + bytes([before[-1] ^ 1]),
        }.get(type(before), lambda: 0)()
        if how == "null":
            after = None
        if how == "type":
            after = str(before)
        try:
            connection.execute(f"UPDATE {table} SET {column} = ? WHERE seq = {seq}", [after])
        except sqlite3.IntegrityError:  # STRICT and NOT NULL refuse it: nothing was changed
            return
        connection.commit()
    if content(copy)[TABLES.index(table)] == content_before(copy, table, seq, column, before):
        return  # SQLite turned the text back into the same number
    kind, at, where = fault(copy)
    assert (at, where) == (seq, table)
    assert kind in (Kind.ALTERED, Kind.ORDER)


def content_before(path: Path, table: str, seq: int, column: str, value: object) -> list[tuple[object, ...]]:
    """The rows of `table` as they were before `value` was replaced."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"UPDATE {table} SET {column} = ? WHERE seq = {seq}", [value])
        return connection.execute(f"SELECT * FROM {table} ORDER BY seq").fetchall()


@pytest.mark.parametrize("seq", range(1, 15))
def test_every_deleted_row_is_found(copy: Path, seq: int) -> None:
    """The number that is gone is named; at the very end it is a truncation."""
    edit(copy, *(f"DELETE FROM {table} WHERE seq = {seq}" for table in TABLES))
    assert fault(copy)[:2] == ((Kind.TRUNCATED if seq == 14 else Kind.MISSING), seq)


@pytest.mark.parametrize("keep", range(14))
def test_every_truncation_is_found(copy: Path, keep: int) -> None:
    """Cutting any number of rows off the end is found against the recorded head."""
    edit(copy, *(f"DELETE FROM {table} WHERE seq > {keep}" for table in TABLES))
    assert fault(copy)[:2] == (Kind.TRUNCATED, keep + 1)


def test_swapped_rows_are_found(copy: Path) -> None:
    """Two rows that change places do not continue their predecessors."""
    edit(
        copy,
        "UPDATE exchanges SET seq = 99 WHERE seq = 3",
        "UPDATE exchanges SET seq = 3 WHERE seq = 5",
        "UPDATE exchanges SET seq = 5 WHERE seq = 99",
    )
    assert fault(copy) == (Kind.ORDER, 3, "exchanges")


def test_a_number_used_twice_is_found(copy: Path) -> None:
    """A second row under an existing number, in another table, is wrong order."""
    edit(copy, "INSERT INTO events SELECT 3, form, time_ns, kind, detail, prev_hash, hash FROM events WHERE seq = 1")
    kind, seq, _ = fault(copy)
    assert (kind, seq) == (Kind.ORDER, 3)


def test_a_row_rewritten_with_its_own_hash_is_found_at_the_next(copy: Path) -> None:
    """Recomputing the hash of the altered row alone does not help: the next row does not continue it."""
    with closing(sqlite3.connect(copy)) as connection:
        seq, form, *values, previous, _ = connection.execute("SELECT * FROM events WHERE seq = 1").fetchone()
        values[1] = "nothing happened"
        forged = row_hash(previous, form, "events", seq, tuple(values))
        connection.execute("UPDATE events SET kind = ?, hash = ? WHERE seq = 1", [values[1], forged])
        connection.commit()
    assert fault(copy) == (Kind.ORDER, 2, "sessions")


@pytest.mark.parametrize(
    ("statement", "kind"),
    [
        ("UPDATE chain_head SET seq = 13", Kind.HEAD),
        ("UPDATE chain_head SET seq = 15", Kind.TRUNCATED),
        ("UPDATE chain_head SET hash = zeroblob(32)", Kind.HEAD),
        ("DELETE FROM chain_head", Kind.HEAD),
        ("INSERT INTO events SELECT 15, form, 1, kind, detail, hash, hash FROM events WHERE seq = 8", Kind.ORDER),
        (
            "CREATE TRIGGER hide AFTER INSERT ON sessions BEGIN DELETE FROM sessions WHERE seq = new.seq; END",
            Kind.SCHEMA,
        ),
        ("CREATE VIEW more AS SELECT 1", Kind.SCHEMA),
        ("ALTER TABLE exchanges ADD COLUMN note TEXT", Kind.SCHEMA),
        ("DROP TABLE refusals", Kind.SCHEMA),
        ("DROP INDEX sessions_by_id", Kind.SCHEMA),
    ],
)
def test_an_edited_head_or_schema_is_found(copy: Path, statement: str, kind: Kind) -> None:
    """Head, extra rows, triggers, views, columns, tables and indexes are part of what is verified."""
    edit(copy, statement)
    assert fault(copy)[0] is kind


def test_text_that_is_not_unicode_is_an_altered_row(copy: Path) -> None:
    """Bytes that no sender can have sent are reported as that row's fault."""
    edit(copy, "UPDATE exchanges SET text = CAST(x'ff00' AS TEXT) WHERE seq = 3")
    assert fault(copy) == (Kind.ALTERED, 3, "exchanges")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_anywhere_in_the_file_is_found_or_changes_nothing(
    whole: Path, tmp_path: Path, at: float, bit: int
) -> None:
    """Either verification fails, or every row reads exactly as before (free space, counters of SQLite)."""
    raw = bytearray(whole.read_bytes())
    raw[int(at * len(raw))] ^= 1 << bit
    flipped = tmp_path / "flipped.db"
    flipped.write_bytes(raw)
    try:
        intact = verify(flipped).fault is None
    except RecordError:
        intact = False
    if intact:
        assert content(flipped) == content(whole)


texts = st.text(max_size=20)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(texts, st.lists(texts | st.none(), max_size=3), texts), min_size=1, max_size=8))
def test_any_text_verifies_after_the_trip_through_the_database(
    tmp_path_factory: pytest.TempPathFactory, sent: list[tuple[str, list[str | None], str]]
) -> None:
    """NUL, surrogate-free Unicode, quotes: what was hashed is what is read back."""
    path = tmp_path_factory.mktemp("any") / "state" / "sessions.db"
    record(path, [session(), *(exchange(n, text=a, params=b, detail=c) for n, (a, b, c) in enumerate(sent, 1))])
    assert verify(path).fault is None
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute("SELECT text, params, detail FROM exchanges ORDER BY seq").fetchall()
    assert [(text, json.loads(params), detail) for text, params, detail in rows] == sent


def test_a_transaction_of_the_caller_is_left_open(copy: Path) -> None:
    """Verifying on a connection within a transaction neither ends it nor changes how rows are read."""
    with closing(sqlite3.connect(copy, isolation_level=None)) as connection:
        connection.row_factory = sqlite3.Row
        connection.execute("BEGIN")
        assert verify(connection).fault is None
        assert connection.in_transaction
        assert connection.execute("SELECT seq FROM events").fetchone()["seq"] == 1
