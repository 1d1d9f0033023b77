"""Steps 2 to 5 of 6, for a session whose connection changes what it speaks: WebSocket, and tunnels through a proxy.

Gets `Switched` from the inspector; puts the next one in its place, or lets the connection be identified anew as a flow
to the tunnel's target, with a record of its own. Also here: what requests of such connections are asked beyond policy,
and how their server is reached.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from abc import abstractmethod

from enforcer.flow import Flow, Side
from enforcer.protocols.base import Inspector, Request, Switched
from enforcer.proxy.environment import Environment
from enforcer.proxy.exchange import Exchange
from enforcer.proxy.judge import Judge, Judgement
from enforcer.proxy.ledger import Ledger
from enforcer.proxy.outbox import Outbox
from enforcer.proxy.securing import Securing
from enforcer.proxy.state import State
from enforcer.proxy.tunnel import TunnelJudge, denied_target, targets
from enforcer.verdict import Action, Reason, Verdict


class Switching(Securing):
    """The part of a session that outlives its protocol."""

    def __init__(self, flow: Flow, environment: Environment, client: asyncio.Transport) -> None:
        super().__init__(environment, client)
        self._exchanges: dict[int, Exchange] = {}
        self._last_masked: Exchange | None = None
        self._eof: set[Side] = set()
        self._ledger = Ledger(flow, environment)
        self._judge = Judge(self._ledger, environment)
        self._out = Outbox(self._ledger, environment.journal, client)
        # What the tunnel that was asked for last may lead to, and the proxy's connection once it is one.
        self._targets: tuple[Flow, ...] = ()
        self._tunnel: asyncio.Transport | None = None

    @abstractmethod
    def _speaks_first(self, data: bytes) -> None: ...

    @abstractmethod
    async def _dial_server(self, tls: tuple[ssl.SSLContext, str] | None) -> asyncio.Transport: ...

    @abstractmethod
    def _close(self, cause: str, *, linger: bool = False, reset: bool = False) -> None: ...

    def _parser(self) -> Inspector:
        if self._inspector is None:
            raise RuntimeError("no protocol was identified")
        return self._inspector

    def _further(self, request: Request, judgement: Judgement) -> Verdict:
        """The verdict on a request that asks for a tunnel, or whose answers belong to another exchange."""
        verdict = judgement.verdict
        if not verdict.passes:
            return verdict
        if request.tunnel is not None:
            return self._on_tunnel(request.tunnel) or verdict
        within = self._exchanges.get(request.within)
        if within is None or judgement.answers not in (None, within.masker):
            detail = "what answers it was allowed by a rule that masks otherwise"
            return Verdict(Action.DENY, Reason.UNMASKABLE, verdict.policy, verdict.rule, detail)
        return verdict

    def _on_tunnel(self, tunnel: tuple[str, int]) -> Verdict | None:
        if self._secured is not None:
            return Verdict(Action.DENY, Reason.TARGET, detail="a tunnel inside TLS is not read; use the proxy in clear")
        host, port = tunnel
        self._targets = targets(self._environment, self._ledger.flow, host, port)
        return denied_target(self._environment, self._targets, host)

    def _switch(self, event: Switched) -> None:
        inspector = event.inspector
        if inspector is None:
            self._enter_tunnel(event)
            return
        self._inspector = inspector
        for side, data in ((Side.CLIENT, event.client), (Side.SERVER, event.server)):
            if data:
                inspector.receive_data(side, data)
            if side in self._eof:
                inspector.receive_eof(side)

    def _enter_tunnel(self, event: Switched) -> None:
        """What follows is a flow to the target, in a session of its own."""
        via, proxy = self._judge.via, self._ledger.flow.destination
        self._tunnel, self._server = self._server, None
        self._begin_anew("tunnel", f"{via} {proxy}".lstrip())
        self._first = event.client
        if Side.SERVER in self._eof:
            self._close("server closed")
        elif event.server:
            self._speaks_first(event.server)
        else:
            self._wait_for_client(self._environment.identify_timeout)
            if self._first:
                self._identify()

    def _begin_anew(self, why: str, via: str = "") -> None:
        """What follows is identified, judged and recorded for itself: by `via`, to the targets of a tunnel."""
        environment, before = self._environment, self._ledger
        via = via or self._judge.via
        ledger = self._ledger = Ledger(self._targets[0] if via else before.flow, environment)
        self._judge = TunnelJudge(ledger, environment, self._targets, via) if via else Judge(ledger, environment)
        before.close(self._protocol, f"{why}: goes on as session {ledger.session}", list(self._exchanges.values()))
        self._exchanges.clear()
        self._out.go_on(ledger)
        self._protocol, self._inspector, self._last_masked = "", None, None
        self._state = State.IDENTIFYING

    async def _reach(self) -> asyncio.Transport:
        """The server, over TLS where the client's TLS ends here."""
        secured = self._secured
        if self._asks is not None:
            server = self._met_server() or await self._agreeing(self._asks)
            return server if secured is None else await self._over_tls(server)
        met = self._met_server()
        if met is not None:
            return met
        if secured is None:
            return await self._connect()
        if self._judge.via:
            return await self._over_tls(await self._connect())
        return await self._dial_server(
            (self._environment.certificates.upstream(secured.name, secured.offered), secured.name)
        )

    async def _connect(self) -> asyncio.Transport:
        if not self._judge.via:
            return await self._dial_server(None)
        server, self._tunnel = self._tunnel, None
        if server is None or server.is_closing():  # never around the proxy
            raise ConnectionResetError(errno.ECONNRESET, "the proxy has closed the tunnel")
        return server
