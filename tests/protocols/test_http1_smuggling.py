"""Request smuggling and parser differentials, as a table: each case is refused, or reaches the server as one message.

The cases are the published ones: CL.TE, TE.CL, TE.TE and 0.CL (PortSwigger), bare LF and CR, folding, blanks before the
colon, chunk extensions and sizes, several Hosts, userinfo, NUL and encoded dots in hosts, RFC 9112 sections 2 to 7.
"""

from __future__ import annotations

import pytest

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.http1 import PROTOCOL
from tests.conversation import Conversation

G = b"GET / HTTP/1.1\r\n"
P = b"POST / HTTP/1.1\r\n"
H = b"Host: a\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EVIL = b"GET /evil HTTP/1.1\r\nHost: a\r\n\r\n"

REFUSED = {
    # framing
    "CL and TE": P + H + b"Content-Length: 4\r\n" + CHUNKED + b"\r\n0\r\n\r\n" + EVIL,
    "TE and CL": P + H + CHUNKED + b"Content-Length: 4\r\n\r\n0\r\n\r\n" + EVIL,
    "two CL, equal": P + H + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "two CL, different": P + H + b"Content-Length: 3\r\nContent-Length: 0\r\n\r\nabc",
    "CL list": P + H + b"Content-Length: 3, 3\r\n\r\nabc",
    "CL sign": P + H + b"Content-Length: +3\r\n\r\nabc",
    "CL negative": P + H + b"Content-Length: -1\r\n\r\nabc",
    "CL hex": P + H + b"Content-Length: 0x3\r\n\r\nabc",
    "CL empty": P + H + b"Content-Length:\r\n\r\nabc",
    "CL inner blank": P + H + b"Content-Length: 1 2\r\n\r\nabc",
    "CL overflow": P + H + b"Content-Length: 18446744073709551617\r\n\r\nabc",
    "TE other": P + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE identity": P + H + b"Transfer-Encoding: identity\r\n\r\n",
    "TE list": P + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "TE chunked first": P + H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "TE twice": P + H + CHUNKED + CHUNKED + b"\r\n0\r\n\r\n",
    "TE twice, second other": P + H + CHUNKED + b"Transfer-Encoding: cow\r\n\r\n0\r\n\r\n",
    "TE quoted": P + H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "TE vertical tab": P + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE empty": P + H + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "TE blank before colon": P + H + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "TE folded": P + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": b"POST / HTTP/1.0\r\n" + H + CHUNKED + b"\r\n0\r\n\r\n",
    "CL listed in Connection": P + H + b"Connection: content-length\r\nContent-Length: 3\r\n\r\nabc",
    "TE listed in Connection": P + H + b"Connection: transfer-encoding\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "Host listed in Connection": G + H + b"Connection: close, Host\r\n\r\n",
    # line ends and characters
    "bare LF, all": b"GET / HTTP/1.1\nHost: a\n\n",
    "bare LF, one field": G + b"Host: a\nX: y\r\n\r\n",
    "bare LF, last": G + H + b"\n" + EVIL,
    "bare CR": G + b"Host: a\rX: y\r\n\r\n",
    "CR at the end": G + H + b"\rX",
    "folded field": G + H + b"X: a\r\n b\r\n\r\n",
    "blank before the first field": G + b" " + H + b"\r\n",
    "blank before colon": G + b"Host : a\r\n\r\n",
    "tab before colon": G + b"Host\t: a\r\n\r\n",
    "no colon": G + H + b"X\r\n\r\n",
    "empty name": G + H + b": y\r\n\r\n",
    "NUL in value": G + H + b"X: a\0b\r\n\r\n",
    "NUL in name": G + H + b"X\0: a\r\n\r\n",
    "control in value": G + H + b"X: a\x01b\r\n\r\n",
    "DEL in value": G + H + b"X: a\x7fb\r\n\r\n",
    "non-ASCII name": G + H + b"X\xe9: a\r\n\r\n",
    # request line
    "HTTP/0.9": b"GET /\r\n",
    "HTTP/0.9 by name": b"GET / HTTP/0.9\r\n" + H + b"\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + H + b"\r\n",
    "HTTP/2.0": b"GET / HTTP/2.0\r\n" + H + b"\r\n",
    "HTTP/11.1": b"GET / HTTP/11.1\r\n" + H + b"\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "lower-case version": b"GET / http/1.1\r\n" + H + b"\r\n",
    "blank after version": b"GET / HTTP/1.1 \r\n" + H + b"\r\n",
    "tab after method": b"GET\t/ HTTP/1.1\r\n" + H + b"\r\n",
    "unknown method": b"FROB / HTTP/1.1\r\n" + H + b"\r\n",
    "RTSP method": b"DESCRIBE / RTSP/1.0\r\n" + H + b"\r\n",
    "CONNECT to a path": b"CONNECT /b HTTP/1.1\r\nHost: b:443\r\n\r\n",
    "CONNECT without a port": b"CONNECT b HTTP/1.1\r\nHost: b\r\n\r\n",
    "CONNECT to port 0": b"CONNECT b:0 HTTP/1.1\r\nHost: b:0\r\n\r\n",
    "CONNECT, other host": b"CONNECT b:443 HTTP/1.1\r\nHost: c:443\r\n\r\n",
    "CONNECT, other port": b"CONNECT b:443 HTTP/1.1\r\nHost: b:80\r\n\r\n",
    "CONNECT, userinfo": b"CONNECT a@b:443 HTTP/1.1\r\nHost: b:443\r\n\r\n",
    "CONNECT with a body": b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\nContent-Length: 3\r\n\r\nabc",
    "CONNECT in chunks": b"CONNECT b:443 HTTP/1.1\r\nHost: b:443\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "CONNECT in HTTP/1.0": b"CONNECT b:443 HTTP/1.0\r\nHost: b:443\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\n" + H + b"\r\n",
    "non-ASCII target": b"GET /\xe9 HTTP/1.1\r\n" + H + b"\r\n",
    "control in target": b"GET /\x01 HTTP/1.1\r\n" + H + b"\r\n",
    "relative target": b"GET a HTTP/1.1\r\n" + H + b"\r\n",
    "asterisk": b"GET * HTTP/1.1\r\n" + H + b"\r\n",
    # hosts
    "no Host": G + b"X: y\r\n\r\n",
    "two Hosts": G + H + b"Host: b\r\n\r\n",
    "two equal Hosts": G + H + H + b"\r\n",
    "empty Host": G + b"Host:\r\n\r\n",
    "Host list": G + b"Host: a, b\r\n\r\n",
    "Host with userinfo": G + b"Host: allowed@evil\r\n\r\n",
    "Host with path": G + b"Host: a/b\r\n\r\n",
    "Host with encoded dot": G + b"Host: a%2eb\r\n\r\n",
    "Host with encoded NUL": G + b"Host: a%00b\r\n\r\n",
    "Host with blank": G + b"Host: a b\r\n\r\n",
    "Host not ASCII": G + b"Host: \xd0\xb0\r\n\r\n",
    "Host with two dots": G + b"Host: a..b\r\n\r\n",
    "Host of a dot": G + b"Host: .\r\n\r\n",
    "Host with port name": G + b"Host: a:http\r\n\r\n",
    "Host with port too high": G + b"Host: a:65536\r\n\r\n",
    "Host with zone": G + b"Host: [fe80::1%25eth0]\r\n\r\n",
    "Host with bad literal": G + b"Host: [::1::2]\r\n\r\n",
    "Host too long": G + b"Host: " + b"a" * 300 + b"\r\n\r\n",
    "absolute-form, other host": b"GET http://b/ HTTP/1.1\r\n" + H + b"\r\n",
    "absolute-form, other port": b"GET http://a:81/ HTTP/1.1\r\n" + H + b"\r\n",
    "absolute-form, userinfo": b"GET http://a@b/ HTTP/1.1\r\n" + H + b"\r\n",
    "absolute-form, https, other port": b"GET https://a:80/ HTTP/1.1\r\n" + H + b"\r\n",
    "absolute-form, other scheme": b"GET ws://a/ HTTP/1.1\r\n" + H + b"\r\n",
    "absolute-form, no Host": b"GET http://a/ HTTP/1.1\r\n\r\n",
    "absolute-form, backslash": b"GET http://a\\@b/ HTTP/1.1\r\n" + H + b"\r\n",
    "double slash host": b"GET http:/a/ HTTP/1.1\r\n" + H + b"\r\n",
}

