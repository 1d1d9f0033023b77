"""`enforcer probe`: the catalogue, reports and exit codes; what it finds is tested in tests/probe."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from enforcer.cli import cli, probe_cmd
from enforcer.errors import EnforcerError, UsageError
from enforcer.probe import report
from enforcer.probe.catalogue import CATALOGUE
from enforcer.probe.results import Attempt, Finding, Outcome
from enforcer.probe.results import Result as Found

NOTHING = Attempt(Outcome.REFUSED, "no")


def run(root: Path, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["--root", str(root), "probe", *arguments])


def found(*findings: Finding) -> list[Found]:
    return [
        Found(one.name, one.group, "isolated", "root", finding, f"because {finding}", NOTHING, NOTHING, 0.1)
        for one, finding in zip(CATALOGUE, findings, strict=False)
    ]


@pytest.fixture
def played(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes the run's results what a test wants."""

    def play(*findings: Finding) -> None:
        monkeypatch.setattr(probe_cmd, "_play", lambda *_arguments, **_options: found(*findings))

    return play


def test_the_list_names_every_technique(tmp_path: Path) -> None:
    """`--list` tries nothing and needs no root."""
    done = run(tmp_path, "--list")
    assert done.exit_code == 0
    assert [one.name for one in CATALOGUE if one.name not in done.output] == []
    rows = json.loads(run(tmp_path, "--list", "--json").output)
    assert [row["name"] for row in rows] == [one.name for one in CATALOGUE]


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding.CONTAINED], 0),
        ([Finding.CONTAINED, Finding.SKIPPED], 0),
        ([Finding.SKIPPED], 1),
        ([Finding.CONTAINED, Finding.ESCAPED], 1),
        ([Finding.CONTAINED, Finding.ERROR], 1),
    ],
)
def test_only_proven_containment_ends_with_zero(
    tmp_path: Path, played: Any, findings: list[Finding], code: int
) -> None:
    """An escape, a fault of the probe, or a run in which all was skipped is no success."""
    played(*findings)
    assert run(tmp_path).exit_code == code


def test_the_table_says_why(tmp_path: Path, played: Any) -> None:
    """Every technique that was not contained is listed with its reason, skipped ones among them."""
    played(Finding.CONTAINED, Finding.SKIPPED, Finding.ESCAPED, Finding.ERROR)
    output = run(tmp_path).output
    assert "1 ESCAPED, 1 CONTAINED, 1 SKIPPED, 1 ERROR" in output
    for finding in (Finding.SKIPPED, Finding.ESCAPED, Finding.ERROR):
        assert f"because {finding}" in output
    assert "Not tried, which proves nothing" in output


def test_a_report_is_written_and_verifies(tmp_path: Path, played: Any) -> None:
    """`--report` signs, `--verify` accepts, with the right key only."""
    played(Finding.CONTAINED)
    path = tmp_path / "report.json"
    done = run(tmp_path, "--report", str(path))
    fingerprint = report.verify(path)["key_fingerprint"]
    assert fingerprint in done.output
    assert run(tmp_path, "--verify", str(path), "--key", fingerprint).exit_code == 0
    assert "A PART of the catalogue" in run(tmp_path, "--verify", str(path)).output
    assert isinstance(run(tmp_path, "--verify", str(path), "--key", "00").exception, EnforcerError)
    path.write_bytes(path.read_bytes().replace(b"CONTAINED", b"ESCAPED", 1))
    assert isinstance(run(tmp_path, "--verify", str(path)).exception, EnforcerError)


def test_json_is_the_reports_body(tmp_path: Path, played: Any) -> None:
    """`--json` prints what a report would hold, and nothing else."""
    played(Finding.CONTAINED, Finding.SKIPPED)
    body = json.loads(run(tmp_path, "--json").output)
    assert [row["finding"] for row in body["results"]] == ["CONTAINED", "SKIPPED"]
    assert datetime.fromisoformat(body["begun"]).tzinfo == UTC


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--key", "00"], "--verify"),
        (["--user", "root"], "root tries anyway"),
        (["--only", "no-such-thing"], "no technique matches"),
        (["--report", "/no/such/place/report.json"], "its directory does not exist; name another file"),
    ],
)
def test_what_makes_no_sense_is_refused(tmp_path: Path, arguments: list[str], words: str) -> None:
    """One line that says what to do instead."""
    error = run(tmp_path, *arguments).exception
    assert isinstance(error, UsageError)
    assert words in str(error)
