"""The ways that stay open to an executor that runs as root in attached mode, and what closes each.

An attached executor keeps what its service had: with root's capabilities it can ask others to send for it, change who
sends, or take the programs off. Isolated executors have no capability at all. docs/security.md lists the same ways.
Each is tried in the throw-away cgroup, on throw-away objects, as far as it takes to see that nothing stops it.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import secrets
import signal
import socket
import stat
import struct
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from enforcer.capture import cgroup, sysbpf
from enforcer.doctor import attempts, sockets, users
from enforcer.doctor.checks import CannotTell, Place
from enforcer.doctor.children import CLONE_NEWNET, libc, private_mounts, system, within
from enforcer.doctor.stage import FAR4, Far, Stage
from enforcer.isolation import kernel

# (x86_64, aarch64): arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_FINIT_MODULE, _KEXEC_LOAD = {"x86_64": 313, "aarch64": 273}, {"x86_64": 246, "aarch64": 104}
_IO_URING_SETUP, _PIDFD_OPEN, _PIDFD_GETFD = 425, 434, 438
_BAD_KEXEC_FLAGS, _TOO_MANY_SEGMENTS = 0x4000, 0xFFFF
_AF_VSOCK, _AF_XDP = 40, 44
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000  # linux/if_tun.h
_MEMORY_DEVICE = os.makedev(1, 1)
# Seconds until a process that nobody could move out ends.
MOVED_LIMIT = 0.5
# What closes a way: it is refused, or there is no such thing here.
_CLOSING = frozenset(
    [errno.EPERM, errno.EACCES, errno.EROFS, errno.ENOSYS, errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EAFNOSUPPORT,
     errno.ECONNREFUSED]
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Way:
    """`way`: what the executor does. `mend`: what closes it, short of isolated mode, which closes every one.
    `tried(stage)` raises OSError when something stops it; what it returns is said where it is open."""

    name: str
    way: str
    mend: str
    tried: Callable[[Stage], str]


def _call(numbers: dict[str, int], *arguments: int) -> None:
    number = numbers.get(platform.machine())
    if number is None:
        raise CannotTell(f"the number of a system call is not known on {platform.machine()}")
    system(libc.syscall(number, *arguments))


def _load_module(stage: Stage) -> str:
    """A descriptor that is none: refused for that, once the right to load was granted."""
    return _reaches(stage, errno.EBADF, lambda: _call(_FINIT_MODULE, -1, 0, 0))


def _boot_kernel(stage: Stage) -> str:
    """Flags that mean nothing: refused for that, before anything is looked at."""
    return _reaches(stage, errno.EINVAL, lambda: _call(_KEXEC_LOAD, 0, _TOO_MANY_SEGMENTS, 0, _BAD_KEXEC_FLAGS))


def _reaches(stage: Stage, code: int, function: Callable[[], None]) -> str:
    try:
        within(function, group=stage.executor)
    except OSError as error:
        if error.errno != code:
            raise
    return ""


def _open_memory(stage: Stage) -> str:
    def open_it() -> None:
        private_mounts()
        # A file system of its own: those there are may know no devices.
        system(libc.mount(b"none", b"/proc", b"tmpfs", 0, None))
        os.mknod("/proc/mem", stat.S_IFCHR | 0o600, _MEMORY_DEVICE)
        os.close(os.open("/proc/mem", os.O_RDWR))

    within(open_it, group=stage.executor)
    return ""


def _born_elsewhere(stage: Stage) -> str:
    text = b"born " + secrets.token_hex(8).encode()
    far = stage.far

    def bear() -> None:
        outside = os.open(stage.outside, os.O_RDONLY | os.O_DIRECTORY)
        child = kernel.birth(0, outside)
        if child == 0:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(text, (FAR4, 9))
            os._exit(0)
        os.waitpid(child, 0)

    within(bear, group=stage.executor, netns=stage.near)
    return _if_arrived(stage, far, text)


def _moved_elsewhere(stage: Stage) -> str:
    text = b"moved " + secrets.token_hex(8).encode()
    far = stage.far

    def be_moved() -> None:
        deadline = time.monotonic() + MOVED_LIMIT
        while stage.outside.name not in Path("/proc/self/cgroup").read_text():
            if time.monotonic() > deadline:
                return
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.sendto(text, (FAR4, 9))

    def move() -> None:
        target = _forked(be_moved)
        # Who moves another dies of it: no exit status, which is an error number here.
        _, status = os.waitpid(_forked(lambda: cgroup.join(stage.outside, target)), 0)
        os.waitpid(target, 0)
        if (code := os.waitstatus_to_exitcode(status)) > 0:
            raise OSError(code, os.strerror(code))

    within(move, group=stage.executor, netns=stage.near)
    return _if_arrived(stage, far, text)


def _forked(function: Callable[[], object]) -> int:
    """A child that ends with 0, or with the number of the OSError that `function` raised."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            function()
            code = 0
        except OSError as error:
            code = error.errno or 1
        finally:
            os._exit(code)
    return child


