"""Steps 1 and 5 of 6, for protocols that ask for TLS in their own words before they speak it (`StartTls`).

Gets the client's request for TLS from an inspector; agrees with both ends, and puts the same inspector to what is
inside. The server is asked first, where policy lets it be reached at all: the client is told what the server says. What
the ClientHello asks for is then judged as any TLS is: ended here and read, passed on unread, or denied.
"""

from __future__ import annotations

import asyncio
import errno
from abc import abstractmethod
from collections.abc import Callable

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.policy.engine import TLS
from enforcer.protocols.base import Inspector, Protocol, Request, StartTls
from enforcer.protocols.registry import BY_ALPN
from enforcer.proxy.client_side import ClientSide
from enforcer.proxy.environment import Environment
from enforcer.proxy.judge import Judge
from enforcer.proxy.outbox import Outbox
from enforcer.proxy.state import State
from enforcer.proxy.tls import READ, agree
from enforcer.proxy.upstream import Upstream, ask, secure


class Securing(ClientSide):
    """The part of a session that puts TLS under a protocol that is being spoken already."""

    def __init__(self, environment: Environment, client: asyncio.Transport) -> None:
        super().__init__(environment, client)
        self._inspector: Inspector | None = None
        self._protocol = ""
        self._judge: Judge
        self._out: Outbox
        # Who goes on inside, while TLS is being agreed on; and how a server of this connection is asked for it.
        self._inside: Inspector | None = None
        self._asks: StartTls | None = None

    @abstractmethod
    def server_data(self, data: bytes) -> None: ...

    @abstractmethod
    def server_eof(self) -> None: ...

    @abstractmethod
    def server_lost(self, error: Exception | None) -> None: ...

    @abstractmethod
    def server_full(self, full: bool) -> None: ...

    @abstractmethod
    def _identify(self) -> None: ...

    @abstractmethod
    def _resume(self, step: Callable[[], None]) -> None: ...

    @abstractmethod
    async def _connect(self) -> asyncio.Transport:
        """The server, in clear."""

    def _takes_tls(self) -> bool:
        """Is TLS read here, or passed on unread?"""
        verdict = self._judge.verdict(TLS, Request(0, "StartTls", "", b"")).verdict
        return verdict.passes or self._judge.reads(TLS, {}, verdict)

    def _start_tls(self, event: StartTls) -> None:
        if self._secured is not None:
            raise ProtocolError(Side.CLIENT, "TLS is asked for inside TLS")
        if not self._takes_tls():
            self._out.to_client(event.decline)
            return
        self._asks = event
        recorded = not self._environment.journal.failing  # else nothing passes, and nobody is dialled
        if event.yes and recorded and (self._inspector is None or self._judge.could_pass(self._inspector.name)):
            self._state = State.SECURING
            self._throttle()
            self._meeting = self._environment.loop.create_task(self._ask_server(event))
            return
        if self._server is not None:
            self._out.to_server(event.ask)
        self._await_hello(event)

    async def _ask_server(self, event: StartTls) -> None:
        """The client is told what the server says. Where there is no server, it gets to read that inside TLS."""
        agreed = True
        try:
            server = self._met = await self._connect()
            agreed = await self._agrees(server, event)
        except OSError as error:
            self._forget_met()
            self._met = error
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow ends as denied and recorded
            self._fail(error)
            return
        if self._state is not State.SECURING:
            self._forget_met()
        elif self._first:  # it might be taken for what is inside
            self._fail(ProtocolError(Side.CLIENT, "bytes follow the request for TLS before its answer"))
        elif agreed:
            self._await_hello(event)
        else:
            self._asks = None
            self._resume(lambda: self._out.to_client(event.decline))

    async def _agreeing(self, event: StartTls) -> asyncio.Transport:
        """A server, in clear, that goes on in TLS. Raises OSError."""
        server = await self._connect()
        if not await self._agrees(server, event):
            server.abort()
            raise ConnectionError(errno.EPROTO, "it does not speak TLS")
        return server

    async def _agrees(self, server: asyncio.Transport, event: StartTls) -> bool:
        """Does a server that was just connected to speak TLS? Raises OSError where it says neither yes nor no."""
        said = await ask(server, event.ask, self._environment.connect_timeout)
        server.set_protocol(Upstream(self, self._environment.inbox, held=True))
        if said not in (event.yes, event.no):
            server.abort()
            raise ConnectionError(errno.EPROTO, "it answers the request for TLS with something else")
        return said == event.yes

    def _await_hello(self, event: StartTls) -> None:
        """The next bytes of the client are TLS."""
        self._inside, self._inspector = self._inspector, None
        self._state = State.IDENTIFYING
        self._out.to_client(event.accept)
        self._out.write_soon()
        self._first = event.client
        self._wait_for_client(self._environment.connect_timeout)
        self._throttle()
        if self._first:
            self._identify()

    def _check_start(self, protocol: Protocol) -> None:
        """Raises ProtocolError where TLS was agreed on and something else comes."""
        if self._inside is not None and protocol.name != TLS:
            raise ProtocolError(Side.CLIENT, "TLS was agreed on, and something else was sent")

    def _readable(self) -> tuple[str, ...]:
        inside = self._inside
        return READ if inside is None else tuple(one for one in READ if BY_ALPN[one].name == inside.name)

    def secured(self, version: str, alpn: str) -> None:
        """The handshake is done; who asked for TLS goes on inside, once the server's end is TLS as well."""
        inside, secured = self._inside, self._secured
        if inside is None or secured is None:
            super().secured(version, alpn)
            return
        secured.version, secured.alpn, secured.within = version, alpn, True
        secured.offered = (alpn,) if alpn else ()
        self._patience.cancel()
        self._inside, self._inspector = None, inside
        self._protocol = inside.name
        if self._server is None:
            self._state = State.READY
            self._throttle()
            return
        server, self._server = self._server, None
        self._state = State.SECURING
        self._throttle()
        self._meeting = self._environment.loop.create_task(self._secure_server(server))

    async def _secure_server(self, server: asyncio.Transport) -> None:
        """A server that has spoken already, and was asked for TLS."""
        self._out.write()
        try:
            self._server = self._out.server = await self._over_tls(server)
            if self._secured is not None:
                agree(self._secured, self._server)
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error.strerror or "timed out"
            self._fail(ProtocolError(Side.SERVER, f"TLS: {reason}"))
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
        else:
            self._resume(lambda: None)

    async def _over_tls(self, server: asyncio.Transport) -> asyncio.Transport:
        """TLS over a connection in clear, as the client's was ended here. Raises OSError."""
        environment, secured = self._environment, self._secured
        if secured is None:
            raise RuntimeError("the client speaks no TLS")
        tls = environment.certificates.upstream(secured.name, secured.offered), secured.name
        target, patience = self._ledger.flow.destination, environment.connect_timeout
        return await secure(Upstream(self, environment.inbox, held=True), server, target, patience, tls)

    def _forget_met(self) -> None:
        if self._met is not None and not isinstance(self._met, OSError):
            self._met.abort()
        self._met = None
