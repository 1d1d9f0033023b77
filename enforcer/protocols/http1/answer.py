"""Step 4 of 6, inspect: one exchange's answer on its way to the client.

Gets what the response reader completed; hands on `Forward` where nothing is to be masked, else `Text` (its head is held
until the first of it is encoded, because only then is its length known) or `Unmaskable`, and the `Outcome`.
"""

from __future__ import annotations

from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Request, Switched, Text, Unmaskable
from enforcer.protocols.codings import CodingError, Decoder, Encoder
from enforcer.protocols.http1.fields import CHUNKED, LAST_CHUNK, LENGTH, NONE, UNTIL_CLOSE, Framing, chunk
from enforcer.protocols.http1.reader import ResponseReader
from enforcer.protocols.http1.request import RequestHead
from enforcer.protocols.http1.response import ResponseHead, rewritten
from enforcer.protocols.http1.upgrade import SWITCHING
from enforcer.protocols.media import SNIFF, wide_characters


class Answer:
    """The answer to `request`. `answered`: what rewrites fields of its heads. `started`: its final head is on its way
    to the client. `last`: the connection ends with it."""

    __slots__ = (
        "_answered",
        "_clean",
        "_decoder",
        "_encoder",
        "_exchange",
        "_first",
        "_framing",
        "_head",
        "_masked",
        "_request",
        "_rewrite",
        "_status",
        "last",
        "started",
    )

    def __init__(self, asked: Request, request: RequestHead, *, masked: bool) -> None:
        self._exchange = asked.exchange
        self._request = request
        self._masked = masked
        self._answered = asked.answered
        self._clean = asked.clean
        self._head: ResponseHead | None = None
        self._status = 0
        self._framing: Framing = NONE
        self._rewrite = False
        self._first: bytes | None = b""
        self._decoder: Decoder | None = None
        self._encoder: Encoder | None = None
        self.started = False
        self.last = request.terms.close

    def take(self, reader: ResponseReader) -> list[Event]:
        """The events that the last bytes completed: all of one read in one `Forward` or `Text`, so that a small answer
        is masked once and keeps its Content-Length."""
        events: list[Event] = []
        out: list[bytes] = []
        if self._answered is not None:
            reader.interims[:] = [rewritten(head, self._answered, self._clean) for head in reader.interims]
            if reader.head is not None:
                reader.head = rewritten(reader.head, self._answered, self._clean)
        if reader.interims:
            if not self._request.terms.ancient:  # HTTP/1.0 knows none (RFC 9110 section 15.2)
                out += [head.render(NONE, 0, close=False, masked=False) for head in reader.interims]
            reader.interims.clear()
        head = reader.head
        if head is not None:
            reader.head = None
            self._begin(head)
            if not self._rewrite:
                self.started = True
                close = self.last and not reader.switched
                out.append(head.render(self._framing, head.length, close=close, masked=False))
        data = reader.take_body()
        done, reader.done = reader.done, False
        if not self._rewrite:
            out.append(self._framed(data, final=done))
        raw = b"".join(out)
        if raw:
            events.append(Forward(Side.SERVER, raw))
        if self._rewrite:
            self._take_text(data, done, events)
        if done:
            if self._status != SWITCHING:  # a WebSocket is part of the exchange that asked for it
                events.append(Outcome(self._exchange, str(self._status), failed=self._status >= 500))
            if reader.switched:
                events.append(Switched(self._exchange, None, b"", b""))
        return events

    def encode(self, text: Text, data: bytes) -> bytes:
        """`data` in place of `text`'s, framed for the client, after the held head once there is something to send."""
        head = self._head
        if head is None:
            raise ValueError("no answer is being rewritten")
        if self._encoder is not None:
            data = self._encoder.feed(data, text.final)
        if not self.started:
            if not data and not text.final:
                return b""
            self.started = True
            if text.final:
                self._framing = LENGTH
                return head.render(LENGTH, len(data), close=self.last, masked=True) + data
            self._framing = UNTIL_CLOSE if self._request.terms.ancient else CHUNKED
            return head.render(self._framing, 0, close=self.last, masked=True) + self._framed(data, final=False)
        return self._framed(data, final=text.final)

    def _begin(self, head: ResponseHead) -> None:
        self._head = head
        self._status = head.status
        self.last = self.last or head.close
        self._rewrite = self._masked and head.has_body
        if self._rewrite and head.body.codings:
            self._decoder, self._encoder = Decoder(head.body.codings), Encoder(head.body.codings)
        self._framing = head.framing
        if head.framing is CHUNKED and self._request.terms.ancient:
            self._framing = UNTIL_CLOSE

    def _take_text(self, data: bytes, done: bool, events: list[Event]) -> None:
        """Adds a `Text` for `data`, or `Unmaskable` where head, coding or first bytes say so; nothing after that
        matters."""
        head = self._head
        if head is None or not (data or done or head.body.unmaskable):
            return
        if head.body.unmaskable:
            events.append(Unmaskable(self._exchange, f"the answer: {head.body.unmaskable}"))
            return
        if self._decoder is not None:
            try:
                data = self._decoder.feed(data, done)
            except CodingError as error:
                events.append(Unmaskable(self._exchange, f"the answer: {error}"))
                return
        if self._first is not None:
            data = self._first + data
            if len(data) < SNIFF and not done:
                self._first = data
                return
            self._first = None
            if wide_characters(head.body.media, data):
                events.append(Unmaskable(self._exchange, "the answer: it is in UTF-16 or UTF-32"))
                return
        if data or done:
            events.append(Text(self._exchange, head.body.media, data, done, data))

    def _framed(self, data: bytes, *, final: bool) -> bytes:
        if self._framing is not CHUNKED:
            return data
        return (chunk(data) if data else b"") + (LAST_CHUNK if final else b"")
