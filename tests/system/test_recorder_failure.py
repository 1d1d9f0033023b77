"""A full disk: what cannot be recorded does not happen, the executor is told so, and all is well with space again."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World
from enforcer.errors import NotRunning
from tests.fixtures.world import Shell, Watch, eventually, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

DISK = "6m"


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    """An enforcer whose records lie on a file system of their own, of DISK bytes."""
    running = Instance(world, policies=["eu-only"], packs=shipped_policies(), user="root")
    state = running.root / "var/lib/enforcer"
    state.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK},mode=700", "tmpfs", str(state)], check=True)
    try:
        with running:
            yield running
    finally:
        subprocess.run(["umount", "--lazy", str(state)], check=True)
        shutil.rmtree(running.root)


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        yield running


def fill(path: Path) -> None:
    """Takes every byte that is left on the file system."""
    with path.open("wb", buffering=0) as stream:
        size = 1 << 20
        while size:
            try:
                stream.write(b"\0" * size)
            except OSError:
                size //= 2


def test_a_full_disk_refuses_what_it_cannot_record(instance: Instance, shell: Shell, frankfurt: Watch) -> None:
    """Databases (recorded before) and HTTP alike are denied with a clear text, nothing arrives; then traffic flows."""
    query = "SELECT 'a row that needs its place in the records'"
    assert shell.psql(FRANKFURT.address, query).returncode == 0
    filler = instance.root / "var/lib/enforcer/filler"
    fill(filler)

    def refusal() -> str:
        return shell.psql(FRANKFURT.address, query).stderr

    text = eventually(refusal, "a refusal on the full disk")
    assert "the recorder cannot write" in text
    assert "denied" in text
    eventually(lambda: instance.status()["recorder"]["failing"], "status to say that the recorder fails")
    assert "FAILING" in instance.run("status").stdout

    frankfurt.arrived()
    for _ in range(5):
        assert "the recorder cannot write" in refusal()
        done = shell.curl(url(FRANKFURT.address, "/orders"))
        assert '"status": 403' in done.stdout
        assert "the recorder cannot write" in done.stdout
    assert frankfurt.arrived() == []

    filler.unlink()
    eventually(lambda: shell.psql(FRANKFURT.address, query).returncode == 0, "an answer once there is space")
    eventually(lambda: "order" in shell.curl(url(FRANKFURT.address, "/orders")).stdout, "HTTP once there is space")
    assert instance.status()["recorder"]["failing"] == ""
    assert instance.run("sessions", "verify").returncode == 0


def knows(instance: Instance) -> bool:
    """Does it run, and say that it cannot record?"""
    try:
        return bool(instance.status()["recorder"]["failing"])
    except NotRunning:
        return False


def test_a_start_on_a_full_disk_opens_nothing(instance: Instance, shell: Shell, frankfurt: Watch) -> None:
    """A supervisor that starts while the disk is full either refuses to start, or refuses every request."""
    instance.stop()
    filler = instance.root / "var/lib/enforcer/filler"
    fill(filler)
    try:
        started = subprocess.Popen(
            instance.world.command("host", *instance.command("run")), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        try:
            eventually(lambda: started.poll() is not None or knows(instance), "it has ended, or knows", 60)
            if started.poll() is None:
                assert "cannot write" in shell.curl(url(FRANKFURT.address)).stdout
                assert "cannot write" in shell.psql(FRANKFURT.address, "SELECT 1").stderr
            else:
                assert started.returncode != 0
                assert shell.curl(url(FRANKFURT.address)).returncode == 7  # curl(1): failed to connect
        finally:
            started.terminate()
            started.communicate()
        assert frankfurt.arrived() == []
    finally:
        filler.unlink()
    instance.start()
    eventually(lambda: shell.psql(FRANKFURT.address, "SELECT 1").returncode == 0, "an answer once there is space")
