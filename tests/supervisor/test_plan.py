"""The policies' plan in the kernel's form: numbers stand for what they stood for when the plan was made."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from enforcer.capture.abi import MAX_HOST_RANGES
from enforcer.capture.generation import AudienceEntry
from enforcer.flow import Executor
from enforcer.geo.merge import RegionSet
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.supervisor.plan import EMPTY, plan_for
from tests.policy.policy_world import VOCABULARY

SETS = (
    RegionSet(frozenset(), "unknown", ""),
    RegionSet(frozenset({"DE"}), "country", "test"),
    RegionSet(frozenset({"DE", "FR"}), "country", "test"),
    RegionSet(frozenset({"US"}), "country", "test"),
)
# Questions over TCP to a stub on the host's loopback go to the proxy for every executor.
DNS = (53, 53)
POLICY = """
policy: straight
applies_to: [{cgroup: "system.slice/agent-*.service"}]
rules:
  - {name: web, to: {region: [DE], port: ["443", "8000-8010"]}, action: allow, path: direct}
  - {name: local, to: {region: [HOST], port: ["5432"]}, action: allow}
  - {name: mail, to: {region: [DE, FR], port: ["25"]}, action: allow, path: direct}
"""


def policies(tmp_path: Path, *texts: str) -> PolicySet:
    paths = []
    for text in texts:
        path = tmp_path / f"{text.split()[1]}.yaml"
        path.write_text(textwrap.dedent(text))
        paths.append(path)
    return load_policies(paths, VOCABULARY)


def attached(ident: int, name: str) -> Executor:
    return Executor(f"{name}-{ident:x}", name, 0, "", ident, f"system.slice/{name}", "attached")


def test_a_plan_numbers_audiences_and_rules(tmp_path: Path) -> None:
    """Per audience and region set the ports that go direct, each with its rule's number; host ports per executor."""
    known = policies(tmp_path, POLICY)
    one, two = attached(7, "agent-1.service"), attached(8, "agent-2.service")
    other, isolated = attached(9, "else.service"), Executor("job-1", "job", 1000, "ada", 10)
    plan = plan_for(known, [one, two, other, isolated], SETS)
    web, mail = plan.rules.index(("straight", "web")), plan.rules.index(("straight", "mail"))
    number = plan.kernel.audiences[7].number
    assert plan.kernel.audiences[8] == plan.kernel.audiences[7] == AudienceEntry(number, (DNS, (5432, 5432)))
    assert plan.kernel.audiences[9].number != number
    assert plan.kernel.audiences[10] == AudienceEntry(0, (DNS,))
    assert plan.kernel.direct == {
        (number, 1): [(443, 443, web), (8000, 8010, web), (25, 25, mail)],
        (number, 2): [(25, 25, mail)],
    }


def test_an_executor_that_comes_later_joins_an_audience_or_needs_a_new_plan(tmp_path: Path) -> None:
    """Where its policies have a number it gets that; where they have none, or there is no plan yet, None says so."""
    known = policies(tmp_path, POLICY)
    first, second = attached(7, "agent-1.service"), attached(8, "agent-2.service")
    assert EMPTY.entry_for(known, first) is None
    plan = plan_for(known, [first], SETS)
    assert plan.entry_for(known, second) == plan.kernel.audiences[7]
    assert plan.entry_for(known, attached(9, "else.service")) is None
    assert EMPTY.entry_for(known, Executor("job-1", "job", 1000, "ada", 10)) == AudienceEntry(0, (DNS,))


def test_host_ports_beyond_what_the_kernel_holds_are_left_out_and_told(tmp_path: Path) -> None:
    """Fewer ports open than the policy says, never more; the log says so."""
    rules = "\n".join(
        f'  - {{name: p{port}, to: {{region: [HOST], port: ["{port}"]}}, action: allow}}' for port in range(1, 60, 2)
    )
    known = policies(tmp_path, f"policy: many\nrules:\n{rules}\n")
    with capture_logs() as logs:
        plan = plan_for(known, [attached(7, "agent-1.service")], SETS)
    assert len(plan.kernel.audiences[7].host_ports) == MAX_HOST_RANGES
    assert all(low == high and low % 2 for low, high in plan.kernel.audiences[7].host_ports)
    assert DNS in plan.kernel.audiences[7].host_ports
    assert any("too many port ranges of the host" in line["event"] for line in logs)


@pytest.mark.parametrize("mode", ["isolated", "attached"])
def test_without_policies_nothing_goes_direct(mode: str) -> None:
    """The plan of no policy is empty for everybody."""
    executor = Executor("x", "x", 0, "", 7, "system.slice/x" if mode == "attached" else "", mode)  # type: ignore[arg-type]
    plan = plan_for(PolicySet.of(()), [executor], SETS)
    assert plan.kernel.direct == {}
    assert plan.kernel.audiences[7].host_ports == (DNS,)
