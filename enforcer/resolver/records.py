"""Step 6 of 6, record: what executors asked and were told, one session per executor and way in, one row per question.

Gets questions with their verdicts and what came of them; hands rows to the journal. A row leaves before the bytes it
tells of do; one whose answer is waited for too long leaves without it, and an outcome follows.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field

from enforcer.flow import Executor, Region
from enforcer.proxy.journal import Journal
from enforcer.recording.rows import DNS, ExchangeRow, OutcomeRow, SessionEndRow, SessionRow
from enforcer.resolver.wire import Rcode
from enforcer.verdict import Verdict

# Questions after which a session is ended and the next begun, so that each can be read as a whole.
MAX_EXCHANGES = 10_000
# Where a datagram was sent is not known here: the kernel rewrote it, whatever it said.
ANYWHERE = "0.0.0.0"  # noqa: S104 - said, not bound


@dataclass(frozen=True, slots=True)
class Origin:
    """Who asks over which way in. `region` and `destination`: of the address that was asked, where that is known."""

    executor: Executor
    destination: str = ""
    region: Region = field(default_factory=lambda: Region(frozenset(), "resolver", "", ""))
    pid: int = 0
    uid: int = 0


class Sessions:
    """Makes the rows of one origin. `begin` and `end` may follow each other any number of times."""

    def __init__(self, origin: Origin, journal: Journal) -> None:
        self._origin = origin
        self._journal = journal
        self._id = ""
        self._generation = 0
        self._exchanges = 0
        self._bytes_up = 0
        self._bytes_down = 0
        self._started_ns = 0

    def exchange(self, verdict: Verdict, generation: int, table_version: str) -> tuple[str, int]:
        """The session id and number for one more exchange; begins a session where none is open, or another one."""
        if self._id and (self._exchanges >= MAX_EXCHANGES or self._generation != generation):
            self.end("a new session continues" if self._generation == generation else "a new generation is in force")
        if not self._id:
            self._begin(verdict, generation, table_version)
        self._exchanges += 1
        return self._id, self._exchanges

    def _begin(self, verdict: Verdict, generation: int, table_version: str) -> None:
        self._id = os.urandom(8).hex()
        self._generation = generation
        self._exchanges = self._bytes_up = self._bytes_down = 0
        self._started_ns = time.monotonic_ns()
        origin = self._origin
        host = f"[{origin.destination}]" if ":" in origin.destination else origin.destination or "any"
        row: SessionRow = {
            "table": "sessions",
            "time_ns": time.time_ns(),
            "id": self._id,
            "executor": origin.executor.name,
            "executor_ident": origin.executor.ident,
            "cgroup": "",
            "pid": origin.pid,
            "uid": origin.uid,
            "user": origin.executor.user,
            "destination": f"{host}:53",
            "address": origin.destination or ANYWHERE,
            "port": 53,
            "host": None,
            "protocol": DNS,
            "region": origin.region.names,
            "region_kind": origin.region.kind,
            "prefix": origin.region.prefix,
            "table_source": origin.region.source,
            "table_version": table_version,
            "generation": generation,
            "policy": verdict.policy,
            "rule": verdict.rule,
            "action": verdict.action.value,
            "reason": verdict.reason.value,
            "detail": verdict.detail,
            "observed": verdict.observed,
        }
        self._journal.row(row)

    def moved(self, up: int, down: int) -> None:
        self._bytes_up += up
        self._bytes_down += down

    def end(self, cause: str) -> None:
        if not self._id:
            return
        row: SessionEndRow = {
            "table": "session_ends",
            "time_ns": time.time_ns(),
            "session": self._id,
            "cause": cause,
            "bytes_up": self._bytes_up,
            "bytes_down": self._bytes_down,
            "exchanges": self._exchanges,
            "duration_ns": time.monotonic_ns() - self._started_ns,
        }
        self._id = ""
        self._journal.row(row)


@dataclass(slots=True)
class Exchange:
    """One question until its row, or rows, are made. `text`: its name, masked."""

    sessions: Sessions
    journal: Journal
    session: str
    number: int
    operation: str
    text: str
    size: int
    time_ns: int
    started_ns: int
    announced: bool = False

    def announce(self, verdict: Verdict, *, durable: bool = False) -> None:
        """The row without an outcome: it waits for its answer, or for the disk."""
        if not self.announced:
            self.announced = True
            self.journal.row(self._row(verdict, {}, durable))

    def refused(self, verdict: Verdict, size: int) -> None:
        """A denial: one row, or the outcome of what was announced."""
        if self.announced:
            self.conclude(verdict, Rcode.REFUSED, 0, size, {})
            return
        self.sessions.moved(self.size, size)
        self.journal.row(self._row(verdict, {}, durable=False))

    def conclude(self, verdict: Verdict, rcode: int, records: int, size: int, facts: dict[str, str]) -> None:
        """What was answered. `facts`: which upstream, which addresses."""
        self.sessions.moved(self.size, size)
        status = Rcode(rcode).name
        failed = rcode == Rcode.SERVFAIL
        duration_ns = time.monotonic_ns() - self.started_ns
        if self.announced:
            # Facts have no column here, and an auditor asks which addresses were told.
            told = "; ".join(f"{name} {value}" for name, value in facts.items())
            outcome: OutcomeRow = {
                "table": "outcomes",
                "time_ns": time.time_ns(),
                "session": self.session,
                "exchange": self.number,
                "status": f"{status}; {told}" if told else status,
                "rows": records,
                "failed": failed,
                "bytes_up": self.size,
                "bytes_down": size,
                "duration_ns": duration_ns,
                "masked": {},
            }
            self.journal.row(outcome)
            return
        row = self._row(verdict, facts, durable=False)
        row["status"] = status
        row["rows"] = records
        row["failed"] = failed
        row["bytes_up"] = self.size
        row["bytes_down"] = size
        row["duration_ns"] = duration_ns
        row["masked"] = {}
        self.journal.row(row)

    def _row(self, verdict: Verdict, facts: dict[str, str], durable: bool) -> ExchangeRow:
        return {
            "table": "exchanges",
            "time_ns": self.time_ns,
            "session": self.session,
            "exchange": self.number,
            "protocol": DNS,
            "operation": self.operation,
            "text": self.text,
            "params": [],
            "facts": facts,
            "action": verdict.action.value,
            "policy": verdict.policy,
            "rule": verdict.rule,
            "reason": verdict.reason.value,
            "detail": verdict.detail,
            "observed": verdict.observed,
            "durable": durable,
        }
