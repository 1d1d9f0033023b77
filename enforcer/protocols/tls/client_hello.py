"""Step 4 of 6, inspect: what a TLS client says in clear before anything is encrypted.

Gets the client's bytes from the first record on; hands on the name it asks for and the protocols it offers. Every
length is checked to the last byte: what two readers might read differently is refused. Formats: RFC 8446 sections 4.1.2
and 5.1 (RFC 5246 for TLS 1.2), RFC 6066 section 3 (names), RFC 7301 section 3.1 (ALPN).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side

# Bytes of one ClientHello: key shares of post-quantum groups take 1.2 KiB, a ticket at most 64 KiB.
HELLO_LIMIT = 96 * 1024
# RFC 8446 section 5.1: the length of a plaintext record must not exceed 2^14.
RECORD_LIMIT = 1 << 14

RECORD_HEADER = 5
HANDSHAKE_HEADER = 4
HANDSHAKE = 22
CLIENT_HELLO = 1

SERVER_NAME = 0
ALPN = 16
ENCRYPTED_CLIENT_HELLO = 0xFE0D

# RFC 6066: a DNS host name in ASCII, without a trailing dot. RFC 1035: 253 characters, labels of at most 63.
_NAME = re.compile(rb"(?=.{1,253}\Z)[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?)*\Z")


@dataclass(frozen=True, slots=True)
class ClientHello:
    """`name`: of the server, lower case, empty where the client names none; some write its IPv4 address, against RFC
    6066 section 3. `alpn`: what it offers, in its order. `encrypted`: it carries an Encrypted Client Hello, so `name`
    may not be the one that is meant."""

    name: str
    alpn: tuple[str, ...]
    encrypted: bool


class Collector:
    """Joins a ClientHello from its records, however they and the reads are cut. Keeps at most a record and a hello."""

    def __init__(self) -> None:
        self._pending = bytearray()
        self._message = bytearray()

    def feed(self, data: bytes) -> bytes | None:
        """The body of the ClientHello once it is whole, None while more is needed. What follows it is the caller's.

        Raises ProtocolError where it is no such thing, LimitExceeded where it is too long.
        """
        self._pending += data
        while len(self._pending) >= RECORD_HEADER:
            if self._pending[0] != HANDSHAKE or self._pending[1] != 3:
                raise _bad("another record before the ClientHello is whole")
            length = int.from_bytes(self._pending[3:RECORD_HEADER], "big")
            if not 0 < length <= RECORD_LIMIT:
                raise _bad(f"a record of {length} bytes in the ClientHello")
            end = RECORD_HEADER + length
            if len(self._pending) < end:
                return None
            self._message += self._pending[RECORD_HEADER:end]
            del self._pending[:end]
            body = self._body()
            if body is not None:
                return body
        return None

    def _body(self) -> bytes | None:
        if self._message[0] != CLIENT_HELLO:
            raise _bad("the first message is no ClientHello")
        if len(self._message) < HANDSHAKE_HEADER:
            return None
        length = int.from_bytes(self._message[1:HANDSHAKE_HEADER], "big")
        if length > HELLO_LIMIT:
            raise LimitExceeded(Side.CLIENT, f"a ClientHello of more than {HELLO_LIMIT} bytes")
        if len(self._message) > HANDSHAKE_HEADER + length:
            raise _bad("something else in the record of the ClientHello")
        return bytes(self._message[HANDSHAKE_HEADER:]) if len(self._message) == HANDSHAKE_HEADER + length else None


def parse(body: bytes) -> ClientHello:
    """Reads the body of a ClientHello. Raises ProtocolError."""
    reader = _Reader(body)
    reader.take(2 + 32)  # version, random
    if len(reader.vector(1)) > 32:
        raise _bad("a session id of more than 32 bytes")
    if len(reader.vector(2)) % 2:
        raise _bad("a list of cipher suites of odd length")
    reader.vector(1)  # compression methods
    extensions: dict[int, bytes] = {}
    if not reader.ended:
        listed = _Reader(reader.vector(2))
        reader.end("the ClientHello")
        while not listed.ended:
            kind = listed.number(2)
            if kind in extensions:
                raise _bad(f"extension {kind} twice")
            extensions[kind] = listed.vector(2)
    return ClientHello(_server_name(extensions), _alpn(extensions), ENCRYPTED_CLIENT_HELLO in extensions)


def _server_name(extensions: dict[int, bytes]) -> str:
    if SERVER_NAME not in extensions:
        return ""
    reader = _Reader(extensions[SERVER_NAME])
    listed = _Reader(reader.vector(2))
    reader.end("the server name extension")
    kind, name = listed.number(1), listed.vector(2).lower()
    listed.end("the list of server names")
    if kind != 0 or not _NAME.match(name):
        raise _bad("a server name that is no host name")
    return name.decode("ascii")


def _alpn(extensions: dict[int, bytes]) -> tuple[str, ...]:
    if ALPN not in extensions:
        return ()
    reader = _Reader(extensions[ALPN])
    listed = _Reader(reader.vector(2))
    reader.end("the ALPN extension")
    names = []
    while not listed.ended:
        name = listed.vector(1)
        if not name:
            raise _bad("an empty protocol name")
        names.append(name.decode("latin-1"))
    if not names:
        raise _bad("an empty list of protocols")
    return tuple(names)


class _Reader:
    """Takes numbers and vectors off `data`, front to back, and never beyond its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def ended(self) -> bool:
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise _bad("a length beyond the end of the ClientHello")
        self._at += count
        return taken

    def number(self, width: int) -> int:
        return int.from_bytes(self.take(width), "big")

    def vector(self, width: int) -> bytes:
        return self.take(self.number(width))

    def end(self, of: str) -> None:
        if not self.ended:
            raise _bad(f"bytes after the end of {of}")


def _bad(reason: str) -> ProtocolError:
    return ProtocolError(Side.CLIENT, f"TLS: {reason}")
