"""Leaving namespaces and cgroups, and what only root can ask of the kernel."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from enforcer.probe.inside.kit import PATIENCE, Case, Missing, check, libc, syscall, technique

_NAMESPACE = "no capability for setns(), and no process or namespace file of the host in sight"
_CGROUP = "the executor sees no cgroup tree that it may write to; its empty network goes with it"
_FILE = "the executor sees a read-only file system, and has no capability"
_NEWNS, _NEWNET, _NEWUSER = 0x00020000, 0x40000000, 0x10000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000
_CLONE_INTO_CGROUP, _SIGCHLD = 0x200000000, 17
_LOOP = stat.S_IFBLK | 0o600


def _enter(namespace: int, kinds: int) -> None:
    """Leaves where we are for an empty network, so that coming back means something outside as well; then enters."""
    with contextlib.suppress(OSError):
        check(libc.unshare(_NEWNET), "unshare")
    check(libc.setns(namespace, kinds), "setns")


@technique("namespace-by-process", "namespaces", _NAMESPACE, users="root", stage="neighbour")
def namespace_by_process(c: Case) -> None:
    """setns() to the network of a process outside, by /proc/PID/ns/net."""
    with Path(f"/proc/{c.values['neighbour']['pid']}/ns/net").open("rb") as namespace:
        _enter(namespace.fileno(), _NEWNET)
    c.tcp(c.peer4)


@technique("namespace-by-pidfd", "namespaces", _NAMESPACE, users="root", stage="neighbour")
def namespace_by_pidfd(c: Case) -> None:
    """setns() to the network of a process outside, by its pidfd."""
    _enter(syscall("pidfd_open", c.values["neighbour"]["pid"], 0), _NEWNET)
    c.tcp(c.peer4)


@technique("namespace-by-name", "namespaces", _NAMESPACE, users="root", stage="host-namespace")
def namespace_by_name(c: Case) -> None:
    """setns() to a named network namespace below /run/netns."""
    with Path(c.values["namespace"]).open("rb") as namespace:
        _enter(namespace.fileno(), _NEWNET)
    c.tcp(c.peer4)


@technique("namespace-user", "namespaces", _NAMESPACE, stage="neighbour")
def namespace_user(c: Case) -> None:
    """A user namespace of one's own for its capabilities, and with them into the memory of a process outside."""
    with Path(f"/proc/{c.values['neighbour']['pid']}/mem").open("r+b", buffering=0) as memory:
        check(libc.unshare(_NEWUSER), "unshare")
        memory.seek(c.values["neighbour"]["buffer"])
        memory.write(c.payload)


@technique(
    "chroot-left",
    "namespaces",
    "no capability for chroot(); the host's root is not mounted here",
    users="root",
    stage="neighbour",
)
def chroot_left(c: Case) -> None:
    """Out of a chroot the old way, up to the host's root, and to a service's socket from there."""
    with tempfile.TemporaryDirectory() as directory:
        here = os.open(".", os.O_RDONLY)
        os.chroot(directory)
        os.fchdir(here)
        for _ in range(64):
            os.chdir("..")
        os.chroot(".")
        os.close(here)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(c.values["sockets"]["run"])
            c.talk(sock)


def _own_cgroup(mount: Path) -> Path:
    line = next(one for one in Path("/proc/self/cgroup").read_text().splitlines() if one.startswith("0::"))
    return mount / line[3:].lstrip("/")


def _in_child(c: Case, group: Path) -> None:
    """Joins the cgroup in a process of its own, which connects and ends, so that the cgroup can be removed."""
    child = os.fork()
    if child == 0:
        try:
            (group / "cgroup.procs").write_text("0")
            c.tcp(c.peer4)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(code))


@technique("cgroup-child", "cgroups", "what is attached above holds below", users="root", stage="cgroup")
def cgroup_child(c: Case) -> None:
    """A cgroup below one's own."""
    group = _own_cgroup(Path(c.values["mount"])) / c.values["child"]
    group.mkdir()
    try:
        _in_child(c, group)
    finally:
        group.rmdir()


@technique("cgroup-left", "cgroups", _CGROUP, users="root", stage="cgroup")
def cgroup_left(c: Case) -> None:
    """cgroup.procs of a cgroup outside."""
    _in_child(c, Path(c.values["cgroup"]))


@technique("cgroup-moved", "cgroups", _CGROUP, users="root", stage="cgroup")
def cgroup_moved(c: Case) -> None:
    """A process moved to a cgroup outside by another, which connects the moment it is there."""
    group = Path(c.values["cgroup"])
    moved = os.fork()
    if moved == 0:
        deadline = time.monotonic() + PATIENCE
        try:
            while _own_cgroup(group.parent) != group:
                if time.monotonic() > deadline:
                    os._exit(errno.ETIMEDOUT)
            c.tcp(c.peer4)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    try:
        _write_in_child(group / "cgroup.procs", str(moved))
    except OSError:
        os.kill(moved, signal.SIGKILL)
        raise
    finally:
        _pid, status = os.waitpid(moved, 0)
    if code := os.waitstatus_to_exitcode(status):
        raise OSError(code, os.strerror(code))


