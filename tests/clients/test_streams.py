"""gRPC and WebSocket, their own clients unchanged in an executor: allowed, masked, denied."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from enforcer.demo.world import FRANKFURT, VIRGINIA
from tests.clients import speakers
from tests.clients.client import Client
from tests.clients.place import DENIED, MASKED, ORDER, PLAIN, Place
from tests.clients.speakers import GRPC_PORT, WEBSOCKET_PORT, packed
from tests.fixtures.world import MASKED_CARD, MASKED_EMAIL, Watch

pytestmark = [pytest.mark.world, pytest.mark.clients]

GRPC = """
import grpc, json, sys
channel = grpc.secure_channel(sys.argv[1], grpc.ssl_channel_credentials())
get = channel.unary_unary("/shop.Orders/Get")
listing = channel.unary_stream("/shop.Orders/List")
put = channel.stream_unary("/shop.Orders/Put")
try:
    one, call = get.with_call(b"\\x0a\\x03one", timeout=30)
    told = {"one": one.hex(), "before": dict(call.initial_metadata()), "after": dict(call.trailing_metadata())}
    told["listed"] = [order.hex() for order in listing(b"\\x0a\\x03all", timeout=30)]
    told["put"] = put(iter([b"\\x0a\\x01a", b"\\x0a\\x01b"]), timeout=30).hex()
except grpc.RpcError as error:
    told = {"code": error.code().name, "details": error.details()}
print(json.dumps(told))
"""
WEBSOCKET = """
import json, sys
from websockets.sync.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
told = {}
try:
    with connect(sys.argv[1], open_timeout=30, close_timeout=5) as link:
        link.send("an order, please")
        told["text"] = link.recv(timeout=30)
        link.send(bytes(range(256)) * 400)
        told["bytes"] = link.recv(timeout=30) == bytes(range(256)) * 400
except InvalidStatus as error:
    told |= {"status": error.response.status_code, "body": error.response.body.decode()}
except ConnectionClosed as error:
    told |= {"closed": str(error)}
print(json.dumps(told))
"""


@pytest.fixture(scope="module", autouse=True)
def _speaking(place: Place) -> None:
    world = place.world
    for site in (FRANKFURT, VIRGINIA):
        directory = world.directory / site.name
        log = directory / "said.log"
        log.touch()
        root = Path(speakers.__file__).parent.parent.parent
        path = f"PYTHONPATH={root}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
        arguments = (site.address, str(directory / "server.pem"), str(log))
        world.spawn(site.name, "env", path, sys.executable, speakers.__file__, *arguments, log=f"speak-{site.name}.log")
        world.wait_for(site, GRPC_PORT)
        world.wait_for(site, WEBSOCKET_PORT)


def said(place: Place, site: str) -> list[str]:
    return (place.world.directory / site / "said.log").read_text().splitlines()


def call(client: Client, host: str) -> dict[str, object]:
    told: dict[str, object] = json.loads(client.must(sys.executable, "-c", GRPC, f"{host}:{GRPC_PORT}"))
    return told


def talk(client: Client, host: str) -> dict[str, object]:
    command = (sys.executable, "-c", WEBSOCKET, f"wss://{host}:{WEBSOCKET_PORT}/orders")
    told: dict[str, object] = json.loads(client.must(*command))
    return told


# --- gRPC


def test_grpc_calls_and_streams(client: Client) -> None:
    """One call with metadata before and after, a stream of answers, a stream of requests: each as the server said."""
    told = call(client, PLAIN)
    assert told == {
        "one": packed(json.dumps(ORDER)).hex(),
        "before": {"served-by": "shop"},
        "after": {"left-in-stock": "3"},
        "listed": [packed(json.dumps(ORDER | {"order": number})).hex() for number in range(3)],
        "put": packed("2").hex(),
    }
    assert client.recorded(PLAIN, "/shop.Orders/List")["status"] is not None


def test_grpc_messages_are_masked(client: Client) -> None:
    """In place, so that the messages stay ones: one answer, and each of a stream."""
    told = call(client, MASKED)
    hidden = ORDER | {"card": MASKED_CARD, "contact": MASKED_EMAIL}
    assert told["one"] == packed(json.dumps(hidden)).hex()
    assert told["listed"] == [packed(json.dumps(hidden | {"order": number})).hex() for number in range(3)]
    assert client.recorded(MASKED, "/shop.Orders/List")["masked"] == {"credit_card": 3, "email": 3}


def test_grpc_is_denied(client: Client, virginia: Watch) -> None:
    """A status with the rule's name (gRPC's own, in trailers), and nothing arrives."""
    virginia.arrived()
    told = call(client, DENIED)
    assert told["code"] == "PERMISSION_DENIED", told
    assert "nowhere-else" in str(told["details"])
    assert virginia.arrived() == []
    assert said(client.place, VIRGINIA.name) == []


# --- WebSocket


def test_websocket_messages_pass(client: Client) -> None:
    """Text and bytes, both ways, each as it was sent."""
    assert talk(client, PLAIN) == {"text": json.dumps(ORDER), "bytes": True}
    assert "message b'an order, please'" in said(client.place, FRANKFURT.name)


def test_websocket_messages_are_masked(client: Client) -> None:
    """Each message by itself."""
    told = talk(client, MASKED)
    assert json.loads(str(told["text"])) == ORDER | {"card": MASKED_CARD, "contact": MASKED_EMAIL}


def test_websocket_is_denied(client: Client, virginia: Watch) -> None:
    """The handshake is answered with 403 and the problem; nothing arrives."""
    virginia.arrived()
    told = talk(client, DENIED)
    assert told["status"] == 403
    assert json.loads(str(told["body"]))["rule"] == "nowhere-else"
    assert virginia.arrived() == []
