"""HTTP/2: streams judged one by one, between a client and a server of the h2 library, which checks every frame."""

from __future__ import annotations

import json

import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.flow import Side
from enforcer.protocols.base import Request, Text
from enforcer.protocols.http2 import PROTOCOL
from enforcer.protocols.http2.connection import AHEAD, ALL_AHEAD
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation
from tests.protocols.wire_http2 import (
    DATA,
    GET,
    OK,
    PADDED,
    SETTINGS,
    Between,
    frame,
    frames,
    get,
    headers,
    opening,
    post,
)


def hide(data: bytes) -> bytes:
    return data.replace(b"4111111111111111", b"************1111")


def masked(text: Text) -> bytes:
    return hide(text.data)


def denies(word: str):  # type: ignore[no-untyped-def]
    def decide(request: Request) -> Denial | None:
        return DENIAL if word in request.text else None

    return decide


def test_streams_are_requests() -> None:
    """Three streams at once are three exchanges with their own facts, answers and outcomes."""
    both = Between()
    for number, path in ((1, b"/a"), (3, b"/b?x=1"), (5, b"/c")):
        both.client.send_headers(number, get(path, (b"x-note", b"n")), end_stream=True)
    asked = both.to_server(h2.events.RequestReceived)
    assert [dict(event.headers)[b":path"] for event in asked] == [b"/a", b"/b?x=1", b"/c"]
    assert dict(asked[0].headers)[b"x-note"] == b"n"
    for event in reversed(asked):
        both.server.send_headers(event.stream_id, OK)
        both.server.send_data(event.stream_id, b"hello", end_stream=True)
    answers = both.to_client(h2.events.ResponseReceived)
    assert [event.stream_id for event in answers] == [5, 3, 1]
    assert len(both.to_client(h2.events.StreamEnded)) == 3
    request = both.talk.expect_request("GET", "GET /a", host="a.example", method="GET", path="/a", version="2")
    assert (b"x-note", b"n") in request.fields
    both.talk.expect_request("GET", "GET /b?x=1", path="/b")
    assert [outcome.status for outcome in both.talk.outcomes] == ["200"] * 3


def test_nothing_goes_up_before_the_first_verdict() -> None:
    """Where all is denied the server does not even get a preface; each stream has its 403, and the connection lives."""
    both = Between(decide=lambda _request: DENIAL)
    both.client.send_headers(1, get(), end_stream=True)
    both.client.send_headers(3, post(), end_stream=False)
    answers = both.to_client(h2.events.ResponseReceived)
    assert [dict(event.headers)[b":status"] for event in answers] == [b"403", b"403"]
    assert dict(answers[0].headers)[b"content-type"] == b"application/problem+json"
    problem = json.loads(both.body("client", 1))
    assert (problem["rule"], problem["region"], problem["session"]) == ("everything-else", "US", "0a1b")
    # RFC 9113 section 8.1: whoever still sends a body is told that it is not wanted.
    assert [event.error_code for event in both.to_client(h2.events.StreamReset)] == [0]
    assert both.talk.take_upstream() == b""
    assert not both.talk.closed


def test_a_denied_stream_leaves_the_others() -> None:
    """Between two allowed streams one is refused; the server never hears of it."""
    both = Between(decide=denies("secret"))
    for number, path in ((1, b"/a"), (3, b"/secret"), (5, b"/b")):
        both.client.send_headers(number, get(path), end_stream=True)
    asked = both.to_server(h2.events.RequestReceived)
    assert [dict(event.headers)[b":path"] for event in asked] == [b"/a", b"/b"]
    for event in asked:
        both.server.send_headers(event.stream_id, OK, end_stream=True)
    answers = {event.stream_id: dict(event.headers)[b":status"] for event in both.to_client(h2.events.ResponseReceived)}
    assert answers == {1: b"200", 3: b"403", 5: b"200"}


def test_an_answer_to_head_has_no_body() -> None:
    """Neither the refusal of a HEAD request nor its answer; a length without a body is no fault there."""
    both = Between(decide=denies("secret"))
    head = [(b":method", b"HEAD"), *GET[1:]]
    both.client.send_headers(1, [*head[:3], (b":path", b"/secret")], end_stream=True)
    both.client.send_headers(3, head, end_stream=True)
    (asked,) = both.to_server(h2.events.RequestReceived)
    both.server.send_headers(asked.stream_id, [*OK, (b"content-length", b"99")], end_stream=True)
    assert [event.stream_id for event in both.to_client(h2.events.StreamEnded)] == [1, 3]
    assert both.to_client(h2.events.DataReceived) == []