def _if_arrived(stage: Stage, far: Far, text: bytes) -> str:
    if not any(text in frame for frame in far.frames_until(attempts.mark(stage))):
        raise PermissionError(errno.EPERM, "its datagram did not arrive")
    return "its datagram arrived"


def _detach(stage: Stage) -> str:
    """A link of the throw-away instance: taken by its pin; or the pin moved, for which it takes what removing does."""
    link = next((path for path in stage.pins.links.rglob("*") if path.is_file()), None)
    if link is None:
        raise CannotTell("the programs are not attached")

    def take() -> None:
        os.close(sysbpf.get_pinned(link))

    def move() -> None:
        link.rename(link.with_name("moved"))
        link.with_name("moved").rename(link)

    try:
        within(take, group=stage.executor)
    except PermissionError:
        within(move, group=stage.executor)
        return "by its pin"
    return ""


def _enter_namespace(stage: Stage) -> str:
    within(lambda: system(libc.setns(stage.near, CLONE_NEWNET)), group=stage.executor)
    return ""


def _mount(stage: Stage) -> str:
    def mount() -> None:
        private_mounts()
        system(libc.mount(b"none", b"/proc", b"tmpfs", 0, None))

    within(mount, group=stage.executor)
    return ""


def _configure_network(stage: Stage) -> str:
    def add() -> None:
        try:
            with IPRoute() as links:
                links.link("add", ifname="tunnel", kind="veth", peer="tunnel-end")
                links.link("del", ifname="tunnel")
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error

    within(add, group=stage.executor, netns=stage.near)
    return ""


def _packet_socket(stage: Stage) -> str:
    if not attempts.escaped(stage, attempts.FRAMES):
        raise PermissionError(errno.EPERM, "dropped at the interface")
    return "its frame arrived"


def _vsock(stage: Stage) -> str:
    within(lambda: socket.socket(_AF_VSOCK, socket.SOCK_STREAM).close(), group=stage.executor)
    return ""


def _xdp(stage: Stage) -> str:
    within(lambda: socket.socket(_AF_XDP, socket.SOCK_RAW).close(), group=stage.executor)
    return ""


def _tun(stage: Stage) -> str:
    def open_it() -> None:
        with open("/dev/net/tun", "r+b", buffering=0) as device:  # noqa: PTH123 - a device
            fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"", _IFF_TUN | _IFF_NO_PI))

    within(open_it, group=stage.executor, netns=stage.near)
    return ""


def _open_disk(stage: Stage) -> str:
    disks = [path for path in Path("/dev").iterdir() if path.is_block_device()]
    if not disks:
        raise CannotTell("this host shows no disk")
    within(lambda: os.close(os.open(disks[0], os.O_RDWR)), group=stage.executor)
    return f"{disks[0]} can be written"


def _io_uring(stage: Stage) -> str:
    def setup() -> None:
        parameters = ctypes.create_string_buffer(120)
        system(libc.syscall(_IO_URING_SETUP, 1, parameters))

    within(setup, group=stage.executor)
    return ""


