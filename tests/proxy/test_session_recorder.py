"""The recorder decides too: durable rows first, no request without a journal, nothing sensitive at rest."""

from __future__ import annotations

import pytest

from tests.protocols import wire_postgres as pg
from tests.proxy.stage import CARD, MASKED_CARD, Stage, allow

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
LOGIN = pg.AUTH_OK + pg.msg("S", pg.z("client_encoding"), pg.z("UTF8")) + pg.ready()


def test_a_durable_request_is_dialled_only_after_its_commit() -> None:
    """Until the writer says that the row is on disk, nobody is called and nothing is sent."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(GET)
        assert stage.order == ["sessions", "exchanges", "commit"]
        assert not stage.client.reading
        stage.supervisor_says(commit=stage.commits[0], error="")
        assert stage.order == ["sessions", "exchanges", "commit", "dial"]
        stage.connects()
        assert stage.to_server == GET
        assert stage.client.reading
        assert stage.row("exchanges")["durable"] is True


def test_each_durable_exchange_waits_for_its_own_commit() -> None:
    """On an open connection the second request also stays until its own row is on disk."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(GET)
        stage.supervisor_says(commit=stage.commits[0], error="")
        stage.connects()
        stage.server_sends(OK)
        stage.client_sends(GET)
        assert stage.to_server == GET
        stage.supervisor_says(commit=stage.commits[1], error="")
        assert stage.to_server == GET + GET


def test_a_failed_commit_is_refused_and_nothing_is_sent() -> None:
    """The client reads why in its protocol's words; no connection is tried."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(GET)
        stage.supervisor_says(commit=stage.commits[0], error="database or disk is full")
        assert stage.dials == []
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert b"the recorder cannot write: database or disk is full" in stage.to_client


def test_a_failed_commit_of_a_statement_keeps_the_session() -> None:
    """PostgreSQL: ERROR 42501 and ReadyForQuery; the statement never reaches the server, and the next one may."""
    with Stage(allow(durable=True), port=5432) as stage:
        stage.client_sends(pg.startup(user="ana"))
        stage.supervisor_says(commit=1, error="")
        stage.connects()
        stage.server_sends(LOGIN)
        stage.take("client")
        stage.take("server")
        stage.client_sends(pg.query("delete from t"))
        stage.supervisor_says(commit=2, error="disk full")
        told = stage.take("client")
        assert b"C42501\0" in told
        assert told.endswith(pg.ready())
        assert stage.to_server == b""
        stage.client_sends(pg.query("select 1"))
        stage.supervisor_says(commit=3, error="")
        assert stage.to_server == pg.query("select 1")


def test_a_client_that_leaves_while_its_row_is_written_is_never_dialled_for() -> None:
    """The answer comes too late: the session is over and its end recorded."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(GET)
        stage.client_lost()
        stage.supervisor_says(commit=stage.commits[0], error="")
        assert stage.dials == []
        assert stage.row("session_ends")["cause"] == "client closed"


