"""Cells: isolated commands in a cgroup of the test's own, without supervisor and kernel programs."""

from __future__ import annotations

import json
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from enforcer.capture import cgroup
from tests.fixtures.kernel import PATIENCE

PYTHON = "/usr/bin/python3"  # readable for every user
ROOT = Path(__file__).resolve().parents[2]


class Cell:
    """Runs commands isolated, and the same commands outside as a control."""

    def __init__(self, group: Path) -> None:
        self.group = group

    def line(self, *command: str, **options: Any) -> list[str]:
        """`options`: `user`, `unix_sockets`, `hidden`, `exposed`, `writable`, `directory`."""
        return [sys.executable, "-m", "tests.isolation.launch", str(self.group), json.dumps(options), *command]

    def run(self, *command: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.line(*command, **options),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=3 * PATIENCE,
            cwd=ROOT,
        )

    def python(self, code: str, *arguments: str, **options: Any) -> Any:
        """What the code prints as JSON, inside."""
        done = self.run(PYTHON, "-I", "-c", code, *arguments, **options)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def members(self) -> list[int]:
        """Processes of the executor, as the host numbers them."""
        return [int(line) for line in (self.group / "cgroup.procs").read_text().split()]

    def running(self) -> set[str]:
        """What its processes run now. Until its command does, an executor is not there yet."""
        names = set()
        for pid in self.members():
            with suppress(FileNotFoundError, ProcessLookupError):
                names.add(Path(f"/proc/{pid}/comm").read_text().strip())
        return names


def outside(code: str, *arguments: str, **options: Any) -> Any:
    """The control: the same code by the same interpreter as root on the host, in a mount namespace to be safe."""
    line = ["unshare", "--mount", PYTHON, "-I", "-c", code, *arguments]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=3 * PATIENCE, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def cell() -> Iterator[Cell]:
    group = cgroup.find_mount() / f"enforcer-cell-{secrets.token_hex(3)}"
    group.mkdir()
    try:
        yield Cell(group)
    finally:
        cgroup.remove(group)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory of the host's that every user can read, outside of /tmp."""
    path = Path("/var/lib") / f"enforcer-test-{secrets.token_hex(3)}"
    path.mkdir(mode=0o755)
    try:
        yield path
    finally:
        for line in reversed(Path("/proc/mounts").read_text().splitlines()):
            mount = line.split()[1].replace("\\040", " ")
            if Path(mount).is_relative_to(path):
                subprocess.run(["umount", "-l", mount], check=True)
        shutil.rmtree(path)
