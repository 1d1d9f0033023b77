"""Step 4 of 6, inspect: MongoDB's messages: header, OP_MSG, what is left of the older ones, and compressed ones.

Gets one side's bytes; hands on whole messages, uncompressed, with the places of their documents. Source: MongoDB's
manual, "MongoDB Wire Protocol", and the drivers' specifications of OP_MSG and OP_COMPRESSED.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.mongodb import bson
from enforcer.protocols.mongodb.bson import Malformed
from enforcer.protocols.unread import Unread

HEADER: Final = struct.Struct("<iiii")
"""Length of the whole, requestID, responseTo, opCode."""

MAX_MESSAGE: Final = 48_000_000
"""Bytes of a message: `maxMessageSizeBytes` of every server."""

OP_REPLY, OP_QUERY, OP_COMPRESSED, OP_MSG = 1, 2004, 2012, 2013
CHECKSUM, MORE_TO_COME, EXHAUST_ALLOWED = 1, 2, 1 << 16
_KNOWN_FLAGS: Final = CHECKSUM | MORE_TO_COME
_REQUIRED: Final = 0xFFFF
"""Flags that a receiver must know; the upper ones it may ignore."""
QUERY_FAILURE: Final = 2

_NOOP, _SNAPPY, _ZLIB, _ZSTD = range(4)


@dataclass(slots=True)
class Sequence:
    """A section of documents: what it is called, and where they begin. `at`: where its length is."""

    name: str
    at: int
    end: int
    documents: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Message:
    """A message, uncompressed. `raw`: all of it. `body`: where its document begins, `end`: where its sections do."""

    raw: bytes
    request: int
    response: int
    code: int
    flags: int = 0
    body: int = 0
    end: int = 0
    sequences: list[Sequence] = field(default_factory=list)
    namespace: str = ""

    @property
    def more(self) -> bool:
        return self.code == OP_MSG and bool(self.flags & MORE_TO_COME)


class Reader:
    """Reads the messages of `side`."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self.unread = Unread(side)

    def next(self) -> Message | None:
        """The next message, None where bytes are missing. Raises ProtocolError, LimitExceeded."""
        unread = self.unread
        if not unread.has(HEADER.size):
            return None
        size = HEADER.unpack_from(unread.data, unread.pos)[0]
        if size > MAX_MESSAGE:
            raise LimitExceeded(self._side, f"a message of {size} bytes is over the limit of {MAX_MESSAGE}")
        if size < HEADER.size:
            raise ProtocolError(self._side, "a message's length is impossible")
        raw = unread.take(size)
        if raw is None:
            return None
        try:
            return _parse(raw, self._side)
        except (Malformed, struct.error, zlib.error) as error:
            reason = str(error) if isinstance(error, Malformed) else "a message is cut off or damaged"
            raise ProtocolError(self._side, reason) from None


def _parse(raw: bytes, side: Side) -> Message:
    _, request, response, code = HEADER.unpack_from(raw)
    if code == OP_COMPRESSED:
        raw = _decompressed(raw, side)
        code = HEADER.unpack_from(raw)[3]
    message = Message(raw, request, response, code)
    if code == OP_MSG:
        _read_sections(message, side)
    elif code == OP_QUERY and side is Side.CLIENT:
        _read_query(message)
    elif code == OP_REPLY and side is Side.SERVER:
        _read_reply(message)
    else:
        raise ProtocolError(side, f"messages of opCode {code} are not inspected; use a driver that speaks OP_MSG")
    return message


def _read_sections(message: Message, side: Side) -> None:
    raw = message.raw
    message.flags = int.from_bytes(raw[16:20], "little")
    if message.flags & _REQUIRED & ~_KNOWN_FLAGS:
        raise ProtocolError(side, "OP_MSG has a flag that is not known")
    at, end = 20, len(raw) - (4 if message.flags & CHECKSUM else 0)
    message.end = end
    while at < end:
        kind = raw[at]
        if kind == 0:
            if message.body:
                raise ProtocolError(side, "OP_MSG has two bodies")
            message.body = at + 1
            at += 1 + bson.size_of(raw, at + 1, end)
        elif kind == 1:
            sequence = _read_sequence(raw, at + 1, end)
            if any(other.name == sequence.name for other in message.sequences):
                raise ProtocolError(side, "OP_MSG has two sections of one name")
            message.sequences.append(sequence)
            at = sequence.end
        else:
            raise ProtocolError(side, "OP_MSG has a section of an unknown kind")
    if not message.body or at != end:
        raise ProtocolError(side, "OP_MSG has no body, or a cut one")


