"""Step 3 of 6, decide: the same decision, with every rule tried and the first difference of each.

Walks `engine.steps`, as `decide` does, and keeps what `decide` throws away. Never decides anything by itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from enforcer.flow import Flow
from enforcer.policy.compiled import PolicySet
from enforcer.policy.described import Described
from enforcer.policy.engine import Clause, conclude, steps
from enforcer.policy.only import Asked
from enforcer.verdict import Verdict


@dataclass(frozen=True, slots=True)
class Trial:
    """One rule tried. `difference` is empty where the rule matched. `rule` and `action` are empty where the whole
    policy does not apply to the executor."""

    policy: str
    rule: str
    action: str
    difference: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """`clauses`: what the rule that matched asks of each exchange; the verdict says whether it holds."""

    trials: tuple[Trial, ...]
    verdict: Verdict
    clauses: tuple[Clause, ...] = ()


def explain(
    policies: PolicySet, flow: Flow, protocol: str, facts: Mapping[str, str], asked: Asked | None = None
) -> Explanation:
    """What `decide` answers to the same arguments, and how it came to it. `asked`: the exchange, where more than its
    facts is known."""
    tried = list(steps(policies, flow, protocol, facts))
    trials = tuple(
        Trial(policy.name, rule.name if rule else "", rule.action.value if rule else "", difference or "")
        for policy, rule, difference in tried
    )
    match = conclude(flow, tried)
    return Explanation(trials, match.on(asked or Described(facts=facts)), match.clauses)
