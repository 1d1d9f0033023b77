"""Step 3 of 6, decide: what of the policies the kernel may decide by itself.

Gets policies, executors and the table's sets of regions; hands on ranges of ports. The kernel knows a destination's set
and port, neither its protocol nor its host, and no single address. So whatever an earlier rule *might* match is not
direct: it goes to the proxy, which finds out. Never wider than `engine.decide`, for any protocol and any host.

The kernel takes out the addresses that mean this host, 0.0.0.0 and :: among them, before it asks: a table of the
operator's may place those two.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from enforcer.flow import Executor
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.policy.engine import applies, goes_direct, region_fits
from enforcer.policy.ports import ALL_PORTS, Ports, both, minus, union
from enforcer.verdict import Action

# Ranges the kernel holds for one audience and one set of regions. A surplus goes through the proxy.
MAX_RANGES = 4
# Kinds of set that a table gives a place. All others are special-purpose ranges, or unknown.
_PLACES = frozenset({"country", "provider", "operator"})


class Placed(Protocol):
    """What this needs of a set of regions (`geo.merge.RegionSet`, `flow.Region`)."""

    @property
    def regions(self) -> frozenset[str]: ...

    @property
    def kind(self) -> str: ...


class Claim(NamedTuple):
    """The first rule that may match flows to ports `low` to `high` of one set of regions, whatever they carry."""

    low: int
    high: int
    policy: str
    rule: str
    direct: bool


class PortRange(NamedTuple):
    """Ports, both ends included, that go direct by one rule."""

    low: int
    high: int
    policy: str
    rule: str


@dataclass(frozen=True, slots=True)
class Audience:
    """Executors to which the same policies apply. `policies`: their names, in order. `executors`: idents. `ranges`: by
    region set id, where there are any, at most MAX_RANGES each. `surplus`: (policy, rule) of ranges that did not fit
    and go through the proxy."""

    policies: tuple[str, ...]
    executors: tuple[str, ...]
    ranges: dict[int, tuple[PortRange, ...]]
    surplus: tuple[tuple[str, str], ...]


def direct_plan(policies: PolicySet, executors: Iterable[Executor], sets: Sequence[Placed]) -> tuple[Audience, ...]:
    """What goes direct for whom. `sets`: the table's, index = region set id.

    An audience may hold isolated executors too. They have no route: the kernel sends all of theirs to the proxy.
    """
    members: dict[tuple[str, ...], list[Executor]] = {}
    for executor in executors:
        members.setdefault(audience_of(policies, executor), []).append(executor)
    return tuple(_audience(policies, names, group, sets) for names, group in members.items())


def audience_of(policies: PolicySet, executor: Executor) -> tuple[str, ...]:
    """The names of the policies that apply to `executor`, in order: executors of which it is equal share a plan."""
    return tuple(policy.name for policy in _applicable(policies, executor))


def direct_ranges(policies: PolicySet, executor: Executor, where: Placed) -> tuple[PortRange, ...]:
    """The ports that go direct to the places of `where`, by rule in the order of the rules. Not limited in number."""
    rules = _rules(_applicable(policies, executor))
    return tuple(_direct(_claims(rules, _fitting(rules, where))))


def why_proxied(policies: PolicySet, executor: Executor, where: Placed, port: int) -> str:
    """Why flows to `port` of `where` do not go direct, in words for `explain`; empty where they do."""
    if executor.mode == "isolated":
        return "an isolated executor has no route of its own"
    rules = _rules(_applicable(policies, executor))
    direct = 0
    for claim in _claims(rules, _fitting(rules, where)):
        direct += claim.direct
        if not claim.low <= port <= claim.high:
            continue
        if not claim.direct:
            return f"rule {claim.policy}/{claim.rule} may match first"
        return f"more than {MAX_RANGES} ranges of ports would go direct to that region" if direct > MAX_RANGES else ""
    return "no direct rule names it"


def host_ports(policies: PolicySet, executor: Executor) -> list[Ports]:
    """Ports of the host's loopback that some rule opens to `executor`: what the kernel sends to the proxy, where the
    executor has no server of its own. The proxy decides what protocol and host may pass."""
    opened: list[Ports] = []
    closed: list[Ports] = []
    for rule in (rule for policy in _applicable(policies, executor) for rule in policy.rules if rule.loopback):
        if rule.action is Action.ALLOW:
            opened += minus(rule.ports or (ALL_PORTS,), closed)
        elif not (rule.networks or rule.protocols or rule.hosts or rule.suffixes):
            closed += rule.ports or (ALL_PORTS,)
    return union(opened)


def _applicable(policies: PolicySet, executor: Executor) -> list[Policy]:
    return [policy for policy in policies.policies if applies(policy, executor)]


def _audience(
    policies: PolicySet, names: tuple[str, ...], group: Sequence[Executor], sets: Sequence[Placed]
) -> Audience:
    rules = _rules(_applicable(policies, group[0]))
    ranges: dict[int, tuple[PortRange, ...]] = {}
    # There are thousands of sets, and few ways in which the rules can fit one.
    seen: dict[tuple[int, ...], tuple[PortRange, ...]] = {}
    for ident, where in enumerate(sets if any(rule.direct for _, rule in rules) else ()):
        fitting = _fitting(rules, where)
        if fitting not in seen:
            seen[fitting] = tuple(_direct(_claims(rules, fitting)))
        if seen[fitting]:
            ranges[ident] = seen[fitting][:MAX_RANGES]
    surplus = dict.fromkeys((one.policy, one.rule) for found in seen.values() for one in found[MAX_RANGES:])
    return Audience(names, tuple(executor.ident for executor in group), ranges, tuple(surplus))


def _rules(policies: Iterable[Policy]) -> list[tuple[str, Rule]]:
    """Every rule with the name of its policy, in order."""
    return [(policy.name, rule) for policy in policies for rule in policy.rules]


def _fitting(rules: Sequence[tuple[str, Rule]], where: Placed) -> tuple[int, ...]:
    """Places in `rules` of those that may match flows to some address of `where`, whatever they carry, ports aside.
    None where the set is no place."""
    if where.kind not in _PLACES or not where.regions:
        return ()
    return tuple(
        place for place, (_, rule) in enumerate(rules) if not rule.loopback and region_fits(rule, where.regions)
    )


def _claims(rules: Sequence[tuple[str, Rule]], fitting: Iterable[int]) -> Iterator[Claim]:
    """Who is first at which ports, in the order of the rules."""
    left = [ALL_PORTS]
    for policy, rule in (rules[place] for place in fitting):
        taken = both(left, rule.ports or (ALL_PORTS,))
        for low, high in taken:
            yield Claim(low, high, policy, rule.name, goes_direct(rule))
        left = minus(left, taken)
        if not left:
            return


def _direct(claims: Iterable[Claim]) -> Iterator[PortRange]:
    return (PortRange(claim.low, claim.high, claim.policy, claim.rule) for claim in claims if claim.direct)
