"""The order that a session keeps: decide, record, forward; nothing before the verdict, and a denial dials nobody."""

from __future__ import annotations

import json

import pytest

from enforcer.proxy.judge import VERDICTS_KEPT
from tests.protocols import wire_postgres as pg
from tests.proxy.stage import DE, UNKNOWN, US, Stage, allow, rule

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def problem(answer: bytes) -> dict[str, object]:
    """The problem details (RFC 9457) in a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert b"Content-Type: application/problem+json" in head
    document: dict[str, object] = json.loads(body)
    return document


@pytest.mark.parametrize(
    ("durable", "order"),
    [
        (True, ["sessions", "exchanges", "commit", "dial", "server", "outcomes", "client", "session_ends"]),
        (False, ["sessions", "dial", "server", "exchanges", "client", "session_ends"]),
    ],
    ids=["durable", "batched"],
)
def test_an_allowed_exchange_takes_its_steps_in_order(durable: bool, order: list[str]) -> None:
    """Session row, exchange row on disk, dial, request, outcome, answer, end: in this order and no other. A batched
    exchange's one row takes the place of its outcome."""
    with Stage(allow(), durable=durable) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        stage.client_ends()
        stage.server_lost()
        assert stage.order == order
        assert stage.to_server == GET
        assert stage.to_client == OK
        assert stage.dials[0].destination == f"{DE}:80"


@pytest.mark.parametrize("durable", [True, False], ids=["durable", "batched"])
def test_rows_say_who_asked_what_of_whom_and_how_it_ended(durable: bool) -> None:
    """Executor, destination, region, rule, text, status and bytes are those of the conversation."""
    with Stage(allow(), durable=durable) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        stage.client_lost()
        session, exchange, outcome, end = (
            stage.row(table)
            for table in ("sessions", "exchanges", "outcomes" if durable else "exchanges", "session_ends")
        )
    assert (session["executor"], session["user"], session["pid"]) == ("agent", "runner", 4242)
    assert (session["destination"], session["host"], session["protocol"]) == (f"{DE}:80", "shop.example", "http")
    assert (session["region"], session["prefix"], session["table_version"]) == ("DE", "3.120.0.0/14", "table-1")
    assert (session["action"], session["policy"], session["rule"]) == ("allow", "test", "allow-de")
    assert {row["session"] for row in (exchange, outcome, end)} == {session["id"]}
    assert (exchange["exchange"], exchange["operation"], exchange["text"]) == (1, "GET", "GET /a")
    assert (outcome["exchange"], outcome["status"], outcome["failed"]) == (1, "200", False)
    assert (outcome["bytes_up"], outcome["bytes_down"]) == (len(GET), len(OK))
    assert outcome["duration_ns"] > 0
    assert (end["cause"], end["exchanges"], end["bytes_up"], end["bytes_down"]) == (
        "client closed",
        1,
        len(GET),
        len(OK),
    )


@pytest.mark.parametrize("cut", range(1, len(GET)))
def test_nothing_is_dialled_before_the_request_is_whole(cut: int) -> None:
    """However the head is cut, the server hears of it only after its verdict."""
    with Stage(allow(), durable=True) as stage:
        stage.client_sends(GET[:cut])
        assert stage.log == []
        stage.client_sends(GET[cut:])
        assert stage.order == ["sessions", "exchanges", "commit", "dial"]


def test_a_body_does_not_overtake_its_heads_verdict() -> None:
    """Body bytes that come while the server is dialled follow the head, after the connection stands."""
    with Stage(allow()) as stage:
        stage.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc")
        assert stage.to_server == b""
        stage.client_sends(b"def")
        assert stage.to_server == b""
        stage.connects()
        assert stage.to_server == b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabcdef"


@pytest.mark.parametrize(
    ("rules", "address", "reason"),
    [
        ([rule("deny", "US")], US, "rule"),
        ([allow()], US, "no rule matched"),
        ([allow()], UNKNOWN, "the destination's region is unknown"),
        ([], DE, "no rule matched"),
    ],
    ids=["a rule denies", "no rule fits", "unknown region", "no rules at all"],
)
def test_a_denial_never_dials(rules: list[object], address: str, reason: str) -> None:
    """Whatever the reason, the client reads 403, the rows say deny, and no connection to the server is tried."""
    with Stage(*rules, address=address) as stage:  # type: ignore[arg-type]
        stage.client_sends(GET)
        assert stage.dials == []
        assert stage.to_client.startswith(b"HTTP/1.1 403 Forbidden\r\n")
        assert stage.order == ["sessions", "exchanges", "client"]
        assert stage.row("exchanges")["action"] == stage.row("sessions")["action"] == "deny"
        assert stage.row("exchanges")["reason"] == reason


def test_a_denial_names_rule_region_prefix_and_session() -> None:
    """The refusal that the client reads points at the row that was recorded."""
    with Stage(rule("deny", "US"), address=US) as stage:
        stage.client_sends(GET)
        told = problem(stage.to_client)
        assert (told["policy"], told["rule"], told["region"], told["prefix"]) == ("test", "deny-us", "US", "8.8.8.0/24")
        assert told["session"] == stage.row("sessions")["id"]


def test_a_denied_connection_lives_on_and_serves_the_next_request() -> None:
    """HTTP keeps the connection after a refusal; each request gets its own verdict."""
    deny_admin = rule("deny", "DE", name="no-admin", hosts=frozenset({"admin.example"}))
    with Stage(deny_admin, allow()) as stage:
        stage.client_sends(b"GET / HTTP/1.1\r\nHost: admin.example\r\n\r\n")
        assert stage.take("client").startswith(b"HTTP/1.1 403 ")
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        assert stage.to_client == OK
        assert stage.to_server == GET
        assert [row["action"] for row in stage.rows("exchanges")] == ["deny", "allow"]


