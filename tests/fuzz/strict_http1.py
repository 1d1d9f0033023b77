"""HTTP/1.1 messages read by the grammar of RFC 9112 and nothing beside it: what we send must be such.

Shares no code with the parser under test. `Malformed` is raised for whatever any reader could read in another way.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
REQUEST_LINE = re.compile(rb"(%b) ([!-~]+) HTTP/1\.([01])" % TOKEN)
STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-9][0-9]{2}) [\t -~\x80-\xff]*")
FIELD_LINE = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % TOKEN)
# A target without what needs judgement: no fragment, no control, no blank.
ORIGIN_FORM = re.compile(rb"/[!\"$-~]*")
AUTHORITY = re.compile(rb"(?:[A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
CHUNK_SIZE = re.compile(rb"[0-9A-Fa-f]{1,16}")
DIGITS = re.compile(rb"[0-9]{1,18}")
# Fields that speak of one connection: only these options may be on ours, and none of the other fields.
OPTIONS = frozenset({b"close", b"upgrade", b"keep-alive"})
NEVER = frozenset({b"keep-alive", b"proxy-connection", b"te", b"trailer", b"http2-settings"})


class Malformed(AssertionError):
    """Something that is no HTTP/1.1 message, or that two readers could read differently."""


@dataclass(frozen=True)
class Head:
    """`start`: groups of the start line. `fields`: lower-case names, values without blanks around."""

    start: tuple[bytes, ...]
    fields: tuple[tuple[bytes, bytes], ...]

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


@dataclass(frozen=True)
class Message:
    """One request or response. `complete`: its body ended; else `body` is what there was of it."""

    head: Head
    body: bytes
    complete: bool

    @property
    def method(self) -> str:
        return self.head.start[0].decode()

    @property
    def target(self) -> str:
        return self.head.start[1].decode()

    @property
    def status(self) -> int:
        return int(self.head.start[0])

    @property
    def host(self) -> bytes:
        return b"".join(self.head.values(b"host"))


def read_request(data: bytes) -> tuple[Message, bytes] | None:
    """The first request of `data` and the rest; None while its head is not whole."""
    return _read(data, REQUEST_LINE, _request_length)


def read_response(data: bytes, method: str, *, ended: bool) -> tuple[Message, bytes] | None:
    """The first response of `data`, to a `method` request, and the rest. `ended`: the connection closed after it."""
    return _read(data, STATUS_LINE, lambda head: _response_length(head, method), ended=ended)


Length = int | str


def _read(
    data: bytes, start: re.Pattern[bytes], length_of: Callable[[Head], Length], *, ended: bool = False
) -> tuple[Message, bytes] | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        _no_stray_line_ends(data)
        return None
    head = _head(data[:end], start)
    length, rest = length_of(head), data[end + 4 :]
    if length == "chunked":
        body, rest, complete = _chunks(rest)
        return Message(head, body, complete), rest
    if length == "until close":
        return Message(head, rest, ended), b""
    assert isinstance(length, int)
    return Message(head, rest[:length], len(rest) >= length), rest[length:]


def _no_stray_line_ends(data: bytes) -> None:
    joined = data.replace(b"\r\n", b"")
    if b"\n" in joined or b"\r" in joined.removesuffix(b"\r"):
        raise Malformed(f"a bare line end in {data!r}")


def _head(data: bytes, start: re.Pattern[bytes]) -> Head:
    _no_stray_line_ends(data)
    first, *lines = data.split(b"\r\n")
    match = _match(start, first, "start line")
    fields = []
    for line in lines:
        name, value = _match(FIELD_LINE, line, "field line").groups()
        fields.append((name.lower(), value.strip(b" \t")))
    head = Head(tuple(group for group in match.groups() if group is not None), tuple(fields))
    _hop_by_hop(head)
    return head


def _hop_by_hop(head: Head) -> None:
    options = {option.strip(b" \t").lower() for value in head.values(b"connection") for option in value.split(b",")}
    if not options <= OPTIONS:
        raise Malformed(f"Connection: {options}")
    if found := NEVER & {name for name, _ in head.fields}:
        raise Malformed(f"hop-by-hop fields {found}")
    if head.values(b"upgrade") and b"upgrade" not in options:
        raise Malformed("Upgrade without its Connection option")


def _framing(head: Head) -> Length | None:
    lengths, codings = head.values(b"content-length"), head.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Malformed(f"framed by {lengths} and {codings}")
    if codings:
        if codings != [b"chunked"]:
            raise Malformed(f"Transfer-Encoding: {codings}")
        return "chunked"
    return int(_match(DIGITS, lengths[0], "Content-Length").group()) if lengths else None


def _request_length(head: Head) -> Length:
    method, target, minor = head.start
    hosts = head.values(b"host")
    if len(hosts) > 1 or (minor == b"1" and not hosts):
        raise Malformed(f"{len(hosts)} Host fields in HTTP/1.{minor.decode()}")
    for host in hosts:
        _match(AUTHORITY, host, "Host")
    if method == b"CONNECT":
        _match(AUTHORITY, target, "target of CONNECT")
    elif not (target == b"*" and method == b"OPTIONS"):
        _match(ORIGIN_FORM, target, "target")
    length = _framing(head)
    if length == "chunked" and minor == b"0":
        raise Malformed("chunked in HTTP/1.0")
    return 0 if length is None else length


def _response_length(head: Head, method: str) -> Length:
    status, length = int(head.start[0]), _framing(head)
    if method == "CONNECT" and 200 <= status < 300:
        if length is not None:
            raise Malformed(f"framing fields in {status} to CONNECT")
        return 0
    if status < 200 or status == 204:
        if length is not None:
            raise Malformed(f"framing fields in {status}")
        return 0
    if method == "HEAD" or status == 304:
        return 0
    return "until close" if length is None else length


def _chunks(data: bytes) -> tuple[bytes, bytes, bool]:
    """(body so far, rest, complete). No extensions; trailers may neither frame nor route."""
    body = b""
    while True:
        line, found, rest = data.partition(b"\r\n")
        if not found:
            if line.removesuffix(b"\r"):
                _match(CHUNK_SIZE, line.removesuffix(b"\r"), "chunk size")
            return body, b"", False
        size = int(_match(CHUNK_SIZE, line, "chunk size").group(), 16)
        if size == 0:
            return _trailers(body, rest)
        if len(rest) < size + 2:
            if not b"\r\n".startswith(rest[size:]):
                raise Malformed(f"{rest[size:]!r} after a chunk")
            return body + rest[:size], b"", False
        if rest[size : size + 2] != b"\r\n":
            raise Malformed(f"{rest[size : size + 2]!r} after a chunk")
        body, data = body + rest[:size], rest[size + 2 :]


def _trailers(body: bytes, data: bytes) -> tuple[bytes, bytes, bool]:
    while True:
        line, found, data = data.partition(b"\r\n")
        if not found:
            return body, b"", False
        if not line:
            return body, data, True
        name = _match(FIELD_LINE, line, "trailer").group(1).lower()
        if name in (b"host", b"content-length", b"transfer-encoding", b"connection", b"authorization"):
            raise Malformed(f"trailer {name!r}")


def _match(pattern: re.Pattern[bytes], text: bytes, what: str) -> re.Match[bytes]:
    match = pattern.fullmatch(text)
    if match is None:
        raise Malformed(f"{what} {text!r}")
    return match
