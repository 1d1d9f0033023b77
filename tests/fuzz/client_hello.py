"""The ClientHello: the name that we judge is the one that OpenSSL reads in the same bytes.

An input: one byte that says how it is cut, then the client's bytes.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from contextlib import suppress
from functools import cache

from enforcer.errors import ProtocolError
from enforcer.protocols.tls.client_hello import ClientHello, Collector, parse
from tests.fuzz.target import Target, cut, options
from tests.protocols.wire_tls import client_hello, extension, records, server_name, vector, written


def read(data: bytes, step: int) -> ClientHello | None:
    """What our parser makes of it; None where it refuses, or waits for more."""
    collector = Collector()
    try:
        for piece in cut(data, step):
            if (body := collector.feed(piece)) is not None:
                return parse(body)
    except ProtocolError:
        return None
    return None


def judge(data: bytes) -> None:
    (step,), sent = options(data, 1)
    hello = read(sent, 0)
    assert read(sent, step) == hello
    if hello is None:
        return
    seen = openssl_sees(sent)
    if seen is not None:
        assert seen.lower() == hello.name, (seen, hello)


@cache
def _server() -> tuple[ssl.SSLContext, list[str | None]]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    seen: list[str | None] = []
    context.sni_callback = lambda _connection, name, _context: seen.append(name)
    return context, seen


def openssl_sees(data: bytes) -> str | None:
    """The name that a server on OpenSSL reads, empty for none; None where it refuses before it asks for a name."""
    context, seen = _server()
    seen.clear()
    arrived = ssl.MemoryBIO()
    arrived.write(data)
    connection = context.wrap_bio(arrived, ssl.MemoryBIO(), server_side=True)
    with suppress(ssl.SSLError):  # it has no certificate; the name is read before that matters
        connection.do_handshake()
    return (seen[0] or "") if seen else None


def seeds() -> Iterator[bytes]:
    for step in (0, 1, 9):
        yield bytes([step]) + client_hello("db.example.org", ["h2", "http/1.1"])
        yield bytes([step]) + client_hello("a", newest=ssl.TLSVersion.TLSv1_2)
        yield bytes([step]) + client_hello(None)
        yield bytes([step]) + records(written(server_name(b"Db.Example", b"other")), 40)
        yield bytes([step]) + records(written(server_name(b"a"), server_name(b"b")))
        yield bytes([step]) + records(
            written(server_name(b"a"), extension(0xFE0D, b"x"), extension(16, vector(2, b"")))
        )
        yield bytes([step]) + records(written(server_name(b"a\0b")) + b"x")


WORDS = (b"\x16\3\1", b"\x16\3\3", b"\3\3", b"\0\0", b"\xfe\x0d", b"\0\x10", b"\0\x02h2", b"a.b", b"\0\x2b", b"\0\x33")
TARGET = Target("client-hello", judge, seeds, WORDS)
