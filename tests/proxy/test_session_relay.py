"""Bytes both ways: opaque flows, half-closes, silence, and a slow reader on either side."""

from __future__ import annotations

import pytest

from tests.protocols import wire_postgres as pg
from tests.proxy.stage import US, Stage, allow, rule

HELLO = b"\x00\x01\x02 no protocol begins like this"
GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
OPAQUE = allow(protocols=frozenset({"opaque"}))


def test_an_opaque_flow_that_no_rule_names_is_reset() -> None:
    """A rule that says nothing of opaque does not open it; there are no words to refuse it in."""
    with Stage(allow()) as stage:
        stage.client_sends(HELLO)
        assert stage.dials == []
        assert stage.to_client == b""
        assert stage.client.ended == "reset"
        assert stage.row("sessions")["protocol"] == "opaque"
        assert stage.row("exchanges")["action"] == "deny"
        assert stage.row("session_ends")["cause"] == "denied"


def test_an_allowed_opaque_flow_is_relayed_both_ways() -> None:
    """Every byte, in order, in both directions, and counted."""
    with Stage(OPAQUE, durable=True) as stage:
        stage.client_sends(HELLO)
        assert stage.order == ["sessions", "exchanges", "commit", "dial"]
        stage.connects()
        stage.server_sends(b"welcome")
        stage.client_sends(b"more")
        stage.server_sends(b" back")
        assert stage.to_server == HELLO + b"more"
        assert stage.to_client == b"welcome back"
        stage.client_lost()
        end = stage.row("session_ends")
        assert (end["bytes_up"], end["bytes_down"]) == (len(HELLO) + 4, 12)


def test_an_opaque_flow_under_a_masking_rule_lets_no_answer_through() -> None:
    """What is to be masked and cannot be read is refused."""
    with Stage(allow("credit_card", protocols=frozenset({"opaque"}))) as stage:
        stage.client_sends(HELLO)
        stage.connects()
        stage.server_sends(b"anything")
        assert stage.to_client == b""
        assert stage.client.ended == "reset"
        assert stage.row("exchanges")["status"] == "unmaskable"


def test_a_half_close_of_the_client_is_passed_on_and_the_answer_still_comes() -> None:
    """`nc -N`: the server sees the end of the input, answers, ends; then the session is over, both ends closed."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        server = stage.connects()
        stage.client_ends()
        assert server.eof_sent
        assert not server.ended
        stage.server_sends(b"the whole answer")
        assert stage.to_client == b"the whole answer"
        stage.server_ends()
        assert server.ended == stage.client.ended == "closed"
        outcome = stage.row("exchanges")
        assert (outcome["status"], outcome["failed"]) == ("closed", False)


def test_a_half_close_of_the_server_is_passed_on_and_the_client_still_sends() -> None:
    """The other way round: the client sees the end of the answer and its own bytes go on."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        server = stage.connects()
        stage.server_ends()
        assert stage.client.eof_sent
        assert not stage.client.ended
        stage.client_sends(b"and more")
        assert stage.to_server == HELLO + b"and more"
        stage.client_ends()
        assert server.ended == stage.client.ended == "closed"