def test_bodies_interims_and_trailers_pass_both_ways() -> None:
    """A body up with trailers, 103 and an answer with trailers down."""
    both = Between()
    both.client.send_headers(1, post(b"/", (b"te", b"trailers")))
    both.client.send_data(1, b"abc", pad_length=7)
    both.client.send_headers(1, [(b"x-sum", b"9")], end_stream=True)
    assert both.body("server", 1) == b"abc"
    assert [event.headers for event in both.to_server(h2.events.TrailersReceived)] == [[(b"x-sum", b"9")]]
    both.server.send_headers(1, [(b":status", b"103"), (b"link", b"</x>")])
    both.server.send_headers(1, OK)
    both.server.send_data(1, b"hello")
    both.server.send_headers(1, [(b"grpc-status", b"0")], end_stream=True)
    (early,) = both.to_client(h2.events.InformationalResponseReceived)
    assert dict(early.headers)[b"link"] == b"</x>"
    assert both.body("client", 1) == b"hello"
    assert [event.headers for event in both.to_client(h2.events.TrailersReceived)] == [[(b"grpc-status", b"0")]]


def test_resets_pass_both_ways() -> None:
    """A client that gives up is heard by the server, and the other way round, with the code."""
    both = Between()
    both.client.send_headers(1, post())
    both.client.send_headers(3, get(), end_stream=True)
    both.exchange()
    both.client.reset_stream(1, 8)
    assert [(event.stream_id, event.error_code) for event in both.to_server(h2.events.StreamReset)] == [(1, 8)]
    both.server.reset_stream(3, 7)
    assert [(event.stream_id, event.error_code) for event in both.to_client(h2.events.StreamReset)] == [(3, 7)]
    told = [(outcome.exchange, outcome.status, outcome.failed) for outcome in both.talk.outcomes]
    assert told == [(1, "CANCEL", True), (2, "REFUSED_STREAM", True)]


def test_goaway_of_the_server() -> None:
    """Streams beyond the last are given back to be asked again; the earlier one is answered; no new ones begin."""
    both = Between()
    for number in (1, 3):
        both.client.send_headers(number, get(), end_stream=True)
    both.exchange()
    both.talk.server_sends(frame(7, 0, 0, b"\0\0\0\1" + b"\0\0\0\0"))
    (leaving,) = both.to_client(h2.events.ConnectionTerminated)
    assert (leaving.last_stream_id, leaving.error_code) == (3, 0)
    both.talk.server_sends(headers(1, OK, end=True))
    told = {(outcome.exchange, outcome.status) for outcome in both.talk.outcomes}
    assert told == {(1, "200"), (2, "REFUSED_STREAM")}
    both.talk.client_sends(headers(5, GET))
    reset = [one for one in frames(both.talk.take_client()) if one[2] == 5]
    assert reset == [("RST_STREAM", 0, 5, b"\0\0\0\7")]


def test_goaway_of_the_client() -> None:
    """The server hears that no more will come, and what is open is answered."""
    both = Between()
    both.client.send_headers(1, get(), end_stream=True)
    both.exchange()
    both.client.close_connection()
    assert len(both.to_server(h2.events.ConnectionTerminated)) == 1


@pytest.mark.parametrize("started", [False, True])
def test_a_server_that_ends_in_mid_answer(started: bool) -> None:
    """Without an answer the client gets 502; in the middle of one it sees that it is cut."""
    both = Between()
    both.client.send_headers(1, get(), end_stream=True)
    both.exchange()
    if started:
        both.server.send_headers(1, OK)
        both.server.send_data(1, b"half")
        both.exchange()
    both.talk.server_closes()
    kinds = [(kind, stream) for kind, _, stream, _ in frames(both.talk.take_client())]
    assert kinds == ([("RST_STREAM", 1), ("GOAWAY", 0)] if started else [("HEADERS", 1), ("DATA", 1), ("GOAWAY", 0)])
    assert [outcome.failed for outcome in both.talk.outcomes] == [True]


