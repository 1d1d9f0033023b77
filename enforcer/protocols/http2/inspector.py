"""Step 4 of 6, inspect: what a session sees of HTTP/2: requests to judge, texts to mask, bytes for either side.

Gets the bytes of both sides; hands on each request's head for its verdict, whatever the other streams do meanwhile.
Bytes for one side are collected over all frames of a read, and leave in the order in which their fields were coded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace
from http import HTTPStatus

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Refusal, Replaced, Request, Rewrite, Rows, Text, Unmaskable
from enforcer.protocols.body_facts import facts_of
from enforcer.protocols.codings import CodingError, Decoder
from enforcer.protocols.forms import answered_field, field_value, named_field, named_pairs, remember, rewrite_target
from enforcer.protocols.http2 import frames
from enforcer.protocols.http2.compression import HEAD_LIMIT, Block, Fields
from enforcer.protocols.http2.connection import BODY_LIMIT
from enforcer.protocols.http2.exchanges import STREAMS_LIMIT, Exchanges
from enforcer.protocols.http2.frames import PREFACE, ConnectionFault
from enforcer.protocols.http2.grpc import Budget, Messages
from enforcer.protocols.http2.heads import RequestHead, ResponseHead, rewritten
from enforcer.protocols.http2.peer import Half, Peer
from enforcer.protocols.http2.refusal import grpc_status, refusal
from enforcer.protocols.http2.stream import ALLOW, ASK, OPEN, Stream
from enforcer.protocols.http2.texts import Texts
from enforcer.verdict import Denial

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
# Fields that stay as they are though requests are masked: they say who asks and whom.
_KEPT = frozenset(
    (
        *(b"authorization", b"proxy-authorization", b"cookie", b"te", b"content-type", b"content-encoding"),
        *(b"accept-encoding", b"content-length", b"expect", b"range", b"if-range", b"grpc-encoding"),
    )
)
_GRPC_TRAILERS = (b"grpc-status", b"grpc-message", b"grpc-status-details-bin")

_TO_CLIENT = ((frames.MAX_CONCURRENT_STREAMS, STREAMS_LIMIT), (frames.MAX_HEADER_LIST_SIZE, HEAD_LIMIT))


class Http2Inspector(Exchanges):
    """One connection's exchanges. See `enforcer.protocols.base.Inspector`."""

    name = "http"
    half_close = False
    rewrites = True
    multiplexed = True

    def __init__(self) -> None:
        super().__init__()
        self._exchange = 0
        self._by_exchange: dict[int, Stream] = {}
        self._budget = Budget()
        self._closed = False
        self._fault: ProtocolError | None = None

    # --- bytes in

    def read_bodies(self) -> None:
        self._reads_bodies = True

    def receive_data(self, side: Side, data: bytes) -> None:
        if not self._closed and self._fault is None:
            (self._client if side is _CLIENT else self._server).receive(data)

    def receive_eof(self, side: Side) -> None:
        (self._client if side is _CLIENT else self._server).ended = True

    # --- events out

    def next_event(self) -> Event | None:
        events = self._events
        while not self._closed:
            if events:
                return events.popleft()
            if self._fault is not None:
                raise self._fault
            try:
                if self._step():
                    continue
            except ProtocolError as fault:
                self._break(fault)
                continue
            self._regrant()
            self._flush()
            if not events:
                return None
        return None

    def _step(self) -> bool:
        """Takes the next request whose turn it is, or the next frame; False where there is neither."""
        if self._asked and (not self._linked or len(self._by_server) < self._server.streams_limit):
            self._ask(self._asked.popleft())
            return True
        client = self._client
        if not self._begun:
            if not client.skip(PREFACE):
                return False
            self._begun = True
            client.unacknowledged = 1
            client.out.append(frames.settings(_TO_CLIENT))
        item = client.next_frame()
        if item is not None:
            self._frame(client, *item)
            return True
        server = self._server
        item = server.next_frame()
        if item is not None:
            if not self._linked:
                raise ConnectionFault(_SERVER, "speaks before it was asked")
            self._frame(server, *item)
            return True
        if client.ended and not client.gone:
            client.gone = True
            self._client_gone()
            return True
        if server.ended and not server.gone:
            server.gone = True
            self._server_gone()
            return True
        return False

    def _ask(self, stream: Stream) -> None:
        stream.move(ASK)
        self._exchange += 1
        stream.exchange = self._exchange
        head = stream.head
        self._by_exchange[stream.exchange] = stream
        asked = Request(stream.exchange, head.operation, head.text, b"", fields=head.fields, fault=head.fault)
        asked.facts = (
            head.facts | self._body_facts(stream) if self._reads_bodies and not head.fault else dict(head.facts)
        )
        asked.bodiless = stream.up.ended and not stream.held_size
        self._events.append(asked)

    def _body_facts(self, stream: Stream) -> dict[str, str]:
        """What target and body say. A body of a kind that is not read tells only that it is there."""
        head, body = stream.head, stream.head.body
        target = head.path.decode("ascii")
        if stream.up.ended and not stream.held_size:
            return facts_of(head.content_type, target, b"")
        if not self._wants_body(head):
            return facts_of(head.content_type, target, b"\0")
        why = body.unmaskable
        if not stream.up.ended:
            why = f"more than {BODY_LIMIT} bytes"
        data = b"".join(stream.held)
        if not why and body.codings:
            try:
                data = Decoder(body.codings).feed(data, True)
            except CodingError as error:
                why = str(error)
        if why or len(data) > BODY_LIMIT:
            return {"body": f"unread: {why or f'more than {BODY_LIMIT} bytes'}"}
        stream.document = data
        return facts_of(head.content_type, target, data)

    def _client_gone(self) -> None:
        """It can read on, and sends no more: a request that is not whole never will be."""
        for stream in list(self._streams.values()):
            if not stream.up.ended:
                if stream.sent:
                    self._server.out.append(frames.reset(stream.up.stream, frames.CANCEL))
                self._end(stream, "client closed")

    def _flush(self) -> None:
        """Hands on what this turn brought for either side, and the outcomes that are part of it."""
        for side, peer in ((_CLIENT, self._server), (_SERVER, self._client)):
            if peer.out:
                self._events.append(Forward(side, peer.take_out()))
        if self._outcomes:
            for outcome in self._outcomes:
                self._by_exchange.pop(outcome.exchange, None)
            self._events += self._outcomes
            self._outcomes = []

    def _break(self, fault: ProtocolError) -> None:
        """The connection is broken: the server is told, and the client by the refusal that follows."""
        if self._linked and not self._server.ended:
            code = fault.code if isinstance(fault, ConnectionFault) and fault.side is _SERVER else frames.NO_ERROR
            self._server.out.append(frames.goaway(0, code))
        self._flush()
        self._fault = fault

    # --- the session's answers

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        stream = self._by_exchange[request.exchange]
        head = stream.head
        fields = head.render(masked=masked)
        if rewrite is not None:
            fields = _rewrite(fields, rewrite, request.replaced)
        stream.move(ALLOW)
        if not self._linked:
            self._link()
        stream.masked = masked
        stream.answered, stream.clean = request.answered, request.clean
        if rewrite is not None and not (stream.up.ended and not stream.held):
            if head.waits and head.grpc is None and not stream.held_size:
                self._go_on(stream)  # the head waits here for the body
            self._rewrite_body(stream, fields)
        else:
            plain = not masked and rewrite is None
            self._send_head(
                stream, fields, plain=plain, end=stream.up.ended and not stream.held and not stream.trailers
            )
        self._send_held(stream)
        return self._server.take_out()

    def _link(self) -> None:
        """Begins the connection to the server, with the client's first window as ours."""
        server = self._server
        self._linked = True
        server.announced = self._client.initial
        server.unacknowledged = 1
        pairs = [(frames.ENABLE_PUSH, 0), (frames.MAX_HEADER_LIST_SIZE, HEAD_LIMIT)]
        if server.announced != frames.FIRST_WINDOW:
            pairs.append((frames.INITIAL_WINDOW_SIZE, server.announced))
        server.out += (PREFACE, frames.settings(tuple(pairs)))
        server.grant(self._client.window)

    def _send_head(self, stream: Stream, fields: Fields, *, plain: bool, end: bool) -> None:
        """`plain`: the fields are the head's own, so that the block may be what it was the last time."""
        server, head = self._server, stream.head
        stream.up.stream = self._next_server
        self._next_server += 2
        stream.up.window = server.initial
        stream.down.granted = server.announced
        stream.sent = True
        self._by_server[stream.up.stream] = stream
        head = stream.head
        block = (
            head.kept.encode(server.encoder, fields, head.secret)
            if plain
            else server.encoder.encode(fields, head.secret)
        )
        stream.up.head(block, end=end)

    def _rewrite_body(self, stream: Stream, fields: Fields) -> None:
        head = stream.head

        def send(length: int) -> None:
            self._send_head(stream, rewritten(fields, length), plain=False, end=False)

        stream.asked_texts = self._texts(stream, stream.up, head, send)
        if head.body.unmaskable:
            self._add(stream, [Unmaskable(stream.exchange, head.body.unmaskable)])

    def _send_held(self, stream: Stream) -> None:
        """The body that came before the verdict."""
        if stream.state is not OPEN:
            return
        held, ended, trailers = b"".join(stream.held), stream.up.ended, stream.trailers
        self._let_go(stream)
        if held or (ended and not stream.up.over and trailers is None):
            self._asked_data(stream, held, ended and trailers is None)
        if trailers is not None:
            self._asked_end(stream, trailers)

    def _answered_head(self, stream: Stream, end: bool) -> None:
        answer, answered = stream.answer, stream.answered
        if answer is None:
            return
        fields = tuple(answer.fields)
        if answered is not None and (stream.clean is None or fields not in stream.clean):
            said = [(name, answered_field(name, value, answered)) for name, value in fields]
            if said != answer.fields:
                answer = replace(answer, fields=said, kept=Block())
            elif stream.clean is not None:
                remember(stream.clean, fields)
        trailers: Fields | None = None
        if stream.masked and end and answer.grpc is not None:
            # A call that failed at once: what it says is masked as trailers are.
            trailers = [one for one in answer.fields if one[0] in _GRPC_TRAILERS]
            answer = replace(answer, fields=[one for one in answer.fields if one[0] not in _GRPC_TRAILERS])
        if trailers is not None or (stream.masked and not end and not answer.bodiless):

            def send(length: int) -> None:
                fields = answer.render(masked=True, length=length)
                stream.started = True
                stream.down.head(self._client.encoder.encode(fields, answer.secret), end=False)

            stream.answered_texts = self._texts(stream, stream.down, answer, send)
            if answer.body.unmaskable:
                self._add(stream, [Unmaskable(stream.exchange, answer.body.unmaskable)])
            elif trailers is not None:
                self._add(stream, stream.answered_texts.end(trailers))
            return
        stream.started = True
        stream.down.head(answer.kept.encode(self._client.encoder, answer.render(masked=False), answer.secret), end=end)
        if end:
            self._conclude_if_over(stream)

    def _texts(
        self, stream: Stream, half: Half, head: RequestHead | ResponseHead, send: Callable[[int], None]
    ) -> Texts:
        """What rewrites the body after `head`. Calls of gRPC may go to and fro, so their heads do not wait for it."""
        if head.grpc is None:
            return Texts(stream.exchange, half.sender.side, half, head.body, send)
        coding = next((value.decode("latin-1") for name, value in head.fields if name == b"grpc-encoding"), "")
        texts = Messages(stream.exchange, half, (head.grpc, coding), self._budget, send)
        texts.send_head()
        return texts

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:  # noqa: ARG002 - the interface's
        raise TypeError("HTTP answers hold no rows")

    def encode_text(self, text: Text, data: bytes) -> bytes:
        stream = self._by_exchange.get(text.exchange)
        if stream is None:
            return b""
        if text.side is _CLIENT:
            if stream.asked_texts is not None and not stream.up.over:
                self._add(stream, stream.asked_texts.encode(text, data))
                self._forget_if_done(stream)
            return self._server.take_out()
        if stream.answered_texts is not None and not stream.down.over:
            self._add(stream, stream.answered_texts.encode(text, data))
            self._conclude_if_over(stream)
        return self._client.take_out()

    # --- refusing

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """An answer on the request's stream, 403 or gRPC's PERMISSION_DENIED, and all else goes on; in mid-answer that
        stream is reset. Without a request: GOAWAY, with the denial as its words."""
        if request is None:
            return self._refuse_all(denial)
        stream = self._by_exchange.pop(request.exchange, None)
        if stream is None:
            return Refusal(b"", close=False)
        if denial.unreachable:
            self._unlink(stream)
        self._events = deque([event for event in self._events if not _is_of(event, stream.exchange)])
        self._leave_server(stream)
        status = HTTPStatus.BAD_GATEWAY if denial.unreachable else stream.head.status
        if not stream.started:
            fields, body = refusal(stream.head, status, denial, stream.document)
            self._answer(stream, fields, body)
        elif stream.head.grpc is not None and not stream.down.queued and not stream.down.over:
            self._answer(stream, grpc_status(status, denial), b"")
        else:
            self._client.out.append(frames.reset(stream.number, frames.INTERNAL_ERROR))
            self._end(stream, "")
        return Refusal(self._client.take_out(), close=False)

    def _refuse_all(self, denial: Denial) -> Refusal:
        """Whoever has no answer yet gets one, where that can tell more than GOAWAY does."""
        fault, client = self._fault, self._client
        if not self._begun:
            client.out.append(frames.settings(_TO_CLIENT))
        of_client = fault is not None and fault.side is _CLIENT
        if not of_client and not self._closed:
            status = HTTPStatus.FORBIDDEN if fault is None else HTTPStatus.BAD_GATEWAY
            for stream in list(self._streams.values()):
                if not stream.started:
                    stream.down.drop()
                    stream.down.over = False
                    self._answer(stream, *refusal(stream.head, status, denial))
        code = frames.INTERNAL_ERROR
        if of_client:
            code = fault.code if isinstance(fault, ConnectionFault) else frames.ENHANCE_YOUR_CALM
        client.out.append(frames.goaway(self._last, code, denial.title))
        self._closed = True
        self._events.clear()
        self._streams.clear()
        self._asked.clear()
        return Refusal(client.take_out(), close=True)

    def _unlink(self, refused: Stream) -> None:
        """The server was never reached: what was meant for it is forgotten, and the next one is begun anew."""
        self._server = Peer(_SERVER)
        self._linked = False
        self._by_server.clear()
        self._next_server = 1
        refused.sent = False
        for stream in self._streams.values():
            stream.up.receiver = stream.down.sender = self._server


def _rewrite(fields: Fields, rewrite: Rewrite, replaced: Replaced | None) -> Fields:
    """What a request's own fields say, with values hidden, those that `replaced` names for their names."""
    out: Fields = []
    pairs = named_pairs(replaced)
    for name, value in fields:
        if name == b":path":
            target = value.decode("ascii")
            out.append((name, rewrite_target(target, rewrite, pairs).encode("ascii") if target[:1] == "/" else value))
        elif name[:1] == b":" or name in _KEPT:
            out.append((name, value))
        else:
            new = named_field(name, value, replaced)
            out.append((name, field_value(rewrite(value)) if new is None else new))
    return out


def _is_of(event: Event, exchange: int) -> bool:
    return isinstance(event, Request | Text | Unmaskable) and event.exchange == exchange
