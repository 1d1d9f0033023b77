"""Which system calls an executor is refused, and why: a table, and the seccomp filter made of it.

Everything else is allowed. The kernel takes 32 bits of an `int` argument and seccomp compares 64, so every comparison
here refuses a value with high bits set, or masks them away: refused values are never named by "not equal to".
"""

from __future__ import annotations

import ctypes
import errno
import resource
import socket
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from enforcer.errors import HostError


@dataclass(frozen=True, slots=True)
class Refused:
    """Calls that fail with `answer`, whatever their arguments."""

    why: str
    calls: str
    answer: int = errno.EPERM


REFUSED = (
    Refused("a namespace of its own gives capabilities in it, and another's is not its own", "unshare setns"),
    Refused(
        "what is mounted decides what can be reached",
        "mount umount umount2 move_mount open_tree open_tree_attr fsopen fsconfig fsmount fspick mount_setattr "
        "pivot_root chroot",
    ),
    Refused(
        "another process's memory and descriptors",
        "ptrace process_vm_readv process_vm_writev pidfd_getfd kcmp",
    ),
    Refused(
        "parts of the kernel that attacks on it begin with",
        "bpf perf_event_open userfaultfd keyctl add_key request_key lookup_dcookie",
    ),
    # Clients that can do with less look for ENOSYS.
    Refused(
        "makes sockets and connects them where no filter of calls sees it",
        "io_uring_setup io_uring_enter io_uring_register",
        errno.ENOSYS,
    ),
    Refused(
        "its flags lie in memory, where a filter cannot read them; clone(2) is used instead", "clone3", errno.ENOSYS
    ),
    Refused("opens files past the mounts that hide them", "open_by_handle_at fanotify_init"),
    Refused(
        "the host's own: its kernel, disks, clock, name and log",
        "kexec_load kexec_file_load init_module finit_module delete_module reboot swapon swapoff acct quotactl "
        "quotactl_fd syslog settimeofday clock_settime clock_settime64 stime adjtimex clock_adjtime clock_adjtime64 "
        "sethostname setdomainname iopl ioperm",
    ),
)
# libseccomp may be older than these; such new calls have one number everywhere (asm-generic/unistd.h).
_NUMBERS = {"open_tree_attr": 467}

# include/uapi/linux/sched.h: new mount, cgroup, UTS, IPC, user, PID and network namespaces. A new time namespace
# cannot be asked of clone(2).
_NEW_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)
# include/uapi/asm-generic/ioctls.h, linux/tiocl.h: typing into the caller's terminal.
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_INT = 0xFFFFFFFF
_TYPE = 0xF  # SOCK_TYPE_MASK in include/linux/net.h: the rest are flags
_FAMILIES = 64  # above the last one, AF_MAX in include/linux/socket.h
_STREAM, _DATAGRAM, _SEQPACKET = 1, 2, 5
_IP_PROTOCOLS = (0, socket.IPPROTO_TCP, socket.IPPROTO_UDP)


