"""Step 6 of 6, record: what a worker tells the supervisor's one SQLite writer.

Gets rows from sessions, already masked; hands them on in order over one stream, a line of JSON each, batched per turn
of the event loop. Never touches the database. A `commit` line is answered once everything before it is on disk.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import orjson

from enforcer.recording.rows import AnyRow

# Unsent rows a worker holds before its sessions wait: about 20,000 small exchanges.
HIGH_WATER = 8 << 20
# Bytes of one write from which on it is worth a system call of its own.
LARGE = 16 << 10


class Journal(asyncio.Protocol):
    """The worker's end of the record stream.

    `failing` is the recorder's error while it cannot write, else empty: sessions deny what they would have recorded.
    `on_lost` is called when the supervisor is gone.
    """

    def __init__(self, on_lost: Callable[[], None]) -> None:
        self.failing = ""
        self._on_lost = on_lost
        self._lines: list[bytes] = []
        self._writes: list[Callable[[], None]] = []
        self._scheduled = False
        self._congested = False
        self._commits: dict[int, Callable[[str], None]] = {}
        self._next_commit = 1
        self._waiting: deque[Callable[[], None]] = deque()
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.set_write_buffer_limits(high=HIGH_WATER)

    @property
    def congested(self) -> bool:
        """The supervisor is behind: wait for `when_clear` before making more rows."""
        return self._congested

    def when_clear(self, resume: Callable[[], None]) -> None:
        self._waiting.append(resume)

    def row(self, row: AnyRow | dict[str, int]) -> None:
        """Queues one row; it leaves with the others of this turn."""
        self._lines.append(orjson.dumps(row))
        self._schedule()

    def before_bytes(self, write: Callable[[], None], size: int) -> None:
        """Calls `write`, for `size` bytes, once the rows so far have left.

        That is at the end of this turn, or at once where `size` is large: all the small writes of a turn together cost
        much less than each in between the parsing of others' bytes, and large ones would pile up."""
        self._writes.append(write)
        if size >= LARGE:
            self.flush()
        else:
            self._schedule()

    def commit(self, done: Callable[[str], None]) -> None:
        """Calls `done` once every row so far is on disk, with an error text when it could not be written."""
        number = self._next_commit
        self._next_commit += 1
        self._commits[number] = done
        self.row({"commit": number})

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self.flush)

    def flush(self) -> None:
        """Sends the rows so far, then calls what waited for them to leave."""
        self._scheduled = False
        if self._lines:
            lines, self._lines = self._lines, []
            self._transport.write(b"\n".join(lines) + b"\n")
        writes, self._writes = self._writes, []
        for write in writes:
            write()

    def pause_writing(self) -> None:
        self._congested = True

    def resume_writing(self) -> None:
        self._congested = False
        while self._waiting and not self._congested:
            self._waiting.popleft()()

    def data_received(self, data: bytes) -> None:
        *lines, self._received = (self._received + data).split(b"\n")
        for line in lines:
            answer = orjson.loads(line)
            if "failing" in answer:
                self.failing = answer["failing"]
            else:
                self._commits.pop(answer["commit"])(answer["error"])

    def connection_lost(self, _error: Exception | None) -> None:
        self._on_lost()