def test_a_half_close_before_the_server_is_reached_follows_the_bytes() -> None:
    """The end of file does not overtake what was sent before it."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        stage.client_ends()
        server = stage.connects()
        assert stage.to_server == HELLO
        assert server.eof_sent


def test_a_silent_client_is_taken_for_a_server_first_protocol() -> None:
    """After identify_timeout the flow is judged as opaque, so that the server may greet."""
    with Stage(OPAQUE, identify_timeout=0.02) as stage:
        assert stage.log == []
        stage.until(lambda: stage.dials)
        stage.connects()
        stage.server_sends(b"220 mail.example ESMTP")
        assert stage.to_client == b"220 mail.example ESMTP"
        stage.client_sends(b"EHLO me\r\n")
        assert stage.to_server == b"EHLO me\r\n"


def test_a_silent_client_that_no_rule_lets_through_is_reset() -> None:
    """Silence opens nothing."""
    with Stage(rule("deny"), identify_timeout=0.02) as stage:
        stage.until(lambda: stage.client.ended)
        assert stage.client.ended == "reset"
        assert stage.dials == []


def test_a_client_that_stops_in_mid_word_is_opaque_with_what_it_sent() -> None:
    """The first bytes of a method and then nothing: they are judged, and relayed, as opaque."""
    with Stage(OPAQUE, identify_timeout=0.02, hold=0) as stage:
        stage.client_sends(b"GE")
        stage.until(lambda: stage.dials)
        stage.connects()
        assert stage.to_server == b"GE"
        assert stage.row("exchanges")["protocol"] == "opaque"


@pytest.mark.parametrize("leave", ["client_ends", "client_lost"])
def test_a_client_that_leaves_without_a_word_is_recorded_as_that(leave: str) -> None:
    """A port scan of an executor leaves a row, and no dial."""
    with Stage(OPAQUE) as stage:
        getattr(stage, leave)()
        assert stage.dials == []
        assert stage.row("sessions")["reason"] == "closed before a request"
        assert stage.row("sessions")["protocol"] is None
        assert stage.row("session_ends")["exchanges"] == 0
        assert stage.client.ended == "closed"


def test_a_server_that_goes_away_ends_the_session() -> None:
    """What it sent before is with the client; an exchange without an answer is recorded as failed."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        stage.connects()
        stage.server_sends(b"half an ans")
        stage.server_lost()
        assert stage.to_client == b"half an ans"
        assert stage.row("exchanges")["failed"] is True
        assert stage.row("session_ends")["cause"] == "server closed"
        assert stage.environment.sessions == set()


def test_a_servers_reset_is_passed_on_as_one() -> None:
    """After an orderly end the client would take the half for the whole."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        stage.connects()
        stage.server_sends(b"half an ans")
        stage.server_lost(ConnectionResetError("reset"))
        assert stage.client.ended == "reset"
        assert stage.row("session_ends")["cause"] == "server reset the connection"


def test_a_server_that_speaks_before_the_dial_is_seen_to_be_done_loses_nothing() -> None:
    """Its greeting may arrive in the same turn as the connection."""
    with Stage(OPAQUE, identify_timeout=0.02) as stage:
        stage.until(lambda: stage.dials)
        stage.server_sends(b"hello")
        assert stage.to_client == b""
        stage.connects()
        assert stage.to_client == b"hello"


# --- a slow reader


def test_a_client_that_reads_slowly_pauses_the_server() -> None:
    """And only it: what the client sends still goes on."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        server = stage.connects()
        stage.client_full(True)
        assert not server.reading
        assert stage.client.reading
        stage.client_full(False)
        assert server.reading


def test_a_server_that_reads_slowly_pauses_the_client() -> None:
    """And only it."""
    with Stage(OPAQUE) as stage:
        stage.client_sends(HELLO)
        server = stage.connects()
        stage.server_full(True)
        assert not stage.client.reading
        assert server.reading
        stage.server_full(False)
        assert stage.client.reading


def test_a_reader_that_is_full_stays_paused_over_a_wait() -> None:
    """A commit that comes back must not start a side again whose other end is still full."""
    with Stage(allow(durable=True), port=5432) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.supervisor_says(commit=1, error="")
        server = stage.connects()
        stage.server_sends(pg.AUTH_OK + pg.ready())
        stage.client_sends(pg.query("select 1"))
        assert not stage.client.reading
        assert not server.reading
        stage.client_full(True)
        stage.supervisor_says(commit=2, error="")
        assert stage.client.reading
        assert not server.reading
        stage.client_full(False)
        assert server.reading


def test_a_side_that_drains_during_a_wait_does_not_start_the_other() -> None:
    """The verdict is still out: nothing is read from either side until it is there."""
    with Stage(allow(durable=True), port=5432) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.supervisor_says(commit=1, error="")
        server = stage.connects()
        stage.server_sends(pg.AUTH_OK + pg.ready())
        stage.client_full(True)
        stage.client_sends(pg.query("select 1"))
        stage.client_full(False)
        assert not stage.client.reading
        assert not server.reading


def test_a_server_that_fills_while_it_is_dialled_again_pauses_nobody_twice() -> None:
    """After a refusal the client is read again."""
    with Stage(rule("deny", "US"), address=US) as stage:
        stage.client_sends(GET)
        assert stage.client.reading
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
