"""Step 4 of 6, inspect: one exchange's answer on its way to the client.

Gets what the response reader completed; hands on `Forward` where nothing is to be masked, else `Text` (its head is held
until the first of it is encoded, because only then is its length known) or `Unmaskable`, and the `Outcome`.
"""

from __future__ import annotations

from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Text, Unmaskable
from enforcer.protocols.http1.fields import CHUNKED, LAST_CHUNK, LENGTH, NONE, UNTIL_CLOSE, Framing, chunk
from enforcer.protocols.http1.reader import ResponseReader
from enforcer.protocols.http1.request import RequestHead
from enforcer.protocols.http1.response import ResponseHead, wide_characters

# A body's first bytes that tell wide characters; held back until there are so many.
_SNIFF = 4


class Answer:
    """The answer to `request`. `started`: its final head is on its way to the client. `last`: the connection ends with
    it."""

    __slots__ = (
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

    def __init__(self, exchange: int, request: RequestHead, *, masked: bool) -> None:
        self._exchange = exchange
        self._request = request
        self._masked = masked
        self._head: ResponseHead | None = None
        self._status = 0
        self._framing: Framing = NONE
        self._rewrite = False
        self._first: bytes | None = b""
        self.started = False
        self.last = request.terms.close

    def take(self, reader: ResponseReader) -> list[Event]:
        """The events that the last bytes completed: all of one read in one `Forward` or `Text`, so that a small answer
        is masked once and keeps its Content-Length."""
        events: list[Event] = []
        out: list[bytes] = []
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
                out.append(head.render(self._framing, head.length, close=self.last, masked=False))
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
            events.append(Outcome(self._exchange, str(self._status), failed=self._status >= 500))
        return events

    def encode(self, text: Text, data: bytes) -> bytes:
        """`data` in place of `text`'s, framed for the client, after the held head once there is something to send."""
        head = self._head
        if head is None:
            raise ValueError("no answer is being rewritten")
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
        self._framing = head.framing
        if head.framing is CHUNKED and self._request.terms.ancient:
            self._framing = UNTIL_CLOSE

    def _take_text(self, data: bytes, done: bool, events: list[Event]) -> None:
        """Adds a `Text` for `data`, or `Unmaskable` where head or first bytes say so; nothing after that matters."""
        head = self._head
        if head is None or not (data or done or head.unmaskable):
            return
        if head.unmaskable:
            events.append(Unmaskable(self._exchange, head.unmaskable))
            return
        if self._first is not None:
            data = self._first + data
            if len(data) < _SNIFF and not done:
                self._first = data
                return
            self._first = None
            if wide_characters(head.media, data):
                events.append(Unmaskable(self._exchange, "the answer is in UTF-16 or UTF-32"))
                return
        events.append(Text(self._exchange, head.media, data, done, data))

    def _framed(self, data: bytes, *, final: bool) -> bytes:
        if self._framing is not CHUNKED:
            return data
        return (chunk(data) if data else b"") + (LAST_CHUNK if final else b"")
