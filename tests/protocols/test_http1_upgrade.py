"""How HTTP/1.1 gives way: the WebSocket handshake (RFC 6455 section 4, with its own example), and CONNECT."""

from __future__ import annotations

import pytest

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.http1 import PROTOCOL
from enforcer.protocols.http1.reader import BEYOND_LIMIT
from enforcer.protocols.websocket import WebSocketInspector
from tests.conversation import DENIAL, Conversation

# Section 1.3: this key is answered with this.
KEY, ACCEPT = b"dGhlIHNhbXBsZSBub25jZQ==", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
ASK = (
    b"GET /chat?x HTTP/1.1\r\nHost: a\r\nSec-WebSocket-Key: " + KEY + b"\r\nSec-WebSocket-Version: 13\r\n%b"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
AGREE = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n%b"
    b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
)
HELLO_FROM_CLIENT = bytes.fromhex("818537fa213d7f9f4d5158")  # section 5.7: "Hello", masked
HELLO_FROM_SERVER = bytes.fromhex("810548656c6c6f")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CONNECT = b"CONNECT b.example:443 HTTP/1.1\r\nHost: b.example:443\r\nProxy-Authorization: x\r\n\r\n"


def talk(**arguments: object) -> Conversation:
    return Conversation(PROTOCOL.inspector(), **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_handshake_and_the_first_messages(step: int) -> None:
    """The offer goes up without extensions, the agreement comes back, and what was sent beside them is not lost."""
    ask = (ASK % b"Origin: http://a\r\n").replace(
        b"Upgrade: websocket", b"Upgrade: WebSocket\r\nSec-WebSocket-Extensions: permessage-deflate"
    )
    with talk() as t:
        for at in range(0, len(ask), step):
            t.client_sends(ask[at : at + step])
        t.expect_request("GET", "GET /chat?x", host="a", path="/chat")
        t.expect_upstream(ASK % b"Origin: http://a\r\n")
        t.client_sends(HELLO_FROM_CLIENT[:4])
        t.client_sends(HELLO_FROM_CLIENT[4:])
        t.expect_upstream(b"")
        answer = AGREE % b"Set-Cookie: a=b\r\n" + HELLO_FROM_SERVER
        for at in range(0, len(answer), step):
            t.server_sends(answer[at : at + step])
        t.expect_request("WebSocket text", "Hello", host="a", method="WEBSOCKET", path="/chat")
        t.expect_client(answer)
        assert len(t.take_upstream()) == len(HELLO_FROM_CLIENT)
        t.expect_outcome("sent")
        assert isinstance(t.inspector, WebSocketInspector)


def test_interim_answers_before_the_agreement() -> None:
    """A 103 before the 101 passes."""
    with talk() as t:
        t.client_sends(ASK % b"")
        t.expect_request("GET")
        t.take_upstream()
        t.server_sends(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + AGREE % b"")
        t.expect_client(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + AGREE % b"")
        assert t.switched


def test_subprotocols_are_kept() -> None:
    """The server chooses one of the subprotocols that were offered."""
    with talk() as t:
        t.client_sends(ASK % b"Sec-WebSocket-Protocol: mcp, graphql-ws\r\n")
        t.expect_request("GET")
        t.expect_upstream(ASK % b"Sec-WebSocket-Protocol: mcp, graphql-ws\r\n")
        t.server_sends(AGREE % b"Sec-WebSocket-Protocol: graphql-ws\r\n")
        t.expect_client(AGREE % b"Sec-WebSocket-Protocol: graphql-ws\r\n")


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_server_that_does_not_switch(step: int) -> None:
    """Where the answer is no 101, HTTP goes on, with what the client sent ahead as its next request."""
    following = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    with talk() as t:
        for part in (ASK % b"", following):
            for at in range(0, len(part), step):
                t.client_sends(part[at : at + step])
        t.expect_request("GET", "GET /chat?x")
        t.expect_upstream(ASK % b"")
        for at in range(0, len(OK), step):
            t.server_sends(OK[at : at + step])
        t.expect_client(OK)
        t.expect_outcome("200")
        t.expect_request("GET", "GET /2")
        t.expect_upstream(following)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")


def test_denied_handshake() -> None:
    """A denied WebSocket is a denied request, and the connection lives."""
    with talk(decide=lambda request: DENIAL if "chat" in request.text else None) as t:
        t.client_sends(ASK % b"")
        t.expect_request("GET")
        assert t.take_client().startswith(b"HTTP/1.1 403 ")
        t.client_sends(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        t.expect_request("GET", "GET /2")
        t.take_upstream()


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (KEY, KEY[:-4]),
        (KEY, b"!" * 24),
        (KEY, KEY + b"\r\nSec-WebSocket-Key: " + KEY),
        (b"Sec-WebSocket-Key: " + KEY + b"\r\n", b""),
        (b"Version: 13", b"Version: 8"),
        (b"Version: 13", b"Version: 13, 8"),
        (b"GET", b"POST"),
        (b"Host: a\r\n", b"Host: a\r\nContent-Length: 3\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nTransfer-Encoding: chunked\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nConnection: close\r\n"),
        (b"Host: a\r\n", b"Host: a\r\nSec-WebSocket-Protocol: a b\r\n"),
    ],
)
def test_bad_handshakes_of_clients(was: bytes, becomes: bytes) -> None:
    """What RFC 6455 section 4.2.1 does not admit is refused with 400 and reaches nobody."""
    with talk() as t:
        t.client_sends((ASK % b"").replace(was, becomes, 1))
        t.expect_error(Side.CLIENT)
        assert t.take_client().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    ("was", "becomes"),
    [
        (ACCEPT, KEY),
        (b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Upgrade: websocket\r\n", b""),
        (b"Connection: Upgrade\r\n", b""),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Extensions: permessage-deflate"),
        (b"Upgrade: websocket", b"Upgrade: websocket\r\nSec-WebSocket-Protocol: other"),
        (b"HTTP/1.1", b"HTTP/1.0"),
    ],
)
def test_bad_agreements_of_servers(was: bytes, becomes: bytes) -> None:
    """A 101 that does not follow from the offer (section 4.1) never reaches the client."""
    with talk() as t:
        t.client_sends(ASK % b"")
        t.expect_request("GET")
        t.take_upstream()
        t.server_sends((AGREE % b"").replace(was, becomes, 1) + HELLO_FROM_SERVER)
        t.expect_error(Side.SERVER)
        assert t.take_client().startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("offer", [b"h2c", b"websocket, h2c", b"TLS/1.0"])
