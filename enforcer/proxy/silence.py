"""Step 2 of 6, identify, of a client that says nothing: because its server speaks first, or because it is idle.

Gets the client's silence; hands on a protocol in which the server greets, where policy lets one pass, then opaque,
where a rule names it. The server is reached only after the verdict, and its greeting goes on only once it is one of
that protocol's. A client that speaks after all, before it has heard anything, is identified by what it says. Never
judges.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Flow, Side
from enforcer.policy.engine import names_protocol, relayed
from enforcer.protocols.base import Probe, Protocol, ServerFirst
from enforcer.protocols.registry import NAMES, OPAQUE, SERVER_FIRST
from enforcer.proxy.environment import Environment
from enforcer.proxy.state import State
from enforcer.proxy.switching import Switching

SILENCE: Final = 30.0
"""Seconds that a client may say nothing where only protocols in which it speaks first can pass: pools connect before
they have a request, and busy machines are slow. Web servers wait as long (Apache's mod_reqtimeout 20, nginx 60)."""

GREETING_PORTS: Final = frozenset({21, 22, 25, 110, 143, 587})
"""FTP, SSH, SMTP, POP3, IMAP, submission: who is silent there waits for a greeting that nobody here reads."""


class Silence(Switching):
    """The part of a session that ends when both sides are known to speak one protocol."""

    def __init__(self, flow: Flow, environment: Environment, client: asyncio.Transport) -> None:
        super().__init__(flow, environment, client)
        # A direct rule settles it whatever the flow carries: it is relayed unread, from its first byte on.
        self._unread = relayed(environment.policies, flow)
        self._patient = False
        # The protocol that was begun for a silent client, until its server has greeted; `_heard` is what it said.
        self._greeting: ServerFirst | None = None
        self._heard = b""

    @abstractmethod
    def _fail(self, error: Exception) -> None: ...

    def _first_patience(self) -> float:
        """Seconds to wait for the first byte: none where it would not come, or where waiting is not needed because
        it may still come later."""
        if self._unread:
            return 0
        policies = self._environment.policies
        if any(self._usual(one) or names_protocol(policies, one.name) for one in SERVER_FIRST):  # else not asked more
            greeting = self._greets_here()
            if greeting is not None and (self._usual(greeting) or self._only_greeted()):
                return 0
        return self._environment.identify_timeout

    def _usual(self, protocol: ServerFirst) -> bool:
        return self._ledger.flow.destination.port == protocol.port

    def _greets_here(self) -> ServerFirst | None:
        """The protocol in which the server may greet, if policy lets any pass."""
        return next((one for one in SERVER_FIRST if self._judge.passes(one.name)), None)

    def _only_greeted(self) -> bool:
        greeted = {one.name for one in SERVER_FIRST}
        return not any(self._judge.could_pass(name) for name in NAMES if name not in greeted)

    # --- the client says nothing

    def _client_silent(self) -> None:
        """No first bytes in time."""
        if self._state is not State.IDENTIFYING:
            return
        try:
            if self._secured is not None and not self._secured.version:
                raise ProtocolError(Side.CLIENT, "TLS: the handshake takes too long")
            self._hear_silence()
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow ends as denied and recorded
            self._fail(error)

    def _hear_silence(self) -> None:
        speechless = not self._first and self._secured is None and not self._unread
        greeting = self._greets_here() if speechless else None
        if greeting is not None:
            self._greeting = greeting
            self._begin(greeting)
        elif self._unread or self._judge.passes(OPAQUE.name):
            self._begin(OPAQUE)
        elif self._patient:
            self._close(f"nothing was asked for in {SILENCE:.0f} s")
        else:
            self._wait_or_deny(speechless)

    def _wait_or_deny(self, speechless: bool) -> None:
        """Nothing that a silent client could be speaking may pass. Where it waits for a greeting, it is told so in the
        protocol of that port; where it may yet ask for what is allowed, it is waited for."""
        usual = [one for one in SERVER_FIRST if speechless and self._usual(one)]
        if usual:
            self._begin(usual[0])
        elif self._ledger.flow.destination.port in GREETING_PORTS or not any(map(self._judge.could_pass, NAMES)):
            self._begin(OPAQUE)
        else:
            self._patient = True
            self._wait_for_client(SILENCE)

    # --- and is waiting for a greeting

    def _client_spoke(self, data: bytes) -> None:
        """Before it was greeted: it speaks first after all."""
        self._first += data
        self._settle_greeting()

    def _server_greets(self, data: bytes) -> None:
        self._heard += data
        self._settle_greeting()

    def _settle_greeting(self) -> None:
        """Once the server is reached: does it greet as expected, or did the client speak before?"""
        greeting = self._greeting
        if greeting is None or self._state is not State.READY:
            return
        if self._first:
            self._greeting, self._heard = None, b""
            self._withdraw()
            return
        answer = greeting.greets(self._heard) if self._heard else Probe.MORE
        if answer is Probe.MORE:
            return
        self._greeting, heard, self._heard = None, self._heard, b""
        if answer is Probe.NO:
            if not self._judge.passes(OPAQUE.name):
                raise ProtocolError(Side.SERVER, f"its first bytes are no greeting of {greeting.name}")
            self._begin_anew(f"the server does not greet as {greeting.name} does")
            self._out.server = self._server  # it is the same one, which goes on to speak
            self._begin(OPAQUE)
        self._parser().receive_data(Side.SERVER, heard)

    def _withdraw(self) -> None:
        """The client is identified by what it says. The connection that was made for its silence is given up: nothing
        was sent on it, and what its server may have said was meant for another protocol."""
        server, self._server = self._server, None
        self._begin_anew("the client spoke first")
        if self._judge.via:
            self._tunnel = server  # the only way there; what the server says next is dealt with as in any tunnel
        elif server is not None:
            server.abort()
        self._wait_for_client(self._environment.identify_timeout)
        self._identify()

    def _speaks_first(self, data: bytes) -> None:
        """The server at a tunnel's end, where the client has said nothing that tells a protocol."""
        if self._state is not State.IDENTIFYING:
            raise ProtocolError(Side.SERVER, "spoke before the client's handshake was over")
        greeted: list[Protocol] = [
            one for one in SERVER_FIRST if one.greets(data) is not Probe.NO and self._judge.passes(one.name)
        ]
        self._begin(greeted[0] if greeted and not self._first else OPAQUE)
        if self._inspector is not None:
            self._inspector.receive_data(Side.SERVER, data)
