"""The judge of the probe on other kernels: what it lets pass, and what never."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enforcer.doctor.residual import WAYS
from enforcer.probe.catalogue import CATALOGUE
from enforcer.probe.results import Finding
from tests.kernels import judge

SECURITY = Path(__file__).resolve().parents[2] / "docs/security.md"
USERS = {"root": [one.name for one in CATALOGUE], "nobody": [one.name for one in CATALOGUE if one.users == "both"]}


def body(mode: str, **findings: Finding) -> dict[str, Any]:
    """A whole run that contained everything but what `findings` names, as `user_technique` (with _ for -)."""
    rows = []
    for user, names in USERS.items():
        for name in names:
            finding = findings.get(f"{user}_{name}".replace("-", "_"), Finding.CONTAINED)
            rows.append({"technique": name, "user": user, "finding": finding.value, "reason": "told"})
    return {"modes": [mode], "whole_catalogue": True, "results": rows}


@pytest.mark.parametrize("mode", ["isolated", "attached"])
def test_a_run_that_contained_everything_passes(mode: str) -> None:
    """Nothing is wrong with it."""
    assert judge.judge(body(mode), mode) == []


@pytest.mark.parametrize("finding", [Finding.ESCAPED, Finding.ERROR])
@pytest.mark.parametrize(("mode", "user"), [("isolated", "root"), ("isolated", "nobody"), ("attached", "nobody")])
def test_one_escape_or_fault_is_a_failure(mode: str, user: str, finding: Finding) -> None:
    """Of an isolated executor, and of an ordinary user's attached one, also where root's would be let pass."""
    for name in ("tcp4", "signalled"):
        assert judge.judge(body(mode, **{f"{user}_{name}": finding}), mode) == [f"{user}: {name} {finding.value}: told"]


def test_root_attached_has_the_named_ways_only() -> None:
    """What is named passes, as an escape and not as a fault of the probe; what is not named fails."""
    named = {f"root_{name}".replace("-", "_"): Finding.ESCAPED for name in judge.NAMED}
    assert judge.judge(body("attached", **named), "attached") == []
    assert len(judge.judge(body("isolated", **named), "isolated")) == len(named)
    assert judge.judge(body("attached", root_tcp4=Finding.ESCAPED), "attached") == ["root: tcp4 ESCAPED: told"]
    assert judge.judge(body("attached", root_cgroup_born=Finding.ERROR), "attached") == [
        "root: cgroup-born ERROR: told"
    ]


def test_a_run_that_skips_is_no_pass() -> None:
    """Nothing skipped counts as contained, and a part of the catalogue is not the whole."""
    skipped = {f"root_{name}".replace("-", "_"): Finding.SKIPPED for name in USERS["root"][judge.LEAST["root"] - 1 :]}
    (fault,) = judge.judge(body("isolated", **skipped), "isolated")
    assert fault.startswith(f"root: only {judge.LEAST['root'] - 1} contained")
    assert judge.judge({**body("isolated"), "whole_catalogue": False}, "isolated")


def test_no_report_is_a_failure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A probe that wrote none has not passed."""
    assert judge.main([str(tmp_path / "isolated.json"), str(tmp_path / "attached.json")]) == 1
    assert capsys.readouterr().out.count("FAILED") == 2


def test_what_is_let_pass_is_documented() -> None:
    """Each technique of the catalogue that root attached may get out by goes a way that the doctor and docs/security.md
    name."""
    known, text = {way.name for way in WAYS}, SECURITY.read_text()
    for name, way in judge.NAMED.items():
        assert name in USERS["root"]
        assert way in known
        assert f"| `{way}` |" in text
