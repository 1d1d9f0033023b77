"""Step 4 of 6, inspect: cuts the bytes of one side of a MySQL connection into messages, and reads what is in them.

Gets bytes in any pieces; hands on whole messages. A message is one packet (3 bytes of length, 1 of sequence, payload),
or several where it has 2^24-1 bytes or more. Source: MySQL internals, "MySQL Packets", "Basic Types".
"""

from __future__ import annotations

from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.unread import Unread

HEADER: Final = 4
"""Bytes before a packet's payload."""

FULL: Final = 0xFFFFFF
"""Bytes of payload of a packet that another one continues."""

NULL: Final = 0xFB
"""First byte of a length-encoded value that is NULL."""

_WIDTHS: Final = {0xFC: 2, 0xFD: 3, 0xFE: 8}


class Packets(Unread):
    """The unread bytes of one side, as packets."""

    __slots__ = ()

    def header(self) -> tuple[int, int] | None:
        """Payload length and sequence of the next packet; None with fewer than 4 bytes."""
        if not self.has(HEADER):
            return None
        data, pos = self.data, self.pos
        return data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16, data[pos + 3]

    def message(self, sequence: int, limit: int) -> bytes | None:
        """The next message as it came, headers included, or None until it is there. Raises ProtocolError where its
        packets are not numbered from `sequence` on, LimitExceeded where it has more than `limit` bytes."""
        size = 0
        while self.has(size + HEADER):
            at = self.pos + size
            length = self.data[at] | self.data[at + 1] << 8 | self.data[at + 2] << 16
            check_sequence(self.side, self.data[at + 3], sequence)
            size += HEADER + length
            sequence = sequence + 1 & 0xFF
            if size > limit:
                raise LimitExceeded(self.side, f"message of {size} bytes is over the limit of {limit}")
            if length < FULL:
                return self.take(size)
        return None


def check_sequence(side: Side, sequence: int, expected: int) -> None:
    """Raises ProtocolError unless the two are the same: a packet is missing, or belongs to something else."""
    if sequence != expected:
        raise ProtocolError(side, f"packet number {sequence} where {expected} was due")


def payload_of(raw: bytes) -> bytes:
    """What is in a message, without its headers."""
    if len(raw) < HEADER + FULL:
        return raw[HEADER:]
    step = HEADER + FULL
    return b"".join(raw[at + HEADER : at + step] for at in range(0, len(raw), step))


def message_size(data: bytes, pos: int) -> int:
    """Bytes of the message at `pos`, which is whole, headers included."""
    size = 0
    while True:
        length = int.from_bytes(data[pos + size : pos + size + 3], "little")
        size += HEADER + length
        if length < FULL:
            return size


def count_of(raw: bytes) -> int:
    """Packets of a message."""
    return len(raw) // (HEADER + FULL) + 1


def message_of(payload: bytes, sequence: int) -> bytes:
    """`payload` as a message whose first packet has number `sequence`."""
    size = len(payload)
    if size < FULL:
        return size.to_bytes(3, "little") + bytes((sequence & 0xFF,)) + payload
    parts = []
    for at in range(0, size + 1, FULL):
        part = payload[at : at + FULL]
        parts += [len(part).to_bytes(3, "little"), bytes((sequence & 0xFF,)), part]
        sequence += 1
    return b"".join(parts)


def renumbered(raw: bytes, sequence: int) -> bytes:
    """A message with its packets numbered from `sequence` on."""
    if len(raw) < HEADER + FULL:
        return raw[:3] + bytes((sequence & 0xFF,)) + raw[HEADER:]
    return message_of(payload_of(raw), sequence)


def length_encoded(size: int) -> bytes:
    """A length-encoded integer."""
    if size < NULL:
        return bytes((size,))
    for first, width in _WIDTHS.items():
        if size < 1 << 8 * width:
            return bytes((first,)) + size.to_bytes(width, "little")
    raise ValueError("a number of more than 64 bits")


def text_encoded(value: bytes | None) -> bytes:
    """A length-encoded string; None is NULL."""
    return b"\xfb" if value is None else length_encoded(len(value)) + value


class Reader:
    """Takes a payload of `side` apart, from `pos` on. Every method raises ProtocolError where it ends too soon."""

    __slots__ = ("_side", "data", "pos")

    def __init__(self, data: bytes, side: Side, pos: int = 0) -> None:
        self.data = data
        self.pos = pos
        self._side = side

    @property
    def left(self) -> int:
        return len(self.data) - self.pos

    def take(self, size: int) -> bytes:
        end = self.pos + size
        if end > len(self.data):
            raise ProtocolError(self._side, "a message ends before what it holds")
        taken = self.data[self.pos : end]
        self.pos = end
        return taken

    def integer(self, width: int) -> int:
        return int.from_bytes(self.take(width), "little")

    def length(self) -> int:
        """A length-encoded integer."""
        first = self.integer(1)
        if first < NULL:
            return first
        width = _WIDTHS.get(first)
        if width is None:
            raise ProtocolError(self._side, "a length that is none")
        return self.integer(width)

    def text(self) -> bytes:
        """A length-encoded string that may not be NULL."""
        return self.take(self.length())

    def nullable(self) -> bytes | None:
        """A length-encoded string, or NULL."""
        if self.left and self.data[self.pos] == NULL:
            self.pos += 1
            return None
        return self.text()

    def to_nul(self) -> bytes:
        """A string that a NUL byte ends."""
        end = self.data.find(b"\x00", self.pos)
        if end < 0:
            raise ProtocolError(self._side, "a string has no end")
        taken = self.data[self.pos : end]
        self.pos = end + 1
        return taken

    def to_nul_or_end(self) -> bytes:
        """The same; the last one of a message may lack its NUL byte."""
        return self.to_nul() if b"\x00" in self.data[self.pos :] else self.rest()

    def rest(self) -> bytes:
        taken = self.data[self.pos :]
        self.pos = len(self.data)
        return taken

    def end(self) -> None:
        """Raises ProtocolError where something is left."""
        if self.left:
            raise ProtocolError(self._side, "a message goes on after what it holds")
