"""The writer: when rows are on disk, what is said when they cannot be, and that the chain survives it."""

from __future__ import annotations

import resource
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from enforcer.errors import RecordError
from enforcer.recording import writer as writing
from enforcer.recording.verify import verify
from enforcer.recording.writer import Writer
from tests.recording.record_rows import SID, event, exchange, one_of_each, outcome, session, session_end, written


@pytest.fixture
def writer(database: Path) -> Iterator[Writer]:
    opened = Writer(database)
    yield opened
    opened.close()


def count(database: Path, table: str) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        (number,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    assert isinstance(number, int)
    return number


def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.01)


@contextmanager
def held_lock(database: Path) -> Iterator[None]:
    """Another process's write transaction: the writer can commit nothing meanwhile."""
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def no_file_may_grow() -> Iterator[None]:
    """Writes beyond 64 KiB of any file of this process fail (EFBIG), as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 * 1024, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_the_answer_comes_after_the_rows_can_be_read_elsewhere(writer: Writer, database: Path) -> None:
    """At the moment of the callback another connection already sees the row."""
    seen: list[int] = []
    done = threading.Event()

    def on_commit(error: Exception | None) -> None:
        assert error is None
        seen.append(count(database, "exchanges"))
        done.set()

    for number in range(1, 6):
        done.clear()
        writer.submit([exchange(number)], on_commit)
        assert done.wait(10)
    assert seen == [1, 2, 3, 4, 5]


def test_no_answer_comes_before_the_commit(writer: Writer, database: Path) -> None:
    """While the commit cannot happen the callback is not called."""
    answered = threading.Event()
    with held_lock(database):
        writer.submit([exchange()], lambda _: answered.set())
        assert not answered.wait(0.3)
        assert count(database, "exchanges") == 0
    assert answered.wait(10)
    assert count(database, "exchanges") == 1


def test_commits_are_fsynced(database: Path) -> None:
    """The connection that writes is in WAL mode with synchronous=FULL (2)."""
    connection, _ = writing.open_for_writing(database)
    with closing(connection):
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_rows_nobody_waits_for_are_written_within_the_interval(writer: Writer, database: Path) -> None:
    """Not at once, but at the latest after the named interval (with room for a slow host)."""
    began = time.monotonic()
    writer.submit([outcome()])
    assert count(database, "outcomes") == 0
    eventually(lambda: count(database, "outcomes") == 1)
    assert time.monotonic() - began < writing.COMMIT_INTERVAL + 20


def test_enough_rows_are_written_without_waiting(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """COMMIT_ROWS rows start a commit however long the interval."""
    monkeypatch.setattr(writing, "COMMIT_INTERVAL", 3600)
    writer = Writer(database)
    writer.submit([outcome(n) for n in range(writing.COMMIT_ROWS - 1)])
    time.sleep(0.1)
    assert count(database, "outcomes") == 0
    writer.submit([outcome()])
    eventually(lambda: count(database, "outcomes") == writing.COMMIT_ROWS)
    writer.close()


def test_rows_waited_for_take_along_what_is_queued_in_order(writer: Writer, database: Path) -> None:
    """A durable exchange follows its session's row, queued before it without a callback."""
    writer.submit([session()])
    assert written(writer, [exchange()]) is None
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT seq FROM sessions").fetchall() == [(1,)]
        assert connection.execute("SELECT seq FROM exchanges").fetchall() == [(2,)]


def test_one_bad_row_refuses_its_whole_submission_and_no_other(writer: Writer, database: Path) -> None:
    """Nothing of a submission with an invalid row is queued; its neighbours are written."""
    writer.submit([session()])
    with pytest.raises(RecordError, match="record row refused"):
        writer.submit([exchange(), exchange(2, text=5)])
    assert written(writer, [session_end()]) is None
    assert (count(database, "sessions"), count(database, "exchanges"), count(database, "session_ends")) == (1, 0, 1)


def test_the_same_session_id_twice_does_not_stop_the_writer(writer: Writer, database: Path) -> None:
    """A worker that repeats an id or an exchange cannot make the common transaction fail."""
    assert written(writer, [session(), session(), exchange(), exchange()]) is None
    assert count(database, "sessions") == 2


def test_closing_writes_what_is_queued(database: Path) -> None:
    """Rows of the last interval are not lost by an orderly stop, and nothing is accepted afterwards."""
    writer = Writer(database)
    writer.submit([session(), outcome()])
    writer.close()
    writer.close()
    assert verify(database).head.seq == 2
    with pytest.raises(RecordError, match="closed"):
        writer.submit([session()])