def _trace(stage: Stage) -> str:
    target = _ungoverned(stage, signal.pause)
    try:
        within(lambda: users.seize(target), group=stage.executor)
    finally:
        _end(target)
    return ""


def _steal_socket(stage: Stage) -> str:
    """An ungoverned process's UDP socket, which then sends for the executor."""
    text = b"stolen " + secrets.token_hex(8).encode()
    reader, writer = os.pipe()

    def hold() -> None:
        system(libc.setns(stage.near, CLONE_NEWNET))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect((FAR4, 9))
            os.write(writer, bytes([sock.fileno()]))
            signal.pause()

    far = stage.far
    target = _ungoverned(stage, hold)
    try:
        descriptor = os.read(reader, 1)[0]

        def steal() -> None:
            process = system(libc.syscall(_PIDFD_OPEN, target, 0))
            stolen = system(libc.syscall(_PIDFD_GETFD, process, descriptor, 0))
            socket.socket(fileno=stolen).send(text)

        within(steal, group=stage.executor)
    finally:
        _end(target)
        os.close(reader)
        os.close(writer)
    return _if_arrived(stage, far, text)


def _ungoverned(stage: Stage, function: Callable[[], object]) -> int:
    child = os.fork()
    if child == 0:
        try:
            cgroup.join(stage.outside, os.getpid())
            function()
        finally:
            os._exit(1)
    return child


def _end(child: int) -> None:
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def _ask_services(_stage: Stage) -> str:
    found = sockets.reachable(None)
    if not found:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "none of them listens here")
    return ", ".join(one.path for one in found)


def _write_files(stage: Stage) -> str:
    """A file in /etc that has no name, and ends with its descriptor."""
    within(lambda: tempfile.TemporaryFile(dir="/etc").close(), group=stage.executor)
    return ""


def _opens(path: str) -> Callable[[Stage], str]:
    """Opened for writing, and nothing written."""

    def tried(stage: Stage) -> str:
        within(lambda: os.close(os.open(path, os.O_WRONLY)), group=stage.executor)
        return ""

    return tried


def _change_root(stage: Stage) -> str:
    within(lambda: os.chroot("/"), group=stage.executor)
    return ""


def _kill(stage: Stage) -> str:
    target = _ungoverned(stage, signal.pause)
    try:
        within(lambda: os.kill(target, signal.SIGKILL), group=stage.executor)
    finally:
        _end(target)
    return ""


