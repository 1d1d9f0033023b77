"""Step 4 of 6, inspect: WebSocket frames (RFC 6455 section 5.2), read strictly and written anew.

Gets one side's bytes; hands on headers and payload pieces, unmasked. No extensions: reserved bits are faults.
"""

from __future__ import annotations

import secrets
import struct
from dataclasses import dataclass
from enum import IntEnum

from enforcer.errors import ProtocolError
from enforcer.flow import Side

# Bytes of a control frame's payload (section 5.5).
CONTROL_LIMIT = 125
_MASKED, _FINAL, _RESERVED = 0x80, 0x80, 0x70
_TWO_BYTES, _EIGHT_BYTES = 126, 127


class Opcode(IntEnum):
    """Section 5.2; the others are reserved."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


_OPCODES = {opcode.value: opcode for opcode in Opcode}


@dataclass(frozen=True, slots=True)
class Header:
    """A frame begins. `length`: of its payload."""

    opcode: Opcode
    final: bool
    length: int

    @property
    def control(self) -> bool:
        return self.opcode >= Opcode.CLOSE


@dataclass(frozen=True, slots=True)
class Payload:
    """A piece of the frame's payload, `last` where the frame ends with it (one of no bytes has one such piece)."""

    data: bytes
    last: bool


class FrameReader:
    """Reads the frames of `side`: a client's are masked, a server's are not (section 5.1)."""

    def __init__(self, side: Side) -> None:
        self._side = side
        self._data = b""
        self._at = 0
        self._left = -1
        self._key = b""

    @property
    def waiting(self) -> int:
        """Bytes that are here and not read."""
        return len(self._data) - self._at

    @property
    def in_frame(self) -> bool:
        """A header was read whose payload is not complete."""
        return self._left >= 0

    def receive(self, data: bytes) -> None:
        self._data = self._data[self._at :] + data
        self._at = 0

    def next(self) -> Header | Payload | None:
        """The next unit, None where more bytes are needed. Raises ProtocolError."""
        if self._left < 0:
            return self._header()
        if self._left and not self.waiting:
            return None
        data = self._data[self._at : self._at + self._left]
        self._at += len(data)
        self._left -= len(data)
        if self._key:
            turned = len(data) % 4
            data, self._key = apply_key(data, self._key), self._key[turned:] + self._key[:turned]
        last = self._left == 0
        if last:
            self._left = -1
        return Payload(data, last)

    def _header(self) -> Header | None:
        data, at = self._data, self._at
        if len(data) < at + 2:
            return None
        first, second = data[at], data[at + 1]
        opcode, length, masked = _OPCODES.get(first & 0x0F), second & 0x7F, bool(second & _MASKED)
        if first & _RESERVED or opcode is None:
            raise ProtocolError(self._side, "WebSocket: a reserved bit or opcode")
        if masked is not (self._side is Side.CLIENT):
            raise ProtocolError(self._side, "WebSocket: a frame of a client's has no mask, or one of a server's has")
        at += 2
        extended = {_TWO_BYTES: 2, _EIGHT_BYTES: 8}.get(length, 0)
        if len(data) < at + extended + (4 if masked else 0):
            return None
        if extended:
            length = int.from_bytes(data[at : at + extended], "big")
            if length < (_TWO_BYTES if extended == 2 else 1 << 16) or length >> 63:
                raise ProtocolError(self._side, "WebSocket: a length that is not written as it has to be")
            at += extended
        header = Header(opcode, bool(first & _FINAL), length)
        if header.control and (length > CONTROL_LIMIT or not header.final):
            raise ProtocolError(self._side, "WebSocket: a control frame that is long or in fragments")
        self._key = data[at : at + 4] if masked else b""
        self._at = at + (4 if masked else 0)
        self._left = length
        return header


def apply_key(data: bytes, key: bytes) -> bytes:
    """Masks or unmasks (section 5.3). One addition of long numbers: byte by byte is a hundred times slower."""
    size = len(data)
    if not size:
        return data
    keys = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(data, "little") ^ int.from_bytes(keys, "little")).to_bytes(size, "little")


def head(opcode: Opcode, length: int, *, final: bool = True, masked: bool = False) -> bytes:
    """A frame's first bytes, without its masking key."""
    first, mask = opcode | (_FINAL if final else 0), _MASKED if masked else 0
    if length < _TWO_BYTES:
        return bytes((first, mask | length))
    if length < 1 << 16:
        return struct.pack("!BBH", first, mask | _TWO_BYTES, length)
    return struct.pack("!BBQ", first, mask | _EIGHT_BYTES, length)


def opcode_of(frame: bytes) -> Opcode:
    """Of a frame that was written here."""
    return _OPCODES[frame[0] & 0x0F]


def from_client(opcode: Opcode, payload: bytes) -> bytes:
    """A whole message or control frame, with a masking key of its own (section 5.3: unpredictable)."""
    key = secrets.token_bytes(4)
    return head(opcode, len(payload), masked=True) + key + apply_key(payload, key)


def from_server(opcode: Opcode, payload: bytes) -> bytes:
    return head(opcode, len(payload)) + payload
