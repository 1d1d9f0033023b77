"""Step 4 of 6, inspect: a response's head, judged strictly and built anew for the client.

Gets status, reason and fields as llhttp read them; hands on a `ResponseHead` that renders itself for the framing the
client gets, which differs from the server's where the body is rewritten or the client speaks HTTP/1.0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from enforcer.errors import ProtocolError
from enforcer.flow import Side
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

_SERVER = Side.SERVER

# ASIDE: true of the bytes the server sent, so not of a body that was masked; Accept-Ranges invites asking for parts.
# Alt-Svc never goes on: it invites to HTTP/3 or to another host, and both are refused here (RFC 7838).
_TREATMENTS = HOP_BY_HOP | {
    b"alt-svc": Treatment.DROP,
    b"content-length": Treatment.DROP,
    b"content-type": Treatment.NOTE,
    b"content-encoding": Treatment.NOTE,
    b"etag": Treatment.ASIDE,
    b"content-md5": Treatment.ASIDE,
    b"digest": Treatment.ASIDE,
    b"repr-digest": Treatment.ASIDE,
    b"content-digest": Treatment.ASIDE,
    b"accept-ranges": Treatment.ASIDE,
    # Checksums of object stores, by which their clients throw away what does not fit: Amazon's, Google's, Azure's.
    b"x-amz-checksum-crc32": Treatment.ASIDE,
    b"x-amz-checksum-crc32c": Treatment.ASIDE,
    b"x-amz-checksum-crc64nvme": Treatment.ASIDE,
    b"x-amz-checksum-sha1": Treatment.ASIDE,
    b"x-amz-checksum-sha256": Treatment.ASIDE,
    b"x-goog-hash": Treatment.ASIDE,
    b"x-ms-blob-content-md5": Treatment.ASIDE,
    b"x-ms-content-crc64": Treatment.ASIDE,
}

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
    lines = [b"HTTP/1.1 %d %b\r\n" % (status, reason), *collected.passing]
    framing = UNTIL_CLOSE if declared is NONE else declared
    if status < 200 or status in (NO_CONTENT, NOT_MODIFIED) or method == "HEAD":
        framing = NONE
        if declared is LENGTH and status >= 200 and status != NO_CONTENT:
            lines.append(b"Content-Length: %d\r\n" % length)
    media, unmaskable = _description(tuple(found.get(b"content-type", ())), tuple(found.get(b"content-encoding", ())))
    return ResponseHead(
        status=status,
        framing=framing,
        length=length,
        close=framing is UNTIL_CLOSE or closes(found, version),
        media=media,
        unmaskable="the answer is a part of a document" if status == PARTIAL else unmaskable,
        start=b"".join(lines),
        of_the_bytes=b"".join(collected.aside),
    )


@lru_cache(maxsize=256)
def _description(types: tuple[bytes, ...], encodings: tuple[bytes, ...]) -> tuple[str, str]:
    """The media type, and why a body so described cannot be masked safely, or nothing. Cached, as servers repeat it."""
    media = types[0].partition(b";")[0].strip(b" \t").decode("latin-1").lower() if types else ""
    if any(value.lower() not in (b"", b"identity") for value in encodings):
        return media, "the answer is compressed although identity was asked for"
    if media == "multipart/byteranges":
        return media, "the answer is a part of a document"
    if len(types) > 1:
        return media, "the answer has more than one Content-Type"
    charsets = [charset for value in types for charset in _CHARSET_PARAMETER.findall(value.decode("latin-1"))]
    if any(_CHARSET.fullmatch(charset.lower()) is None for charset in charsets):
        return media, "the answer is in a character set that is not read"
    return media, ""


def wide_characters(media: str, first: bytes) -> bool:
    """Do a body's first bytes say UTF-16 or UTF-32, which no charset parameter announced? In both, ASCII text has NUL
    bytes among its first four (RFC 4627 section 3 detected JSON's encoding this way), or a byte order mark."""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    textual = media.startswith("text/") or "json" in media or "xml" in media or not media
    return textual and b"\0" in first[:4]
