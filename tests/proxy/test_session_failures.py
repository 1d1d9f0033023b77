"""Whatever breaks, the flow ends as denied, in the protocol's words, recorded, without a byte that was not judged."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker
from enforcer.protocols.http1.inspector import Http1Inspector
from enforcer.protocols.postgres.inspector import PostgresInspector
from enforcer.verdict import Column, JsonPath, MaskSpec
from tests.protocols import wire_postgres as pg
from tests.proxy.stage import CARD, DE, MASKED_CARD, US, Stage, allow, rule

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
LOGIN = pg.AUTH_OK + pg.msg("S", pg.z("client_encoding"), pg.z("UTF8")) + pg.ready()


def opened_postgres(stage: Stage) -> None:
    stage.client_sends(pg.startup(user="ana"))
    stage.connects()
    stage.server_sends(LOGIN)
    stage.take("client")


# --- the server cannot be reached


def test_an_unreachable_http_server_is_502_with_the_reason_and_the_connection_stays() -> None:
    """The client reads what failed; nothing counts as sent; the next request is tried anew."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.cannot_connect(REFUSED)
        told = stage.take("client")
        assert told.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
        assert f"{DE}:80 cannot be reached: Connection refused".encode() in told
        outcome = stage.row("exchanges")
        assert (outcome["status"], outcome["failed"], outcome["bytes_up"]) == ("unreachable", True, 0)
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        assert stage.to_server == GET
        assert stage.to_client == OK


def test_an_unreachable_postgres_server_is_08001() -> None:
    """FATAL with the class that clients take for a failed connection, and the reason in the message."""
    with Stage(allow(), port=5432) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.cannot_connect(REFUSED)
        assert b"SFATAL\0VFATAL\0C08001\0" in stage.to_client
        assert f"{DE}:5432 cannot be reached".encode() in stage.to_client
        assert b"Connection refused" in stage.to_client
        assert stage.row("exchanges")["status"] == "unreachable"
        assert stage.row("session_ends")["cause"] == "unreachable"


def test_a_connection_that_is_never_answered_says_timed_out() -> None:
    """asyncio's TimeoutError has no text of its own."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.cannot_connect(TimeoutError())
        assert b"timed out" in stage.to_client


def test_an_unreachable_opaque_server_is_a_reset() -> None:
    """There are no words for it, so the client gets what it would have got from the network."""
    with Stage(allow(protocols=frozenset({"opaque"}))) as stage:
        stage.client_sends(b"\x00\x01\x02 not a protocol")
        stage.cannot_connect(REFUSED)
        assert stage.client.ended == "reset"
        assert stage.to_client == b""


def test_a_dial_that_fails_in_an_unforeseen_way_ends_as_denied() -> None:
    """No session waits for ever for a connection that nobody makes any more."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.cannot_connect(ValueError("surprise"))
        assert stage.row("session_ends")["cause"].startswith("internal error: ")
        assert b"internal error: ValueError" in stage.to_client


def test_a_client_that_leaves_while_the_server_is_dialled_leaves_no_connection() -> None:
    """The attempt is given up, and the exchange is recorded as unfinished."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.client_lost()
        assert stage.dials[0].outcome.cancelled()
        assert stage.row("exchanges")["failed"] is True
        assert stage.row("session_ends")["cause"] == "client closed"


# --- a side breaks its protocol


def test_a_client_that_breaks_http_is_told_400_and_recorded() -> None:
    """Two hosts in one request: refused as a protocol error of the client, nothing dialled."""
    with Stage(allow()) as stage:
        stage.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n")
        assert stage.dials == []
        assert stage.to_client.startswith(b"HTTP/1.1 400 ")
        assert stage.row("sessions")["reason"] == "protocol error"
        assert stage.row("sessions")["action"] == "deny"
        assert stage.row("session_ends")["cause"].startswith("protocol error: ")


def test_a_server_that_breaks_http_is_told_as_502_and_not_handed_on() -> None:
    """An answer with two lengths never reaches the client."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        server = stage.connects()
        stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi!")
        assert stage.to_client.startswith(b"HTTP/1.1 502 ")
        assert b"hi!" not in stage.to_client
        assert server.ended
        assert stage.row("exchanges")["failed"] is True
        assert stage.row("session_ends")["cause"].startswith("protocol error: ")


