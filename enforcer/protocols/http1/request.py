"""Step 4 of 6, inspect: a request's head, judged strictly and built anew.

Gets method, target and fields as llhttp read them; hands on a `RequestHead`, from which the head that goes upstream is
rendered, so that the server parses exactly what was judged. Every doubt about whom or what the request means is a
ProtocolError: llhttp accepts a missing or second Host, HTTP/0.9 and 2.0, fragments and RTSP, all refused here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.codings import readable
from enforcer.protocols.http import read_authority
from enforcer.protocols.http1.fields import (
    CHUNKED,
    HOP_BY_HOP,
    LENGTH,
    NONE,
    TARGET_LIMIT,
    Collected,
    Fields,
    Framing,
    Treatment,
    body_length,
    closes,
    collect,
)
from enforcer.protocols.http1.upgrade import CONNECT, Offer, read_offer, wants_websocket
from enforcer.protocols.media import Description, describe

_CLIENT = Side.CLIENT

# ASIDE, ASKED: fields by which a client asks for a form of the answer that cannot be masked, coded or in parts.
_TREATMENTS = HOP_BY_HOP | {
    b"host": Treatment.DROP,
    b"content-length": Treatment.DROP,
    b"content-type": Treatment.NOTE,
    b"content-encoding": Treatment.NOTE,
    b"expect": Treatment.DROP,
    b"accept-encoding": Treatment.ASKED,
    b"range": Treatment.ASIDE,
    b"if-range": Treatment.ASIDE,
    b"sec-websocket-key": Treatment.NOTE,
    b"sec-websocket-version": Treatment.NOTE,
    b"sec-websocket-protocol": Treatment.NOTE,
    # What compresses messages hides them from us (RFC 7692), and there are no other extensions.
    b"sec-websocket-extensions": Treatment.DROP,
}

# Origin-form: printable ASCII from the slash on, no fragment (RFC 9112 section 3.2.1; llhttp admits `#`).
_ORIGIN_FORM = re.compile(r"/[!\"$-~]*")
_ABSOLUTE_FORM = re.compile(r"(?i:(https?))://([^/?#]*)([/?].*)?")
_PORTS = {"http": 80, "https": 443}

# llhttp reads RTSP's and Icecast's methods as well, and does not tell which protocol name the request line carried.
_FOREIGN_METHODS = frozenset(
    (
        *("SOURCE", "DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "PAUSE", "TEARDOWN"),
        *("GET_PARAMETER", "SET_PARAMETER", "REDIRECT", "RECORD", "FLUSH"),
    )
)


@dataclass(slots=True)
class Terms:
    """What a request's fields say, whatever its target: the same for most requests of one client.

    `authority`: the Host value. `host`: lower case, no port, trailing dot or brackets. `framing`/`length`: of the body.
    `close`: the connection ends after this exchange, as the client asked. `ancient`: the client speaks HTTP/1.0, so it
    knows neither chunks nor interim answers. `waits`: its body comes only after `100 Continue`. `upgrades`: it offers
    another protocol (not forwarded, but for `offer`: the server answers in HTTP/1.1). `tail`: the rebuilt head from the
    blank after the target on, without what follows the body's framing and without the final empty line. `negotiation`:
    lines left out when the answer is to be masked, for which `readable` stands in. `fields`: as the client wrote them.
    `passing`: `tail` without framing. `body`: what is said of it. `types`: the values of Content-Type.
    `has_body`: one that is not empty.
    """

    authority: bytes
    host: str
    framing: Framing
    length: int
    close: bool
    ancient: bool
    waits: bool
    upgrades: bool
    tail: bytes
    negotiation: bytes
    readable: bytes
    fields: Fields
    passing: list[bytes]
    body: Description
    types: tuple[bytes, ...]
    has_body: bool
    offer: Offer | None = None


@dataclass(slots=True)
class RequestHead:
    """A request's head, judged. `target`: in origin-form, or `*`, or of CONNECT an authority, which `tunnel` is too."""

    method: str
    target: str
    terms: Terms
    tunnel: tuple[str, int] | None = None

    @property
    def text(self) -> str:
        return f"{self.method} {self.target}"

    def render(self, *, masked: bool) -> bytes:
        """The head for the server; `masked` asks for an answer in full, in a coding that is read here."""
        terms = self.terms
        asked = terms.readable if masked else terms.negotiation
        return b"%b%b%b\r\n" % (f"{self.method} {self.target}".encode("ascii"), terms.tail, asked)

    def render_framed(self, framing: Framing, length: int, *, masked: bool) -> bytes:
        """The same for a body that is framed anew, and that has been asked for already."""
        terms = self.terms
        lines = [f"{self.method} {self.target}".encode("ascii"), *terms.passing]
        lines += _framed(framing, length)
        if terms.close:
            lines.append(b"Connection: close\r\n")
        lines += (terms.readable if masked else terms.negotiation, b"\r\n")
        return b"".join(lines)

    @property
    def switches(self) -> bool:
        """May another protocol follow, if the server agrees?"""
        return self.terms.offer is not None or self.tunnel is not None


def read_request_head(method: bytes, target: bytes, terms: Terms) -> RequestHead:
    """Judges a request line against its fields. Raises ProtocolError (the client's) or LimitExceeded."""
    word = method.decode("ascii")
    if word == CONNECT:
        return _tunnel(target, terms)
    if word in _FOREIGN_METHODS:
        raise ProtocolError(_CLIENT, "a method of another protocol")
    if terms.offer is not None and word != "GET":
        raise ProtocolError(_CLIENT, "a WebSocket asked for with another method than GET")
    return RequestHead(word, _origin_form(word, target, terms.authority), terms)


