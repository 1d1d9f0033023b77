"""Step 1 of 6, capture: the cgroup v2 subtree that marks who is governed.

ROOT/<instance>/enforcer          the supervisor and its workers; getsockopt is attached here
ROOT/<instance>/executors/<id>    one per executor; the connect hooks are attached at `executors`
"""

from __future__ import annotations

import ctypes
import errno
import os
import time
from dataclasses import dataclass
from pathlib import Path

from enforcer.errors import HostError

# How long processes may take to die after SIGKILL before a cgroup cannot be removed.
_KILL_SECONDS = 5.0
_IN_CREATE = 0x100  # sys/inotify.h

_libc = ctypes.CDLL(None, use_errno=True)


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


class ChildWatch:
    """A descriptor that becomes readable when a cgroup is made directly below one of those added (inotify(7))."""

    def __init__(self) -> None:
        self._fd = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            code = ctypes.get_errno()
            raise HostError(f"no inotify: {os.strerror(code)}; raise fs.inotify.max_user_instances")

    def fileno(self) -> int:
        return int(self._fd)

    def add(self, path: Path) -> None:
        """Raises HostError. Adding one twice is fine."""
        if _libc.inotify_add_watch(self._fd, bytes(path), _IN_CREATE) < 0:
            raise HostError(
                f"cannot watch {path}: {os.strerror(ctypes.get_errno())}; raise fs.inotify.max_user_watches"
            )

    def drain(self) -> None:
        """Forgets what made it readable."""
        try:
            while os.read(self._fd, 65536):
                pass
        except BlockingIOError:
            return

    def close(self) -> None:
        os.close(self._fd)


def processes(path: Path) -> list[int]:
    """Every process in the cgroup and below. What is removed meanwhile has none."""
    found: list[int] = []
    for directory, _children, _files in os.walk(path):
        try:
            found += map(int, (Path(directory) / "cgroup.procs").read_text().split())
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
                raise
    return found


def threads(pid: int) -> list[int]:
    """The ids of a process's threads, its own among them. One that has ended has none."""
    try:
        return [int(name) for name in os.listdir(f"/proc/{pid}/task")]  # noqa: PTH208 - of /proc, names are enough
    except OSError:
        return []


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
