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
    HOP_BY_HOP,
    TARGET_LIMIT,
    Fields,
    Framing,
    body_length,
    closes,
    collect,
    render_found,
)

# Fields by which a client asks for a form of the answer that cannot be masked: compressed, or parts of it.
NEGOTIATION = {b"accept-encoding": b"Accept-Encoding", b"range": b"Range", b"if-range": b"If-Range"}
_SPECIAL = HOP_BY_HOP | NEGOTIATION.keys() | {b"host", b"content-length", b"expect"}

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
    ("SOURCE", "DESCRIBE", "ANNOUNCE", "SETUP", "PLAY", "PAUSE", "TEARDOWN", "GET_PARAMETER", "SET_PARAMETER")
    + ("REDIRECT", "RECORD", "FLUSH", "PRI")
)


@dataclass(slots=True)
class RequestHead:
    """A request's head, judged. `target`: origin-form or `*`. `host`: lower case, no port, no trailing dot, no brackets.

    `framing`/`length`: of its body. `close`: the connection ends after this exchange, as the client asked. `ancient`:
    the client speaks HTTP/1.0, so it knows neither chunks nor interim answers. `waits`: it sends its body only after
    `100 Continue`. `upgrades`: the head offered another protocol (dropped: the server answers in HTTP/1.1).
    """

    method: str
    target: str
    host: str
    framing: Framing
    length: int
    close: bool
    ancient: bool
    waits: bool
    upgrades: bool
    start: bytes
    negotiation: bytes

    def render(self, *, masked: bool) -> bytes:
        """The head for the server; `masked` asks for an answer in full and uncompressed."""
        if masked:
            return self.start + b"Accept-Encoding: identity\r\n\r\n"
        return b"%b%b\r\n" % (self.start, self.negotiation)

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


def read_request_head(method: bytes, target: bytes, version: str, fields: Fields) -> RequestHead:
    """Judges one head. Raises ProtocolError (the client's) with the reason, LimitExceeded for a named limit."""
    if version not in ("1.1", "1.0"):
        raise ProtocolError(Side.CLIENT, "neither HTTP/1.1 nor HTTP/1.0")
    word = method.decode("ascii")
    if word == "CONNECT":
        raise ProtocolError(Side.CLIENT, "CONNECT is not inspected")
    if word in _FOREIGN_METHODS:
        raise ProtocolError(Side.CLIENT, "a method of another protocol")
    passing, found = collect(fields, _SPECIAL, Side.CLIENT)
    authority, host = _host(found.get(b"host"), version)
    path = _origin_form(word, target, authority)
    framing, length = body_length(found, version, Side.CLIENT)
    ancient = version == "1.0"
    close = ancient or closes(found, version)

    pieces = [method, b" ", path.encode("ascii"), b" HTTP/1.1\r\nHost: ", authority, b"\r\n", *passing]
    expectation = None if ancient else found.get(b"expect")
    if expectation is not None:
        pieces += (b"Expect: %b\r\n" % value for value in expectation)
    if framing is Framing.LENGTH:
        pieces.append(b"Content-Length: %d\r\n" % length)
    elif framing is Framing.CHUNKED:
        pieces.append(b"Transfer-Encoding: chunked\r\n")
    if close:
        pieces.append(b"Connection: close\r\n")
    return RequestHead(
        method=word,
        target=path,
        host=host,
        framing=framing,
        length=length,
        close=close,
        ancient=ancient,
        waits=expectation is not None and framing is not Framing.NONE,
        upgrades=b"upgrade" in found,
        start=b"".join(pieces),
        negotiation=render_found(found, NEGOTIATION),
    )


def _host(values: list[bytes] | None, version: str) -> tuple[bytes, str]:
    """The Host field's value and the host it names. RFC 9112 section 3.2: exactly one; HTTP/1.0 may have none."""
    if values is None:
        if version == "1.0":
            return b"", ""
        raise ProtocolError(Side.CLIENT, "no Host field")
    if len(values) != 1:
        raise ProtocolError(Side.CLIENT, "more than one Host field")
    parsed = _authority(values[0])
    if parsed is None:
        raise ProtocolError(Side.CLIENT, "a Host field that is not a host name with an optional port")
    return values[0], parsed[0]


@lru_cache(maxsize=1024)
def _authority(value: bytes) -> tuple[str, int] | None:
    """Host (normalised) and port of `value`, None where it is not plainly one host. Cached: a client repeats its own."""
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
        raise LimitExceeded(Side.CLIENT, f"a request target of more than {TARGET_LIMIT} bytes")
    if not raw.isascii():
        raise ProtocolError(Side.CLIENT, "a request target that is not ASCII")
    target = raw.decode("ascii")
    if target == "*":
        if method != "OPTIONS":
            raise ProtocolError(Side.CLIENT, "the target `*` for a method other than OPTIONS")
        return target
    if not target.startswith("/"):
        absolute = _ABSOLUTE_FORM.fullmatch(target)
        if absolute is None:
            raise ProtocolError(Side.CLIENT, "a request target that is neither a path nor an http:// address")
        named = _authority(absolute[1].encode("ascii"))
        if named is None or named != _authority(authority):
            raise ProtocolError(Side.CLIENT, "the request target names another host than the Host field")
        rest = absolute[2]
        if rest is None:
            return "*" if method == "OPTIONS" else "/"
        target = rest if rest.startswith("/") else "/" + rest
    if _ORIGIN_FORM.fullmatch(target) is None:
        raise ProtocolError(Side.CLIENT, "a request target with a character that does not belong there")
    return target
