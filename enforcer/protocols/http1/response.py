"""Step 4 of 6, inspect: a response's head, judged strictly and built anew for the client.

Gets status, reason and fields as llhttp read them; hands on a `ResponseHead` that renders itself for the framing the
client gets, which differs from the server's where the body is rewritten or the client speaks HTTP/1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Answered
from enforcer.protocols.forms import answered_field, remember
from enforcer.protocols.http1.fields import (
    CHUNKED,
    HOP_BY_HOP,
    LENGTH,
    NONE,
    UNTIL_CLOSE,
    Fields,
    Framing,
    Treatment,
    body_length,
    closes,
    collect,
)
from enforcer.protocols.http1.upgrade import CONNECT, SWITCHING, Offer, agreed_lines
from enforcer.protocols.media import CHECKSUMS, Description, describe

_SERVER = Side.SERVER

# ASIDE: true of the bytes the server sent, so not of a body that was masked; Accept-Ranges invites asking for parts.
# Alt-Svc never goes on: it invites to HTTP/3 or to another host, and both are refused here (RFC 7838).
_TREATMENTS = (
    HOP_BY_HOP
    | dict.fromkeys(CHECKSUMS, Treatment.ASIDE)
    | {
        b"alt-svc": Treatment.DROP,
        b"content-length": Treatment.DROP,
        b"content-type": Treatment.NOTE,
        b"content-encoding": Treatment.NOTE,
        b"etag": Treatment.ASIDE,
        b"accept-ranges": Treatment.ASIDE,
    }
)
# Looked at where protocols are switched.
_UPGRADE_TREATMENTS = HOP_BY_HOP | {
    b"alt-svc": Treatment.DROP,
    b"content-length": Treatment.DROP,
    b"sec-websocket-accept": Treatment.NOTE,
    b"sec-websocket-extensions": Treatment.NOTE,
    b"sec-websocket-protocol": Treatment.NOTE,
}

# reason-phrase: tab, space, visible, obs-text (RFC 9112 section 4); llhttp admits control characters.
_REASON = re.compile(rb"[\t -~\x80-\xff]*")

OK = 200
NO_CONTENT = 204
PARTIAL = 206
MULTIPLE_CHOICES = 300
NOT_MODIFIED = 304


@dataclass(slots=True)
class ResponseHead:
    """A response's head, judged. `framing`/`length`: of the body as the server sends it.

    `close`: the server ends the connection after it. `body`: what is said of it.
    """

    status: int
    framing: Framing
    length: int
    close: bool
    body: Description
    start: bytes
    of_the_bytes: bytes

    @property
    def interim(self) -> bool:
        return self.status < 200 and self.status != SWITCHING

    @property
    def has_body(self) -> bool:
        return self.framing is not NONE and not (self.framing is LENGTH and self.length == 0)

    def render(self, framing: Framing, length: int, *, close: bool, masked: bool) -> bytes:
        """The head for the client, whose body follows in `framing` (`length` bytes where that is LENGTH)."""
        about = b"" if masked else self.of_the_bytes
        last = b"Connection: close\r\n\r\n" if close else b"\r\n"
        if framing is LENGTH:
            return b"%b%bContent-Length: %d\r\n%b" % (self.start, about, length, last)
        if framing is CHUNKED:
            return b"%b%bTransfer-Encoding: chunked\r\n%b" % (self.start, about, last)
        return b"%b%b%b" % (self.start, about, last)


def read_response_head(status: int, reason: bytes, version: str, fields: Fields, method: str) -> ResponseHead:
    """Judges the head that answers a `method` request. Raises ProtocolError or LimitExceeded (the server's)."""
    if version not in ("1.1", "1.0"):
        raise ProtocolError(_SERVER, "neither HTTP/1.1 nor HTTP/1.0")
    if status < 100:
        raise ProtocolError(_SERVER, "a status below 100")
    if status == SWITCHING:
        raise ProtocolError(_SERVER, "switches protocols though no upgrade was offered")
    if _REASON.fullmatch(reason) is None:
        raise ProtocolError(_SERVER, "a control character in the reason phrase")
    collected = collect(fields, _TREATMENTS, _SERVER)
    found = collected.found
    declared, length = body_length(found, version, _SERVER)
    if status < 200 and (declared is CHUNKED or length):
        # RFC 9110 section 15.2: it has none. llhttp would read one, in front of the answer that is to come.
        raise ProtocolError(_SERVER, "an interim answer with a body")
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason), *collected.passing]
    framing = UNTIL_CLOSE if declared is NONE else declared
    connected = method == CONNECT and OK <= status < MULTIPLE_CHOICES
    if status < OK or status in (NO_CONTENT, NOT_MODIFIED) or method == "HEAD" or connected:
        framing = NONE
        if declared is LENGTH and status >= OK and status != NO_CONTENT and not connected:
            lines.append(b"Content-Length: %d\r\n" % length)
    body = describe(tuple(found.get(b"content-type", ())), tuple(found.get(b"content-encoding", ())))
    if status == PARTIAL and not body.unmaskable:
        body = Description(body.media, body.codings, "it is a part of a document")
    return ResponseHead(
        status=status,
        framing=framing,
        length=length,
        close=framing is UNTIL_CLOSE or closes(found, version),
        body=body,
        start=b"".join(lines),
        of_the_bytes=b"".join(collected.aside),
    )


def rewritten(head: ResponseHead, answered: Answered, clean: set[object] | None) -> ResponseHead:
    """`head` with its fields as the client gets them. `answered`, `clean`: of its request."""
    if clean is not None and head.start in clean:
        return head
    first, *lines = head.start.removesuffix(b"\r\n").split(b"\r\n")
    version, status, reason = first.split(b" ", 2)
    out = [b"%b %b %b" % (version, status, answered_field(b"reason", reason, answered))]
    for line in lines:
        name, _, value = line.partition(b": ")
        out.append(b"%b: %b" % (name, answered_field(name, value, answered)))
    start = b"\r\n".join(out) + b"\r\n"
    if start != head.start:
        return replace(head, start=start)
    if clean is not None:
        remember(clean, start)
    return head


def read_switching_head(reason: bytes, version: str, fields: Fields, offer: Offer) -> ResponseHead:
    """Judges the head of a 101 that answers `offer`. Raises ProtocolError or LimitExceeded (the server's)."""
    if version != "1.1":
        raise ProtocolError(_SERVER, "switches protocols in another version than HTTP/1.1")
    if _REASON.fullmatch(reason) is None:
        raise ProtocolError(_SERVER, "a control character in the reason phrase")
    collected = collect(fields, _UPGRADE_TREATMENTS, _SERVER)
    agreed = agreed_lines(offer, collected.found)
    start = b"".join([b"HTTP/1.1 101 %b\r\n" % reason, *collected.passing, agreed])
    return ResponseHead(SWITCHING, NONE, 0, close=False, body=Description(""), start=start, of_the_bytes=b"")
