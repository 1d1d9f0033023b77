"""HTTP/2: heads that no reader may guess at, and bodies that are not what they say."""

from __future__ import annotations

import h2.events
import h2.exceptions
import h2.settings
import pytest

from enforcer.protocols.http2 import PROTOCOL
from tests.conversation import DENIAL, Conversation
from tests.protocols.wire_http2 import (
    DATA,
    END_STREAM,
    GET,
    Between,
    Fields,
    frame,
    frames,
    get,
    headers,
    opening,
    post,
)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ([*GET, (b"X-Upper", b"a")], "upper case"),
        ([*GET, (b"connection", b"close")], "HTTP/1 connections"),
        ([*GET, (b"transfer-encoding", b"chunked")], "HTTP/1 connections"),
        ([*GET, (b"te", b"gzip")], "TE"),
        ([*GET, (b"x", b"a\r\nb: c")], "control character"),
        ([*GET, (b"x", b" a")], "blank"),
        ([*GET, (b"a b", b"a")], "no token"),
        ([*GET, (b"", b"a")], "no token"),
        ([*GET, (b":path", b"/")], "twice"),
        ([*GET, (b":new", b"/")], "not known"),
        ([GET[0], (b"x", b"a"), *GET[1:]], "after others"),
        ([*GET[:3], (b":path", b"")], "target"),
        ([*GET[:3], (b":path", b"*")], "target"),
        ([*GET[:3], (b":path", b"x")], "target"),
        ([*GET[:3], (b":path", b"/a#b")], "target"),
        ([*GET[:3], (b":path", b"/a b")], "target"),
        ([*GET[:2], GET[3]], "no :authority"),
        ([*GET[:2], (b":authority", b"u@a.example"), GET[3]], "host name"),
        ([*GET[:2], (b":authority", b""), GET[3]], "host name"),
        ([*GET, (b"host", b"b.example")], "another host"),
        ([*GET[:2], GET[3], (b"host", b"a"), (b"host", b"b")], "another host"),
        ([GET[0], (b":scheme", b"ftp"), *GET[2:]], "scheme"),
        ([*GET[1:]], "method"),
        ([(b":method", b"G T"), *GET[1:]], "method"),
        ([*GET, (b"content-length", b"5")], "none follows"),
        ([*GET, (b"content-length", b"0"), (b"content-length", b"0")], "more than one"),
        ([*GET, (b"content-length", b"+0")], "not a number"),
        ([(b":method", b"CONNECT"), (b":authority", b"a:443")], "CONNECT"),
        ([(b":method", b"CONNECT"), (b":protocol", b"websocket"), *GET[1:]], "CONNECT"),
        ([*GET, *[(b"x%d" % number, b"") for number in range(129)]], "fields"),
    ],
)
def test_malformed_requests_are_refused_on_record(fields: Fields, words: str) -> None:
    """Each is a request with a fault, which the session refuses whatever policy says; the next stream is untouched."""
    with Conversation(PROTOCOL.inspector(), decide=lambda one: DENIAL if one.fault else None) as talk:
        talk.client_sends(opening() + headers(1, fields) + headers(3, GET))
        faulty, sound = talk.requests
        assert words in faulty.fault
        assert not sound.fault
        answer = next(one for one in frames(talk.take_client()) if one[2] == 1)
        other = {"CONNECT": b"\x08\x03501", "fields": b"\x08\x03431"}
        status = other.get(words, b"\x8c")  # RFC 7541 appendix A: 12 is `:status 400`, 8 begins any
        assert (answer[0], answer[3][: len(status)]) == ("HEADERS", status)
        assert len([one for one in frames(talk.take_upstream()) if one[0] == "HEADERS"]) == 1
        talk.requests.clear()


def test_the_host_may_come_by_its_own_field() -> None:
    """Without :authority the Host field says whom the request is for, and is what the server gets as :authority."""
    both = Between()
    both.talk.client_sends(opening() + headers(1, [*GET[:2], GET[3], (b"host", b"A.example:80")]))
    both.talk.expect_request("GET", host="a.example")
    (asked,) = both.to_server(h2.events.RequestReceived)
    assert dict(asked.headers)[b":authority"] == b"A.example:80"


@pytest.mark.parametrize("short", [True, False])
def test_a_body_of_another_length(short: bool) -> None:
    """The server never sees the end of a body that is not as long as announced."""
    talk = Conversation(PROTOCOL.inspector(), quiet=True)
    talk.client_sends(opening() + headers(1, post(b"/", (b"content-length", b"5")), end=False))
    talk.client_sends(frame(DATA, END_STREAM, 1, b"abc" if short else b"abcdef"))
    up = frames(talk.take_upstream())
    assert [kind for kind, *_ in up] == ["SETTINGS", "HEADERS", "RST_STREAM"]
    assert [one[3] for one in frames(talk.take_client()) if one[0] == "RST_STREAM"] == [b"\0\0\0\1"]
    assert [(one.status, one.failed) for one in talk.outcomes] == [("PROTOCOL_ERROR", True)]


@pytest.mark.parametrize(
    "answer",
    [
        headers(1, [(b"content-type", b"x")], end=True),
        headers(1, [(b":status", b"101")], end=True),
        headers(1, [(b":status", b"20")], end=True),
        headers(1, [(b":status", b"200"), (b"connection", b"x")], end=True),
        headers(1, [(b":status", b"200"), (b"content-length", b"3")], end=True),
        headers(1, [(b":status", b"100")], end=True),
        frame(DATA, 0, 1, b"early"),
    ],
)
def test_malformed_answers_are_502(answer: bytes) -> None:
    """Nothing of them reaches the client, and the server's stream is ended with PROTOCOL_ERROR."""
    both = Between()
    both.client.send_headers(1, get(), end_stream=True)
    both.exchange()
    both.talk.server_sends(answer)
    assert [one[3] for one in frames(both.talk.take_upstream()) if one[0] == "RST_STREAM"] == [b"\0\0\0\1"]
    (got,) = both.to_client(h2.events.ResponseReceived)
    assert dict(got.headers)[b":status"] == b"502"
