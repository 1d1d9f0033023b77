"""Masking over HTTP/1: what is asked of the server, how the rewritten answer is framed, and what is refused instead."""

from __future__ import annotations

import json

import pytest

from enforcer.flow import Side
from enforcer.protocols.base import Text
from enforcer.protocols.codings import Decoder, Encoder
from enforcer.protocols.http1 import PROTOCOL
from tests.conversation import DENIAL, Conversation
from tests.fuzz.strict_http1 import read_response

GET = b"GET /a?b=c HTTP/1.1\r\nHost: Example.EU.:8080\r\nAccept: */*\r\n\r\n"
GET_REBUILT = b"GET /a?b=c HTTP/1.1\r\nHost: Example.EU.:8080\r\nAccept: */*\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"


def talk(**arguments: object) -> Conversation:
    return Conversation(PROTOCOL.inspector(), **arguments)  # type: ignore[arg-type]


def star(text: Text) -> bytes:
    """A mask that keeps the length: every digit becomes a star."""
    return bytes(ord("*") if chr(byte).isdigit() else byte for byte in text.data)


def head_and_body(message: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = message.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


def masked_exchange(answer: bytes, version: bytes = b"1.1") -> Conversation:
    t = talk(mask_text=star)
    t.client_sends(
        b"GET / HTTP/"
        + version
        + b"\r\nHost: a\r\nAccept-Encoding: gzip\r\nRange: bytes=0-5\r\nIf-Range: x\r\nX: y\r\n\r\n"
    )
    t.expect_request("GET")
    t.take_upstream()
    t.server_sends(answer)
    return t


def test_masked_request_asks_for_a_readable_answer() -> None:
    """With a mask ahead, no coding is asked for but those that are read, and no ranges."""
    with talk(mask_text=star) as t:
        t.client_sends(
            b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip, compress;q=0.5\r\nRange: bytes=0-5\r\n"
            b"If-Range: x\r\nX: y\r\n\r\n"
        )
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\nAccept-Encoding: gzip\r\n\r\n")


def test_unmasked_request_keeps_its_negotiation() -> None:
    """Without a mask, Accept-Encoding and Range pass."""
    with talk() as t:
        t.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nRange: bytes=0-5\r\n\r\n")
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: gzip\r\nRange: bytes=0-5\r\n\r\n")


def test_masked_answer_in_one_read() -> None:
    """A small answer is one Text, keeps a (corrected) Content-Length, and loses what described its old bytes."""
    with talk(mask_text=lambda _: b"masked!") as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.take_upstream()
        t.server_sends(
            b'HTTP/1.1 200 OK\r\nContent-Type: Text/JSON; charset="UTF-8"\r\nETag: "1"\r\nAccept-Ranges: bytes\r\n'
            b"Digest: x\r\nContent-MD5: y\r\nx-amz-checksum-sha256: z\r\nContent-Length: 4\r\n\r\n1234"
        )
        t.expect_client(
            b'HTTP/1.1 200 OK\r\nContent-Type: Text/JSON; charset="UTF-8"\r\nContent-Length: 7\r\n\r\nmasked!'
        )
        t.expect_outcome("200")
        assert [(text.media, text.data, text.final) for text in t.texts] == [("text/json", b"1234", True)]


@pytest.mark.parametrize(
    "field", [b"X-Amz-Checksum-CRC32", b"x-amz-checksum-sha256", b"x-goog-hash", b"x-ms-content-crc64"]
)
def test_masked_object_loses_its_stores_checksum(field: bytes) -> None:
    """Clients of object stores compare it with what they got, and throw a masked object away."""
    with masked_exchange(b"HTTP/1.1 200 OK\r\n" + field + b": rScjqw==\r\nContent-Length: 4\r\n\r\n1234") as t:
        t.expect_client(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n****")
        t.expect_outcome("200")


def test_masked_answer_in_pieces_is_chunked() -> None:
    """An answer that is not in hand as a whole is sent in chunks, since its length may change."""
    with masked_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc12") as t:
        t.expect_client(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc**\r\n")
        t.server_sends(b"345de")
        t.expect_client(b"5\r\n***de\r\n0\r\n\r\n")
        t.expect_outcome("200")


def test_masked_answer_held_back_entirely() -> None:
    """While the masker holds everything back nothing is sent, and at the end the whole length is known after all."""
    held: list[bytes] = []

    def hold(text: Text) -> bytes:
        held.append(text.data)
        return b"".join(held) if text.final else b""

    with talk(mask_text=hold) as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.take_upstream()
        t.server_sends(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\n")
        t.expect_client(b"")
        t.server_sends(b"0\r\n\r\n")
        t.expect_client(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcde")
        t.expect_outcome("200")


def test_masked_answer_until_close() -> None:
    """An answer ended by the server's close is masked to its end and chunked for the client."""
    with masked_exchange(b"HTTP/1.1 200 OK\r\n\r\nabcd1") as t:
        t.expect_client(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nabcd*\r\n")
        t.server_closes()
        t.expect_client(b"0\r\n\r\n")
        t.expect_outcome("200")


def test_masked_answer_for_http_10() -> None:
    """An HTTP/1.0 client gets a masked answer without chunks, ended by the close."""
    with masked_exchange(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nabcd1", b"1.0") as t:
        t.expect_client(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabcd*")
        t.server_sends(b"234")
        t.expect_client(b"***")
        t.expect_outcome("200")


def test_masked_answer_without_a_body() -> None:
    """304 and empty answers have nothing to mask and pass."""
    with masked_exchange(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n') as t:
        t.expect_client(b'HTTP/1.1 304 Not Modified\r\nETag: "1"\r\n\r\n')
        t.expect_outcome("304")


@pytest.mark.parametrize(
    ("status", "fields", "body"),
    [
        (b"200 OK", b"Content-Encoding: gzip\r\n", b"\x1f\x8b\x08\x00"),
        (b"200 OK", b"Content-Encoding: identity\r\nContent-Encoding: br\r\n", b"abcd"),
        (b"206 Partial Content", b"Content-Range: bytes 0-3/9\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: multipart/byteranges; boundary=x\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: text/plain; charset=utf-16\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: text/plain; charset=UTF-7\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: text/plain; charset=shift_jis\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: text/plain\r\nContent-Type: text/html; charset=utf-8\r\n", b"abcd"),
        (b"200 OK", b"Content-Type: application/json\r\n", b"{\0\n\0"),
        (b"200 OK", b"Content-Type: image/png\r\n", b"\xff\xfe1\0"),
    ],
)
def test_unmaskable_answer_is_refused(status: bytes, fields: bytes, body: bytes) -> None:
    """What cannot be read cannot be masked: a refusal takes its place and not a byte of it passes."""
    answer = b"HTTP/1.1 " + status + b"\r\n" + fields + b"Content-Length: 4\r\n\r\n" + body
    with masked_exchange(answer) as t:
        lines, told = head_and_body(t.take_client())
        assert lines[0] == b"HTTP/1.1 403 Forbidden"
        assert b"Connection: close" in lines
        assert json.loads(told)["status"] == 403
        assert t.closed
        t.server_sends(b"more of it")


def test_masker_gives_up_on_the_last_piece() -> None:
    """A masker that fails before anything was sent still leaves room for a refusal."""
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
    request = inspector.next_event()
    inspector.allow(request, masked=True)  # type: ignore[arg-type]
    inspector.receive_data(Side.SERVER, OK)
    assert isinstance(inspector.next_event(), Text)
    refusal = inspector.refuse(request, DENIAL)  # type: ignore[arg-type]
    assert refusal.to_client.startswith(b"HTTP/1.1 403 ")
    assert refusal.close
    assert inspector.next_event() is None


def in_stars(answer: bytes, step: int) -> Conversation:
    """An answer in pieces of `step` bytes, masked."""
    t = talk(mask_text=star)
    t.client_sends(GET)
    t.expect_request("GET")
    t.take_upstream()
    for at in range(0, len(answer), step):
        t.server_sends(answer[at : at + step])
    return t


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("framing", ["length", "chunks", "close"])
@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, br"])
def test_coded_answer_is_decoded_masked_and_coded_again(coding: str, framing: str, step: int) -> None:
    """Whatever its coding and framing, the client gets the answer masked, in the coding that it is said to be in."""
    codings = tuple(coding.split(", "))
    body = Encoder(codings).feed(b"card 4111, " * 50, True)
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Encoding: {coding}\r\n".encode()
    if framing == "length":
        answer = head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    elif framing == "chunks":
        answer = head + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    else:
        answer = head + b"\r\n" + body
    with in_stars(answer, step) as t:
        if framing == "close":
            t.server_closes()
        read = read_response(t.take_client(), "GET", ended=True)
        assert read is not None
        assert read[0].complete
        assert read[0].head.values(b"content-encoding") == [coding.encode()]
        assert Decoder(codings).feed(read[0].body, True) == b"card ****, " * 50
        t.expect_outcome("200")


def test_coded_answer_that_breaks_off_in_the_middle() -> None:
    """Where part of it has gone, a damaged answer ends the connection: the client must not take it for whole."""
    body = bytearray(Encoder(("gzip",)).feed(b"x" * 5000 + bytes(range(256)) * 40, True))
    body[-6] ^= 1  # its checksum
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    with in_stars(head + body, 64) as t:
        assert t.closed
        got = t.take_client()
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")
        assert not got.endswith(b"0\r\n\r\n")


def test_empty_coded_answer() -> None:
    """No bytes are no bytes, whatever they are coded in."""
    with in_stars(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 1) as t:
        t.expect_client(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n")
        t.expect_outcome("200")
