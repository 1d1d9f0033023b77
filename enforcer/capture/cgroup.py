"""Step 1 of 6, capture: the cgroup v2 subtree that marks who is governed.

ROOT/<instance>/enforcer          the supervisor and its workers; getsockopt is attached here
ROOT/<instance>/executors/<id>    one per executor; the connect hooks are attached at `executors`
"""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from enforcer.errors import HostError

# How long processes may take to die after SIGKILL before a cgroup cannot be removed.
_KILL_SECONDS = 5.0


def find_mount(mounts: Path = Path("/proc/mounts")) -> Path:
    """Where cgroup v2 is mounted: `/sys/fs/cgroup`, or `/sys/fs/cgroup/unified` on hybrid hosts.

    Raises HostError when it is not mounted.
    """
    for line in mounts.read_text().splitlines():
        _device, place, kind, *_ = line.split(" ")
        if kind == "cgroup2":
            return Path(place.encode().decode("unicode_escape"))
    raise HostError("cgroup v2 is not mounted; mount -t cgroup2 none /sys/fs/cgroup, or boot with a unified hierarchy")


@dataclass(frozen=True, slots=True)
class Cgroups:
    """The subtree of one instance."""

    top: Path

    @classmethod
    def create(cls, instance: str) -> Cgroups:
        """Makes the subtree, keeping what exists. Raises HostError when the kernel refuses."""
        groups = cls(find_mount() / instance)
        for path in (groups.top, groups.own, groups.executors):
            try:
                path.mkdir(exist_ok=True)
            except OSError as error:
                raise HostError(f"cannot create cgroup {path}: {error.strerror}; run as root on the host") from error
        return groups

    @property
    def own(self) -> Path:
        return self.top / "enforcer"

    @property
    def executors(self) -> Path:
        return self.top / "executors"

    def create_executor(self, ident: str) -> Path:
        path = self.executors / ident
        path.mkdir()
        return path


def cgroup_id(path: Path) -> int:
    """The kernel's id of a cgroup: its inode number."""
    return path.stat().st_ino


def level(path: Path) -> int:
    """How deep the cgroup lies below the root of the tree; the root itself is 0."""
    return len(path.relative_to(find_mount()).parts)


def join(path: Path, pid: int) -> None:
    """Moves a process, with all its threads. Sockets it already has keep their old cgroup."""
    (path / "cgroup.procs").write_text(str(pid))


def is_populated(path: Path) -> bool:
    """Does the subtree hold any live process? A removed cgroup does not."""
    try:
        return "populated 1" in (path / "cgroup.events").read_text()
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV):
            return False
        raise


def remove(path: Path) -> None:
    """Kills whatever is left in the subtree and removes it. Raises HostError when processes will not die."""
    if not path.exists():
        return
    deadline = time.monotonic() + _KILL_SECONDS
    while is_populated(path):
        (path / "cgroup.kill").write_text("1")
        if time.monotonic() > deadline:
            raise HostError(f"processes in {path} do not die; see {path}/cgroup.procs")
        time.sleep(0.01)
    for directory, _children, _files in os.walk(path, topdown=False):
        Path(directory).rmdir()
