"""WebSocket between real peers: the client of the `websockets` library, the inspectors in a relay, its server."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.sync.server import ServerConnection, serve

from enforcer.masking.masker import masker_for
from enforcer.protocols.base import Request, Text
from enforcer.protocols.http1 import PROTOCOL
from enforcer.verdict import Denial, MaskSpec
from tests.conversation import DENIAL, Conversation
from tests.protocols.test_http1_relay import Relay

CARD, HIDDEN = "4111 1111 1111 1111", "**** **** **** 1111"
MASKER = masker_for(MaskSpec(detectors=("credit_card",)))
PATIENCE = 20.0


def echo(connection: ServerConnection) -> None:
    for message in connection:
        connection.send(message)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A server that sends back what it gets, and would compress if it were asked to."""
    with serve(echo, "127.0.0.1", 0, max_size=None, select_subprotocol=lambda _, asked: (asked or [None])[0]) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.socket.getsockname()[1]
        server.shutdown()


def hide(text: Text) -> bytes:
    return MASKER.text(text.media).feed(text.data, text.final, Counter())


def relayed(port: int, **how: object) -> Relay:
    return Relay(port, lambda: Conversation(PROTOCOL.inspector(), quiet=True, **how))  # type: ignore[arg-type]


def test_messages_of_all_kinds(port: int) -> None:
    """Texts, binary ones, fragments, empty and large ones, pings: all arrive as they were sent, and are judged."""
    relay = relayed(port)
    with connect(f"ws://127.0.0.1:{relay.port}/chat", max_size=None, close_timeout=PATIENCE) as client:
        assert not client.protocol.extensions
        for message in ("hello", "", b"\0\1", "é" * 70_000, b"x" * 3_000_000):
            client.send(message)
            assert client.recv(timeout=PATIENCE) == message
        client.send(["in ", "three ", "parts"])
        assert client.recv(timeout=PATIENCE) == "in three parts"
        assert client.ping().wait(PATIENCE)
    assert relay.requests()[:3] == ["GET /chat", "hello", ""]
    relay.close()


def test_subprotocols(port: int) -> None:
    """A subprotocol is agreed on through us."""
    relay = relayed(port)
    with connect(f"ws://127.0.0.1:{relay.port}/", subprotocols=["mcp"]) as client:  # type: ignore[list-item]
        assert client.subprotocol == "mcp"
    relay.close()


def test_masked_both_ways(port: int) -> None:
    """What the client says is masked before the server gets it, and what the server says before the client does."""
    relay = relayed(port, mask_text=hide)
    with connect(f"ws://127.0.0.1:{relay.port}/") as client:
        client.send(CARD)
        assert client.recv(timeout=PATIENCE) == HIDDEN
    relay.close()
    received = relayed(port, rewrite=lambda data: MASKER.mask(data, Counter()), rewrite_text=hide)
    with connect(f"ws://127.0.0.1:{received.port}/") as client:
        client.send(CARD)
        assert client.recv(timeout=PATIENCE) == HIDDEN
    received.close()


def test_denied_message(port: int) -> None:
    """A denied message closes the connection with 1008 and the reason; those before it went through."""

    def decide(request: Request) -> Denial | None:
        return DENIAL if request.text == "secret" else None

    relay = relayed(port, decide=decide)
    with connect(f"ws://127.0.0.1:{relay.port}/") as client:
        client.send("fine")
        assert client.recv(timeout=PATIENCE) == "fine"
        client.send("secret")
        with pytest.raises(ConnectionClosed) as closed:
            client.recv(timeout=PATIENCE)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 1008
    assert DENIAL.title.startswith(closed.value.rcvd.reason)
    relay.close()
