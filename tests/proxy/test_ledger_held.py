"""A batched exchange's row waits for its outcome, but not for long, and is never lost, doubled or overtaken."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from enforcer.proxy.environment import HOLD, Environment
from tests.protocols import wire_postgres as pg
from tests.proxy.stage import US, Stage, allow, rule

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LOGIN = pg.AUTH_OK + pg.msg("S", pg.z("client_encoding"), pg.z("UTF8")) + pg.ready()
OUTCOME = ("status", "rows", "failed", "bytes_up", "bytes_down", "duration_ns", "masked")
HELD = 100.0
"""Seconds; no test takes as long, but for what its clock lets pass."""


class Clock:
    """The monotonic clock, which also goes forward when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        seconds, nanoseconds, self._ahead = time.monotonic, time.monotonic_ns, 0.0
        monkeypatch.setattr(time, "monotonic", lambda: seconds() + self._ahead)
        monkeypatch.setattr(time, "monotonic_ns", lambda: nanoseconds() + int(self._ahead * 1e9))

    def later(self, stage: Stage, seconds: float) -> None:
        """Lets that much time pass, at once."""
        self._ahead += seconds
        stage.settle()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_a_batched_exchange_is_one_row_with_its_outcome(clock: Clock) -> None:
    """Nothing before the answer, one row with every outcome column with it, and nothing more afterwards."""
    with Stage(allow("email"), hold=HELD) as stage:
        stage.client_sends(GET)
        stage.connects()
        body = b"eve@example.org"
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        stage.server_sends(answer)
        row = stage.row("exchanges")
        assert (row["text"], row["action"], row["durable"]) == ("GET /a", "allow", False)
        assert (row["status"], row["failed"], row["masked"]) == ("200", False, {"email": 1})
        assert (row["bytes_up"], row["bytes_down"]) == (len(stage.to_server), len(stage.to_client))
        assert row["duration_ns"] > 0
        assert set(OUTCOME) <= row.keys()
        clock.later(stage, 3 * HELD)
        assert len(stage.rows("exchanges")) == 1
        assert stage.rows("outcomes") == []


def test_the_row_bears_the_time_of_its_request() -> None:
    """Although it is sent with the answer."""
    with Stage(allow()) as stage:
        before = time.time_ns()
        stage.client_sends(GET)
        after = time.time_ns()
        stage.connects()
        stage.server_sends(OK)
        assert before <= stage.row("exchanges")["time_ns"] <= after


def test_a_long_exchange_is_a_row_in_time_and_an_outcome_at_its_end(clock: Clock) -> None:
    """After the holding time the row is sent without an outcome, which has its own row."""
    with Stage(allow(), hold=HELD) as stage:
        stage.client_sends(GET)
        stage.connects()
        clock.later(stage, HELD / 2)
        assert stage.rows("exchanges") == []
        clock.later(stage, HELD / 2)
        row = stage.row("exchanges")
        assert not set(OUTCOME) & row.keys()
        assert stage.rows("outcomes") == []
        stage.server_sends(OK)
        outcome = stage.row("outcomes")
        assert (outcome["session"], outcome["exchange"]) == (row["session"], row["exchange"])
        assert (outcome["status"], outcome["bytes_up"], outcome["bytes_down"]) == ("200", len(GET), len(OK))
        assert outcome["duration_ns"] >= HELD * 1e9
        assert len(stage.rows("exchanges")) == 1


