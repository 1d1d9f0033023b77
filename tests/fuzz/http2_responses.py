"""HTTP/2 from the server's side: whatever it sends, the client reads HTTP/2, and answers to what it asked.

An input: one byte of options, one byte that says how it is cut, then the server's bytes. The client is the h2 library,
which reads by the letter of RFC 9113 and has asked three times. By options the answers are masked (by nothing), and the
server closes at the end.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import h2.config
import h2.connection
import h2.events

from enforcer.protocols.http2 import PROTOCOL
from tests.conversation import Conversation
from tests.fuzz.target import Target, cut, options
from tests.protocols import wire_http2 as wire

MASKED, CLOSES = 1, 2
ASKED = (1, 3, 5)


@dataclass
class Played:
    """`answers`: of each stream the status and the body as far as it was read, and how it ended. `outcomes`: as they
    are recorded."""

    answers: dict[int, tuple[bytes, bytes, str]]
    outcomes: list[str]
    ended: bool


def play(data: bytes, step: int, flags: int) -> Played:
    """Raises h2's ProtocolError where the client gets no HTTP/2."""
    client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
    client.initiate_connection()
    hide = (lambda text: text.data) if flags & MASKED else None
    talk = Conversation(PROTOCOL.inspector(), mask_text=hide, quiet=True)
    for stream in ASKED:
        client.send_headers(stream, wire.get(b"/%d" % stream), end_stream=True)
    talk.client_sends(client.data_to_send())
    answers: dict[int, tuple[bytes, bytes, str]] = {}
    for piece in (*cut(data, step), None):
        if piece is not None:
            talk.server_sends(piece)
        elif flags & CLOSES:
            talk.server_closes()
        for event in client.receive_data(talk.take_client()):
            _note(event, answers)
            if isinstance(event, h2.events.DataReceived):
                client.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        if not talk.closed and (back := client.data_to_send()):
            talk.client_sends(back)
    return Played(answers, [one.status for one in talk.outcomes], talk.closed)


def _note(event: h2.events.Event, answers: dict[int, tuple[bytes, bytes, str]]) -> None:
    match event:
        case h2.events.ResponseReceived():
            answers[event.stream_id] = dict(event.headers)[b":status"], b"", ""
        case h2.events.DataReceived():
            status, body, end = answers[event.stream_id]
            answers[event.stream_id] = status, body + event.data, end
        case h2.events.StreamEnded() | h2.events.StreamReset():
            status, body, _ = answers.get(event.stream_id, (b"", b"", ""))
            answers[event.stream_id] = status, body, type(event).__name__


def judge(data: bytes) -> None:
    (flags, step), sent = options(data, 2)
    played = play(sent, step % 64, flags)
    assert set(played.answers) <= set(ASKED)
    if step % 64:
        whole = play(sent, 0, flags)
        if not (whole.ended or played.ended):
            assert whole.answers == played.answers
            assert sorted(whole.outcomes) == sorted(played.outcomes)


SETTINGS = wire.frame(wire.SETTINGS, 0, 0)
FINE = [(b":status", b"200"), (b"content-type", b"application/json")]
ANSWER = wire.headers(1, FINE, end=False) + wire.frame(wire.DATA, wire.END_STREAM, 1, b'{"a": 1}')
TRAILERS = wire.headers(3, [(b"grpc-status", b"0")])


def seeds() -> Iterator[bytes]:
    said = (
        SETTINGS + ANSWER + wire.headers(3, wire.OK, end=False) + wire.frame(wire.DATA, 0, 3, b"x" * 40) + TRAILERS,
        SETTINGS + wire.headers(5, wire.OK) + wire.frame(wire.RST_STREAM, 0, 3, b"\0\0\0\2") + ANSWER,
        SETTINGS + wire.headers(1, [(b":status", b"103")], end=False) + ANSWER,
        SETTINGS
        + wire.frame(wire.PING, 0, 0, bytes(8))
        + ANSWER
        + wire.frame(wire.GOAWAY, 0, 0, b"\0\0\0\1" + bytes(4)),
        wire.frame(wire.SETTINGS, 0, 0, b"\0\4\0\1\0\0")
        + wire.frame(wire.WINDOW_UPDATE, 0, 0, b"\0\0\xff\xff")
        + ANSWER,
        SETTINGS
        + wire.headers(1, [*FINE, (b"content-length", b"9")], end=False)
        + wire.frame(wire.DATA, 1, 1, b"short"),
    )
    for flags in (0, MASKED, CLOSES):
        for step in (0, 1, 9):
            yield from (bytes([flags, step]) + one for one in said)


WORDS = (
    *(
        SETTINGS,
        wire.frame(wire.SETTINGS, wire.ACK, 0),
        ANSWER,
        TRAILERS,
        wire.headers(3, wire.OK),
        b"\0\7:status\3204",
    ),
    *(
        wire.frame(wire.RST_STREAM, 0, 1, bytes(4)),
        wire.frame(wire.GOAWAY, 0, 0, bytes(8)),
        b"\0\7:status\3100",
        b"\x88",
    ),
    *(wire.frame(wire.PUSH_PROMISE, 4, 1, b"\0\0\0\2"), wire.frame(wire.WINDOW_UPDATE, 0, 1, b"\0\0\0\1"), b"\x7f\xff"),
    *(wire.frame(wire.DATA, 1, 3, b"x"), wire.frame(wire.DATA, 9, 5, b"\1x\0"), wire.frame(wire.CONTINUATION, 4, 1)),
    *(b"\0\x0econtent-length\1" + b"9", b"\0\x10content-encoding\4gzip", b"\0\7alt-svc\1x", b"\0\nconnection\1x"),
)
TARGET = Target("http2-responses", judge, seeds, WORDS)