# What reaches the server before the fault is found is a head and part of a body, never a complete message.
CUT_SHORT = {
    "chunk size with blank": b"3 \r\nabc\r\n0\r\n\r\n",
    "chunk size with leading blank": b" 3\r\nabc\r\n0\r\n\r\n",
    "chunk size with 0x": b"0x3\r\nabc\r\n0\r\n\r\n",
    "chunk size with sign": b"+3\r\nabc\r\n0\r\n\r\n",
    "chunk size overflow": b"10000000000000003\r\nabc\r\n0\r\n\r\n",
    "chunk size empty": b"\r\nabc\r\n0\r\n\r\n",
    "chunk size bare LF": b"3\nabc\r\n0\r\n\r\n",
    "chunk data bare LF": b"3\r\nabc\n0\r\n\r\n",
    "chunk data too long": b"3\r\nabcX\r\n0\r\n\r\n",
    "chunk extension with LF": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "chunk extension quoted LF": b'3;a="\n"\r\nabc\r\n0\r\n\r\n',
    "trailer with bare LF": b"3\r\nabc\r\n0\r\nX: y\n\r\n",
    "trailer with Content-Length": b"3\r\nabc\r\n0\r\nContent-Length: 5\r\n\r\n",
    "end with bare LF": b"3\r\nabc\r\n0\r\n\n",
}

