"""Step 5 of 6, forward: our own queries to the operator's resolvers, over UDP, TCP or TLS.

Gets a name and a type that were allowed; hands on the raw message that answers it, with its id and question checked.
Every query has a random id and, over UDP, a socket and so a source port of its own. What is not the answer is dropped
and counted, and waited on for as long as there is time (RFC 5452).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from enforcer.log import get_logger
from enforcer.resolver.wire import HEADER, QR, TC, Ede, build_query

# Seconds for one try, for all of them, and that an upstream is put last after it failed.
TRY, PATIENCE, PENALTY = 1.5, 5.0, 15.0
# Rounds over all upstreams.
ROUNDS = 2
# Messages that are not the answer, on one socket: from then on somebody guesses.
MAX_STRANGERS = 32
# Seconds after which an idle TLS connection is closed (RFC 7858 section 3.4 leaves it to us).
IDLE = 20.0
_LARGEST = 65_535

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Server:
    """One upstream. `tls`: the name in its certificate, or empty."""

    address: str
    port: int
    tls: str = ""

    def __str__(self) -> str:
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}" + (f" ({self.tls})" if self.tls else "")


class NoAnswer(Exception):
    """No upstream answered. `ede` and the text say why."""

    def __init__(self, ede: Ede, why: str) -> None:
        super().__init__(why)
        self.ede = ede


class Upstreams:
    """All of them, in the order of the configuration; one that failed comes last for a while."""

    def __init__(self, counters: Counter[str]) -> None:
        self._counters = counters
        self._servers: tuple[Server, ...] = ()
        self._failed: dict[Server, float] = {}
        self._encrypted: dict[Server, TlsConnection] = {}

    def use(self, servers: Sequence[Server]) -> None:
        self._servers = tuple(servers)
        for gone in [server for server in self._encrypted if server not in self._servers]:
            self._encrypted.pop(gone).close()

    async def ask(self, name: bytes, qtype: int, rejected: set[Server]) -> tuple[bytes, Server]:
        """A message that answers, and whose it is; never from one of `rejected`, whose answers were of no use. Raises
        NoAnswer."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PATIENCE
        why = "no upstream resolver is configured"
        for _ in range(ROUNDS):
            for server in sorted(self._servers, key=lambda one: self._failed.get(one, 0.0) > loop.time()):
                left = deadline - loop.time()
                if server in rejected or left <= 0:
                    continue
                try:
                    async with asyncio.timeout(min(TRY, left)):
                        answer = await self._ask_one(server, name, qtype)
                except (OSError, EOFError, ssl.SSLError, TimeoutError) as error:
                    self._counters["UPSTREAM_FAILED"] += 1
                    self._failed[server] = loop.time() + PENALTY
                    why = f"{server}: {_words(error)}"
                else:
                    self._failed.pop(server, None)
                    return answer, server
        if rejected:
            raise NoAnswer(Ede.NO_AUTHORITY, "the upstream resolvers answered with an error")
        raise NoAnswer(Ede.NETWORK, why)

    async def _ask_one(self, server: Server, name: bytes, qtype: int) -> bytes:
        if server.tls:
            connection = self._encrypted.get(server)
            if connection is None or connection.closed:
                connection = self._encrypted[server] = TlsConnection(server, self._counters)
            return await connection.ask(name, qtype)
        answer = await self._over_udp(server, name, qtype)
        if HEADER.unpack_from(answer)[1] & TC:
            self._counters["UPSTREAM_TRUNCATED"] += 1
            return await self._over_tcp(server, name, qtype)
        return answer

    async def _over_udp(self, server: Server, name: bytes, qtype: int) -> bytes:
        loop = asyncio.get_running_loop()
        family = socket.AF_INET6 if ":" in server.address else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
            # Connected: the kernel chooses a random port, and drops what comes from anywhere else.
            sock.connect((server.address, server.port))
            ident = secrets.randbits(16)
            sock.send(build_query(ident, name, qtype))
            for _ in range(MAX_STRANGERS):
                answer = await loop.sock_recv(sock, _LARGEST)
                if fits(answer, ident, name, qtype, self._counters):
                    return answer
        raise EOFError("only answers to other questions")

    async def _over_tcp(self, server: Server, name: bytes, qtype: int) -> bytes:
        reader, writer = await asyncio.open_connection(server.address, server.port)
        try:
            ident = secrets.randbits(16)
            query = build_query(ident, name, qtype)
            writer.write(struct.pack(">H", len(query)) + query)
            for _ in range(MAX_STRANGERS):
                answer = await _read_message(reader)
                if fits(answer, ident, name, qtype, self._counters):
                    return answer
        finally:
            writer.close()
        raise EOFError("only answers to other questions")


