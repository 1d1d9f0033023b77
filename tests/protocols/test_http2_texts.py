"""HTTP/2: answers masked, requests rewritten and bodies read, each stream for itself."""

from __future__ import annotations

import gzip
import json

import h2.events
import h2.exceptions
import h2.settings

from enforcer.protocols.base import Text
from tests.protocols.wire_http2 import (
    OK,
    Between,
    get,
    post,
)


def hide(data: bytes) -> bytes:
    return data.replace(b"4111111111111111", b"************1111")


def masked(text: Text) -> bytes:
    return hide(text.data)


def test_answers_are_masked_stream_by_stream() -> None:
    """A small answer keeps a length, the new one; lines about its old bytes are left out; others are not mixed in."""
    both = Between(mask_text=masked)
    for number in (1, 3):
        both.client.send_headers(
            number, get(b"/", (b"accept-encoding", b"br, nope"), (b"range", b"bytes=0-1")), end_stream=True
        )
    asked = both.to_server(h2.events.RequestReceived)
    said = dict(asked[0].headers)
    assert said[b"accept-encoding"] == b"br"
    assert b"range" not in said
    body = b"a card: 4111111111111111 and more"
    about = [*OK, (b"etag", b"x"), (b"x-goog-hash", b"y"), (b"content-length", b"%d" % len(body))]
    both.server.send_headers(1, about)
    both.server.send_headers(3, about)
    both.server.send_data(3, body, end_stream=True)
    both.server.send_data(1, body, end_stream=True)
    answers = {event.stream_id: dict(event.headers) for event in both.to_client(h2.events.ResponseReceived)}
    assert answers[1] == answers[3] == {b":status": b"200", b"content-type": b"text/plain", b"content-length": b"33"}
    bodies = {event.stream_id: event.data for event in both.to_client(h2.events.DataReceived)}
    assert bodies[1] == bodies[3] == hide(body)


def test_compressed_answers_are_masked() -> None:
    """gzip is undone, masked and done again."""
    both = Between(mask_text=masked)
    both.client.send_headers(1, get(), end_stream=True)
    both.exchange()
    both.server.send_headers(1, [*OK, (b"content-encoding", b"gzip")])
    both.server.send_data(1, gzip.compress(b"4111111111111111"), end_stream=True)
    assert gzip.decompress(both.body("client", 1)) == b"************1111"


def test_what_cannot_be_masked_is_refused_on_its_stream() -> None:
    """UTF-16 says 403 instead; another stream of the connection goes on."""
    both = Between(mask_text=masked)
    for number in (1, 3):
        both.client.send_headers(number, get(), end_stream=True)
    both.exchange()
    both.server.send_headers(1, OK)
    both.server.send_data(1, "wide".encode("utf-16"), end_stream=True)
    both.server.send_headers(3, OK)
    both.server.send_data(3, b"hello", end_stream=True)
    answers = {event.stream_id: dict(event.headers) for event in both.to_client(h2.events.ResponseReceived)}
    assert (answers[1][b":status"], answers[3][b":status"]) == (b"403", b"200")


def test_requests_are_rewritten() -> None:
    """Path, fields and body; credentials stay; the length is the new one."""
    both = Between(rewrite=hide)
    card = b"4111111111111111"
    fields = post(b"/" + card + b"?c=" + card, (b"x-card", card), (b"authorization", card), (b"content-length", b"16"))
    both.client.send_headers(1, fields)
    both.client.send_data(1, card, end_stream=True)
    (asked,) = both.to_server(h2.events.RequestReceived)
    said = dict(asked.headers)
    assert card not in said[b":path"]
    assert (said[b"x-card"], said[b"authorization"], said[b"content-length"]) == (hide(card), card, b"16")
    assert both.body("server", 1) == hide(card)


def test_bodies_are_read_for_facts_before_the_verdict() -> None:
    """A JSON-RPC call is handed on with its method when its body is whole; then the server gets all of it."""
    both = Between(reads_bodies=True)
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", "pad": "x" * 200_000}).encode()
    both.client.send_headers(1, post(b"/mcp", (b"content-type", b"application/json")))
    left, up = body, b""
    while left:
        room = min(both.client.local_flow_control_window(1), 16384, len(left))
        assert room
        both.client.send_data(1, left[:room])
        left = left[room:]
        both.exchange()
    assert both.talk.requests == []
    both.client.end_stream(1)
    up += both.body("server", 1)
    both.talk.expect_request("POST", "POST /mcp", rpc="tools/list")
    assert up == body
