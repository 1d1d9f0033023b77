"""Requests that are rewritten on their way out: heads, bodies in every framing and coding, and what is refused."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from collections.abc import Callable

import pytest

from enforcer.masking.errors import MaskError
from enforcer.masking.masker import TextMask, masker_for
from enforcer.protocols.base import Text
from enforcer.protocols.codings import Decoder
from enforcer.protocols.http1 import PROTOCOL
from enforcer.protocols.http1.asking import HOLD_LIMIT
from enforcer.verdict import MaskSpec
from tests.conversation import Conversation
from tests.fuzz.strict_http1 import Message, read_request

CARD, HIDDEN = b"4111 1111 1111 1111", b"**** **** **** 1111"
MASKER = masker_for(MaskSpec(detectors=("credit_card", "email")))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: a\r\n"


def hide(data: bytes) -> bytes:
    return MASKER.mask(data, Counter())


def talk(rewrite: Callable[[bytes], bytes] = hide, **arguments: object) -> Conversation:
    """A dialogue whose requests are masked as a session does it."""
    masks: list[TextMask] = []

    def mask(text: Text) -> bytes:
        masks.extend([] if masks else [MASKER.text(text.media)])
        return masks[0].feed(text.data, text.final, Counter())

    return Conversation(PROTOCOL.inspector(), rewrite=rewrite, **{"rewrite_text": mask, **arguments})  # type: ignore[arg-type]


def message(raw: bytes) -> Message:
    """What the server reads, by a strict reader of its own."""
    read = read_request(raw)
    assert read is not None
    assert read[1] == b""
    return read[0]


def asked(head: bytes, body: bytes, step: int = 0) -> Message:
    """What the server gets of a request with `body`, sent in pieces of `step` bytes."""
    sent = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with talk() as t:
        size = step or len(sent)
        for at in range(0, len(sent), size):
            t.client_sends(sent[at : at + size])
        t.expect_request("POST")
        return message(t.take_upstream())


def test_target_and_fields() -> None:
    """Path, query and fields are rewritten as the server reads them; whom it is for and who asks stay."""
    with talk() as t:
        t.client_sends(
            b"GET /cards/4111%201111%201111%201111/x%2Fy?to=a%40b.org&n=4111+1111+1111+1111&flag&a=%7e HTTP/1.1\r\n"
            b"Host: a\r\nAuthorization: Bearer 4111111111111111\r\nCookie: n=4111111111111111\r\n"
            b"X-Card: 4111 1111 1111 1111\r\nReferer: http://a/?c=4111%20%31111%201111%201111&x=%7e\r\n\r\n"
        )
        t.expect_request("GET")
        # However the stars are encoded, they are what the server reads.
        assert t.take_upstream().replace(b"%2A", b"*") == (
            b"GET /cards/****%20****%20****%201111/x%2Fy?to=*%40b.org&n=****+****+****+1111&flag&a=%7e HTTP/1.1\r\n"
            b"Host: a\r\nAuthorization: Bearer 4111111111111111\r\nCookie: n=4111111111111111\r\n"
            b"X-Card: **** **** **** 1111\r\nReferer: http://a/?c=****%20****%20****%201111&x=%7e\r\n\r\n"
        )


def test_what_holds_nothing_stays_as_it_is() -> None:
    """A request without anything to hide reaches the server as it would without a rule."""
    with talk() as t:
        t.client_sends(b"GET /a%2e?q=%41&x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")
        t.expect_request("GET")
        t.expect_upstream(b"GET /a%2e?q=%41&x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")


@pytest.mark.parametrize("step", [0, 1, 9])
def test_small_body_keeps_a_length(step: int) -> None:
    """A body that fits is held, so that the server gets a Content-Length that is true of what it gets."""
    got = asked(POST + b"Content-Type: text/plain\r\nContent-MD5: x\r\nX-Goog-Hash: y\r\n", b"a " + CARD, step)
    assert got.body == b"a " + HIDDEN
    assert got.head.values(b"content-length") == [b"21"]
    assert not got.head.values(b"content-md5") + got.head.values(b"x-goog-hash")


def test_nothing_goes_up_before_the_body_is_known() -> None:
    """While the body may still turn out to be unreadable, not even the head has left."""
    with talk() as t:
        t.client_sends(POST + b"Content-Type: application/json\r\nContent-Length: 12\r\n\r\n" + b'{"a": ')
        t.expect_request("POST")
        t.expect_upstream(b"")
        t.client_sends(b"12345}")
        assert message(t.take_upstream()).body == b'{"a": 12345}'


def test_large_body_becomes_chunks() -> None:
    """More than is held goes on in chunks while it comes."""
    body = b"x" * HOLD_LIMIT
    with talk(quiet=True, rewrite_text=lambda text: text.data) as t:
        t.client_sends(POST + b"Content-Length: %d\r\n\r\n" % (2 * len(body)) + body + b"x")
        t.expect_request("POST")
        first = t.take_upstream()
        assert b"\r\nTransfer-Encoding: chunked\r\n" in first
        t.client_sends(body[1:])
        got = message(first + t.take_upstream())
        assert got.complete
        assert got.body == body + body


def test_large_body_to_a_server_of_http_10() -> None:
    """A request without a Host stays HTTP/1.0, which has no chunks: a body over the limit is refused."""
    with talk(quiet=True, rewrite_text=lambda text: text.data) as t:
        t.client_sends(b"POST /x HTTP/1.0\r\nContent-Length: %d\r\n\r\n" % (2 * HOLD_LIMIT) + b"x" * (HOLD_LIMIT + 1))
        t.expect_request("POST")
        t.expect_upstream(b"")
        assert t.closed
        t.take_client()
        t._errors.clear()


@pytest.mark.parametrize("step", [0, 1])
def test_chunked_body(step: int) -> None:
    """A body in chunks is read as one text, cut anywhere."""
    sent = POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\n4111 \r\ne\r\n1111 1111 1111\r\n0\r\nX: y\r\n\r\n"
    with talk() as t:
        for at in range(0, len(sent), step or len(sent)):
            t.client_sends(sent[at : at + (step or len(sent))])
        t.expect_request("POST")
        assert message(t.take_upstream()).body == HIDDEN


def test_coded_body_is_coded_again() -> None:
    """A compressed body is decoded, masked, and compressed as it was."""
    got = asked(POST + b"Content-Encoding: gzip\r\nContent-Type: text/plain\r\n", gzip.compress(CARD))
    assert got.head.values(b"content-encoding") == [b"gzip"]
    assert Decoder(("gzip",)).feed(got.body, True) == HIDDEN


@pytest.mark.parametrize(
    ("head", "media"),
    [
        (b"Content-Type: application/json; charset=UTF-8\r\n", "application/json"),
        (b"Content-Type: application/x-www-form-urlencoded\r\n", "application/json"),
        (b"", "application/json"),
        (b"Content-Type: image/png\r\n", "image/png"),
        (b"Content-Type: Multipart/Form-Data; boundary=AbC\r\n", "multipart/form-data; boundary=AbC"),
    ],
)
def test_media(head: bytes, media: str) -> None:
    """The type is the declared one; JSON that says it is a form, as curl's does, is JSON."""
    with talk(rewrite_text=lambda text: text.data) as t:
        t.client_sends(POST + head + b"Content-Length: 4\r\n\r\n [1]")
        t.expect_request("POST")
        assert [text.media for text in t.texts] == [media]
        t.take_upstream()