def test_bytes_behind_a_request_that_waits_for_its_commit_wait_too() -> None:
    """A body that was already on its way does not go on alone."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\n")
        stage.client_sends(b"abc")
        assert stage.dials == []
        stage.supervisor_says(commit=1, error="")
        stage.connects()
        assert stage.to_server.endswith(b"\r\n\r\nabc")


def test_while_the_recorder_fails_every_request_is_denied() -> None:
    """Whatever the policy says; and it is allowed again when writing works again."""
    with Stage(allow()) as stage:
        stage.supervisor_says(failing="records cannot be written: disk full")
        stage.client_sends(GET)
        assert stage.dials == []
        assert b"the recorder cannot write: records cannot be written: disk full" in stage.take("client")
        assert stage.row("exchanges")["action"] == "deny"
        stage.supervisor_says(failing="")
        stage.client_sends(GET)
        stage.connects()
        assert stage.to_server == GET


@pytest.mark.parametrize("durable", [False, True])
def test_a_congested_journal_holds_the_request_and_lets_it_go_later(durable: bool) -> None:
    """No row and no dial while the supervisor is behind; afterwards the request goes its way by itself."""
    with Stage(allow(), durable=durable) as stage:
        stage.journal.pause_writing()
        stage.client_sends(GET)
        assert stage.log == []
        assert not stage.client.reading
        stage._step(stage.journal.resume_writing)
        assert stage.order == (["sessions", "exchanges", "commit", "dial"] if durable else ["sessions", "dial"])
        stage.connects()
        assert stage.to_server == GET
        assert stage.client.reading


def test_a_session_that_ended_while_the_journal_was_congested_stays_ended() -> None:
    """Nothing of a waiting request happens once its client is gone."""
    with Stage(allow()) as stage:
        stage.journal.pause_writing()
        stage.client_sends(GET)
        stage.client_lost()
        stage._step(stage.journal.resume_writing)
        assert stage.dials == []
        assert stage.rows("exchanges") == []
        assert stage.row("sessions")["reason"] == "closed before a request"


def test_a_card_in_a_path_and_in_a_host_is_masked_in_the_rows_and_sent_as_it_is() -> None:
    """The server gets what the client wrote; the record gets asterisks, in text, facts and host alike."""
    request = f"GET /pay/{CARD}?x=1 HTTP/1.1\r\nHost: {CARD}.example\r\n\r\n".encode()
    with Stage(allow(), hold=0) as stage:
        stage.client_sends(request)
        stage.connects()
        assert stage.to_server == request
        assert CARD not in str(stage.records.lines)
        exchange, session = stage.row("exchanges"), stage.row("sessions")
        assert exchange["text"] == f"GET /pay/{MASKED_CARD}?x=1"
        assert exchange["facts"]["path"].startswith(f"/pay/{MASKED_CARD}")
        assert exchange["facts"]["host"] == session["host"] == f"{MASKED_CARD}.example"


def opened_postgres(stage: Stage) -> None:
    stage.client_sends(pg.startup(user="ana"))
    stage.connects()
    stage.server_sends(LOGIN)
    stage.take("client")
    stage.take("server")


def test_a_card_in_a_statement_is_masked_in_its_row() -> None:
    """The literal is hidden, the rest of the statement is exact."""
    with Stage(allow(), port=5432, hold=0) as stage:
        opened_postgres(stage)
        statement = f"select * from p where card = '{CARD}' and note = 'é'"
        stage.client_sends(pg.query(statement))
        assert stage.to_server == pg.query(statement)
        assert stage.rows("exchanges")[1]["text"] == statement.replace(CARD, MASKED_CARD)


def test_cards_and_addresses_in_bind_parameters_are_masked_in_their_row() -> None:
    """Each parameter keeps its place, NULL stays NULL, and what is not sensitive stays exact."""
    with Stage(allow(), port=5432, hold=0) as stage:
        opened_postgres(stage)
        stage.client_sends(
            pg.parse("insert into p values ($1, $2, $3, $4)")
            + pg.bind(CARD.encode(), None, b"plain", b"eve@example.org")
            + pg.execute()
            + pg.SYNC
        )
        params = stage.rows("exchanges")[2]["params"]
        assert params[:3] == [MASKED_CARD, None, "plain"]
        assert "eve" not in params[3]
        assert CARD.encode() in stage.to_server


@pytest.mark.parametrize("extra", ["", "\x00", "\x00\x00 and \x00"], ids=["none", "one NUL", "several NULs"])
def test_nul_characters_neither_shift_nor_unmask_what_is_recorded(extra: str) -> None:
    """A text parameter that holds NUL leaves its neighbours in their places, all masked."""
    with Stage(allow(), port=5432, hold=0) as stage:
        opened_postgres(stage)
        values = [f"a{extra}b", CARD, f"{extra}{CARD}{extra}", "last"]
        stage.client_sends(pg.parse("select $1, $2, $3, $4") + pg.bind(*(value.encode() for value in values)) + pg.SYNC)
        expected = [value.replace(CARD, MASKED_CARD) for value in values]
        assert stage.rows("exchanges")[2]["params"] == expected
        assert CARD not in str(stage.records.lines)


def test_text_that_is_not_utf8_is_recorded_masked_and_as_valid_text() -> None:
    """Bytes outside UTF-8 neither end the session nor hide the card beside them."""
    raw = b"select '\xff\xfe', '" + CARD.encode() + b"'"
    message = pg.msg("Q", raw + b"\0")
    with Stage(allow(), port=5432, hold=0) as stage:
        opened_postgres(stage)
        stage.client_sends(message)
        assert stage.to_server == message
        text = stage.rows("exchanges")[1]["text"]
        assert MASKED_CARD in text
        assert CARD not in text
        text.encode()  # valid Unicode, as the recorder demands
