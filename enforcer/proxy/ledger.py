"""Step 6 of 6, record: one session's rows, masked before they leave the session.

Gets requests with their verdicts, outcomes and the end; hands rows to the journal. A durable request and a denial are
rows at once; any other request waits a moment for its outcome, to be one row with it. Never sees a response's content.
"""

from __future__ import annotations

import math
import os
import time
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from enforcer.flow import Flow
from enforcer.masking.masker import Masker
from enforcer.masking.recorded import facts_as_sent, text_as_sent
from enforcer.protocols.base import Outcome, Request
from enforcer.proxy.exchange import Exchange
from enforcer.recording.rows import ExchangeRow, OutcomeRow, SessionEndRow, SessionRow
from enforcer.verdict import Action, Reason, Verdict

if TYPE_CHECKING:
    from enforcer.proxy.environment import Environment

# Joins the texts of one exchange for a single scan. No detector matches across it.
_SEPARATOR = "\x00"
# Masks in the record itself are not counted; masks in answers are.
_UNCOUNTED: Counter[str] = Counter()
# The only reason whose detail quotes the client. By itself: up to Python 3.11, a member's look-up runs Python code.
_CLAUSE = Reason.CLAUSE


class Ledger:
    """Counts a session's bytes and writes its rows. `session` is its id, 16 hexadecimal digits. `flow`: whose it is."""

    def __init__(self, flow: Flow, environment: Environment) -> None:
        self.session = os.urandom(8).hex()
        self.bytes_up = 0
        self.bytes_down = 0
        self.flow = flow
        self._environment = environment
        self._exchanges = 0
        self._opened = False
        self._held: dict[int, tuple[float, ExchangeRow]] = {}
        self._started_ns = time.monotonic_ns()

    def request(self, protocol: str, request: Request, verdict: Verdict, masker: Masker | None = None) -> None:
        """The request's row, and before the first one the session's. Its texts are masked here. `masker`: of what it
        says, if its rule has one."""
        if not self._opened:
            self._open(protocol, verdict, request.facts.get("host"))
        self._exchanges += 1
        if masker is not None and masker.operated and verdict.passes:
            facts = facts_as_sent(masker, request.facts)
            request = replace(request, text=text_as_sent(masker, request.text), facts=facts)
        text, params, facts = self._masked(request)
        row: ExchangeRow = {
            "table": "exchanges",
            "time_ns": time.time_ns(),
            "session": self.session,
            "exchange": request.exchange,
            "protocol": protocol,
            "operation": request.operation,
            "text": text,
            "params": params,
            "facts": facts,
            "action": verdict.action.value,
            "policy": verdict.policy,
            "rule": verdict.rule,
            "reason": verdict.reason.value,
            "detail": self._detail(verdict),
            "observed": verdict.observed,
            "durable": verdict.durable,
        }
        if verdict.durable or not verdict.passes:
            self._environment.journal.row(row)
        else:
            self._held[request.exchange] = time.monotonic(), row
            self._environment.holds(self)

    def outcome(self, exchange: Exchange, outcome: Outcome) -> None:
        """How an exchange ended: in its own row where that was still held, else in a row of its own. Bytes are those
        the session moved while it was open."""
        up, down = self.bytes_up - exchange.bytes_up, self.bytes_down - exchange.bytes_down
        duration_ns = time.monotonic_ns() - exchange.started_ns
        since_and_row = self._held.pop(outcome.exchange, None)
        if since_and_row is not None:
            held = since_and_row[1]
            held["status"] = outcome.status
            held["rows"] = outcome.rows
            held["failed"] = outcome.failed
            held["bytes_up"] = up
            held["bytes_down"] = down
            held["duration_ns"] = duration_ns
            held["masked"] = exchange.masked
            self._environment.journal.row(held)
            return
        row: OutcomeRow = {
            "table": "outcomes",
            "time_ns": time.time_ns(),
            "session": self.session,
            "exchange": outcome.exchange,
            "status": outcome.status,
            "rows": outcome.rows,
            "failed": outcome.failed,
            "bytes_up": up,
            "bytes_down": down,
            "duration_ns": duration_ns,
            "masked": exchange.masked,
        }
        self._environment.journal.row(row)

    def release(self, before: float) -> bool:
        """Sends held rows of exchanges that began before `before` (monotonic seconds) without their outcomes, which
        will
        be rows of their own. Returns whether any are still held."""
        for number in [number for number, (since, _) in self._held.items() if since < before]:
            self._environment.journal.row(self._held.pop(number)[1])
        return bool(self._held)

    def failure(self, protocol: str, verdict: Verdict) -> None:
        """A flow that ended as denied without, or in the middle of, a request."""
        if not self._opened:
            self._open(protocol, verdict, None)

    def close(self, protocol: str, cause: str, unfinished: list[Exchange]) -> None:
        """The session's end, after the ends of the exchanges it interrupts."""
        for exchange in unfinished:
            self.outcome(exchange, Outcome(exchange.request.exchange, cause, failed=True))
        self.release(math.inf)
        if not self._opened:
            self._open(protocol, Verdict(Action.DENY, Reason.NO_REQUEST), None)
        row: SessionEndRow = {
            "table": "session_ends",
            "time_ns": time.time_ns(),
            "session": self.session,
            "cause": cause,
            "bytes_up": self.bytes_up,
            "bytes_down": self.bytes_down,
            "exchanges": self._exchanges,
            "duration_ns": time.monotonic_ns() - self._started_ns,
        }
        self._environment.journal.row(row)

    def _open(self, protocol: str, verdict: Verdict, host: str | None) -> None:
        self._opened = True
        flow, environment = self.flow, self._environment
        row: SessionRow = {
            "table": "sessions",
            "time_ns": flow.opened_ns,
            "id": self.session,
            "executor": flow.executor.name,
            "executor_ident": flow.executor.ident,
            "cgroup": "",
            "pid": flow.pid,
            "uid": flow.uid,
            "user": flow.executor.user,
            "destination": str(flow.destination),
            "address": str(flow.destination.address),
            "port": flow.destination.port,
            "host": None if host is None else environment.record_masker.mask_text(host),
            "protocol": protocol or None,
            "region": flow.region.names,
            "region_kind": flow.region.kind,
            "prefix": flow.region.prefix,
            "table_source": flow.region.source,
            "table_version": environment.table.version,
            "generation": environment.generation,
            "policy": verdict.policy,
            "rule": verdict.rule,
            "action": verdict.action.value,
            "reason": verdict.reason.value,
            "detail": self._detail(verdict),
            "observed": verdict.observed,
        }
        environment.journal.row(row)

    def _detail(self, verdict: Verdict) -> str:
        detail = verdict.detail
        return self._environment.record_masker.mask_text(detail) if verdict.reason is _CLAUSE else detail

    def _masked(self, request: Request) -> tuple[str, list[str | None], dict[str, str]]:
        """The request's text, parameters and facts with every detector's values masked, in one scan when none hits."""
        plain = [request.text, *(value for value in request.params if value is not None), *request.facts.values()]
        joined = _SEPARATOR.join(plain).encode("utf-8", "surrogateescape")
        masked = self._environment.record_masker.mask(joined, _UNCOUNTED)
        if masked is joined and joined.isascii():  # nothing to mask, nothing to repair: the usual case
            return request.text, list(request.params), request.facts
        values = masked.decode("utf-8", "backslashreplace").split(_SEPARATOR)
        if len(values) != len(plain):  # a text holds the separator itself
            values = [self._environment.record_masker.mask_text(value) for value in plain]
        rest = iter(values)
        text = next(rest)
        params = [None if value is None else next(rest) for value in request.params]
        return text, params, dict(zip(request.facts, rest, strict=True))