@pytest.mark.parametrize(
    ("head", "body"),
    [
        (b"Content-Encoding: compress\r\n", b"abcd"),
        (b"Content-Encoding: gzip\r\n", b"abcd"),
        (b"Content-Encoding: gzip\r\n", gzip.compress(b"abcd", mtime=0)[:-1]),
        (b"Content-Type: text/plain; charset=utf-16\r\n", b"abcd"),
        (b"Content-Type: multipart/form-data\r\n", b"abcd"),
        (b"Content-Type: multipart/byteranges; boundary=x\r\n", b"abcd"),
        (b"Content-Type: a/b\r\nContent-Type: c/d\r\n", b"abcd"),
        (b"Content-Type: application/json\r\n", b"{\0\n\0"),
    ],
)
@pytest.mark.parametrize("step", [1, 1 << 20])
def test_unreadable_body_is_refused(head: bytes, body: bytes, step: int) -> None:
    """What cannot be read cannot be masked: the client gets a 403, and the server nothing at all."""
    sent = POST + head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    with talk() as t:
        for at in range(0, len(sent), step):
            t.client_sends(sent[at : at + step])
        t.expect_request("POST")
        t.expect_upstream(b"")
        answer = t.take_client()
        assert answer.startswith(b"HTTP/1.1 403 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2])["status"] == 403


def test_continue_is_answered_here() -> None:
    """A client that waits for 100 gets it from us once it may send, and the server is not asked for one."""
    with talk() as t:
        t.client_sends(POST + b"Expect: 100-continue\r\nContent-Length: 19\r\n\r\n")
        t.expect_request("POST")
        t.expect_client(b"HTTP/1.1 100 Continue\r\n\r\n")
        t.expect_upstream(b"")
        t.client_sends(CARD)
        t.expect_upstream(POST + b"Content-Length: 19\r\n\r\n" + HIDDEN)


def test_an_early_answer_does_not_end_the_exchange() -> None:
    """A server that answers before it has the body: what is still rewritten belongs to the exchange."""
    body = b" " * (HOLD_LIMIT + 1000)
    with talk(quiet=True) as t:
        t.client_sends(POST + b"Content-Length: %d\r\n\r\n" % (len(body) + 19) + body)
        t.expect_request("POST")
        t.server_sends(OK)
        t.expect_client(OK)
        t.client_sends(CARD)
        assert message(t.take_upstream()).body.endswith(HIDDEN)
        t.expect_outcome("200")
        t.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        t.expect_request("GET")
        t.take_upstream()


def test_pipelined_requests_after_a_rewritten_one() -> None:
    """The request behind a rewritten body is its own exchange."""
    with talk() as t:
        t.client_sends(POST + b"Content-Length: 19\r\n\r\n" + CARD + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        t.expect_request("POST")
        t.expect_upstream(POST + b"Content-Length: 19\r\n\r\n" + HIDDEN)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
        t.expect_request("GET", "GET /2")
        t.take_upstream()


def test_a_masker_that_gives_up() -> None:
    """A head that cannot be rewritten stops the request: the error is the session's to tell."""

    def fail(data: bytes) -> bytes:
        raise MaskError("no")

    with pytest.raises(MaskError), talk(rewrite=fail) as t:
        t.client_sends(b"GET /x HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n")
