"""Step 4 of 6, inspect: a response's head, judged strictly and built anew for the client.

Gets status, reason and fields as llhttp read them; hands on a `ResponseHead` that renders itself for the framing the
client gets, which differs from the server's where the body is rewritten or the client speaks HTTP/1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http1.fields import HOP_BY_HOP, Fields, Framing, body_length, closes, collect, render_found

# True of the bytes the server sent, so not of a body that was masked; `Accept-Ranges` invites asking for parts.
_OF_THE_BYTES = {
    b"etag": b"ETag",
    b"content-md5": b"Content-MD5",
    b"digest": b"Digest",
    b"repr-digest": b"Repr-Digest",
    b"content-digest": b"Content-Digest",
    b"accept-ranges": b"Accept-Ranges",
}
# Alt-Svc never goes on: it invites to HTTP/3 or to another host, and both are refused here (RFC 7838).
_DESCRIPTION = {b"content-type": b"Content-Type", b"content-encoding": b"Content-Encoding"}
_SPECIAL = HOP_BY_HOP | _OF_THE_BYTES.keys() | _DESCRIPTION.keys() | {b"content-length", b"alt-svc"}

# reason-phrase: tab, space, visible, obs-text (RFC 9112 section 4); llhttp admits control characters.
_REASON = re.compile(rb"[\t -~\x80-\xff]*")
# Charsets in which every ASCII character is its own byte and no byte of another one: what a byte scanner can read.
_CHARSET = re.compile(r"utf-?8|us-ascii|ascii|iso-?8859-\d{1,2}|latin-?1|windows-125\d|cp125\d")
_CHARSET_PARAMETER = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)

SWITCHING = 101
NO_CONTENT = 204
PARTIAL = 206
NOT_MODIFIED = 304


@dataclass(slots=True)
class ResponseHead:
    """A response's head, judged. `framing`/`length`: of the body as the server sends it.

    `close`: the server ends the connection after it. `media`: the Content-Type without parameters, lower case, empty
    where there is none. `unmaskable`: why its body cannot be masked; empty where it can.
    """

    status: int
    framing: Framing
    length: int
    close: bool
    media: str
    unmaskable: str
    start: bytes
    of_the_bytes: bytes

    @property
    def interim(self) -> bool:
        return self.status < 200

    @property
    def has_body(self) -> bool:
        return self.framing is not Framing.NONE and not (self.framing is Framing.LENGTH and self.length == 0)

    def render(self, framing: Framing, length: int, *, close: bool, masked: bool) -> bytes:
        """The head for the client, whose body follows in `framing` (`length` bytes where that is LENGTH)."""
        about = b"" if masked else self.of_the_bytes
        last = b"Connection: close\r\n\r\n" if close else b"\r\n"
        if framing is Framing.LENGTH:
            return b"%b%bContent-Length: %d\r\n%b" % (self.start, about, length, last)
        if framing is Framing.CHUNKED:
            return b"%b%bTransfer-Encoding: chunked\r\n%b" % (self.start, about, last)
        return b"%b%b%b" % (self.start, about, last)


def read_response_head(status: int, reason: bytes, version: str, fields: Fields, method: str) -> ResponseHead:
    """Judges the head that answers a `method` request. Raises ProtocolError or LimitExceeded (the server's)."""
    if version not in ("1.1", "1.0"):
        raise ProtocolError(Side.SERVER, "neither HTTP/1.1 nor HTTP/1.0")
    if status < 100:
        raise ProtocolError(Side.SERVER, "a status below 100")
    if status == SWITCHING:
        raise ProtocolError(Side.SERVER, "switches protocols though no upgrade was offered")
    if _REASON.fullmatch(reason) is None:
        raise ProtocolError(Side.SERVER, "a control character in the reason phrase")
    passing, found = collect(fields, _SPECIAL, Side.SERVER)
    declared, length = body_length(found, version, Side.SERVER)
    close = closes(found, version)
    pieces = [b"HTTP/1.1 %d %b\r\n" % (status, reason), *passing]
    pieces.append(render_found(found, _DESCRIPTION))
    if status < 200 or status in (NO_CONTENT, NOT_MODIFIED) or method == "HEAD":
        framing = Framing.NONE
        if declared is Framing.LENGTH and status >= 200 and status != NO_CONTENT:
            pieces.append(b"Content-Length: %d\r\n" % length)
    else:
        framing = Framing.UNTIL_CLOSE if declared is Framing.NONE else declared
    types = found.get(b"content-type", [])
    return ResponseHead(
        status=status,
        framing=framing,
        length=length,
        close=close or framing is Framing.UNTIL_CLOSE,
        media=types[0].partition(b";")[0].strip(b" \t").decode("latin-1").lower() if types else "",
        unmaskable=_unmaskable(status, types, found.get(b"content-encoding", [])),
        start=b"".join(pieces),
        of_the_bytes=render_found(found, _OF_THE_BYTES),
    )


def _unmaskable(status: int, types: list[bytes], encodings: list[bytes]) -> str:
    """Why a body so described cannot be masked safely, or nothing."""
    if any(value.lower() not in (b"", b"identity") for value in encodings):
        return "the answer is compressed although identity was asked for"
    if status == PARTIAL or any(value.lower().startswith(b"multipart/byteranges") for value in types):
        return "the answer is a part of a document"
    if len(types) > 1:
        return "the answer has more than one Content-Type"
    for value in types:
        charsets = _CHARSET_PARAMETER.findall(value.decode("latin-1"))
        if any(_CHARSET.fullmatch(charset.lower()) is None for charset in charsets):
            return "the answer is in a character set that is not read"
    return ""


def wide_characters(media: str, first: bytes) -> bool:
    """Do a body's first bytes say UTF-16 or UTF-32, which no charset parameter announced? In both, ASCII text has NUL
    bytes among its first four (RFC 4627 section 3 detected JSON's encoding this way), or a byte order mark."""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    textual = media.startswith("text/") or "json" in media or "xml" in media or not media
    return textual and b"\0" in first[:4]
