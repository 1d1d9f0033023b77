"""Step 4 of 6, inspect: HTTP/1.1 exchanges, one at a time, with heads rebuilt and bodies framed anew.

Gets the bytes of both sides; hands on each request head for its verdict, then body pieces, and the answer as `Forward`
or, where it is to be masked, as `Text`. A pipelined request waits until the exchange before it is over. Never forwards
bytes that it has not parsed (RFC 9112).
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from http import HTTPStatus

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import (
    Event,
    Forward,
    Outcome,
    Refusal,
    Reply,
    Request,
    Rewrite,
    Rows,
    Switched,
    Text,
    Unmaskable,
)
from enforcer.protocols.http1.answer import Answer
from enforcer.protocols.http1.asking import Asking, rewrite_head
from enforcer.protocols.http1.fields import CHUNKED, LAST_CHUNK, LENGTH, chunk
from enforcer.protocols.http1.held import Held
from enforcer.protocols.http1.reader import AHEAD_PIECES, END, Piece, RequestReader, ResponseReader
from enforcer.protocols.http1.refusal import refusal
from enforcer.protocols.http1.request import RequestHead
from enforcer.protocols.websocket import WebSocketInspector
from enforcer.verdict import Denial

# Bytes a client may send ahead of the exchange in progress: pipelined requests, or a body while its verdict is awaited.
# The session stops reading meanwhile, so this is a few socket reads (uvloop: 256 KiB each).
AHEAD_LIMIT = 1024 * 1024
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# Bytes of a refused request's body that are read and dropped to keep the connection. nginx lingers for about as much.
DISCARD_LIMIT = 64 * 1024


class State(Enum):
    """Where the one exchange in progress stands."""

    __hash__ = object.__hash__  # members are singletons; Enum's own hash costs a Python call per look-up

    IDLE = "between exchanges"
    READING = "a request's body is awaited, for what it says"
    HELD = "a request waits for its verdict"
    OPEN = "allowed; the request's body is not complete"
    SENT = "allowed and complete; the answer is awaited"
    ANSWERED = "the answer is complete; the request's body is not"
    DRAINING = "refused; the rest of the request is dropped"
    WITHHELD = "the answer cannot be masked; awaits the refusal"
    CLOSED = "nothing follows"


class Input(Enum):
    """What moves an exchange."""

    __hash__ = object.__hash__

    HEAD = "a request begins whose body is to be read first"
    REQUEST = "a request was handed on"
    ALLOW = "it was allowed"
    REQUEST_END = "its last byte was handed on or dropped"
    RESPONSE_END = "the outcome was handed on"
    RESPONSE_LAST = "the same, and the connection ends with it"
    UNMASKABLE = "the answer was found to be unmaskable"
    REFUSE = "refused; the connection goes on"
    REFUSE_LAST = "refused; the connection ends"


TRANSITIONS: dict[State, dict[Input, State]] = {
    State.IDLE: {Input.HEAD: State.READING, Input.REQUEST: State.HELD, Input.REFUSE_LAST: State.CLOSED},
    State.READING: {Input.REQUEST: State.HELD, Input.REFUSE_LAST: State.CLOSED},
    State.HELD: {Input.ALLOW: State.OPEN, Input.REFUSE: State.DRAINING, Input.REFUSE_LAST: State.CLOSED},
    State.OPEN: {
        Input.REQUEST_END: State.SENT,
        Input.RESPONSE_END: State.ANSWERED,
        Input.RESPONSE_LAST: State.CLOSED,
        Input.UNMASKABLE: State.WITHHELD,
        Input.REFUSE: State.DRAINING,
        Input.REFUSE_LAST: State.CLOSED,
    },
    State.SENT: {
        Input.RESPONSE_END: State.IDLE,
        Input.RESPONSE_LAST: State.CLOSED,
        Input.UNMASKABLE: State.WITHHELD,
        Input.REFUSE: State.IDLE,
        Input.REFUSE_LAST: State.CLOSED,
    },
    State.ANSWERED: {Input.REQUEST_END: State.IDLE, Input.REFUSE_LAST: State.CLOSED},
    State.DRAINING: {Input.REQUEST_END: State.IDLE, Input.REFUSE_LAST: State.CLOSED},
    State.WITHHELD: {Input.REFUSE_LAST: State.CLOSED},
    State.CLOSED: {Input.REFUSE_LAST: State.CLOSED},
}


# The members by themselves: up to Python 3.11, `State.IDLE` runs a Python function each time.
IDLE, READING, HELD, OPEN, SENT, ANSWERED, DRAINING, WITHHELD, CLOSED = State
_REQUEST, _ALLOW, _REQUEST_END = Input.REQUEST, Input.ALLOW, Input.REQUEST_END
_RESPONSE_END, _RESPONSE_LAST = Input.RESPONSE_END, Input.RESPONSE_LAST
_CLIENT, _SERVER = Side.CLIENT, Side.SERVER

# Nothing of the client's is handed on in these: a verdict or an answer comes first.
_WAITING = (HELD, SENT)
# A refusal can still be this exchange's answer.
_ANSWERABLE = (IDLE, READING, HELD, OPEN, SENT, WITHHELD)


class Http1Inspector:
    """One connection's exchanges. See `enforcer.protocols.base.Inspector`."""

    name = "http"
    half_close = False
    rewrites = True
    multiplexed = False

    def __init__(self) -> None:
        self._state: State = IDLE
        self._requests = RequestReader()
        self._responses = ResponseReader()
        self._asked: deque[Piece] = deque()
        self._answers: deque[Event] = deque()
        self._exchange = 0
        self._request: RequestHead | None = None
        self._answer: Answer | None = None
        self._asking: Asking | None = None
        self._masked = False
        self._rewrite: Rewrite | None = None
        self._reads_bodies = False
        self._held: Held | None = None
        self._late: Outcome | None = None
        self._server_ended = False
        self._fault: ProtocolError | None = None

    # --- bytes in

    def read_bodies(self) -> None:
        self._reads_bodies = True

    def receive_data(self, side: Side, data: bytes) -> None:
        if self._state is CLOSED or self._fault is not None:
            return
        if side is _CLIENT:
            reader = self._requests
            if self._asked:
                self._bound_ahead(len(data))
            reader.receive(data)
            self._take_asked()
        else:
            self._responses.receive(data)
            self._take_answer()

    def receive_eof(self, side: Side) -> None:
        if self._state is CLOSED or self._fault is not None:
            return
        if side is _CLIENT:
            self._requests.receive_eof()
        else:
            self._server_ended = True
            self._responses.receive_eof()
            self._take_answer()

    def _take_asked(self) -> None:
        self._asked += self._requests.pieces
        self._requests.pieces.clear()

    def _bound_ahead(self, more: int) -> None:
        ahead = more + sum(len(piece) for piece in self._asked if isinstance(piece, bytes))
        if self._requests.fault is None and (ahead > AHEAD_LIMIT or len(self._asked) > AHEAD_PIECES):
            self._requests.fault = LimitExceeded(_CLIENT, "sent too much ahead of the exchange in progress")

    def _take_answer(self) -> None:
        if self._answer is not None and self._state is not WITHHELD:
            self._answers += self._answer.take(self._responses)

    # --- events out

    def next_event(self) -> Event | None:
        while self._answers:
            event = self._hand_on_answer()
            if event is not None:
                return event
        if self._fault is not None:
            raise self._fault
        if self._state in (CLOSED, WITHHELD):
            return None
        if self._responses.fault is not None:
            raise self._ended_by(self._responses.fault)
        while self._state not in _WAITING:
            if not (self._asked or (self._held is not None and self._held.pieces and self._state is not READING)):
                if self._requests.fault is not None:
                    raise self._ended_by(self._requests.fault)
                return None
            if self._state is IDLE and self._server_ended:
                return None  # nobody is left to ask
            event = self._hand_on_asked()
            if event is not None:
                return event
        return None

    def _hand_on_answer(self) -> Event | None:
        event = self._answers.popleft()
        if type(event) is Outcome:
            last = self._answer is None or self._answer.last
            if self._asking is not None and self._state is OPEN and not last:
                self._late = event  # an early answer; what is still to be rewritten belongs to the exchange
                return None
            self._answer = None
            self._move(_RESPONSE_LAST if last else _RESPONSE_END)
            if self._requests.beyond is not None and not self._responses.switched:
                self._requests.resume()
                self._take_asked()
        elif type(event) is Switched:
            self._switch(event)
        elif type(event) is Unmaskable:
            self._answers.clear()
            self._move(Input.UNMASKABLE)
        return event

    def _switch(self, event: Switched) -> None:
        """Fills in what goes on: what both ends sent beyond this protocol, and of a WebSocket the parser."""
        head = self._in_progress()
        event.client, event.server = self._requests.beyond or b"", self._responses.beyond
        if self._answer is not None:  # of a 101; the exchange of CONNECT is over
            facts = {"host": head.terms.host, "method": "WEBSOCKET", "path": head.target.partition("?")[0]}
            fields, masked, rewrite = head.terms.fields, self._masked, self._rewrite
            going_on = WebSocketInspector(self._exchange, head.target, facts, fields, masked=masked, rewrite=rewrite)
            if self._reads_bodies:
                going_on.read_bodies()
            event.inspector = going_on
            self._answer = None
            self._move(_RESPONSE_LAST)

    def _hand_on_asked(self) -> Event | None:
        """The client's next piece as an event; None where it yields none."""
        held = self._held
        if held is not None:
            if self._state is READING:
                return self._read_on(held)
            piece = held.pieces.popleft()
            if not held.pieces:
                self._held = None
        else:
            piece = self._asked.popleft()
        if type(piece) is RequestHead:
            return self._begin(piece)
        if self._state is DRAINING:
            if piece is END:
                self._move(_REQUEST_END)
            return None
        if self._asking is not None:
            return self._rewritten(self._asking, piece)
        if piece is END:
            self._move(_REQUEST_END)
        chunked = self._request is not None and self._request.terms.framing is CHUNKED
        if type(piece) is bytes:
            return Forward(_CLIENT, chunk(piece) if chunked else piece)
        return Forward(_CLIENT, LAST_CHUNK) if chunked else None

    def _begin(self, head: RequestHead) -> Event | None:
        """A request's head: its `Request`, or what is needed to have its body first."""
        self._exchange += 1
        self._request = head
        self._asking = None
        if not self._reads_bodies:
            self._move(_REQUEST)
            return self._asked_for(head, {})
        held = Held(head)
        if held.complete:
            self._move(_REQUEST)
            return self._asked_for(head, held.facts())
        self._held = held
        self._move(Input.HEAD)
        if head.terms.waits and not self._asked:
            return Reply(CONTINUE)
        return self._read_on(held)

    def _read_on(self, held: Held) -> Event | None:
        while self._asked and not held.complete:
            held.take(self._asked.popleft())
        if not held.complete:
            return None
        self._move(_REQUEST)
        return self._asked_for(held.head, held.facts())

    def _asked_for(self, head: RequestHead, more: dict[str, str]) -> Request:
        terms, tunnel = head.terms, head.tunnel
        if tunnel is None:
            facts = {"host": terms.host, "method": head.method, "path": head.target.partition("?")[0]}
        else:
            facts = {"method": head.method, "target": head.target}
        if more:
            facts |= more
        raw = head.render(masked=False) if self._held is None else self._render(head, masked=False)
        return Request(
            self._exchange,
            head.method,
            head.text,
            raw,
            facts=facts,
            fields=terms.fields,
            bodiless=not terms.has_body,
            tunnel=tunnel,
        )

    def _render(self, head: RequestHead, *, masked: bool) -> bytes:
        if self._held is not None and head.terms.waits:  # the body was asked for here
            return head.render_framed(head.terms.framing, head.terms.length, masked=masked)
        return head.render(masked=masked)

    def _rewritten(self, asking: Asking, piece: Piece) -> Event | None:
        """A piece of a body that is rewritten; with its end, where that is here too, so that it is masked once."""
        data = piece if type(piece) is bytes else b""
        final = piece is END
        queue = self._asked if self._held is None else self._held.pieces
        if not final and queue and queue[0] is END:
            queue.popleft()
            if not queue:
                self._held = None
            final = True
        event = asking.take(data, final)
        if type(event) is Unmaskable:
            self._answers.clear()
            self._move(Input.UNMASKABLE)
        elif final:
            self._move(_REQUEST_END)
            if self._late is not None:
                self._answers.append(self._late)
                self._late = None
        return event

    def _ended_by(self, fault: ProtocolError) -> ProtocolError:
        self._fault = fault
        return fault

    def _move(self, what: Input) -> None:
        self._state = TRANSITIONS[self._state][what]

    # --- the session's answers

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        self._move(_ALLOW)
        head = self._in_progress()
        self._masked, self._rewrite = masked, rewrite
        self._answer = Answer(request, head, masked=masked)
        self._responses.expect(head.method, head.terms.offer)
        if self._server_ended:
            self._responses.receive_eof()  # it closed while the request was judged
        if rewrite is None:
            return self._render(head, masked=True) if masked else request.raw
        rewritten = rewrite_head(head, rewrite, request.replaced)
        if not head.terms.has_body:
            return rewritten.render(masked=masked)
        self._asking = Asking(request.exchange, rewritten, masked=masked)
        if head.terms.waits and self._held is None and not self._asked:
            self._answers.append(Reply(CONTINUE))
        return b""

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """Answers the exchange in progress with the denial: 403, or 400 and 502 where a side broke the protocol or the
        server cannot be reached. The connection goes on where nothing of the request went to a server that lives, and
        its body is here already or short."""
        answerable = self._state in _ANSWERABLE and not (self._answer is not None and self._answer.started)
        if self._state is IDLE and self._fault is not None and self._fault.side is _SERVER:
            answerable = False  # no request is open: a response would be taken for the next one's
        unsent = self._state is HELD or (denial.unreachable and self._state in (OPEN, SENT))
        close = not (request is not None and unsent and self._fault is None and self._ends_soon())
        bodiless = self._state is not IDLE and self._request is not None and self._request.method == "HEAD"
        document = self._held.document if self._held is not None and self._state is HELD else b""
        self._move(Input.REFUSE_LAST if close else Input.REFUSE)
        self._answers.clear()
        self._answer = self._asking = None
        self._responses.forget()
        if self._requests.beyond is not None and not close:
            self._requests.resume()
            self._take_asked()
        if not answerable:
            return Refusal(b"", close=True)
        status = self._refusal_status(denial)
        return Refusal(refusal(status, denial, close=close, bodiless=bodiless, document=document), close)

    def _refusal_status(self, denial: Denial) -> HTTPStatus:
        if self._fault is not None:
            return HTTPStatus.BAD_REQUEST if self._fault.side is _CLIENT else HTTPStatus.BAD_GATEWAY
        return HTTPStatus.BAD_GATEWAY if denial.unreachable else HTTPStatus.FORBIDDEN

    def _ends_soon(self) -> bool:
        """Is the refused request's body here already, or short and on its way unasked?"""
        head = self._in_progress()
        if head.terms.close or self._server_ended:
            return False
        if any(piece is END for piece in (self._asked if self._held is None else self._held.pieces)):
            return True  # the first end in the queue is this request's
        return head.terms.framing is LENGTH and head.terms.length <= DISCARD_LIMIT and not head.terms.waits

    def _in_progress(self) -> RequestHead:
        if self._request is None:
            raise RuntimeError("no request was handed on")
        return self._request

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:  # noqa: ARG002 - the interface's
        raise TypeError("HTTP answers hold no rows")

    def encode_text(self, text: Text, data: bytes) -> bytes:
        if text.side is _CLIENT:
            if self._asking is None:
                raise RuntimeError("no request is being rewritten")
            return self._asking.encode(text, data)
        if self._answer is None:
            raise RuntimeError("no answer is being rewritten")
        return self._answer.encode(text, data)
