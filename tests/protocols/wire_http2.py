"""HTTP/2 as tests speak it: the `h2` library as strict client and server, the inspector between, and bare frames."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import h2.config
import h2.connection
import h2.events

from enforcer.protocols.base import Rewrite, Text
from enforcer.protocols.http2 import PROTOCOL
from tests.conversation import Conversation, Decide

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # RFC 9113 section 3.4
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED = 1, 1, 4, 8
NAMES = ("DATA", "HEADERS", "PRIORITY", "RST_STREAM", "SETTINGS", "PUSH_PROMISE", "PING", "GOAWAY", "WINDOW_UPDATE")

Fields = list[tuple[bytes, bytes]]
GET: Fields = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a.example"), (b":path", b"/")]
OK: Fields = [(b":status", b"200"), (b"content-type", b"text/plain")]


def post(path: bytes = b"/", *more: tuple[bytes, bytes]) -> Fields:
    return [(b":method", b"POST"), *GET[1:3], (b":path", path), *more]


def get(path: bytes = b"/", *more: tuple[bytes, bytes]) -> Fields:
    return [*GET[:3], (b":path", path), *more]


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """RFC 9113 section 4.1."""
    return struct.pack("!I", len(payload))[1:] + bytes((kind, flags)) + struct.pack("!I", stream) + payload


def literal(fields: Fields) -> bytes:
    """A field block of literals that enter no table (RFC 7541 section 6.2.2), each shorter than 127 bytes."""
    return b"".join(b"\0" + bytes((len(name),)) + name + bytes((len(value),)) + value for name, value in fields)


def headers(stream: int, fields: Fields, *, end: bool = True) -> bytes:
    return frame(HEADERS, END_HEADERS | (END_STREAM if end else 0), stream, literal(fields))


def opening(*settings: tuple[int, int]) -> bytes:
    """What a client begins with."""
    return PREFACE + frame(SETTINGS, 0, 0, b"".join(struct.pack("!HI", *one) for one in settings))


def frames(data: bytes) -> list[tuple[str, int, int, bytes]]:
    """Kind, flags, stream and payload of each whole frame, a preface left out."""
    data = data.removeprefix(PREFACE)
    found = []
    while data:
        length, kind = int.from_bytes(data[:3], "big"), data[3]
        found.append((NAMES[kind], data[4], struct.unpack("!I", data[5:9])[0], data[9 : 9 + length]))
        data = data[9 + length :]
    return found


class Between:
    """A client and a server of the h2 library, and the inspector between them. `to_client` and `to_server`: the events
    that either has seen since it was last asked."""

    def __init__(
        self,
        decide: Decide | None = None,
        mask_text: Callable[[Text], bytes] | None = None,
        rewrite: Rewrite | None = None,
        step: int = 1 << 20,
        client_window: int | None = None,
        reads_bodies: bool = False,
    ) -> None:
        text = None if rewrite is None else lambda one: rewrite(one.data)
        self.talk = Conversation(
            PROTOCOL.inspector(), decide, mask_text, rewrite=rewrite, rewrite_text=text, quiet=True
        )
        if reads_bodies:
            self.talk.inspector.read_bodies()
        self.client = self._end(client=True)
        self.server = self._end(client=False)
        self._step = step
        self._seen: dict[str, list[Any]] = {"client": [], "server": []}
        self._linked = False
        self.client.initiate_connection()
        if client_window is not None:
            self.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: client_window})
        self.server.initiate_connection()

    @staticmethod
    def _end(*, client: bool) -> h2.connection.H2Connection:
        return h2.connection.H2Connection(h2.config.H2Configuration(client_side=client, header_encoding=None))

    def exchange(self) -> None:
        """Moves bytes until nobody has any."""
        moved = True
        while moved:
            moved = False
            if data := self.client.data_to_send():
                moved = True
                for at in range(0, len(data), self._step):
                    self.talk.client_sends(data[at : at + self._step])
            if data := self.talk.take_upstream():
                moved = self._linked = True
                self._seen["server"] += self.server.receive_data(data)
            if self._linked and (data := self.server.data_to_send()):
                moved = True
                for at in range(0, len(data), self._step):
                    self.talk.server_sends(data[at : at + self._step])
            if data := self.talk.take_client():
                moved = True
                self._seen["client"] += self.client.receive_data(data)

    def to_client(self, *kinds: type) -> list[Any]:
        return self._take("client", kinds)

    def to_server(self, *kinds: type) -> list[Any]:
        return self._take("server", kinds)

    def _take(self, side: str, kinds: tuple[type, ...]) -> list[Any]:
        self.exchange()
        seen = self._seen[side]
        taken = [event for event in seen if isinstance(event, kinds)]
        self._seen[side] = [event for event in seen if not isinstance(event, kinds)]
        return taken

    def body(self, side: str, stream: int) -> bytes:
        """All DATA of a stream, acknowledged as it came."""
        self.exchange()
        end = self.client if side == "client" else self.server
        whole = b""
        while found := self._take(side, (h2.events.DataReceived,)):
            for event in found:
                if event.stream_id == stream:
                    whole += event.data
                end.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        return whole
