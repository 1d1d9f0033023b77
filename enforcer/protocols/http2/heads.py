"""Step 4 of 6, inspect: heads of HTTP/2, judged strictly (RFC 9113 section 8) and put together anew.

Gets the fields of a block; hands on a `RequestHead` or a `ResponseHead`, whose own fields go on. Whatever the RFC calls
malformed is a fault of that one request or answer, never repaired and never guessed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from http import HTTPStatus

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.codings import readable
from enforcer.protocols.http import read_authority
from enforcer.protocols.http2.compression import Block, Field, Fields
from enforcer.protocols.media import CHECKSUMS, Description, describe

# Bytes of the request target. nginx and Apache stop at 8 KiB; signed object-store URLs and OData queries exceed that.
TARGET_LIMIT = 16 * 1024
# Fields of one head, cookie crumbs aside. Apache: 100, Go's HTTP/2 and Envoy: 100, Node: 2000.
FIELD_LIMIT = 128
# Digits of a Content-Length: all of a signed 64-bit integer that cannot overflow (RFC 9110 section 8.6).
LENGTH_DIGITS = 18
# Fields known to be well-formed: clients and servers repeat them.
_KNOWN_LIMIT = 2048

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]+")
# Visible, space and tab inside, obs-text; RFC 9113 section 8.2.1 forbids blanks at either end.
_VALUE = re.compile(rb"(?:[!-~\x80-\xff](?:[\t -~\x80-\xff]*[!-~\x80-\xff])?)?")
_METHOD = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,24}")
_ORIGIN_FORM = re.compile(rb"/[!\"$-~]*")
_GRPC = re.compile(r"application/grpc(\+[a-z0-9.+-]+)?")
# RFC 9113 section 8.2.2: what belongs to a connection of HTTP/1 makes a message malformed.
_CONNECTION_FIELDS = frozenset(
    (b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"http2-settings")
)
_PORTS = {b"http": 80, b"https": 443}
# By which a client asks for a form of the answer that cannot be masked, compressed or in parts.
_NEGOTIATION = frozenset((b"accept-encoding", b"range", b"if-range", b"grpc-accept-encoding"))
# True of the bytes the server sent, so not of a body that was masked; Accept-Ranges invites asking for parts.
_OF_THE_BYTES = CHECKSUMS | {b"etag", b"accept-ranges", b"content-length"}
# True of the bytes the client sent, so not of a body that is rewritten; and what was asked of us.
_OF_THE_REQUEST = CHECKSUMS | {b"content-length", b"expect"}

_PLAIN = Description("")
_known: set[Field] = set()


class Malformed(Exception):
    """A head that no reader may guess at. The words never quote it."""

    def __init__(self, reason: str, status: HTTPStatus = HTTPStatus.BAD_REQUEST) -> None:
        super().__init__(reason)
        self.status = status


@dataclass(slots=True)
class RequestHead:
    """A request's head, judged. `authority`: with the port as the client wrote it; `host`: lower case, without. `path`:
    origin-form, or `*`. `fields`: the others, for the server. `length`: of the body, -1 where it does not say. `body`:
    what they say of it; `content_type`: as the client wrote it. `grpc`: the part after `application/grpc` (`+proto`),
    None where it is none. `fault`: why it is refused whatever policy says, with `status`. `kept`: its
    block."""

    method: bytes = b""
    scheme: bytes = b""
    authority: bytes = b""
    path: bytes = b""
    host: str = ""
    fields: Fields = field(default_factory=list)
    secret: frozenset[bytes] = frozenset()
    length: int = -1
    body: Description = _PLAIN
    content_type: str = ""
    grpc: str | None = None
    fault: str = ""
    status: HTTPStatus = HTTPStatus.FORBIDDEN
    facts: dict[str, str] = field(default_factory=dict)
    kept: Block = field(default_factory=Block)

    @property
    def waits(self) -> bool:
        """Does its body come only after `100 Continue`?"""
        return any(name == b"expect" and value.lower() == b"100-continue" for name, value in self.fields)

    @property
    def operation(self) -> str:
        return self.facts["path"] if self.grpc is not None else self.method.decode("latin-1")

    @property
    def text(self) -> str:
        return f"{self.method.decode('latin-1')} {self.path.decode('latin-1')}"

    def render(self, *, masked: bool) -> Fields:
        """The fields for the server; `masked` asks for an answer in full, in a coding that is read."""
        start = [
            (b":method", self.method),
            (b":scheme", self.scheme),
            (b":authority", self.authority),
            (b":path", self.path),
        ]
        if not masked:
            return start + self.fields
        asked = [value for name, value in self.fields if name == b"accept-encoding"]
        kept = [one for one in self.fields if one[0] not in _NEGOTIATION]
        if self.grpc is None:
            kept.append((b"accept-encoding", readable(asked) if asked else b"identity"))
        return start + kept


def read_request_head(fields: Fields, secret: frozenset[bytes], *, end: bool) -> RequestHead:
    """Judges a request's fields. `end`: no body follows. What is wrong with it is its `fault`."""
    head = RequestHead(secret=secret)
    try:
        _read_request(head, fields, end=end)
    except Malformed as error:
        head.fault, head.status = str(error), error.status
    shown = head.path.partition(b"?")[0].decode("latin-1")
    head.facts = {"host": head.host, "method": head.method.decode("latin-1"), "path": shown, "version": "2"}
    if not head.host:
        del head.facts["host"]
    if head.grpc is not None:
        head.facts["grpc"] = shown.removeprefix("/")
    return head


