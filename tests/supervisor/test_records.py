"""The supervisor's end of the record stream: hostile lines end the worker, a full writer slows it, nothing is lost."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import orjson
import pytest

from enforcer.errors import RecordError
from enforcer.masking.masker import masker_for
from enforcer.recording.check import check
from enforcer.recording.rows import InvalidRow
from enforcer.recording.writer import Writer
from enforcer.supervisor import records
from enforcer.supervisor.records import RecordStream
from enforcer.verdict import MaskSpec
from tests.proxy.stage import CARD, MASKED_CARD, RecordWire
from tests.recording import record_rows as rows
from tests.supervisor.loops import Loop, driven


class FakeWriter:
    """Takes what it is given, or raises `refusal`; keeps callbacks until the test answers them."""

    def __init__(self) -> None:
        self.taken: list[Mapping[str, Any]] = []
        self.waiting: list[Callable[[Exception | None], None]] = []
        self.refusal: Exception | None = None
        self.backlog = 0
        self.failing: str | None = None

    def submit(self, batch: Sequence[Mapping[str, Any]], on_commit: Callable[[Exception | None], None] | None) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.taken += batch
        if on_commit is not None:
            self.waiting.append(on_commit)


class CheckingWriter(FakeWriter):
    """Also looks at rows, as the real one does."""

    def submit(self, batch: Sequence[Mapping[str, Any]], on_commit: Callable[[Exception | None], None] | None) -> None:
        for row in batch:
            check(row)
        super().submit(batch, on_commit)


class Desk:
    """A stream, its writer, and what the worker is told."""

    def __init__(self, loop: Loop, writer: Any) -> None:
        self.loop = loop
        self.writer = writer
        self.killed: list[str] = []
        self.wire = RecordWire()
        masker = masker_for(MaskSpec(detectors=("credit_card",)))
        self.stream: RecordStream = loop.make(
            lambda: RecordStream(writer, masker, lambda: self.killed.append("killed"))
        )
        loop.call(self.stream.connection_made, self.wire)

    def sends(self, *lines: object) -> None:
        self.sends_raw(b"".join(orjson.dumps(line) + b"\n" for line in lines))

    def sends_raw(self, data: bytes) -> None:
        self.loop.call(self.stream.data_received, data)

    @property
    def tables(self) -> list[str]:
        return [row["table"] for row in self.writer.taken]


@pytest.fixture
def desk() -> Iterator[Desk]:
    with driven() as loop:
        yield Desk(loop, FakeWriter())


def test_rows_reach_the_writer_in_order_and_without_delay(desk: Desk) -> None:
    """However the stream is cut, each whole line is handed on as soon as it is there."""
    whole = b"".join(orjson.dumps(row) + b"\n" for row in rows.one_of_each())
    for at in range(0, len(whole), 7):
        desk.sends_raw(whole[at : at + 7])
    assert desk.tables == [row["table"] for row in rows.one_of_each()]
    assert desk.wire.reading
    assert desk.killed == []


@pytest.mark.parametrize(
    "line",
    [
        b"{not json}",
        b"",
        b"[]",
        b"null",
        b'"text"',
        b"{}",
        b'{"commit": 1, "more": 2}',
        b'{"commit": null}',
        b'{"commit": []}',
        b'{"commit": "one"}',
        b'{"table": "sessions"}',
        b'{"table": "sessions", "pid": "x", "uid": 0}',
        b'{"table": "sessions", "pid": null, "uid": 0}',
        b'{"table": "exchanges", "text": "\xff"}',
        b'{"table": []}',
    ],
)
def test_a_line_that_no_sound_worker_sends_ends_the_worker(line: bytes) -> None:
    """It was taken over, or it is broken: another one takes its place, and the supervisor goes on."""
    with driven() as loop:
        desk = Desk(loop, CheckingWriter())
        desk.sends_raw(line + b"\n")
        assert desk.killed == ["killed"]


def test_a_row_that_the_writer_cannot_store_ends_the_worker(desk: Desk) -> None:
    """The rows of the same batch are not recorded either: who sends one bad row is not believed the others."""
    desk.writer.refusal = InvalidRow("exchanges.text: not text")
    desk.sends(rows.exchange())
    assert desk.killed == ["killed"]
    desk.writer.refusal = None
    desk.loop.until(lambda: True)
    assert desk.writer.taken == []


def test_a_line_without_end_ends_the_worker(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory of the supervisor is bounded by the named limit, not by the worker's good will."""
    monkeypatch.setattr(records, "MAX_LINE", 1000)
    desk.sends_raw(b'{"table": "' + b"x" * 500)
    assert desk.killed == []
    desk.sends_raw(b"x" * 600)
    assert desk.killed == ["killed"]


def test_a_commit_is_acknowledged_when_and_as_the_writer_says(desk: Desk) -> None:
    """Not before; with an empty error for success and its words for failure."""
    desk.sends(rows.session(pid=0), rows.exchange(), {"commit": 1}, rows.exchange(2), {"commit": 2})
    assert desk.wire.lines == []
    assert desk.tables == ["sessions", "exchanges", "exchanges"]
    first, second = desk.writer.waiting
    first(None)
    second(RecordError("disk full"))
    desk.loop.until(lambda: len(desk.wire.lines) == 2)
    assert desk.wire.lines == [{"commit": 1, "error": ""}, {"commit": 2, "error": "disk full"}]


