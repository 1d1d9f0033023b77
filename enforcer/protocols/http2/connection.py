"""Step 4 of 6, inspect: both connections of HTTP/2 that a session has, frame by frame (RFC 9113 sections 5 and 6).

Gets frames of either side; moves streams, windows and settings, and collects what goes to the other side. Requests that
are whole enough to be judged wait in `_asked`. Never hands on anything of a request itself: that is the inspector's.
"""

from __future__ import annotations

from collections import deque

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Outcome, Unmaskable
from enforcer.protocols.body_facts import is_read
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
    ResponseHead,
    read_request_head,
    read_response_head,
    read_trailers,
)
from enforcer.protocols.http2.peer import Half, Peer, unpadded
from enforcer.protocols.http2.stream import OPEN, REFUSE, REFUSED, WAITING, WITHHELD, WITHHOLD, Stream

# Streams a client may have open. RFC 9113 section 6.5.2 wants at least 100; nginx has 128, Apache 100.
STREAMS_LIMIT = 100
# Streams given up before their answer, more than were answered. Envoy counts 500 (CVE-2023-44487, "rapid reset"),
# nghttp2 allows bursts of 1,000.
RESET_LIMIT = 500
# Bytes of bodies, of one connection, that are awaited whole before their requests are judged.
HELD_LIMIT = 4 * 1024 * 1024
# Bytes of one such body; what is longer is judged without.
BODY_LIMIT = 1024 * 1024
# Heads remembered with what was judged of them.
_REMEMBERED = 64

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_FIXED_SIZES = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}


