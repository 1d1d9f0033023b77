"""MySQL's messages, built from the protocol's description (MySQL internals, "Client/Server Protocol")."""

from __future__ import annotations

import struct

LONG_PASSWORD, CONNECT_WITH_DB, COMPRESS, LOCAL_FILES = 1, 1 << 3, 1 << 5, 1 << 7
PROTOCOL_41, SSL, TRANSACTIONS, SECURE = 1 << 9, 1 << 11, 1 << 13, 1 << 15
MULTI_STATEMENTS, MULTI_RESULTS, PS_MULTI, PLUGIN_AUTH = 1 << 16, 1 << 17, 1 << 18, 1 << 19
CONNECT_ATTRS, LENENC_AUTH, SESSION_TRACK, DEPRECATE_EOF = 1 << 20, 1 << 21, 1 << 23, 1 << 24
OPTIONAL_METADATA, ZSTD, QUERY_ATTRIBUTES = 1 << 25, 1 << 26, 1 << 27

BASIC = LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE | MULTI_STATEMENTS | MULTI_RESULTS | PLUGIN_AUTH
MORE, CURSOR, TRACKED = 0x0008, 0x0040, 0x4000
LONGLONG, VAR_STRING, DATE = 8, 253, 10
UTF8MB4, BINARY, GBK = 45, 63, 28


def packet(payload: bytes, sequence: int) -> bytes:
    return len(payload).to_bytes(3, "little") + bytes((sequence & 0xFF,)) + payload


def lenenc(data: bytes) -> bytes:
    """A length-encoded string."""
    if len(data) < 251:
        return bytes((len(data),)) + data
    return b"\xfc" + struct.pack("<H", len(data)) + data


def greeting(capabilities: int = BASIC, version: bytes = b"8.0.36", extended: int = 0) -> bytes:
    """HandshakeV10. `extended`: MariaDB's own capabilities."""
    low, high = capabilities & 0xFFFF, capabilities >> 16
    body = b"\x0a" + version + b"\0" + struct.pack("<I", 7) + b"abcdefgh\0"
    body += struct.pack("<HBHHB", low, UTF8MB4, 2, high, 21) + bytes(6) + struct.pack("<I", extended)
    return packet(body + b"ijklmnopqrst\0caching_sha2_password\0", 0)


def login(
    capabilities: int = BASIC,
    user: bytes = b"app",
    database: bytes = b"",
    collation: int = UTF8MB4,
    sequence: int = 1,
    attributes: bytes = b"",
) -> bytes:
    """HandshakeResponse41."""
    if database:
        capabilities |= CONNECT_WITH_DB
    body = struct.pack("<IIB", capabilities, 1 << 24, collation) + bytes(23) + user + b"\0" + lenenc(b"p" * 32)
    if database:
        body += database + b"\0"
    if capabilities & PLUGIN_AUTH:
        body += b"caching_sha2_password\0"
    return packet(body + attributes, sequence)


def ssl_request(capabilities: int = BASIC | SSL) -> bytes:
    return packet(struct.pack("<IIB", capabilities, 1 << 24, UTF8MB4) + bytes(23), 1)


def ok(
    sequence: int, affected: int = 0, last_id: int = 0, status: int = 2, tail: bytes = b"", header: int = 0
) -> bytes:
    body = bytes((header, affected, last_id)) if last_id < 251 else bytes((header, affected, 0xFE))
    body += struct.pack("<Q", last_id) if last_id >= 251 else b""
    return packet(body + struct.pack("<HH", status, 0) + tail, sequence)


def eof(sequence: int, status: int = 2) -> bytes:
    return packet(b"\xfe" + struct.pack("<HH", 0, status), sequence)


def err(sequence: int, code: int, state: bytes, words: bytes) -> bytes:
    return packet(b"\xff" + struct.pack("<H", code) + (b"#" + state if state else b"") + words, sequence)


def command(code: int, body: bytes = b"") -> bytes:
    return packet(bytes((code,)) + body, 0)


def query(text: bytes) -> bytes:
    return command(3, text)


def column(
    sequence: int,
    name: bytes,
    org_name: bytes = b"",
    table: bytes = b"",
    org_table: bytes = b"",
    kind: int = VAR_STRING,
    collation: int = UTF8MB4,
    flags: int = 0,
) -> bytes:
    body = b"".join(map(lenenc, (b"def", b"shop", table, org_table or table, name, org_name)))
    return packet(body + b"\x0c" + struct.pack("<HIBHBH", collation, 100, kind, flags, 0, 0), sequence)


def row(sequence: int, *cells: bytes | None) -> bytes:
    """A row of the text protocol."""
    return packet(b"".join(b"\xfb" if cell is None else lenenc(cell) for cell in cells), sequence)


def binary_row(sequence: int, nulls: bytes, *cells: bytes) -> bytes:
    return packet(b"\0" + nulls + b"".join(cells), sequence)


def count(sequence: int, columns: int) -> bytes:
    return packet(bytes((columns,)), sequence)


def prepared(sequence: int, number: int, columns: int, parameters: int) -> bytes:
    return packet(b"\0" + struct.pack("<IHHBH", number, columns, parameters, 0, 0), sequence)


def execute(number: int, tail: bytes = b"", flags: int = 0) -> bytes:
    return command(0x17, struct.pack("<IBI", number, flags, 1) + tail)


def result(*cells: bytes | None, names: tuple[bytes, ...], start: int = 1, status: int = 2) -> bytes:
    """A whole result of one row, columns of one table `customers`, with EOFs."""
    out, sequence = count(start, len(names)), start + 1
    for name in names:
        out += column(sequence, name, name, b"customers")
        sequence += 1
    return out + eof(sequence) + row(sequence + 1, *cells) + eof(sequence + 2, status)
