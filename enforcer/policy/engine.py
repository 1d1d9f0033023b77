"""Step 3 of 6, decide: one flow, its protocol and its facts in, one verdict out. Pure; never touches the world.

First match over all applicable policies in order; no match is a denial. What matched is the same for all exchanges with
one host; its `only` clauses are asked for each of them. `explain` walks the same steps with the same matchers, so what
it prints is what happened. Doubt closes: an allow must cover every region the address may be in, a deny needs only one
of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import NamedTuple

from enforcer.flow import Address, Executor, Flow
from enforcer.policy.cgroups import cgroup_matches
from enforcer.policy.compiled import HOST_REGION, Policy, PolicySet, Rule
from enforcer.policy.described import Described
from enforcer.policy.destinations import canonical_host
from enforcer.policy.only import Asked, Only
from enforcer.policy.only import first_difference as clause_difference
from enforcer.policy.words import some
from enforcer.verdict import Action, Reason, Verdict

OPAQUE = "opaque"
TLS = "tls"
# Passed on unread, so that a rule has to say it means them.
UNREAD = frozenset({OPAQUE, TLS})
# Neither a region nor an address reaches these: they are this host (only HOST does), or nobody in particular.
UNREACHABLE = frozenset({"loopback", "multicast"})
# Only a rule whose address is exactly this one reaches these: credentials of the host, and neighbours on the link.
NAMED_ONLY = frozenset({"metadata", "link-local"})
# Kinds that come from a table of places, or say that none holds it; every other kind is a special-purpose range.
PLACED = frozenset({"country", "provider", "operator", "anycast", "unknown"})


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


class Clause(NamedTuple):
    """An `only` that has to hold, whose it is, and whether its denials are only observed."""

    policy: str
    rule: str
    only: Only
    observed: bool


class Match(NamedTuple):
    """What holds for every exchange of a flow in one protocol with one host: `verdict`, as far as `clauses` hold."""

    verdict: Verdict
    clauses: tuple[Clause, ...] = ()

    def on(self, asked: Asked) -> Verdict:
        """The verdict on one exchange: `verdict` itself where every clause holds. An enforced denial comes before one
        that is only observed."""
        if not self.clauses:
            return self.verdict
        denied = None
        for clause in self.clauses:
            difference = clause_difference(clause.only, asked)
            if difference is None or (denied is not None and clause.observed):
                continue
            denied = Verdict(Action.DENY, Reason.CLAUSE, clause.policy, clause.rule, difference)
            if clause.observed:  # it passes all the same, and as masked as ever
                kept = self.verdict
                denied = replace(
                    denied, observed=True, mask=kept.mask, request_mask=kept.request_mask, durable=kept.durable
                )
            if not clause.observed:
                break
        return denied or self.verdict


def decide(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> Verdict:
    """The verdict on `flow` carrying `protocol`. `facts["host"]` is the host the client named, where it named one."""
    return match(policies, flow, protocol, facts).on(Described(facts=facts))


def match(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> Match:
    """What `flow` comes to, carrying `protocol` for the host of `facts`. Of the facts only `host` is looked at."""
    return conclude(flow, steps(policies, flow, protocol, facts))


def may_pass(policies: PolicySet, flow: Flow, host: str | None, protocol: str = "http") -> bool:
    """Could some exchange with `host` pass, if it is what the clauses ask for? For what has to be known of the server
    before the first exchange can be read."""
    return match(policies, flow, protocol, {"host": host} if host else {}).verdict.passes


def could_pass(policies: PolicySet, flow: Flow, protocol: str) -> bool:
    """Could some exchange of `flow` in `protocol` pass, for whatever host and whatever the clauses ask for?"""
    question = Question(flow, special_class(flow), protocol, None)
    observable, count, all_observe = not question.special, 0, True
    for policy in policies.policies:
        if not applies(policy, flow.executor):
            continue
        for rule in policy.rules:
            count += 1
            all_observe = all_observe and policy.observe
            if any(differ(rule, question) for differ in MATCHERS[:-1]):
                continue
            if rule.action is Action.ALLOW or (policy.observe and observable):
                return True
            if not rule.hosts and not rule.suffixes:
                return False
    return count > 0 and all_observe and observable


def names_protocol(policies: PolicySet, protocol: str) -> bool:
    """Does any rule name `protocol`?"""
    return any(protocol in rule.protocols for policy in policies.policies for rule in policy.rules)


def reads_bodies(policies: PolicySet, flow: Flow) -> bool:
    """Does some rule that `flow` may come to, whatever protocol and host, ask for what is in bodies?"""
    asking = [
        rule
        for policy in policies.policies
        for rule in policy.rules
        if rule.only is not None and rule.only.reads_bodies and applies(policy, flow.executor)
    ]
    if not asking:
        return False
    question = Question(flow, special_class(flow), OPAQUE, None)
    return any(not any(differ(rule, question) for differ in _BY_ADDRESS) for rule in asking)


def relayed(policies: PolicySet, flow: Flow) -> bool:
    """Is `flow` decided by a direct rule whatever it carries? Then it passes unread, from its first byte on.

    False where an earlier rule may match once protocol and host are known: the flow has to be read up to there.
    """
    question = Question(flow, special_class(flow), OPAQUE, None)
    rules = (rule for policy in policies.policies if applies(policy, flow.executor) for rule in policy.rules)
    first = next((rule for rule in rules if not any(differ(rule, question) for differ in _BY_ADDRESS)), None)
    return first is not None and goes_direct(first)


def reads_tls(policies: PolicySet, flow: Flow, facts: Mapping[str, str]) -> bool:
    """May TLS be ended here, and what is inside judged for itself? Not where the rule that the connection comes to
    names `tls`: it passes it on unread, or denies it as such."""
    decisive = [step.rule for step in steps(policies, flow, TLS, facts) if step.rule and step.difference is None]
    return not decisive or TLS not in decisive[0].protocols


def goes_direct(rule: Rule) -> bool:
    """Does a match by region and port alone settle it? Of a direct rule that a file can hold, it does."""
    more = rule.networks or rule.protocols or rule.hosts or rule.suffixes or rule.only
    return rule.direct and rule.action is Action.ALLOW and not more


def steps(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> Iterator[Step]:
    """The rules in the order they are tried, up to and including the one that matches."""
    host = facts.get("host")
    question = Question(flow, special_class(flow), protocol, canonical_host(host) if host else None)
    for policy in policies.policies:
        if not applies(policy, flow.executor):
            yield Step(policy, None, f"applies to {_audience(policy)}, not to {_who(flow.executor)}")
            continue
        for rule in policy.rules:
            difference = first_difference(rule, question)
            yield Step(policy, rule, difference)
            if difference is None:
                return


def conclude(flow: Flow, tried: Iterable[Step]) -> Match:
    """What follows from the steps."""
    # Observe mode never opens the way to the host itself, its link or its cloud's control plane.
    observable = not special_class(flow)
    count, all_observe = 0, True
    for policy, rule, difference in tried:
        if rule is None:
            continue
        if difference is None:
            observed = rule.action is Action.DENY and policy.observe and observable
            verdict = Verdict(
                rule.action,
                Reason.RULE,
                policy.name,
                rule.name,
                detail="its path is direct" if rule.direct else "",
                mask=rule.mask,
                request_mask=rule.request_mask,
                durable=rule.durable,
                observed=observed,
                direct=rule.direct,
            )
            clause = rule.only and Clause(policy.name, rule.name, rule.only, policy.observe and observable)
            return Match(verdict, (clause,) if clause else ())
        count += 1
        all_observe = all_observe and policy.observe
    observed = count > 0 and all_observe and observable
    return Match(
        Verdict(Action.DENY, _unmatched_reason(flow), detail=_unmatched_detail(flow, count), observed=observed)
    )


def special_class(flow: Flow) -> str:
    """`loopback`, `multicast`, `metadata` or `link-local`, or an empty text.

    By the table's kind and by the address itself, so that no row can turn this host into a region.
    """
    kind, address = flow.region.kind, flow.destination.address
    if kind in UNREACHABLE or kind in NAMED_ONLY:
        return kind
    if is_host(address):
        return "loopback"
    if address.is_multicast:
        return "multicast"
    return "link-local" if address.is_link_local else ""


def is_host(address: Address) -> bool:
    """Does the address itself mean this host? Linux connects 0.0.0.0 and :: to the local host."""
    return address.is_loopback or address.is_unspecified


def first_difference(rule: Rule, question: Question) -> str | None:
    """The first thing in which the question differs from the rule, in words; None when the rule matches."""
    for differ in MATCHERS:
        difference = differ(rule, question)
        if difference is not None:
            return difference
    return None


def _special(rule: Rule, question: Question) -> str | None:
    address = question.flow.destination.address
    if rule.loopback:
        # Not by the table's kind: in it, 64:ff9b::7f00:1 is loopback too, and would be dialled beyond this host.
        return None if is_host(address) else f"{address} is not the loopback of this host"
    if not question.special:
        return None
    if is_host(address):
        return f"{address} is {question.special}, which only a rule for region {HOST_REGION} reaches"
    if question.special in UNREACHABLE:
        return f"{address} is {question.special}, which no rule reaches"
    if any(network.single and network.holds(address.version, int(address)) for network in rule.networks):
        return None
    return f"{address} is {question.special}, which only a rule for address {address}/{address.max_prefixlen} reaches"


def region_fits(rule: Rule, known: frozenset[str]) -> bool:
    """Do the rule's regions fit an address that may be in any of `known`? Also where it names none, and may."""
    if not rule.region_words:
        return rule.action is Action.DENY or bool(rule.networks)
    if rule.action is Action.DENY:
        return rule.any_region or not known.isdisjoint(rule.regions)
    return bool(known) and (rule.any_region or known <= rule.regions)


