"""WebSocket: frames as RFC 6455 has them, messages judged and masked one by one, refusals, and what is no frame."""

from __future__ import annotations

import json
import struct
import tracemalloc
from collections import Counter
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.masking.masker import masker_for
from enforcer.protocols.base import Request, Rewrite, Text
from enforcer.protocols.jsonrpc import DENIED
from enforcer.protocols.websocket import WebSocketInspector
from enforcer.protocols.websocket.frames import CONTROL_LIMIT, FrameReader, Opcode, Payload, from_client, from_server
from enforcer.protocols.websocket.inspector import AHEAD_LIMIT, TEXT_LIMIT
from enforcer.protocols.websocket.messages import MESSAGE_LIMIT
from enforcer.verdict import Denial, MaskSpec
from tests.conversation import DENIAL, Conversation

CARD, HIDDEN = b"4111 1111 1111 1111", b"**** **** **** 1111"
MASKER = masker_for(MaskSpec(detectors=("credit_card",)))
CALL = b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "delete"}}'
KEY = b"\x37\xfa\x21\x3d"


def hide(data: bytes) -> bytes:
    return MASKER.mask(data, Counter())


def mask(text: Text) -> bytes:
    return MASKER.text(text.media).feed(text.data, text.final, Counter())


def talk(*, masked: bool = False, rewrite: Rewrite | None = None, bodies: bool = False, **more: Any) -> Conversation:
    facts = {"host": "a", "method": "WEBSOCKET", "path": "/chat"}
    inspector = WebSocketInspector(3, "/chat?x", facts, [(b"Origin", b"b")], masked=masked, rewrite=rewrite)
    if bodies:
        inspector.read_bodies()
    t = Conversation(
        inspector, mask_text=mask if masked else None, rewrite=rewrite, rewrite_text=mask if rewrite else None, **more
    )
    t._allowed[3] = Request(3, "GET", "GET /chat", b"")
    return t


def unmasked(data: bytes, key: bytes = KEY) -> bytes:
    """Section 5.3, byte by byte."""
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(data))


def frame(first: int, payload: bytes, *, client: bool = True) -> bytes:
    """A frame by the letter of section 5.2, with a fixed key."""
    mask_bit, size = 0x80 if client else 0, len(payload)
    if size < 126:
        length = bytes([mask_bit | size])
    elif size < 65536:
        length = bytes([mask_bit | 126]) + struct.pack("!H", size)
    else:
        length = bytes([mask_bit | 127]) + struct.pack("!Q", size)
    return bytes([first]) + length + (KEY + unmasked(payload) if client else payload)


def frames(raw: bytes, side: Side) -> list[tuple[int, bytes]]:
    """The complete frames of `raw` as opcode and payload, by the letter; a client's have masks."""
    found = []
    while raw:
        size, at = raw[1] & 0x7F, 2
        assert bool(raw[1] & 0x80) is (side is Side.CLIENT)
        if size == 126:
            size, at = int.from_bytes(raw[2:4], "big"), 4
        elif size == 127:
            size, at = int.from_bytes(raw[2:10], "big"), 10
        key, at = (raw[at : at + 4], at + 4) if side is Side.CLIENT else (b"\0\0\0\0", at)
        assert len(raw) >= at + size
        found.append((raw[0], unmasked(raw[at : at + size], key)))
        raw = raw[at + size :]
    return found


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65535, 65536, 70001])
def test_frames_by_the_letter(size: int) -> None:
    """What we write is what section 5.2 says, at every size at which the length is written otherwise."""
    payload = bytes(range(256)) * (size // 256) + bytes(size % 256)
    assert frames(from_client(Opcode.BINARY, payload), Side.CLIENT) == [(0x82, payload)]
    assert from_server(Opcode.TEXT, payload) == frame(0x81, payload, client=False)


def test_each_message_has_a_key_of_its_own() -> None:
    """Keys are new each time (section 5.3), whatever the client's were."""
    assert len({from_client(Opcode.TEXT, b"x")[2:6] for _ in range(20)}) > 15


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 400), max_size=6))
@settings(deadline=None)
def test_payload_cut_anywhere(data: bytes, cuts: list[int]) -> None:
    """A payload unmasked in pieces is the payload."""
    raw, reader, got = frame(0x82, data), FrameReader(Side.CLIENT), b""
    edges = sorted({0, len(raw), *(cut for cut in cuts if cut < len(raw))})
    for low, high in pairwise(edges):
        reader.receive(raw[low:high])
        while (unit := reader.next()) is not None:
            got += unit.data if isinstance(unit, Payload) else b""
    assert got == data
    assert not reader.in_frame


