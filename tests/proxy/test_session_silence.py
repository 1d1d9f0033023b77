"""Clients that say nothing: idle ones, and those whose server speaks first."""

from __future__ import annotations

import pytest

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
