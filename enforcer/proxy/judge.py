"""Step 3 of 6, decide: one session's verdicts. Which rule it is is asked once per host, its `only` of each request.

Gets what a request says of itself; hands on policy's verdict and the maskers for it and its answer, with the names that
the executor was told where the client names none. Notices a new generation, and asks anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from enforcer.masking.errors import MaskError
from enforcer.masking.masker import Masker, masker_for
from enforcer.policy.engine import TLS, Match, could_pass, may_pass, reads_bodies, reads_tls
from enforcer.policy.names import match_told
from enforcer.protocols.base import Request
from enforcer.proxy.environment import Environment
from enforcer.proxy.ledger import Ledger
from enforcer.proxy.pseudonyms import SessionMaskers
from enforcer.verdict import Action, Reason, Verdict

# Hosts whose verdicts are remembered. A client talks to one or a few over one connection, unless it means harm.
VERDICTS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Judgement:
    """Policy's verdict, and the maskers for answers and for requests where its rule masks them. `match`: what the
    verdict follows from, where the rule has an `only` that each request is asked for."""

    verdict: Verdict
    answers: Masker | None
    requests: Masker | None
    match: Match | None


class Judge:
    """Keeps the region of the ledger's flow as the table in force has it. `via`: the proxies it goes through."""

    via = ""

    def __init__(self, ledger: Ledger, environment: Environment) -> None:
        self._ledger = ledger
        self._environment = environment
        self._policies = environment.policies
        self._generation = environment.generation
        self._verdicts: dict[tuple[str, str | None], Judgement] = {}
        self._pseudonymising = SessionMaskers(environment)

    def verdict(self, protocol: str, request: Request) -> Judgement:
        judgement = self._matched(protocol, request.facts)
        if judgement.match is not None:
            judgement = self._asked(judgement, judgement.match, request)
        if request.media and judgement.answers is not None and judgement.verdict.passes:
            judgement = self._answered(judgement, judgement.answers.unmaskable(request.media))
        return judgement

    def _matched(self, protocol: str, facts: Mapping[str, str]) -> Judgement:
        """The rule and its maskers are remembered per protocol and host until the generation changes."""
        environment, ledger = self._environment, self._ledger
        if self._generation is not environment.generation:
            self._renew()
        question = protocol, facts.get("host")
        judgement = self._verdicts.get(question)
        if judgement is None:
            if len(self._verdicts) >= VERDICTS_KEPT:
                self._verdicts.clear()
            flow = ledger.flow
            told = environment.names.of(flow.executor.cgroup_id, str(flow.destination.address))
            match = match_told(self._policies, flow, protocol, facts, told)
            judgement = self._verdicts[question] = self._judged(match)
        return judgement

    def _judged(self, match: Match) -> Judgement:
        """With the maskers that its verdict asks for; a denial where one of them is not to be had."""
        verdict = match.verdict
        mask, request_mask, keys = verdict.mask, verdict.request_mask, self._environment.mask_keys
        try:
            if request_mask.pseudonyms is not None:
                flow = self._ledger.flow
                answers, requests = self._pseudonymising.of(flow, mask, request_mask, request_mask.pseudonyms)
                return Judgement(verdict, answers, requests, match if match.clauses else None)
            return Judgement(
                verdict,
                masker_for(mask, keys) if mask else None,
                masker_for(request_mask, keys) if request_mask else None,
                match if match.clauses else None,
            )
        except MaskError as error:
            refused = Verdict(Action.DENY, Reason.UNMASKABLE, verdict.policy, verdict.rule, str(error))
            return Judgement(refused, None, None, None)

    def _asked(self, judgement: Judgement, match: Match, request: Request) -> Judgement:
        verdict = match.on(request)
        return judgement if verdict is match.verdict else replace(judgement, verdict=verdict)

    def _answered(self, judgement: Judgement, unmaskable: str) -> Judgement:
        """A denial before anything is asked, where the answer could not be masked."""
        verdict = judgement.verdict
        refused = Verdict(Action.DENY, Reason.UNMASKABLE, verdict.policy, verdict.rule, unmaskable)
        return replace(judgement, verdict=refused) if unmaskable else judgement

    def _renew(self) -> None:
        """Another generation, in which policy and region may both be others, unless open flows are to stay as they
        are."""
        environment, ledger = self._environment, self._ledger
        if environment.on_reload == "keep":
            return
        self._generation = environment.generation
        self._policies = environment.policies
        self._verdicts.clear()
        ledger.flow = replace(ledger.flow, region=environment.table.lookup(ledger.flow.destination.address))

    def reads_bodies(self) -> bool:
        """Does a rule that the flow may come to ask for facts that are in bodies?"""
        if self._generation is not self._environment.generation:
            self._renew()
        return reads_bodies(self._policies, self._ledger.flow)

    def may_pass(self, protocol: str, host: str | None) -> bool:
        """Could some request to `host` pass, if it is what rules ask for? Then its server may be looked at."""
        return may_pass(self._policies, self._ledger.flow, host, protocol)

    def passes(self, protocol: str) -> bool:
        """May `protocol` pass, if it is what the clauses ask for, while its host is not known?"""
        return self._matched(protocol, {}).verdict.passes

    def told(self) -> str:
        """The name that the executor was told this address for, where it is only one."""
        flow = self._ledger.flow
        names = tuple(self._environment.names.of(flow.executor.cgroup_id, str(flow.destination.address)))
        return names[0] if len(names) == 1 else ""

    def could_pass(self, protocol: str) -> bool:
        """Could some request in `protocol` pass, whatever host it is for?"""
        return could_pass(self._policies, self._ledger.flow, protocol)

    def reads(self, protocol: str, facts: Mapping[str, str], verdict: Verdict) -> bool:
        """Is a connection that `verdict` is about ended here and read? Only TLS is, where no rule passes it on unread
        or names `tls` to deny it."""
        if protocol != TLS or verdict.passes or not self._environment.certificates.intercepting:
            return False
        return reads_tls(self._policies, self._ledger.flow, facts)
