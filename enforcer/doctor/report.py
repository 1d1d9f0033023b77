"""One examination of this host, and its form as JSON."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from enforcer.doctor import checks, judge, residual
from enforcer.doctor.checks import Check, Finding, Place
from enforcer.doctor.judge import Guarantee
from enforcer.doctor.promises import Pair, Promise
from enforcer.doctor.residual import Tried
from enforcer.doctor.table import CHECKS
from enforcer.errors import HostError


@dataclass(frozen=True, slots=True)
class Report:
    """`host`: what was examined, as a line for people has it."""

    host: dict[str, str]
    guarantees: list[Guarantee]
    findings: list[Finding]
    ways: list[Tried]
    seconds: float

    def lacking(self, required: Sequence[Pair]) -> list[Guarantee]:
        """What is required and not guaranteed."""
        return [one for one in self.guarantees if one.pair in required and one.level is not judge.Level.GUARANTEED]

    def as_json(self) -> dict[str, Any]:
        return {
            "host": self.host,
            "promises": {
                promise.name: {
                    "title": str(promise),
                    **{
                        str(one.pair.mode): {"level": str(one.level), "why": list(one.why)}
                        for one in self.guarantees
                        if one.pair.promise is promise
                    },
                }
                for promise in Promise
            },
            "checks": [_check_as_json(one) for one in self.findings],
            "root_executor": [
                {"name": one.way.name, "way": one.way.way, "open": one.open, "detail": one.detail, "mend": one.way.mend}
                for one in self.ways
            ],
            "seconds": round(self.seconds, 2),
        }


def _check_as_json(one: Finding) -> dict[str, Any]:
    return {
        "name": one.check.name,
        "status": str(one.outcome.status),
        "detail": one.outcome.detail,
        "mend": one.outcome.mend,
        "without": one.check.without,
        "needed_for": sorted(map(str, one.check.needs)),
        "narrows": sorted(map(str, one.check.narrows)),
        "seconds": round(one.seconds, 3),
    }


def examine(place: Place, table: Sequence[Check] = CHECKS) -> Report:
    """Makes every check. Raises HostError when it is not root: half a look would be no answer."""
    if os.geteuid() != 0:
        raise HostError("the doctor must be root to try what it reports; use sudo")
    begun = time.monotonic()
    with place:
        findings = checks.run(table, place)
        ways = residual.try_all(place)
    host = {
        "kernel": platform.release(),
        "machine": platform.machine(),
        "boot": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - time.clock_gettime(time.CLOCK_BOOTTIME))),
        "enforcer": version("enforcer"),
        "root": str(place.settings.root),
        "user": place.user.pw_name,
        "configuration": place.settings_fault or "valid",
    }
    return Report(host, judge.judge(findings, ways), findings, ways, time.monotonic() - begun)
