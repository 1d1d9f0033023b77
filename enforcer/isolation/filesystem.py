"""What an executor sees of the host's files, and what it may write. Runs in its own mount namespace, as root.

The host's files stay where they are, with these exceptions:

- Every view of the kernel (proc, sysfs, cgroups, namespaces, devices, bpf ...) is taken off, wherever it is mounted;
  /proc, /sys and /dev are made anew, with what is the executor's own.
- /run is empty: there are the sockets of services that would open connections on an executor's behalf.
- The enforcer's own directories are empty.
- Set-user-ID bits and device nodes count nowhere.
- For root all else is read-only: without a capability it still owns root's files.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TextIO

from enforcer.errors import HostError
from enforcer.isolation import kernel
from enforcer.isolation.kernel import (
    ATTR_NODEV,
    ATTR_NOEXEC,
    ATTR_NOSUID,
    ATTR_RDONLY,
    MS_NODEV,
    MS_NOEXEC,
    MS_NOSUID,
    MS_RDONLY,
)

# Through each of them the kernel of the whole host is seen or steered.
_VIEWS_OF_THE_KERNEL = frozenset(
    [
        "binfmt_misc",
        "bpf",
        "cgroup",
        "cgroup2",
        "configfs",
        "debugfs",
        "devpts",
        "devtmpfs",
        "efivarfs",
        "fusectl",
        "mqueue",
        "nsfs",
        "proc",
        "pstore",
        "rpc_pipefs",
        "securityfs",
        "selinuxfs",
        "smackfs",
        "sysfs",
        "tracefs",
    ]
)
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty")
_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# Tell of the host, its memory, its keys and timers, or its hardware.
_MASKED = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/kcore",
    "/proc/key-users",
    "/proc/keys",
    "/proc/kmsg",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/sys/firmware",
    "/sys/devices/virtual/powercap",
)
# What root may write without being asked.
_WRITABLE = (Path("/tmp"), Path("/var/tmp"))  # noqa: S108 - the host's own, as for every user
# Where the authorities that an executor trusts are, on every system: as PEM text, and as a Java keystore.
TRUST, JAVA_TRUST = Path("/run/ca-bundle.pem"), Path("/run/ca-bundle.jks")
# Where systems keep theirs as one file: Debian, Red Hat, SUSE, Alpine.
SYSTEM_BUNDLES = (
    Path("/etc/ssl/certs/ca-certificates.crt"),
    Path("/etc/pki/tls/certs/ca-bundle.crt"),
    Path("/etc/ssl/ca-bundle.pem"),
    Path("/etc/ssl/cert.pem"),
)
# The same for Java: Debian, Red Hat, SUSE.
SYSTEM_KEYSTORES = (
    Path("/etc/ssl/certs/java/cacerts"),
    Path("/etc/pki/ca-trust/extracted/java/cacerts"),
    Path("/var/lib/ca-certificates/java-cacerts"),
)
_INERT = MS_NOSUID | MS_NODEV | MS_NOEXEC
# An empty directory needs no room.
_EMPTY = "size=4k,nr_inodes=16,mode=555"


@dataclass(frozen=True, slots=True)
class View:
    """`hidden`: directories that appear empty. `exposed`: paths of the host that stay where they would be gone.
    `terminal`: the caller's, which becomes /dev/console. `read_only`: write only to `writable`, /tmp and /var/tmp.
    `trust`: the file of authorities that takes the place of the system's; `java_trust`: the same as a keystore."""

    hidden: tuple[Path, ...] = ()
    exposed: tuple[Path, ...] = ()
    terminal: str = ""
    read_only: bool = False
    writable: tuple[Path, ...] = field(default=())
    trust: Path | None = None
    java_trust: Path | None = None


def build(view: View) -> None:
    """Changes this mount namespace into the executor's. Raises HostError, OSError; then it must not be used."""
    kernel.keep_mounts_private()
    devices = {name: kernel.pick(f"/dev/{name}") for name in _DEVICES}
    if view.terminal:
        devices["console"] = kernel.pick(view.terminal)
    stores = ((view.trust, TRUST, SYSTEM_BUNDLES), (view.java_trust, JAVA_TRUST, SYSTEM_KEYSTORES))
    trusted = [(kernel.pick(str(file)), place, systems) for file, place, systems in stores if file is not None]
    exposed = {path: kernel.pick(str(path)) for path in view.exposed}
    with Path("/proc/self/mountinfo").open() as listing:
        _take_off_views_of_the_kernel(listing)
    kernel.restrict("/", ATTR_NOSUID | ATTR_NODEV, recursive=True)
    if view.read_only:
        _make_read_only((*_WRITABLE, *view.writable))
    _make_dev(devices)
    _make_proc()
    kernel.mount("sysfs", "/sys", _INERT | MS_RDONLY)
    _mask(_MASKED)
    _make_run()
    for picked, place, systems in trusted:
        _put_trust(picked, place, systems)
    for path, picked in exposed.items():
        _put_back(path, picked, view.read_only)
    kernel.restrict("/dev", ATTR_RDONLY)
    _empty(view.hidden)


