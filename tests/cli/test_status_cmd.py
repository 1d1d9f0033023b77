"""`enforcer status`: what it claims is what is there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from enforcer.capture import programs
from enforcer.demo.instance import Instance
from enforcer.demo.world import VIRGINIA, World
from tests.fixtures.world import Shell, enforcing, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

# Counted on this kernel whatever it thinks of security hooks: cgroup hooks and tracepoints.
HOOKS = {hook.program for hook in programs.HOOKS if hook.where not in (programs.Where.UPLINK, programs.Where.LSM)}


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only", workers=1) as running:
        yield running


def test_json_names_everything_that_runs(instance: Instance) -> None:
    """Supervisor, the one configured worker, a running executor, one program per hook, counters and records."""
    with Shell(instance, "watched") as shell:
        shell.curl(url(VIRGINIA.address))
        status: dict[str, Any] = instance.json("status", "--json")
        assert status["pid"] == instance.pid
        assert [psutil.Process(one["pid"]).username() for one in status["workers"]] == ["enforcer"]
        assert [(one["name"], one["user"]) for one in status["executors"]] == [("watched", "root")]
        assert status["programs"] == dict.fromkeys(HOOKS, 1)
        assert status["counters"]["REDIRECTED"] >= 1
        assert status["policies"] == ["eu-only"]
        assert status["observing"] == []
        assert status["table"]["prefixes"]["v4"] > 400_000
        assert status["recorder"]["database"] == str(instance.root / "var/lib/enforcer/sessions.db")
        assert status["recorder"]["failing"] == ""


def test_text_says_the_same_for_people(instance: Instance) -> None:
    """Each fact has its line."""
    with Shell(instance, "watched") as shell:
        shell.curl(url(VIRGINIA.address))
        text = instance.run("status").stdout
    lines = {line.split()[0]: line for line in text.splitlines() if not line.startswith(" ")}
    assert f"pid {instance.pid}," in lines["supervisor"]
    assert "policies eu-only" in lines["generation"]
    assert "watched-" in lines["executor"]
    assert lines["programs"].endswith("(1 per hook is right)")
    assert all(f"{hook} 1" in lines["programs"] for hook in HOOKS)
    assert "REDIRECTED" in text


def test_an_ended_executor_is_not_listed(instance: Instance) -> None:
    """Once its command has ended, an executor is gone from the list."""
    instance.execute("true", name="brief")
    assert "brief" not in [one["name"] for one in instance.status()["executors"]]


def test_without_policies_it_says_that_everything_is_denied(world: World, instance: Instance) -> None:
    """No enabled policy is shown as what it means, and so it is."""
    instance.stop()
    instance.configure(policies=[], workers=1)
    instance.start()
    assert "policies none, everything is denied" in instance.run("status").stdout
    problem = json.loads(instance.execute("curl", "-sS", url(VIRGINIA.address)).stdout)
    assert (problem["status"], problem["rule"]) == (403, "")
    instance.stop()
    instance.configure(policies=["eu-only"], workers=1)
    instance.start()


def test_a_stopped_supervisor_leaves_its_programs(instance: Instance) -> None:
    """Exit code 7, one line, and what stays attached."""
    instance.stop()
    try:
        done = instance.run("status")
        assert done.returncode == 7
        (line,) = done.stderr.splitlines()
        assert f"{len(HOOKS)} programs stay attached" in line
        assert done.stdout == ""
    finally:
        instance.start()