def test_a_server_that_cannot_be_reached() -> None:
    """502 on the stream; the next request begins the connection to the server anew, from its preface on."""
    talk = Conversation(PROTOCOL.inspector())
    inspector = talk.inspector
    inspector.receive_data(Side.CLIENT, opening() + headers(1, GET) + headers(3, GET))
    first = inspector.next_event()
    while not isinstance(first, Request):
        first = inspector.next_event()
    upstream = inspector.allow(first, masked=False)
    assert upstream.startswith(b"PRI * HTTP/2.0")
    unreachable = Denial(**{**{name: getattr(DENIAL, name) for name in DENIAL.__slots__}, "unreachable": True})
    refusal = inspector.refuse(first, unreachable)
    assert not refusal.close
    answer = [one for one in frames(refusal.to_client) if one[2] == 1]
    assert [kind for kind, *_ in answer] == ["HEADERS", "DATA"]
    assert json.loads(answer[1][3])["status"] == 502
    second = inspector.next_event()
    while not isinstance(second, Request):
        assert second is not None
        second = inspector.next_event()
    again = inspector.allow(second, masked=False)
    assert again.startswith(b"PRI * HTTP/2.0")
    assert [(kind, stream) for kind, _, stream, _ in frames(again)] == [("SETTINGS", 0), ("HEADERS", 1)]


# --- windows


def test_a_slow_reader_holds_up_its_own_stream_only() -> None:
    """Two answers; the client takes nothing of the first. The server may send of it what the client's window allows and
    no more, and all of the second; nothing piles up between."""
    both = Between()
    for number in (1, 3):
        both.client.send_headers(number, get(), end_stream=True)
    both.exchange()
    for number in (1, 3):
        both.server.send_headers(number, OK)
    both.client.increment_flow_control_window(1 << 20)  # the connection's; the streams have 65,535 each
    both.exchange()
    assert both.server.local_flow_control_window(1) == 65535
    sent = 0
    while room := min(both.server.local_flow_control_window(1), 16384):
        both.server.send_data(1, b"a" * room)
        sent += room
        both.exchange()
    assert sent == 65535
    got = b""
    for number in range(20):
        both.server.send_data(3, b"b" * 16384, end_stream=number == 19)
        for event in both.to_client(h2.events.DataReceived):
            if event.stream_id == 3:
                got += event.data
                if number < 19:
                    both.client.increment_flow_control_window(event.flow_controlled_length, 3)
    assert len(got) == 20 * 16384
    both.client.increment_flow_control_window(1000, 1)
    both.exchange()
    # A grant is passed on once it is worth a frame: here at once, for the server has nothing left.
    assert both.server.local_flow_control_window(1) == 1000


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(0, 40_000), min_size=1, max_size=8), window=st.sampled_from([0, 1, 100, 65535, 1 << 20])
)
def test_any_body_arrives_through_any_window(sizes: list[int], window: int) -> None:
    """Bodies both ways, whatever the client's first window is and grows by: every byte arrives, in order."""
    both = Between(client_window=window)
    both.exchange()
    both.client.send_headers(1, post())
    body = b"".join(bytes((at % 251,)) * size for at, size in enumerate(sizes))
    left, up = body, b""
    while left:
        room = min(both.client.local_flow_control_window(1), 16384, len(left))
        assert room, "the client may send nothing, though the server has taken all"
        both.client.send_data(1, left[:room])
        left = left[room:]
        up += both.body("server", 1)
    both.client.end_stream(1)
    both.exchange()
    assert up == body
    both.server.send_headers(1, OK)
    left, down = body, b""
    while left:
        room = min(both.server.local_flow_control_window(1), 16384, len(left))
        if room:
            both.server.send_data(1, left[:room])
            left = left[room:]
        got = both.body("client", 1)
        down += got
        assert got or room < 5000
        if room < 5000:
            both.client.increment_flow_control_window(5000, 1)
            both.exchange()
    both.server.end_stream(1)
    down += both.body("client", 1)
    assert down == body
    assert [outcome.status for outcome in both.talk.outcomes] == ["200"]


def test_a_first_window_that_shrinks_in_between() -> None:
    """The server announces less than it had: what was under way is no fault of the client's, and waits for room here,
    where there is some besides."""
    both = Between()
    both.client.send_headers(1, post())
    both.exchange()
    both.server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1000})
    pending = both.server.data_to_send()
    both.client.send_data(1, b"x" * 16384)
    both.talk.server_sends(pending)
    both.exchange()
    assert not both.talk.closed
    assert both.client.local_flow_control_window(1) == 1000 - 16384 + AHEAD


def sent(both: Between, stream: int) -> int:
    """Bytes that the client gets rid of on a stream of its own while the server hears nothing."""
    size = 0
    while both.client.local_flow_control_window(stream):
        piece = bytes(min(16384, both.client.local_flow_control_window(stream)))
        both.client.send_data(stream, piece)
        both.talk.client_sends(both.client.data_to_send())
        both.client.receive_data(both.talk.take_client())
        size += len(piece)
    return size


