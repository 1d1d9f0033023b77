"""Step 6 of 6, record: the rows of a flow that the kernel let go directly.

Gets what kernel events say of its beginning and its end; hands on one session's row and the row of its end, as the
recorder takes them. Keeps nothing, so that the end of a flow also finds its session after a restart.
"""

from __future__ import annotations

import hashlib

from enforcer.flow import Flow
from enforcer.identify.process import ProcessFacts
from enforcer.masking.masker import Masker
from enforcer.recording.rows import DIRECT, SessionEndRow, SessionRow
from enforcer.verdict import Action, Reason


def session_id(boot_id: str, cookie: int, opened_ns: int) -> str:
    """The id that both events of one flow lead to. `cookie`: its socket's. `opened_ns`: the kernel's clock when it
    began, which tells apart the connections that one socket makes in turn. `boot_id`: cookies begin anew with it.
    """
    return hashlib.sha256(f"{boot_id} {cookie} {opened_ns}".encode()).hexdigest()[:16]


def session_row(
    session: str,
    flow: Flow,
    *,
    policy: str,
    rule: str,
    generation: int,
    table_version: str,
    who: ProcessFacts,
    masker: Masker,
) -> SessionRow:
    """The beginning. `who`: what is known of the process; its command line is masked here."""
    region, executor = flow.region, flow.executor
    return {
        "table": "sessions",
        "time_ns": flow.opened_ns,
        "id": session,
        "executor": executor.name,
        "executor_ident": executor.ident,
        # The process may be gone by now; where an attached executor is does not depend on it.
        "cgroup": who["cgroup"] or (f"/{executor.cgroup}" if executor.cgroup else ""),
        "pid": flow.pid,
        "uid": flow.uid,
        "user": executor.user,
        "exe": who["exe"],
        "argv": None if who["argv"] is None else [masker.mask_text(argument) for argument in who["argv"]],
        "unit": who["unit"],
        "destination": str(flow.destination),
        "address": str(flow.destination.address),
        "port": flow.destination.port,
        "protocol": DIRECT,
        "region": region.names,
        "region_kind": region.kind,
        "prefix": region.prefix,
        "table_source": region.source,
        "table_version": table_version,
        "generation": generation,
        "policy": policy,
        "rule": rule,
        "action": Action.ALLOW.value,
        "reason": Reason.RULE.value,
        "detail": "",
        "observed": False,
    }


def session_end_row(
    session: str, *, time_ns: int, cause: str, bytes_up: int, bytes_down: int, duration_ns: int
) -> SessionEndRow:
    """The end. Bytes are those of TCP's payload, as the kernel counted them for the executor's socket."""
    return {
        "table": "session_ends",
        "time_ns": time_ns,
        "session": session,
        "cause": cause,
        "bytes_up": bytes_up,
        "bytes_down": bytes_down,
        "exchanges": 0,
        "duration_ns": duration_ns,
    }