def test_a_row_is_held_at_most_twice_the_time(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request just after another's misses the first look at what is held, and goes with the second."""
    assert HOLD == 0.2  # what docs/records.md promises
    looks: list[float] = []
    release = Environment._release

    def look(environment: Environment) -> None:
        looks.append(time.monotonic())
        release(environment)

    monkeypatch.setattr(Environment, "_release", look)
    with Stage(allow(), port=5432, hold=HELD) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.connects()
        clock.later(stage, HELD / 2)
        stage.server_sends(LOGIN)
        stage.client_sends(pg.query("select pg_sleep(9)"))
        assert looks == []
        clock.later(stage, HELD / 2)
        assert (len(looks), len(stage.rows("exchanges"))) == (1, 1)
        clock.later(stage, HELD)
        assert len(looks) == 2
        login, query = stage.rows("exchanges")
        assert "status" in login
        assert "status" not in query


def test_exchanges_after_an_idle_time_are_held_and_sent_again(clock: Clock) -> None:
    """The watch over held rows ends with the last of them and begins anew."""
    with Stage(allow(), hold=HELD) as stage:
        for number in (1, 2, 3):
            stage.client_sends(GET)
            if number == 1:
                stage.connects()
            clock.later(stage, HELD)
            assert len(stage.rows("exchanges")) == number
            stage.server_sends(OK)
            clock.later(stage, 3 * HELD)
        assert [row["exchange"] for row in stage.rows("exchanges")] == [1, 2, 3]
        assert [row["exchange"] for row in stage.rows("outcomes")] == [1, 2, 3]


def test_a_denial_is_written_at_once() -> None:
    """It has no outcome to wait for."""
    with Stage(rule("deny", "US"), address=US) as stage:
        stage.client_sends(GET)
        assert stage.order == ["sessions", "exchanges", "client"]
        row = stage.row("exchanges")
        assert row["action"] == "deny"
        assert not set(OUTCOME) & row.keys()


def test_a_denial_does_not_wait_for_a_held_row() -> None:
    """A statement that is refused is on record while the one before it still runs."""
    with Stage(allow(), port=5432) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.connects()
        stage.server_sends(LOGIN)
        stage.client_sends(pg.query("select pg_sleep(9)"))
        stage.supervisor_says(failing="disk full")
        stage.client_sends(pg.query("drop table t"))
        stage.settle()
        denied = [row for row in stage.rows("exchanges") if row["action"] == "deny"]
        assert [row["text"] for row in denied] == ["drop table t"]


def test_a_durable_exchange_is_never_held() -> None:
    """Its row is without an outcome from the start, which has its own row whenever it comes."""
    with Stage(allow(), durable=True) as stage:
        stage.client_sends(GET)
        assert not set(OUTCOME) & stage.row("exchanges").keys()
        stage.connects()
        stage.server_sends(OK)
        assert stage.row("outcomes")["status"] == "200"
        assert len(stage.rows("exchanges")) == 1


@pytest.mark.parametrize(
    ("leave", "cause"),
    [
        (Stage.client_lost, "client closed"),
        (lambda stage: stage.server_lost(ConnectionResetError("reset")), "server reset the connection"),
        (lambda stage: stage._step(stage.session.end, "enforcer stopped"), "enforcer stopped"),
    ],
    ids=["client", "server", "stop of the worker"],
)
def test_the_end_of_a_session_ends_what_is_held(clock: Clock, leave: Callable[[Stage], None], cause: str) -> None:
    """Each unfinished exchange is one row that says it failed, before the session's end; nothing follows."""
    with Stage(allow(), port=5432, hold=HELD) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.connects()
        stage.server_sends(LOGIN)
        stage.client_sends(pg.parse("select 1") + pg.bind() + pg.execute() + pg.SYNC)
        open_before = len(stage.session._exchanges)
        assert open_before > 1
        leave(stage)
        assert stage.row("session_ends")["cause"] == cause
        unfinished = stage.rows("exchanges")[1:]
        assert len(unfinished) == open_before
        assert {(row["status"], row["failed"]) for row in unfinished} == {(cause, True)}
        assert stage.order[-1] == "session_ends"
        assert stage.rows("outcomes") == []
        lines = len(stage.records.lines)
        clock.later(stage, 3 * HELD)
        assert len(stage.records.lines) == lines


def test_the_end_of_a_session_ends_what_is_no_longer_held() -> None:
    """A long exchange whose row has left gets its outcome row when the session ends."""
    with Stage(allow(), hold=0) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.until(lambda: stage.rows("exchanges"))
        stage.client_lost()
        assert stage.row("outcomes")["failed"] is True
        assert stage.order[-2:] == ["outcomes", "session_ends"]
