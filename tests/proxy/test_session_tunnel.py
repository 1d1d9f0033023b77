"""CONNECT through a whole session: the proxy and the target are both judged, and what is inside is read."""

from __future__ import annotations

import time

import pytest

from enforcer.flow import Region
from tests.proxy.stage import CARD, DE, MASKED_CARD, UNKNOWN, US, Stage, allow, rule

NAME = "api.example"
ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: api.example\r\n\r\n"
FRANCE = "5.39.0.1"


def connect(target: str) -> bytes:
    return f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()


def tell(stage: Stage, *addresses: str) -> None:
    """The executor's resolver told it these addresses for NAME."""
    for address in addresses:
        stage.environment.names._told.learn(7, address, NAME, time.monotonic() + 100)


def tunnelled(stage: Stage, target: str) -> None:
    stage.client_sends(connect(target))
    stage.connects()
    asked = b"\r\nAccept-Encoding: identity\r\n\r\n"  # where answers are masked
    assert stage.take("server").replace(asked, b"\r\n\r\n") == connect(target)
    stage.server_sends(ESTABLISHED)
    assert stage.take("client") == ESTABLISHED


@pytest.mark.parametrize("target", [f"{DE}:8080", f"[::ffff:{DE}]:8080", f"{NAME}:8080"])
def test_what_is_inside_is_judged_and_masked(target: str) -> None:
    """An allowed tunnel goes on as a session to its target: requests inside are judged, answers masked."""
    with Stage(allow("credit_card")) as stage:
        tell(stage, DE)
        tunnelled(stage, target)
        stage.client_sends(GET)
        assert b"GET /a HTTP/1.1\r\n" in stage.take("server")
        stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + CARD.encode())
        assert stage.take("client").endswith(MASKED_CARD.encode())
        stage.client_lost()
        outer, inner = stage.rows("sessions")
        assert (outer["destination"], inner["destination"]) == (f"{DE}:80", f"{DE}:8080")
        assert inner["host"] == NAME
        ends = {row["session"]: row["cause"] for row in stage.rows("session_ends")}
        assert ends == {outer["id"]: f"tunnel: goes on as session {inner['id']}", inner["id"]: "client closed"}
        asked, request = stage.rows("exchanges")
        assert (asked["session"], asked["operation"], asked["status"]) == (outer["id"], "CONNECT", "200")
        assert (request["session"], request["text"]) == (inner["id"], "GET /a")
        assert request["facts"]["via"] == f"{DE}:80"


@pytest.mark.parametrize(
    ("target", "told", "why"),
    [
        (f"{US}:443", (), "8.8.8.8:443 (US)"),
        (f"{UNKNOWN}:443", (), "the destination's region is unknown"),
        ("127.0.0.1:22", (), "loopback"),
        ("[::1]:22", (), "loopback"),
        ("0.0.0.0:22", (), "loopback"),
        ("169.254.169.254:80", (), "link-local"),
        (f"{NAME}:443", (), "no address of it was told"),
        (f"{NAME}:443", (US,), "8.8.8.8:443 (US)"),
        (f"{NAME}:443", (DE, US), "8.8.8.8:443 (US)"),
        ("other.example:443", (DE,), "no address of it was told"),
    ],
)
def test_target_is_judged(target: str, told: tuple[str, ...], why: str) -> None:
    """A proxy in an allowed place is no way to one that is not, nor to a name that may lead there."""
    with Stage(allow(), rule("allow", region="HOST")) as stage:
        tell(stage, *told)
        stage.client_sends(connect(target) + GET)
        assert b"HTTP/1.1 403 Forbidden\r\n" in stage.to_client
        assert why.encode() in stage.to_client
        row = next(row for row in stage.rows("exchanges") if row["action"] == "deny")
        assert row["reason"] == "the target of the tunnel is not allowed"
        assert b"CONNECT" not in stage.to_server  # the request behind it is its own, and passes
        stage.connects()
        assert stage.to_server == GET


