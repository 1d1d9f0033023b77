"""HTTP/1.1 from the server's side: whatever it sends reaches the client as exactly one answer per request, or as ours.

An input: one byte of options, one byte that says how it is cut, then what the server sends to each of three requests
in turn, parted by `<server>`. By options: the answers are masked (by nothing), the client speaks HTTP/1.0, the requests
are HEAD or CONNECT, the server closes at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from enforcer.protocols.http1 import PROTOCOL
from tests.conversation import Conversation
from tests.fuzz.second_reader import read_response as read_by_h11
from tests.fuzz.strict_http1 import Message, read_response
from tests.fuzz.target import TURN_SERVER, Target, cut, options

MASKED, ANCIENT, HEADS, CLOSES, TUNNELS = 1, 2, 4, 8, 16
# Words of a refusal that no server of ours would say.
OURS = b"how_to_ask"


@dataclass
class Played:
    """`statuses`: outcomes as they were told. `ended`: the session ended the connection, by a fault or a refusal."""

    to_client: bytes
    statuses: list[str]
    refused: bool
    ended: bool


def play(parts: list[bytes], step: int, flags: int) -> Played:
    hide = (lambda text: text.data) if flags & MASKED else None
    talk = Conversation(PROTOCOL.inspector(), mask_text=hide, quiet=True)
    version = b"1.0" if flags & ANCIENT and not flags & TUNNELS else b"1.1"  # CONNECT is HTTP/1.1
    target = b"a:80" if flags & TUNNELS else b"/"
    asked = b"%b %b HTTP/%b\r\nHost: a:80\r\n\r\n" % (_method(flags).encode(), target, version)
    for part in parts:
        talk.client_sends(asked)
        if not talk.take_upstream():
            break  # the answer before was not whole, or the last one
        for piece in cut(part, step):
            talk.server_sends(piece)
    if flags & CLOSES:
        talk.server_closes()
    refused = talk.closed
    to_client = talk.take_client()
    return Played(to_client, [one.status for one in talk.outcomes], refused, talk.closed)


def _method(flags: int) -> str:
    if flags & TUNNELS:
        return "CONNECT"
    return "HEAD" if flags & HEADS else "GET"


def judge(data: bytes) -> None:
    (flags, step), sent = options(data, 2)
    parts = sent.split(TURN_SERVER)[:3]
    played = play(parts, step % 64, flags)
    method = _method(flags)
    answers, refusal = _read(played, method)
    assert [str(answer.status) for answer in answers if answer.complete] == played.statuses
    assert all(answer.complete for answer in answers[:-1])
    if refusal is not None:
        assert refusal.status in (403, 502)
        assert played.ended
    if flags & ANCIENT:
        assert len(answers) <= 1
    _h11_agrees(answers, parts, method, ended=bool(flags & CLOSES))
    if step % 64:
        whole = play(parts, 0, flags)
        assert whole.statuses == played.statuses
        assert whole.refused == played.refused


def _read(played: Played, method: str) -> tuple[list[Message], Message | None]:
    """The final answers that the client reads, and our refusal behind them."""
    left, answers = played.to_client, []
    while left:
        read = read_response(left, method, ended=len(answers) < len(played.statuses))
        assert read is not None, left
        message, left = read
        if message.status >= 200:
            answers.append(message)
        else:
            assert not message.head.values(b"connection"), message
    ours = [answer for answer in answers if OURS in answer.body or _headed_by_us(answer)]
    assert not ours or ours == [answers[-1]]
    refusal = answers.pop() if ours else None
    assert not any(OURS in answer.body for answer in answers)
    return answers, refusal


def _headed_by_us(answer: Message) -> bool:
    return answer.head.values(b"content-type") == [b"application/problem+json"]


def _h11_agrees(answers: list[Message], parts: list[bytes], method: str, *, ended: bool) -> None:
    for number, (ours, part) in enumerate(zip(answers, parts, strict=False)):
        reading = read_by_h11(part, method, ended=ended and number == len(parts) - 1)
        if reading.refused or not reading.messages:
            continue
        theirs = reading.messages[0]
        assert theirs.first == (b"%d" % ours.status,)
        if theirs.complete and ours.complete:
            assert theirs.body == ours.body
        elif not ours.complete:
            assert theirs.body.startswith(ours.body)


OK = b"HTTP/1.1 200 OK\r\n"
PARTS = (
    OK + b"Content-Length: 5\r\n\r\nhello",
    OK + b"Content-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
    b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b'HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: "a"\r\n\r\n',
    b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nab",
    b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{}",
    OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    OK + b"Content-Length: 2\r\n\r\nab" + OK + b"Content-Length: 0\r\n\r\n",
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n\x81\x05hello",
    b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-1/9\r\nContent-Length: 2\r\n\r\nab",
    OK + b"Content-Encoding: gzip\r\nContent-Length: 2\r\n\r\n\x1f\x8b",
    OK + b"Content-Type: text/event-stream\r\n\r\ndata: x\n\n",
)


def seeds() -> Iterator[bytes]:
    for number, part in enumerate(PARTS):
        for flags in (0, 1, 2, 4, 8, 9, 10, 16):
            yield bytes([flags, number]) + part + TURN_SERVER + PARTS[number - 1]


WORDS = (
    *(OK, b"HTTP/1.1 ", b"HTTP/1.0 ", b"100 ", b"101 ", b"204 ", b"304 ", b"\r\n", b"\r\n\r\n", b"\n", TURN_SERVER),
    *(
        b"Content-Length: ",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Content-Type: ",
        b"text/event-stream",
    ),
    *(b"application/json", b"; charset=utf-16", b"Content-Encoding: gzip", b"0\r\n\r\n", b"\0", b"\x0b", b"\t", b" :"),
    *(b"Content-Range: bytes 0-1/9", b"multipart/byteranges", b"Alt-Svc: h3", b"Upgrade: websocket", b"Trailer: X"),
)
TARGET = Target("http1-responses", judge, seeds, WORDS)
