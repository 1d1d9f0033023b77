"""Step 3 of 6, decide: one session's verdicts, each asked of policy once.

Gets what a request says of itself; hands on policy's verdict and the masker for its answer, with the names that the
executor was told where the client names none. Notices a new generation, and asks anew.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from enforcer.masking.masker import Masker, masker_for
from enforcer.policy.engine import TLS, reads_tls
from enforcer.policy.names import decide_told
from enforcer.protocols.base import Request
from enforcer.proxy.environment import Environment
from enforcer.proxy.ledger import Ledger
from enforcer.verdict import Verdict

# Hosts whose verdicts are remembered. A client talks to one or a few over one connection, unless it means harm.
VERDICTS_KEPT = 64


@dataclass(frozen=True, slots=True)
class Judgement:
    """Policy's verdict, and the maskers for answers and for requests where its rule masks them."""

    verdict: Verdict
    answers: Masker | None
    requests: Masker | None


class Judge:
    """Keeps the region of the ledger's flow as the table in force has it."""

    def __init__(self, ledger: Ledger, environment: Environment) -> None:
        self._ledger = ledger
        self._environment = environment
        self._policies = environment.policies
        self._generation = environment.generation
        self._verdicts: dict[tuple[str, str | None], Judgement] = {}

    def verdict(self, protocol: str, request: Request) -> Judgement:
        """Remembered per protocol and host until the generation changes: then policy and region may both be others,
        unless open flows are to stay as they are."""
        environment, ledger = self._environment, self._ledger
        if self._generation is not environment.generation and environment.on_reload != "keep":
            self._generation = environment.generation
            self._policies = environment.policies
            self._verdicts.clear()
            ledger.flow = replace(ledger.flow, region=environment.table.lookup(ledger.flow.destination.address))
        question = protocol, request.facts.get("host")
        judgement = self._verdicts.get(question)
        if judgement is None:
            if len(self._verdicts) >= VERDICTS_KEPT:
                self._verdicts.clear()
            flow = ledger.flow
            told = environment.names.of(flow.executor.cgroup_id, str(flow.destination.address))
            verdict = decide_told(self._policies, flow, protocol, request.facts, told)
            answers, requests = (masker_for(mask) if mask else None for mask in (verdict.mask, verdict.request_mask))
            judgement = self._verdicts[question] = Judgement(verdict, answers, requests)
        return judgement

    def reads(self, protocol: str, facts: Mapping[str, str], verdict: Verdict) -> bool:
        """Is a connection that `verdict` is about ended here and read? Only TLS is, where no rule passes it on unread
        or names `tls` to deny it."""
        if protocol != TLS or verdict.passes or not self._environment.certificates.intercepting:
            return False
        return reads_tls(self._policies, self._ledger.flow, facts)