def test_a_client_may_be_ahead_of_its_server() -> None:
    """By so much on one stream, and on all together: what waits here is bounded."""
    both = Between()
    streams = range(1, 17, 2)
    for stream in streams:
        both.client.send_headers(stream, post())
    both.exchange()
    first, sizes = 65_535, [sent(both, stream) for stream in streams]
    assert first + AHEAD // 2 < sizes[0] <= first + AHEAD
    assert first + ALL_AHEAD // 2 < sum(sizes) <= first + ALL_AHEAD
    assert not both.talk.closed


def test_no_window_grows_too_large() -> None:
    """A server takes as much as there are numbers for: the client may be ahead of that by nothing."""
    both = Between()
    both.client.send_headers(1, post())
    both.exchange()
    both.server.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1})
    both.server.increment_flow_control_window(2**31 - 1 - 65_535)
    both.exchange()
    for _ in range(100):
        both.client.send_data(1, bytes(16384))
        both.exchange()
    assert both.client.local_flow_control_window(1) > 2**30
    assert not both.talk.closed


def test_padding_counts_and_is_given_back() -> None:
    """Padding takes window from its sender that the other side never sees; it gets that back."""
    talk = Conversation(PROTOCOL.inspector(), quiet=True)
    talk.client_sends(opening() + headers(1, post(), end=False))
    for _ in range(1000):  # 256 bytes each, of which one is content: far more than the windows of 65,535
        talk.client_sends(frame(DATA, PADDED, 1, bytes((254,)) + b"x" + bytes(254)))
        if talk.closed:
            break
        talk.server_sends(b"")
    assert not talk.closed, talk._errors
    granted = sum(
        int.from_bytes(payload, "big")
        for kind, _, number, payload in frames(talk.take_client())
        if (kind, number) == ("WINDOW_UPDATE", 1)
    )
    assert granted >= 1000 * 256 - 65535


# --- however it is cut


def conversation(step: int) -> tuple[list[object], list[object]]:
    """One dialogue with everything in it, its bytes cut into reads of `step`."""
    both = Between(decide=denies("secret"), mask_text=masked, step=step)
    both.client.send_headers(1, post(b"/a", (b"content-type", b"text/plain")))
    both.client.send_data(1, b"body", end_stream=True, pad_length=3)
    both.client.send_headers(3, get(b"/secret"), end_stream=True)
    both.client.send_headers(5, get(b"/b"), end_stream=True)
    both.client.ping(b"12345678")
    both.exchange()
    both.server.send_headers(3, [(b":status", b"103"), (b"link", b"</x>")])
    both.server.send_headers(3, OK)
    both.server.send_headers(1, OK)
    both.server.send_data(3, b"4111111111111111" * 3)
    both.server.send_data(1, b"4111111111111111", end_stream=True)
    both.server.send_headers(3, [(b"x-t", b"t")], end_stream=True)
    both.exchange()
    told: list[object] = [(one.exchange, one.text, one.facts) for one in both.talk.requests]
    texts: dict[int, bytes] = {}
    for one in both.talk.texts:
        texts[one.exchange] = texts.get(one.exchange, b"") + one.data
    told += [*sorted(texts.items()), *sorted((one.exchange, one.status) for one in both.talk.outcomes)]
    client = [type(event).__name__ for event in both.to_client(h2.events.Event)]
    return told, sorted(client)


@settings(max_examples=25, deadline=None)
@given(step=st.integers(1, 400))
def test_the_cut_does_not_matter(step: int) -> None:
    """Whatever the reads, the same requests, texts, outcomes, and the same events at the client."""
    assert conversation(step) == conversation(1 << 20)


def test_settings_are_acknowledged_and_pings_answered() -> None:
    """Each side gets its own acknowledgement; neither hears the other's."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(opening() + frame(6, 0, 0, b"12345678"))
        kinds = [(kind, flags) for kind, flags, _, _ in frames(talk.take_client())]
        assert kinds == [("SETTINGS", 0), ("SETTINGS", 1), ("PING", 1)]
        talk.client_sends(headers(1, GET))
        talk.requests.clear()
        sent = frames(talk.take_upstream())
        assert sent[0][0] == "SETTINGS"
        assert b"\0\2\0\0\0\0" in sent[0][3]  # ENABLE_PUSH = 0
        talk.server_sends(frame(SETTINGS, 0, 0))
        assert frames(talk.take_upstream()) == [("SETTINGS", 1, 0, b"")]