def _read_sequence(raw: bytes, at: int, limit: int) -> Sequence:
    size = int.from_bytes(raw[at : at + 4], "little")
    end = at + size
    stop = raw.find(b"\0", at + 4, limit)
    if size < 5 or end > limit or stop < 0 or stop >= end:
        raise Malformed("a section's length is impossible")
    sequence = Sequence(raw[at + 4 : stop].decode("utf-8", "backslashreplace"), at, end)
    place = stop + 1
    while place < end:
        sequence.documents.append(place)
        place += bson.size_of(raw, place, end)
    return sequence


def _read_query(message: Message) -> None:
    """OP_QUERY: flags, collection, numbers to skip and return, the query; a selector of fields no command has."""
    raw = message.raw
    stop = raw.find(b"\0", 20)
    if stop < 0:
        raise Malformed("a collection's name has no end")
    message.namespace = raw[20:stop].decode("utf-8", "backslashreplace")
    message.body = stop + 9
    message.end = message.body + bson.size_of(raw, message.body, len(raw))
    if message.end != len(raw):
        raise Malformed("something follows a query")


def _read_reply(message: Message) -> None:
    """OP_REPLY: flags, cursor, first and number of documents; a command's has one."""
    raw = message.raw
    message.flags = int.from_bytes(raw[16:20], "little")
    if int.from_bytes(raw[32:36], "little") != 1:
        raise Malformed("a command's reply has not one document")
    message.body = 36
    message.end = 36 + bson.size_of(raw, 36, len(raw))
    if message.end != len(raw):
        raise Malformed("something follows a reply")


def _decompressed(raw: bytes, side: Side) -> bytes:
    """OP_COMPRESSED: the opCode of what it holds, its size without its header, the compressor's number, the bytes."""
    if len(raw) < 25:
        raise Malformed("a compressed message is cut off")
    _, request, response, _ = HEADER.unpack_from(raw)
    code, size = struct.unpack_from("<ii", raw, 16)
    compressor, data = raw[24], raw[25:]
    if code == OP_COMPRESSED or not 0 <= size <= MAX_MESSAGE - HEADER.size:
        raise LimitExceeded(side, "a compressed message is over the limit, or in another")
    if compressor == _NOOP:
        plain = data
    elif compressor == _ZLIB:
        unpacker = zlib.decompressobj()
        plain = unpacker.decompress(data, size + 1)
        if not unpacker.eof:
            plain = b""
    elif compressor == _ZSTD:
        plain = _unzstd(data, size)
    else:
        name = "snappy" if compressor == _SNAPPY else f"number {compressor}"
        raise ProtocolError(side, f"compression by {name} is not inspected, and was not agreed on")
    if len(plain) != size:
        raise Malformed("a compressed message does not have the size that it says")
    return HEADER.pack(size + HEADER.size, request, response, code) + plain


def _unzstd(data: bytes, size: int) -> bytes:
    import zstandard  # noqa: PLC0415 - for messages that nobody should send

    try:
        plain: bytes = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(data, max_output_size=size + 1)
    except zstandard.ZstdError as error:
        raise Malformed("a compressed message is damaged") from error
    return plain


def rewritten(message: Message, edits: bson.Edits, names: bson.Names) -> bytes:
    """The message with values replaced. Its checksum is left out: it is of other bytes, and may be."""
    raw, rewriting = message.raw, bson.Rewriting(message.raw, edits, names)
    if message.code != OP_MSG:
        return _sealed(message, raw[16 : message.body] + rewriting.document(message.body, message.end))
    parts = [(message.flags & ~CHECKSUM).to_bytes(4, "little")]
    for section in sorted([message.body, *(sequence.at for sequence in message.sequences)]):
        sequence = next((one for one in message.sequences if one.at == section), None)
        if sequence is None:
            parts += (b"\0", rewriting.document(section, message.end))
            continue
        name = raw[section + 4 : raw.index(b"\0", section + 4) + 1]
        documents = b"".join(rewriting.document(place, sequence.end) for place in sequence.documents)
        parts += (b"\1", (4 + len(name) + len(documents)).to_bytes(4, "little"), name, documents)
    return _sealed(message, b"".join(parts))


def _sealed(message: Message, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), message.request, message.response, message.code) + body


def reply(to: Message | None, response: int, request: int, document: bytes) -> bytes:
    """Our own reply to the command `to`, in the kind of message it came in; else to the requestID `response`."""
    response = to.request if to is not None else response
    if to is not None and to.code == OP_QUERY:
        body = struct.pack("<iqii", 0, 0, 0, 1) + document
        return HEADER.pack(HEADER.size + len(body), request, response, OP_REPLY) + body
    body = bytes(4) + b"\0" + document
    return HEADER.pack(HEADER.size + len(body), request, response, OP_MSG) + body
