"""HTTP/2 from the client's side: whatever it sends, the server reads exactly the requests that were judged, in order.

An input: one byte of options, one byte that says how it is cut, then the client's bytes. The server is the h2 library,
which reads by the letter of RFC 9113 and answers each request once it has it whole. By options the answers are masked
and the requests rewritten (by nothing), and bodies are read before the verdict.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import h2.config
import h2.connection
import h2.events
import h2.exceptions

from enforcer.protocols.base import Request
from enforcer.protocols.http2 import PROTOCOL
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation
from tests.fuzz.target import Target, cut, options
from tests.protocols import wire_http2 as wire

MASKED, REWRITTEN, READ = 1, 2, 4
ANSWER = [(b":status", b"200"), (b"content-type", b"text/plain")]


@dataclass
class Server:
    """`seen`: the requests it read, as `METHOD path`."""

    connection: h2.connection.H2Connection = field(
        default_factory=lambda: h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=False, header_encoding=None)
        )
    )
    seen: list[str] = field(default_factory=list)
    _begun: bool = False

    def receive(self, data: bytes) -> bytes:
        """What it says to `data`. Raises h2's ProtocolError where that is no HTTP/2."""
        if not self._begun:
            self._begun = True
            self.connection.initiate_connection()
        waiting: list[int] = []
        for event in self.connection.receive_data(data):
            match event:
                case h2.events.RequestReceived():
                    said = dict(event.headers)
                    self.seen.append(_line(said[b":method"], said.get(b":path", said.get(b":authority", b""))))
                case h2.events.DataReceived():
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                case h2.events.StreamEnded():
                    waiting.append(event.stream_id)
                case h2.events.StreamReset():
                    waiting = [stream for stream in waiting if stream != event.stream_id]
                case h2.events.ConnectionTerminated():
                    return b""
        for stream in waiting:
            self.connection.send_headers(stream, ANSWER)
            self.connection.send_data(stream, b"fine", end_stream=True)
        return bytes(self.connection.data_to_send())


def _line(method: bytes, target: bytes) -> str:
    return f"{method.decode('latin-1')} {target.decode('latin-1')}"


def _decide(request: Request) -> Denial | None:
    """As the session does: what has a fault is never allowed."""
    return DENIAL if request.fault else None


def play(data: bytes, step: int, flags: int) -> tuple[Conversation, Server, bytes]:
    """The conversation, its server, and all that went to the client."""
    server = Server()
    hide = (lambda text: text.data) if flags & MASKED else None
    rewrite = bytes if flags & REWRITTEN else None
    inspector = PROTOCOL.inspector()
    if flags & READ:
        inspector.read_bodies()
    talk = Conversation(inspector, _decide, mask_text=hide, rewrite=rewrite, quiet=True)
    for piece in cut(data, step):
        talk.client_sends(piece)
        while arrived := talk.take_upstream():
            assert talk.requests, "bytes went upstream before the first verdict"
            if answer := server.receive(arrived):
                talk.server_sends(answer)
    return talk, server, talk.take_client()


def judge(data: bytes) -> None:
    (flags, step), sent = options(data, 2)
    talk, server, to_client = play(sent, step % 64, flags)
    judged = [request.text for request in talk.requests if not request.fault]
    # A request whose body is waited for may be withdrawn, and then the server never hears of it.
    left = iter(judged)
    assert all(one in left for one in server.seen), (server.seen, judged)
    if not (talk.closed or flags & (REWRITTEN | READ)):
        assert server.seen == judged
    wire.frames(to_client)
    if step % 64:
        again, same, _ = play(sent, 0, flags)
        if not (talk.closed or again.closed):
            assert same.seen == server.seen


OPENING = wire.opening()
REQUEST = wire.headers(1, wire.GET)
UPLOAD = wire.headers(1, wire.post(b"/up", (b"content-type", b"application/json")), end=False)
BODY = wire.frame(wire.DATA, wire.END_STREAM, 1, b'{"a": 1}')
SPLIT = wire.literal(wire.GET)


def seeds() -> Iterator[bytes]:
    dialogues = (
        OPENING + REQUEST + wire.headers(3, wire.get(b"/next")),
        OPENING + UPLOAD + BODY,
        OPENING
        + wire.frame(wire.HEADERS, wire.END_STREAM, 1, SPLIT[:20])
        + wire.frame(wire.CONTINUATION, wire.END_HEADERS, 1, SPLIT[20:]),
        OPENING + UPLOAD + wire.frame(wire.DATA, 0, 1, b"half") + wire.frame(wire.RST_STREAM, 0, 1, b"\0\0\0\x08"),
        wire.opening((4, 65536), (5, 16384)) + wire.frame(wire.WINDOW_UPDATE, 0, 0, b"\0\1\0\0") + REQUEST,
        OPENING + wire.frame(wire.PING, 0, 0, bytes(8)) + UPLOAD + wire.headers(1, [(b"grpc-status", b"0")]),
        OPENING + wire.frame(wire.HEADERS, 0x2D, 1, b"\2" + bytes(5) + SPLIT + bytes(2)),
    )
    for flags in (0, MASKED, REWRITTEN, READ):
        for step in (0, 1, 9):
            yield from (bytes([flags, step]) + one for one in dialogues)


WORDS = (
    *(wire.frame(wire.SETTINGS, 0, 0), wire.frame(wire.SETTINGS, wire.ACK, 0), wire.frame(wire.GOAWAY, 0, 0, bytes(8))),
    *(REQUEST, wire.headers(3, wire.post(), end=False), wire.frame(wire.DATA, 1, 3, b"x"), BODY, b"\0\0\0\1\5\0\0\0\3"),
    *(wire.frame(wire.PRIORITY, 0, 1, bytes(5)), wire.frame(wire.RST_STREAM, 0, 1, bytes(4)), b"\0\7:method\3PUT"),
    *(wire.frame(wire.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), wire.frame(wire.PUSH_PROMISE, 4, 1, bytes(4)), b"\x7f\xff"),
    *(b"\0\4host\1b", b"\0\x11transfer-encoding\7chunked", b"\0\x0econtent-length\1" + b"9", b"\0\2te\1x", b"\x82\x86"),
)
TARGET = Target("http2-requests", judge, seeds, WORDS)
