"""Step 3 of 6, decide: connections through an HTTP proxy (CONNECT), which are egress to where the proxy goes as well.

Gets the host and port that a client asks a proxy for; hands on the flows that this may come to, or why it must not be,
and a judge of what is then said inside. A name is not resolved here: it stands for all addresses that the executor was
told for it, because the proxy will choose one of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from enforcer.flow import Address, Endpoint, Flow
from enforcer.policy.engine import Match, decide, special_class
from enforcer.policy.names import all_masks, match_told
from enforcer.protocols.base import Request
from enforcer.protocols.registry import NAMES
from enforcer.proxy.environment import Environment
from enforcer.proxy.judge import Judge, Judgement
from enforcer.proxy.ledger import Ledger
from enforcer.verdict import Action, Reason, Verdict


def targets(environment: Environment, flow: Flow, host: str, port: int) -> tuple[Flow, ...]:
    """The flows that a tunnel to `host` may come to; none where nobody told the executor an address of that name."""
    try:
        addresses: tuple[Address, ...] = (_plain(ip_address(host)),)
    except ValueError:
        told = environment.names.addresses(flow.executor.cgroup_id, host)
        addresses = tuple(_plain(ip_address(address)) for address in sorted(told))
    lookup = environment.table.lookup
    return tuple(replace(flow, destination=Endpoint(address, port), region=lookup(address)) for address in addresses)


def _plain(address: Address) -> Address:
    return (address.ipv4_mapped or address) if address.version == 6 else address


def denied_target(environment: Environment, flows: tuple[Flow, ...], host: str) -> Verdict | None:
    """Why a tunnel to `host` must not be; None where each of `flows` could carry something that policy allows."""
    if not flows:
        why = f"{host}: no address of it was told to this executor by its resolver; look it up, or name the address"
        return Verdict(Action.DENY, Reason.TARGET, detail=why)
    for flow in flows:
        if special_class(flow):  # to the proxy these are the proxy's own
            return Verdict(Action.DENY, Reason.TARGET, detail=f"{flow.destination} is {special_class(flow)}")
        told = environment.names.of(flow.executor.cgroup_id, str(flow.destination.address))
        facts = {} if _is_literal(host) else {"host": host}
        policies = environment.policies
        if not any(match_told(policies, flow, protocol, facts, told).verdict.passes for protocol in NAMES):
            verdict = decide(policies, flow, "http", facts)
            rule = f"rule {verdict.policy}/{verdict.rule}" if verdict.rule else verdict.reason.value
            detail = f"{flow.destination} ({flow.region}), {rule}"
            return Verdict(Action.DENY, Reason.TARGET, verdict.policy, verdict.rule, detail)
    return None


def _is_literal(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


class TunnelJudge(Judge):
    """Judges what is said inside a tunnel as if it went to each of the addresses that it may lead to: a denial for one
    is the answer, and masks of all are taken. `via`: the proxy, which becomes a fact of each request."""

    def __init__(self, ledger: Ledger, environment: Environment, flows: tuple[Flow, ...], via: str) -> None:
        super().__init__(ledger, environment)
        self.via = via
        self._others = [Judge(Ledger(flow, environment), environment) for flow in flows[1:]]

    def verdict(self, protocol: str, request: Request) -> Judgement:
        request.facts["via"] = self.via
        first = super().verdict(protocol, request)
        others = [judge.verdict(protocol, request) for judge in self._others]
        refused = [one for one in (first, *others) if one.verdict.action is Action.DENY]
        if refused:
            return min(refused, key=_observed)
        if all(one.verdict == first.verdict for one in others):
            return first
        verdicts = [first.verdict, *(one.verdict for one in others)]
        mask = all_masks([one.mask for one in verdicts])
        request_mask = all_masks([one.request_mask for one in verdicts])
        durable = any(one.durable for one in verdicts)
        verdict = replace(first.verdict, mask=mask, request_mask=request_mask, durable=durable, direct=False)
        return self._judged(Match(verdict))

    def reads_bodies(self) -> bool:
        return super().reads_bodies() or any(judge.reads_bodies() for judge in self._others)

    def may_pass(self, protocol: str, host: str | None) -> bool:
        return super().may_pass(protocol, host) and all(judge.may_pass(protocol, host) for judge in self._others)

    def passes(self, protocol: str) -> bool:
        return super().passes(protocol) and all(judge.passes(protocol) for judge in self._others)

    def could_pass(self, protocol: str) -> bool:
        return super().could_pass(protocol) and all(judge.could_pass(protocol) for judge in self._others)

    def reads(self, protocol: str, facts: Mapping[str, str], verdict: Verdict) -> bool:
        if not super().reads(protocol, facts, verdict):
            return False
        return all(judge.reads(protocol, facts, verdict) for judge in self._others)


def _observed(judgement: Judgement) -> bool:
    return judgement.verdict.observed
