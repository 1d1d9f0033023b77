"""`enforcer policy check` and `enforcer policy list`."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner

from enforcer.cli.context import Context
from enforcer.cli.policy_cmd import policy
from enforcer.errors import PolicyError

from .policy_context import PACKS, SmallContext, columns, run, run_json

BAD = "policy: bad\nrules: []\nmode: dry\n"
WRONG = """\
policy: wrong
rules:
  - {name: eea, to: {region: [EEA]}, action: allow}
expect:
  - {to: "8.8.8.8:443", protocol: http, is: allow}
"""


def test_check_judges_the_enabled_policies_in_order(tmp_path: Path) -> None:
    """Without files, the enabled policies are checked, each with its rules and expectations counted."""
    context = SmallContext(tmp_path, ("us-only", "eu-only"))
    context.install("eu-only")
    context.install("us-only")
    result = run(policy, context, "check")
    assert result.exit_code == 0
    assert result.stdout == "ok  us-only  4 rules, 7 expectations\nok  eu-only  4 rules, 9 expectations\n"


def test_check_without_policies_says_what_that_means(tmp_path: Path) -> None:
    """No enabled policy is valid, and denies everything."""
    result = run(policy, SmallContext(tmp_path), "check")
    assert (result.exit_code, result.stdout) == (0, "no policy is enabled: every flow is denied\n")


def test_check_names_every_fault_of_every_file(tmp_path: Path) -> None:
    """Valid files are still reported; faults and failed expectations end the command with PolicyError."""
    context = SmallContext(tmp_path)
    bad, wrong = context.install("bad", BAD), context.install("wrong", WRONG)
    result = run(policy, context, "check", bad, PACKS / "observe.yaml", wrong)
    assert result.stdout == "ok  observe  1 rule, 4 expectations\n"
    assert isinstance(result.exception, PolicyError)
    assert result.exception.exit_code == 4
    assert [fault.split(": ")[:2] for fault in result.exception.faults] == [
        [f"{bad}:2", "rules"],
        [f"{bad}:3", "mode"],
        [f"{wrong}:5", "expect[0]"],
    ]


def test_check_of_a_missing_enabled_file(tmp_path: Path) -> None:
    """An enabled policy without its file is a fault that names the path."""
    result = run(policy, SmallContext(tmp_path, ("gone",)), "check")
    assert isinstance(result.exception, PolicyError)
    assert f"{tmp_path}/etc/enforcer/policies/gone.yaml:1: file: cannot be read" in str(result.exception)


def test_check_refuses_one_policy_enabled_twice(tmp_path: Path) -> None:
    """The enabled list names a policy once."""
    context = SmallContext(tmp_path, ("eu-only", "eu-only"))
    context.install("eu-only")
    assert "has the same name" in str(run(policy, context, "check").exception)


def test_check_as_json(tmp_path: Path) -> None:
    """--json carries the same facts, and the exit code of a policy error."""
    context = SmallContext(tmp_path)
    result = run(policy, context, "check", PACKS / "us-only.yaml", context.install("wrong", WRONG), "--json")
    assert result.exit_code == 4
    answer = json.loads(result.stdout)
    assert answer["ok"] is False
    assert [(entry["policy"], entry["rules"], len(entry["faults"])) for entry in answer["files"]] == [
        ("us-only", 4, 0),
        ("wrong", 1, 1),
    ]
    assert run_json(policy, context, "check", PACKS / "us-only.yaml")["ok"] is True


def test_list_shows_what_is_there_and_what_is_missing(tmp_path: Path) -> None:
    """Enabled policies come first and in their order; faulty and missing files are listed as invalid."""
    context = SmallContext(tmp_path, ("us-only", "gone"))
    for name, text in (("eu-only", None), ("us-only", None), ("observe", None), ("bad", BAD)):
        context.install(name, text)
    rows = columns(run(policy, context, "list").stdout)
    assert [row[:4] for row in rows] == [
        ["enabled", "us-only", "enforce", "4 rules"],
        ["enabled", "gone", "INVALID", "1 fault; 'enforcer policy check' names them"],
        ["disabled", "bad", "INVALID", "2 faults; 'enforcer policy check' names them"],
        ["disabled", "eu-only", "enforce", "4 rules"],
        ["disabled", "observe", "observe", "1 rule"],
    ]


def test_list_as_json(tmp_path: Path) -> None:
    """--json lists name, state, mode, rules, description and faults."""
    context = SmallContext(tmp_path, ("observe",))
    context.install("observe")
    (entry,) = run_json(policy, context, "list")
    assert entry.pop("description").startswith("Denies everything")
    assert entry == {"name": "observe", "enabled": True, "mode": "observe", "rules": 1, "faults": []}


def test_list_without_a_directory(tmp_path: Path) -> None:
    """A host without policies gets an empty list, not an error."""
    result = run(policy, SmallContext(tmp_path), "list")
    assert (result.exit_code, result.stdout) == (0, f"no policies in {tmp_path}/etc/enforcer/policies\n")


def test_every_pack_passes_with_the_shipped_tables(tmp_path: Path) -> None:
    """Whoever enables a pack and runs `policy check` on it, as the tables are that come with it, finds no fault."""
    (tmp_path / "etc/enforcer").mkdir(parents=True)
    (tmp_path / "etc/enforcer/enforcer.yaml").write_text("policies: []\n")
    packs = sorted(PACKS.glob("*.yaml"))
    result = CliRunner().invoke(policy, ["check", *map(str, packs)], obj=Context(tmp_path))
    assert result.exception is None, result.exception
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [["ok", path.stem] for path in packs]
