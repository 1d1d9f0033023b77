"""Step 4 of 6, inspect: llhttp at work. Two readers, one per direction, turn bytes into heads and body pieces.

Gets the bytes of one side as they come; hands on judged heads, body data freed of its framing, and message ends. A
fault is kept, not raised: what came before it is still handed on first, so that the events do not depend on how the
bytes were cut. Never decides, answers or builds bytes for a peer.

What llhttp refuses by itself: bare LF and CR, folding, blanks around names and chunk sizes, NUL and control characters
in values, unknown methods, overflow of lengths. All of its leniency switches stay off.
"""

from __future__ import annotations

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpRequestParser,
    HttpResponseParser,
)

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http1.fields import CHUNKED, HEAD_LIMIT, LENGTH, UNTIL_CLOSE, Fields
from enforcer.protocols.http1.request import RequestHead, Terms, read_request_head, read_terms
from enforcer.protocols.http1.response import (
    MULTIPLE_CHOICES,
    OK,
    ResponseHead,
    read_response_head,
    read_switching_head,
)
from enforcer.protocols.http1.upgrade import CONNECT, SWITCHING, Offer

# Heads, ends and body pieces of a client's that wait for the exchanges before them: some 500 pipelined requests, each
# of which costs far more memory than its bytes. Browsers and load generators keep fewer than 100 in flight.
AHEAD_PIECES = 1024
# Bytes that a peer sends of another protocol before both ends have agreed on it: a few socket reads.
BEYOND_LIMIT = 1024 * 1024

_TOO_LONG = f"more than {HEAD_LIMIT} bytes of head, trailers or chunk extensions"


class _Reader:
    """What both directions share: field lines, the limit on bytes without progress, and faults.

    `in_message`: a message began and has not ended. `fault`: what ended this side, after everything handed on.
    """

    side: Side

    def __init__(self) -> None:
        self.in_message = False
        self.fault: ProtocolError | None = None
        self._fields: Fields = []
        # Bytes since the last head, body data or message end: bounds heads, trailers and chunk extensions alike,
        # which the parser collects or skips without telling us.
        self._silent = 0
        self._progress = False

    def on_header(self, name: bytes, value: bytes) -> None:
        self._fields.append((name, value))

    def _take_fields(self) -> Fields:
        """The finished head's field lines. Adds them up only where the bytes read could exceed the limit at all."""
        fields, self._fields = self._fields, []
        if self._silent > HEAD_LIMIT and sum(len(name) + len(value) + 4 for name, value in fields) > HEAD_LIMIT:
            raise LimitExceeded(self.side, _TOO_LONG)
        self._progress = True
        return fields

    def _feed(self, parser: HttpRequestParser | HttpResponseParser, data: bytes) -> int:
        """Feeds the parser; returns how many bytes it took (all, but for the bytes after an upgrade)."""
        self._progress = False
        before = self._silent
        self._silent = before + len(data)
        taken = len(data)
        try:
            parser.feed_data(data)
        except HttpParserUpgrade as switch:
            taken = switch.args[0]
        except HttpParserCallbackError as error:
            if not isinstance(error.__context__, ProtocolError):
                raise
            self.fault = error.__context__
        except HttpParserError as error:
            self.fault = ProtocolError(self.side, str(error))
        if self._progress:
            self._silent = 0
        elif before and self._silent > HEAD_LIMIT and self.fault is None:
            self.fault = LimitExceeded(self.side, _TOO_LONG)
        return taken


class End:
    """The end of a request's message, in the order of its heads and pieces."""


END = End()
Piece = RequestHead | bytes | End


