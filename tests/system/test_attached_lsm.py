"""Security hooks with a supervisor: Unix sockets of the host that an attached tree reaches, what is said and recorded.
Where the kernel takes no LSM programs, all of them are reached, and the status says that nothing stops it."""

from __future__ import annotations

import os
import signal
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import World
from tests.fixtures.world import enforcing, eventually
from tests.system.attaching import Group, made_slice, policy_for

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

SERVE = """
import socket, threading
def serve(*paths):
    for path in paths:
        server = socket.socket(socket.AF_UNIX)
        server.bind(path)
        server.listen(64)
        threading.Thread(target=greet, args=(server,), daemon=True).start()
def greet(server):
    while True:
        with server.accept()[0] as client:
            try:
                client.sendall(b"hello")
            except OSError:
                pass
def ask(path):
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(path)
        except OSError as error:
            return type(error).__name__
        return sock.recv(9).decode()
"""


def recorded(instance: Instance) -> set[str]:
    """Reasons of the refusals on record."""
    with sqlite3.connect(f"file:{instance.root}/var/lib/enforcer/sessions.db?mode=ro", uri=True) as db:
        return {reason for (reason,) in db.execute("SELECT reason FROM refusals")}


@pytest.fixture
def slice_() -> Iterator[Path]:
    with made_slice() as path:
        yield path


def test_an_attached_tree_reaches_what_is_allowed_and_its_own(
    world: World,
    slice_: Path,
    tmp_path: Path,
) -> None:
    """Sockets of its own from before the takeover, and those of `unix_allow`, also after a reload and a restart with
    others; no other of the host's. Refusals are recorded."""
    one, two, own = (str(tmp_path / name) for name in ("one", "two", "own"))
    agent, neighbour = Group(world, slice_, "agent-1.service"), Group(world, slice_, "other.service")
    files = {"attached": policy_for(slice_)}
    with agent.shell() as inside, neighbour.shell() as beside:
        beside.run(f"{SERVE}\nserve({one!r}, {two!r})")
        inside.run(f"{SERVE}\nserve({own!r})")
        with enforcing(world, "attached", files=files, unix_allow=[one]) as instance:
            status = instance.status()["lsm"]
            assert set(status["programs"].values()) == {int(status["asked"])}
            refused = "PermissionError" if status["asked"] else "hello"
            assert status["unix_allow"] == ([one] if status["asked"] else [])
            assert ("in force; executors" in instance.run("status").stdout) == status["asked"]
            ask = f"answer = [ask(path) for path in ({one!r}, {two!r}, {own!r})]"
            assert inside.run(ask) == ["hello", refused, "hello"]
            assert beside.run(ask) == ["hello"] * 3

            instance.configure(policies=["attached"], unix_allow=[two])
            os.kill(instance.pid, signal.SIGHUP)
            eventually(lambda: inside.run(ask) == [refused, "hello", "hello"], "the reload is in force")

            instance.kill()
            assert inside.run(ask) == [refused, "hello", "hello"]
            instance.configure(policies=["attached"], unix_allow=[one])
            instance.start()
            assert inside.run(ask) == ["hello", refused, "hello"]
            if status["asked"]:
                eventually(lambda: "REFUSED_UNIX" in recorded(instance), "the refusal is on record")
            assert (instance.status()["counters"]["REFUSED_UNIX"] > 0) == status["asked"]
