"""Step 3 of 6, decide: one flow, its protocol and its facts in, one verdict out. Pure; never touches the world.

First match over all applicable policies in order; no match is a denial. `explain` walks the same steps with the same
matchers, so what it prints is what happened. Doubt closes: an allow must cover every region the address may be in, a
deny needs only one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple

from enforcer.flow import Executor, Flow
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.policy.destinations import canonical_host
from enforcer.verdict import Action, Reason, Verdict

OPAQUE = "opaque"
# No rule reaches these: they are this host, or nobody in particular.
UNREACHABLE = frozenset({"loopback", "multicast"})
# Only a rule whose address is exactly this one reaches these: credentials of the host, and neighbours on the link.
NAMED_ONLY = frozenset({"metadata", "link-local"})
# Kinds that come from a table of places; every other kind is a special-purpose range.
PLACED = frozenset({"country", "operator", "unknown"})


class Question(NamedTuple):
    """What every rule is asked about one flow. `special`: the class that needs more than a region, or empty."""

    flow: Flow
    special: str
    protocol: str
    host: str | None


class Step(NamedTuple):
    """One rule tried: `difference` is the first thing that does not fit, None when the rule matched.
    Without a `rule`: the whole policy does not apply, and `difference` says why."""

    policy: Policy
    rule: Rule | None
    difference: str | None


def decide(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> Verdict:
    """The verdict on `flow` carrying `protocol`. `facts["host"]` is the host the client named, where it named one."""
    return conclude(flow, steps(policies, flow, protocol, facts))


def steps(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> Iterator[Step]:
    """The rules in the order they are tried, up to and including the one that matches."""
    host = facts.get("host")
    question = Question(flow, special_class(flow), protocol, canonical_host(host) if host else None)
    for policy in policies.policies:
        if not _applies(policy, flow.executor):
            yield Step(policy, None, f"applies to {_audience(policy)}, not to executor {flow.executor.name}")
            continue
        for rule in policy.rules:
            difference = first_difference(rule, question)
            yield Step(policy, rule, difference)
            if difference is None:
                return


def conclude(flow: Flow, tried: Iterable[Step]) -> Verdict:
    """The verdict that follows from the steps."""
    # Observe mode never opens the way to the host itself, its link or its cloud's control plane.
    observable = not special_class(flow)
    count, all_observe = 0, True
    for policy, rule, difference in tried:
        if rule is None:
            continue
        if difference is None:
            observed = rule.action is Action.DENY and policy.observe and observable
            mask, durable = rule.mask, rule.durable
            return Verdict(rule.action, Reason.RULE, policy.name, rule.name, "", mask, durable, observed)
        count += 1
        all_observe = all_observe and policy.observe
    observed = count > 0 and all_observe and observable
    return Verdict(Action.DENY, _unmatched_reason(flow), detail=_unmatched_detail(flow, count), observed=observed)


def special_class(flow: Flow) -> str:
    """`loopback`, `multicast`, `metadata` or `link-local`, or an empty text.

    By the table's kind and by the address itself, so that no row can turn this host into a region. The unspecified
    address is loopback: Linux connects 0.0.0.0 and :: to the local host.
    """
    kind, address = flow.region.kind, flow.destination.address
    if kind in UNREACHABLE or kind in NAMED_ONLY:
        return kind
    if address.is_loopback or address.is_unspecified:
        return "loopback"
    if address.is_multicast:
        return "multicast"
    return "link-local" if address.is_link_local else ""


def first_difference(rule: Rule, question: Question) -> str | None:
    """The first thing in which the question differs from the rule, in words; None when the rule matches."""
    for differ in MATCHERS:
        difference = differ(rule, question)
        if difference is not None:
            return difference
    return None


def _special(rule: Rule, question: Question) -> str | None:
    if not question.special:
        return None
    address = question.flow.destination.address
    if question.special in UNREACHABLE:
        return f"{address} is {question.special}, which no rule reaches"
    if any(network.single and network.holds(address.version, int(address)) for network in rule.networks):
        return None
    return f"{address} is {question.special}, which only a rule for address {address}/{address.max_prefixlen} reaches"


def _region(rule: Rule, question: Question) -> str | None:
    if not rule.region_words:
        if rule.action is Action.ALLOW and not rule.networks:
            return "the rule says neither region nor address"
        return None
    known = question.flow.region.regions
    words = ", ".join(rule.region_words)
    if rule.action is Action.DENY:
        fits = rule.any_region or not known.isdisjoint(rule.regions)
        return None if fits else f"region {question.flow.region} is not in {words}"
    if not known:
        kind = question.flow.region.kind
        return "the region is unknown" if kind == "unknown" else f"a {kind} address has no region"
    if rule.any_region or known <= rule.regions:
        return None
    wholly = "not" if known.isdisjoint(rule.regions) else "not wholly"
    return f"region {question.flow.region} is {wholly} in {words}"


def _address(rule: Rule, question: Question) -> str | None:
    address = question.flow.destination.address
    if not rule.networks or any(network.holds(address.version, int(address)) for network in rule.networks):
        return None
    return f"address {address} is not in {_some(network.text for network in rule.networks)}"


def _port(rule: Rule, question: Question) -> str | None:
    port = question.flow.destination.port
    if not rule.ports or any(low <= port <= high for low, high in rule.ports):
        return None
    return f"port {port} is not in {_some(_range(ports) for ports in rule.ports)}"


def _protocol(rule: Rule, question: Question) -> str | None:
    if question.protocol in rule.protocols:
        return None
    if rule.protocols:
        return f"protocol {question.protocol} is not in {_some(sorted(rule.protocols))}"
    if rule.action is Action.ALLOW and question.protocol == OPAQUE:
        return f"protocol {OPAQUE} passes only where a rule names it"
    return None


def _host(rule: Rule, question: Question) -> str | None:
    if not rule.hosts and not rule.suffixes:
        return None
    host = question.host
    if not host:
        return "no host is known"
    if host in rule.hosts or host.endswith(rule.suffixes):
        return None
    return f"host {host!r} is not in {_some([*sorted(rule.hosts), *('*' + suffix for suffix in rule.suffixes)])}"


# In the order of certainty: what the kernel and the tables say first, what the client says of itself last.
MATCHERS: tuple[Callable[[Rule, Question], str | None], ...] = (_special, _region, _address, _port, _protocol, _host)


def _applies(policy: Policy, executor: Executor) -> bool:
    return executor.user in policy.users or any(fnmatchcase(executor.name, glob) for glob in policy.executors)


def _audience(policy: Policy) -> str:
    return _some([f"executor {glob}" for glob in policy.executors] + [f"user {user}" for user in sorted(policy.users)])


def _unmatched_reason(flow: Flow) -> Reason:
    if flow.region.kind not in PLACED or special_class(flow):
        return Reason.SPECIAL_ADDRESS
    return Reason.NO_RULE if flow.region.regions else Reason.UNKNOWN_REGION


def _unmatched_detail(flow: Flow, count: int) -> str:
    if not count:
        return f"no enabled policy applies to executor {flow.executor.name}"
    return f"{count} rule{'' if count == 1 else 's'} tried, none matches"


def _range(ports: tuple[int, int]) -> str:
    low, high = ports
    return str(low) if low == high else f"{low}-{high}"


def _some(words: Iterable[str]) -> str:
    """The first few of a list that may hold thousands: a difference is one line."""
    listed = list(words)
    return ", ".join(listed) if len(listed) <= 4 else f"{', '.join(listed[:3])} and {len(listed) - 3} more"