class RequestReader(_Reader):
    """Reads the client's bytes. `pieces` collects heads, body data and message ends; the owner empties it. `beyond`:
    what has come after a request that another protocol may follow; None while there is none."""

    side = Side.CLIENT

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[Piece] = []
        self.beyond: bytes | None = None
        self._target = b""
        self._body: list[bytes] = []
        self._switching: RequestHead | None = None
        # The last head's version and fields and what they say: most clients repeat themselves to the byte.
        self._said: tuple[str, Fields] | None = None
        self._terms: Terms
        self._asked: tuple[bytes, bytes, Terms] | None = None
        self._head: RequestHead
        self._parser = HttpRequestParser(self)

    def receive(self, data: bytes) -> None:
        while data and self.fault is None:
            if self.beyond is not None:
                self.beyond += data
                if len(self.beyond) > BEYOND_LIMIT:
                    self.fault = LimitExceeded(Side.CLIENT, "sent too much before the protocol was switched")
                return
            taken = self._feed(self._parser, data)
            self._flush()
            if self._switching is not None and self.fault is None:
                if self._switching.switches:
                    self.pieces.append(END)
                    self.in_message, self.beyond = False, b""
                else:
                    self._stay_in_http(self._switching)
            data = data[taken:] if taken < len(data) else b""

    def resume(self) -> None:
        """The server did not switch: what came after the request is the next one."""
        beyond, self.beyond, self._switching = self.beyond, None, None
        self._parser = HttpRequestParser(self)
        if beyond:
            self.receive(beyond)

    def receive_eof(self) -> None:
        if self.in_message and self.fault is None:
            self.fault = ProtocolError(Side.CLIENT, "closed in the middle of a request")

    def on_message_begin(self) -> None:
        self.in_message = True

    def on_url(self, part: bytes) -> None:
        self._target += part

    def on_headers_complete(self) -> None:
        target, self._target = self._target, b""
        if self._switching is not None:  # the stand-in head of `_stay_in_http`; the real one was handed on
            self._switching = None
            self._fields.clear()
            return
        if len(self.pieces) > AHEAD_PIECES:
            raise LimitExceeded(Side.CLIENT, "more requests at once than are waited for")
        parser = self._parser
        fields = self._take_fields()
        said = (parser.get_http_version(), fields)
        if said != self._said:
            self._terms, self._said = read_terms(*said), said
        asked = (parser.get_method(), target, self._terms)
        if asked != self._asked:
            self._head, self._asked = read_request_head(*asked), asked
        head = self._head
        if (head.terms.upgrades or head.tunnel is not None) and parser.should_upgrade():
            self._switching = head
        elif head.switches:
            raise ProtocolError(Side.CLIENT, "another protocol asked for in a way that readers differ on")
        self.pieces.append(head)

    def on_body(self, data: bytes) -> None:
        self._progress = True
        self._body.append(data)

    def on_message_complete(self) -> None:
        if self._switching is not None:
            return  # llhttp believes another protocol follows; this message's body does
        self._progress = True
        self.in_message = False
        self._fields.clear()  # trailers
        self._flush()
        self.pieces.append(END)

    def _flush(self) -> None:
        """One piece for all body data of one read, however many chunks it came in."""
        if self._body:
            self.pieces.append(self._body[0] if len(self._body) == 1 else b"".join(self._body))
            self._body.clear()

    def _stay_in_http(self, head: RequestHead) -> None:
        """Goes on after a head that offered an upgrade. Upgrade is not forwarded, so the server reads the body that the
        head declares, while llhttp would skip it: a new parser gets a head with the same framing and no offer."""
        framing = b""
        if head.terms.framing is LENGTH:
            framing = b"Content-Length: %d\r\n" % head.terms.length
        elif head.terms.framing is CHUNKED:
            framing = b"Transfer-Encoding: chunked\r\n"
        close = b"Connection: close\r\n" if head.terms.close else b""
        self._parser = HttpRequestParser(self)
        self._parser.feed_data(b"POST / HTTP/1.1\r\n%b%b\r\n" % (framing, close))


