"""gRPC: messages as Protocol Buffers, whose texts are hidden without their schema and without changing a length."""

from __future__ import annotations

import gzip
from contextlib import suppress

import h2.events
import h2.exceptions
import h2.settings
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.http2.grpc import MESSAGE_LIMIT, UNFINISHED_LIMIT, stretches_of, write
from tests.conversation import DENIAL
from tests.protocols.wire_http2 import Between, Fields, post

CARD, HIDDEN = b"4111111111111111", b"************1111"
GRPC: Fields = [(b":status", b"200"), (b"content-type", b"application/grpc+proto")]
CALL = post(b"/shop.Orders/Get", (b"content-type", b"application/grpc"), (b"te", b"trailers"))


def varint(number: int) -> bytes:
    """Protocol Buffers' encoding of a number."""
    out = bytearray()
    while number >= 0x80:
        out.append(0x80 | number & 0x7F)
        number >>= 7
    return bytes((*out, number))


def text_field(number: int, text: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(text)) + text


def framed(message: bytes, compressed: int = 0) -> bytes:
    return bytes((compressed,)) + len(message).to_bytes(4, "big") + message


def hide(data: bytes) -> bytes:
    return data.replace(CARD, HIDDEN).replace(b"ada@example.org", b"***@example.org")


def hidden(message: bytes) -> bytes | None:
    stretches = stretches_of(message)
    return write(message, stretches, hide(b"\0".join(one.text for one in stretches)))


@pytest.mark.parametrize(
    "message",
    [
        text_field(1, CARD),
        text_field(1, b"card " + CARD + b" of ada@example.org") + varint(2 << 3) + varint(7),
        text_field(9, text_field(1, text_field(3, CARD))),
        text_field(1, b"\xff\xfe" + CARD + b"\0binary\0" + CARD),
        text_field(1, text_field(4, b"n" * 38 + CARD)),
        b"\x0b" + text_field(1, CARD) + b"\x0c",
        CARD,
        b"not a message: " + CARD,
    ],
)
def test_texts_are_hidden_in_place(message: bytes) -> None:
    """Texts, bytes, messages in messages and groups, and what is no message at all: as long as before, card gone."""
    masked = hidden(message)
    assert masked is not None
    assert masked == message.replace(CARD, HIDDEN).replace(b"ada@", b"***@")


def test_numbers_are_hidden() -> None:
    """A card number that is a number becomes nought in as many bytes."""
    number = varint(int(CARD))
    stretches = stretches_of(varint(1 << 3) + number + varint(2 << 3 | 1) + int(CARD).to_bytes(8, "little"))
    assert [one.text for one in stretches] == [CARD, CARD]
    message = varint(1 << 3) + number + varint(2 << 3 | 1) + int(CARD).to_bytes(8, "little")
    masked = hidden(message)
    assert masked == b"\x08" + b"\x80" * (len(number) - 1) + b"\0" + b"\x11" + bytes(8)


@given(data=st.binary(max_size=80))
def test_any_message_keeps_its_length(data: bytes) -> None:
    """Whatever a message is, nothing to hide leaves it as it was."""
    stretches = stretches_of(data)
    assert write(data, stretches, b"\0".join(one.text for one in stretches)) == data


def test_a_value_across_what_may_be_structure_is_not_guessed_at() -> None:
    """A field that reads as a message with a text and as one text: hidden where both agree, refused where not."""
    inner = text_field(6, b"1" * 0x31)  # a field 6 of 49 bytes reads `21111...` as text
    message = text_field(1, inner)
    stretches = stretches_of(message)
    assert [one.text for one in stretches] == [b"1" * 0x31, b"2" + b"1" * 0x32]
    parts = [b"1" * 0x31, b"*" * 0x33]
    assert write(message, stretches, b"\0".join(parts)) is None
    agreed = write(message, stretches, b"\0".join([b"*" * 0x31, b"*" * 0x33]))
    assert agreed == text_field(1, text_field(6, b"*" * 0x31))


def call(between: Between, *answer: bytes, head: Fields = GRPC, status: bytes = b"0") -> None:
    """A call and its answer in the given pieces of DATA, ended by its status."""
    between.client.send_headers(1, CALL)
    between.client.send_data(1, framed(b""), end_stream=True)
    between.exchange()
    between.server.send_headers(1, head)
    between.exchange()
    for piece in answer:
        between.server.send_data(1, piece)
        between.exchange()
    with suppress(h2.exceptions.StreamClosedError):  # where the call was ended before
        between.server.send_headers(1, [(b"grpc-status", status), (b"grpc-message", b"card " + CARD)], end_stream=True)
    between.exchange()


