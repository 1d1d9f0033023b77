"""HTTP/1.1 from the client's side: whatever it sends reaches the server as exactly the requests that were judged.

An input: one byte of options, one byte that says how it is cut, then the client's bytes. A server answers each request
as soon as it has read it whole (by an option: as soon as it has read its head). By options, too, the answers are masked
and the requests rewritten (by nothing), and bodies are read before the verdict. What our parser sends on is read by a
strict grammar; what our parser was given is read by h11.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from ipaddress import IPv6Address

from enforcer.flow import Side
from enforcer.protocols.base import Request
from enforcer.protocols.http1 import PROTOCOL
from tests.conversation import Conversation
from tests.fuzz import smuggling
from tests.fuzz.second_reader import read_requests
from tests.fuzz.strict_http1 import Malformed, Message, read_request, read_response
from tests.fuzz.target import Target, cut, options

MASKED, EARLY, REWRITTEN, READ = 1, 2, 4, 8
FORBIDDEN = b"HTTP/1.1 403 "
ANSWER = b"HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n"


@dataclass
class Server:
    """Reads what comes by the strict grammar. `unfinished`: a request whose head is whole and whose body is not.
    `received`: all bytes."""

    received: bytes = b""
    messages: list[Message] = field(default_factory=list)
    unfinished: Message | None = None
    _pending: bytes = b""

    def receive(self, data: bytes) -> None:
        self.received += data
        self._pending += data
        self.unfinished = None
        while self._pending:
            read = read_request(self._pending)
            if read is None:
                raise Malformed(f"half a head: {self._pending!r}")
            message, rest = read
            if not message.complete:
                self.unfinished = message
                return
            self.messages.append(message)
            self._pending = rest

    @property
    def seen(self) -> list[Message]:
        return self.messages if self.unfinished is None else [*self.messages, self.unfinished]


@dataclass
class Played:
    """What came of one client's bytes."""

    server: Server
    requests: list[Request]
    answers: int
    refused: bool
    to_client: bytes


def play(data: bytes, step: int, flags: int) -> Played:
    """Plays `data` in pieces of `step` bytes, then the client's end. Raises Malformed where the server gets no HTTP."""
    server, answers = Server(), 0
    hide = (lambda text: text.data) if flags & MASKED else None
    rewrite = (lambda text: text) if flags & REWRITTEN else None
    inspector = PROTOCOL.inspector()
    if flags & READ:
        inspector.read_bodies()
    talk = Conversation(inspector, mask_text=hide, rewrite=rewrite, quiet=True)
    for piece in (*cut(data, step), None):
        if piece is None:
            talk.client_closes()
        else:
            talk.client_sends(piece)
        while True:
            if arrived := talk.take_upstream():
                server.receive(arrived)
            if len(server.seen if flags & EARLY else server.messages) == answers or talk.closed:
                break
            answers += 1
            talk.server_sends(ANSWER)
    to_client = talk.take_client()
    if talk.closed and not (flags & REWRITTEN and FORBIDDEN in to_client):  # a body that cannot be rewritten
        talk.expect_error(Side.CLIENT)  # the server did nothing wrong
    return Played(server, talk.requests, answers, talk.closed, to_client)


def judge(data: bytes) -> None:
    (flags, step), sent = options(data, 2)
    played = play(sent, step % 64, flags)
    _what_was_judged_is_what_is_read(played, flags)
    _answers_are_whole(played, flags)
    if flags & EARLY:
        return  # how much of a body comes before an answer that ends the connection depends on how it is cut
    assert played.server.unfinished is None or played.refused
    _h11_agrees(played, sent)
    if step % 64:
        whole = play(sent, 0, flags)
        assert list(_meaning(whole.server.messages)) == list(_meaning(played.server.messages))
        assert [one.text for one in whole.requests] == [one.text for one in played.requests]
        assert whole.refused == played.refused