def test_other_offers_are_dropped(offer: bytes) -> None:
    """Whatever else is offered does not reach the server, so that it cannot be taken up."""
    with talk() as t:
        t.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: " + offer + b"\r\n\r\n")
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        t.server_sends(AGREE % b"")
        t.expect_error(Side.SERVER, "no upgrade was offered")
        t.take_client()


def test_what_waits_for_the_agreement_is_bounded() -> None:
    """A client that sends on while the server has not agreed hits a limit."""
    with talk(quiet=True) as t:
        t.client_sends(ASK % b"")
        t.expect_request("GET")
        t.take_upstream()
        for _ in range(BEYOND_LIMIT // 65536 + 1):
            t.client_sends(b"x" * 65536)
        t.server_sends(OK)
        assert isinstance(t.expect_error(Side.CLIENT), LimitExceeded)
        t.take_client()
        t.outcomes.clear()


# --- CONNECT


@pytest.mark.parametrize("step", [1, 1 << 20])
@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 Connection established\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x\r\n\r\n",
        b"HTTP/1.1 204 X\r\nContent-Length: 9\r\n\r\n",
    ],
)
def test_tunnel(step: int, answer: bytes) -> None:
    """After a 2xx both ends' bytes are another protocol's; lengths in that answer mean nothing (RFC 9110 9.3.6)."""
    with talk() as t:
        sent = CONNECT + b"\x16\x03\x01"
        for at in range(0, len(sent), step):
            t.client_sends(sent[at : at + step])
        request = t.expect_request("CONNECT", "CONNECT b.example:443", method="CONNECT", target="b.example:443")
        assert request.tunnel == ("b.example", 443)
        assert "host" not in request.facts  # that would be the proxy's
        t.expect_upstream(CONNECT)
        received = answer + b"early"
        for at in range(0, len(received), step):
            t.server_sends(received[at : at + step])
        assert t.take_client().startswith(b"HTTP/1.1 20")
        t.expect_outcome(answer.split(b" ")[1].decode())
        assert t.switched is not None
        assert t.switched.inspector is None
        assert t.switched.client == b"\x16\x03\x01"
        assert b"early".startswith(t.switched.server)


def test_proxy_that_refuses() -> None:
    """A 407 is an answer like any other, with its body, and the connection goes on."""
    refused = b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\nContent-Length: 2\r\n\r\nno"
    with talk() as t:
        for _ in range(2):
            t.client_sends(CONNECT)
            t.expect_request("CONNECT")
            t.expect_upstream(CONNECT)
            t.server_sends(refused)
            t.expect_client(refused)
            t.expect_outcome("407")


def test_denied_tunnel() -> None:
    """A denied CONNECT is a 403, and the connection goes on; what was sent ahead is the next request."""
    following = b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
    with talk(decide=lambda request: DENIAL if request.tunnel else None) as t:
        t.client_sends(CONNECT + following)
        t.expect_request("CONNECT")
        assert t.take_client().startswith(b"HTTP/1.1 403 ")
        t.expect_request("GET", "GET /2")
        t.expect_upstream(following)


def test_tunnel_by_address() -> None:
    """Literals are targets too."""
    with talk() as t:
        t.client_sends(b"CONNECT [2001:db8::1]:22 HTTP/1.1\r\nHost: [2001:DB8::1]:22\r\n\r\n")
        assert t.expect_request("CONNECT").tunnel == ("2001:db8::1", 22)
        t.take_upstream()