class TlsConnection:
    """One connection for many queries (RFC 7858): opened at the first, closed when idle or broken. The certificate must
    be the upstream's, by the trust store of this host."""

    def __init__(self, server: Server, counters: Counter[str]) -> None:
        self._server = server
        self._counters = counters
        self._waiting: dict[int, tuple[bytes, int, asyncio.Future[bytes]]] = {}
        self._opened: asyncio.Task[asyncio.StreamWriter] | None = None
        self._reading: asyncio.Task[None] | None = None
        self.closed = False

    async def ask(self, name: bytes, qtype: int) -> bytes:
        loop = asyncio.get_running_loop()
        if self._opened is None:
            self._opened = loop.create_task(self._open())
        # Shielded: one query that is given up does not end the connection that others wait for.
        writer = await asyncio.shield(self._opened)
        ident = secrets.randbits(16)
        while ident in self._waiting:
            ident = secrets.randbits(16)
        answered: asyncio.Future[bytes] = loop.create_future()
        self._waiting[ident] = (name, qtype, answered)
        try:
            query = build_query(ident, name, qtype)
            writer.write(struct.pack(">H", len(query)) + query)
            return await answered
        finally:
            self._waiting.pop(ident, None)

    async def _open(self) -> asyncio.StreamWriter:
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(
                    self._server.address,
                    self._server.port,
                    ssl=ssl.create_default_context(),
                    server_hostname=self._server.tls,
                )
        except (OSError, TimeoutError):
            self.closed = True
            raise
        self._reading = asyncio.get_running_loop().create_task(self._read(reader, writer))
        return writer

    async def _read(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(IDLE):
                    answer = await _read_message(reader)
                ident = int.from_bytes(answer[:2], "big")
                name, qtype, answered = self._waiting.get(ident, (b"", 0, None))
                if answered is None:
                    self._counters["UPSTREAM_WRONG_ID"] += 1
                elif fits(answer, ident, name, qtype, self._counters) and not answered.done():
                    answered.set_result(answer)
        except (OSError, EOFError, TimeoutError) as error:
            self._end(error)
        finally:
            self.closed = True
            writer.close()

    def _end(self, error: Exception) -> None:
        for _, _, answered in self._waiting.values():
            if not answered.done():
                answered.set_exception(EOFError(f"connection closed: {_words(error)}"))

    def close(self) -> None:
        self.closed = True
        for task in (self._opened, self._reading):
            if task is not None:
                task.cancel()


async def _read_message(reader: asyncio.StreamReader) -> bytes:
    length = int.from_bytes(await reader.readexactly(2), "big")
    return await reader.readexactly(length)


def fits(answer: bytes, ident: int, name: bytes, qtype: int, counters: Counter[str]) -> bool:
    """Is it the answer to this very query: an answer, with this id and this one question?"""
    if len(answer) < HEADER.size:
        counters["UPSTREAM_MALFORMED"] += 1
        return False
    got, flags, questions, *_ = HEADER.unpack_from(answer)
    if got != ident or not flags & QR:
        counters["UPSTREAM_WRONG_ID"] += 1
        return False
    end = 12 + len(name)
    same = questions == 1 and answer[12:end].lower() == name and answer[end : end + 4] == struct.pack(">HH", qtype, 1)
    if not same:
        counters["UPSTREAM_WRONG_QUESTION"] += 1
    return same


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate: {error.verify_message}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