def _read_request(head: RequestHead, fields: Fields, *, end: bool) -> None:
    pseudo, rest = _split(fields)
    method = pseudo.pop(b":method", b"")
    if _METHOD.fullmatch(method) is None:
        raise Malformed("no method, or one that is no token")
    head.method = method
    if method == b"CONNECT":
        raise Malformed("CONNECT is not inspected", HTTPStatus.NOT_IMPLEMENTED)
    head.scheme = pseudo.pop(b":scheme", b"")
    if head.scheme not in _PORTS:
        raise Malformed("a scheme other than http and https")
    path = pseudo.pop(b":path", b"")
    if len(path) > TARGET_LIMIT:
        raise Malformed(f"a request target of more than {TARGET_LIMIT} bytes", HTTPStatus.REQUEST_URI_TOO_LONG)
    if _ORIGIN_FORM.fullmatch(path) is None and not (path == b"*" and method == b"OPTIONS"):
        raise Malformed("a request target that is no path, or has a character that does not belong there")
    head.path = path
    authority = pseudo.pop(b":authority", None)
    if pseudo:
        raise Malformed("a pseudo-header field that is not known")
    types: list[bytes] = []
    encodings: list[bytes] = []
    for name, value in rest:
        if name == b"host":
            if authority is not None and _whom(head.scheme, authority) != _whom(head.scheme, value):
                raise Malformed("the Host field names another host than :authority, or there are two")
            authority = value
            continue
        if name == b"content-type":
            types.append(value)
        elif name == b"content-encoding":
            encodings.append(value)
        elif name == b"te" and value.lower() != b"trailers":
            raise Malformed("a TE field other than trailers")
        head.fields.append((name, value))
    if authority is None:
        raise Malformed("no :authority")
    head.authority, head.host = authority, _whom(head.scheme, authority)[0]
    head.length = _length(rest)
    if end and head.length > 0:
        raise Malformed("a body was announced, and none follows")
    head.body = describe(tuple(types), tuple(encodings))
    head.content_type = types[0].decode("latin-1") if types else ""
    kind = _GRPC.fullmatch(head.body.media)
    if kind is not None and method == b"POST":
        head.grpc = kind[1] or ""


def _whom(scheme: bytes, authority: bytes) -> tuple[str, int]:
    parsed = read_authority(authority, _PORTS[scheme])
    if parsed is None:
        raise Malformed(":authority is not a host name with an optional port")
    return parsed


@dataclass(slots=True)
class ResponseHead:
    """A response's head, judged. `length`: of the body, -1 where it does not say; `bodiless`: it has none, whatever it
    says. The rest as for `RequestHead`."""

    status: int
    fields: Fields
    secret: frozenset[bytes]
    length: int
    bodiless: bool
    body: Description
    grpc: str | None
    kept: Block = field(default_factory=Block)

    @property
    def interim(self) -> bool:
        return self.status < 200

    def render(self, *, masked: bool, length: int = -1) -> Fields:
        """The fields for the client; `length`: of a body that was masked, where it is known."""
        start = [(b":status", b"%d" % self.status)]
        if not masked:
            return start + self.fields
        kept = [one for one in self.fields if one[0] not in _OF_THE_BYTES]
        return start + kept + ([(b"content-length", b"%d" % length)] if length >= 0 else [])


