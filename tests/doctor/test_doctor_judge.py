"""From findings to guarantees: what is unknown or missing is never a guarantee."""

from __future__ import annotations

import pwd
import re
from pathlib import Path

import pytest

from enforcer.config import Settings
from enforcer.doctor import checks
from enforcer.doctor.checks import CannotTell, Check, Finding, Outcome, Place, Status, ok, pairs
from enforcer.doctor.judge import Guarantee, Level, judge
from enforcer.doctor.promises import LIMITS, PAIRS, Mode, Pair, Promise, parse_required
from enforcer.doctor.residual import WAYS, Tried
from enforcer.doctor.table import CHECKS
from enforcer.errors import HostError, UsageError

P1_ISOLATED, P1_ATTACHED = Pair(Promise.P1, Mode.ISOLATED), Pair(Promise.P1, Mode.ATTACHED)
SECURITY = Path(__file__).parents[2] / "docs/security.md"


def found(status: Status, *, needs: str = "", narrows: str = "", name: str = "thing") -> Finding:
    check = Check(name, lambda _place: ok(""), f"no {name}", pairs(needs), pairs(narrows))
    return Finding(check, Outcome(status, "seen"), 0.0)


def judged(pair: Pair, *findings: Finding, ways: tuple[Tried, ...] = ()) -> Guarantee:
    return next(one for one in judge(findings, ways) if one.pair == pair)


def outcome(probe: object) -> Outcome:
    place = Place(Settings(), "", pwd.getpwnam("nobody"))
    (finding,) = checks.run([Check("thing", probe, "no thing")], place)  # type: ignore[arg-type]
    return finding.outcome


@pytest.mark.parametrize(
    ("status", "level"),
    [
        (Status.OK, Level.GUARANTEED),
        (Status.ABSENT, Level.GUARANTEED),
        (Status.MISSING, Level.NOT),
        (Status.CANNOT_TELL, Level.CANNOT_TELL),
    ],
)
def test_a_needed_check_decides(status: Status, level: Level) -> None:
    """A promise is guaranteed when all that it needs is ok, and not when something is missing or unknown."""
    assert judged(P1_ISOLATED, found(Status.OK, needs="P1"), found(status, needs="P1")).level is level


@pytest.mark.parametrize("status", [Status.MISSING, Status.CANNOT_TELL])
def test_a_narrowing_check_leaves_a_part(status: Status) -> None:
    """Where a way out remains, or may remain, the promise holds in part and says which."""
    guarantee = judged(P1_ISOLATED, found(status, narrows="P1", name="door"))
    assert guarantee.level is Level.IN_PART
    assert "door" in guarantee.why[0]


def test_missing_outweighs_unknown() -> None:
    """What is known to be missing is said rather than what is not known."""
    guarantee = judged(
        P1_ISOLATED, found(Status.CANNOT_TELL, needs="P1"), found(Status.MISSING, needs="P1", name="door")
    )
    assert (guarantee.level, guarantee.why) == (Level.NOT, ("no door",))


def test_modes_are_judged_apart() -> None:
    """What attached mode needs does not weigh on isolated mode."""
    finding = found(Status.MISSING, needs="P1:attached")
    assert judged(P1_ISOLATED, finding).level is Level.GUARANTEED
    assert judged(P1_ATTACHED, finding).level is Level.NOT


@pytest.mark.parametrize("state", [True, None])
def test_a_way_of_root_weighs_on_attached_mode(state: bool | None) -> None:
    """A way that is open, or could not be tried, keeps attached mode from a guarantee; isolated mode has none."""
    tried = (Tried(WAYS[0], state, ""), Tried(WAYS[1], False, ""))
    guarantee = judged(P1_ATTACHED, ways=tried)
    assert guarantee.level is Level.IN_PART
    assert "1 way out" in guarantee.why[0]
    assert judged(P1_ISOLATED, ways=tried).level is Level.GUARANTEED


def test_closed_ways_weigh_nothing() -> None:
    """With every way closed attached mode is guaranteed as well."""
    assert judged(P1_ATTACHED, ways=tuple(Tried(way, False, "") for way in WAYS)).level is Level.GUARANTEED


def test_honest_status_needs_answers() -> None:
    """P7 is in part as soon as any check could not tell, also one on which nothing else rests."""
    guarantee = judged(Pair(Promise.P7, Mode.ISOLATED), found(Status.CANNOT_TELL, name="riddle"))
    assert guarantee.level is Level.IN_PART
    assert "riddle" in str(guarantee)


def failing(error: Exception) -> Outcome:
    def probe(_place: Place) -> Outcome:
        raise error

    return outcome(probe)


def test_an_unforeseen_error_is_no_answer() -> None:
    """A check that raises counts as "cannot tell", and the line names the error."""
    told = failing(ZeroDivisionError("by what"))
    assert told.status is Status.CANNOT_TELL
    assert "ZeroDivisionError: by what" in told.detail


def test_foreseen_errors() -> None:
    """A HostError is what is missing with its mend; CannotTell is what it says."""
    assert failing(HostError("no thing; get one")) == Outcome(Status.MISSING, "no thing", "get one")
    assert failing(CannotTell("no cable")) == Outcome(Status.CANNOT_TELL, "no cable")


def test_every_promise_rests_on_checks() -> None:
    """In each mode each promise has something to rest on, or is guaranteed by nothing (P7 rests on all)."""
    resting = {pair for check in CHECKS for pair in check.needs | check.narrows}
    assert set(PAIRS) - resting == set()
    assert len({check.name for check in CHECKS}) == len(CHECKS)


def test_every_way_has_a_mend() -> None:
    """Each way of a root executor is named once, described, and can be closed."""
    assert len({way.name for way in WAYS}) == len(WAYS)
    assert all(way.way and way.mend for way in WAYS)


def test_limits_are_those_of_the_documentation() -> None:
    """A promise that has a limit here holds in part in the documentation, which begins with the same words."""
    rows = dict(re.findall(r"^\| (P\d) \| [^|]+\| ([^|]+) \|", SECURITY.read_text(), re.MULTILINE))
    assert rows.keys() == Promise.__members__.keys()
    for promise, limit in LIMITS.items():
        assert rows[promise.name].startswith(f"in part: {limit}"), promise.name


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("P1", ["P1:isolated"]),
        ("p1, P3:attached", ["P1:isolated", "P3:attached"]),
        ("P3:ISOLATED,P3:attached", ["P3:isolated", "P3:attached"]),
    ],
)
def test_required_promises(text: str, wanted: list[str]) -> None:
    """Without a mode a promise is asked of isolated mode."""
    assert [str(pair) for pair in parse_required(text)] == wanted


@pytest.mark.parametrize("text", ["P9", "P1,P0", "P1:both", "", ",", "everything"])
def test_what_is_no_promise(text: str) -> None:
    """A misspelt requirement is an error: it must not pass as met."""
    with pytest.raises(UsageError):
        parse_required(text)


def test_every_way_of_root_is_in_the_documentation() -> None:
    """docs/security.md lists the same ways, in the same words, with the same mends."""
    page = (Path(__file__).parents[2] / "docs/security.md").read_text()
    for way in WAYS:
        assert f"| `{way.name}` | {way.way} | {way.mend} |" in page