def _region(rule: Rule, question: Question) -> str | None:
    known = question.flow.region.regions
    if rule.loopback or region_fits(rule, known):
        return None
    if not rule.region_words:
        return "the rule says neither region nor address"
    words = ", ".join(rule.region_words)
    if rule.action is Action.DENY:
        return f"region {question.flow.region} is not in {words}"
    if not known:
        kind = question.flow.region.kind
        if kind == "unknown":
            return "the region is unknown"
        return "an anycast address has no region" if kind == "anycast" else f"a {kind} address has no region"
    wholly = "not" if known.isdisjoint(rule.regions) else "not wholly"
    return f"region {question.flow.region} is {wholly} in {words}"


def _address(rule: Rule, question: Question) -> str | None:
    address = question.flow.destination.address
    if not rule.networks or any(network.holds(address.version, int(address)) for network in rule.networks):
        return None
    return f"address {address} is not in {some(network.text for network in rule.networks)}"


def _port(rule: Rule, question: Question) -> str | None:
    port = question.flow.destination.port
    if not rule.ports or any(low <= port <= high for low, high in rule.ports):
        return None
    return f"port {port} is not in {some(_range(ports) for ports in rule.ports)}"


def _protocol(rule: Rule, question: Question) -> str | None:
    if question.protocol in rule.protocols:
        return None
    if rule.protocols:
        return f"protocol {question.protocol} is not in {some(sorted(rule.protocols))}"
    if rule.action is Action.ALLOW and question.protocol in UNREAD and not rule.direct:
        return f"protocol {question.protocol} passes only where a rule names it"
    return None


