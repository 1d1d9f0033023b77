"""The worker's record stream: rows in order, one write per turn, commits answered, waiting when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from enforcer.proxy.journal import HIGH_WATER, LARGE, Journal
from tests.proxy.stage import RecordWire


class Line:
    """A journal on a wire in memory, and the loop it lives in."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.wire = RecordWire()
        self.lost: list[str] = []
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.journal = Journal(lambda: self.lost.append("lost"))
        self.journal.connection_made(self.wire)

    def turn(self) -> list[dict[str, Any]]:
        """One turn of the loop; the lines that were written in it."""
        seen = len(self.wire.lines)
        self.loop.run_until_complete(asyncio.sleep(0))
        return self.wire.lines[seen:]


@pytest.fixture
def line() -> Iterator[Line]:
    line = Line()
    yield line
    line.loop.close()


def number(value: int) -> dict[str, int]:
    return {"number": value}


def test_the_rows_of_one_turn_leave_in_one_write_and_in_order(line: Line) -> None:
    """Nothing is written while rows are made; then all of them at once."""
    for value in range(5):
        line.journal.row(number(value))
    assert line.wire.writes == 0
    assert line.turn() == [number(value) for value in range(5)]
    assert line.wire.writes == 1
    line.journal.row(number(5))
    assert line.turn() == [number(5)]
    assert line.wire.writes == 2


def test_an_idle_turn_writes_nothing(line: Line) -> None:
    """No empty lines on the stream."""
    line.turn()
    assert line.wire.writes == 0


def test_small_writes_wait_for_the_end_of_the_turn_and_follow_its_rows(line: Line) -> None:
    """Also a row that is made after the write was asked for leaves before its bytes do; each is written once."""
    seen: list[tuple[str, int]] = []
    line.journal.before_bytes(lambda: seen.append(("first", len(line.wire.lines))), 1)
    line.journal.row(number(1))
    line.journal.before_bytes(lambda: seen.append(("second", len(line.wire.lines))), LARGE - 1)
    line.journal.row(number(2))
    assert seen == []
    line.turn()
    assert seen == [("first", 2), ("second", 2)]
    line.turn()
    assert len(seen) == 2


def test_a_large_write_goes_at_once_after_the_rows_before_it(line: Line) -> None:
    """With what had been waiting, in order; rows that come later in the turn leave at its end, none twice."""
    seen: list[tuple[str, int]] = []
    line.journal.row(number(1))
    line.journal.before_bytes(lambda: seen.append(("small", len(line.wire.lines))), 1)
    line.journal.before_bytes(lambda: seen.append(("large", len(line.wire.lines))), LARGE)
    assert seen == [("small", 1), ("large", 1)]
    line.journal.row(number(2))
    line.turn()
    line.turn()
    assert line.wire.lines == [number(1), number(2)]
    assert len(seen) == 2


def test_a_commit_follows_its_rows_and_is_answered_once(line: Line) -> None:
    """The answer of the right number, however cut, reaches the right callback with its error."""
    answers: list[tuple[str, str]] = []
    line.journal.row(number(1))
    line.journal.commit(lambda error: answers.append(("first", error)))
    line.journal.row(number(2))
    line.journal.commit(lambda error: answers.append(("second", error)))
    assert line.turn() == [number(1), {"commit": 1}, number(2), {"commit": 2}]
    for piece in (b'{"commit":2,"err', b'or":"disk full"}', b"\n{", b'"commit":1,"error":""}\n'):
        line.journal.data_received(piece)
    assert answers == [("second", "disk full"), ("first", "")]


def test_the_supervisor_says_when_recording_fails_and_when_it_works_again(line: Line) -> None:
    """`failing` is the reason, and empty when there is none."""
    assert line.journal.failing == ""
    line.journal.data_received(b'{"failing":"disk full"}\n')
    assert line.journal.failing == "disk full"
    line.journal.data_received(b'{"failing":""}\n')
    assert line.journal.failing == ""


def test_congestion_begins_at_the_named_limit_and_ends_with_it(line: Line) -> None:
    """The transport is told the limit; who waits is called in order once it is clear, and only once."""
    assert line.wire.limit == HIGH_WATER
    called: list[int] = []
    line.journal.pause_writing()
    assert line.journal.congested
    for value in range(3):
        line.journal.when_clear(lambda value=value: called.append(value))  # type: ignore[misc]
    assert called == []
    line.journal.resume_writing()
    assert not line.journal.congested
    assert called == [0, 1, 2]
    line.journal.resume_writing()
    assert called == [0, 1, 2]


def test_whoever_fills_the_stream_again_makes_the_rest_wait(line: Line) -> None:
    """The queue is let through one by one, not over the limit."""
    called: list[int] = []

    def fill() -> None:
        called.append(0)
        line.journal.pause_writing()

    line.journal.pause_writing()
    line.journal.when_clear(fill)
    line.journal.when_clear(lambda: called.append(1))
    line.journal.resume_writing()
    assert called == [0]
    line.journal.resume_writing()
    assert called == [0, 1]


def test_a_lost_stream_is_told_at_once(line: Line) -> None:
    """Without a supervisor nothing may go on unrecorded: the worker ends."""
    line.journal.connection_lost(None)
    assert line.lost == ["lost"]
