"""Step 4 of 6, inspect: a request's head, judged strictly and built anew.

Gets method, target and fields as llhttp read them; hands on a `RequestHead`, from which the head that goes upstream is
rendered, so that the server parses exactly what was judged. Every doubt about whom or what the request means is a
ProtocolError: llhttp accepts a missing or second Host, HTTP/0.9 and 2.0, fragments and RTSP, all refused here.
"""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http1.fields import (
    CHUNKED,
    HOP_BY_HOP,
    LENGTH,
    NONE,
    TARGET_LIMIT,
    Fields,
    Framing,
    Treatment,
    body_length,
    closes,
    collect,
)

_CLIENT = Side.CLIENT

# ASIDE: fields by which a client asks for a form of the answer that cannot be masked, compressed or in parts.
_TREATMENTS = HOP_BY_HOP | {
    b"host": Treatment.DROP,
    b"content-length": Treatment.DROP,
    b"expect": Treatment.DROP,
    b"accept-encoding": Treatment.ASIDE,
    b"range": Treatment.ASIDE,
    b"if-range": Treatment.ASIDE,
}

# Origin-form: printable ASCII from the slash on, no fragment (RFC 9112 section 3.2.1; llhttp admits `#`).
_ORIGIN_FORM = re.compile(r"/[!\"$-~]*")
_ABSOLUTE_FORM = re.compile(r"(?i:http)://([^/?#]*)([/?].*)?")
# uri-host [":" port] without userinfo, percent-encoding, zone ids or anything beyond letters, digits, `-`, `_`, `.`:
# real host names, on which every reader agrees (RFC 9110 section 7.2).
_AUTHORITY = re.compile(
    r"(?:\[([0-9A-Fa-f:.]{2,45})\]|([A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?)\.?)(?::([0-9]{0,5}))?"
)
_HTTP_PORT = 80

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
    another protocol (not forwarded: the server answers in HTTP/1.1). `tail`: the rebuilt head from the blank after the
    target on, without `negotiation` (the lines left out when the answer is to be masked) and the final empty line.
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


@dataclass(slots=True)
class RequestHead:
    """A request's head, judged. `target`: in origin-form, or `*`."""

    method: str
    target: str
    terms: Terms

    def render(self, *, masked: bool) -> bytes:
        """The head for the server; `masked` asks for an answer in full and uncompressed."""
        asked = b"Accept-Encoding: identity\r\n" if masked else self.terms.negotiation
        return b"%b%b%b\r\n" % (f"{self.method} {self.target}".encode("ascii"), self.terms.tail, asked)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def read_request_head(method: bytes, target: bytes, terms: Terms) -> RequestHead:
    """Judges a request line against its fields. Raises ProtocolError (the client's) or LimitExceeded."""
    word = method.decode("ascii")
    if word == "CONNECT":
        raise ProtocolError(_CLIENT, "CONNECT is not inspected")
    if word in _FOREIGN_METHODS:
        raise ProtocolError(_CLIENT, "a method of another protocol")
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
    lines = [start, *collected.passing]
    expectations = () if ancient else found.get(b"expect", ())
    for value in expectations:
        lines.append(b"Expect: %b\r\n" % value)
    if framing is LENGTH:
        lines.append(b"Content-Length: %d\r\n" % length)
    elif framing is CHUNKED:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        lines.append(b"Connection: close\r\n")
    return Terms(
        authority=authority,
        host=host,
        framing=framing,
        length=length,
        close=close,
        ancient=ancient,
        waits=bool(expectations) and framing is not NONE,
        upgrades=b"upgrade" in found,
        tail=b"".join(lines),
        negotiation=b"".join(collected.aside),
    )


def _host(values: list[bytes] | None, version: str) -> tuple[bytes, str]:
    """The Host field's value and the host it names. RFC 9112 section 3.2: exactly one; HTTP/1.0 may have none."""
    if values is None:
        if version == "1.0":
            return b"", ""
        raise ProtocolError(_CLIENT, "no Host field")
    if len(values) != 1:
        raise ProtocolError(_CLIENT, "more than one Host field")
    parsed = _authority(values[0])
    if parsed is None:
        raise ProtocolError(_CLIENT, "a Host field that is not a host name with an optional port")
    return values[0], parsed[0]


@lru_cache(maxsize=1024)
def _authority(value: bytes) -> tuple[str, int] | None:
    """Host (normalised) and port of `value`, None where it is not plainly one host. Cached."""
    if not value.isascii() or (match := _AUTHORITY.fullmatch(value.decode("ascii"))) is None:
        return None
    literal, name, digits = match.groups()
    port = int(digits) if digits else _HTTP_PORT
    if port > 0xFFFF:
        return None
    if literal is None:
        return None if ".." in name else (name.lower(), port)
    try:
        return str(ipaddress.IPv6Address(literal)), port
    except ValueError:
        return None


def _origin_form(method: str, raw: bytes, authority: bytes) -> str:
    """The request target in origin-form, or `*` (RFC 9112 section 3.2). Absolute-form must name the Host itself."""
    if len(raw) > TARGET_LIMIT:
        raise LimitExceeded(_CLIENT, f"a request target of more than {TARGET_LIMIT} bytes")
    if not raw.isascii():
        raise ProtocolError(_CLIENT, "a request target that is not ASCII")
    target = raw.decode("ascii")
    if target == "*":
        if method != "OPTIONS":
            raise ProtocolError(_CLIENT, "the target `*` for a method other than OPTIONS")
        return target
    if not target.startswith("/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise ProtocolError(_CLIENT, "a request target that is neither a path nor an http:// address")
        named = _authority(absolute[1].encode("ascii"))
        if named is None or named != _authority(authority):
            raise ProtocolError(_CLIENT, "the request target names another host than the Host field")
        rest = absolute[2]
        if rest is None:
            return "*" if method == "OPTIONS" else "/"
        target = rest if rest.startswith("/") else "/" + rest
    if _ORIGIN_FORM.fullmatch(target) is None:
        raise ProtocolError(_CLIENT, "a request target with a character that does not belong there")
    return target