def _write_in_child(path: Path, text: str) -> None:
    """Raises the OSError that the write failed with; that the child died of it is no failure."""
    child = os.fork()
    if child == 0:
        try:
            path.write_text(text)
        except OSError as error:
            os._exit(error.errno or 1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        raise OSError(code, os.strerror(code))


@technique("cgroup-born", "cgroups", _CGROUP, users="root", stage="cgroup")
def cgroup_born(c: Case) -> None:
    """A process born in a cgroup outside, CLONE_INTO_CGROUP."""
    group = os.open(c.values["cgroup"], os.O_RDONLY | os.O_DIRECTORY)
    arguments = struct.pack("=11Q", _CLONE_INTO_CGROUP, 0, 0, 0, _SIGCHLD, 0, 0, 0, 0, 0, group)
    child = syscall("clone3", arguments, len(arguments))
    if child == 0:
        try:
            c.tcp(c.peer4)
        except OSError:
            os._exit(1)
        os._exit(0)
    _pid, status = os.waitpid(child, 0)
    if status:
        raise OSError("the connection from there failed")


@contextlib.contextmanager
def _mounted(kind: str, source: str = "none", options: str = "") -> Iterator[Path]:
    """A mount in a mount namespace of its own, which goes with this process."""
    check(libc.unshare(_NEWNS), "unshare")
    check(libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount")
    with tempfile.TemporaryDirectory() as directory:
        check(libc.mount(source.encode(), directory.encode(), kind.encode(), 0, options.encode()), "mount")
        try:
            yield Path(directory)
        finally:
            libc.umount2(directory.encode(), 2)


@technique("cgroup-mounted", "cgroups", _CGROUP, users="root", stage="cgroup")
def cgroup_mounted(c: Case) -> None:
    """The cgroup tree mounted a second time, writable."""
    with _mounted("cgroup2") as mount:
        _in_child(c, mount / Path(c.values["cgroup"]).relative_to(c.values["mount"]))


@technique("mount-network", "privileges", "no capability to mount; seccomp refuses mount()", users="root")
def mount_network(c: Case) -> None:
    """A network file system of the far side, whose connection is the kernel's: 9p, NFS or CIFS."""
    options = {
        "9p": (c.peer4, f"trans=tcp,port={c.port}"),
        "nfs4": (f"{c.peer4}:/", f"addr={c.peer4},port={c.port},clientaddr=0.0.0.0,soft,timeo=2,retrans=1"),
        "cifs": (f"//{c.peer4}/x", f"ip={c.peer4},port={c.port},user=x,pass=x"),
    }
    known = Path("/proc/filesystems").read_text().split()
    chosen = [kind for kind in options if kind in known]
    if not chosen:
        raise Missing("a network file system in this kernel")
    for kind in chosen:
        source, wish = options[kind]
        with contextlib.suppress(OSError), _mounted(kind, source, wish):
            return


@technique("host-file", "privileges", _FILE, users="root", stage="host-file")
def host_file(c: Case) -> None:
    """A file where the host runs what it finds: cron, the service manager."""
    failure: OSError | None = None
    for path in c.values["files"]:
        try:
            Path(path).write_text(f"# {c.token}\n")
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


@technique("kernel-helper", "privileges", _FILE, users="root", stage="core-pattern")
def kernel_helper(c: Case) -> None:
    """The program that the kernel runs, as root outside, when a process crashes: kernel.core_pattern."""
    Path("/proc/sys/kernel/core_pattern").write_text(f"core.{c.token}")


@technique("kernel-helper-module", "privileges", _FILE, users="root", stage="modprobe")
def kernel_helper_module(c: Case) -> None:
    """The program that the kernel runs to load a module: kernel.modprobe."""
    Path("/proc/sys/kernel/modprobe").write_text(f"/nonexistent/{c.token}")


@technique("kernel-helper-device", "privileges", _FILE, users="root", stage="uevent")
def kernel_helper_device(c: Case) -> None:
    """The program that the kernel runs for a new device: /sys/kernel/uevent_helper."""
    Path("/sys/kernel/uevent_helper").write_text(f"/nonexistent/{c.token}")


@technique("kernel-log", "privileges", "the executor's /dev has no kernel log", users="root", stage="kernel-log")
def kernel_log(c: Case) -> None:
    """The kernel's log, which log shippers forward."""
    Path("/dev/kmsg").write_text(f"{c.token}\n")


@technique("sysrq", "privileges", _FILE, users="root", stage="sysrq")
def sysrq(_c: Case) -> None:
    """/proc/sysrq-trigger, by which a host is rebooted; here it is only asked for help."""
    Path("/proc/sysrq-trigger").write_text("h")


@technique("block-device", "privileges", "no capability for mknod(); devices are closed", users="root", stage="disk")
def block_device(c: Case) -> None:
    """A device node for a disk of the host, written past its file system."""
    with tempfile.TemporaryDirectory() as directory:
        node = Path(directory, "disk")
        os.mknod(node, _LOOP, os.makedev(*c.values["device"]))
        disk = os.open(node, os.O_WRONLY | os.O_SYNC)
        try:
            os.write(disk, c.payload)
        finally:
            os.close(disk)


@technique("module", "privileges", "no capability to load modules", users="root", stage="module")
def module(c: Case) -> None:
    """A module loaded into the kernel."""
    text = bytes.fromhex(c.values["module"])
    buffer = ctypes.create_string_buffer(text, len(text))
    syscall("init_module", buffer, len(text), b"")
