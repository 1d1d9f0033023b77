"""Rows as a worker sends them, for the tests of recording and of the commands that show records."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from enforcer.recording.writer import Writer

SID = "0123456789abcdef"
OUTCOME = ("status", "rows", "failed", "bytes_up", "bytes_down", "duration_ns", "masked")


def session(sid: str = SID, **changes: Any) -> dict[str, Any]:
    return {
        "table": "sessions",
        "time_ns": 1_763_791_200_000_000_000,  # 2025-11-22 06:00:00 UTC
        "id": sid,
        "executor": "agent",
        "executor_ident": "agent-1",
        "cgroup": "/enforcer/agent-1",
        "pid": 4242,
        "uid": 1000,
        "user": "runner",
        "exe": "/usr/bin/psql",
        "argv": ["psql", "-h", "db"],
        "destination": "3.120.0.10:5432",
        "address": "3.120.0.10",
        "port": 5432,
        "protocol": "postgres",
        "region": "DE",
        "region_kind": "country",
        "prefix": "3.120.0.0/14",
        "table_source": "geo-whois",
        "table_version": "2025-11",
        "generation": 7,
        "policy": "eu-only",
        "rule": "eea",
        "action": "allow",
        "reason": "rule",
        "detail": "",
        "observed": False,
    } | changes


def exchange(number: int = 1, sid: str = SID, **changes: Any) -> dict[str, Any]:
    return {
        "table": "exchanges",
        "time_ns": 1_763_791_200_500_000_000,
        "session": sid,
        "exchange": number,
        "protocol": "postgres",
        "operation": "Query",
        "text": "SELECT 1",
        "params": ["a", None],
        "facts": {"database": "shop"},
        "action": "allow",
        "policy": "eu-only",
        "rule": "eea",
        "reason": "rule",
        "detail": "",
        "observed": False,
        "durable": True,
    } | changes


def answered(number: int = 1, sid: str = SID, **changes: Any) -> dict[str, Any]:
    """A batched exchange that ended before its row was sent."""
    ending = outcome(number, sid, duration_ns=2_500_000, masked={"email": 4})
    return exchange(number, sid, durable=False) | {name: ending[name] for name in OUTCOME} | changes


def outcome(number: int = 1, sid: str = SID, **changes: Any) -> dict[str, Any]:
    return {
        "table": "outcomes",
        "time_ns": 1_763_791_201_000_000_000,
        "session": sid,
        "exchange": number,
        "status": "SELECT",
        "rows": 1,
        "failed": False,
        "bytes_up": 14,
        "bytes_down": 60,
        "duration_ns": 1_500_000,
        "masked": {"credit_card": 2, "users.ssn": 1},
    } | changes


def session_end(sid: str = SID, **changes: Any) -> dict[str, Any]:
    return {
        "table": "session_ends",
        "time_ns": 1_763_791_202_000_000_000,
        "session": sid,
        "cause": "client closed",
        "bytes_up": 14,
        "bytes_down": 60,
        "exchanges": 1,
        "duration_ns": 2_000_000_000,
    } | changes


def refusal(**changes: Any) -> dict[str, Any]:
    return {
        "table": "refusals",
        "time_ns": 1_763_791_203_000_000_000,
        "executor": "agent",
        "destination": "8.8.8.8:53",
        "reason": "UDP_REFUSED",
        "count": 3,
    } | changes


def event(**changes: Any) -> dict[str, Any]:
    return {
        "table": "events",
        "time_ns": 1_763_791_199_000_000_000,
        "kind": "policy loaded",
        "detail": {"generation": 7, "files": {"eu-only.yaml": "ab" * 32}},
    } | changes


def one_of_each() -> list[dict[str, Any]]:
    """Seven rows, seq 1 to 7: every table, exchanges twice: durable and batched."""
    return [event(), session(), exchange(1), outcome(1), answered(2, text="SELECT 2"), session_end(), refusal()]


def record(path: Path, *groups: list[dict[str, Any]]) -> None:
    """Writes `groups`, each in its own transaction, and closes."""
    writer = Writer(path)
    for group in groups:
        assert written(writer, group) is None
    writer.close()


def written(writer: Writer, rows: list[dict[str, Any]], timeout: float = 10) -> Exception | None:
    """Submits `rows`, waits for the answer, and returns what the callback was given."""
    done = threading.Event()
    answers: list[Exception | None] = []

    def on_commit(error: Exception | None) -> None:
        answers.append(error)
        done.set()

    writer.submit(rows, on_commit)
    assert done.wait(timeout), "no answer from the writer"
    return answers[0]