def test_the_chain_continues_after_a_restart(database: Path) -> None:
    """A new writer goes on from the stored head; the whole verifies."""
    for _ in range(3):
        writer = Writer(database)
        assert written(writer, one_of_each()) is None
        writer.close()
    report = verify(database)
    assert (report.fault, report.head.seq) == (None, 21)
    assert report.head == writer.head


@pytest.mark.parametrize(("limit", "value"), [("QUEUE_ROWS", 3), ("QUEUE_BYTES", 1500)])
def test_a_full_queue_refuses_at_once(database: Path, monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    """Beyond the limit of rows or bytes `submit` raises without queueing; what was queued is written."""
    monkeypatch.setattr(writing, limit, value)
    writer = Writer(database)
    answers: list[Exception | None] = []
    with held_lock(database):
        accepted = 0
        with pytest.raises(RecordError, match="queue is full"):  # noqa: PT012 (which one is refused is the point)
            for number in range(1, 100):
                writer.submit([exchange(number, text="x" * 100)], answers.append)
                accepted += 1
        if limit == "QUEUE_ROWS":
            assert accepted == 3
    eventually(lambda: len(answers) == accepted)
    assert answers == [None] * accepted
    assert written(writer, [exchange(200)]) is None  # room again
    writer.close()
    assert verify(database).rows["exchanges"] == accepted + 1


def test_when_no_file_may_grow_waiting_rows_are_told_and_the_chain_is_as_before(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The failed group leaves nothing behind, new beginnings are refused, ends are kept, and it recovers by itself."""
    monkeypatch.setattr(writing, "RETRY_INTERVAL", 0.05)
    writer = Writer(database)
    assert written(writer, [session()]) is None
    with no_file_may_grow():
        error = written(writer, [exchange(text="x" * 200_000)])
        assert isinstance(error, sqlite3.Error)
        assert count(database, "exchanges") == 0
        # a retry writes one page and may work; the next large row fails again
        with pytest.raises(RecordError, match="records cannot be written"):  # noqa: PT012
            while True:
                writer.submit([session("f" * 16, detail="x" * 60_000), event(detail={"x": "y" * 200_000})])
                time.sleep(0.01)
        writer.submit([session_end()])
    eventually(lambda: writer.failing is None)
    assert written(writer, [exchange(2)]) is None
    writer.close()
    report = verify(database)
    assert report.fault is None
    assert report.rows["session_ends"] == 1
    assert report.rows["exchanges"] == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB of its own (needs root)."""
    disk = tmp_path / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m,mode=700", "tmpfs", disk], check=True)
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_denies_and_recovers_when_space_is_freed(small_disk: Path) -> None:
    """ENOSPC: every waiting caller gets the error, nothing is half written; after freeing space rows go on."""
    database = small_disk / "sessions.db"
    writer = Writer(database)
    assert written(writer, [session()]) is None
    ballast = small_disk / "ballast"
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:  # noqa: PT012
        while True:
            file.write(b"x" * 4096)
    answers = []
    for number in range(1, 1000):
        try:
            answers.append(written(writer, [exchange(number, text="x" * 3000)]))
        except RecordError as refused:  # writing already fails: the caller denies
            answers.append(refused)
        if answers[-1] is not None:
            break
    assert answers[-1] is not None
    assert writer.failing is not None
    recorded = len(answers) - 1
    assert verify(database).rows["exchanges"] == recorded
    writer.submit([session_end()])
    ballast.unlink()
    eventually(lambda: writer.failing is None)
    assert written(writer, [exchange(5000)]) is None
    writer.close()
    report = verify(database)
    assert (report.fault, report.rows["exchanges"], report.rows["session_ends"]) == (None, recorded + 1, 1)


def test_kept_rows_are_written_once_in_their_order(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ends that failed and ends that came later arrive in order, none twice, without anything else to trigger it."""
    monkeypatch.setattr(writing, "RETRY_INTERVAL", 0.02)
    monkeypatch.setattr("enforcer.recording.schema.BUSY_TIMEOUT_MS", 10)
    writer = Writer(database)
    with held_lock(database):
        for number in range(20):
            writer.submit([outcome(number)])
            time.sleep(0.02)
        eventually(lambda: writer.failing is not None)
        for number in range(20, 40):
            writer.submit([outcome(number)])
            time.sleep(0.005)
    eventually(lambda: count(database, "outcomes") == 40)
    writer.close()
    with closing(sqlite3.connect(database)) as connection:
        numbers = connection.execute("SELECT exchange FROM outcomes ORDER BY seq").fetchall()
    assert numbers == [(number,) for number in range(40)]
    assert verify(database).fault is None


def test_a_failed_submission_loses_only_its_durable_exchanges(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What shares a submission with a request that is then denied did happen, and is written when the disk allows."""
    monkeypatch.setattr(writing, "RETRY_INTERVAL", 3600)
    monkeypatch.setattr("enforcer.recording.schema.BUSY_TIMEOUT_MS", 10)
    writer = Writer(database)
    mixed = [outcome(), exchange(1, durable=False), session(), exchange(2)]
    with held_lock(database):
        assert isinstance(written(writer, mixed), sqlite3.Error)  # while writing fails
        eventually(lambda: writer.failing is not None)
        assert isinstance(written(writer, mixed), RecordError)  # when it is known to fail
        assert writer.backlog == 6
        with pytest.raises(RecordError, match="cannot be written"):
            writer.submit([session()])
    writer.close()
    report = verify(database)
    assert (report.fault, report.rows["exchanges"], report.rows["outcomes"], report.rows["sessions"]) == (None, 2, 2, 2)
    with closing(sqlite3.connect(database)) as connection:
        assert connection.execute("SELECT DISTINCT exchange FROM exchanges").fetchall() == [(1,)]


def test_closing_a_writer_that_cannot_write_says_how_much_is_lost(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`close` ends and raises with the number of rows, rather than hanging or hiding it."""
    monkeypatch.setattr("enforcer.recording.schema.BUSY_TIMEOUT_MS", 10)
    writer = Writer(database)
    with held_lock(database):
        writer.submit([outcome(), outcome(2)])
        with pytest.raises(RecordError, match="2 rows were not recorded"):
            writer.close()


def test_a_chain_changed_behind_the_writer_stops_it(writer: Writer, database: Path) -> None:
    """Rows cut off the live database are noticed at the next write, which is refused."""
    assert written(writer, [session(), exchange()]) is None
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("DELETE FROM exchanges")
        connection.execute("UPDATE chain_head SET (seq, hash) = (SELECT seq, hash FROM sessions)")
    error = written(writer, [exchange(2)])
    assert isinstance(error, RecordError)
    assert "another process" in str(error)
    assert count(database, "exchanges") == 0


def test_a_callback_of_a_closed_loop_does_not_stop_the_writer(writer: Writer) -> None:
    """`call_soon_threadsafe` on a closed loop raises RuntimeError; the next caller is served all the same."""

    def closed(_: Exception | None) -> None:
        raise RuntimeError("Event loop is closed")

    writer.submit([session()], closed)
    assert written(writer, [exchange()]) is None


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_an_unforeseen_error_in_the_thread_leaves_nobody_waiting(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the thread dies the waiting caller is told and nothing more is accepted: closed, not open."""
    writer = Writer(database)

    def broken(*_: Any) -> bytes:
        raise MemoryError

    monkeypatch.setattr(writing, "link", broken)
    error = written(writer, [exchange()])
    assert isinstance(error, RecordError)
    eventually(lambda: writer.failing is not None)
    with pytest.raises(RecordError):
        writer.submit([outcome()])
    with pytest.raises(RecordError, match="1 rows were not recorded"):
        writer.close()


def test_many_submitters_share_one_chain(writer: Writer, database: Path) -> None:
    """Threads that submit at the same time all get their answer and leave one contiguous chain."""
    errors: list[Exception | None] = []

    def work(number: int) -> None:
        sid = f"{number:016x}"
        errors.extend(written(writer, [exchange(n, sid)]) for n in range(1, 21))

    threads = [threading.Thread(target=work, args=[number]) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == [None] * 160
    report = verify(database)
    assert (report.fault, report.head.seq) == (None, 160)


def test_verifying_while_writing(writer: Writer, database: Path) -> None:
    """A verification in mid-traffic sees one consistent snapshot and never a fault."""
    stop = threading.Event()

    def work() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            written(writer, [exchange(number, SID), outcome(number, SID)])

    thread = threading.Thread(target=work)
    thread.start()
    try:
        heads = [verify(database) for _ in range(20)]
    finally:
        stop.set()
        thread.join()
    assert [report.fault for report in heads] == [None] * 20
    assert heads[-1].head.seq > heads[0].head.seq
