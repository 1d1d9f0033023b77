"""ClientHellos: real ones, made by OpenSSL, and the means to write others by hand."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from contextlib import suppress


def client_hello(name: str | None, alpn: Sequence[str] = (), *, newest: ssl.TLSVersion | None = None) -> bytes:
    """The first flight of OpenSSL as a client that asks for `name`, in the one record it sends."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if newest:
        context.maximum_version = newest
    sent = ssl.MemoryBIO()
    connection = context.wrap_bio(ssl.MemoryBIO(), sent, server_hostname=name)
    with suppress(ssl.SSLWantReadError):
        connection.do_handshake()
    return sent.read()


def vector(width: int, body: bytes) -> bytes:
    """A vector of RFC 8446 section 3.4: its length in `width` bytes, then itself."""
    return len(body).to_bytes(width, "big") + body


def extension(kind: int, body: bytes) -> bytes:
    return kind.to_bytes(2, "big") + vector(2, body)


def server_name(*names: bytes, kind: int = 0) -> bytes:
    """The extension of RFC 6066 section 3."""
    return extension(0, vector(2, b"".join(bytes([kind]) + vector(2, name) for name in names)))


def written(*extensions: bytes, tail: bytes = b"", session: bytes = b"") -> bytes:
    """A ClientHello's body with these extensions, RFC 8446 section 4.1.2."""
    body = b"\3\3" + bytes(32) + vector(1, session) + vector(2, b"\x13\1") + vector(1, b"\0")
    return body + vector(2, b"".join(extensions)) + tail


def records(body: bytes, size: int = 16384) -> bytes:
    """The handshake message around `body`, in records of at most `size` bytes."""
    message = b"\1" + len(body).to_bytes(3, "big") + body
    pieces = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\3\1" + vector(2, piece) for piece in pieces)
