"""Process trees that begin, move or get a network of their own while the supervisor runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import MASKED_CARD, Shell, Watch, eventually, url
from tests.system.attaching import Group, events, governed, made_slice
from tests.system.far_side import RAW_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def slice_(world: World) -> Iterator[Path]:
    with made_slice() as path:
        yield path


@pytest.fixture(scope="module")
def instance(world: World, slice_: Path) -> Iterator[Instance]:
    """Governs what policies name in the slice, which is empty at its start."""
    with governed(world, slice_) as running:
        yield running


def test_a_tree_that_starts_later_is_governed_before_its_first_packet(
    world: World, slice_: Path, instance: Instance, virginia: Watch
) -> None:
    """Ten services that connect as their first instruction, each in a cgroup made a moment before: nothing arrives."""
    script = (
        f"import socket\ntry: socket.create_connection(('{VIRGINIA.address}', {RAW_PORT}), 3)\nexcept OSError: pass"
    )
    for number in range(10):
        made = f"mkdir {slice_}/agent-{number}.service; echo $$ > {slice_}/agent-{number}.service/cgroup.procs"
        command = world.command("host", "sh", "-c", f'{made}; exec "$@"', "sh", sys.executable, "-c", script)
        subprocess.run(command, check=True, timeout=30)
    assert virginia.arrived() == []
    names = {f"{slice_.name}/agent-{number}.service" for number in range(10)}
    eventually(lambda: {row["detail"].get("cgroup") for row in events(instance)} >= names, "all were attached")


@pytest.mark.usefixtures("instance")
def test_what_no_pattern_names_is_let_go_at_once(world: World, slice_: Path) -> None:
    """A cgroup below a watched prefix that does not match is refused only until it is looked at."""
    other = Group(world, slice_, "agent-9.scope")
    with other.shell() as beside:
        eventually(lambda: beside.curl(url(VIRGINIA.address)).returncode == 0, "the neighbour gets out")


def test_a_process_that_leaves_its_cgroup_is_noticed_and_killed(world: World, slice_: Path, instance: Instance) -> None:
    """Root inside writes itself elsewhere: it dies of it, and the record says so."""
    agent, elsewhere = Group(world, slice_, "agent-leaving.service"), Group(world, slice_, "other.service")
    with agent.shell() as inside:
        code = inside.run(
            f"""
            import subprocess, sys
            escape = "open('{elsewhere.path}/cgroup.procs', 'w').write('0'); print('free')"
            done = subprocess.run([sys.executable, "-c", escape], capture_output=True, text=True)
            answer = [done.returncode, done.stdout]
            """
        )
        assert code == [-9, ""]
        assert instance.status()["counters"]["ESCAPE_KILLED"] == 1
        eventually(lambda: [row for row in events(instance) if row["kind"] == "escape noticed"], "it is recorded")


def test_a_network_namespace_of_its_own_gets_a_listener(world: World, slice_: Path, instance: Instance) -> None:
    """As a container's: refused at first, then served, and what it asks is judged and masked."""
    agent = Group(world, slice_, "agent-apart.service")
    join = f'echo $$ > {agent.path}/cgroup.procs; exec unshare -n sh -c \'ip link set lo up; exec "$@"\' sh "$@"'
    with Shell.beside(world, "sh", "-c", join, "sh") as inside:
        answer = eventually(
            lambda: inside.curl(url(FRANKFURT.address, "/orders")).stdout, "the namespace gets its listener"
        )
        assert MASKED_CARD in answer
        (tree,) = (one for one in instance.status()["attached"] if one["cgroup"] == agent.relative)
        assert len(tree["ports"]) == 2