ONE_MESSAGE = {
    "absolute-form, https": (b"GET https://a/b HTTP/1.1\r\n" + H + b"\r\n", b"GET /b HTTP/1.1\r\n" + H + b"\r\n"),
    "absolute-form, https, its port": (
        b"GET HTTPS://a:443 HTTP/1.1\r\n" + H + b"\r\n",
        b"GET / HTTP/1.1\r\n" + H + b"\r\n",
    ),
    "two blanks before the target": (b"GET  / HTTP/1.1\r\n" + H + b"\r\n", G + H + b"\r\n"),
    "empty lines first": (b"\r\n\r\n" + G + H + b"\r\n", G + H + b"\r\n"),
    "blanks around a length": (P + H + b"Content-Length: \t3 \t\r\n\r\nabc", P + H + b"Content-Length: 3\r\n\r\nabc"),
    "leading zeros in a length": (P + H + b"Content-Length: 03\r\n\r\nabc", P + H + b"Content-Length: 3\r\n\r\nabc"),
    "coding in capitals": (P + H + b"transfer-encoding: CHUNKED\r\n\r\n0\r\n\r\n", P + H + CHUNKED + b"\r\n0\r\n\r\n"),
    "zeros in a chunk size": (
        P + H + CHUNKED + b"\r\n0003\r\nabc\r\n00\r\n\r\n",
        P + H + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "chunk extension": (
        P + H + CHUNKED + b"\r\n3;a=b\r\nabc\r\n0;c\r\n\r\n",
        P + H + CHUNKED + b"\r\n3\r\nabc\r\n0\r\n\r\n",
    ),
    "trailer named Host": (P + H + CHUNKED + b"\r\n0\r\nHost: b\r\n\r\n", P + H + CHUNKED + b"\r\n0\r\n\r\n"),
    "CL in an underscore": (P + H + b"Content_Length: 5\r\n\r\n", P + H + b"Content_Length: 5\r\n\r\n"),
    "TE by a listed name": (P + H + b"Connection: X-A\r\nX-A: b\r\n\r\n", P + H + b"\r\n"),
    "body in a GET": (G + H + b"Content-Length: 3\r\n\r\nabc", G + H + b"Content-Length: 3\r\n\r\nabc"),
    "encoded NUL in the path": (
        b"GET /%00%2e%2e/ HTTP/1.1\r\n" + H + b"\r\n",
        b"GET /%00%2e%2e/ HTTP/1.1\r\n" + H + b"\r\n",
    ),
    "IPv6 literal": (G + b"Host: [::1]:80\r\n\r\n", G + b"Host: [::1]:80\r\n\r\n"),
    "OPTIONS of the server": (b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n", b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n"),
    "OPTIONS in absolute-form": (
        b"OPTIONS http://a HTTP/1.1\r\n" + H + b"\r\n",
        b"OPTIONS * HTTP/1.1\r\n" + H + b"\r\n",
    ),
    "HTTP/1.0 without Host": (
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET / HTTP/1.0\r\nConnection: close\r\n\r\n",
    ),
}

BAD_ANSWERS = {
    "CL and TE": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two CL": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nab",
    "TE other": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nab",
    "TE in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "HTTP/2.0": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\nContent-Length: 0\r\n\r\n",
    "control in the reason": b"HTTP/1.1 200 O\x01K\r\nContent-Length: 0\r\n\r\n",
    "folded field": b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
    "body in an interim answer": b"HTTP/1.1 102 No\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 200 OK\r\n\r\n",
    "chunks in an interim answer": b"HTTP/1.1 103 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n",
    "not HTTP": b"SSH-2.0-OpenSSH_9.2p1\r\n",
}


def dialogue(data: bytes, step: int) -> Conversation:
    talk = Conversation(PROTOCOL.inspector())
    for start in range(0, len(data), step):
        talk.client_sends(data[start : start + step])
    return talk


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, step: int) -> None:
    """The case gets 400, and not a byte of it goes upstream, however it is cut."""
    with dialogue(REFUSED[name], step) as talk:
        talk.client_closes()
        talk.expect_error(Side.CLIENT)
        talk.expect_upstream(b"")
        assert talk.take_client().startswith(b"HTTP/1.1 400 Bad Request\r\n")


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", CUT_SHORT)
def test_cut_short(name: str, step: int) -> None:
    """A body whose framing is broken never gets its last chunk, and nothing after it goes upstream."""
    head = P + H + CHUNKED + b"\r\n"
    with dialogue(head + CUT_SHORT[name] + EVIL, step) as talk:
        talk.expect_request("POST", "POST /")
        talk.expect_error(Side.CLIENT)
        sent = talk.take_upstream()
        assert sent.startswith(head)
        assert not sent.endswith(b"0\r\n\r\n")
        assert b"evil" not in sent
        assert talk.take_client().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", ONE_MESSAGE)
