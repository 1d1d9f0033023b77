"""What of the policies the kernel decides by itself, in the form it holds: numbers for audiences and rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from enforcer.capture.abi import MAX_HOST_RANGES
from enforcer.capture.generation import AudienceEntry, DirectPlan
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.policy.compiled import PolicySet
from enforcer.policy.direct import Placed, audience_of, direct_plan, host_ports
from enforcer.policy.ports import union

# Audience of executors for which nothing goes direct.
_NOTHING_DIRECT = 0
_DNS = (53, 53)

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """`kernel`: for `build_generation`. `rules`: (policy, rule) by the number that a direct flow's event has.
    `numbers`: of audiences, by the names of the policies that apply to them."""

    kernel: DirectPlan
    rules: tuple[tuple[str, str], ...]
    numbers: Mapping[tuple[str, ...], int]

    def entry_for(self, policies: PolicySet, executor: Executor) -> AudienceEntry | None:
        """What to tell the kernel of an executor that came after the plan was made; None when it needs a new plan."""
        if executor.mode != "attached":
            return AudienceEntry(_NOTHING_DIRECT, _host_ports(policies, executor))
        number = self.numbers.get(audience_of(policies, executor))
        return None if number is None else AudienceEntry(number, _host_ports(policies, executor))

    def goes_direct(self, executor: Executor, region_set: int, port: int) -> bool:
        """Would the kernel let a flow of an executor that the plan was made for go directly?"""
        entry = self.kernel.audiences.get(executor.cgroup_id)
        ranges = self.kernel.direct.get((entry.number, region_set), ()) if entry is not None else ()
        return any(low <= port <= high for low, high, _rule in ranges)


EMPTY = Plan(DirectPlan(), (), {})


def plan_for(policies: PolicySet, executors: Iterable[Executor], sets: Sequence[Placed]) -> Plan:
    """The plan for all executors there are."""
    executors = list(executors)
    rules: dict[tuple[str, str], int] = {}
    direct: dict[tuple[int, int], list[tuple[int, int, int]]] = {}
    numbers: dict[tuple[str, ...], int] = {}
    for number, audience in enumerate(direct_plan(policies, executors, sets), start=1):
        numbers[audience.policies] = number
        for policy, rule in audience.surplus:
            _log.warning("too many port ranges to go direct; the rest takes the proxy", policy=policy, rule=rule)
        for region_set, ranges in audience.ranges.items():
            direct[number, region_set] = [
                (one.low, one.high, rules.setdefault((one.policy, one.rule), len(rules))) for one in ranges
            ]
    entries = {
        executor.cgroup_id: AudienceEntry(_number(policies, executor, numbers), _host_ports(policies, executor))
        for executor in executors
    }
    return Plan(DirectPlan(entries, direct), tuple(rules), numbers)


def _number(policies: PolicySet, executor: Executor, numbers: dict[tuple[str, ...], int]) -> int:
    if executor.mode != "attached":
        return _NOTHING_DIRECT
    return numbers.get(audience_of(policies, executor), _NOTHING_DIRECT)


def _host_ports(policies: PolicySet, executor: Executor) -> tuple[tuple[int, int], ...]:
    """What the rules open of the host's loopback, and port 53: questions over TCP to a stub there go to the proxy too,
    which hands them to the resolver."""
    opened = host_ports(policies, executor)
    kept = opened
    while len(ports := union([_DNS, *kept])) > MAX_HOST_RANGES:
        kept = kept[:-1]
    if len(kept) < len(opened):
        _log.warning(
            "too many port ranges of the host; the rest is refused", executor=executor.name, ranges=len(opened)
        )
    return tuple(ports)
