"""Step 4 of 6, inspect: a body that is rewritten on its way, in either direction of a stream.

Gets DATA as it comes; hands on `Text` or `Unmaskable`, and sends what became of it. The head is held until there is
something to send, because a length is known only then, and so that a refusal can still be an answer.
"""

from __future__ import annotations

from collections.abc import Callable

from enforcer.flow import Side
from enforcer.protocols.base import Event, Text, Unmaskable
from enforcer.protocols.codings import CodingError, Decoder, Encoder
from enforcer.protocols.http2.compression import Fields
from enforcer.protocols.http2.peer import Half
from enforcer.protocols.media import SNIFF, Description, wide_characters

# Bytes of a rewritten request that are held so that it keeps a Content-Length, which some servers insist on (RFC 9110
# section 15.5.12), as for HTTP/1.
HOLD_LIMIT = 1 << 20
# Types under which programs send JSON without saying so: `curl -d` calls everything a form.
_UNSURE = frozenset(("", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"))
# Between the values of trailers while they are masked: none holds a NUL.
_BETWEEN = b"\0"


class Texts:
    """The body of exchange `exchange` in the direction `half`. `body`: what its head says of it. `send_head` is
    called once, with the body's length where it is known by then, else -1."""

    def __init__(
        self,
        exchange: int,
        side: Side,
        half: Half,
        body: Description,
        send_head: Callable[[int], None],
    ) -> None:
        self.exchange = exchange
        self.side = side
        self.half = half
        self.media = body.media
        self.head_sent = False
        self.trailers: Fields | None = None
        self._send_head = send_head
        self._decoder = Decoder(body.codings) if body.codings else None
        self._encoder = Encoder(body.codings) if body.codings else None
        self._first: bytes | None = b""
        self._coded: list[bytes] = []
        self._size = 0
        self._body_done = False

    def feed(self, data: bytes, final: bool) -> list[Event]:
        """What to mask of `data`; `Unmaskable` is the last event of all."""
        if self._decoder is not None:
            try:
                data = self._decoder.feed(data, final)
            except CodingError as error:
                return [Unmaskable(self.exchange, str(error))]
        if self._first is not None:
            data = self._first + data
            blank = self.side is Side.CLIENT and len(data) < HOLD_LIMIT and not data.strip()
            if not final and (len(data) < SNIFF or blank):
                self._first = data
                return []
            self._first = None
            if wide_characters(self.media, data):
                return [Unmaskable(self.exchange, "it is in UTF-16 or UTF-32")]
            if self.side is Side.CLIENT and self.media in _UNSURE and data.lstrip()[:1] in (b"{", b"["):
                self.media = "application/json"
        if not data and not final:
            return []
        return [Text(self.exchange, self.media, data, final, data, self.side)]

    def end(self, trailers: Fields) -> list[Event]:
        """The sender ends with trailers, whose values are masked as well."""
        # What is encoded (`grpc-status-details-bin`) cannot be looked into.
        self.trailers = [one for one in trailers if not one[0].endswith(b"-bin")]
        events = self.feed(b"", True)
        if self.trailers and type(events[-1]) is Text:
            joined = _BETWEEN.join([value for _, value in self.trailers])
            events.append(Text(self.exchange, "trailers", joined, True, joined, self.side))
        return events

    def encode(self, text: Text, data: bytes) -> list[Event]:
        """Sends `data` in place of the text's, after the head. Returns `Unmaskable` where it cannot."""
        if self._body_done:
            self._encode_trailers(data)
        else:
            self._encode_body(text, data)
        return []

    def _encode_body(self, text: Text, data: bytes) -> None:
        final = text.final
        if self._encoder is not None:
            data = self._encoder.feed(data, final)
        if not self.head_sent and self.side is Side.CLIENT and not final:
            self._coded.append(data)
            self._size += len(data)
            if self._size <= HOLD_LIMIT:
                return
            data = b""
        if self._coded:
            data = b"".join(self._coded) + data
            self._coded = []
        if not data and not final:
            return
        last = final and not self.trailers
        if not self.head_sent:
            self.send_head(len(data) if last else -1)
        self._body_done = final
        if data or last:
            self.half.push(data, end=last)

    def forget(self) -> None:
        """The stream is over; nothing is held for it any more."""

    def send_head(self, length: int = -1) -> None:
        self.head_sent = True
        self._send_head(length)

    def _encode_trailers(self, data: bytes) -> None:
        """A value that vanished takes them all along: which is whose could only be guessed."""
        trailers = self.trailers or []
        values = data.split(_BETWEEN)
        if len(values) != len(trailers):
            values = [b""] * len(trailers)
        self.half.finish([(name, value) for (name, _), value in zip(trailers, values, strict=True)])
