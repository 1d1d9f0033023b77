"""Steps 1 and 2 of 6, from the resolver's side: whose a message is, by the socket it came in at.

Each executor has a pair of UDP sockets in each of its network namespaces; connections come from the workers, with the
kernel's own record of who dialled. Hands each message to the answerer, and its answers back the way they came.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from functools import partial

from enforcer.proxy.journal import Journal
from enforcer.resolver.answerer import Answerer, Asker
from enforcer.resolver.records import Sessions

# Datagrams taken in one turn from one socket, so that none starves the others. Their size: no question is as large.
TURN, LARGEST_QUESTION = 64, 4096
# RFC 7766: connections of one executor, questions under way on one, and seconds that one may be idle.
MAX_CONNECTIONS, MAX_PIPELINED, IDLE = 64, 32, 10.0


class Datagrams:
    """The UDP sockets of one executor at one place."""

    def __init__(
        self, sockets: list[socket.socket], asker: Asker, sessions: Sessions, answerer: Answerer, journal: Journal
    ) -> None:
        self._sockets = sockets
        self._asker = asker
        self._sessions = sessions
        self._answerer = answerer
        self._journal = journal
        self._loop = asyncio.get_running_loop()
        for sock in sockets:
            sock.setblocking(False)
            self._loop.add_reader(sock, self._read, sock)

    def _read(self, sock: socket.socket) -> None:
        for _ in range(TURN):
            if self._journal.congested:
                self._loop.remove_reader(sock)
                self._journal.when_clear(partial(self._go_on, sock))
                return
            try:
                data, client = sock.recvfrom(LARGEST_QUESTION)
            except BlockingIOError:
                return
            except OSError:
                continue  # an error of an earlier answer, reported late
            self._answerer.receive(data, self._asker, self._sessions, partial(_send, sock, client))

    def _go_on(self, sock: socket.socket) -> None:
        if sock.fileno() >= 0:
            self._loop.add_reader(sock, self._read, sock)

    def close(self, cause: str) -> None:
        for sock in self._sockets:
            self._loop.remove_reader(sock)
            sock.close()
        self._sessions.end(cause)


def _send(sock: socket.socket, client: object, wire: bytes) -> None:
    if wire:
        with contextlib.suppress(OSError):  # it is gone, or does not read: it may ask again
            sock.sendto(wire, client)  # type: ignore[call-overload]


class Stream(asyncio.Protocol):
    """One connection: messages with their length in front, answered as they are known (RFC 7766)."""

    def __init__(self, asker: Asker, sessions: Sessions, answerer: Answerer, open_streams: set[Stream]) -> None:
        self._asker = asker
        self._sessions = sessions
        self._answerer = answerer
        self._open = open_streams
        self._received = bytearray()
        self._under_way = 0
        self._asked_all = False
        self._ended = False
        self._loop = asyncio.get_running_loop()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._open.add(self)
        self._idle = self._loop.call_later(IDLE, self.close)

    def data_received(self, data: bytes) -> None:
        self._received += data
        self._take()

    def _take(self) -> None:
        while len(self._received) >= 2 and self._under_way < MAX_PIPELINED and not self._ended:
            length = int.from_bytes(self._received[:2], "big")
            if length > LARGEST_QUESTION:
                self.close()
                return
            if len(self._received) < 2 + length:
                break
            message = bytes(self._received[2 : 2 + length])
            del self._received[: 2 + length]
            self._restart_idle()
            self._under_way += 1
            self._answerer.receive(message, self._asker, self._sessions, self._send, stream=True)
        if self._under_way >= MAX_PIPELINED:
            self._transport.pause_reading()

    def _send(self, wire: bytes) -> None:
        """One answer is known; an empty one ends the connection, as there is nothing to say to what came."""
        self._under_way -= 1
        if self._ended:
            return
        if wire:
            self._transport.write(struct.pack(">H", len(wire)) + wire)
        if not wire or (self._asked_all and not self._under_way and not self._received):
            self.close()
            return
        self._restart_idle()
        self._transport.resume_reading()
        if self._received:
            self._loop.call_soon(self._take)

    def _restart_idle(self) -> None:
        self._idle.cancel()
        self._idle = self._loop.call_later(IDLE, self.close)

    def eof_received(self) -> bool:
        """The client has asked all it wanted; answers under way still reach it."""
        self._asked_all = True
        return self._under_way > 0

    def connection_lost(self, _error: Exception | None) -> None:
        self._ended = True
        self._idle.cancel()
        self._open.discard(self)
        self._sessions.end("client closed")

    def close(self) -> None:
        self._ended = True
        self._sessions.end("closed")
        self._transport.close()
