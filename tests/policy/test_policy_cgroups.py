"""Which existing trees a policy names: globs over cgroups, and systemd units."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.flow import Executor
from enforcer.policy.cgroups import (
    MAX_PATTERN,
    cgroup_matches,
    parse_cgroup_path,
    parse_cgroup_pattern,
    parse_unit,
)
from enforcer.policy.engine import decide
from enforcer.policy.loader import load_policies
from enforcer.verdict import Action

from .policy_world import VOCABULARY, flow, load, write_policy


@pytest.mark.parametrize("text", ["machine.slice", "system.slice/a.service", "a/*", "*/b", "a/b*c*", "k/" + "x" * 198])
def test_patterns(text: str) -> None:
    """One plain top-level cgroup, or a path of at least two components, stays as it is written."""
    assert parse_cgroup_pattern(text) == text


@pytest.mark.parametrize(
    "text",
    ["/system.slice/a", "*", "agent-*", "a//b", "a/", "", ".", "..", "a/../b", "a/./b", "x" * (MAX_PATTERN + 1),
     "é" * 101],
)  # fmt: skip
def test_bad_patterns_are_refused(text: str) -> None:
    """Absolute paths, empty components, dots, stars over the top level and more than 200 bytes are not patterns."""
    with pytest.raises(ValueError, match="; "):
        parse_cgroup_pattern(text)


@pytest.mark.parametrize("text", ["a/*", "/a", "", "a/.."])
def test_a_path_is_one_cgroup(text: str) -> None:
    """What stands for one cgroup has no star."""
    with pytest.raises(ValueError, match="; "):
        parse_cgroup_path(text)


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("system.slice/agent-*.service", "system.slice/agent-1.service", True),
        ("system.slice/agent-*.service", "system.slice/agent-.service", True),
        ("system.slice/agent-*.service", "system.slice/agent.service", False),
        ("system.slice/agent-*.service", "system.slice/x/agent-1.service", False),
        ("system.slice/agent-*.service", "system.slice/agent-1.service/payload", True),
        ("system.slice/*", "system.slice", False),
        ("system.slice/*", "system.slice/a/b/c", True),
        ("*/a.service", "user.slice/a.service", True),
        ("*/a.service", "user.slice/b/a.service", False),
        ("machine.slice", "machine.slice", True),
        ("machine.slice", "machine.slice.d", False),
        ("a/b", "", False),
        ("a/[b]?", "a/b1", False),
        ("a/[b]?", "a/[b]?", True),
        ("a/b\\x2dc", "a/b\\x2dc", True),
        ("A/b", "a/b", False),
    ],
)
def test_a_star_stays_in_its_component_and_a_tree_is_governed_whole(pattern: str, path: str, matches: bool) -> None:
    """Only the star is a wildcard, within one component; what is below a named cgroup is named as well."""
    assert cgroup_matches(pattern, path) is matches


@given(st.text(alphabet="ab*[]?.\\-/", min_size=1, max_size=12))
def test_a_pattern_without_a_star_matches_itself(text: str) -> None:
    """No other character than the star is special."""
    plain = text.replace("*", "")
    assert cgroup_matches(plain, plain)
    assert cgroup_matches(plain, f"{plain}/below")
    assert not cgroup_matches(f"{plain}/below", plain)


# systemd.unit(5), systemd.slice(5) and systemd-escape(1); the directories as `systemctl show -p ControlGroup` has them.
@pytest.mark.parametrize(
    ("unit", "pattern"),
    [
        ("agent.service", "system.slice/agent.service"),
        ("run-u7.scope", "system.slice/run-u7.scope"),
        ("agent-*.service", "system.slice/agent-*.service"),
        ("getty@tty1.service", "system.slice/system-getty.slice/getty@tty1.service"),
        ("systemd-fsck@dev-sda1.service", "system.slice/system-systemd\\x2dfsck.slice/systemd-fsck@dev-sda1.service"),
        ("agent@*.service", "system.slice/system-agent.slice/agent@*.service"),
        ("a\\x2db@1.service", "system.slice/system-a\\x5cx2db.slice/a\\x2db@1.service"),
        ("memory.service", "system.slice/_memory.service"),
        ("_hidden.service", "system.slice/__hidden.service"),
        ("memoryhog.service", "system.slice/memoryhog.service"),
    ],
)
def test_a_unit_is_the_cgroup_that_systemd_gives_it(unit: str, pattern: str) -> None:
    """Instances lie in a slice named after their template, with its hyphens escaped; kernel names get an underscore."""
    assert parse_unit(unit) == pattern


@pytest.mark.parametrize(
    "text", ["agent", "agent.slice", "a/b.service", "@.service", "a@.service", "a b.service", ".service", "x.timer"]
)
def test_what_is_no_unit_with_processes_is_refused(text: str) -> None:
    """Slices, other kinds of units and paths are named by cgroup."""
    with pytest.raises(ValueError, match="use cgroup with the path"):
        parse_unit(text)


def test_policies_apply_by_cgroup_and_unit(tmp_path: Path) -> None:
    """An attached tree is governed by the policies that name its cgroup, itself or by unit; an isolated one by none."""
    policies = load(
        tmp_path,
        "name: eea, to: {region: [EEA]}, action: allow",
        head="applies_to: [{cgroup: 'system.slice/etl-*.service'}, {unit: agent@*.service}]",
    )
    for cgroup, governed in (
        ("system.slice/etl-1.service", True),
        ("system.slice/system-agent.slice/agent@7.service", True),
        ("system.slice/system-agent.slice/agent@7.service/worker", True),
        ("system.slice/other.service", False),
        ("", False),
    ):
        verdict = decide(policies, flow(cgroup=cgroup), "http", {})
        assert (verdict.action is Action.ALLOW) is governed


def test_the_patterns_to_take_over(tmp_path: Path) -> None:
    """Every pattern of the enabled policies once, in their order."""
    heads = {"one": "[{unit: b.service}, {executor: x}, {cgroup: a/b}]", "two": "[{cgroup: a/b}, {cgroup: 'a/c*'}]"}
    rule = "rules: [{name: a, to: {region: [DE]}, action: allow}]"
    paths = [
        write_policy(tmp_path, f"policy: {name}\napplies_to: {head}\n{rule}\n", name) for name, head in heads.items()
    ]
    assert load_policies(paths, VOCABULARY).cgroup_patterns() == ("system.slice/b.service", "a/b", "a/c*")


def test_an_older_executor_is_isolated() -> None:
    """A description without the newer fields is read as what it was."""
    old = Executor(**json.loads('{"ident": "a-1", "name": "a", "uid": 0, "user": "root", "cgroup_id": 7}'))
    assert (old.mode, old.cgroup) == ("isolated", "")
