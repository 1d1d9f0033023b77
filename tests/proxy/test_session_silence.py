"""Clients that say nothing: idle ones, and those whose server speaks first."""

from __future__ import annotations

import pytest

from enforcer.policy.compiled import Rule
from tests.protocols import wire_mysql as my
from tests.proxy.stage import Stage, allow, rule

GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"
HTTP = allow(protocols=frozenset({"http"}))


def silent(stage: Stage) -> None:
    """The time a client gets for its first bytes is over."""
    stage._step(stage.session._client_silent)


def test_an_idle_client_may_ask_later() -> None:
    """Where only protocols pass in which the client speaks first, one that connects early is not denied for it."""
    with Stage(HTTP) as stage:
        silent(stage)
        assert not stage.client.ended
        assert stage.log == []
        stage.client_sends(GET)
        stage.connects()
        assert stage.to_server == GET


@pytest.mark.parametrize("first", [b"", b"GE"])
def test_an_idle_client_is_closed_in_the_end(first: bytes) -> None:
    """Nothing was asked for: that is what is recorded, and no denial of something nobody meant."""
    with Stage(HTTP) as stage:
        if first:
            stage.client_sends(first)
        silent(stage)
        silent(stage)
        assert stage.client.ended == "closed"
        assert stage.row("sessions")["reason"] == "closed before a request"
        assert stage.row("session_ends")["cause"] == "nothing was asked for in 30 s"
        assert stage.dials == []


@pytest.mark.parametrize("port", [22, 25])
def test_who_waits_for_a_greeting_that_nobody_reads_is_denied_at_once(port: int) -> None:
    """Where servers greet, silence is no idleness."""
    with Stage(HTTP, port=port) as stage:
        silent(stage)
        assert stage.client.ended == "reset"
        assert stage.row("sessions")["protocol"] == "opaque"


def test_a_host_that_is_not_known_yet_is_waited_for() -> None:
    """A rule for one host lets a silent client say that it is for that one; a rule that denies all does not."""
    known = allow(protocols=frozenset({"http"}), hosts=frozenset({"shop.example"}))
    with Stage(known) as stage:
        silent(stage)
        assert not stage.client.ended
    with Stage(rule("deny"), known) as stage:
        silent(stage)
        assert stage.client.ended == "reset"


# --- protocols in which the server greets

MYSQL = allow("credit_card", protocols=frozenset({"mysql"}))
OPAQUE = allow(protocols=frozenset({"opaque"}))
BANNER = b"220 mail.example ESMTP\r\n"


def test_a_greeting_comes_after_the_verdict_and_its_record() -> None:
    """The connection is judged and on disk before the server is dialled, and the greeting goes on as its protocol's."""
    with Stage(MYSQL, port=3307, durable=True) as stage:
        stage.settle()
        assert stage.order == ["sessions", "exchanges", "commit", "dial"]
        stage.connects()
        assert (stage.to_server, stage.to_client) == (b"", b"")
        for byte in my.greeting():
            stage.server_sends(bytes((byte,)))
        assert stage.to_client == my.greeting()
        stage.client_sends(my.login())
        assert stage.to_server == my.login()
        assert [row["operation"] for row in stage.rows("exchanges")] == ["Connect", "Login"]


@pytest.mark.parametrize(
    ("rules", "port", "at_once"),
    [
        ((MYSQL,), 3307, True),  # nothing else may pass
        ((allow(),), 3306, True),  # who is silent there waits for a greeting
        ((MYSQL, HTTP), 3307, False),  # it may yet ask for what is allowed
        ((allow(),), 3307, False),
    ],
)
def test_when_a_silent_client_is_taken_to_be_greeted(rules: tuple[Rule, ...], port: int, at_once: bool) -> None:
    """At once where waiting can tell nothing, else when the time for first bytes is over."""
    with Stage(*rules, port=port) as stage:
        stage.settle()
        assert bool(stage.dials) is at_once
        silent(stage)
        assert stage.dials


@pytest.mark.parametrize("reached", [False, True])
def test_a_client_that_speaks_first_after_all_is_identified_by_it(reached: bool) -> None:
    """Before a greeting is there: in a session of its own, judged anew, over a connection of its own."""
    with Stage(allow(), port=3306) as stage:
        stage.settle()
        if reached:
            first = stage.connects()
            stage.client_sends(GET)
        else:
            stage.client_sends(GET)
            first = stage.connects()
        assert first.ended == "reset"
        assert len(stage.dials) == 2
        stage.connects()
        assert stage.to_server == GET
        assert [row["protocol"] for row in stage.rows("sessions")] == ["mysql", "http"]
        assert stage.rows("session_ends")[0]["cause"].startswith("the client spoke first: goes on as session")


def test_a_client_that_may_not_say_what_it_says_is_denied() -> None:
    """That MySQL may pass opens nothing to who then speaks something else."""
    with Stage(MYSQL) as stage:
        stage.settle()
        stage.connects()
        stage.client_sends(GET)
        assert stage.to_server == b""
        assert b"403" in stage.to_client
        assert len(stage.dials) == 1


def test_a_server_that_greets_otherwise_is_refused() -> None:
    """Not a byte of what it said goes on, and what happened is on record."""
    with Stage(MYSQL) as stage:
        stage.settle()
        stage.connects()
        stage.server_sends(BANNER)
        assert BANNER[:3] not in stage.to_client
        assert b"no greeting of mysql" in stage.to_client
        assert "no greeting of mysql" in stage.row("session_ends")["cause"]


def test_a_server_that_greets_otherwise_is_opaque_where_that_may_pass() -> None:
    """A rule for opaque beside one for all that is read: SMTP and SSH go on, in a session of their own."""
    with Stage(allow(), OPAQUE, port=3306) as stage:
        stage.settle()
        stage.connects()
        stage.server_sends(BANNER)
        assert stage.to_client == BANNER
        stage.client_sends(b"EHLO me\r\n")
        assert stage.to_server == b"EHLO me\r\n"
        assert [row["protocol"] for row in stage.rows("sessions")] == ["mysql", "opaque"]
        assert len(stage.dials) == 1


def test_a_denied_client_of_the_usual_port_reads_why() -> None:
    """In place of the greeting; nothing is dialled."""
    with Stage(rule("deny"), port=3306) as stage:
        silent(stage)
        assert stage.dials == []
        assert b"rule test/deny-de forbids region DE" in stage.to_client


def test_a_server_that_never_greets_keeps_nobody_waiting() -> None:
    """The client may leave: then the session is over."""
    with Stage(MYSQL) as stage:
        stage.settle()
        stage.connects()
        stage.client_ends()
        assert stage.row("session_ends")["cause"] == "client closed"


def test_a_reload_that_denies_ends_a_flow_that_waits_for_its_greeting() -> None:
    """What is under way is judged anew."""
    with Stage(MYSQL) as stage:
        stage.settle()
        stage.connects()
        stage.new_generation(rule("deny"))
        assert stage.client.ended == "reset"
