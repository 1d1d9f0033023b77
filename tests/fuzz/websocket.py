"""WebSocket in both directions: what goes on is whole frames, and every message of the client's was judged as it is.

An input: one byte of options, one that says how it is cut, then a dialogue (`<client>`, `<server>`). By options answers
are masked and messages rewritten (by nothing), and messages are read before the verdict. What goes on is read by the
websockets library, by the letter of RFC 6455.
"""

from __future__ import annotations

from collections.abc import Iterator

from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import Protocol, State
from websockets.server import ServerProtocol
from websockets.uri import parse_uri

from enforcer.flow import Side
from enforcer.protocols.base import Request
from enforcer.protocols.websocket import WebSocketInspector
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation
from tests.fuzz.target import Target, cut, dialogue, options, written

MASKED, REWRITTEN, READ = 1, 2, 4
HANDSHAKE = 3


def _decide(request: Request) -> Denial | None:
    """As the session does: what has a fault is never allowed."""
    return DENIAL if request.fault else None


def play(turns: list[tuple[Side, bytes]], step: int, flags: int) -> tuple[Conversation, bytes, bytes]:
    """The finished conversation, and all that went to server and client."""
    rewrite = bytes if flags & REWRITTEN else None
    facts = {"host": "a", "method": "WEBSOCKET", "path": "/chat"}
    inspector = WebSocketInspector(HANDSHAKE, "/chat", facts, [], masked=bool(flags & MASKED), rewrite=rewrite)
    if flags & READ:
        inspector.read_bodies()
    hide = (lambda text: text.data) if flags & MASKED else None
    talk = Conversation(inspector, _decide, mask_text=hide, rewrite=rewrite, quiet=True)
    talk._allowed[HANDSHAKE] = Request(HANDSHAKE, "GET", "GET /chat", b"")
    for side, data in turns:
        for piece in cut(data, step):
            (talk.client_sends if side is Side.CLIENT else talk.server_sends)(piece)
    return talk, talk.take_upstream(), talk.take_client()


def judge(data: bytes) -> None:
    (flags, step), rest = options(data, 2)
    turns = dialogue(rest)
    talk, upstream, to_client = play(turns, step % 64, flags)
    got = messages(ServerProtocol(state=State.OPEN, max_size=None), upstream)
    frames(ClientProtocol(parse_uri("ws://a/"), state=State.OPEN, max_size=None), to_client)
    judged = [request.text for request in talk.requests if not request.fault]
    assert got == judged[: len(got)]
    if step % 64:
        again, same, _ = play(turns, 0, flags)
        if not (talk.closed or again.closed):
            assert messages(ServerProtocol(state=State.OPEN, max_size=None), same) == got


def frames(reader: Protocol, data: bytes) -> list[Frame]:
    """Raises where `data` is no WebSocket."""
    reader.receive_data(data)
    # A Close in the midst of a fragmented message, as we refuse with, is fine by RFC 6455 section 5.4.
    if reader.parser_exc is not None and "incomplete fragmented message" not in str(reader.parser_exc):
        raise reader.parser_exc
    return [one for one in reader.events_received() if isinstance(one, Frame)]


def messages(reader: Protocol, data: bytes) -> list[str]:
    """The messages in `data` as they are recorded; inputs are shorter than what is recorded of one. Raises where `data`
    is no WebSocket, or a text is no UTF-8."""
    found: list[tuple[Opcode, bytes]] = []
    for frame in frames(reader, data):
        if frame.opcode is Opcode.CONT:
            opcode, begun = found.pop()
            found.append((opcode, begun + frame.data))
        elif frame.opcode in (Opcode.TEXT, Opcode.BINARY):
            found.append((frame.opcode, bytes(frame.data)))
    return [data.decode() if opcode is Opcode.TEXT else f"{len(data)} bytes" for opcode, data in found]


def client(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=True)


def server(opcode: Opcode, data: bytes, *, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin).serialize(mask=False)


CALL = b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "look"}}'


def seeds() -> Iterator[bytes]:
    dialogues = (
        [(Side.CLIENT, client(Opcode.TEXT, CALL)), (Side.SERVER, server(Opcode.TEXT, b'{"result": 1}'))],
        [
            (Side.CLIENT, client(Opcode.TEXT, b"one ", fin=False) + client(Opcode.PING, b"p")),
            (Side.CLIENT, client(Opcode.CONT, b"and two")),
            (Side.SERVER, server(Opcode.PONG, b"p") + server(Opcode.BINARY, bytes(130))),
        ],
        [(Side.SERVER, server(Opcode.TEXT, "grüße".encode(), fin=False) + server(Opcode.CONT, b" alle"))],
        [(Side.CLIENT, client(Opcode.BINARY, bytes(range(200)))), (Side.CLIENT, client(Opcode.CLOSE, b"\x03\xe8bye"))],
        [(Side.CLIENT, client(Opcode.TEXT, b"")), (Side.SERVER, server(Opcode.CLOSE, b"\x03\xe8"))],
    )
    for flags in (0, MASKED, REWRITTEN, READ):
        for step in (0, 1, 5):
            yield from (bytes([flags, step]) + written(one) for one in dialogues)


WORDS = (
    *(b"<client>", b"<server>", b"\x81\x00", b"\x01\x01a", b"\x80\x00", b"\x89\x00", b"\x8a\x00", b"\x88\x02\x03\xe8"),
    *(b"\x81\x85\0\0\0\0hello", b"\x01\x81\0\0\0\0a", b"\x80\x81\0\0\0\0b", b"\xc1", b"\x81\xfe\0\x7d", b"\xff" * 4),
    *(b"\x81\xff" + bytes(7) + b"\x80", b"\x82\x84\0\0\0\0\xff\xfe\xfd\xfc", b"\x83\x80\0\0\0\0", b"\xed\xa0\x80"),
)
TARGET = Target("websocket", judge, seeds, WORDS)
