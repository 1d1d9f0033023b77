"""Step 3 of 6, decide: a verdict against a flow, in the words that every protocol's refusal is made of.

Gets the flow and the verdict; hands a `Denial` to the session. Never says more than the client asked for itself and
the rule's name.
"""

from __future__ import annotations

from enforcer.flow import Flow
from enforcer.verdict import Denial, Reason, Verdict


def denial(flow: Flow, session: str, verdict: Verdict, *, unreachable: bool = False, exchange: int = 0) -> Denial:
    """`session`: its id, for `enforcer sessions show`, which lists `exchange`. `unreachable`: allowed, but the server
    is not there."""
    region, reason = flow.region, verdict.reason.value
    if verdict.reason is Reason.RULE:
        reason = f"rule {verdict.policy}/{verdict.rule} forbids region {region}"
    elif verdict.reason is Reason.CLAUSE:
        reason = f"rule {verdict.policy}/{verdict.rule} allows only some requests: {verdict.detail}"
    elif unreachable:
        reason = verdict.detail
    elif verdict.detail:
        reason = f"{reason}: {verdict.detail}"
    return Denial(
        destination=str(flow.destination),
        region=str(region),
        prefix=region.prefix,
        policy=verdict.policy,
        rule=verdict.rule,
        reason=reason,
        session=session,
        unreachable=unreachable,
        exchange=exchange,
    )