def _what_was_judged_is_what_is_read(played: Played, flags: int) -> None:
    """One message for one verdict: same method, target and host. A rewritten one may end before any of it is sent."""
    held = int(played.refused and bool(flags & REWRITTEN))
    assert len(played.requests) - held <= len(played.server.seen) <= len(played.requests)
    for message, request in zip(played.server.seen, played.requests, strict=False):
        assert request.text == f"{message.method} {message.target}"
        assert request.operation == message.method
        judged = request.facts["host"] if request.tunnel is None else request.tunnel[0]
        assert judged == named(message.host), (request.facts, message.host)


def named(authority: bytes) -> str:
    """The host of an authority, in the one form that policies know."""
    host = authority.decode("ascii").rpartition("]")[0] or authority.decode("ascii").partition(":")[0]
    return str(IPv6Address(host[1:])) if host.startswith("[") else host.lower().removesuffix(".")


def _answers_are_whole(played: Played, flags: int) -> None:
    """The client reads one answer per request, and where it was refused one in our words after them."""
    left, statuses = played.to_client, []
    methods = [request.operation for request in played.requests] + ["GET"]
    while left:
        read = read_response(left, methods[len(statuses)], ended=True)
        assert read is not None, left
        message, left = read
        assert message.complete, message
        if message.status >= 200:
            statuses.append(message)
    if flags & EARLY:
        return
    assert len(statuses) == played.answers + played.refused
    if played.refused:
        assert statuses[-1].status in ((400, 403) if flags & REWRITTEN else (400,))
        assert b"how_to_ask" in statuses[-1].body or methods[len(statuses) - 1] == "HEAD"


def _h11_agrees(played: Played, sent: bytes) -> None:
    """Where h11 reads a message in what we were given, it is the one that we sent on."""
    reading = read_requests(sent)
    for theirs, ours in zip(reading.messages, played.server.messages, strict=False):
        if theirs.complete:
            method, target = theirs.first
            assert ours.method.encode() == method
            assert ours.target.encode() == origin_form(method, target), (ours.target, target)
            assert ours.host == theirs.host
            assert ours.body == theirs.body
    if not reading.refused:
        assert len(played.server.messages) <= sum(message.complete for message in reading.messages)


def origin_form(method: bytes, target: bytes) -> bytes:
    """RFC 9112 section 3.2: what absolute-form asks of the server it names."""
    scheme, divider, rest = target.partition(b"://")
    if not divider or scheme.lower() not in (b"http", b"https"):
        return target
    at = min((rest.find(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
    path = rest[at:]
    if not path:
        return b"*" if method == b"OPTIONS" else b"/"
    return path if path.startswith(b"/") else b"/" + path


def _meaning(messages: list[Message]) -> Iterator[tuple[object, ...]]:
    """Without what depends on how the bytes were cut: chunk sizes."""
    return ((message.head, message.body) for message in messages)


def seeds() -> Iterator[bytes]:
    for case in smuggling.cases():
        yield b"\0\0" + case.raw
        yield b"\2\3" + case.raw
        yield b"\4\5" + case.raw
        yield b"\x08\7" + case.raw


WORDS = (
    *(b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b" / ", b"HTTP/1.1", b"HTTP/1.0", b"\r\n", b"\r\n\r\n", b"\n"),
    *(b"Host: a", b"Content-Length: ", b"Transfer-Encoding: ", b"chunked", b"Connection: ", b"close", b"keep-alive"),
    *(b"Upgrade: ", b"websocket", b"h2c", b"Expect: 100-continue", b"Trailer: ", b"TE: ", b"0\r\n\r\n", b"identity"),
    *(b"http://a/", b"https://", b"@", b"\t", b"\x0b", b"\0", b"\x7f", b"\xff", b";a=b", b'"', b"[::1]", b"%00", b"#"),
    *(b"Content-Type: application/json", b"multipart/form-data; boundary=x", b"Content-Encoding: gzip", b"Range: "),
)
TARGET = Target("http1-requests", judge, seeds, WORDS)
