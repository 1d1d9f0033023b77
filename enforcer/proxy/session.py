"""The conductor: identify, decide, inspect, forward, record. The one place where that order is written.

Gets a captured flow and the client's bytes; drives the protocol's inspector; asks policy for a verdict on each request
before anything of it goes upstream; masks what comes back; records each step, and where a rule says `durable` waits
for the row to be on disk first. Never parses, matches a rule or finds a value to mask itself. Anything unforeseen ends
the flow as denied.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable

from enforcer.errors import ProtocolError, Unwritable
from enforcer.flow import Flow, Side
from enforcer.identify.protocol import identify
from enforcer.log import get_logger
from enforcer.masking.errors import MaskError
from enforcer.protocols.base import (
    Event,
    Forward,
    Outcome,
    Protocol,
    Reply,
    Request,
    Rows,
    StartTls,
    Switched,
    Text,
    TlsOffer,
    Unmaskable,
)
from enforcer.protocols.registry import OPAQUE
from enforcer.proxy.denial import denial
from enforcer.proxy.environment import Environment
from enforcer.proxy.exchange import Exchange
from enforcer.proxy.judge import Judgement
from enforcer.proxy.state import State
from enforcer.proxy.texts import Texts
from enforcer.proxy.tls import TlsLayer, agree
from enforcer.proxy.upstream import dial
from enforcer.verdict import Action, Reason, Verdict

_log = get_logger()

# Seconds a refused client gets to read its refusal before the connection is reset.
LINGER = 2.0
UNWRITTEN = "requests of this protocol cannot be masked"


class Session(Texts):
    """One flow from accept to close. The `client_*` and `server_*` methods are its two transports' callbacks."""

    def __init__(self, flow: Flow, environment: Environment, client: asyncio.Transport) -> None:
        super().__init__(flow, environment, client)
        self._dialling: asyncio.Task[None] | None = None
        self._full: set[Side] = set()
        self._wait_for_client(self._first_patience())

    # --- the client's transport

    def client_plain(self, data: bytes) -> None:
        if self._state is State.CLOSED:
            return  # what a refused client goes on sending is read, so that it gets to its refusal, and dropped
        try:
            if self._greeting is not None:
                self._client_spoke(data)
            elif self._inspector is not None:
                self._inspector.receive_data(Side.CLIENT, data)
                self._advance()
                if self._eof:
                    self._pass_eof()
            elif self._state is State.IDENTIFYING:
                self._first += data
                self._identify()
        except Exception as error:  # noqa: BLE001 - whatever it is, the flow ends as denied and recorded
            self._fail(error)

    def client_plain_eof(self) -> None:
        self._end_of(Side.CLIENT)

    def client_lost(self) -> None:
        self._close("client closed")

    def client_full(self, full: bool) -> None:
        """The client reads slower than the server sends: stop reading from the server meanwhile."""
        self._set_full(Side.CLIENT, full)

    def end(self, cause: str) -> None:
        """Ends the flow from outside; the client sees a reset."""
        self._close(cause, reset=True)

    def reconsider(self) -> None:
        """A generation has come into force: ends the flow where the configuration wants that, or where what is under
        way is no longer allowed."""
        if self._environment.on_reload == "close":
            self.end("closed by a reload")
            return
        try:
            if self._inspector is not None and self._judge.reads_bodies():
                self._inspector.read_bodies()
            requests = [exchange.request for exchange in self._exchanges.values()]
            verdicts = [self._judge.verdict(self._protocol, request).verdict for request in requests]
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if not all(verdict.passes for verdict in verdicts):
            self.end("no longer allowed after a reload")

    # --- the server's transport

    def server_data(self, data: bytes) -> None:
        if self._state is State.CLOSED or (self._inspector is None and self._tunnel is None):
            return
        try:
            if self._inspector is None:
                self._speaks_first(data)
            elif self._greeting is not None:
                self._server_greets(data)
            else:
                self._inspector.receive_data(Side.SERVER, data)
            self._advance()
            if self._eof:
                self._pass_eof()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def server_eof(self) -> None:
        if self._server is not None or self._tunnel is not None:
            self._end_of(Side.SERVER)
        else:
            self._forget_server()

    def server_lost(self, error: Exception | None) -> None:
        """A reset is passed on as one: after an orderly end the client would take what it has for all of it."""
        if self._server is None and self._tunnel is None:
            return  # it was only met, and is dialled again when there is a request for it
        if error is not None:
            self._close("server reset the connection", reset=True)
            return
        if self._state is not State.CLOSED and Side.SERVER not in self._eof:
            self._end_of(Side.SERVER)
        self._close("server closed")

    def server_full(self, full: bool) -> None:
        self._set_full(Side.SERVER, full)

    # --- identify

    def _identify(self) -> None:
        protocol = OPAQUE if self._unread else identify(self._first)
        if protocol is not None:
            self._begin(protocol)

    def _begin(self, protocol: Protocol) -> None:
        self._check_start(protocol)
        self._patience.cancel()
        self._protocol = protocol.name
        self._inspector = protocol.inspector()
        if self._judge.reads_bodies():
            self._inspector.read_bodies()
        self._state = State.READY
        first, self._first = self._first, b""
        if first:
            self._inspector.receive_data(Side.CLIENT, first)
        if Side.CLIENT in self._eof:
            self._inspector.receive_eof(Side.CLIENT)
        self._advance()

    # --- decide, forward, record

    def _advance(self) -> None:
        """Takes events until the inspector needs bytes or a request has to wait; then writes what came of them."""
        try:
            while self._state is State.READY and self._inspector is not None:
                event = self._inspector.next_event()
                if event is None:
                    break
                self._take(event)
        finally:
            self._out.write_soon()

    def _take(self, event: Event) -> None:
        match event:
            case Text():
                self._take_text(event)
            case Request():
                self._decide(event)
            case Outcome():
                self._conclude(event)
            case Forward():
                (self._out.to_client if event.side is Side.SERVER else self._out.to_server)(event.raw)
            case Rows():
                self._take_rows(event)
            case Reply():
                self._out.to_client(event.raw)
            case Unmaskable():
                self._refuse_exchange(self._answered(event.exchange), event.reason)
            case Switched():
                self._switch(event)
            case TlsOffer():
                self._out.to_client(event.accept if self._takes_tls() else event.decline)
            case StartTls():
                self._start_tls(event)

    def _answered(self, number: int) -> Exchange:
        """The exchange an answer belongs to. A server may speak after the last one ended (notices, notifications): that
        is masked as its last masked answer was. Raises RuntimeError for any other number: nothing passes unjudged."""
        exchange = self._exchanges.get(number)
        if exchange is not None:
            return exchange
        if self._last_masked is not None and self._last_masked.request.exchange == number:
            return self._last_masked
        raise RuntimeError(f"an answer to exchange {number}, which was never allowed")

    def _decide(self, request: Request) -> None:
        journal = self._environment.journal
        if journal.congested:
            self._wait(State.COMMITTING)
            journal.when_clear(lambda: self._decide_later(request))
            return
        broken = request.fault or self._misnamed(request)
        judgement = self._judge.verdict(self._protocol, request)
        verdict = judgement.verdict
        if self._secured is None and self._judge.reads(self._protocol, request.facts, verdict):
            self._first, self._inspector = self._parser().withdraw(), None  # type: ignore[attr-defined]  # TLS's own
            # Clients of databases often name none, and their servers prove one.
            asked = request.text or (self._judge.told() if self._inside is not None else "")
            self._intercept(
                asked or str(self._ledger.flow.destination.address), asked, tuple(request.facts.get("alpn", "").split())
            )
            return
        if broken:
            verdict = Verdict(Action.DENY, Reason.PROTOCOL_ERROR, detail=broken)
        if journal.failing:
            verdict = Verdict(Action.DENY, Reason.RECORDER, detail=journal.failing)
        if (request.tunnel is not None or request.within) and verdict.passes:
            verdict = self._further(request, judgement)
        if verdict.passes and judgement.requests is not None and not self._parser().rewrites:
            verdict = Verdict(Action.DENY, Reason.UNMASKABLE, verdict.policy, verdict.rule, UNWRITTEN)
        self._ledger.request(self._protocol, request, verdict, judgement.requests)
        if not verdict.passes:
            self._refuse(request, verdict)
        elif verdict.durable:
            self._wait(State.COMMITTING)
            journal.commit(lambda error: self._committed(request, verdict, error))
        else:
            self._allow(request, judgement)

    def _decide_later(self, request: Request) -> None:
        if self._state is State.COMMITTING:
            self._resume(lambda: self._decide(request))

    def _committed(self, request: Request, verdict: Verdict, error: str) -> None:
        if self._state is not State.COMMITTING:
            return
        if error:
            refused = Verdict(Action.DENY, Reason.RECORDER, verdict.policy, verdict.rule, error)
            self._resume(lambda: self._refuse(request, refused))
        else:
            self._resume(lambda: self._allow_still(request))

    def _allow_still(self, request: Request) -> None:
        """After a wait, in which another generation may have come."""
        judgement = self._judge.verdict(self._protocol, request)
        asks = request.tunnel is not None or request.within
        verdict = self._further(request, judgement) if asks else judgement.verdict
        if verdict.passes:
            self._allow(request, judgement)
        else:
            self._refuse(request, verdict)

    def _allow(self, request: Request, judgement: Judgement) -> None:
        inspector, ledger, masker = self._parser(), self._ledger, judgement.answers
        exchange = Exchange(
            request, masker, judgement.requests, time.monotonic_ns(), ledger.bytes_up, ledger.bytes_down
        )
        self._exchanges[request.exchange] = exchange
        exchange.name_fields()
        try:
            raw = inspector.allow(request, masked=masker is not None, rewrite=exchange.rewrite)
        except MaskError as error:
            self._refuse_exchange(exchange, str(error))
            return
        except Unwritable as error:
            self._refuse_exchange(exchange, str(error), alone=True)
            return
        self._out.to_server(raw)
        if self._server is None:
            self._wait(State.DIALLING)
            self._dialling = self._environment.loop.create_task(self._dial(request))

    async def _dial(self, request: Request) -> None:
        try:
            server = await self._reach()
            if self._secured is not None:
                agree(self._secured, server)
        except OSError as error:
            reason = getattr(error, "verify_message", "") or error.strerror or "timed out"
            self._resume(lambda: self._unreachable(request, reason))
            return
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)
            return
        if self._state is not State.DIALLING:
            server.abort()
            return
        self._server = self._out.server = server
        self._resume(lambda: None)

    async def _dial_server(self, tls: tuple[ssl.SSLContext, str] | None) -> asyncio.Transport:
        environment = self._environment
        return await dial(self, environment.inbox, self._ledger.flow.destination, environment.connect_timeout, tls)

    def _may_pass(self, host: str) -> bool:
        return not self._environment.journal.failing and self._judge.may_pass("http", host or None)

    def _unreachable(self, request: Request, reason: str) -> None:
        self._out.drop_unsent()
        exchange = self._exchanges.pop(request.exchange)
        allowed = self._judge.verdict(self._protocol, request).verdict
        verdict = Verdict(Action.DENY, Reason.UNREACHABLE, allowed.policy, allowed.rule, reason)
        self._ledger.outcome(exchange, Outcome(request.exchange, "unreachable", failed=True))
        self._refuse(request, verdict, unreachable=True)

    def _conclude(self, outcome: Outcome) -> None:
        exchange = self._exchanges.pop(outcome.exchange, None)
        if exchange is None:
            return
        self._write_texts(exchange.remaining())
        self._ledger.outcome(exchange, outcome)
        if exchange.masker is not None:
            self._last_masked = exchange

    # --- refusing

    def _refuse(self, request: Request | None, verdict: Verdict, *, unreachable: bool = False) -> None:
        number = 0 if request is None else request.exchange
        refusal = self._parser().refuse(
            request, denial(self._ledger.flow, self._ledger.session, verdict, unreachable=unreachable, exchange=number)
        )
        self._out.to_client(refusal.to_client)
        if refusal.close:
            self._out.write()
            self._close("unreachable" if unreachable else "denied", linger=bool(refusal.to_client), reset=True)

    def _refuse_exchange(self, exchange: Exchange, reason: str, *, alone: bool = False) -> None:
        """A request or an answer must not go on: nothing of it that is not masked has. `alone`: nothing at all, so that
        others may follow."""
        if self._exchanges.pop(exchange.request.exchange, None) is not None:
            self._ledger.outcome(exchange, Outcome(exchange.request.exchange, "unmaskable", failed=True))
        refused = exchange.request if alone or self._parser().multiplexed else None
        self._refuse(refused, Verdict(Action.DENY, Reason.UNMASKABLE, detail=reason))

    def _fail(self, error: Exception) -> None:
        """Ends the flow as denied: a broken protocol, or something nobody foresaw."""
        if self._state is State.CLOSED:
            return
        if isinstance(error, ProtocolError):
            verdict = Verdict(Action.DENY, Reason.PROTOCOL_ERROR, detail=str(error))
        else:
            _log.error("session failed", session=self._ledger.session, error=repr(error), exc_info=error)
            verdict = Verdict(Action.DENY, Reason.INTERNAL, detail=type(error).__name__)
        self._ledger.failure(self._protocol, verdict)
        self._out.drop_unsent()
        told, answering = False, bool(self._exchanges)
        if self._inspector is not None:
            try:
                refusal = self._inspector.refuse(None, denial(self._ledger.flow, self._ledger.session, verdict))
            except Exception as second:  # noqa: BLE001 - the parser itself may be what failed
                _log.error("refusal failed", session=self._ledger.session, error=repr(second))
            else:
                told = bool(refusal.to_client)
                self._out.to_client(refusal.to_client)
                self._out.write()
        self._close(
            f"{verdict.reason.value}: {verdict.detail}", linger=told, reset=answering or not self._ledger.bytes_down
        )

    def _speak_through(self, layer: TlsLayer) -> None:
        self._out.client = layer

    # --- waiting, writing, closing

    def _wait(self, state: State) -> None:
        self._state = state
        self._throttle()

    def _set_full(self, side: Side, full: bool) -> None:
        (self._full.add if full else self._full.discard)(side)
        if self._state is not State.CLOSED:
            self._throttle()

    def _throttle(self) -> None:
        """Reads from a side only while its bytes can be judged and the other side takes them."""
        ready = self._state in (State.READY, State.IDENTIFYING)
        for reader, transport in ((Side.CLIENT, self._client), (Side.SERVER, self._server)):
            writer = Side.SERVER if reader is Side.CLIENT else Side.CLIENT
            if transport is None or transport.is_closing():
                continue
            if ready and writer not in self._full:
                transport.resume_reading()
            else:
                transport.pause_reading()

    def _resume(self, step: Callable[[], None]) -> None:
        """Goes on after a wait: reads again, takes `step`, then whatever had piled up."""
        if self._state is State.CLOSED:
            return
        self._state = State.READY
        self._throttle()
        try:
            step()
            self._settle_greeting()
            self._advance()
            self._pass_eof()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _end_of(self, side: Side) -> None:
        if self._state is State.CLOSED:
            if side is Side.CLIENT:
                self._client.close()  # it has read the refusal we lingered for
            return
        self._eof.add(side)
        if self._inspector is None or self._greeting is not None:
            if not self._first or side is Side.SERVER:
                self._close(f"{side.value} closed")
            return
        try:
            self._inspector.receive_eof(side)
            self._advance()
            self._pass_eof()
        except Exception as error:  # noqa: BLE001 - as above
            self._fail(error)

    def _pass_eof(self) -> None:
        """Passes a half-close on once all that came before it is written; ends the session when nothing can follow."""
        if self._state is not State.READY or not self._eof:
            return
        self._out.write()
        if Side.SERVER in self._eof:
            if not self._exchanges or Side.CLIENT in self._eof:
                self._close("server closed")
            elif not self._parser().multiplexed:
                self._client.write_eof()
        elif not self._exchanges:
            self._close("client closed")
        elif self._server is not None and self._parser().half_close and self._server.can_write_eof():
            self._server.write_eof()

    def _close(self, cause: str, *, linger: bool = False, reset: bool = False) -> None:
        """Ends the session and records it. `linger`: a refusal was written, and closing at once while the client still
        sends would make its kernel throw the refusal away. `reset`, without that: there are no words for the denial,
        and after an orderly end the client would take what it has of an answer for all of it."""
        if self._state is State.CLOSED:
            return
        self._out.write()
        self._state = State.CLOSED
        self._patience.cancel()
        if self._dialling is not None and not self._dialling.done():
            self._dialling.cancel()
        self._forget_server()
        self._ledger.close(self._protocol, cause, list(self._exchanges.values()))
        self._exchanges.clear()
        self._environment.sessions.discard(self)
        server = self._server or self._tunnel
        if server is not None:
            server.close()
        if linger and Side.CLIENT not in self._eof and not self._client.is_closing():
            self._client.resume_reading()
            self._client.write_eof()
            self._environment.loop.call_later(LINGER, self._client.abort)
        elif reset and not linger:
            self._client.abort()
        else:
            self._client.close()
