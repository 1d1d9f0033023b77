"""HTTP/2 under attack: what is known to exhaust others ends the connection with words, within named limits."""

from __future__ import annotations

import struct
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Forward, Request
from enforcer.protocols.http2 import PROTOCOL
from enforcer.protocols.http2.compression import HEAD_LIMIT
from enforcer.protocols.http2.connection import RESET_LIMIT
from enforcer.protocols.http2.exchanges import STREAMS_LIMIT
from enforcer.protocols.http2.peer import AHEAD_LIMIT, CONTINUATION_LIMIT, IDLE_LIMIT
from tests.conversation import DENIAL, Conversation
from tests.protocols.wire_http2 import (
    ACK,
    CONTINUATION,
    DATA,
    END_STREAM,
    GET,
    GOAWAY,
    HEADERS,
    OK,
    PADDED,
    PING,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    frame,
    frames,
    headers,
    literal,
    opening,
    post,
)

# RFC 9113 section 7.
PROTOCOL_ERROR, FLOW_CONTROL_ERROR, FRAME_SIZE_ERROR, COMPRESSION_ERROR, CALM = 1, 3, 6, 9, 11


def talk_of(*parts: bytes) -> Conversation:
    talk = Conversation(PROTOCOL.inspector(), quiet=True)
    talk.client_sends(opening() + b"".join(parts))
    return talk


def ended_with(talk: Conversation) -> int:
    """The code of the GOAWAY that the client got, with the reason's words in it."""
    assert talk.closed
    kind, _, _, payload = frames(talk.take_client())[-1]
    assert kind == "GOAWAY"
    assert DENIAL.title.encode() in payload
    return int(struct.unpack("!I", payload[4:8])[0])


