"""Step 4 of 6, inspect: what the fields of a message say of its body: type, codings, and whether it can be read.

Gets the values of Content-Type and Content-Encoding; hands on a `Description`. The same for requests and answers, and
for parts of multipart bodies. Never sees a body but its first bytes.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from enforcer.protocols.codings import codings_of

# Charsets in which every ASCII character is its own byte and no byte of another one: what a byte scanner can read.
_CHARSET = re.compile(r"utf-?8|us-ascii|ascii|iso-?8859-\d{1,2}|latin-?1|windows-125\d|cp125\d")
_CHARSET_PARAMETER = re.compile(r";\s*charset\s*=\s*\"?([^\s;\"]*)", re.IGNORECASE)
# RFC 2046 section 5.1.1: 1 to 70 characters; in quotes where they are not a token.
_BOUNDARY_PARAMETER = re.compile(r";\s*boundary\s*=\s*(?:\"([^\"]*)\"|([^\s;\"]*))", re.IGNORECASE)
# RFC 4180 section 3: does the first line hold names?
_NAMELESS_PARAMETER = re.compile(r";\s*header\s*=\s*\"?absent\b", re.IGNORECASE)
_BOUNDARY = re.compile(r"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")

# Fields that are true of a body's very bytes, and so not of it rewritten: RFC 1864, RFC 9530, and the checksums by
# which the clients and servers of object stores (Amazon's, Google's, Azure's) throw away what does not fit.
CHECKSUMS = frozenset(
    (
        *(b"content-md5", b"digest", b"content-digest", b"repr-digest"),
        *(b"x-goog-hash", b"x-ms-blob-content-md5", b"x-ms-content-crc64"),
        *(b"x-amz-checksum-" + kind for kind in (b"crc32", b"crc32c", b"crc64nvme", b"sha1", b"sha256")),
    )
)

# A body's first bytes that tell wide characters.
SNIFF = 4


@dataclass(frozen=True, slots=True)
class Description:
    """`media`: the type without parameters, lower case, empty where there is none; of a multipart body with its
    boundary (`multipart/form-data; boundary=x`), of a table with `header=absent` where it says so. `codings`: in the
    order they were applied. `unmaskable`: why a body so described cannot be masked safely; empty where it can."""

    media: str
    codings: tuple[str, ...] = ()
    unmaskable: str = ""


@lru_cache(maxsize=256)
def describe(types: tuple[bytes, ...], encodings: tuple[bytes, ...]) -> Description:
    """Judges the values of Content-Type and Content-Encoding. Cached, as peers repeat them."""
    media = types[0].partition(b";")[0].strip(b" \t").decode("latin-1").lower() if types else ""
    codings = codings_of(encodings)
    if codings is None:
        return Description(media, (), "it is encoded in a way that is not read here")
    if media == "multipart/byteranges":
        return Description(media, codings, "it is a part of a document")
    if len(types) > 1:
        return Description(media, codings, "it has more than one Content-Type")
    parameters = types[0].decode("latin-1") if types else ""
    charsets = _CHARSET_PARAMETER.findall(parameters)
    if any(_CHARSET.fullmatch(charset.lower()) is None for charset in charsets):
        return Description(media, codings, "it is in a character set that is not read")
    if media.startswith("multipart/"):
        boundaries = [quoted or plain for quoted, plain in _BOUNDARY_PARAMETER.findall(parameters)]
        if len(boundaries) != 1 or _BOUNDARY.fullmatch(boundaries[0]) is None:
            return Description(media, codings, "it has parts without one valid boundary")
        media = f"{media}; boundary={boundaries[0]}"
    elif media.endswith("/csv") and _NAMELESS_PARAMETER.search(parameters):
        media = f"{media}; header=absent"
    return Description(media, codings)


def wide_characters(media: str, first: bytes) -> bool:
    """Do a body's first bytes (`SNIFF` of them) say UTF-16 or UTF-32, which no charset parameter announced? In both,
    ASCII text has NUL bytes among its first four (RFC 4627 section 3 detected JSON's encoding this way), or a byte
    order mark."""
    if first[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return True
    textual = media.startswith("text/") or "json" in media or "xml" in media or not media
    return textual and b"\0" in first[:SNIFF]