def read_response_head(fields: Fields, secret: frozenset[bytes], method: bytes, *, end: bool) -> ResponseHead:
    """Judges the head that answers a `method` request. Raises ProtocolError (the server's)."""
    try:
        pseudo, rest = _split(fields)
        status = pseudo.pop(b":status", b"")
        if len(status) != 3 or not status.isdigit() or not b"100" <= status <= b"599" or pseudo:
            raise Malformed("no status, or something that does not belong beside one")
        number = int(status)
        if number == HTTPStatus.SWITCHING_PROTOCOLS:
            raise Malformed("switches protocols, which HTTP/2 cannot")
        length = _length(rest)
        bodiless = number < 200 or number in (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED) or method == b"HEAD"
        if end and number < 200:
            raise Malformed("an interim answer that ends the stream")
        if end and length > 0 and not bodiless:
            raise Malformed("a body was announced, and none follows")
    except Malformed as error:
        raise ProtocolError(_SERVER, str(error)) from error
    types = tuple([value for name, value in rest if name == b"content-type"])
    encodings = tuple([value for name, value in rest if name == b"content-encoding"])
    body = describe(types, encodings)
    if number == HTTPStatus.PARTIAL_CONTENT:
        body = Description(body.media, body.codings, "it is a part of a document")
    kind = _GRPC.fullmatch(body.media)
    return ResponseHead(
        status=number,
        # Alt-Svc invites to HTTP/3 or to another host, and both are refused here (RFC 7838).
        fields=[one for one in rest if one[0] != b"alt-svc"],
        secret=secret,
        length=length,
        bodiless=bodiless,
        body=body,
        grpc=None if kind is None else kind[1] or "",
    )


def read_trailers(fields: Fields, side: Side) -> Fields:
    """Trailers, which have no pseudo-header fields. Raises ProtocolError."""
    try:
        pseudo, rest = _split(fields)
        if pseudo or any(name in (b"content-length", b"host") for name, _ in rest):
            raise Malformed("a trailer that belongs into a head")
    except Malformed as error:
        raise ProtocolError(side, str(error)) from error
    return rest


def _split(fields: Fields) -> tuple[dict[bytes, bytes], Fields]:
    """Pseudo-header fields, and the others; every one of them well-formed."""
    pseudo: dict[bytes, bytes] = {}
    rest: Fields = []
    crumbs = 0
    for one in fields:
        name, value = one
        if name[:1] == b":":
            if rest:
                raise Malformed("a pseudo-header field after others")
            if name in pseudo:
                raise Malformed("a pseudo-header field twice")
            if _VALUE.fullmatch(value) is None:
                raise Malformed("a control character in a pseudo-header field")
            pseudo[name] = value
            continue
        if one not in _known:
            _check(name, value)
            if len(_known) >= _KNOWN_LIMIT:
                _known.clear()
            _known.add(one)
        crumbs += name == b"cookie"
        rest.append(one)
    if len(rest) - crumbs > FIELD_LIMIT:
        raise Malformed(f"more than {FIELD_LIMIT} header fields", HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    return pseudo, rest


def _check(name: bytes, value: bytes) -> None:
    if _NAME.fullmatch(name) is None:
        raise Malformed("a field name with upper case, or that is no token")
    if _VALUE.fullmatch(value) is None:
        raise Malformed("a field value with a control character, or a blank at an end")
    if name in _CONNECTION_FIELDS:
        raise Malformed("a field of HTTP/1 connections")


def _length(rest: Fields) -> int:
    lengths = [value for name, value in rest if name == b"content-length"]
    if not lengths:
        return -1
    if len(lengths) > 1:
        raise Malformed("more than one Content-Length")
    if not lengths[0].isdigit() or len(lengths[0]) > LENGTH_DIGITS:
        raise Malformed("a Content-Length that is not a number")
    return int(lengths[0])


def rewritten(fields: Fields, length: int) -> Fields:
    """A request's fields without what was true of the body that is rewritten. `length`: its new one, where known."""
    kept = [one for one in fields if one[0] not in _OF_THE_REQUEST]
    return kept + ([(b"content-length", b"%d" % length)] if length >= 0 else [])
