"""Checks of what this host lets an ordinary user do, done as that user."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import grp
import os
import platform
import pty
import pwd
import signal
import socket
import struct
import termios
from collections.abc import Callable
from typing import Any

from enforcer.doctor import sockets
from enforcer.doctor.checks import CannotTell, Outcome, Place, missing, ok
from enforcer.doctor.children import CLONE_NEWUSER, libc, system, within

_AF_ALG, _AF_VSOCK = 38, 40
# System call numbers: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_BPF = {"x86_64": 321, "aarch64": 280}
_IO_URING_SETUP = 425
_PTRACE_SEIZE, _PR_SET_DUMPABLE = 0x4206, 4
_MAP_CREATE, _MAP_TYPE_ARRAY = 0, 2
# Groups whose members are root by another name, or may start what is.
POWERFUL_GROUPS = (
    "root", "docker", "podman", "containerd", "lxd", "incus", "incus-admin", "libvirt", "sudo", "wheel", "disk", "kvm",
    "shadow", "adm",
)  # fmt: skip
# It is forbidden, there is none here, or (user namespaces) as many as are allowed, perhaps none.
_REFUSALS = frozenset(
    [errno.EPERM, errno.EACCES, errno.ENOSYS, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT, errno.ESOCKTNOSUPPORT,
     errno.ENOSPC, errno.EUSERS, errno.EINVAL]
)  # fmt: skip
_ISOLATED = "run the executor isolated"


def _refused(user: pwd.struct_passwd, function: Callable[[], Any]) -> str:
    """Why `user` may not do it; empty when it could. Raises CannotTell where it failed for another reason."""
    try:
        within(function, user=user)
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno not in _REFUSALS:
            raise CannotTell(f"tried as {user.pw_name}: {reason}") from error
        return reason
    return ""


def account(place: Place) -> Outcome:
    groups = powerful_groups(place.user)
    name = place.user.pw_name
    if place.user.pw_uid == 0:
        return missing(f"user {name} is root", "name an ordinary user with --user")
    if groups:
        return missing(f"user {name} is in group {', '.join(groups)}", f"gpasswd --delete {name} {groups[0]}")
    if name == place.settings.user:
        return missing(f"user {name} is the workers' user", "give executors a user of their own")
    return ok(f"user {name} is an ordinary user, in no group that lends it root")


def powerful_groups(user: pwd.struct_passwd) -> list[str]:
    idents = os.getgrouplist(user.pw_name, user.pw_gid)
    names = []
    for ident in idents:
        try:
            names.append(grp.getgrgid(ident).gr_name)
        except KeyError:
            continue
    return [name for name in names if name in POWERFUL_GROUPS]


def services(place: Place) -> Outcome:
    """Those that start processes, which nothing here governs."""
    return _accepting(place, starts=True, nobody="no container runtime or session manager")


def helpers(place: Place) -> Outcome:
    """Those that look up, forward or configure on behalf of whoever asks."""
    return _accepting(place, starts=False, nobody="no system bus, resolver or package service")


def _accepting(place: Place, *, starts: bool, nobody: str) -> Outcome:
    found = [one for one in sockets.reachable(place.user) if one.service.starts == starts]
    if found:
        paths = ", ".join(f"{one.service.name} at {one.path}" for one in found)
        return missing(f"user {place.user.pw_name} connected to {paths}", found[0].service.mend)
    return ok(f"{nobody} accepts user {place.user.pw_name}")


def user_namespaces(place: Place) -> Outcome:
    if reason := _refused(place.user, lambda: system(libc.unshare(CLONE_NEWUSER))):
        return ok(f"refused to user {place.user.pw_name}: {reason}")
    return missing(
        f"user {place.user.pw_name} made a user namespace, and is root in it", "sysctl -w user.max_user_namespaces=0"
    )


def _opens(family: int, kind: int, protocol: int = 0) -> Callable[[], None]:
    return lambda: socket.socket(family, kind, protocol).close()


def vsock(place: Place) -> Outcome:
    if reason := _refused(place.user, _opens(_AF_VSOCK, socket.SOCK_STREAM)):
        return ok(f"AF_VSOCK refused to user {place.user.pw_name}: {reason}")
    return missing(
        f"user {place.user.pw_name} opened AF_VSOCK: a way to the hypervisor that no network namespace closes",
        f"{_ISOLATED}, or with RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 in its unit",
    )


def packet(place: Place) -> Outcome:
    if reason := _refused(place.user, _opens(socket.AF_PACKET, socket.SOCK_RAW)):
        return ok(f"AF_PACKET refused to user {place.user.pw_name}: {reason}")
    return missing(f"user {place.user.pw_name} opened AF_PACKET", "take CAP_NET_RAW from what starts the executor")


def kernel_crypto(place: Place) -> Outcome:
    if reason := _refused(place.user, _opens(_AF_ALG, socket.SOCK_SEQPACKET)):
        return ok(f"AF_ALG refused to user {place.user.pw_name}: {reason}")
    return missing(f"user {place.user.pw_name} opened AF_ALG: attack surface, no way out", "blacklist module af_alg")


def ping(place: Place) -> Outcome:
    if reason := _refused(place.user, _opens(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP)):
        return ok(f"ICMP sockets refused to user {place.user.pw_name}: {reason}")
    return missing(f"user {place.user.pw_name} opened an ICMP echo socket", "sysctl -w net.ipv4.ping_group_range='1 0'")


def io_uring(place: Place) -> Outcome:
    def setup() -> None:
        parameters = ctypes.create_string_buffer(120)  # struct io_uring_params
        system(libc.syscall(_IO_URING_SETUP, 1, parameters))

    if reason := _refused(place.user, setup):
        return ok(f"refused to user {place.user.pw_name}: {reason}")
    return missing(
        f"user {place.user.pw_name} set up io_uring, which filters on system calls do not see",
        "sysctl -w kernel.io_uring_disabled=2 (Linux 6.6 or later)",
    )


def bpf(place: Place) -> Outcome:
    number = _BPF.get(platform.machine())
    if number is None:
        raise CannotTell(f"the number of bpf(2) is not known on {platform.machine()}")

    def create() -> None:
        buffer = ctypes.create_string_buffer(struct.pack("=IIIII", _MAP_TYPE_ARRAY, 4, 4, 1, 0), 128)
        system(libc.syscall(number, _MAP_CREATE, buffer, 128))

    if reason := _refused(place.user, create):
        return ok(f"refused to user {place.user.pw_name}: {reason}")
    return missing(f"user {place.user.pw_name} made a BPF map", "sysctl -w kernel.unprivileged_bpf_disabled=1")


def ptrace(place: Place) -> Outcome:
    """As the user: takes hold of a process of the same user that is not its child."""
    if seizes(place.user):
        return missing(
            f"user {place.user.pw_name} can trace, and so use, other processes of the same user",
            "give executors a user of their own, or a kernel with Yama sysctl -w kernel.yama.ptrace_scope=1",
        )
    return ok(f"refused to user {place.user.pw_name}, except for its own children")


def seizes(user: pwd.struct_passwd | None) -> bool:
    """Can a process of `user` ptrace its sibling?"""

    def attempt() -> bool:
        # Changing user made this process, and will make its children, as untouchable as a set-user-id program is.
        system(libc.prctl(_PR_SET_DUMPABLE, 1, 0, 0, 0))
        # Tracer and target are both children of this process, as two services of one user are.
        target = _fork(signal.pause)
        tracer = _fork(lambda: seize(target))
        try:
            _, status = os.waitpid(tracer, 0)
        finally:
            os.kill(target, signal.SIGKILL)
            os.waitpid(target, 0)
        return os.waitstatus_to_exitcode(status) == 0

    return bool(within(attempt, user=user))


def seize(target: int) -> None:
    """Becomes the tracer of the process, which goes on running. Raises OSError."""
    system(libc.ptrace(_PTRACE_SEIZE, target, 0, 0))


def _fork(function: Callable[[], Any]) -> int:
    child = os.fork()
    if child == 0:
        try:
            function()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def terminal(place: Place) -> Outcome:
    """A terminal of its own, into which the user types from the inside."""

    def type_into() -> None:
        os.setsid()
        _main, terminal = pty.openpty()  # left open: closing it would hang up on this process
        fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
        fcntl.ioctl(terminal, termios.TIOCSTI, b"x")

    try:
        within(type_into, user=place.user)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EPERM):
            return ok("nobody can type into the terminal it was started from")
        raise CannotTell(f"no terminal to try it on: {error.strerror}") from error
    return missing(
        f"user {place.user.pw_name} can type into the terminal that it was started from (TIOCSTI)",
        "sysctl -w dev.tty.legacy_tiocsti=0",
    )
