"""What a run finds: attempts as the far side saw them, and the verdict on each technique. Values only."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Finding(StrEnum):
    ESCAPED = "ESCAPED"
    CONTAINED = "CONTAINED"
    SKIPPED = "SKIPPED"
    ERROR = "ERROR"


class Outcome(StrEnum):
    """How a technique ended, by its own account."""

    DONE = "done"  # it believes that the token went out
    REFUSED = "refused"  # the kernel or the enforcer said no
    MISSING = "missing"  # something that it needs is not there
    CRASHED = "crashed"  # a fault of the technique, or its executor ended
    ENDLESS = "endless"  # it had to be ended


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try on one side. `token_seen` and `frames` are the far side's; `outcome` and `detail` the client's."""

    outcome: Outcome
    detail: str = ""
    token: str = ""
    token_seen: bool = False
    frames: tuple[str, ...] = ()
    frame_count: int = 0

    @property
    def arrived(self) -> bool:
        return self.token_seen or self.frame_count > 0

    def says(self) -> str:
        """What it looks like from the client's side, in a few words."""
        return self.detail or self.outcome.value


@dataclass(frozen=True, slots=True)
class Result:
    """A technique, tried by one user in one mode."""

    technique: str
    group: str
    mode: str
    user: str
    finding: Finding
    reason: str
    control: Attempt
    inside: Attempt
    seconds: float


def judge(control: Attempt, inside: Attempt) -> tuple[Finding, str]:
    """The verdict and why. What arrived from inside counts whatever the control did; silence only beside a control
    that arrived and believed so itself."""
    if inside.arrived:
        what = "the token" if inside.token_seen else f"{inside.frame_count} frames"
        return Finding.ESCAPED, f"the far side received {what}"
    for side, attempt in (("outside", control), ("inside", inside)):
        if attempt.outcome in (Outcome.CRASHED, Outcome.ENDLESS):
            return Finding.ERROR, f"{side}: {attempt.says()}"
    if control.outcome is Outcome.MISSING:
        return Finding.SKIPPED, f"needs {control.detail}"
    if control.outcome is Outcome.REFUSED:
        return Finding.SKIPPED, f"does not work outside either: {control.detail}"
    if not control.arrived:
        return Finding.SKIPPED, "the control outside did not arrive"
    if inside.outcome is Outcome.MISSING:
        return Finding.SKIPPED, f"cannot be tried in the executor: {inside.detail}"
    return Finding.CONTAINED, inside.detail or "nothing arrived"