@pytest.mark.parametrize("step", [1, 3, 1 << 20])
def test_messages_both_ways(step: int) -> None:
    """A client's message is an exchange, judged with the handshake's facts and fields; a server's passes as it is."""
    sent = frame(0x01, b"Hel") + frame(0x89, b"ping") + frame(0x80, b"lo") + frame(0x82, b"\0\1")
    answer = b"".join(frame(*one, client=False) for one in ((0x01, b"ab"), (0x8A, b"pong"), (0x80, b"c"), (0x82, b"")))
    with talk() as t:
        for at in range(0, len(sent), step):
            t.client_sends(sent[at : at + step])
        assert frames(t.take_upstream(), Side.CLIENT) == [(0x89, b"ping"), (0x81, b"Hello"), (0x82, b"\0\1")]
        request = t.expect_request("WebSocket text", "Hello", host="a", path="/chat", method="WEBSOCKET")
        assert (request.exchange, request.within, list(request.fields)) == (4, 3, [(b"Origin", b"b")])
        assert t.expect_request("WebSocket binary", "2 bytes").exchange == 5
        t.expect_outcome("sent")
        t.expect_outcome("sent")
        for at in range(0, len(answer), step):
            t.server_sends(answer[at : at + step])
        t.expect_client(answer)


def test_orderly_end() -> None:
    """Close frames pass both ways, and the exchange that asked for the connection ends with it."""
    with talk() as t:
        t.client_sends(frame(0x88, struct.pack("!H", 1000) + b"bye") + b"garbage after it")
        assert frames(t.take_upstream(), Side.CLIENT) == [(0x88, b"\x03\xe8bye")]
        t.server_sends(frame(0x88, b"\x03\xe8", client=False) + b"garbage")
        t.expect_client(frame(0x88, b"\x03\xe8", client=False))
        t.server_closes()
        t.expect_outcome("101")


def test_end_without_a_close_frame() -> None:
    """A connection that just ends has failed."""
    with talk() as t:
        t.server_closes()
        t.expect_outcome("101", failed=True)


# --- masking


@pytest.mark.parametrize("step", [1, 1 << 20])
def test_server_messages_are_masked(step: int) -> None:
    """Texts, fragments put together, JSON escapes, binary ones, and what control frames say."""
    sent = b"".join(
        frame(first, payload, client=False)
        for first, payload in (
            (0x01, CARD[:7]),
            (0x89, CARD),
            (0x80, CARD[7:]),
            (0x81, b'{"n": "\\u0034111111111111111"}'),
            (0x82, b"\0" + CARD + b"\xff"),
            (0x88, b"\x03\xe8" + CARD),
        )
    )
    with talk(masked=True) as t:
        for at in range(0, len(sent), step):
            t.server_sends(sent[at : at + step])
        assert frames(t.take_client(), Side.SERVER) == [
            (0x89, HIDDEN),
            (0x81, HIDDEN),
            (0x81, b'{"n": "************1111"}'),
            (0x82, b"\0" + HIDDEN + b"\xff"),
            (0x88, b"\x03\xe8" + HIDDEN),
        ]
        assert {text.exchange for text in t.texts} == {3}


def test_client_messages_are_masked() -> None:
    """What the client says is rewritten before it goes up, control frames included."""
    with talk(rewrite=hide) as t:
        t.client_sends(frame(0x81, CARD) + frame(0x82, CARD) + frame(0x8A, CARD) + frame(0x88, b"\x03\xe8" + CARD))
        assert frames(t.take_upstream(), Side.CLIENT) == [
            (0x81, HIDDEN),
            (0x82, HIDDEN),
            (0x8A, HIDDEN),
            (0x88, b"\x03\xe8" + HIDDEN),
        ]
        t.expect_request("WebSocket text")
        t.expect_request("WebSocket binary")
        t.expect_outcome("sent")
        t.expect_outcome("sent")


def test_recorded_beginning() -> None:
    """Of a long message the beginning is recorded, and never half a value that the recorder would not recognise."""
    text = b"x" * (TEXT_LIMIT - 30) + b"; card=" + CARD + b" " + b"y" * 100
    with talk() as t:
        t.client_sends(frame(0x81, text))
        request = t.expect_request("WebSocket text")
        assert len(request.text) <= TEXT_LIMIT
        assert "4111" not in request.text
        assert request.text.startswith("xxx")
        t.take_upstream()
        t.outcomes.clear()


