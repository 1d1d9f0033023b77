"""Step 5 of 6, forward: the connection to the server that the executor asked for.

Gets an endpoint whose first request was allowed and recorded; hands bytes to the session. Dials the original
destination itself, from the host's network namespace; never another address.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from typing import Any, Protocol

from enforcer.flow import Endpoint
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.resumption import ResumableTls


class ServerSide(Protocol):
    """What a session does with its server's bytes."""

    def server_data(self, data: bytes) -> None: ...
    def server_eof(self) -> None: ...
    def server_lost(self, error: Exception | None) -> None: ...
    def server_full(self, full: bool) -> None: ...


class Upstream(asyncio.Protocol):
    """One connection to a server, feeding `session`."""

    def __init__(self, session: ServerSide, inbox: Inbox, *, held: bool = False) -> None:
        self._session = session
        self._inbox = inbox
        self._held = held
        self._tls: ResumableTls | None = None

    def secured(self, transport: asyncio.BaseTransport) -> None:
        """The server has proven its name over `transport`; its session may be resumed once this connection ends."""
        tls = transport.get_extra_info("ssl_object")
        self._tls = tls if isinstance(tls, ResumableTls) else None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Over TLS, a server may be connected before anything is asked of it: what it says first has to wait."""
        if self._held:
            transport.pause_reading()  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self._inbox.receive(self._session.server_data, data)

    def eof_received(self) -> bool:
        self._inbox.judge()
        self._session.server_eof()
        return True  # the executor may still be sending

    def connection_lost(self, error: Exception | None) -> None:
        if self._tls is not None:
            self._tls.keep()
        self._inbox.judge()
        self._session.server_lost(error)

    def pause_writing(self) -> None:
        self._session.server_full(True)

    def resume_writing(self) -> None:
        self._session.server_full(False)


class Asking(asyncio.Protocol):
    """A connection to a server that was asked one thing, in clear, before anything else."""

    def __init__(self, answer: asyncio.Future[bytes]) -> None:
        self._answer = answer

    def data_received(self, data: bytes) -> None:
        if not self._answer.done():
            self._answer.set_result(data)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError(errno.ECONNRESET, "the server closed"))


async def ask(server: asyncio.Transport, question: bytes, patience: float) -> bytes:
    """What the server says to `question` within `patience` seconds. It is not read from any further. Raises OSError."""
    answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    server.set_protocol(Asking(answer))
    server.write(question)
    server.resume_reading()
    async with asyncio.timeout(patience):
        said = await answer
    server.pause_reading()
    return said


async def dial(
    session: ServerSide,
    inbox: Inbox,
    destination: Endpoint,
    patience: float,
    tls: tuple[ssl.SSLContext, str] | None = None,
) -> asyncio.Transport:
    """Connects to `destination` within `patience` seconds. `tls`: over TLS, and the name that the server has to
    prove, or an empty one for its address; then nothing is read before the session resumes it. Raises OSError
    (TimeoutError and SSLError included)."""
    loop = asyncio.get_running_loop()
    address = str(destination.address)
    secure: dict[str, Any] = {"ssl": tls[0], "server_hostname": tls[1] or address} if tls else {}
    async with asyncio.timeout(patience):
        transport, upstream = await loop.create_connection(
            lambda: Upstream(session, inbox, held=tls is not None), address, destination.port, **secure
        )
    upstream.secured(transport)
    return transport


async def secure(
    upstream: Upstream, tunnel: asyncio.Transport, target: Endpoint, patience: float, tls: tuple[ssl.SSLContext, str]
) -> asyncio.Transport:
    """TLS over a connection to `target` that is there already; otherwise as `dial`."""
    loop = asyncio.get_running_loop()
    name = tls[1] or str(target.address)
    async with asyncio.timeout(patience):
        server = await loop.start_tls(tunnel, upstream, tls[0], server_hostname=name, ssl_handshake_timeout=patience)
    if server is None:
        raise ConnectionResetError(errno.ECONNRESET, "the connection was closed")
    upstream.secured(server)
    server.pause_reading()
    return server
