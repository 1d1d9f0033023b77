"""Where the hooks go for what policies name; the rest of attached mode needs a kernel and is in tests/system."""

from __future__ import annotations

import pytest

from enforcer.errors import ConfigError
from enforcer.supervisor.attached import check_patterns, roots_of


@pytest.mark.parametrize(
    ("patterns", "roots"),
    [
        ([], []),
        (["system.slice/agent-*.service"], ["system.slice"]),
        (["system.slice/agent.service"], ["system.slice"]),
        (["agents.slice"], ["agents.slice"]),
        (["agents.slice/*/job-*"], ["agents.slice"]),
        (["kubepods.slice/burstable/pod*/main"], ["kubepods.slice/burstable"]),
        (["system.slice/a.service", "system.slice/b-*.service"], ["system.slice"]),
        (["agents.slice/pool/*.service", "agents.slice"], ["agents.slice"]),
        (["agents.slice/one/*", "agents.slice/two/*"], ["agents.slice/one", "agents.slice/two"]),
        (["agents.slice2/*", "agents.slice/*"], ["agents.slice", "agents.slice2"]),
    ],
)
def test_hooks_go_above_what_is_named_and_never_above_each_other(patterns: list[str], roots: list[str]) -> None:
    """A hook on a cgroup and on one above it would judge a connection twice, the second time as the rewritten one."""
    assert sorted(roots_of(patterns)) == roots


@pytest.mark.parametrize("pattern", ["*/agent.service", "*.slice/x"])
def test_a_pattern_for_the_whole_tree_is_refused(pattern: str) -> None:
    """Its hooks would be on the root, and on the enforcer itself."""
    with pytest.raises(ConfigError, match="begins with '\\*'; name its first component"):
        check_patterns([pattern], "enforcer")


def test_the_enforcers_own_cgroups_are_not_for_attaching() -> None:
    """Isolated executors have their hooks already; another instance's name is only a name."""
    with pytest.raises(ConfigError, match="is the enforcer's own"):
        check_patterns(["enforcer/executors/*"], "enforcer")
    check_patterns(["enforcer/executors/*"], "enforcer-0011aabb")
