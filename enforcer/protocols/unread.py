"""Step 4 of 6, inspect: the bytes of one side of a connection that are there and not read yet.

Gets bytes in any pieces; hands them on in the sizes and lines that a parser asks for. Never looks inside.
"""

from __future__ import annotations

from enforcer.errors import LimitExceeded
from enforcer.flow import Side


class Unread:
    """Unread bytes of `side`: `data[pos:]`, then the pieces that came since.

    Pieces are joined when together they have the size that was asked for: n bytes cost n bytes of copying, also where
    they come one at a time.
    """

    __slots__ = ("_late", "_late_size", "data", "pos", "side")

    def __init__(self, side: Side) -> None:
        self.side = side
        self.data = b""
        self.pos = 0
        self._late: list[bytes] = []
        self._late_size = 0

    def feed(self, data: bytes) -> None:
        if self.pos == len(self.data) and not self._late:
            self.data, self.pos = data, 0
        else:
            self._late.append(data)
            self._late_size += len(data)

    @property
    def size(self) -> int:
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

    def take(self, size: int) -> bytes | None:
        """The next `size` bytes, None until they are there."""
        if not self.has(size):
            return None
        start, self.pos = self.pos, self.pos + size
        return self.data[start : self.pos]

    def take_up_to(self, size: int) -> bytes:
        """What is there already of the next `size` bytes."""
        self.has(self.size)
        start = self.pos
        self.pos = min(start + size, len(self.data))
        return self.data[start : self.pos]

    def line_end(self, limit: int) -> int:
        """Where in `data` the CRLF of the line at `pos` stands, -1 while it is not there. Raises LimitExceeded where
        the line has more than `limit` bytes."""
        end = self.data.find(b"\r\n", self.pos, self.pos + limit + 2)
        if end < 0 and self._late:
            self.has(self.size)
            end = self.data.find(b"\r\n", self.pos, self.pos + limit + 2)
        if end < 0 and len(self.data) - self.pos > limit + 1:
            raise LimitExceeded(self.side, f"a line of over {limit} bytes")
        return end
