"""MongoDB's messages as drivers and servers write them, built with pymongo's BSON."""

from __future__ import annotations

import struct
from typing import Any

import bson

OP_QUERY, OP_COMPRESSED, OP_MSG = 2004, 2012, 2013
CHECKSUM, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16


def message(code: int, body: bytes, request: int, response: int = 0) -> bytes:
    return struct.pack("<iiii", 16 + len(body), request, response, code) + body


def op_msg(
    document: dict[str, Any],
    request: int,
    response: int = 0,
    *,
    flags: int = 0,
    sections: dict[str, list[dict[str, Any]]] | None = None,
    checksum: bytes = b"",
) -> bytes:
    """OP_MSG: a body, and sections of documents. `checksum`: what follows them."""
    body = struct.pack("<I", flags) + b"\0" + bson.encode(document)
    for name, documents in (sections or {}).items():
        section = name.encode() + b"\0" + b"".join(map(bson.encode, documents))
        body += b"\1" + struct.pack("<i", 4 + len(section)) + section
    return message(OP_MSG, body + checksum, request, response)


def op_query(document: dict[str, Any], request: int, namespace: str = "admin.$cmd") -> bytes:
    body = struct.pack("<i", 0) + namespace.encode() + b"\0" + struct.pack("<ii", 0, -1) + bson.encode(document)
    return message(OP_QUERY, body, request)


def read(raw: bytes) -> tuple[int, dict[str, Any]]:
    """Of an OP_MSG with a body alone: what it responds to, and the body."""
    length, _, response, code = struct.unpack_from("<iiii", raw)
    assert (length, code, raw[20]) == (len(raw), OP_MSG, 0)
    return response, bson.decode(raw[21:])
