"""The other half of `enforcer explain`: may a name be asked for? The resolver's judgement, on the files on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

from enforcer.flow import Address, Executor, Region
from enforcer.policy.compiled import PolicySet
from enforcer.policy.destinations import parse_host
from enforcer.policy.explain import Trial
from enforcer.policy.names import explain_name, is_reverse, judge_address, reverse_address
from enforcer.verdict import Verdict


@dataclass(frozen=True)
class NameAnswer:
    """Everything that is printed. Reverse names have no trials: they are judged by their address."""

    name: str
    executor: Executor
    generation: str
    trials: tuple[Trial, ...]
    verdict: Verdict

    @classmethod
    def to(cls, name: str, executor: Executor, policies: PolicySet, lookup: Callable[[Address], Region]) -> NameAnswer:
        """Raises ValueError for what is no name."""
        name = parse_host(name)
        if name.startswith("*."):
            raise ValueError(f"{name!r} stands for many names; give one of them")
        address = reverse_address(name) if is_reverse(name) else None
        if address is not None:
            verdict = judge_address(policies, executor, address, lookup(address))
            return cls(name, executor, policies.generation, (), verdict)
        explanation = explain_name(policies, executor, name)
        return cls(name, executor, policies.generation, explanation.trials, explanation.verdict)

    def as_plain(self) -> dict[str, object]:
        verdict = self.verdict
        return {
            "name": self.name,
            "executor": self.executor.name,
            "user": self.executor.user,
            "cgroup": self.executor.cgroup,
            "generation": self.generation,
            "trials": [asdict(trial) for trial in self.trials],
            "verdict": {
                "action": verdict.action.value,
                "reason": verdict.reason.value,
                "policy": verdict.policy,
                "rule": verdict.rule,
                "detail": verdict.detail,
                "durable": verdict.durable,
                "observed": verdict.observed,
            },
        }