@pytest.mark.parametrize(
    "one",
    [
        frame(PING, 0, 0, b"12345678"),
        frame(SETTINGS, 0, 0),
        frame(PRIORITY, 0, 1, b"\0\0\0\0\0"),
        frame(DATA, 0, 1),
        frame(DATA, PADDED, 1, b"\x03\0\0\0"),
        frame(WINDOW_UPDATE, 0, 1, b"\0\0\0\1"),
        frame(200, 0, 0, b"unknown"),
        headers(1, OK),
    ],
    ids=["ping", "settings", "priority", "empty data", "padding alone", "window", "unknown", "trailers"],
)
def test_frames_that_move_nothing(one: bytes) -> None:
    """A thousand are forgiven, more in one go are not."""
    begun = headers(1, post(), end=False)
    if one == headers(1, OK):
        begun += frame(DATA, END_STREAM, 1) + headers(3, GET) + frame(RST_STREAM, 0, 1, b"\0\0\0\x08")
    talk = talk_of(begun, one * (IDLE_LIMIT // 2))
    assert not talk.closed
    talk.client_sends(one * IDLE_LIMIT)
    assert ended_with(talk) == CALM
    talk.expect_error(Side.CLIENT, "move nothing")


def test_pings_of_a_long_life_are_no_flood() -> None:
    """One at a time, as clients that keep a connection alive send them, there is no end to them."""
    talk = talk_of(headers(1, GET))
    for _ in range(IDLE_LIMIT * 3):
        talk.client_sends(frame(PING, 0, 0, b"12345678"))
    assert not talk.closed


def test_rapid_reset() -> None:
    """Streams opened and given up at once (CVE-2023-44487): hundreds are served, then it is enough."""
    talk = talk_of()
    for number in range(1, RESET_LIMIT * 2 + 1, 2):
        talk.client_sends(headers(number, GET) + frame(RST_STREAM, 0, number, b"\0\0\0\x08"))
    assert not talk.closed
    for number in range(RESET_LIMIT * 2 + 1, RESET_LIMIT * 2 + 9, 2):
        talk.client_sends(headers(number, GET) + frame(RST_STREAM, 0, number, b"\0\0\0\x08"))
    assert ended_with(talk) == CALM
    talk.expect_error(Side.CLIENT, "given up")


def test_answers_make_good_for_resets() -> None:
    """A client that gives up every other stream goes on for ever."""
    talk = talk_of()
    talk.client_sends(headers(1, GET))
    talk.server_sends(frame(SETTINGS, 0, 0))
    for number in range(3, RESET_LIMIT * 5, 4):
        talk.client_sends(headers(number, GET) + headers(number + 2, GET) + frame(RST_STREAM, 0, number, bytes(4)))
        talk.server_sends(headers(number + 2, OK))
    assert not talk.closed
    assert len(talk.outcomes) > RESET_LIMIT * 2


def test_a_server_that_gives_up_everything() -> None:
    """The same the other way round."""
    talk = talk_of()
    talk.client_sends(headers(1, GET))
    talk.server_sends(frame(SETTINGS, 0, 0))
    for number in range(3, RESET_LIMIT * 2 + 9, 2):
        talk.client_sends(headers(number, GET))
        talk.server_sends(frame(RST_STREAM, 0, number, bytes(4)))
    talk.expect_error(Side.SERVER, "given up")


def test_continuation_flood() -> None:
    """A field block in ever more frames, large or empty (CVE-2024-27316 and others)."""
    start = frame(HEADERS, END_STREAM, 1, literal(GET))
    for part, count in ((b"", CONTINUATION_LIMIT + 1), (bytes(16384), HEAD_LIMIT // 16384 + 1)):
        talk = talk_of(start, frame(CONTINUATION, 0, 1, part) * count)
        assert ended_with(talk) == CALM


def test_too_many_streams_at_once() -> None:
    """The hundredth is served, the next is given back to be asked later; when one ends there is room."""
    talk = talk_of(b"".join(headers(number, GET) for number in range(1, STREAMS_LIMIT * 2 + 3, 2)))
    assert len(talk.requests) == STREAMS_LIMIT
    back = [(stream, payload) for kind, _, stream, payload in frames(talk.take_client()) if kind == "RST_STREAM"]
    assert back == [(STREAMS_LIMIT * 2 + 1, b"\0\0\0\7")]  # REFUSED_STREAM
    talk.server_sends(frame(SETTINGS, 0, 0) + headers(1, OK))
    talk.client_sends(headers(STREAMS_LIMIT * 2 + 3, GET))
    assert len(talk.requests) == STREAMS_LIMIT + 1


def test_a_server_that_takes_fewer_streams() -> None:
    """MAX_CONCURRENT_STREAMS of the server holds requests back, which are judged when there is room."""
    talk = talk_of(headers(1, GET))
    talk.server_sends(frame(SETTINGS, 0, 0, b"\0\3\0\0\0\2"))
    talk.client_sends(b"".join(headers(number, GET) for number in (3, 5, 7)))
    assert len(talk.requests) == 2
    talk.server_sends(headers(1, OK))
    assert len(talk.requests) == 3
    talk.server_sends(headers(3, OK) + headers(5, OK))
    assert len(talk.requests) == 4


def test_header_bombs() -> None:
    """A block that unfolds to more than the limit, by references to one large entry, ends at the limit."""
    big = b"\x40\x01x\x7f" + b"\xa1\x1e" + bytes(b"v" * 4000)  # a literal of 4,000 bytes that enters the table
    talk = talk_of(frame(HEADERS, 4 | END_STREAM, 1, literal(GET) + big + b"\xbe" * 1000))
    assert ended_with(talk) == CALM


@pytest.mark.parametrize(
    ("bytes_", "code"),
    [
        (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(DATA, 0, 7, b"x"), PROTOCOL_ERROR),
        (frame(HEADERS, 4, 2, literal(GET)), PROTOCOL_ERROR),
        (frame(HEADERS, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\x01"), COMPRESSION_ERROR),
        (frame(HEADERS, 4, 1, b"\xc6"), COMPRESSION_ERROR),
        (frame(HEADERS, 4, 1, b"\x3f\xe2\x1f"), COMPRESSION_ERROR),
        (frame(HEADERS, 4 | PADDED, 1, b"\xff"), PROTOCOL_ERROR),
        (frame(CONTINUATION, 4, 1), PROTOCOL_ERROR),
        (frame(HEADERS, 0, 1, b"") + frame(DATA, 0, 1), PROTOCOL_ERROR),
        (frame(PRIORITY, 0, 1, b"\0"), FRAME_SIZE_ERROR),
        (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 1, b"\0"), FRAME_SIZE_ERROR),
        (frame(RST_STREAM, 0, 0, bytes(4)), PROTOCOL_ERROR),
        (frame(RST_STREAM, 0, 9, bytes(4)), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0"), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
        (frame(SETTINGS, ACK, 0) * 2, PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\4\x80\0\0\0"), FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\5\0\0\0\1"), PROTOCOL_ERROR),
        (frame(SETTINGS, 0, 0, b"\0\2\0\0\0\2"), PROTOCOL_ERROR),
        (frame(PUSH_PROMISE, 4, 1, bytes(4)), PROTOCOL_ERROR),
        (frame(PING, 0, 0, b"1"), FRAME_SIZE_ERROR),
        (frame(PING, 0, 1, b"12345678"), PROTOCOL_ERROR),
        (frame(GOAWAY, 0, 1, bytes(8)), FRAME_SIZE_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
        (frame(WINDOW_UPDATE, 0, 5, b"\0\0\0\1"), PROTOCOL_ERROR),
        (b"\0\x40\1\0\0\0\0\0\1", FRAME_SIZE_ERROR),
    ],
)
def test_connection_errors(bytes_: bytes, code: int) -> None:
    """Each ends the connection with the code that RFC 9113 names."""
    talk = talk_of(bytes_)
    assert ended_with(talk) == code
    talk.expect_error(Side.CLIENT)


@pytest.mark.parametrize(
    ("bytes_", "words"),
    [
        (frame(PING, 0, 0, b"12345678"), "before its settings"),
        (frame(SETTINGS, 0, 0) + frame(PUSH_PROMISE, 4, 1, bytes(4) + literal(GET)), "pushes"),
        (frame(SETTINGS, 0, 0, b"\0\2\0\0\0\1"), "pushes"),
        (frame(SETTINGS, 0, 0) + headers(2, OK), "never began"),
        (frame(SETTINGS, 0, 0) + headers(3, OK), "never began"),
        (frame(SETTINGS, 0, 0) + frame(DATA, 0, 1, b"x" * 16384) * 4, "window"),
    ],
)
def test_a_server_that_breaks_the_connection(bytes_: bytes, words: str) -> None:
    """The server gets GOAWAY, and the stream that had no answer 502."""
    talk = talk_of(headers(1, GET))
    talk.take_upstream()
    talk.server_sends(bytes_)
    talk.expect_error(Side.SERVER, words)
    assert frames(talk.take_upstream())[-1][0] == "GOAWAY"
    told = [(kind, stream) for kind, _, stream, _ in frames(talk.take_client()) if kind in ("HEADERS", "GOAWAY")]
    assert told[-1] == ("GOAWAY", 0)
    assert ("HEADERS", 1) in told or words == "window"


def test_more_data_than_the_windows_allow() -> None:
    """Beyond the stream's window the stream ends, beyond the connection's the connection."""
    talk = talk_of(headers(1, post(), end=False), frame(SETTINGS, 0, 0))
    talk.client_sends(frame(DATA, 0, 1, b"x" * 16384) * 4)
    assert ended_with(talk) == FLOW_CONTROL_ERROR


def test_memory_is_bounded_while_a_verdict_is_awaited() -> None:
    """A client that goes on sending while its request is held is refused, within twice the limit."""
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, opening() + headers(1, post(), end=False))
    while not isinstance(inspector.next_event(), Request):
        pass
    tracemalloc.start()
    try:
        for _ in range(AHEAD_LIMIT // 65536):
            inspector.receive_data(Side.CLIENT, bytes(bytearray(65536)))
        with pytest.raises(LimitExceeded):
            inspector.receive_data(Side.CLIENT, bytes(bytearray(65536)))
    finally:
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < 2 * AHEAD_LIMIT


@settings(max_examples=100, deadline=None)
@given(
    parts=st.lists(
        st.tuples(
            st.booleans(),
            st.builds(frame, st.integers(0, 11), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40))
            | st.binary(max_size=40)
            | st.sampled_from([headers(1, GET), headers(3, post(), end=False), headers(1, OK), frame(SETTINGS, 0, 0)]),
        ),
        max_size=12,
    )
)
def test_any_frames(parts: list[tuple[bool, bytes]]) -> None:
    """Whatever frames either side sends: a ProtocolError or nothing, nothing upstream before a verdict, and an end."""
    inspector = PROTOCOL.inspector()
    allowed = False
    try:
        inspector.receive_data(Side.CLIENT, opening())
        for from_client, data in parts:
            inspector.receive_data(Side.CLIENT if from_client else Side.SERVER, data)
            while (event := inspector.next_event()) is not None:
                if isinstance(event, Request):
                    if event.fault:
                        assert not inspector.refuse(event, DENIAL).close
                    else:
                        inspector.allow(event, masked=False)
                        allowed = True
                assert allowed or not (isinstance(event, Forward) and event.side is Side.CLIENT)
    except ProtocolError:
        assert inspector.refuse(None, DENIAL).close
        assert inspector.next_event() is None