def read_terms(version: str, fields: Fields) -> Terms:
    """Judges a request's fields. Raises ProtocolError (the client's) or LimitExceeded."""
    if version not in ("1.1", "1.0"):
        raise ProtocolError(_CLIENT, "neither HTTP/1.1 nor HTTP/1.0")
    collected = collect(fields, _TREATMENTS, _CLIENT)
    found = collected.found
    authority, host = _host(found.get(b"host"), version)
    framing, length = body_length(found, version, _CLIENT)
    ancient = version == "1.0"
    close = ancient or closes(found, version)
    # Without a Host it cannot be HTTP/1.1, and servers refuse an empty one: such a request keeps its version.
    start = b" HTTP/1.1\r\nHost: %b\r\n" % authority if host else b" HTTP/1.0\r\n"
    waits = not ancient and _waits(found.get(b"expect", ())) and framing is not NONE
    passing = [start, *collected.passing]
    lines = [*passing]
    if waits:
        lines.append(b"Expect: 100-continue\r\n")
    lines += _framed(framing, length)
    if close:
        lines.append(b"Connection: close\r\n")
    offer = _offer(collected, framing, close=close) if not ancient and wants_websocket(found) else None
    if offer is not None:
        lines.append(offer.lines)
    types = tuple(found.get(b"content-type", ()))
    return Terms(
        authority=authority,
        host=host,
        framing=framing,
        length=length,
        close=close,
        ancient=ancient,
        waits=waits,
        upgrades=b"upgrade" in found,
        tail=b"".join(lines),
        negotiation=b"".join(collected.aside),
        readable=_readable(tuple(found.get(b"accept-encoding", ()))),
        fields=fields,
        passing=passing,
        body=describe(types, tuple(found.get(b"content-encoding", ()))),
        types=types,
        has_body=framing is not NONE and not (framing is LENGTH and length == 0),
        offer=offer,
    )


def _framed(framing: Framing, length: int) -> tuple[bytes, ...]:
    if framing is LENGTH:
        return (b"Content-Length: %d\r\n" % length,)
    return (b"Transfer-Encoding: chunked\r\n",) if framing is CHUNKED else ()


@lru_cache(maxsize=256)
def _readable(values: tuple[bytes, ...]) -> bytes:
    return b"Accept-Encoding: %b\r\n" % readable(values)


def _waits(expectations: list[bytes] | tuple[()]) -> bool:
    """RFC 9110 section 10.1.1 knows one expectation."""
    if any(value.lower() != b"100-continue" for value in expectations):
        raise ProtocolError(_CLIENT, "an expectation other than 100-continue")
    return bool(expectations)


def _offer(collected: Collected, framing: Framing, *, close: bool) -> Offer:
    if framing is not NONE or close:
        raise ProtocolError(_CLIENT, "a WebSocket asked for with a body, or on a connection that ends")
    return read_offer(collected.found)


def _host(values: list[bytes] | None, version: str) -> tuple[bytes, str]:
    """The Host field's value and the host it names. RFC 9112 section 3.2: exactly one; HTTP/1.0 may have none."""
    if values is None:
        if version == "1.0":
            return b"", ""
        raise ProtocolError(_CLIENT, "no Host field")
    if len(values) != 1:
        raise ProtocolError(_CLIENT, "more than one Host field")
    parsed = read_authority(values[0], _PORTS["http"])
    if parsed is None:
        raise ProtocolError(_CLIENT, "a Host field that is not a host name with an optional port")
    return values[0], parsed[0]


def _origin_form(method: str, raw: bytes, authority: bytes) -> str:
    """The request target in origin-form, or `*` (RFC 9112 section 3.2). Absolute-form must name the Host itself."""
    target = _printable(raw)
    if target == "*":
        if method != "OPTIONS":
            raise ProtocolError(_CLIENT, "the target `*` for a method other than OPTIONS")
        return target
    if not target.startswith("/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise ProtocolError(_CLIENT, "a request target that is neither a path nor an http:// address")
        port = _PORTS[absolute[1].lower()]
        named = read_authority(absolute[2].encode("ascii"), port)
        if named is None or named != read_authority(authority, port):
            raise ProtocolError(_CLIENT, "the request target names another host than the Host field")
        rest = absolute[3]
        if rest is None:
            return "*" if method == "OPTIONS" else "/"
        target = rest if rest.startswith("/") else "/" + rest
    if _ORIGIN_FORM.fullmatch(target) is None:
        raise ProtocolError(_CLIENT, "a request target with a character that does not belong there")
    return target


def _printable(raw: bytes) -> str:
    if len(raw) > TARGET_LIMIT:
        raise LimitExceeded(_CLIENT, f"a request target of more than {TARGET_LIMIT} bytes")
    if not raw.isascii():
        raise ProtocolError(_CLIENT, "a request target that is not ASCII")
    return raw.decode("ascii")


def _tunnel(raw: bytes, terms: Terms) -> RequestHead:
    """CONNECT (RFC 9110 section 9.3.6): a host and a port, which the Host field names too, and no body."""
    authority = _printable(raw).encode("ascii")
    named = read_authority(authority, 0)
    if named is None or not named[1]:
        raise ProtocolError(_CLIENT, "CONNECT to something else than a host and a port")
    stated = read_authority(terms.authority, named[1])
    if stated != named:
        raise ProtocolError(_CLIENT, "CONNECT to another host than the Host field's")
    if terms.framing is not NONE and terms.length:
        raise ProtocolError(_CLIENT, "CONNECT with a body")
    if terms.framing is CHUNKED or terms.ancient or terms.offer is not None:
        raise ProtocolError(_CLIENT, "CONNECT with a body, in HTTP/1.0, or with an upgrade")
    return RequestHead(CONNECT, authority.decode("ascii"), terms, named)
