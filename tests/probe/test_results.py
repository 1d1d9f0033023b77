"""When a technique counts as escaped, contained, skipped or faulty."""

from __future__ import annotations

import pytest

from enforcer.probe.results import Attempt, Finding, Outcome, judge

ARRIVED = Attempt(Outcome.DONE, token="a", token_seen=True, frames=("UDP 1",), frame_count=1)
REFUSED = Attempt(Outcome.REFUSED, "PermissionError: no")
SILENT = Attempt(Outcome.DONE)


@pytest.mark.parametrize(
    ("control", "inside", "finding"),
    [
        (ARRIVED, REFUSED, Finding.CONTAINED),
        (ARRIVED, SILENT, Finding.CONTAINED),
        (ARRIVED, ARRIVED, Finding.ESCAPED),
        (ARRIVED, Attempt(Outcome.REFUSED, "no", frame_count=1, frames=("TCP SYN",)), Finding.ESCAPED),
        (SILENT, ARRIVED, Finding.ESCAPED),
        (ARRIVED, Attempt(Outcome.CRASHED, "boom", token_seen=True), Finding.ESCAPED),
        (SILENT, SILENT, Finding.SKIPPED),
        (REFUSED, REFUSED, Finding.SKIPPED),
        (Attempt(Outcome.MISSING, "a tool"), REFUSED, Finding.SKIPPED),
        (Attempt(Outcome.REFUSED, "no", frame_count=3), REFUSED, Finding.SKIPPED),
        (ARRIVED, Attempt(Outcome.MISSING, "a tool"), Finding.SKIPPED),
        (ARRIVED, Attempt(Outcome.CRASHED, "boom"), Finding.ERROR),
        (ARRIVED, Attempt(Outcome.ENDLESS, "too long"), Finding.ERROR),
        (Attempt(Outcome.CRASHED, "boom"), REFUSED, Finding.ERROR),
    ],
)
def test_the_far_side_decides(control: Attempt, inside: Attempt, finding: Finding) -> None:
    """What arrived is an escape whatever the client says; silence is containment only beside a control that worked."""
    found, reason = judge(control, inside)
    assert found is finding
    assert reason