def _host(rule: Rule, question: Question) -> str | None:
    if not rule.hosts and not rule.suffixes:
        return None
    host = question.host
    if not host:
        return "no host is known"
    if host in rule.hosts or host.endswith(rule.suffixes):
        return None
    return f"host {host!r} is not in {some([*sorted(rule.hosts), *('*' + suffix for suffix in rule.suffixes)])}"


# In the order of certainty: what the kernel and the tables say first, what the client says of itself last.
_Matcher = Callable[[Rule, Question], str | None]
_BY_ADDRESS: tuple[_Matcher, ...] = (_special, _region, _address, _port)
MATCHERS: tuple[_Matcher, ...] = (*_BY_ADDRESS, _protocol, _host)


def applies(policy: Policy, executor: Executor) -> bool:
    return (
        executor.user in policy.users
        or any(fnmatchcase(executor.name, glob) for glob in policy.executors)
        or any(cgroup_matches(pattern, executor.cgroup) for pattern in policy.cgroups)
    )


def _audience(policy: Policy) -> str:
    names = [f"executor {glob}" for glob in policy.executors]
    users = [f"user {user}" for user in sorted(policy.users)]
    return some([*names, *users, *(f"cgroup {pattern}" for pattern in policy.cgroups)])


def _who(executor: Executor) -> str:
    return f"executor {executor.name}" + (f" in cgroup {executor.cgroup}" if executor.cgroup else "")


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