def _take_off_views_of_the_kernel(listing: TextIO) -> None:
    """Unmounts the last one until there is none, so that what lies on another goes first."""
    covered: set[str] = set()
    while True:
        listing.seek(0)
        found = [place for place in map(_view_of_the_kernel, listing) if place and place not in covered]
        if not found:
            return
        try:
            kernel.unmount(found[-1])
        except OSError as error:
            # Another mount hides it, which nobody in here can take off: then it is out of reach as well.
            if error.errno not in (errno.EINVAL, errno.ENOENT) or _is_view_of_the_kernel(found[-1], listing):
                raise HostError(f"cannot hide {found[-1]}: {error.strerror}; unmount it on the host") from error
            covered.add(found[-1])


def _view_of_the_kernel(line: str) -> str:
    """The mount point of a line of mountinfo (proc(5)), empty for ordinary file systems."""
    before, _, after = line.partition(" - ")
    if after.split(" ")[0] not in _VIEWS_OF_THE_KERNEL:
        return ""
    return re.sub(r"\\(\d{3})", lambda octal: chr(int(octal[1], 8)), before.split(" ")[4])


def _is_view_of_the_kernel(place: str, listing: TextIO) -> bool:
    """Does the path lead to such a file system, by its device number?"""
    try:
        status = os.stat(place)  # noqa: PTH116 - as the other calls here
    except OSError:
        return False
    device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    listing.seek(0)
    return any(line.split(" ")[2] == device for line in listing if _view_of_the_kernel(line))


def _make_read_only(writable: Iterable[Path]) -> None:
    """Everything but `writable`; what is mounted below those stays read-only too."""
    open_to_all = [path for path in writable if path.is_dir() and not os.statvfs(path).f_flag & os.ST_RDONLY]
    for path in open_to_all:
        kernel.bind(str(path), str(path), recursive=True)
    kernel.restrict("/", ATTR_RDONLY, recursive=True)
    for path in open_to_all:
        kernel.restrict(str(path), 0, allow=ATTR_RDONLY)


def _make_dev(devices: dict[str, int]) -> None:
    kernel.mount("tmpfs", "/dev", _INERT, "size=64k,nr_inodes=256,mode=755")
    for name, picked in devices.items():
        (Path("/dev") / name).touch()
        # The node is the host's: it can be written to all the same, but not given other permissions.
        kernel.restrict(picked, ATTR_RDONLY | ATTR_NOSUID | ATTR_NOEXEC)
        kernel.put(picked, f"/dev/{name}")
    for name, target in _LINKS.items():
        (Path("/dev") / name).symlink_to(target)
    for name in ("pts", "shm", "mqueue"):
        (Path("/dev") / name).mkdir()
    # Group 5 is tty on every Debian (base-passwd); ptmx is for all, as only one's own terminals are in here.
    kernel.mount("devpts", "/dev/pts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    kernel.mount("tmpfs", "/dev/shm", MS_NOSUID | MS_NODEV, "mode=1777")  # noqa: S108 - new and its own
    kernel.mount("mqueue", "/dev/mqueue", _INERT)


def _make_proc() -> None:
    """Files of processes as ever; what is the host's can be read, and written by nobody, root included."""
    kernel.mount("proc", "/proc", _INERT)
    with os.scandir("/proc") as entries:
        hosts = [entry for entry in entries if not entry.name.isdecimal() and not entry.is_symlink()]
    for entry in hosts:
        if entry.is_dir() or entry.stat().st_mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH):
            kernel.bind(entry.path, entry.path)
            kernel.restrict(entry.path, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)


def _mask(paths: Iterable[str]) -> None:
    for path in map(Path, paths):
        if path.is_dir():
            kernel.mount("tmpfs", str(path), _INERT | MS_RDONLY, _EMPTY)
        elif path.exists():
            kernel.bind("/dev/null", str(path))


def _make_run() -> None:
    """Also /var/run, where that is not the link it should be."""
    for path in (Path("/run"), Path("/var/run")):
        if path.is_dir() and not path.is_symlink():
            kernel.mount("tmpfs", str(path), MS_NOSUID | MS_NODEV, "size=16m,mode=755")


def _put_trust(picked: int, place: Path, systems: Iterable[Path]) -> None:
    """At `place`, and over every one that the system has: the host's file, which nobody may write to in here."""
    kernel.restrict(picked, ATTR_RDONLY | ATTR_NOSUID | ATTR_NODEV | ATTR_NOEXEC)
    place.touch()
    kernel.put(picked, str(place))
    for path in systems:
        if path.is_file():
            kernel.bind(str(place), str(path))


def _put_back(path: Path, picked: int, read_only: bool) -> None:
    below_dev = path.is_relative_to("/dev")
    attributes = ATTR_NOSUID | (0 if below_dev else ATTR_NODEV) | (ATTR_RDONLY if read_only else 0)
    kernel.restrict(picked, attributes)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        if stat.S_ISDIR(os.fstat(picked).st_mode):
            path.mkdir()
        else:
            path.touch()
    kernel.put(picked, str(path))


def _empty(hidden: Iterable[Path]) -> None:
    """Last, so that nothing that was put back shows them again."""
    for path in hidden:
        if path.is_dir():
            kernel.mount("tmpfs", str(path), _INERT | MS_RDONLY, _EMPTY)