# --- facts and refusals


def test_facts_of_json_messages() -> None:
    """A message that is JSON-RPC has the facts that a body would have."""
    with talk(bodies=True) as t:
        t.client_sends(frame(0x81, CALL) + frame(0x81, b"hello"))
        t.expect_request("WebSocket text", CALL.decode(), rpc="tools/call", tool="delete")
        assert "rpc" not in t.expect_request("WebSocket text").facts
        t.take_upstream()
        t.outcomes.clear()


def deny_calls(request: Request) -> Denial | None:
    return DENIAL if "tools/call" in request.text else None


def test_denied_call_is_told_in_json_rpc() -> None:
    """A denied JSON-RPC request is answered with its error, and the connection lives; not inside another message."""
    with talk(decide=deny_calls) as t:
        t.server_sends(frame(0x01, b"half", client=False))
        t.expect_client(frame(0x01, b"half", client=False))
        t.client_sends(frame(0x81, CALL) + frame(0x81, b"next"))
        t.expect_request("WebSocket text", CALL.decode())
        t.expect_client(b"")
        t.server_sends(frame(0x80, b"whole", client=False))
        (rest, (first, told)) = frames(t.take_client(), Side.SERVER)
        assert rest == (0x80, b"whole")
        assert first == 0x81
        error = json.loads(told)
        assert (error["id"], error["error"]["code"]) == (7, DENIED)
        t.expect_request("WebSocket text", "next")
        assert frames(t.take_upstream(), Side.CLIENT) == [(0x81, b"next")]
        t.expect_outcome("sent")


def test_denied_message_closes() -> None:
    """Where there is no answer to put it in, a denial is a Close frame with 1008 and a reason of at most 123 bytes."""
    with talk(decide=lambda _: DENIAL) as t:
        t.client_sends(frame(0x81, b"hello"))
        t.expect_request("WebSocket text")
        ((first, told),) = frames(t.take_client(), Side.SERVER)
        assert first == 0x88
        assert told[:2] == struct.pack("!H", 1008)
        assert DENIAL.title.encode().startswith(told[2:].removesuffix("…".encode()))
        assert len(told) <= CONTROL_LIMIT
        assert t.closed
        t.client_sends(frame(0x81, b"more"))


def test_long_reasons_are_cut() -> None:
    """A reason that does not fit is cut between characters."""
    long = Denial("8.8.8.8:80", "US", "8.8.8.0/24", "p", "r", "é" * 200, "0a1b")
    with talk(decide=lambda _: long) as t:
        t.client_sends(frame(0x81, b"hello"))
        t.expect_request("WebSocket text")
        ((_, told),) = frames(t.take_client(), Side.SERVER)
        assert 100 < len(told) <= CONTROL_LIMIT
        assert told[2:].decode().endswith("…")


def test_what_came_before_a_fault_goes_on_whole() -> None:
    """A frame that ends in the same read as a fault begins is not cut, so that the refusal is one."""
    t = talk()
    t.server_sends(b"\x82\x04ab")
    t.server_sends(b"cd\x88\x02\x03")
    assert t.take_client() == b"\x82\x04abcd"
    t.server_sends(b"\x00")  # 768 is no code of section 7.4
    ((opcode, reason),) = frames(t.take_client(), Side.SERVER)
    assert (opcode, reason[:2]) == (0x88, b"\x03\xea")


def test_no_refusal_inside_of_a_frame() -> None:
    """While a frame of the server's is half sent, a Close frame would be taken for its payload: there are no words."""
    with talk(decide=lambda _: DENIAL) as t:
        t.server_sends(frame(0x82, b"x" * 100, client=False)[:50])
        assert len(t.take_client()) == 50
        t.client_sends(frame(0x81, b"hello"))
        t.expect_request("WebSocket text")
        t.expect_client(b"")
        assert t.closed