@dataclass(frozen=True, slots=True)
class Comparison:
    """Is argument number `argument` equal to `value`, in the bits of `mask`? `or_more`: or greater."""

    argument: int
    value: int
    mask: int = 0
    or_more: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`call` does nothing and fails with `answer` when all of `given` hold; with 0 it seems to succeed."""

    call: str
    answer: int
    given: tuple[Comparison, ...] = ()


def rules(*, unix_sockets: bool) -> list[Rule]:
    """The whole table; any rule that holds refuses."""
    whole = [Rule(call, group.answer) for group in REFUSED for call in group.calls.split()]
    whole += [Rule("clone", errno.EPERM, (Comparison(0, flag, mask=flag),)) for flag in _NEW_NAMESPACES]
    # It stays 1, which 0 is no match for (see `start`). Programs ask for 0 and take a refusal amiss: they hear yes.
    core = Comparison(1, resource.RLIMIT_CORE, mask=_INT)
    whole += [Rule("prlimit64", 0, (core, Comparison(2, 1, or_more=True)))]
    whole += [Rule("setrlimit", 0, (Comparison(0, resource.RLIMIT_CORE, mask=_INT),))]
    whole += [Rule("ioctl", errno.EPERM, (Comparison(1, request, mask=_INT),)) for request in (_TIOCSTI, _TIOCLINUX)]
    return whole + _socket_rules(unix_sockets) + _socketpair_rules(unix_sockets)


def _socket_rules(unix_sockets: bool) -> list[Rule]:
    """TCP and UDP over IP, and asking about one's own network (NETLINK_ROUTE). No raw and packet sockets, MPTCP, SCTP,
    vsock, Bluetooth, AF_ALG and the rest."""
    families = {int(family) for family in (socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)}
    if unix_sockets:
        families.add(socket.AF_UNIX)
    found = [Rule("socket", errno.EAFNOSUPPORT, (one,)) for one in _all_but(families, _FAMILIES, argument=0)]
    for family in (socket.AF_INET, socket.AF_INET6):
        this = Comparison(0, family)
        refused = _types_but(_STREAM, _DATAGRAM) + _all_but(_IP_PROTOCOLS, socket.IPPROTO_UDP + 1, argument=2)
        found += [Rule("socket", errno.EPROTONOSUPPORT, (this, one)) for one in refused]
    others = Comparison(2, 1, or_more=True)
    return [*found, Rule("socket", errno.EPROTONOSUPPORT, (Comparison(0, socket.AF_NETLINK), others))]


def _socketpair_rules(unix_sockets: bool) -> list[Rule]:
    """Unix sockets, connected to each other for good: one that takes datagrams can be sent elsewhere afterwards."""
    refused = _all_but({int(socket.AF_UNIX)}, _FAMILIES, argument=0)
    found = [Rule("socketpair", errno.EAFNOSUPPORT, (one,)) for one in refused]
    if not unix_sockets:
        found += [Rule("socketpair", errno.EPROTONOSUPPORT, (one,)) for one in _types_but(_STREAM, _SEQPACKET)]
    return found


def _all_but(allowed: Collection[int], end: int, *, argument: int) -> list[Comparison]:
    """Each value below `end` that is not allowed, and all from there on, so those with high bits too."""
    refused = [Comparison(argument, value) for value in range(end) if value not in allowed]
    return [*refused, Comparison(argument, end, or_more=True)]


def _types_but(*allowed: int) -> list[Comparison]:
    """Every other type of socket, whatever flags come with it."""
    return [Comparison(1, number, mask=_TYPE) for number in range(_TYPE + 1) if number not in allowed]


class Filter:
    """Made before the executor's processes are born, loaded by each of them."""

    def __init__(self, *, unix_sockets: bool) -> None:
        try:
            import seccomp  # noqa: PLC0415 - Debian's, and not to be had elsewhere
        except ImportError as error:
            raise HostError("Python's seccomp module is missing; apt-get install python3-seccomp") from error
        self._unix_sockets = unix_sockets
        try:
            self._filter = seccomp.SyscallFilter(seccomp.ALLOW)
            # Other architectures' numbers mean other calls: i386 and x32 programs do not run.
            self._filter.set_attr(seccomp.Attr.ACT_BADARCH, seccomp.KILL_PROCESS)
            for rule in rules(unix_sockets=unix_sockets):
                given = [_argument(seccomp, one) for one in rule.given]
                self._filter.add_rule(seccomp.ERRNO(rule.answer), _NUMBERS.get(rule.call, rule.call), *given)
        except (RuntimeError, ValueError, OSError) as error:
            raise HostError(f"no seccomp filter: {error}; libseccomp 2.5 or later is needed") from error

    def load(self) -> None:
        """From here on this process and its children are refused. Raises HostError when they would not be."""
        try:
            self._filter.load()
        except (RuntimeError, OSError) as error:
            raise HostError(f"the kernel took no seccomp filter: {error}; it must be built with seccomp") from error
        _check(self._unix_sockets)


def _argument(seccomp: Any, comparison: Comparison) -> Any:
    if comparison.mask:
        return seccomp.Arg(comparison.argument, seccomp.MASKED_EQ, comparison.mask, comparison.value)
    return seccomp.Arg(comparison.argument, seccomp.GE if comparison.or_more else seccomp.EQ, comparison.value)


def _check(unix_sockets: bool) -> None:
    """Calls that the kernel always grants must now be refused."""
    refused = ctypes.CDLL(None).unshare(0) != 0
    if not unix_sockets:
        try:
            socket.socket(socket.AF_UNIX).close()
            refused = False
        except OSError as error:
            refused = refused and error.errno == errno.EAFNOSUPPORT
    if not refused:
        raise HostError("the seccomp filter is loaded and does not refuse; do not run executors on this kernel")
