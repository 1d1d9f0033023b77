"""Step 4 of 6, inspect: both connections of HTTP/2 that a session has, frame by frame (RFC 9113 sections 5 and 6).

Gets frames of either side; moves windows and settings, and ends streams that are broken or given up. What the frames of
a stream say is for `exchanges`.
"""

from __future__ import annotations

from collections import deque

from enforcer.flow import Side
from enforcer.protocols.base import Event, Outcome, Unmaskable
from enforcer.protocols.http2 import frames
from enforcer.protocols.http2.compression import Fields
from enforcer.protocols.http2.frames import (
    ACK,
    DATA,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_LIMIT,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    ConnectionFault,
)
from enforcer.protocols.http2.heads import (
    RequestHead,
)
from enforcer.protocols.http2.peer import Half, Peer, unpadded
from enforcer.protocols.http2.stream import OPEN, REFUSE, REFUSED, WAITING, WITHHELD, WITHHOLD, Stream

# Streams given up before their answer, more than were answered. Envoy counts 500 (CVE-2023-44487, "rapid reset"),
# nghttp2 allows bursts of 1,000.
RESET_LIMIT = 500
# Bytes of bodies, of one connection, that are awaited whole before their requests are judged.
HELD_LIMIT = 4 * 1024 * 1024
# Bytes of one such body; what is longer is judged without.
BODY_LIMIT = 1024 * 1024
# Bytes of a body that a client may send beyond what its server has room for yet, of one stream and of all: else each
# of the server's windows, often of 64 KiB, would wait for one way more.
AHEAD, ALL_AHEAD = 256 * 1024, 1024 * 1024
# First windows are passed on up to here: one that was granted more than its receiver takes must not grow too far.
FIRST_LIMIT = WINDOW_LIMIT - BODY_LIMIT

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_FIXED_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class Connection:
    """What `Exchanges` is built on. `_linked`: the server has been spoken to. `_leaving`: one side said GOAWAY; no
    new stream may begin."""

    def __init__(self) -> None:
        self._client = Peer(_CLIENT)
        self._server = Peer(_SERVER)
        self._begun = False
        self._linked = False
        self._leaving = False
        self._streams: dict[int, Stream] = {}
        self._by_server: dict[int, Stream] = {}
        self._asked: deque[Stream] = deque()
        self._last = 0
        self._next_server = 1
        self._events: deque[Event] = deque()
        self._outcomes: list[Outcome] = []
        self._resets = 0
        self._held = 0
        self._awaited = 0
        self._uploads = False
        self._reads_bodies = False

    # --- both sides

    def _frame(self, peer: Peer, kind: int, flags: int, number: int, payload: bytes) -> None:
        from_client = peer is self._client
        if not peer.greeted and (kind != SETTINGS or flags & ACK):
            raise ConnectionFault(peer.side, "another frame before its settings")
        if kind == DATA:
            self._data(peer, flags, number, payload)
        elif kind == HEADERS:
            payload = unpadded(peer.side, flags, payload)
            if flags & WITH_PRIORITY:
                if len(payload) < 5:
                    raise ConnectionFault(peer.side, "HEADERS without their priority", FRAME_SIZE_ERROR)
                payload = payload[5:]
            fields = peer.decoder.decode(payload)
            end = flags & END_STREAM != 0
            if from_client:
                self._client_head(number, fields, end)
            else:
                self._server_head(number, fields, end)
        else:
            if _FIXED_SIZES.get(kind, len(payload)) != len(payload):
                raise ConnectionFault(peer.side, "a frame of a wrong size", FRAME_SIZE_ERROR)
            self._control(peer, kind, flags, number, payload)

    def _control(self, peer: Peer, kind: int, flags: int, number: int, payload: bytes) -> None:
        peer.moved_nothing()
        if kind == WINDOW_UPDATE:
            self._window_update(peer, number, frames.number(payload))
        elif kind == SETTINGS:
            self._settings(peer, flags, number, payload)
        elif kind == PING:
            if number:
                raise ConnectionFault(peer.side, "a PING on a stream")
            if not flags & ACK:
                peer.out.append(frames.frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self._reset(peer, number, payload)
        elif kind == GOAWAY:
            if number or len(payload) < 8:
                raise ConnectionFault(peer.side, "a GOAWAY out of place or cut short", FRAME_SIZE_ERROR)
            if peer is self._client:
                self._client_leaves()
            else:
                self._server_leaves(payload)
        elif kind == PUSH_PROMISE:
            raise ConnectionFault(peer.side, "pushes, which was turned off")
        elif kind == PRIORITY and not number:
            raise ConnectionFault(peer.side, "PRIORITY of no stream")
        # PRIORITY and unknown kinds are ignored (RFC 9113 sections 5.3.2 and 5.5).

    def _settings(self, peer: Peer, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise ConnectionFault(peer.side, "SETTINGS on a stream")
        if len(payload) % 6 or (flags & ACK and payload):
            raise ConnectionFault(peer.side, "SETTINGS of a wrong size", FRAME_SIZE_ERROR)
        if flags & ACK:
            peer.acknowledged()
            return
        peer.greeted = True
        peer.acknowledge()
        for name, value in frames.SETTING.iter_unpack(payload):
            if name == frames.HEADER_TABLE_SIZE:
                peer.encoder.resize(value)
            elif name == frames.INITIAL_WINDOW_SIZE:
                if value > WINDOW_LIMIT:
                    raise ConnectionFault(peer.side, "a first window beyond 2^31-1", FLOW_CONTROL_ERROR)
                self._first_window(peer, value)
            elif name == frames.MAX_FRAME_SIZE:
                if not frames.FRAME_LIMIT <= value < 1 << 24:
                    raise ConnectionFault(peer.side, "a largest frame out of bounds")
            elif name == frames.MAX_CONCURRENT_STREAMS:
                peer.streams_limit = value
            elif name == frames.ENABLE_PUSH and (value > 1 or (value and peer is self._server)):
                raise ConnectionFault(peer.side, "a setting for pushes that it must not have")

    def _first_window(self, peer: Peer, initial: int) -> None:
        """`peer` takes `initial` bytes of a new stream: its streams have a window that differs by as much, and the
        other side is told the same for its own."""
        change, peer.initial = initial - peer.initial, initial
        other = self._server if peer is self._client else self._client
        told = other.announce(min(initial, FIRST_LIMIT)) if other is self._client or self._linked else 0
        for stream in list(self._streams.values()):
            half = stream.down if peer is self._client else stream.up
            if stream.sent or half is stream.up:
                half.granted += told
                if half.granted > WINDOW_LIMIT:
                    raise ConnectionFault(peer.side, "a window that leaves no room to be ahead", FLOW_CONTROL_ERROR)
            if stream.sent or half is stream.down:
                half.window += change
                if half.window > WINDOW_LIMIT:
                    raise ConnectionFault(peer.side, "a window beyond 2^31-1", FLOW_CONTROL_ERROR)
            self._after_window(stream, half)

    def _window_update(self, peer: Peer, number: int, more: int) -> None:
        if number == 0:
            peer.window += more
            if not more or peer.window > WINDOW_LIMIT:
                raise ConnectionFault(peer.side, "a window beyond 2^31-1, or one more by nothing", FLOW_CONTROL_ERROR)
            for at in list(peer.blocked):
                stream = self._stream_of(peer, at)
                if stream is not None:
                    self._after_window(stream, peer.blocked[at])
            return
        stream = self._stream_of(peer, number)
        if stream is None:
            self._not_idle(peer, number)
            return
        half = stream.down if peer is self._client else stream.up
        half.window += more
        if not more or half.window > WINDOW_LIMIT:
            self._give_up(stream, peer.side, FLOW_CONTROL_ERROR if more else PROTOCOL_ERROR, "a wrong WINDOW_UPDATE")
            return
        self._after_window(stream, half)

    def _after_window(self, stream: Stream, half: Half) -> None:
        """Sends what waited for the window of `half`, and lets its sender go on."""
        if half.queued:
            half.drain()
            self._conclude_if_over(stream)
        if stream.sent or half is stream.up:
            self._grant(stream, half)

    def _grant(self, stream: Stream, half: Half) -> None:
        if half is stream.down:
            if not half.over:
                half.grant(stream.up.stream)
        elif not stream.sent:
            half.grant(stream.number, (BODY_LIMIT if stream.awaited else 0) - stream.held_size)
        else:
            half.grant(stream.number, AHEAD)

    def _stream_of(self, peer: Peer, number: int) -> Stream | None:
        return self._streams.get(number) if peer is self._client else self._by_server.get(number)

    def _not_idle(self, peer: Peer, number: int) -> None:
        """A frame on a stream that is over says nothing; on one that never began, its sender is lost."""
        begun = number <= self._last if peer is self._client else number < self._next_server
        if not begun or not number & 1:
            raise ConnectionFault(peer.side, "a frame on a stream that never began")

    def _data(self, peer: Peer, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        peer.receive_flow(size)
        if not number:
            raise ConnectionFault(peer.side, "DATA on no stream")
        data = unpadded(peer.side, flags, payload)
        end = flags & END_STREAM != 0
        if not data and not end:
            peer.moved_nothing()
        stream = self._stream_of(peer, number)
        if stream is None:
            self._not_idle(peer, number)
            peer.moved_nothing()
            return
        half = stream.up if peer is self._client else stream.down
        if half.ended:
            self._give_up(stream, peer.side, frames.STREAM_CLOSED, "DATA after its end")
            return
        if not half.take(size):
            self._give_up(stream, peer.side, FLOW_CONTROL_ERROR, "more DATA than the stream's window allows")
            return
        half.seen += len(data)
        half.ended = end
        if half.length >= 0 and (half.seen > half.length or (end and half.seen != half.length)):
            self._give_up(stream, peer.side, PROTOCOL_ERROR, "a body of another length than announced")
        elif half is stream.up:
            self._uploads = True
            self._asked_data(stream, data, end)
        else:
            self._answered_data(stream, data, end)

    def _reset(self, peer: Peer, number: int, payload: bytes) -> None:
        stream = self._stream_of(peer, number)
        if stream is None:
            self._not_idle(peer, number)
            return
        if not stream.concluded:
            self._resets += 1
            if self._resets > RESET_LIMIT:
                raise ConnectionFault(peer.side, f"more than {RESET_LIMIT} streams given up", ENHANCE_YOUR_CALM)
        other = self._server if peer is self._client else self._client
        number = stream.number if other is self._client else stream.up.stream
        if other is self._client or stream.sent:
            other.out.append(frames.frame(RST_STREAM, 0, number, payload))
        self._end(stream, frames.code_name(payload))

    def _give_up(self, stream: Stream, side: Side, code: int, reason: str) -> None:
        """`side` broke this stream. What it is about a request that was not judged yet is on record, as its refusal."""
        if side is _CLIENT and stream.state is WAITING:
            self._let_go(stream)
            stream.head = RequestHead(fault=reason, method=stream.head.method, facts=dict(stream.head.facts))
            stream.up.ended = stream.up.over = True
            if stream not in self._asked:
                self._asked.append(stream)
            return
        self._leave_server(stream, code if side is _SERVER else frames.CANCEL)
        if side is _SERVER and not stream.started and stream.state is OPEN:
            self._bad_gateway(stream, reason)
        else:
            self._client.out.append(frames.reset(stream.number, code))
            self._end(stream, frames.CODE_NAMES[code])

    def _leave_server(self, stream: Stream, code: int = frames.CANCEL) -> None:
        """Nothing more of the stream goes to the server, or comes from it."""
        if stream.sent and not (stream.up.over and stream.down.ended):
            self._server.out.append(frames.reset(stream.up.stream, code))
        self._by_server.pop(stream.up.stream, None)
        stream.sent = False
        stream.up.drop()
        self._let_go(stream)

    def _bad_gateway(self, stream: Stream, reason: str) -> None:
        """The server's answer cannot be one; nothing of it has gone on."""
        self._outcomes.append(Outcome(stream.exchange, "bad gateway", failed=True))
        self._leave_server(stream)
        words = b"the server broke HTTP/2: " + reason.encode()
        if stream.head.grpc is not None:
            fields = [(b":status", b"200"), (b"content-type", b"application/grpc")]
            self._answer(stream, [*fields, (b"grpc-status", b"13"), (b"grpc-message", words)], b"")
            return
        length = (b"content-length", b"%d" % len(words))
        fields = [(b":status", b"502"), (b"content-type", b"text/plain"), length]
        self._answer(stream, fields, b"" if stream.head.method == b"HEAD" else words)

    def _answer(self, stream: Stream, fields: Fields, body: bytes) -> None:
        """Ends the stream with an answer, or trailers, of our own."""
        stream.move(REFUSE)
        stream.concluded = stream.started = True
        stream.up.over = True
        stream.down.ended = True
        stream.down.head(self._client.encoder.encode(fields), end=not body)
        if body:
            stream.down.push(body, end=True)
        self._conclude_if_over(stream)

    # --- what is made of them, in `exchanges`

    def _client_head(self, number: int, fields: Fields, end: bool) -> None:
        raise NotImplementedError

    def _server_head(self, number: int, fields: Fields, end: bool) -> None:
        raise NotImplementedError

    def _asked_data(self, stream: Stream, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def _answered_data(self, stream: Stream, data: bytes, end: bool) -> None:
        raise NotImplementedError

    def _client_leaves(self) -> None:
        raise NotImplementedError

    def _server_leaves(self, payload: bytes) -> None:
        raise NotImplementedError

    # --- the end of streams

    def _let_go(self, stream: Stream) -> None:
        """Nothing of its body is held any more."""
        self._held -= stream.held_size
        stream.held, stream.held_size = [], 0
        if stream.awaited:
            stream.awaited = False
            self._awaited -= 1

    def _add(self, stream: Stream, events: list[Event]) -> None:
        """Hands on what is to be masked; after something that cannot be, nothing but the refusal follows."""
        self._events += events
        if events and type(events[-1]) is Unmaskable:
            stream.move(WITHHOLD)

    def _conclude_if_over(self, stream: Stream) -> None:
        if stream.down.over:
            if stream.state is REFUSED and not stream.up.ended:
                # RFC 9113 section 8.1: the answer is complete, and the rest of the request is not wanted.
                self._client.out.append(frames.reset(stream.number, frames.NO_ERROR))
                stream.up.ended = True
            elif not stream.concluded and stream.state is OPEN:
                self._conclude(stream)
            self._forget_if_done(stream)

    def _conclude(self, stream: Stream) -> None:
        """The answer is on its way in full."""
        stream.concluded = True
        if self._resets:
            self._resets -= 1
        answer = stream.answer
        if answer is None:
            return
        if answer.grpc is not None:
            status = stream.grpc_status or "no grpc-status"
            self._outcomes.append(Outcome(stream.exchange, status, failed=status != "0"))
        else:
            self._outcomes.append(Outcome(stream.exchange, str(answer.status), failed=answer.status >= 500))

    def _end(self, stream: Stream, status: str) -> None:
        """The stream is over before its time; `status` is what its exchange came to."""
        if stream.state in (OPEN, WITHHELD) and not stream.concluded:
            self._outcomes.append(Outcome(stream.exchange, status, failed=True))
        stream.concluded = True
        stream.up.drop()
        stream.down.drop()
        stream.up.ended = stream.down.ended = True
        self._forget_if_done(stream)

    def _forget_if_done(self, stream: Stream) -> None:
        if stream.up.ended and stream.up.over and stream.down.over and stream.number in self._streams:
            del self._streams[stream.number]
            for texts in (stream.asked_texts, stream.answered_texts):
                if texts is not None:
                    texts.forget()
            self._let_go(stream)
            self._by_server.pop(stream.up.stream, None)
            if stream.state is WAITING and stream in self._asked:
                self._asked.remove(stream)

    def _regrant(self) -> None:
        """Either side may send what the other takes of the connection as a whole."""
        client, server = self._client, self._server
        extra = HELD_LIMIT if self._awaited else ALL_AHEAD if self._uploads and self._linked else 0
        client.grant(server.window - server.queued - self._held + extra)
        if self._linked:
            server.grant(client.window - client.queued)