# --- what is no WebSocket


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (frame(0xC1, b"x"), 1002),  # a reserved bit: compression, which was not agreed on
        (frame(0x83, b"x"), 1002),  # reserved opcodes
        (frame(0x8B, b"x"), 1002),
        (frame(0x81, b"x", client=False), 1002),  # no mask
        (frame(0x80, b"x"), 1002),  # a continuation of nothing
        (frame(0x01, b"x") + frame(0x81, b"y"), 1002),  # a message inside another
        (frame(0x09, b"x"), 1002),  # control frames in fragments, and long ones
        (frame(0x89, b"x" * 126), 1002),
        (b"\x81\xfe\x00\x05" + KEY + b"12345", 1002),  # lengths not written in the shortest way
        (b"\x81\xff" + struct.pack("!Q", 5) + KEY + b"12345", 1002),
        (b"\x81\xff" + struct.pack("!Q", 1 << 63) + KEY, 1002),
        (frame(0x88, b"x"), 1002),  # Close frames without a valid code
        (frame(0x88, struct.pack("!H", 1005)), 1002),
        (frame(0x88, struct.pack("!H", 999)), 1002),
        (frame(0x81, b"\xff"), 1007),
        (frame(0x01, b"\xc3") + frame(0x80, b"("), 1007),
        (frame(0x88, b"\x03\xe8\xff"), 1007),
        (b"\x82\xff" + struct.pack("!Q", MESSAGE_LIMIT + 1) + KEY, 1009),
        (frame(0x02, b"x" * 5) + b"\x80\xff" + struct.pack("!Q", MESSAGE_LIMIT) + KEY, 1009),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_bad_frames(raw: bytes, code: int, step: int) -> None:
    """A client that breaks the protocol is told so with the code of section 7.4.1, and nothing of it goes up."""
    with talk(quiet=True) as t:
        for at in range(0, len(raw), step):
            t.client_sends(raw[at : at + step])
        t.expect_error(Side.CLIENT, "WebSocket")
        ((_, told),) = frames(t.take_client(), Side.SERVER)
        assert told[:2] == struct.pack("!H", code)
        t.expect_upstream(b"")


@pytest.mark.parametrize("masked", [False, True])
def test_bad_frames_of_servers(masked: bool) -> None:
    """A server is held to the same."""
    with talk(masked=masked) as t:
        t.server_sends(frame(0x81, b"x"))
        t.expect_error(Side.SERVER, "mask")
        t.take_client()


def test_large_messages_pass_where_nobody_reads_them() -> None:
    """An unmasked server's message of any size streams through and is not kept."""
    header = b"\x82\x7f" + struct.pack("!Q", 4 * MESSAGE_LIMIT)
    inspector = WebSocketInspector(1, "/", {}, (), masked=False, rewrite=None)
    piece, sent = b"x" * 65536, 0
    tracemalloc.start()
    try:
        inspector.receive_data(Side.SERVER, header)
        for _ in range(4 * MESSAGE_LIMIT // len(piece)):
            inspector.receive_data(Side.SERVER, piece)
            while (event := inspector.next_event()) is not None:
                sent += len(event.raw)  # type: ignore[union-attr]
        assert tracemalloc.get_traced_memory()[1] < MESSAGE_LIMIT
    finally:
        tracemalloc.stop()
    assert sent == len(header) + 4 * MESSAGE_LIMIT


def test_memory_is_bounded_while_a_verdict_is_awaited() -> None:
    """A client that goes on sending while its message is judged hits a limit."""
    inspector = WebSocketInspector(1, "/", {}, (), masked=False, rewrite=None)
    inspector.receive_data(Side.CLIENT, frame(0x81, b"hello"))
    assert isinstance(inspector.next_event(), Request)
    for _ in range(AHEAD_LIMIT // 65536):
        inspector.receive_data(Side.CLIENT, b"x" * 65536)
    with pytest.raises(LimitExceeded):
        inspector.receive_data(Side.CLIENT, b"x")


@given(
    parts=st.lists(
        st.tuples(
            st.sampled_from([Side.CLIENT, Side.SERVER]),
            st.one_of(
                st.binary(max_size=40),
                st.builds(frame, st.sampled_from([0x81, 0x01, 0x80, 0x89, 0x88]), st.binary(max_size=20)),
            ),
        ),
        max_size=8,
    ),
    masked=st.booleans(),
)
@settings(max_examples=80, deadline=None)
def test_any_bytes(parts: list[tuple[Side, bytes]], masked: bool) -> None:
    """Any bytes of either side raise ProtocolError or nothing, and the connection can be refused afterwards."""
    t = talk(masked=masked)
    for side, data in parts:
        (t.client_sends if side is Side.CLIENT else t.server_sends)(data)
    for error in t._errors:
        assert isinstance(error, ProtocolError)