def test_an_acknowledgement_for_a_worker_that_is_gone_is_dropped(desk: Desk) -> None:
    """The writer's thread may answer after the stream has ended."""
    desk.sends(rows.exchange(), {"commit": 1})
    desk.loop.call(desk.stream.connection_lost, None)
    desk.writer.waiting[0](None)
    desk.loop.until(lambda: True)
    assert desk.wire.lines == []


def test_a_backlog_pauses_the_worker_until_it_is_worked_off(desk: Desk) -> None:
    """The stream is not read while the writer holds more than its share, and read again by itself."""
    desk.writer.backlog = records.BACKLOG_LIMIT + 1
    desk.sends(rows.event())
    assert not desk.wire.reading
    desk.writer.backlog = records.BACKLOG_LIMIT
    desk.loop.until(lambda: desk.wire.reading)
    assert len(desk.writer.taken) == 1


def test_rows_that_the_writer_refuses_are_kept_and_tried_again(desk: Desk) -> None:
    """What did happen is recorded once writing works: nothing lost, nothing twice, in order."""
    desk.writer.refusal = RecordError("records cannot be written: disk full")
    desk.sends(rows.session(pid=0), rows.exchange(durable=False), rows.outcome())
    assert not desk.wire.reading
    assert desk.writer.taken == []
    desk.writer.refusal = None
    desk.loop.until(lambda: desk.writer.taken)
    assert desk.tables == ["sessions", "exchanges", "outcomes"]
    assert desk.wire.reading
    assert desk.killed == []


def test_a_commit_that_the_writer_refuses_is_answered_and_the_rest_is_kept(desk: Desk) -> None:
    """The durable exchange will not happen and leaves no row; the outcome before it did and does."""
    desk.writer.refusal = RecordError("the record queue is full")
    desk.sends(rows.outcome(1), rows.exchange(2), {"commit": 7}, rows.exchange(3, durable=False))
    desk.loop.until(lambda: desk.wire.lines)
    assert desk.wire.lines == [{"commit": 7, "error": "the record queue is full"}]
    desk.writer.refusal = None
    desk.loop.until(lambda: len(desk.writer.taken) == 2)
    assert [(row["table"], row["exchange"]) for row in desk.writer.taken] == [("outcomes", 1), ("exchanges", 3)]
    assert desk.wire.lines == [{"commit": 7, "error": "the record queue is full"}]


def test_the_worker_is_told_when_recording_fails_and_when_it_works_again(desk: Desk) -> None:
    """With the reason, and with an empty one."""
    desk.loop.call(desk.stream.tell_failing, "disk full")
    desk.loop.call(desk.stream.tell_failing, "")
    assert desk.wire.lines == [{"failing": "disk full"}, {"failing": ""}]


def test_a_worker_that_starts_while_recording_fails_is_told_at_once() -> None:
    """One that replaces a dead worker must not let requests pass that nobody can record."""
    with driven() as loop:
        writer = FakeWriter()
        writer.failing = "records cannot be written: disk full"
        desk = Desk(loop, writer)
        assert desk.wire.lines == [{"failing": "records cannot be written: disk full"}]


def test_who_the_process_is_comes_from_the_supervisor_not_from_the_worker(desk: Desk) -> None:
    """Executable and arguments of a live process are those of /proc; what the worker claims is overwritten."""
    desk.sends(rows.session(pid=os.getpid(), uid=os.getuid(), exe="/bin/lies", argv=["lies"]))
    row = desk.writer.taken[0]
    assert row["exe"] == str(Path("/proc/self/exe").readlink())
    assert "lies" not in row["argv"]
    desk.sends(rows.session(pid=os.getpid(), uid=os.getuid() + 1, exe="/bin/lies"))
    assert desk.writer.taken[1]["exe"] is None


def test_a_card_on_a_command_line_is_masked_before_it_is_recorded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """People put into arguments what they put into requests."""

    def describe(_pid: int, _uid: int) -> dict[str, Any]:
        return {"exe": "/usr/bin/curl", "argv": ["curl", f"https://x/?card={CARD}"], "cgroup": "/a", "unit": None}

    monkeypatch.setattr(records, "describe_process", describe)
    desk.sends(rows.session())
    assert desk.writer.taken[0]["argv"] == ["curl", f"https://x/?card={MASKED_CARD}"]


def test_a_stream_and_the_real_writer_agree(tmp_path: Path) -> None:
    """Rows of a whole session go in through the stream and come out of the database, the commit answered."""
    database = tmp_path / "state" / "sessions.db"
    with driven() as loop:
        writer = Writer(database)
        try:
            desk = Desk(loop, writer)
            desk.sends(*rows.one_of_each()[1:], {"commit": 1})
            loop.until(lambda: desk.wire.lines)
            assert desk.wire.lines == [{"commit": 1, "error": ""}]
            assert desk.killed == []
        finally:
            writer.close()
    with closing(sqlite3.connect(database)) as connection:
        for table in ("sessions", "exchanges", "outcomes", "session_ends", "refusals"):
            assert connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] >= 1
