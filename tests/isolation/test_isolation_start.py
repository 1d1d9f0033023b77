"""How executors begin and end: no process outside of the cgroup, and none left."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from enforcer.capture import cgroup
from tests.isolation.conftest import PYTHON, ROOT, Cell

pytestmark = pytest.mark.kernel

# Seconds for what should take none; generous, for busy machines.
PATIENCE = 30.0


@pytest.fixture
def fresh() -> Iterator[Cell]:
    """A cell that no other test leaves processes in."""
    group = cgroup.find_mount() / f"enforcer-cell-{secrets.token_hex(3)}"
    group.mkdir()
    try:
        yield Cell(group)
    finally:
        cgroup.remove(group)


def start(cell: Cell, *command: str, **options: object) -> subprocess.Popen[str]:
    return subprocess.Popen(
        cell.line(*command, **options),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )


def ends(cell: Cell) -> bool:
    """Do all of its processes end by themselves?"""
    deadline = time.monotonic() + PATIENCE
    while cell.members():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (("sh", "-c", "exit 3"), 3),
        (("sh", "-c", "kill -TERM $$"), 143),
        (("sh", "-c", "kill -KILL $$"), 137),
        (("/etc/passwd",), 126),
        (("/no/such/file",), 127),
        (("no-such-command",), 127),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else str(value),
)
def test_the_exit_status_is_the_commands(fresh: Cell, command: tuple[str, ...], status: int) -> None:
    """Its own, 128 + N for a signal, 126 and 127 when it cannot start; and all of it is gone."""
    assert fresh.run(*command).returncode == status
    assert fresh.members() == []


def test_orphans_are_cleared_away(fresh: Cell) -> None:
    """Children whose parent has ended leave no zombie behind while the command goes on."""
    script = "for n in 1 2 3 4 5; do (true & ) ; done; sleep 0.5; ps -e -o stat= | grep -c Z; true"
    assert fresh.run("sh", "-c", script).stdout == "0\n"


# Makes two children of the caller's instead of its own: one ends at once, one stays.
CLONES = """
import ctypes, os, time
libc = ctypes.CDLL(None, use_errno=True)
for stays in (False, True):
    pid = libc.syscall(56 if os.uname().machine == "x86_64" else 220, ctypes.c_ulong(0x8000 | 17), 0, 0, 0, 0)
    assert pid >= 0, ctypes.get_errno()
    if pid == 0:
        if stays:
            time.sleep(1000)
        os._exit(0)
print("made", flush=True)
"""


def test_children_given_to_the_caller_hold_nothing_up(fresh: Cell) -> None:
    """CLONE_PARENT makes processes our children, which the kernel waits for when it ends the namespace; it ends."""
    done = fresh.run(PYTHON, "-I", "-c", CLONES)
    assert (done.returncode, done.stdout) == (0, "made\n")
    assert fresh.members() == []


def test_what_ignores_every_signal_ends_with_the_command(fresh: Cell) -> None:
    """In a session of its own, deaf to all that can be ignored."""
    script = "trap '' TERM HUP INT QUIT USR1; setsid sleep 1000 > /dev/null 2>&1 & exit 0"
    assert fresh.run("sh", "-c", script).returncode == 0
    assert fresh.members() == []


def test_everything_ends_with_its_starter(fresh: Cell) -> None:
    """SIGKILL for the process that started it, with no supervisor to help: the kernel ends the rest."""
    process = start(fresh, "sh", "-c", "setsid sleep 1000 > /dev/null 2>&1 & echo ready; exec sleep 1000")
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        assert len(fresh.members()) == 3
    finally:
        process.kill()
        process.communicate()
    assert ends(fresh)


def test_a_starter_killed_at_any_moment_leaves_nothing(fresh: Cell) -> None:
    """Killed while namespaces are being made, too: 25 times, ever later."""
    for number in range(25):
        process = start(fresh, "sleep", "1000")
        deadline = time.monotonic() + PATIENCE
        while not fresh.members() and time.monotonic() < deadline:
            pass
        time.sleep(number / 500)
        process.kill()
        process.communicate()
        assert ends(fresh), f"at {2 * number} ms"


def test_without_its_first_process_there_is_no_executor(fresh: Cell) -> None:
    """Whatever ends the first process, as the OOM killer might, ends the command with status 137."""
    process = start(fresh, "tail", "-f", "/dev/null")
    try:
        deadline = time.monotonic() + PATIENCE
        while "tail" not in fresh.running() and time.monotonic() < deadline:
            time.sleep(0.01)
        first = next(pid for pid in fresh.members() if psutil.Process(pid).uids().real == 2**31 - 2)
        os.kill(first, signal.SIGKILL)
        assert process.wait(PATIENCE) == 137
    finally:
        process.kill()
        process.communicate()
    assert fresh.members() == []


def test_what_cannot_be_isolated_is_not_started(fresh: Cell, tmp_path: Path) -> None:
    """One line with what the kernel refused, status 6, and the command did not run."""
    trace = tmp_path / "trace"
    done = fresh.run("touch", str(trace), exposed=["/no/such/path"], user="root")
    assert (done.returncode, len(done.stderr.splitlines())) == (6, 1)
    assert "cannot keep /no/such/path for the executor: No such file or directory" in done.stderr
    assert not trace.exists()
    assert fresh.members() == []


def test_without_its_cgroup_nothing_is_born(fresh: Cell) -> None:
    """It is not started elsewhere and moved: a cgroup that is gone between making and using it gives no process."""
    code = """
import os, sys
from enforcer.errors import HostError
from enforcer.isolation import kernel
fd = os.open(sys.argv[1], os.O_RDONLY)
os.rmdir(sys.argv[1])
try:
    if kernel.birth(0, fd) == 0:
        os.write(1, b"born")
        os._exit(0)
except HostError as error:
    print(error)
"""
    line = [sys.executable, "-c", code, str(fresh.group)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, cwd=ROOT)
    fresh.group.mkdir()
    assert done.stdout.startswith("cannot start a process in the executor's cgroup and namespaces: No such")


def test_both_processes_are_in_the_cgroup(fresh: Cell) -> None:
    """All that descends from the starter is there."""
    process = start(fresh, "sleep", "1000")
    try:
        deadline = time.monotonic() + PATIENCE
        while len(fresh.members()) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert {child.pid for child in psutil.Process(process.pid).children(recursive=True)} == set(fresh.members())
    finally:
        process.kill()
        process.communicate()


def test_the_command_is_in_namespaces_of_its_own(fresh: Cell) -> None:
    """All six kinds differ from the host's; user and time are shared."""
    kinds = ("cgroup", "ipc", "mnt", "net", "pid", "uts", "user", "time")
    code = f"import json, os; print(json.dumps([os.readlink('/proc/self/ns/' + kind) for kind in {kinds}]))"
    outside = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in kinds]
    shared = [kind for kind, one, other in zip(kinds, fresh.python(code), outside, strict=True) if one == other]
    assert shared == ["user", "time"]