@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_messages_are_masked_one_by_one(step: int) -> None:
    """However DATA is cut: the messages come out whole, hidden, and the status with its text hidden as well."""
    both = Between(mask_text=lambda text: hide(text.data))
    stream = framed(text_field(1, CARD)) + framed(b"") + framed(text_field(2, b"x"))
    call(both, *[stream[at : at + step] for at in range(0, len(stream), step)])
    assert both.body("client", 1) == stream.replace(CARD, HIDDEN)
    (end,) = both.to_client(h2.events.TrailersReceived)
    assert dict(end.headers) == {b"grpc-status": b"0", b"grpc-message": b"card " + HIDDEN}
    request = both.talk.expect_request("/shop.Orders/Get", grpc="shop.Orders/Get", method="POST")
    assert request.text == "POST /shop.Orders/Get"
    assert [(one.status, one.failed) for one in both.talk.outcomes] == [("0", False)]


def test_heads_do_not_wait_for_messages() -> None:
    """Who waits for the answer's head before it sends more gets it at once, though answers are masked."""
    both = Between(mask_text=lambda text: text.data)
    both.client.send_headers(1, CALL)
    both.exchange()
    both.server.send_headers(1, GRPC)
    assert len(both.to_client(h2.events.ResponseReceived)) == 1


def test_compressed_messages() -> None:
    """gzip is read and goes on uncompressed; another compression is refused as a status."""
    message = text_field(1, CARD)
    both = Between(mask_text=lambda text: hide(text.data))
    call(both, framed(gzip.compress(message), 1), head=[*GRPC, (b"grpc-encoding", b"gzip")])
    assert both.body("client", 1) == framed(message.replace(CARD, HIDDEN))
    both = Between(mask_text=lambda text: hide(text.data))
    call(both, framed(b"??", 1), head=[*GRPC, (b"grpc-encoding", b"snappy")])
    (end,) = both.to_client(h2.events.TrailersReceived)
    assert dict(end.headers)[b"grpc-status"] == b"7"


@pytest.mark.parametrize("piece", [b"\0\0\0\0\x09short", b"\0" + (MESSAGE_LIMIT + 1).to_bytes(4, "big")])
def test_messages_that_cannot_be_masked(piece: bytes) -> None:
    """Cut short, or larger than what is held: the call ends with PERMISSION_DENIED, and nothing of it got through."""
    both = Between(mask_text=lambda text: hide(text.data))
    call(both, piece)
    (end,) = both.to_client(h2.events.TrailersReceived)
    assert dict(end.headers)[b"grpc-status"] == b"7"
    assert both.to_client(h2.events.DataReceived) == []


def test_requests_are_masked_message_by_message() -> None:
    """What the client says is hidden on its way up, in a stream of messages that both sides keep open."""
    both = Between(rewrite=hide)
    both.client.send_headers(1, CALL)
    both.client.send_data(1, framed(text_field(1, CARD)))
    assert both.body("server", 1) == framed(text_field(1, HIDDEN))
    both.client.send_data(1, framed(text_field(1, b"more")), end_stream=True)
    assert both.body("server", 1) == framed(text_field(1, b"more"))
    assert len(both.to_server(h2.events.StreamEnded)) == 1


def test_refusals_are_statuses() -> None:
    """A denied call: one block with 200, PERMISSION_DENIED and the words, percent-encoded."""
    both = Between(decide=lambda _request: DENIAL)
    both.client.send_headers(1, CALL)
    (answer,) = both.to_client(h2.events.ResponseReceived)
    said = dict(answer.headers)
    assert (said[b":status"], said[b"content-type"], said[b"grpc-status"]) == (b"200", b"application/grpc", b"7")
    assert DENIAL.title.encode() in said[b"grpc-message"]
    assert DENIAL.session.encode() in said[b"grpc-message"]


def test_a_call_that_fails_at_once() -> None:
    """An answer that is nothing but its status: the message is masked as trailers are."""
    both = Between(mask_text=lambda text: hide(text.data))
    both.client.send_headers(1, CALL, end_stream=True)
    both.exchange()
    both.server.send_headers(1, [*GRPC, (b"grpc-status", b"5"), (b"grpc-message", CARD)], end_stream=True)
    (end,) = both.to_client(h2.events.TrailersReceived)
    assert dict(end.headers) == {b"grpc-status": b"5", b"grpc-message": HIDDEN}
    assert [(one.status, one.failed) for one in both.talk.outcomes] == [("5", True)]


def test_unfinished_messages_are_bounded_over_all_streams() -> None:
    """Each of many streams holds back the end of a large message: one of them is refused, and then there is room."""
    both = Between(mask_text=lambda text: text.data, step=1 << 18)
    both.client.increment_flow_control_window(1 << 30)
    both.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 1 << 24})
    start = b"\0" + MESSAGE_LIMIT.to_bytes(4, "big") + bytes(16000)
    refused = 0
    for number in range(1, 25, 2):
        both.client.send_headers(number, CALL, end_stream=True)
        both.exchange()
        both.server.send_headers(number, GRPC)
        both.server.send_data(number, start)
        for _ in range(UNFINISHED_LIMIT // 10 // 16000):
            with suppress(h2.exceptions.StreamClosedError):
                both.server.send_data(number, bytes(16000))
        ended = both.to_client(h2.events.TrailersReceived)
        refused += len(ended)
        assert all(dict(event.headers)[b"grpc-status"] == b"7" for event in ended)
    assert 1 <= refused <= 3
