"""Step 1 of 6, from the session's side: the client's bytes, and TLS where that ends here.

Gets what the client's connection carries; hands on the same, or what was inside TLS. Never judges anything.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import ABC, abstractmethod

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.proxy.environment import Environment
from enforcer.proxy.state import State
from enforcer.proxy.tls import Secured, TlsLayer


class ClientSide(ABC):
    """The half of a session that faces its client. `_client` is what it writes to: the transport, or the layer of TLS
    over it."""

    def __init__(self, environment: Environment, client: asyncio.Transport) -> None:
        self._environment = environment
        self._transport = client
        self._client: asyncio.Transport | TlsLayer = client
        self._layer: TlsLayer | None = None
        self._secured: Secured | None = None
        self._state = State.IDENTIFYING
        self._first = b""
        self._patience: asyncio.TimerHandle

    @abstractmethod
    def client_plain(self, data: bytes) -> None:
        """The client's bytes, those inside TLS where that ends here."""

    @abstractmethod
    def client_plain_eof(self) -> None:
        """No more of them will come."""

    @abstractmethod
    def _client_silent(self) -> None: ...

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

    def _intercept(self, name: str, asked: str) -> None:
        """Ends TLS here, with a certificate for `name`. `asked`: what the client named, empty where it named nothing.
        `_first` holds what it has sent."""
        self._secured = Secured(asked)
        self._state = State.SECURING
        self._throttle()
        self._environment.certificates.for_name(name, self._secure)

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

    def secured(self, version: str) -> None:
        """The handshake is done."""
        if self._secured is not None:
            self._secured.version = version
        self._patience.cancel()
        self._wait_for_client(self._environment.identify_timeout)

    def insecure(self, reason: str) -> None:
        """The handshake failed, or a record was damaged."""
        self._fail(ProtocolError(Side.CLIENT, reason))

    def _wait_for_client(self, seconds: float) -> None:
        self._patience = self._environment.loop.call_later(seconds, self._client_silent)