def test_a_server_that_breaks_postgres_ends_the_session_with_fatal() -> None:
    """A row nobody asked for is not handed on."""
    with Stage(allow(), port=5432) as stage:
        opened_postgres(stage)
        stage.server_sends(pg.row(b"surprise"))
        assert b"surprise" not in stage.to_client
        assert b"SFATAL" in stage.to_client
        assert stage.row("session_ends")["cause"].startswith("protocol error: ")


def test_an_answer_that_breaks_off_without_words_is_a_reset() -> None:
    """Once part of an answer is with the client nothing can be said, and an orderly end would pass for its end."""
    with Stage(allow()) as stage:
        stage.client_sends(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
        stage.connects()
        stage.server_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
        assert stage.to_client.endswith(b"abc")
        stage.server_sends(b"not a chunk size\r\n")
        assert stage.client.ended == "reset"


# --- something nobody foresaw


class Surprise(Exception):
    pass


def boom(*_: object, **__: object) -> Any:
    raise Surprise("the text of this must not reach anybody")


@pytest.mark.parametrize("method", ["receive_data", "next_event", "allow"])
def test_an_error_inside_the_inspector_ends_the_flow_as_denied(monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    """Before the verdict: nothing is dialled, the client is refused, the rows say internal error."""
    monkeypatch.setattr(Http1Inspector, method, boom)
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        assert stage.dials == []
        assert b"internal error: Surprise" in stage.to_client
        assert b"the text of this" not in stage.to_client
        assert stage.row("session_ends")["cause"].startswith("internal error: ")
        assert stage.environment.sessions == set()


def test_an_error_inside_the_refusal_itself_is_a_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where even the words for a denial cannot be made, nothing passes and the end is recorded."""
    monkeypatch.setattr(Http1Inspector, "refuse", boom)
    with Stage(rule("deny", "US"), address=US) as stage:
        stage.client_sends(GET)
        assert stage.to_client == b""
        assert stage.client.ended == "reset"
        assert stage.row("session_ends")["cause"].startswith("internal error: ")


def test_an_error_inside_policy_ends_the_flow_as_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verdict that cannot be found is no verdict."""
    monkeypatch.setattr("enforcer.proxy.judge.match_told", boom)
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        assert stage.dials == []
        assert stage.row("sessions")["action"] == "deny"


def test_an_error_inside_the_masker_lets_nothing_of_the_answer_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows before it were masked and may have gone on; the failing one and all behind it do not."""
    with Stage(allow("credit_card"), port=5432) as stage:
        opened_postgres(stage)
        stage.client_sends(pg.query("select card"))
        stage.server_sends(pg.columns("card") + pg.row(CARD.encode()))
        assert MASKED_CARD.encode() in stage.to_client
        monkeypatch.setattr(Masker, "rows", boom)
        stage.server_sends(pg.row(b"4222222222222") + pg.row(b"next") + pg.complete("SELECT 3") + pg.ready())
        assert b"4222222222222" not in stage.to_client
        assert b"next" not in stage.to_client
        assert b"SFATAL" in stage.to_client
        assert stage.row("session_ends")["cause"].startswith("internal error: ")


def test_an_error_while_the_answers_are_read_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server's bytes may be what an inspector trips over; none of them passes."""
    with Stage(allow(), port=5432) as stage:
        opened_postgres(stage)
        stage.client_sends(pg.query("select 1"))
        monkeypatch.setattr(PostgresInspector, "next_event", boom)
        before = stage.to_client
        stage.server_sends(pg.columns("a") + pg.row(b"secret"))
        assert b"secret" not in stage.to_client[len(before) :]
        assert stage.row("session_ends")["cause"].startswith("internal error: ")


# --- answers that cannot be masked


def test_an_answer_that_cannot_be_masked_is_refused_whole() -> None:
    """JSON by its type but not by its bytes, under a path rule: the client reads a refusal and none of the answer."""
    with Stage(rule(mask=MaskSpec(json_paths=(JsonPath("$..ssn"),)))) as stage:
        stage.client_sends(GET)
        stage.connects()
        body = b'{"ssn": "078-05-1120", broken'
        stage.server_sends(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert b"078-05-1120" not in stage.to_client
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert b"it cannot be masked safely" in stage.to_client
        outcome = stage.row("exchanges")
        assert (outcome["status"], outcome["failed"]) == ("unmaskable", True)


def test_an_encoded_answer_to_a_masked_request_is_refused() -> None:
    """A server that compresses although it was asked not to gets nothing through."""
    with Stage(allow("credit_card")) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Encoding: br\r\nContent-Length: 4\r\n\r\nbrbr")
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert b"brbr" not in stage.to_client
        assert stage.row("exchanges")["status"] == "unmaskable"


def test_copy_output_is_masked_by_column() -> None:
    """COPY has no column names of its own: those of its statement count, and any rule hides what is not known."""
    with Stage(rule(mask=MaskSpec(columns=(Column("t.ssn"),))), port=5432) as stage:
        opened_postgres(stage)
        stage.client_sends(pg.query("copy t (id, ssn) to stdout"))
        stage.server_sends(pg.msg("H", b"\0" + pg.i16(2, 0, 0)) + pg.msg("d", b"7\t078-05-1120\n"))
        assert stage.to_client.endswith(pg.msg("d", b"7\t***********\n"))


def test_a_mask_error_on_a_row_lets_no_row_behind_it_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refused answer ends the flow; what the server sends afterwards is dropped."""

    def refuse(*_: object, **_named: object) -> Any:
        raise MaskError("cannot be masked")

    monkeypatch.setattr(Masker, "rows", refuse)
    with Stage(allow("credit_card"), port=5432) as stage:
        opened_postgres(stage)
        stage.client_sends(pg.query("select 1"))
        stage.server_sends(pg.columns("a") + pg.row(b"one") + pg.row(b"two"))
        stage.server_sends(pg.row(b"three") + pg.complete("SELECT 3") + pg.ready())
        for cell in (b"one", b"two", b"three"):
            assert cell not in stage.to_client
        assert stage.rows("exchanges")[-1]["status"] == "unmaskable"
        assert stage.row("session_ends")["cause"] == "denied"


def test_masked_answers_count_what_they_hid() -> None:
    """The row says how many values by name, never which."""
    with Stage(allow("credit_card")) as stage:
        stage.client_sends(GET)
        stage.connects()
        body = f"{CARD} and {CARD}".encode()
        stage.server_sends(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert stage.to_client.endswith(f"{MASKED_CARD} and {MASKED_CARD}".encode())
        assert stage.row("exchanges")["masked"] == {"credit_card": 2}
        assert CARD not in str(stage.records.lines)


# --- the end of a refused connection


def test_a_refused_client_gets_time_to_read_its_refusal() -> None:
    """The sending side is closed, what the client still sends is read and dropped, then the connection goes."""
    with Stage(rule("deny", "US"), address=US, port=5432, linger=0.05) as stage:
        stage.client_sends(pg.startup(user="ana"))
        assert stage.client.eof_sent
        assert stage.client.ended == ""
        assert stage.client.reading
        stage.client_sends(b"Q" * 100_000)
        assert stage.to_server == b""
        stage.until(lambda: stage.client.ended)
        assert stage.client.ended == "reset"


def test_a_refused_client_that_ends_its_side_is_closed_at_once() -> None:
    """Its end of file says that it has nothing more to lose."""
    with Stage(rule("deny", "US"), address=US, port=5432, linger=30) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.client_ends()
        assert stage.client.ended == "closed"


def test_what_a_refused_client_goes_on_sending_is_not_kept() -> None:
    """A session that is over hands nothing to its inspector, so that lingering costs no memory."""
    with Stage(rule("deny", "US"), address=US, port=5432, linger=30) as stage:
        stage.client_sends(pg.startup(user="ana"))
        received: list[object] = []
        stage.session._inspector.receive_data = received.append  # type: ignore[method-assign,assignment,union-attr]
        stage.client_sends(b"x" * 1000)
        assert received == []