def test_the_proxy_itself_is_judged() -> None:
    """A proxy where nothing is allowed is not reached, wherever the tunnel would go."""
    with Stage(allow(), address=US) as stage:
        stage.client_sends(connect(f"{DE}:443"))
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert not stage.dials


def test_every_address_of_the_name_counts_inside() -> None:
    """Inside a tunnel to a name, a request passes only if it may go to each address that was told."""
    with Stage(allow(region="DE"), allow("credit_card", region="FR", ports=((80, 443),))) as stage:
        stage.environment.table.regions[FRANCE] = Region(frozenset({"FR"}), "country", "5.39.0.0/16", "t")  # type: ignore[attr-defined]
        tell(stage, DE, FRANCE)
        tunnelled(stage, f"{NAME}:80")
        stage.client_sends(GET)
        assert stage.take("server") == GET.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: identity\r\n\r\n")
        stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + CARD.encode())
        assert stage.take("client").endswith(MASKED_CARD.encode())  # the mask of one of them is there
        stage.new_generation(allow(region="DE"))
        stage.client_sends(GET)
        assert stage.take("client").startswith(b"HTTP/1.1 403 ")


def test_what_nobody_reads_needs_a_rule_that_says_so() -> None:
    """A server that speaks first, as SSH does, is opaque inside a tunnel as outside of one."""
    with Stage(allow()) as stage:
        tunnelled(stage, f"{DE}:22")
        stage.server_sends(b"SSH-2.0-x\r\n")
        assert stage.take("client") == b""
        assert stage.client.ended
        assert stage.rows("exchanges")[-1]["protocol"] == "opaque"
    with Stage(allow(), rule(name="ssh", protocols=frozenset({"opaque"}))) as stage:
        tunnelled(stage, f"{DE}:22")
        stage.server_sends(b"SSH-2.0-x\r\n")
        assert stage.take("client") == b"SSH-2.0-x\r\n"
        stage.client_sends(b"SSH-2.0-y\r\n")
        assert stage.take("server") == b"SSH-2.0-y\r\n"


def test_a_tunnel_that_ends_before_anything_is_said() -> None:
    """Both ends may just go."""
    with Stage(allow()) as stage:
        tunnelled(stage, f"{DE}:443")
        assert stage.server is not None
        stage.client_ends()
        assert stage.server.ended == "closed"
        assert len(stage.rows("session_ends")) == 2
    with Stage(allow()) as stage:
        tunnelled(stage, f"{DE}:443")
        stage.server_ends()
        assert stage.client.ended == "closed"


def test_never_around_the_proxy() -> None:
    """Where the tunnel is gone, its target is not dialled from here."""
    with Stage(allow()) as stage:
        tunnelled(stage, f"{DE}:8080")
        stage.session._tunnel = None
        stage.client_sends(GET)
        assert stage.take("client").startswith(b"HTTP/1.1 502 ")
        assert [dial.destination for dial in stage.dials] == [f"{DE}:80"]


def test_a_proxy_behind_a_proxy() -> None:
    """A tunnel inside a tunnel is judged like the first one, and its requests say through which proxies they went."""
    with Stage(allow()) as stage:
        tunnelled(stage, f"{DE}:3128")
        stage.client_sends(connect(f"{US}:80"))
        assert stage.take("client").startswith(b"HTTP/1.1 403 ")
        stage.client_sends(connect(f"{DE}:81"))
        assert stage.take("server") == connect(f"{DE}:81")
        stage.server_sends(ESTABLISHED)
        stage.take("client")
        stage.client_sends(GET)
        assert stage.take("server") == GET
        stage.client_lost()
        assert stage.rows("exchanges")[-1]["facts"]["via"] == f"{DE}:80 {DE}:3128"


def test_observe_mode_lets_a_tunnel_pass_and_records_it() -> None:
    """What would be denied is recorded as observed."""
    with Stage(allow(), rule("deny", region="US"), observe=True) as stage:
        tunnelled(stage, f"{US}:80")
        stage.client_sends(GET)
        assert stage.take("server") == GET
