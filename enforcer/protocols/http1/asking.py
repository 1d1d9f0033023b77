"""Step 4 of 6, inspect: one request on its way to the server, where a rule rewrites what it says.

Gets an allowed head and its body as it comes; hands on `Text` (decoded), and frames what has become of it. The head is
held until the body is there, or too much of it to hold: only then is its length known, and until then nothing of a
request that cannot be rewritten has gone anywhere.
"""

from __future__ import annotations

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Event, Replaced, Rewrite, Text, Unmaskable
from enforcer.protocols.codings import CodingError, Decoder, Encoder
from enforcer.protocols.forms import named_field, named_pairs, rewrite_field, rewrite_target
from enforcer.protocols.http1.fields import CHUNKED, LAST_CHUNK, LENGTH, chunk
from enforcer.protocols.http1.request import RequestHead, read_terms
from enforcer.protocols.media import CHECKSUMS, SNIFF, wide_characters

# Bytes of a rewritten body that are held so that it keeps a Content-Length, which some servers insist on (RFC 9110
# section 15.5.12). API calls are smaller; of larger ones memory is held for no longer than it takes to see that.
HOLD_LIMIT = 1 << 20

# Never rewritten: whom and what the request is for, how it is framed and coded, and who asks. Credentials are a secret
# of the server's own, and a request without them is another one.
_KEPT = frozenset(
    (
        *(b"host", b"authorization", b"proxy-authorization", b"cookie", b"content-length", b"content-type"),
        *(b"content-encoding", b"accept-encoding", b"transfer-encoding", b"connection", b"upgrade", b"expect", b"te"),
        *(b"sec-websocket-key", b"sec-websocket-version", b"sec-websocket-protocol", b"range", b"if-range"),
    )
)
# Types under which programs send JSON without saying so: `curl -d` calls everything a form.
UNSURE = frozenset(("", "text/plain", "application/octet-stream", "application/x-www-form-urlencoded"))
_JSON = "application/json"


def rewrite_head(head: RequestHead, rewrite: Rewrite, replaced: Replaced | None = None) -> RequestHead:
    """`head` with its target and fields rewritten, those that `replaced` names for their names, and judged again as it
    then is. Raises what `rewrite` and `replaced` raise."""
    terms = head.terms
    fields = [
        (name, value if name.lower() in _KEPT else _rewritten(name, value, rewrite, replaced))
        for name, value in terms.fields
        if name.lower() not in CHECKSUMS
    ]
    said = head.target.startswith("/")
    target = rewrite_target(head.target, rewrite, named_pairs(replaced)) if said else head.target
    return RequestHead(head.method, target, read_terms("1.0" if terms.ancient else "1.1", fields), head.tunnel)


def _rewritten(name: bytes, value: bytes, rewrite: Rewrite, replaced: Replaced | None) -> bytes:
    new = named_field(name, value, replaced)
    return rewrite_field(value, rewrite) if new is None else new


class Asking:
    """Exchange `exchange`, whose `head` is rewritten already, and its body. `masked`: its answer is masked too."""

    __slots__ = (
        "_coded",
        "_decoder",
        "_encoder",
        "_exchange",
        "_first",
        "_head",
        "_masked",
        "_media",
        "_size",
        "_sniffed",
        "_started",
    )

    def __init__(self, exchange: int, head: RequestHead, *, masked: bool) -> None:
        body = head.terms.body
        self._exchange = exchange
        self._head = head
        self._masked = masked
        self._media = body.media
        self._decoder = Decoder(body.codings) if body.codings else None
        self._encoder = Encoder(body.codings) if body.codings else None
        self._first = b""
        self._sniffed = False
        self._coded: list[bytes] = []
        self._size = 0
        self._started = False

    def take(self, data: bytes, final: bool) -> Event | None:
        """The event for a piece of the body."""
        unmaskable = self._head.terms.body.unmaskable
        if not unmaskable and self._decoder is not None:
            try:
                data = self._decoder.feed(data, final)
            except CodingError as error:
                unmaskable = str(error)
        if not unmaskable and not self._sniffed:
            data = self._first + data
            if not final and (len(data) < SNIFF or not data.strip()):
                self._first = data
                if len(data) < HOLD_LIMIT:
                    return None
            self._sniffed = True
            if wide_characters(self._media, data):
                unmaskable = "it is in UTF-16 or UTF-32"
            elif self._media in UNSURE and data.lstrip()[:1] in (b"{", b"["):
                self._media = _JSON
        if unmaskable:
            return Unmaskable(self._exchange, f"the request: {unmaskable}")
        return Text(self._exchange, self._media, data, final, data, Side.CLIENT) if data or final else None

    def encode(self, text: Text, data: bytes) -> bytes:
        """`data` in place of `text`'s, framed for the server, after the held head once that can go."""
        if self._encoder is not None:
            data = self._encoder.feed(data, text.final)
        if self._started:
            return (chunk(data) if data else b"") + (LAST_CHUNK if text.final else b"")
        self._coded.append(data)
        self._size += len(data)
        if not text.final and self._size <= HOLD_LIMIT:
            return b""
        if not text.final and not self._head.terms.host:
            raise LimitExceeded(Side.CLIENT, f"a body of more than {HOLD_LIMIT} bytes to a server of HTTP/1.0")
        self._started = True
        body = b"".join(self._coded)
        self._coded.clear()
        if text.final:
            return self._head.render_framed(LENGTH, len(body), masked=self._masked) + body
        return self._head.render_framed(CHUNKED, 0, masked=self._masked) + chunk(body)