def test_a_pipelined_request_is_judged_after_the_answer_before_it() -> None:
    """Two requests in one packet: the second is neither recorded nor sent before the first is answered."""
    with Stage(allow(), durable=True) as stage:
        stage.client_sends(GET + b"GET /b HTTP/1.1\r\nHost: shop.example\r\n\r\n")
        stage.connects()
        assert stage.to_server == GET
        assert len(stage.rows("exchanges")) == 1
        stage.server_sends(OK)
        assert stage.to_server == GET + b"GET /b HTTP/1.1\r\nHost: shop.example\r\n\r\n"
        assert [row["text"] for row in stage.rows("exchanges")] == ["GET /a", "GET /b"]


def test_observe_mode_records_the_denial_and_lets_the_request_pass() -> None:
    """The row says deny and observed; the server gets the request."""
    with Stage(rule("deny", "US"), address=US, observe=True) as stage:
        stage.client_sends(GET)
        stage.connects()
        assert stage.to_server == GET
        stage.server_sends(OK)
        row = stage.row("exchanges")
        assert (row["action"], row["observed"], row["status"]) == ("deny", True, "200")


def test_a_denied_postgres_login_is_fatal_and_never_dials() -> None:
    """ErrorResponse FATAL 42501 with the rule, then the end of the connection."""
    with Stage(rule("deny", "US"), address=US, port=5432) as stage:
        stage.client_sends(pg.startup(user="ana", database="shop"))
        assert stage.dials == []
        assert stage.to_client.startswith(b"E")
        assert b"SFATAL\0VFATAL\0C42501\0" in stage.to_client
        assert b"rule test/deny-us" in stage.to_client
        assert stage.client.eof_sent
        assert stage.row("session_ends")["cause"] == "denied"


def test_a_new_policy_judges_the_next_exchange_of_an_open_connection() -> None:
    """A generation that no longer allows the host refuses the second request on the same connection."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        stage.take("client")
        stage.new_generation(rule("deny", "DE"))
        stage.client_sends(GET)
        assert stage.take("client").startswith(b"HTTP/1.1 403 ")
        assert stage.to_server == GET
        assert [row["action"] for row in stage.rows("exchanges")] == ["allow", "deny"]
        stage.new_generation(allow())
        stage.client_sends(GET)
        assert stage.to_server == GET + GET


@pytest.mark.parametrize(
    ("on_reload", "protocol", "ends"),
    [
        ("keep", "http", None),
        ("keep", "opaque", None),
        ("recheck", "http", "no longer allowed after a reload"),
        ("recheck", "opaque", "no longer allowed after a reload"),
        ("close", "http", "closed by a reload"),
        ("close", "opaque", "closed by a reload"),
    ],
)
def test_what_a_reload_does_to_an_open_flow(on_reload: str, protocol: str, ends: str | None) -> None:
    """With an answer under way, and a new policy that denies it: it goes on, or is reset and says why on record."""
    with Stage(
        rule("allow", "DE", protocols=frozenset({protocol})), on_reload=on_reload, identify_timeout=0.02
    ) as stage:
        stage.client_sends(GET if protocol == "http" else b"\xffhello")
        stage.connects()
        stage.server_sends(OK[:-1] if protocol == "http" else b"hi")
        stage.new_generation(rule("deny", "DE"))
        if ends is None:
            stage.server_sends(b"i")
            assert stage.take("client").endswith(b"hi" if protocol == "http" else b"hii")
            assert stage.rows("session_ends") == []
            stage.client_sends(GET if protocol == "http" else b"more")
            assert stage.to_server.endswith(GET if protocol == "http" else b"more")
        else:
            assert stage.row("session_ends")["cause"] == ends
            assert stage.client.ended == "reset"


@pytest.mark.parametrize(("on_reload", "passes"), [("keep", True), ("recheck", True), ("close", False)])
def test_what_a_reload_does_to_a_flow_that_is_still_allowed(on_reload: str, passes: bool) -> None:
    """It goes on, unless the configuration closes all."""
    with Stage(allow(), on_reload=on_reload) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.new_generation(allow())
        stage.server_sends(OK)
        assert stage.take("client").endswith(b"hi") is passes


def test_a_reload_while_a_request_is_written_to_disk() -> None:
    """The verdict that counts is that of the moment at which its bytes would leave."""
    with Stage(allow(durable=True)) as stage:
        stage.client_sends(GET)
        stage.new_generation(rule("deny", "DE"))
        stage.supervisor_says(commit=1, error="")
        assert stage.take("client").startswith(b"HTTP/1.1 403 ")
        assert stage.to_server == b""


def test_a_new_table_moves_an_open_connections_region() -> None:
    """Where the new generation's table places the address elsewhere, the next exchange is judged there."""
    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(OK)
        stage.take("client")
        stage.environment.table.regions[DE] = stage.environment.table.regions[US]  # type: ignore[attr-defined]
        stage.new_generation(allow())
        stage.client_sends(GET)
        assert problem(stage.to_client)["region"] == "US"
        assert stage.to_server == GET


def test_verdicts_remembered_per_host_stay_few() -> None:
    """A client that names ever new hosts on one connection does not make the worker grow."""
    with Stage(rule("deny", "DE")) as stage:
        for number in range(1000):
            stage.session.client_data(b"GET / HTTP/1.1\r\nHost: h%d.example\r\n\r\n" % number)
        stage.settle()
        assert stage.to_client.count(b"HTTP/1.1 403 ") == 1000
        assert len(stage.session._judge._verdicts) <= VERDICTS_KEPT
