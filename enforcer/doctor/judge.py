"""From what was seen to what is guaranteed. Pure: findings in, guarantees out; what is unknown is never a guarantee."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from enforcer.doctor.checks import Finding, Status
from enforcer.doctor.promises import LIMITS, PAIRS, Mode, Pair, Promise
from enforcer.doctor.residual import Tried

# What a way out leads past.
_ESCAPES = (Promise.P1, Promise.P2, Promise.P3)


class Level(StrEnum):
    GUARANTEED = "guaranteed"
    IN_PART = "in part"
    NOT = "not guaranteed"
    CANNOT_TELL = "cannot tell"


@dataclass(frozen=True, slots=True)
class Guarantee:
    pair: Pair
    level: Level
    why: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.level}: {'; '.join(self.why)}" if self.why else str(self.level)


def judge(findings: Sequence[Finding], ways: Sequence[Tried]) -> list[Guarantee]:
    """One guarantee per promise and mode, in order."""
    return [_judge(pair, findings, ways) for pair in PAIRS]


def _judge(pair: Pair, findings: Sequence[Finding], ways: Sequence[Tried]) -> Guarantee:
    needed = [one for one in findings if pair in one.check.needs]
    if lacking := _without(needed):
        return Guarantee(pair, Level.NOT, lacking)
    if unknown := _unknown(needed):
        return Guarantee(pair, Level.CANNOT_TELL, unknown)
    narrowing = [one for one in findings if pair in one.check.narrows]
    why = [*_without(narrowing), *_unknown(narrowing)]
    if (
        pair.mode is Mode.ATTACHED
        and pair.promise in _ESCAPES
        and (count := sum(way.open is not False for way in ways))
    ):
        why.append(f"a root executor has {count} way{'s' * (count != 1)} out")
    if pair.promise is Promise.P7 and (unknown := _unknown(findings)):
        why.extend(unknown)
    if limit := LIMITS.get(pair.promise):
        why.append(limit)
    return Guarantee(pair, Level.IN_PART if why else Level.GUARANTEED, tuple(why))


def _without(findings: Sequence[Finding]) -> tuple[str, ...]:
    return tuple(one.check.without for one in findings if one.outcome.status is Status.MISSING)


def _unknown(findings: Sequence[Finding]) -> tuple[str, ...]:
    names = ", ".join(one.check.name for one in findings if one.outcome.status is Status.CANNOT_TELL)
    return (f"not known: {names}",) if names else ()
