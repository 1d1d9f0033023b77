"""Step 6 of 6, record: which names executors were told an address for, kept here and in every worker.

Gets each answer before the executor does; hands what is new in it to the workers over socket pairs. The other way come
connections to port 53, which workers accept and the resolver serves.
"""

from __future__ import annotations

import asyncio
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

import orjson

from enforcer.flow import Address
from enforcer.log import get_logger
from enforcer.proxy.told import Told, receive_handed

# Seconds that a name is remembered for at least: connections are opened long after a short TTL.
MEMORY = 600.0
# Rows in one message, of some 60 bytes each.
BATCH = 500
# Messages that a worker may be behind; one that is stuck gets no more, and its flows no names.
MAX_BEHIND = 10_000
_SEND_BUFFER = 1 << 20

_log = get_logger()

Handed = Callable[[dict[str, Any], socket.socket], None]


class Links:
    """The pairs to the workers. `on_connection` gets what they hand over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told = Told()
        self._links: dict[socket.socket, deque[bytes]] = {}
        self.on_connection: Handed = _refuse

    def add(self, link: socket.socket) -> None:
        """A worker has come: it is told everything that still holds."""
        link.setblocking(False)
        link.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        self._links[link] = deque()
        self._loop.add_reader(link, self._receive, link)
        rows = self._told.rows()
        for start in range(0, len(rows), BATCH):
            self._send(link, orjson.dumps(rows[start : start + BATCH]))

    def tell(self, executor: int, addresses: Iterable[Address], name: str, expires: float) -> None:
        """`executor` is about to be told `addresses` for `name`. Sent where the workers do not know it, or not for long
        enough."""
        now = time.monotonic()
        until = max(expires, now + MEMORY)
        rows = []
        for address in map(str, addresses):
            if self._told.until(executor, address, name) < now + MEMORY / 2:
                self._told.learn(executor, address, name, until)
                rows.append((executor, address, name, until - now))
        if rows:
            message = orjson.dumps(rows)
            for link in list(self._links):
                self._send(link, message)

    def forget(self, executor: int) -> None:
        """The executor has ended. Workers let go of its names by time: nobody has its cgroup id again."""
        self._told.forget(executor)

    def _send(self, link: socket.socket, message: bytes) -> None:
        behind = self._links[link]
        if not behind:
            try:
                link.send(message)
            except BlockingIOError:
                self._loop.add_writer(link, self._catch_up, link)
            except OSError:
                self._drop(link)
                return
            else:
                return
        behind.append(message)
        if len(behind) > MAX_BEHIND:
            _log.error("a worker does not take names; it goes on without")
            self._drop(link)

    def _catch_up(self, link: socket.socket) -> None:
        behind = self._links[link]
        try:
            while behind:
                link.send(behind[0])
                behind.popleft()
        except BlockingIOError:
            return
        except OSError:
            self._drop(link)
            return
        self._loop.remove_writer(link)

    def _receive(self, link: socket.socket) -> None:
        try:
            handed = receive_handed(link)
        except BlockingIOError:
            return
        except OSError:
            handed = None
        if handed is None:
            self._drop(link)
            return
        self.on_connection(*handed)

    def _drop(self, link: socket.socket) -> None:
        if self._links.pop(link, None) is not None:
            self._loop.remove_reader(link)
            self._loop.remove_writer(link)
            link.close()


def _refuse(_whose: dict[str, Any], sock: socket.socket) -> None:
    sock.close()
