"""What a check is, what it may answer, and how it is run so that no answer is better than what was seen."""

from __future__ import annotations

import pwd
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from enforcer.doctor.promises import Mode, Pair, Promise
from enforcer.errors import EnforcerError, HostError

if TYPE_CHECKING:
    from enforcer.config import Settings
    from enforcer.doctor.stage import Stage


class Status(StrEnum):
    OK = "ok"
    MISSING = "missing"
    CANNOT_TELL = "cannot tell"
    ABSENT = "does not apply"  # there is nothing here to check, such as a supervisor before the first start


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was seen, in a line; `mend` is what makes it ok, empty where there is nothing to mend."""

    status: Status
    detail: str
    mend: str = ""


def ok(detail: str) -> Outcome:
    return Outcome(Status.OK, detail)


def missing(detail: str, mend: str) -> Outcome:
    return Outcome(Status.MISSING, detail, mend)


def absent(detail: str) -> Outcome:
    return Outcome(Status.ABSENT, detail)


class CannotTell(EnforcerError):
    """The probe itself could not be made, which is never a guarantee."""


@dataclass(frozen=True, slots=True)
class Check:
    """One probe. `without`: what its failure means, as a clause. Without what is in `needs` a promise does not hold at
    all; without what is in `narrows` it holds, but for that clause. A check that is in neither is advice."""

    name: str
    probe: Callable[[Place], Outcome]
    without: str
    needs: frozenset[Pair] = frozenset()
    narrows: frozenset[Pair] = frozenset()


@dataclass(frozen=True, slots=True)
class Finding:
    check: Check
    outcome: Outcome
    seconds: float


class Place:
    """Where checks happen: this host's settings and users, and the throw-away instance once a check made it.

    `settings_fault`: why `settings` are the defaults, empty when they were read. Use as a context manager.
    """

    def __init__(self, settings: Settings, settings_fault: str, user: pwd.struct_passwd) -> None:
        self.settings = settings
        self.settings_fault = settings_fault
        self.user = user
        self._stack = ExitStack()
        self._stage: Stage | None = None

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def make_stage(self) -> Stage:
        """Makes the throw-away instance. Raises HostError without a cgroup v2 mount."""
        from enforcer.doctor.stage import Stage  # noqa: PLC0415 - pyroute2 takes a third of a second

        if self._stage is None:
            self._stage = self._stack.enter_context(Stage())
        return self._stage

    @property
    def stage(self) -> Stage:
        """The throw-away instance, for what can only be told with one."""
        if self._stage is None:
            raise CannotTell("there is no cgroup to try it in")
        return self._stage


def pairs(text: str) -> frozenset[Pair]:
    """`P1 P2:isolated` as pairs; without a mode, both."""
    found = set()
    for word in text.split():
        name, _, mode = word.partition(":")
        found |= {Pair(Promise[name], Mode(one)) for one in ([mode] if mode else Mode)}
    return frozenset(found)


def run(checks: Iterable[Check], place: Place) -> list[Finding]:
    findings = []
    for check in checks:
        begun = time.monotonic()
        outcome = _outcome(check, place)
        findings.append(Finding(check, outcome, time.monotonic() - begun))
    return findings


def _outcome(check: Check, place: Place) -> Outcome:
    try:
        return check.probe(place)
    except CannotTell as error:
        return Outcome(Status.CANNOT_TELL, str(error))
    except HostError as error:
        detail, _, mend = " ".join(str(error).split()).partition("; ")
        return missing(detail, mend)
    except Exception as error:  # noqa: BLE001 - whatever a probe did not foresee must never read as a guarantee
        return Outcome(Status.CANNOT_TELL, f"the check failed: {type(error).__name__}: {' '.join(str(error).split())}")
