"""What the kernel programs tell, as rows for the record: refusals, and the life of direct flows."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from enforcer.capture.tables import DirectEvent, KernelRefusal, Tables
from enforcer.config import Settings
from enforcer.flow import Endpoint, Executor, Flow
from enforcer.identify.process import describe_process
from enforcer.masking.masker import masker_for
from enforcer.recording.rows import RefusalRow
from enforcer.supervisor.direct_records import session_end_row, session_id, session_row
from enforcer.supervisor.generation import Content
from enforcer.verdict import MaskSpec

# Taken per look; the kernel holds 8,192 refusals and 16,384 events of direct flows, so at four looks a second this
# keeps up with 32,000 and 64,000 a second.
REFUSALS_PER_LOOK, DIRECT_PER_LOOK = 8192, 16384
# Generations whose rules are remembered: a flow's first event is read within a second of its beginning.
GENERATIONS_KEPT = 8


class KernelEvents:
    """Reads the queues of one set of maps. `executor_of` finds an executor by its cgroup id."""

    def __init__(self, tables: Tables, executor_of: Callable[[int], Executor | None]) -> None:
        self._tables = tables
        self._executor_of = executor_of
        self._rules: dict[int, tuple[tuple[str, str], ...]] = {}
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()

    def rules_of(self, generation: int, rules: tuple[tuple[str, str], ...]) -> None:
        """Remembers which rule a number in a direct flow's event stands for."""
        self._rules[generation] = rules
        for old in sorted(self._rules)[:-GENERATIONS_KEPT]:
            del self._rules[old]

    def refusals(self) -> tuple[list[RefusalRow], list[KernelRefusal]]:
        """Refusals since the last look, counted per executor, destination and reason; and each of them as it was."""
        taken = self._tables.pop_refusals(REFUSALS_PER_LOOK)
        counted: dict[tuple[str, Endpoint | None, str], RefusalRow] = {}
        for refusal in taken:
            executor = self._executor_of(refusal.executor)
            key = (executor.name if executor else "", refusal.destination, refusal.reason)
            row = counted.setdefault(
                key,
                {
                    "table": "refusals",
                    "time_ns": time.time_ns(),
                    "executor": key[0],
                    "destination": str(refusal.destination or ""),
                    "reason": refusal.reason,
                    "count": 0,
                },
            )
            row["count"] += 1
            row["pid"], row["uid"] = refusal.pid, refusal.uid
        return list(counted.values()), taken

    def direct_flows(self, settings: Settings, content: Content) -> list[Any]:
        """Rows for direct flows that began or ended since the last look."""
        events = self._tables.pop_direct_events(DIRECT_PER_LOOK)
        return [self._end(event) if event.ended else self._begin(event, settings, content) for event in events]

    def _begin(self, event: DirectEvent, settings: Settings, content: Content) -> Any:
        rules = self._rules.get(event.generation, ())
        policy, rule = rules[event.rule] if event.rule < len(rules) else ("", "")
        executor = self._executor_of(event.executor) or Executor("", "", event.uid, "", event.executor, "", "attached")
        flow = Flow(
            executor=executor,
            destination=event.destination,
            region=content.table.lookup(event.destination.address),
            cookie=event.cookie,
            pid=event.pid,
            uid=event.uid,
            opened_ns=_wall(event.opened_ns),
        )
        return session_row(
            self._session(event),
            flow,
            policy=policy,
            rule=rule,
            generation=event.generation,
            table_version=content.table.version,
            who=describe_process(event.pid, event.uid),
            masker=masker_for(MaskSpec(detectors=settings.record_mask)),
        )

    def _end(self, event: DirectEvent) -> Any:
        return session_end_row(
            self._session(event),
            time_ns=_wall(event.time_ns),
            cause="closed",
            bytes_up=event.bytes_up,
            bytes_down=event.bytes_down,
            duration_ns=event.time_ns - event.opened_ns,
        )

    def _session(self, event: DirectEvent) -> str:
        return session_id(self._boot_id, event.cookie, event.opened_ns)


def _wall(boot_ns: int) -> int:
    """Unix time, nanoseconds, of a moment on the clock that counts from boot."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME) + boot_ns
