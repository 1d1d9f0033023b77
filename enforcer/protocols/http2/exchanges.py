"""Step 4 of 6, inspect: what the frames of a stream say: requests and answers (RFC 9113 section 8).

Gets field blocks and DATA that belong to streams; judges heads, keeps bodies until their verdict, and sends them on or
has them rewritten. Requests that are whole enough to be judged wait in `_asked`. Never hands them on: that is the
inspector's.
"""

from __future__ import annotations

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.body_facts import is_read
from enforcer.protocols.http2 import frames
from enforcer.protocols.http2.compression import Fields
from enforcer.protocols.http2.connection import BODY_LIMIT, HELD_LIMIT, Connection
from enforcer.protocols.http2.frames import PROTOCOL_ERROR, ConnectionFault
from enforcer.protocols.http2.heads import (
    RequestHead,
    ResponseHead,
    read_request_head,
    read_response_head,
    read_trailers,
)
from enforcer.protocols.http2.stream import OPEN, REFUSED, WITHHELD, Stream

# Streams a client may have open. RFC 9113 section 6.5.2 wants at least 100; nginx has 128, Apache 100.
STREAMS_LIMIT = 100
# Heads remembered with what was judged of them.
_REMEMBERED = 64

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER


class Exchanges(Connection):
    """What `Http2Inspector` is built on."""

    def __init__(self) -> None:
        super().__init__()
        # By the list that the decoder remembers, which is kept with them so that its id stays its own.
        self._heads: dict[tuple[int, bool], tuple[Fields, RequestHead]] = {}
        self._answers: dict[tuple[int, bytes, bool], tuple[Fields, ResponseHead]] = {}

    def _answered_head(self, stream: Stream, end: bool) -> None:
        raise NotImplementedError

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
            if head.waits:
                self._go_on(stream)
        else:
            self._asked.append(stream)

    def _go_on(self, stream: Stream) -> None:
        """The client waits to be asked for its body, and the server is not asked yet."""
        stream.down.head(self._client.encoder.encode([(b":status", b"100")]), end=False)

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


def _status_in(fields: Fields) -> str:
    return next((value.decode("latin-1")[:20] for name, value in fields if name == b"grpc-status"), "")
