"""`enforcer uninstall` is the only thing that takes the enforcer off, and takes all of it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enforcer.capture import cgroup
from enforcer.capture.programs import BPF_MOUNT
from enforcer.config import load_settings
from enforcer.demo.instance import Instance
from enforcer.demo.world import VIRGINIA, World
from tests.fixtures.world import Shell, Watch, enforcing, eventually, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world


@pytest.fixture
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only") as running:
        yield running


def test_uninstall_is_refused_while_the_supervisor_runs(instance: Instance, virginia: Watch) -> None:
    """Exit code 2 and one line; programs stay, and executors are judged as before."""
    done = instance.run("uninstall", "--yes")
    assert done.returncode == 2
    assert done.stderr == "enforcer: the supervisor is running; stop it first\n"
    assert set(instance.status()["programs"].values()) == {1}
    assert '"status": 403' in instance.execute("curl", "-sS", url(VIRGINIA.address)).stdout
    assert virginia.arrived() == []


def test_uninstall_asks_first(instance: Instance) -> None:
    """Without --yes and without an answer nothing is removed."""
    instance.stop()
    assert instance.run("uninstall").returncode == 1
    assert (BPF_MOUNT / load_settings(instance.root).instance / "links").is_dir()


def test_uninstall_removes_everything(instance: Instance, virginia: Watch) -> None:
    """Programs, maps, cgroups, namespaces and executors are gone; records and configuration stay."""
    settings = load_settings(instance.root)
    group = cgroup.find_mount() / settings.instance
    with Shell(instance) as shell:
        members = psutil.Process(shell.command_pid).children(recursive=True)
        instance.stop()
        assert all(one.is_running() for one in members)
        assert group.is_dir()
        done = instance.run("uninstall", "--yes")
        assert done.returncode == 0, done.stderr
        eventually(lambda: not any(one.is_running() for one in members), "the executor's end")
    assert not group.exists()
    assert not (BPF_MOUNT / settings.instance).exists()
    assert list((settings.run / "netns").iterdir()) == []
    assert list((settings.run / "executors").iterdir()) == []
    assert str(settings.root) not in Path("/proc/mounts").read_text()
    assert settings.database.exists()
    assert (settings.policy_dir / "eu-only.yaml").exists()
    assert virginia.arrived() == []


def test_uninstall_twice_is_fine(instance: Instance) -> None:
    """There is nothing left to remove, and that is no error."""
    instance.stop()
    assert instance.run("uninstall", "--yes").returncode == 0
    assert instance.run("uninstall", "--yes").returncode == 0
    assert "nothing is attached" in instance.run("status").stderr