class ResponseReader(_Reader):
    """Reads the server's bytes. `interims`, `head`, `body`, `done`: what the last `receive` completed; the owner takes
    them each time. `expect` comes before each answer: nothing may arrive unasked. `switched`: another protocol follows
    the answer, `beyond` is what has come of it."""

    side = Side.SERVER

    def __init__(self) -> None:
        super().__init__()
        self.interims: list[ResponseHead] = []
        self.head: ResponseHead | None = None
        self.body: list[bytes] = []
        self.done = False
        self.expecting = False
        self.switched = False
        self.beyond = b""
        self._method = ""
        self._offer: Offer | None = None
        self._heads_first = False
        self._reason = b""
        self._until_close = False
        # The last head's arguments and what they came to: a busy server repeats itself within one second of its Date.
        self._said: tuple[int, bytes, str, Fields, str] | None = None
        self._read: ResponseHead
        self._interim = False
        self._headless = b""
        self._parser = HttpResponseParser(self)

    def expect(self, method: str, offer: Offer | None = None) -> None:
        """An answer to a `method` request may arrive now, one that takes up `offer` included."""
        self.expecting = True
        self._offer = offer
        # What follows the head may be no HTTP, or a body that does not come: the head is read for itself.
        self._heads_first = offer is not None or method in ("HEAD", CONNECT)
        self._until_close = False
        self._method = method

    def forget(self) -> None:
        """The expected answer will not come: its request was not sent."""
        self.expecting = False

    def receive(self, data: bytes) -> None:
        if self.expecting and self._heads_first:
            self._receive_heads(data)
        elif self.expecting:
            self._feed(self._parser, data)
        elif self.switched:
            self.beyond += data
        elif data.strip(b"\r\n"):
            self.fault = ProtocolError(Side.SERVER, "sent bytes that no request asked for")

    def receive_eof(self) -> None:
        if not self.expecting:
            return
        if self._until_close:
            self.done, self.expecting, self.in_message = True, False, False
        elif self.in_message:
            self.fault = ProtocolError(Side.SERVER, "closed in the middle of a response")
        else:
            self.fault = ProtocolError(Side.SERVER, "closed without a response")

    def _receive_heads(self, data: bytes) -> None:
        """Answers to HEAD describe a body that does not follow, which llhttp cannot be told: each head gets a parser of
        its own, up to one that a body does follow. Heads end at the first empty line: llhttp takes no line end but
        CRLF."""
        data = self._headless + data
        while self.expecting and self._heads_first and self.fault is None:
            end = data.find(b"\r\n\r\n") + 4
            if end < 4:
                self._headless = data
                if len(data) > HEAD_LIMIT:
                    self.fault = LimitExceeded(Side.SERVER, _TOO_LONG)
                return
            self._feed(self._parser, data[:end])
            if self.in_message:
                self._heads_first = False
            else:
                self._parser = HttpResponseParser(self)
            data = data[end:]
        self._headless = b""
        if data and self.fault is None:
            self.receive(data)

    def take_body(self) -> bytes:
        """The body data since the last call, in one piece."""
        body = self.body
        if not body:
            return b""
        data = body[0] if len(body) == 1 else b"".join(body)
        body.clear()
        return data

    def on_message_begin(self) -> None:
        if not self.expecting:
            raise ProtocolError(Side.SERVER, "more bytes than the response announced")
        self.in_message = True

    def on_status(self, part: bytes) -> None:
        self._reason += part

    def on_headers_complete(self) -> None:
        parser = self._parser
        reason, self._reason = self._reason, b""
        if self._offer is not None and parser.get_status_code() == SWITCHING:
            self.head = read_switching_head(reason, parser.get_http_version(), self._take_fields(), self._offer)
            self.switched, self._interim = True, False
            return
        said = (parser.get_status_code(), reason, parser.get_http_version(), self._take_fields(), self._method)
        if said != self._said:
            self._read, self._said = read_response_head(*said), said
        head = self._read
        self._interim = head.interim
        if head.interim:
            self.interims.append(head)
            return
        self.head = head
        self._until_close = head.framing is UNTIL_CLOSE
        self.switched = self._method == CONNECT and OK <= head.status < MULTIPLE_CHOICES
        if self._method == "HEAD" or self.switched:
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        self._progress = True
        self.body.append(data)

    def on_message_complete(self) -> None:
        self._progress = True
        self.in_message = False
        self._fields.clear()  # trailers
        if not self._interim:
            self.done, self.expecting = True, False
