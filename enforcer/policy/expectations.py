"""Step 3 of 6, decide: a policy file's own examples (`expect:`), judged against that file alone.

Gets a valid file and a look-up of regions; hands on one line per example that does not come out as written.
"""

from __future__ import annotations

from collections.abc import Callable

from enforcer.flow import Address, Executor, Flow, Region
from enforcer.policy.compiled import PolicySet
from enforcer.policy.described import STATED, described
from enforcer.policy.engine import match
from enforcer.policy.loader import PolicySource, fault
from enforcer.policy.schema import Expectation
from enforcer.verdict import Reason, Verdict


def run_expectations(source: PolicySource, lookup: Callable[[Address], Region]) -> list[str]:
    """The failures, `file:line: expect[n]: what came out; mend`; none when all examples hold."""
    alone = PolicySet.of((source.policy,))
    failures = []
    for number, (expectation, line) in enumerate(zip(source.file.expect, source.expectation_lines, strict=True)):
        region = lookup(expectation.to.address)
        asked = described(
            host=expectation.host,
            method=expectation.method,
            path=expectation.path,
            header=expectation.header,
            content_type=expectation.content_type,
            grpc=expectation.grpc,
            statement=expectation.statement,
            protocol=expectation.protocol,
            database_user=expectation.database_user,
            stated={name: text for name in STATED if (text := getattr(expectation, name))},
        )
        verdict = match(alone, _flow(expectation, region), expectation.protocol, asked.facts).on(asked)
        if not _holds(expectation, verdict):
            failures.append(fault(source.path, line, ("expect", number), _message(expectation, region, verdict)))
    return failures


def _flow(expectation: Expectation, region: Region) -> Flow:
    executor = Executor(
        "expect", expectation.executor, 0, expectation.user or "", 0, expectation.cgroup or "", expectation.mode
    )
    return Flow(executor, expectation.to, region, cookie=0, pid=0, uid=0, opened_ns=0)


def _holds(expectation: Expectation, verdict: Verdict) -> bool:
    return verdict.action.value == expectation.verdict and expectation.rule in (None, verdict.rule)


def _message(expectation: Expectation, region: Region, verdict: Verdict) -> str:
    by = f"rule {verdict.rule}" if verdict.rule else verdict.reason.value
    if verdict.reason is Reason.CLAUSE:
        by += f" ({verdict.detail})"
    wanted = expectation.verdict + (f" by rule {expectation.rule}" if expectation.rule else "")
    return (
        f"{expectation.to} ({region}) {expectation.protocol} is {verdict.action.value} by {by}, not {wanted};"
        " correct the rules or the expectation"
    )