def test_one_message(name: str, step: int) -> None:
    """The case goes upstream as the one message it means, without what made it ambiguous."""
    sent, upstream = ONE_MESSAGE[name]
    inspector = PROTOCOL.inspector()
    with Conversation(inspector) as talk:
        for start in range(0, len(sent), step):
            talk.client_sends(sent[start : start + step])
        method = upstream.split(b" ")[0].decode()
        talk.expect_request(method)
        got = talk.take_upstream()
        assert got == upstream or joined_chunks(got) == joined_chunks(upstream)


def joined_chunks(message: bytes) -> bytes:
    """A chunked message with its chunk boundaries removed: cut input may yield more, smaller chunks."""
    head, _, body = message.partition(b"\r\n\r\n")
    data = b""
    while body:
        size, _, body = body.partition(b"\r\n")
        data, body = data + body[: int(size, 16)], body[int(size, 16) + 2 :]
    return head + b"|" + data


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_bad_answers(name: str, step: int) -> None:
    """An answer that two readers could read in two ways becomes 502, and not a byte of it passes."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(G + H + b"\r\n")
        talk.expect_request("GET")
        talk.expect_upstream(G + H + b"\r\n")
        for start in range(0, len(BAD_ANSWERS[name]), step):
            talk.server_sends(BAD_ANSWERS[name][start : start + step])
        talk.expect_error(Side.SERVER)
        assert talk.take_client().startswith(b"HTTP/1.1 502 Bad Gateway\r\n")


@pytest.mark.parametrize("tail", [b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"x", b"\r\nx"])
def test_bytes_after_an_answer(tail: bytes) -> None:
    """A second answer to one request is never handed on, so it cannot be taken for the next one's."""
    with Conversation(PROTOCOL.inspector()) as talk:
        talk.client_sends(G + H + b"\r\n")
        talk.expect_request("GET")
        talk.expect_upstream(G + H + b"\r\n")
        talk.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab" + tail)
        talk.expect_client(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab")
        talk.expect_outcome("200")
        talk.expect_error(Side.SERVER)


@pytest.mark.parametrize(
    "data",
    [
        G + H + b"X: y\r\n" * 200 + b"\r\n",
        G + H + b"X: " + b"y" * 70_000 + b"\r\n\r\n",
        G + H + b"X: " + b"y" * 200_000,
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + H + b"\r\n",
        b"GET /" + b"a" * 200_000,
        b"\r\n" * 100_000,
    ],
    ids=["fields", "head", "endless field", "target", "endless target", "empty lines"],
)
@pytest.mark.parametrize("step", [1000, 65536])
def test_limits(data: bytes, step: int) -> None:
    """Each part of a head has a named limit, met before the head is complete if need be."""
    with dialogue(data, step) as talk:
        error = talk.expect_error(Side.CLIENT)
        assert isinstance(error, LimitExceeded)
        talk.take_client()


@pytest.mark.parametrize("tail", [b"0\r\nX: " + b"y" * 200_000, b"3;a=" + b"y" * 200_000], ids=["trailer", "extension"])
def test_limits_within_a_body(tail: bytes) -> None:
    """Trailers and chunk extensions, which are dropped, cannot be endless either."""
    with dialogue(P + H + CHUNKED + b"\r\n" + tail, 1000) as talk:
        talk.expect_request("POST")
        talk.expect_upstream(P + H + CHUNKED + b"\r\n")
        assert isinstance(talk.expect_error(Side.CLIENT), LimitExceeded)
        talk.take_client()
