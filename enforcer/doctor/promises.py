"""The eight promises, the two ways to be governed, and what no host can add to this version."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from enforcer.errors import UsageError


class Promise(StrEnum):
    P1 = "Default deny"
    P2 = "Nothing before the verdict"
    P3 = "Fail closed"
    P4 = "Nothing sensitive at rest"
    P5 = "Clear denial"
    P6 = "Evidence"
    P7 = "Honest status"
    P8 = "Clients keep working"


class Mode(StrEnum):
    """How an executor is governed: in an empty network namespace, or where it already runs."""

    ISOLATED = "isolated"
    ATTACHED = "attached"


@dataclass(frozen=True, slots=True)
class Pair:
    """One promise in one mode: what a host is asked for and what is judged."""

    promise: Promise
    mode: Mode

    def __str__(self) -> str:
        return f"{self.promise.name}:{self.mode}"


PAIRS = tuple(Pair(promise, mode) for promise in Promise for mode in Mode)

# What this version does not do on any host: docs/security.md says the same, and a test compares.
LIMITS: dict[Promise, str] = {
    Promise.P6: "rows are chained but not signed",
    Promise.P8: "UDP is refused, and clients that pin certificates need a rule that lets their TLS pass unread",
}


def parse_required(text: str) -> list[Pair]:
    """`P1,P3:attached` as pairs; without a mode, isolated: what `enforcer exec` does. Raises UsageError."""
    pairs = []
    for word in filter(None, (part.strip() for part in text.split(","))):
        name, _, mode = word.partition(":")
        if name.upper() not in Promise.__members__:
            raise UsageError(f"{word!r} is no promise; known are {', '.join(Promise.__members__)}")
        if mode.lower() not in ("", *Mode):
            raise UsageError(f"{word!r}: unknown mode; write {name}:isolated or {name}:attached")
        pairs.append(Pair(Promise[name.upper()], Mode(mode.lower() or Mode.ISOLATED)))
    if not pairs:
        raise UsageError("--require names no promise; write such as --require P1,P3:attached")
    return pairs
