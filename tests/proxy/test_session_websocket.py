"""WebSocket through a whole session: from the handshake to single messages, judged, masked and recorded."""

from __future__ import annotations

import json

from enforcer.flow import Side
from enforcer.policy.only import Only
from enforcer.verdict import MaskSpec
from tests.protocols.test_http1_upgrade import AGREE, ASK
from tests.protocols.test_websocket import frame, frames
from tests.proxy.stage import CARD, MASKED_CARD, Stage, allow, rule

CALL = json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "delete"}}).encode()
LIST = json.dumps({"jsonrpc": "2.0", "id": 8, "method": "tools/list"}).encode()


def opened(stage: Stage) -> None:
    """The handshake, after which nothing is left of it in the log."""
    stage.client_sends(ASK % b"")
    stage.connects()
    asked = b"\r\nAccept-Encoding: identity\r\n\r\n"  # where answers are masked
    assert stage.take("server").replace(asked, b"\r\n\r\n") == ASK % b""
    stage.server_sends(AGREE % b"")
    assert stage.take("client") == AGREE % b""


def from_client(stage: Stage) -> list[tuple[int, bytes]]:
    return frames(stage.take("server"), Side.CLIENT)


def from_server(stage: Stage) -> list[tuple[int, bytes]]:
    return frames(stage.take("client"), Side.SERVER)


def test_each_message_is_a_row() -> None:
    """The handshake is an exchange that lasts, each message of the client's one of its own, values masked."""
    with Stage(allow()) as stage:
        opened(stage)
        stage.client_sends(frame(0x81, b"hello") + frame(0x81, CARD.encode()))
        assert from_client(stage) == [(0x81, b"hello"), (0x81, CARD.encode())]
        stage.server_sends(frame(0x81, b"back", client=False))
        assert from_server(stage) == [(0x81, b"back")]
        stage.client_sends(frame(0x88, b"\x03\xe8"))
        stage.server_sends(frame(0x88, b"\x03\xe8", client=False))
        stage.server_lost()
        rows = {row["exchange"]: row for row in stage.rows("exchanges")}
        assert [(rows[n]["operation"], rows[n]["text"]) for n in (1, 2, 3)] == [
            ("GET", "GET /chat?x"),
            ("WebSocket text", "hello"),
            ("WebSocket text", MASKED_CARD),
        ]
        assert [rows[n]["status"] for n in (1, 2, 3)] == ["101", "sent", "sent"]
        assert rows[2]["facts"] == {"host": "a", "method": "WEBSOCKET", "path": "/chat"}
        assert stage.client.ended == "closed"


def test_messages_are_masked_both_ways() -> None:
    """What either end says is masked by the rule that let the connection be."""
    cards = MaskSpec(detectors=("credit_card",))
    with Stage(rule(mask=cards, request_mask=cards)) as stage:
        opened(stage)
        stage.client_sends(frame(0x81, CARD.encode()) + frame(0x89, CARD.encode()))
        assert from_client(stage) == [(0x81, MASKED_CARD.encode()), (0x89, MASKED_CARD.encode())]
        stage.server_sends(frame(0x81, CARD.encode(), client=False))
        assert from_server(stage) == [(0x81, MASKED_CARD.encode())]
        stage.client_lost()
        assert {row["exchange"]: row["masked"] for row in stage.rows("exchanges")}[2] == {"credit_card": 1}


def test_messages_are_judged_by_what_they_say() -> None:
    """An `only` by JSON-RPC method: one call passes, one is denied in its own words, and the connection goes on."""
    handshake = rule(name="handshake", only=Only(method=("GET",)))
    with Stage(rule(name="listing", only=Only(rpc=("tools/list",))), handshake) as stage:
        opened(stage)
        stage.client_sends(frame(0x81, CALL) + frame(0x81, LIST))
        assert from_client(stage) == [(0x81, LIST)]
        ((first, told),) = from_server(stage)
        error = json.loads(told)
        assert (first, error["id"]) == (0x81, 7)
        assert error["error"]["data"]["exchange"] == 2
        stage.client_lost()
        rows = {row["exchange"]: (row["action"], row["facts"].get("rpc")) for row in stage.rows("exchanges")}
        assert rows == {1: ("allow", None), 2: ("deny", "tools/call"), 3: ("allow", "tools/list")}


def test_a_reload_that_denies_ends_the_connection() -> None:
    """What is under way is judged again, with the request that it began with."""
    with Stage(allow()) as stage:
        opened(stage)
        stage.new_generation(rule("deny"))
        assert stage.client.ended == "reset"
        assert stage.row("session_ends")["cause"] == "no longer allowed after a reload"


def test_a_message_that_is_denied_closes_with_a_reason() -> None:
    """Policy that changes in between: with `keep`, only what comes now is denied, and the Close frame says why."""
    with Stage(allow(), on_reload="recheck") as stage:
        opened(stage)
        stage.environment.policies = stage.environment.policies.of(())
        stage.environment.generation += 1
        stage.client_sends(frame(0x81, b"hello"))
        ((first, told),) = from_server(stage)
        assert (first, told[:2]) == (0x88, b"\x03\xf0")
        assert told[2:].startswith(b"egress to 3.120.0.10:80 denied: no rule matched")
        assert from_client(stage) == []
        assert stage.row("session_ends")["cause"] == "denied"


def test_answers_masked_otherwise_are_not_let_through() -> None:
    """A message whose rule masks answers otherwise than the connection's is denied: its answer could not be told."""
    with Stage(allow()) as stage:
        opened(stage)
        masking = allow("credit_card")
        stage.environment.policies = stage.environment.policies.of(())
        stage.environment.generation += 1
        stage.new_generation(masking)
        stage.client_sends(frame(0x81, b"hello"))
        ((first, told),) = from_server(stage)
        assert first == 0x88
        assert b"cannot be masked" in told
        assert from_client(stage) == []
