"""Requests that are nearly right, by a grammar with every published fault in it: judged as sent on, or refused."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.http1_requests import EARLY, MASKED, READ, REWRITTEN, judge, play

one = st.sampled_from


def mostly(right: bytes, *wrong: bytes) -> st.SearchStrategy[bytes]:
    """`right` twelve times out of thirteen, so that a request has a fault or two and is not all faults."""
    return one([right] * 12 * len(wrong) + list(wrong))


EOL = mostly(b"\r\n", b"\n", b"\r", b"\r\r\n", b"\n\r", b"\x0b\r\n", b"\r\n ", b"\r\n\t", b"\0\r\n")
BLANK = mostly(b" ", b"", b"\t", b"  ", b"\x0b", b"\x0c", b"\xa0", b"\0", b"\r")
COLON = mostly(b": ", b":", b" : ", b"\t: ", b"::", b":\x0b", b":\r\n ", b"", b": \0", b"\0: ", b":\xa0")
METHOD = mostly(b"POST", b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"CONNECT", b"PRI", b"get", b"G\0T", b"POSTX", b"")
TARGET = mostly(
    *(b"/x", b"/", b"*", b"//b/x", b"/x#y", b"/x?a=http://b/", b"/\xff", b"/\\", b"x", b"/%00", b"/x y", b"a:80"),
    *(b"http://a/x", b"HTTP://A:80/x", b"http://b/x", b"http://a@b/x", b"http://a\\@b/", b"https://a/x", b"http:/a/x"),
)
VERSION = mostly(
    b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"HTTP/1.1 ", b"RTSP/1.0", b""
)
HOST = mostly(
    *(b"a", b"a:80", b"A.", b"b", b"", b"a, b", b"a@b", b"a/b", b"a b", b"a\0", b"a..b", b".", b"[::1]", b"[::1"),
    *(b"a:99999", b"a:x", b"a%00", b"\xd0\xb0", b"a\\b", b"http://a", b"xn--a", b"127.0.0.1", b"0x7f.1"),
)
LENGTH = mostly(
    b"3",
    b"0",
    b"03",
    b"+3",
    b"-1",
    b"3, 3",
    b"3 ",
    b"\t3",
    b"0x3",
    b"3_0",
    b"",
    b"3;a",
    b"18446744073709551619",
    b"\xb3",
)
CODING = mostly(
    *(b"chunked", b"CHUNKED", b"chunked, identity", b"identity", b"gzip, chunked", b"\x0bchunked", b"chunked\0"),
    *(b"xchunked", b'"chunked"', b"chunked;a=b", b",chunked", b"chunked,", b"chunked\t", b"", b"chunked, chunked"),
)
OPTION = one(
    [b"close", b"keep-alive", b"content-length", b"Transfer-Encoding", b"host", b"x-a", b"upgrade", b"TE, close", b","]
)
OTHER = one(
    [
        *(b"X-A: b", b"Upgrade: h2c", b"Upgrade: websocket", b"Expect: 100-continue", b"TE: trailers", b"Trailer: X"),
        *(b"Content_Length: 9", b"Proxy-Connection: close", b"X: \xe9", b"X: a\0", b": y", b"X", b"X Y: z", b" X: y"),
        *(b"Content-Type: application/json", b"Content-Encoding: gzip", b"Range: bytes=0-1", b"X: " + b"y" * 300),
    ]
)
SIZE = mostly(
    b"3", b"03", b"0x3", b"+3", b"-3", b"3 ", b" 3", b"3;a=b", b'3;a="\r\n"', b"3;\nxx", b"ffffffffffffffff1", b""
)


@st.composite
def fields(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Field lines with their ends, in any order, and the framing that they mean to declare."""
    framing = draw(one([b"", b"length", b"chunks", b"both"]))
    lines = [b"Host" + draw(COLON) + draw(HOST) for _ in range(draw(one([1, 1, 1, 1, 0, 2])))]
    if framing in (b"length", b"both"):
        lines += [b"Content-Length" + draw(COLON) + draw(LENGTH) for _ in range(draw(one([1, 1, 1, 2])))]
    if framing in (b"chunks", b"both"):
        lines += [b"Transfer-Encoding" + draw(COLON) + draw(CODING) for _ in range(draw(one([1, 1, 1, 2])))]
    lines += [b"Connection: " + option for option in draw(st.lists(OPTION, max_size=2))]
    lines += draw(st.lists(OTHER, max_size=2))
    return [line + draw(EOL) for line in draw(st.permutations(lines))], framing


@st.composite
def chunks(draw: st.DrawFn) -> bytes:
    body = b"".join(draw(SIZE) + draw(EOL) + b"abc" + draw(EOL) for _ in range(draw(st.integers(0, 2))))
    last = draw(mostly(b"0", b"00", b"0;a", b"-0", b"0 ", b""))
    trailer = draw(mostly(b"", b"X: y\r\n", b"Host: b\r\n", b"Content-Length: 3\r\n", b"X: y\n", b" X\r\n"))
    return body + last + draw(EOL) + trailer + draw(EOL)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    start = draw(METHOD) + draw(BLANK) + draw(TARGET) + draw(BLANK) + draw(VERSION) + draw(EOL)
    lines, framing = draw(fields())
    body = {b"": st.just(b""), b"length": mostly(b"abc", b"ab", b"abcd", b"")}.get(framing, chunks())
    return draw(mostly(b"", b"\r\n", b"\n", b"\0", b" ")) + start + b"".join(lines) + draw(EOL) + draw(body)


@settings(max_examples=120)
@given(
    stream=st.lists(requests(), min_size=1, max_size=3).map(b"".join),
    flags=one([0, MASKED, EARLY, REWRITTEN, READ, MASKED | REWRITTEN | READ]),
    step=st.integers(0, 40),
)
def test_nearly_right(stream: bytes, flags: int, step: int) -> None:
    """Up to three such requests on one connection: the server reads exactly what was judged, the client is told the
    rest, h11 agrees where it reads anything, and the cut changes nothing."""
    judge(bytes([flags, step]) + stream)


def test_the_grammar_makes_both() -> None:
    """It is neither all right nor all wrong, or it would prove little: some are sent on, some refused."""
    right = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    told = {"sent": 0, "refused": 0}

    @settings(max_examples=200, database=None, derandomize=True)
    @given(requests())
    def count(raw: bytes) -> None:
        played = play(raw, 0, 0)
        told["refused" if played.refused else "sent"] += bool(played.refused or played.server.messages)

    count()
    assert min(told.values()) >= 5, told
    assert play(right, 0, 0).server.messages[0].body == b"abc"
