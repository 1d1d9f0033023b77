"""Step 4 of 6, inspect: cuts the bytes of one side of a PostgreSQL connection into messages.

Gets bytes in any pieces; hands on whole messages (`type byte, int32 length, body`, protocol 3.0 section 55.7).
Never copies a byte more than twice however the pieces are cut, and never looks inside a body.
"""

from __future__ import annotations

import struct
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side

HEADER: Final = struct.Struct(">Bi")
"""Type byte and length; the length counts itself but not the type byte."""

SMALLEST_LENGTH: Final = 4
"""A length counts its own four bytes."""


class Frames:
    """Unread bytes of `side`: `data[pos:]`, then the pieces that arrived since and complete no message yet.

    Pieces are joined once, when together they reach the size that was asked for: a message of n bytes costs
    n bytes of copying, also when it arrives one byte at a time.
    """

    __slots__ = ("_late", "_late_size", "data", "pos", "side")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.data = b""
        self.pos = 0
        self._late: list[bytes] = []
        self._late_size = 0

    def feed(self, data: bytes) -> None:
        """Takes the next bytes of this side."""
        if self.pos == len(self.data) and not self._late:
            self.data, self.pos = data, 0
        else:
            self._late.append(data)
            self._late_size += len(data)

    @property
    def unread(self) -> int:
        """Bytes that are here and were not taken."""
        return len(self.data) - self.pos + self._late_size

    def has(self, size: int) -> bool:
        """Are `size` bytes there? If so they lie in `data` from `pos` on."""
        have = len(self.data) - self.pos
        if have >= size:
            return True
        if have + self._late_size < size:
            return False
        self.data = b"".join((self.data[self.pos :], *self._late))
        self.pos = 0
        self._late.clear()
        self._late_size = 0
        return True

    def header(self) -> tuple[int, int] | None:
        """Type byte and whole size (header included) of the next message; None with fewer than 5 bytes.

        Raises ProtocolError where the length is impossible."""
        if not self.has(HEADER.size):
            return None
        code, length = HEADER.unpack_from(self.data, self.pos)
        if length < SMALLEST_LENGTH:
            raise ProtocolError(self.side, f"message length {length} is below {SMALLEST_LENGTH}")
        return code, 1 + length

    def take(self, size: int, limit: int) -> bytes | None:
        """The next `size` bytes, or None until they are there. Raises LimitExceeded above `limit`."""
        if size > limit:
            raise LimitExceeded(self.side, f"message of {size} bytes is over the limit of {limit}")
        if not self.has(size):
            return None
        taken = self.data[self.pos : self.pos + size]
        self.pos += size
        return taken

    def take_up_to(self, size: int) -> bytes:
        """What is there already of the next `size` bytes: for messages that pass through in pieces."""
        self.has(len(self.data) - self.pos + self._late_size)
        taken = self.data[self.pos : self.pos + size]
        self.pos += len(taken)
        return taken
