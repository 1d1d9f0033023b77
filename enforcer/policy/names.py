"""Step 3 of 6, decide: may a name be asked for at all, and which of its addresses may be told. Pure.

Gets policies, an executor and a name, before anything is sent: nobody knows yet where it leads, on what port, with what
protocol. So a name may be asked for where some flow to it could be allowed; what is then dialled is judged as ever, by
`engine.decide`. Also here: what the names that an executor was told are worth for a flow whose client names no host.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

from enforcer.flow import Address, Endpoint, Executor, Flow, Region
from enforcer.policy import engine
from enforcer.policy.compiled import ANY_REGION, Policy, PolicySet, Rule
from enforcer.policy.destinations import canonical_host
from enforcer.policy.explain import Explanation, Trial
from enforcer.verdict import Action, MaskSpec, Pseudonyms, Reason, Verdict

# Kinds of address that are some place, known or not; all others mean this host, its network or nobody.
PUBLIC = engine.PLACED | {"provider", "anycast"}
# What a place alone decides: special class, region, address. Port, protocol and host stay open.
_BY_PLACE = engine.MATCHERS[:3]
_REVERSE4, _REVERSE6 = ".in-addr.arpa", ".ip6.arpa"


def judge_name(policies: PolicySet, executor: Executor, name: str) -> Verdict:
    """May `executor` ask for `name` (lower case, no dot at the end)? The first rule that settles it:

    a deny that every flow to the name would meet, whatever its region, port and protocol; or an allow that some flow to
    it could meet. A rule for services of this host counts only where it names the host: those need no name server.
    """
    return _conclude(executor, list(_steps(policies, executor, name)))


def explain_name(policies: PolicySet, executor: Executor, name: str) -> Explanation:
    """What `judge_name` answers, and how it came to it."""
    tried = list(_steps(policies, executor, name))
    trials = tuple(
        Trial(policy.name, rule.name if rule else "", rule.action.value if rule else "", difference or "")
        for policy, rule, difference in tried
    )
    return Explanation(trials, _conclude(executor, tried))


def _steps(policies: PolicySet, executor: Executor, name: str) -> Iterator[engine.Step]:
    for policy in policies.policies:
        if not engine.applies(policy, executor):
            yield engine.Step(policy, None, f"does not apply to executor {executor.name}")
            continue
        for rule in policy.rules:
            difference = _difference(rule, name)
            yield engine.Step(policy, rule, difference)
            if difference is None:
                return


def _difference(rule: Rule, name: str) -> str | None:
    if rule.loopback and not (rule.hosts or rule.suffixes):
        return "services of this host are asked for by address"
    if not names_host(rule, name):
        return f"name {name!r} is not among its hosts"
    if rule.action is Action.DENY and not _settles_by_name(rule):
        return "it depends on more than the name"
    return None


def names_host(rule: Rule, name: str) -> bool:
    """Could the rule match a flow to `name`, as far as its hosts go?"""
    if not rule.hosts and not rule.suffixes:
        return True
    return name in rule.hosts or name.endswith(rule.suffixes)


def _settles_by_name(rule: Rule) -> bool:
    """Does a deny hold for every flow to a name that fits it?"""
    anywhere = not rule.region_words or ANY_REGION in rule.region_words
    return anywhere and not (rule.networks or rule.ports or rule.protocols)


def _conclude(executor: Executor, tried: Sequence[engine.Step]) -> Verdict:
    rules = [(policy, rule) for policy, rule, _ in tried if rule is not None]
    if tried and tried[-1].rule is not None and tried[-1].difference is None:
        policy, rule = tried[-1].policy, tried[-1].rule
        observed = rule.action is Action.DENY and policy.observe
        return Verdict(rule.action, Reason.RULE, policy.name, rule.name, durable=rule.durable, observed=observed)
    if not rules:
        detail = f"no enabled policy applies to executor {executor.name}"
    else:
        detail = f"{len(rules)} rule{'' if len(rules) == 1 else 's'} tried, none lets anything of that name through"
    observed = bool(rules) and all(policy.observe for policy, _ in rules)
    return Verdict(Action.DENY, Reason.NO_RULE, detail=detail, observed=observed)


def forbids_name(policies: PolicySet, executor: Executor, name: str) -> Verdict | None:
    """The denial by a rule that names hosts, among them `name`; None where there is none. For the further names that
    an answer leads over: they need no rule of their own, and must not be forbidden."""
    if not any(rule.hosts or rule.suffixes for policy in policies.policies for rule in policy.rules):
        return None
    verdict = judge_name(policies, executor, name)
    if verdict.action is Action.ALLOW or verdict.observed or verdict.reason is not Reason.RULE:
        return None
    rule = _rule(policies, verdict)
    return verdict if rule is not None and (rule.hosts or rule.suffixes) else None


def _rule(policies: PolicySet, verdict: Verdict) -> Rule | None:
    rules = (rule for policy in policies.policies if policy.name == verdict.policy for rule in policy.rules)
    return next((rule for rule in rules if rule.name == verdict.rule), None)


def judge_address(policies: PolicySet, executor: Executor, address: Address, region: Region, host: str = "") -> Verdict:
    """Could some flow of `executor` to `address` be allowed, on whatever port, with whatever protocol? `host`: the name
    it is asked by, or empty where only the address is known."""
    flow = Flow(executor, Endpoint(address, 0), region, cookie=0, pid=0, uid=0, opened_ns=0)
    question = engine.Question(flow, engine.special_class(flow), engine.OPAQUE, host or None)
    observable = not question.special
    all_observe, tried = True, 0
    for policy, rule in _applicable(policies, executor):
        tried += 1
        all_observe = all_observe and policy.observe
        if any(differ(rule, question) is not None for differ in _BY_PLACE):
            continue
        if not names_host(rule, host):  # without a host, only rules that ask for none
            continue
        if rule.action is Action.DENY:
            if rule.ports or rule.protocols:
                continue
            observed = policy.observe and observable
            return Verdict(rule.action, Reason.RULE, policy.name, rule.name, observed=observed)
        return Verdict(rule.action, Reason.RULE, policy.name, rule.name, durable=rule.durable)
    observed = bool(tried) and all_observe and observable
    special = region.kind not in PUBLIC or bool(question.special)
    reason = Reason.SPECIAL_ADDRESS if special else Reason.NO_RULE if region.regions else Reason.UNKNOWN_REGION
    return Verdict(Action.DENY, reason, detail=f"no rule lets {address} ({region}) be reached", observed=observed)


def _applicable(policies: PolicySet, executor: Executor) -> Iterator[tuple[Policy, Rule]]:
    for policy in policies.policies:
        if engine.applies(policy, executor):
            yield from ((policy, rule) for rule in policy.rules)


def reverse_address(name: str) -> Address | None:
    """The address whose name `name` asks for (RFC 1035 section 3.5, RFC 3596 section 2.5); None for every other name,
    also for one that stands for many addresses."""
    if name.endswith(_REVERSE4):
        parts = name.removesuffix(_REVERSE4).split(".")
        try:
            return IPv4Address(".".join(reversed(parts)))
        except ValueError:
            return None
    if name.endswith(_REVERSE6):
        nibbles = name.removesuffix(_REVERSE6).split(".")
        if len(nibbles) != 32 or not all(len(one) == 1 and one in "0123456789abcdef" for one in nibbles):
            return None
        address = IPv6Address(int("".join(reversed(nibbles)), 16))
        return address.ipv4_mapped or address
    return None


def is_reverse(name: str) -> bool:
    return name.endswith((_REVERSE4, _REVERSE6)) or name in (_REVERSE4[1:], _REVERSE6[1:])


def match_told(
    policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str], names: Sequence[str]
) -> engine.Match:
    """`engine.match`, where the client names no host and was told the address for `names`.

    The flow may be for any of them, so each is judged: a denial for one is the answer, and what passes takes the masks
    and the clauses of all. Regions and addresses are judged as ever: a name alone opens nothing.
    """
    host = facts.get("host")
    if host and protocol == engine.TLS and canonical_host(host) not in names:
        return _match_unproven(policies, flow, protocol, facts)
    if host or not names:
        return engine.match(policies, flow, protocol, facts)
    matches = [engine.match(policies, flow, protocol, {**facts, "host": name}) for name in sorted(names)]
    verdicts = [match.verdict for match in matches]
    first = min(verdicts, key=lambda verdict: (verdict.passes, verdict.action is Action.ALLOW))
    if first.action is Action.DENY and not first.observed:
        return engine.Match(first)
    told = f"told this address for {', '.join(sorted(names)[:3])}{' and others' if len(names) > 3 else ''}"
    verdict = replace(
        first,
        detail="; ".join(filter(None, (first.detail, told))),
        mask=all_masks([verdict.mask for verdict in verdicts]),
        request_mask=all_masks([verdict.request_mask for verdict in verdicts]),
        durable=any(verdict.durable for verdict in verdicts),
        direct=all(verdict.direct for verdict in verdicts),
    )
    return engine.Match(verdict, tuple(dict.fromkeys(clause for match in matches for clause in match.clauses)))


def _match_unproven(policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str]) -> engine.Match:
    """The name in clear is all that is ever seen of the connection, and the executor was not told this address for it:
    it may be denied for that name, and allowed for none."""
    claimed = engine.match(policies, flow, protocol, facts)
    if claimed.verdict.action is Action.DENY:
        return claimed
    verdict, clauses = engine.match(policies, flow, protocol, {key: facts[key] for key in facts if key != "host"})
    doubt = f"the name {facts['host']} did not lead to this address"
    return engine.Match(replace(verdict, detail="; ".join(filter(None, (verdict.detail, doubt)))), clauses)


def all_masks(masks: Sequence[MaskSpec]) -> MaskSpec:
    """What hides everything that one of them hides."""
    return MaskSpec(
        tuple(dict.fromkeys(one for mask in masks for one in mask.detectors)),
        tuple(dict.fromkeys(one for mask in masks for one in mask.columns)),
        tuple(dict.fromkeys(one for mask in masks for one in mask.json_paths)),
        tuple(dict.fromkeys(one for mask in masks for one in mask.fields)),
        tuple(dict.fromkeys(one for mask in masks for one in mask.operators)),
        _narrowest([mask.pseudonyms for mask in masks if mask.pseudonyms is not None]),
    )


def _narrowest(pseudonyms: Sequence[Pseudonyms]) -> Pseudonyms | None:
    """What remembers least."""
    return min(pseudonyms, key=lambda one: (one.scope != "session", one.expires), default=None)
