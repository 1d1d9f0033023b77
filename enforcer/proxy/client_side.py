"""Step 1 of 6, from the session's side: the client's bytes, and TLS where that ends here.

Gets what the client's connection carries; hands on the same, or what was inside TLS. Never judges anything. There is no
translation between protocols, so a client that offers several is answered what the server chooses: that is asked before
the client's handshake goes on, where policy lets the host be reached at all.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Protocol, Request
from enforcer.protocols.registry import BY_ALPN
from enforcer.protocols.tls.passthrough import HELLO
from enforcer.proxy.environment import Environment
from enforcer.proxy.ledger import Ledger
from enforcer.proxy.state import State
from enforcer.proxy.tls import H2, HTTP1, READ, Secured, TlsLayer, another_address, name_inside


class ClientSide(ABC):
    """The half of a session that faces its client. `_client` is what it writes to: the transport, or the layer of TLS
    over it."""

    def __init__(self, environment: Environment, client: asyncio.Transport) -> None:
        self._environment = environment
        self._ledger: Ledger
        self._transport = client
        self._client: asyncio.Transport | TlsLayer = client
        self._layer: TlsLayer | None = None
        self._secured: Secured | None = None
        self._state = State.IDENTIFYING
        self._first = b""
        self._patience: asyncio.TimerHandle
        self._server: asyncio.Transport | None = None
        self._meeting: asyncio.Task[None] | None = None
        # What came of dialling before the first request; nothing where that was not done, or is used up.
        self._met: asyncio.Transport | OSError | None = None

    @abstractmethod
    def client_plain(self, data: bytes) -> None:
        """The client's bytes, those inside TLS where that ends here."""

    @abstractmethod
    def client_plain_eof(self) -> None:
        """No more of them will come."""

    @abstractmethod
    def _client_silent(self) -> None: ...

    @abstractmethod
    def _begin(self, protocol: Protocol) -> None: ...

    @abstractmethod
    async def _reach(self) -> asyncio.Transport: ...

    @abstractmethod
    def _may_pass(self, host: str) -> bool: ...

    @abstractmethod
    def _throttle(self) -> None: ...

    @abstractmethod
    def _fail(self, error: Exception) -> None: ...

    @abstractmethod
    def _speak_through(self, layer: TlsLayer) -> None: ...

    def client_data(self, data: bytes) -> None:
        """What came on the connection."""
        if self._layer is not None:
            self._layer.receive(data)
        elif self._state is State.SECURING:
            self._first += data
        else:
            self.client_plain(data)

    def client_eof(self) -> None:
        if self._layer is not None:
            self._layer.receive_eof()
        else:
            self.client_plain_eof()

    def _intercept(self, name: str, asked: str, offered: tuple[str, ...]) -> None:
        """Ends TLS here, with a certificate for `name`. `asked`: what the client named, empty where it named nothing;
        `offered`: the protocols that it would speak inside. `_first` holds what it has sent."""
        read = tuple(one for one in offered if one in self._readable())
        secured = self._secured = Secured(asked, read)
        self._state = State.SECURING
        self._throttle()
        self._environment.certificates.fetch(name, lambda: None)
        if H2 not in read:
            self._answer(name, read[0] if read else "")
        elif self._may_pass(asked):
            self._meeting = self._environment.loop.create_task(self._meet(name, secured))
        else:
            # It gets to read why. Without a name, the host is known too late to be sure that it will be refused.
            self._answer(name, H2 if asked or HTTP1 not in read else HTTP1)

    def _readable(self) -> tuple[str, ...]:
        """What is spoken inside that we read (ALPN)."""
        return READ

    async def _meet(self, name: str, secured: Secured) -> None:
        """Learns what the server speaks. It hears its own name and nothing else."""
        alpn = H2
        try:
            server = self._met = await self._reach()
            chosen = server.get_extra_info("ssl_object").selected_alpn_protocol()
            alpn = chosen or (HTTP1 if HTTP1 in secured.offered else "")
        except OSError as error:
            self._met = error  # the first request is told
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow ends as denied and recorded
            self._fail(error)
            return
        if self._state is State.SECURING:
            self._answer(name, alpn)
        else:
            self._forget_server()

    def _answer(self, name: str, alpn: str) -> None:
        """Goes on with the client's handshake once there is a certificate."""
        certificates = self._environment.certificates
        certificates.fetch(name, lambda: self._secure(certificates.context(name, alpn)))

    def _secure(self, context: ssl.SSLContext | None) -> None:
        if self._state is not State.SECURING:
            return
        self._state = State.IDENTIFYING
        if context is None:
            self._fail(ProtocolError(Side.CLIENT, "TLS: no certificate could be made for the name"))
            return
        received, self._first = self._first, b""
        self._layer = self._client = TlsLayer(self, self._transport, context)
        self._speak_through(self._layer)
        self._wait_for_client(self._environment.connect_timeout)
        self._throttle()
        self._layer.receive(received)

    def secured(self, version: str, alpn: str) -> None:
        """The handshake is done. What the two agreed on is spoken from the first byte on."""
        secured = self._secured
        if secured is None:
            raise RuntimeError("a handshake that was never begun")
        secured.version, secured.alpn = version, alpn
        secured.offered = (alpn,) if alpn else ()
        self._patience.cancel()
        if alpn:
            self._begin(BY_ALPN[alpn])
        else:
            self._wait_for_client(self._environment.identify_timeout)

    def _met_server(self) -> asyncio.Transport | None:
        """The connection that was made to learn what the server speaks, if it is there and still good. Raises OSError
        where it could not be made."""
        met, self._met = self._met, None
        if isinstance(met, OSError):
            raise met
        if met is not None and met.is_closing():
            return None
        return met

    def _forget_server(self) -> None:
        if self._meeting is not None:
            self._meeting.cancel()
        if self._met is not None and not isinstance(self._met, OSError):
            self._met.abort()
        self._met = None

    def _misnamed(self, request: Request) -> str:
        """Completes the facts of a request inside TLS; returns what is wrong with the host it is for, if anything."""
        if self._secured is not None:
            return name_inside(self._secured, request.facts)
        if request.operation == HELLO:
            return another_address(request.text, self._ledger.flow.destination.address)
        return ""

    def insecure(self, reason: str) -> None:
        """The handshake failed, or a record was damaged."""
        self._fail(ProtocolError(Side.CLIENT, reason))

    def _wait_for_client(self, seconds: float) -> None:
        self._patience = self._environment.loop.call_later(seconds, self._client_silent)
