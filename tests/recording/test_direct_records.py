"""The rows of a direct flow: accepted, chained, listed and shown like those of any other."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

from enforcer.flow import Endpoint, Executor, Flow, Region
from enforcer.identify.process import ProcessFacts
from enforcer.masking.masker import masker_for
from enforcer.protocols import registry
from enforcer.recording.check import STORED, check
from enforcer.recording.reader import Filter, Reader
from enforcer.recording.rows import DIRECT, SessionEndRow, SessionRow
from enforcer.recording.verify import verify
from enforcer.supervisor.direct_records import session_end_row, session_id, session_row
from enforcer.verdict import MaskSpec
from tests.recording.record_rows import record

OPENED = 1_763_791_200_000_000_000  # 2025-11-22 06:00:00 UTC
GONE = ProcessFacts(exe=None, argv=None, cgroup="", unit=None)
EXECUTOR = Executor("agent-1", "agent", 1000, "runner", 77, "system.slice/agent.service", "attached")
REGION = Region(frozenset({"DE", "FR"}), "country", "3.120.0.0/14", "geo-whois 2025-11")
FLOW = Flow(EXECUTOR, Endpoint(ip_address("3.120.0.10"), 443), REGION, cookie=9, pid=4242, uid=1000, opened_ns=OPENED)
SESSION = session_id("boot", 9, 5_000)


def beginning(who: ProcessFacts = GONE) -> SessionRow:
    masker = masker_for(MaskSpec(detectors=("credit_card",)))
    return session_row(
        SESSION, FLOW, policy="tls", rule="german", generation=3, table_version="0a1b", who=who, masker=masker
    )


def end() -> SessionEndRow:
    return session_end_row(
        SESSION,
        time_ns=OPENED + 2_000_000_000,
        cause="closed",
        bytes_up=120,
        bytes_down=4096,
        duration_ns=2_000_000_000,
    )


def test_both_rows_are_accepted_as_they_are() -> None:
    """Every column is there and of its type; what was decided, where to and by whom is in the row."""
    row = dict(zip(("time_ns", *STORED["sessions"]), check(beginning()).values, strict=True))
    assert [row[name] for name in ("protocol", "action", "reason", "policy", "rule", "generation", "observed")] == [
        "direct", "allow", "rule", "tls", "german", 3, 0,
    ]  # fmt: skip
    assert [row[name] for name in ("executor", "executor_ident", "pid", "uid", "user", "cgroup")] == [
        "agent", "agent-1", 4242, 1000, "runner", "/system.slice/agent.service",
    ]  # fmt: skip
    assert [row[name] for name in ("destination", "region", "region_kind", "prefix", "host")] == [
        "3.120.0.10:443", "DE/FR", "country", "3.120.0.0/14", None,
    ]  # fmt: skip
    ending = dict(zip(("time_ns", *STORED["session_ends"]), check(end()).values, strict=True))
    assert [ending[name] for name in ("session", "bytes_up", "bytes_down", "exchanges", "duration_ns")] == [
        SESSION, 120, 4096, 0, 2_000_000_000,
    ]  # fmt: skip


def test_the_process_is_described_and_its_arguments_are_masked() -> None:
    """What /proc said goes in, but no card number from a command line."""
    who = ProcessFacts(exe="/usr/bin/curl", argv=["curl", "4111111111111111"], cgroup="/a/b", unit="b.service")
    row = beginning(who)
    assert (row["exe"], row["cgroup"], row["unit"]) == ("/usr/bin/curl", "/a/b", "b.service")
    assert row["argv"] == ["curl", "************1111"]


def test_one_flow_has_one_id_and_another_flow_has_another() -> None:
    """Beginning and end need not share a memory; another socket, connection or boot is another session."""
    ids = {
        session_id(*parts) for parts in (("b", 1, 2), ("b", 1, 3), ("b", 2, 2), ("c", 1, 2), ("b", 12, 2), ("b", 1, 22))
    }
    assert len(ids) == 6
    assert session_id("b", 1, 2) in ids
    check({**beginning(), "id": min(ids)})


def test_a_direct_session_is_in_the_records_like_any_other(tmp_path: Path) -> None:
    """It is found by its protocol, has its end and no exchanges, and the chain over it holds."""
    database = tmp_path / "state" / "sessions.db"
    record(database, [dict(beginning())], [dict(end())])
    with Reader(database) as reader:
        (listed,) = reader.sessions(Filter(protocol=DIRECT, region="FR"))
        shown = reader.session(SESSION[:6])
    assert (listed["id"], listed["exchanges"], listed["ended"]) == (SESSION, 0, "closed")
    assert (shown["end"]["bytes_down"], shown["exchanges"]) == (4096, [])
    assert verify(database).fault is None


def test_no_protocol_is_called_direct() -> None:
    """The word in a record cannot be mistaken for what a flow carried."""
    assert DIRECT not in registry.NAMES