class Connection:
    """What `Http2Inspector` is built on. `_linked`: the server has been spoken to. `_leaving`: one side said GOAWAY; no
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
        self._reads_bodies = False
        # By the list that the decoder remembers, which is kept with them so that its id stays its own.
        self._heads: dict[tuple[int, bool], tuple[Fields, RequestHead]] = {}
        self._answers: dict[tuple[int, bytes, bool], tuple[Fields, ResponseHead]] = {}

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
        told = other.announce(initial) if other is self._client or self._linked else 0
        for stream in list(self._streams.values()):
            half = stream.down if peer is self._client else stream.up
            if stream.sent or half is stream.up:
                half.granted += told
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
            half.grant(stream.number)

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

    # --- the client's

    def _client_head(self, number: int, fields: Fields, end: bool) -> None:
        stream = self._streams.get(number)
        if stream is not None:
            self._client_trailers(stream, fields, end)
            return
        if not number & 1:
            raise ConnectionFault(_CLIENT, "a stream of an even number")
        if number <= self._last:
            self._client.moved_nothing()
            return
        self._last = number
        if self._leaving or len(self._streams) >= STREAMS_LIMIT:
            self._client.moved_nothing()
            self._client.out.append(frames.reset(number, frames.REFUSED_STREAM))
            return
        stream = self._streams[number] = Stream(number, self._judged(fields, end), self._client, self._server)
        up, head = stream.up, stream.head
        up.ended = end
        up.length = head.length
        if self._reads_bodies and not end and not head.fault and self._wants_body(head):
            stream.awaited = True
            self._awaited += 1
            self._grant(stream, up)
        else:
            self._asked.append(stream)

    def _wants_body(self, head: RequestHead) -> bool:
        return is_read(head.content_type) and head.grpc is None

    def _judged(self, fields: Fields, end: bool) -> RequestHead:
        key = id(fields), end
        known = self._heads.get(key)
        if known is not None:
            return known[1]
        if len(self._heads) >= _REMEMBERED:
            self._heads.clear()
        head = read_request_head(fields, self._client.decoder.secret, end=end)
        self._heads[key] = (fields, head)
        return head

    def _client_trailers(self, stream: Stream, fields: Fields, end: bool) -> None:
        try:
            if not end or stream.up.ended:
                raise ProtocolError(_CLIENT, "a second head")
            trailers = read_trailers(fields, _CLIENT)
            if stream.up.length not in (-1, stream.up.seen):
                raise ProtocolError(_CLIENT, "a body of another length than announced")
        except ProtocolError as error:
            self._give_up(stream, _CLIENT, PROTOCOL_ERROR, error.reason)
            return
        stream.up.ended = True
        if stream.state is OPEN:
            self._asked_end(stream, trailers)
            return
        stream.trailers = trailers
        self._asked_data(stream, b"", True)

    def _asked_end(self, stream: Stream, trailers: Fields) -> None:
        if stream.asked_texts is not None:
            self._add(stream, stream.asked_texts.end(trailers))
        else:
            stream.up.finish(trailers)
            self._forget_if_done(stream)

    def _asked_data(self, stream: Stream, data: bytes, end: bool) -> None:
        if stream.state is OPEN:
            if stream.asked_texts is not None:
                self._add(stream, stream.asked_texts.feed(data, end))
            else:
                stream.up.push(data, end=end)
            if end:
                self._forget_if_done(stream)
            else:
                self._grant(stream, stream.up)
            return
        if stream.state in (REFUSED, WITHHELD):
            if end:
                stream.up.over = True
                self._forget_if_done(stream)
            return
        stream.held.append(data)
        stream.held_size += len(data)
        self._held += len(data)
        if stream.awaited:
            if end or stream.held_size >= BODY_LIMIT or self._held >= HELD_LIMIT:
                stream.awaited = False
                self._awaited -= 1
                self._asked.append(stream)
            else:
                self._grant(stream, stream.up)

    def _let_go(self, stream: Stream) -> None:
        """Nothing of its body is held any more."""
        self._held -= stream.held_size
        stream.held, stream.held_size = [], 0
        if stream.awaited:
            stream.awaited = False
            self._awaited -= 1

    def _client_leaves(self) -> None:
        """It says so to us; the server need not take what it promised no one."""
        if self._linked and not self._leaving:
            self._server.out.append(frames.goaway(0, frames.NO_ERROR))
        self._leaving = True

    # --- the server's

    def _server_head(self, number: int, fields: Fields, end: bool) -> None:
        stream = self._by_server.get(number)
        if stream is None:
            self._not_idle(self._server, number)
            self._server.moved_nothing()
            return
        if stream.state is not OPEN:
            return
        try:
            if stream.answer is not None:
                self._server_trailers(stream, fields, end)
                return
            head = self._answer_judged(fields, stream.head.method, end)
        except ProtocolError as error:
            self._give_up(stream, _SERVER, PROTOCOL_ERROR, error.reason)
            return
        if head.interim:
            self._server.moved_nothing()
            stream.down.head(self._client.encoder.encode(head.render(masked=False)), end=False)
            return
        stream.answer = head
        stream.down.ended = end
        stream.down.length = 0 if head.bodiless else head.length
        if head.grpc is not None and end:
            stream.grpc_status = _status_in(fields)
        self._answered_head(stream, end)

    def _answer_judged(self, fields: Fields, method: bytes, end: bool) -> ResponseHead:
        key = id(fields), method, end
        known = self._answers.get(key)
        if known is not None:
            return known[1]
        if len(self._answers) >= _REMEMBERED:
            self._answers.clear()
        head = read_response_head(fields, self._server.decoder.secret, method, end=end)
        self._answers[key] = (fields, head)
        return head

    def _answered_head(self, stream: Stream, end: bool) -> None:
        raise NotImplementedError

    def _server_trailers(self, stream: Stream, fields: Fields, end: bool) -> None:
        down = stream.down
        if not end or down.ended:
            raise ProtocolError(_SERVER, "a second head")
        trailers = read_trailers(fields, _SERVER)
        if down.length not in (-1, down.seen):
            raise ProtocolError(_SERVER, "a body of another length than announced")
        down.ended = True
        if stream.answer is not None and stream.answer.grpc is not None:
            stream.grpc_status = _status_in(fields)
        if stream.answered_texts is not None:
            self._add(stream, stream.answered_texts.end(trailers))
        else:
            down.finish(trailers)
            self._conclude_if_over(stream)

    def _answered_data(self, stream: Stream, data: bytes, end: bool) -> None:
        if stream.state is not OPEN:
            return
        if stream.answer is None:
            self._give_up(stream, _SERVER, PROTOCOL_ERROR, "DATA before an answer's head")
            return
        if stream.answered_texts is not None:
            self._add(stream, stream.answered_texts.feed(data, end))
        else:
            stream.down.push(data, end=end)
        if end:
            self._conclude_if_over(stream)
        else:
            self._grant(stream, stream.down)

    def _server_leaves(self, payload: bytes) -> None:
        """Streams beyond the last that it takes were not looked at: they may be asked again (RFC 9113 section 6.8)."""
        last, code = frames.number(payload), frames.number(payload[4:])
        for stream in [one for number, one in self._by_server.items() if number > last]:
            self._client.out.append(frames.reset(stream.number, frames.REFUSED_STREAM))
            self._end(stream, "REFUSED_STREAM")
        if not self._leaving:
            self._leaving = True
            self._client.out.append(frames.goaway(self._last, code))

    def _server_gone(self) -> None:
        """Its connection ended: so do the answers that are not whole."""
        for stream in list(self._by_server.values()):
            if stream.down.ended or stream.state is not OPEN:
                stream.up.ended = stream.up.over = True  # nobody is left to take the rest
                self._forget_if_done(stream)
                continue
            if stream.started:
                self._client.out.append(frames.reset(stream.number, frames.INTERNAL_ERROR))
                self._end(stream, "server closed")
            else:
                self._bad_gateway(stream, "closed without an answer")
        if not self._leaving:
            self._leaving = True
            self._client.out.append(frames.goaway(self._last, frames.NO_ERROR))

    # --- the end of streams

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
            self._let_go(stream)
            self._by_server.pop(stream.up.stream, None)
            if stream.state is WAITING and stream in self._asked:
                self._asked.remove(stream)

    def _regrant(self) -> None:
        """Either side may send what the other takes of the connection as a whole."""
        client, server = self._client, self._server
        extra = HELD_LIMIT if self._awaited else 0
        client.grant(server.window - server.queued - self._held + extra)
        if self._linked:
            server.grant(client.window - client.queued)


def _status_in(fields: Fields) -> str:
    return next((value.decode("latin-1")[:20] for name, value in fields if name == b"grpc-status"), "")