_CAPABILITY = "CapabilityBoundingSet= without {} in the service's unit"
WAYS = (
    Way(
        "CLONE_INTO_CGROUP", "has a child born in a cgroup that is not governed (moving there is noticed, and deadly)",
        "run it as an ordinary user; SystemCallFilter=~clone3 in the service's unit", _born_elsewhere,
    ),
    Way(
        "cgroup.procs", "moves another process out: the mover dies at once, the moved one within a quarter of a second",
        "run it as an ordinary user; ProtectControlGroups=yes in the service's unit", _moved_elsewhere,
    ),
    Way(
        "bpf", "takes the programs off or writes their maps with bpf(2), or removes their pins below /sys/fs/bpf",
        f"{_CAPABILITY.format('CAP_BPF and CAP_SYS_ADMIN')}; InaccessiblePaths=/sys/fs/bpf", _detach,
    ),
    Way(
        "ptrace", "makes an ungoverned process send, with ptrace(2) or /proc/PID/mem",
        f"{_CAPABILITY.format('CAP_SYS_PTRACE')}; sysctl -w kernel.yama.ptrace_scope=3", _trace,
    ),
    Way(
        "pidfd_getfd", "takes a socket from an ungoverned process, which sends as that process",
        f"{_CAPABILITY.format('CAP_SYS_PTRACE')}, and pass it no socket", _steal_socket,
    ),
    Way(
        "services", "asks docker.sock, containerd, the system bus or systemd to start a process elsewhere",
        "InaccessiblePaths= for the sockets; no executor needs them", _ask_services,
    ),
    Way(
        "files", "writes what an ungoverned process runs (cron tables, units, profiles), or the enforcer's own files",
        "ProtectSystem=strict in the service's unit, and run it as an ordinary user", _write_files,
    ),
    Way(
        "core_pattern", "has the kernel start a program outside, through core_pattern or another helper",
        "ProtectKernelTunables=yes in the service's unit", _opens("/proc/sys/kernel/core_pattern"),
    ),
    Way(
        "kernel log", "speaks through /dev/kmsg, which log shippers forward",
        "ProtectKernelLogs=yes in the service's unit", _opens("/dev/kmsg"),
    ),
    Way(
        "sysrq", "restarts or crashes the host by /proc/sysrq-trigger, or has it write to the kernel's log",
        "ProtectKernelTunables=yes in the service's unit", _opens("/proc/sysrq-trigger"),
    ),
    Way(
        "kill", "ends processes outside, the enforcer's among them (nothing opens then, and nothing works)",
        "run it as an ordinary user, or a kernel that takes BPF LSM programs", _kill,
    ),
    Way(
        "chroot", "leaves a root directory that it was shut into, to what lies outside",
        f"{_CAPABILITY.format('CAP_SYS_CHROOT')}, and no root directory of its own", _change_root,
    ),
    Way(
        "setns", "enters another network, mount or PID namespace and what is reachable from there",
        _CAPABILITY.format("CAP_SYS_ADMIN"), _enter_namespace,
    ),
    Way(
        "mount", "mounts NFS, CIFS or another file system for which the kernel itself sends, or a second cgroup2",
        _CAPABILITY.format("CAP_SYS_ADMIN"), _mount,
    ),
    Way(
        "netlink", "adds tunnels, routes or traffic rules, for which the kernel itself sends",
        _CAPABILITY.format("CAP_NET_ADMIN"), _configure_network,
    ),
    Way(
        "AF_PACKET", "writes whole frames to an interface, past the hooks on sockets",
        f"{_CAPABILITY.format('CAP_NET_RAW')}, or a kernel that takes BPF LSM programs", _packet_socket,
    ),
    Way(
        "AF_XDP", "writes frames to an interface past the filter there",
        f"{_CAPABILITY.format('CAP_NET_RAW')}, or a kernel that takes BPF LSM programs", _xdp,
    ),
    Way(
        "TUN", "has the host forward packets that seem to come in by a device of its own",
        f"{_CAPABILITY.format('CAP_NET_ADMIN')}; PrivateDevices=yes", _tun,
    ),
    Way(
        "disks", "writes a disk past its file system", "PrivateDevices=yes in the service's unit", _open_disk,
    ),
    Way(
        "AF_VSOCK", "speaks to the hypervisor, past the network",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6, or a kernel that takes BPF LSM programs", _vsock,
    ),
    Way(
        "io_uring", "makes system calls that no filter on system calls sees (the hooks on sockets do)",
        "sysctl -w kernel.io_uring_disabled=2", _io_uring,
    ),
    Way(
        "kernel module", "loads code into the kernel",
        f"{_CAPABILITY.format('CAP_SYS_MODULE')}; sysctl -w kernel.modules_disabled=1", _load_module,
    ),
    Way(
        "/dev/mem", "writes to the kernel's memory", "boot with lockdown=integrity, as Secure Boot does", _open_memory,
    ),
    Way(
        "kexec", "boots a kernel of its own", "sysctl -w kernel.kexec_load_disabled=1", _boot_kernel,
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """`open`: nothing stopped it; None when it could not be tried, which counts as open."""

    way: Way
    open: bool | None
    detail: str


def try_all(place: Place) -> list[Tried]:
    return [_try(way, place) for way in WAYS]


def _try(way: Way, place: Place) -> Tried:
    try:
        return Tried(way, True, way.tried(place.stage))
    except CannotTell as error:
        return Tried(way, None, str(error))
    except OSError as error:
        # Anything but a refusal or an absence tells nothing of what a better try would do.
        return Tried(way, False if error.errno in _CLOSING else None, error.strerror or str(error))
    except Exception as error:  # noqa: BLE001 - whatever was not foreseen must not read as closed
        return Tried(way, None, f"{type(error).__name__}: {error}")
