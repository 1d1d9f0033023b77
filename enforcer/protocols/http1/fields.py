"""Step 4 of 6, inspect: what both heads of HTTP/1 share: framing, field collection, Connection, and their limits.

Gets field lines as llhttp validated them (token names, no control characters, no folding, CRLF only); sorts the few
that mean something to a proxy from the many that only pass through. Never forwards a hop-by-hop field.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side

# Bytes of a head's field lines and start line together. AWS ALB and Node's --max-http-header-size allow up to 64 KiB,
# nginx 32 KiB, Apache 100 lines of 8 KiB.
HEAD_LIMIT = 64 * 1024
# Bytes of the request target. nginx and Apache stop at 8 KiB; signed object-store URLs and OData queries exceed that.
TARGET_LIMIT = 16 * 1024
# Field lines of one head. Apache: 100, Go's HTTP/2 and Envoy: 100, Node: 2000.
FIELD_LIMIT = 128
# Digits of a Content-Length: all of a signed 64-bit integer that cannot overflow (RFC 9110 section 8.6).
LENGTH_DIGITS = 18

Fields = list[tuple[bytes, bytes]]


class Framing(Enum):
    """How a message's body ends (RFC 9112 section 6.3)."""

    NONE = "no body"
    LENGTH = "Content-Length"
    CHUNKED = "chunked"
    UNTIL_CLOSE = "until the connection closes"


# The members by themselves: up to Python 3.11, `Framing.NONE` runs a Python function each time.
NONE, LENGTH, CHUNKED, UNTIL_CLOSE = Framing


class Treatment(Enum):
    """What becomes of a field that is not simply passed through."""

    DROP = "its value is looked at, its line is not forwarded"
    NOTE = "its value is looked at, its line is forwarded"
    ASIDE = "its line is forwarded unless the body is to be masked"
    ASKED = "the same, and its value is looked at"


_NOTE, _ASIDE, _ASKED = Treatment.NOTE, Treatment.ASIDE, Treatment.ASKED

# Never forwarded (RFC 9110 section 7.6.1), whether Connection lists them or not. `http2-settings` belongs to the h2c
# upgrade, `trailer` to the trailers that re-framing drops.
HOP_BY_HOP = dict.fromkeys(
    (
        b"connection",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"http2-settings",
    ),
    Treatment.DROP,
)
# Fields that a message cannot lose without meaning something else: listing one in Connection is an attack on the
# next reader ("hop-by-hop abuse"), never a mistake of a client that works.
_UNLISTABLE = frozenset((b"host", b"content-length", b"transfer-encoding"))


# Connection values that list no field, as nearly all messages carry them, and whether they end the connection.
_USUAL_OPTIONS = {b"close": True, b"Close": True, b"keep-alive": False, b"Keep-Alive": False}


@dataclass(slots=True)
class Collected:
    """A head's fields, sorted. `passing`, `aside`: field lines, ready to join. `found`: values of the looked-at fields,
    by lower-case name, stripped, in order of appearance."""

    passing: list[bytes]
    aside: list[bytes]
    found: dict[bytes, list[bytes]]


def collect(fields: Fields, treatments: dict[bytes, Treatment], side: Side) -> Collected:
    """Sorts `fields` by the treatment of their lower-case names; those that Connection lists are left out altogether.

    Raises ProtocolError for a list that would change the message's meaning, LimitExceeded for too many fields.
    """
    if len(fields) > FIELD_LIMIT:
        raise LimitExceeded(side, f"more than {FIELD_LIMIT} header fields")
    passing: list[bytes] = []
    aside: list[bytes] = []
    found: dict[bytes, list[bytes]] = {}
    treatment_of = treatments.get
    for name, value in fields:
        lower = name.lower()
        treatment = treatment_of(lower)
        if treatment is None:
            passing += (name, b": ", value, b"\r\n")
        elif treatment is _ASIDE:
            aside += (name, b": ", value, b"\r\n")
        else:
            if treatment is _NOTE:
                passing += (name, b": ", value, b"\r\n")
            elif treatment is _ASKED:
                aside += (name, b": ", value, b"\r\n")
            if lower in found:
                found[lower].append(value.strip(b" \t"))
            else:
                found[lower] = [value.strip(b" \t")]
    options = found.get(b"connection")
    if options is None or (len(options) == 1 and options[0] in _USUAL_OPTIONS):
        return Collected(passing, aside, found)
    named = connection_options(options)
    if named & _UNLISTABLE:
        raise ProtocolError(side, "Connection lists a field that belongs to the message")
    kept = [field for field in fields if field[0].lower() in HOP_BY_HOP or field[0].lower() not in named]
    return Collected(passing, aside, found) if len(kept) == len(fields) else collect(kept, treatments, side)


def connection_options(values: Iterable[bytes]) -> frozenset[bytes]:
    """The options of all Connection values, lower case (RFC 9110 section 7.6.1)."""
    return frozenset(option.strip(b" \t").lower() for value in values for option in value.split(b","))


def body_length(found: dict[bytes, list[bytes]], version: str, side: Side) -> tuple[Framing, int]:
    """The framing that the fields declare, and the length for LENGTH (else 0).

    Stricter than RFC 9112 section 6 where readers have been known to differ: one Content-Length of digits only, or
    one Transfer-Encoding that is `chunked` alone, in HTTP/1.1 only, and never both. NONE: neither is there.
    """
    lengths, codings = found.get(b"content-length"), found.get(b"transfer-encoding")
    if codings is not None:
        if lengths is not None:
            raise ProtocolError(side, "Content-Length and Transfer-Encoding in one message")
        if len(codings) != 1 or codings[0].lower() != b"chunked":
            raise ProtocolError(side, "a Transfer-Encoding other than chunked")
        if version != "1.1":
            raise ProtocolError(side, "Transfer-Encoding in HTTP/1.0")
        return CHUNKED, 0
    if lengths is None:
        return NONE, 0
    if len(lengths) != 1:
        raise ProtocolError(side, "more than one Content-Length")
    if not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS:
        raise ProtocolError(side, "a Content-Length that is not a number")
    return LENGTH, int(lengths[0])


def closes(found: dict[bytes, list[bytes]], version: str) -> bool:
    """Does this message's sender want the connection closed after it (RFC 9112 section 9.3)?"""
    values = found.get(b"connection")
    if values is None:
        return version != "1.1"
    if len(values) == 1 and values[0] in _USUAL_OPTIONS:
        return _USUAL_OPTIONS[values[0]]
    options = connection_options(values)
    return b"close" in options or (version != "1.1" and b"keep-alive" not in options)


def chunk(data: bytes) -> bytes:
    """`data` (not empty: that would end the body) as one chunk without extensions (RFC 9112 section 7.1)."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"
