"""The system calls that isolation needs and Python has no function for. Each raises HostError when it is refused."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import signal
import socket
import struct

from enforcer.errors import HostError

# include/uapi/linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS = 0x20000, 0x2000000, 0x4000000
CLONE_NEWIPC, CLONE_NEWPID, CLONE_NEWNET = 0x8000000, 0x20000000, 0x40000000
_CLONE_INTO_CGROUP = 0x200000000
# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_BIND, MS_REC, MS_PRIVATE = 1, 2, 4, 8, 4096, 16384, 1 << 18
ATTR_RDONLY, ATTR_NOSUID, ATTR_NODEV, ATTR_NOEXEC = 1, 2, 4, 8
_MNT_DETACH, _UMOUNT_NOFOLLOW = 2, 8
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
# include/uapi/linux/fcntl.h
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_KEYCTL_JOIN_SESSION_KEYRING = 1  # include/uapi/linux/keyctl.h
# Numbers that are the same on every architecture (asm-generic/unistd.h); keyctl's is not.
_OPEN_TREE, _MOVE_MOUNT, _CLONE3, _CLOSE_RANGE, _MOUNT_SETATTR = 428, 429, 435, 436, 442
_KEYCTL = {"x86_64": 250, "aarch64": 219}

_MEND = "isolation needs Linux 5.12 or later, as root on the host"

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
# Keeps the interpreter's lock over the call, which a child born within it must find taken.
_python = ctypes.PyDLL(None, use_errno=True)
_python.syscall.restype = ctypes.c_long


class _CloneArguments(ctypes.Structure):
    """struct clone_args (clone(2))."""

    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    )


class _MountAttributes(ctypes.Structure):
    """struct mount_attr (mount_setattr(2))."""

    _fields_ = tuple((name, ctypes.c_uint64) for name in ("set", "clear", "propagation", "user_namespace"))


def _check(result: int, what: str) -> int:
    if result < 0:
        raise HostError(f"{what}: {os.strerror(ctypes.get_errno())}; {_MEND}")
    return result


# --- processes and namespaces


def birth(namespaces: int, cgroup: int) -> int:
    """fork(2) into new namespaces and the cgroup behind descriptor `cgroup`: the child never was anywhere else.

    Returns the child's pid, and 0 in the child.
    """
    arguments = _CloneArguments(flags=namespaces | _CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=cgroup)
    ctypes.pythonapi.PyOS_BeforeFork()
    pid = int(_python.syscall(_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments)))
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    return _check(pid, "cannot start a process in the executor's cgroup and namespaces")


def enter(pidfd: int, namespaces: int) -> None:
    """Joins namespaces of another process; its PID namespace is joined by our next children."""
    _check(_libc.setns(pidfd, namespaces), "cannot enter the executor's namespaces")


def new_cgroup_namespace() -> None:
    """The cgroup that we are in becomes the top of what is seen."""
    _check(_libc.unshare(CLONE_NEWCGROUP), "no new cgroup namespace")


def new_session_keyring() -> None:
    """Keys of the caller's session are not the executor's."""
    number = _KEYCTL.get(os.uname().machine)
    if number is None:
        raise HostError(f"isolation does not know the machine {os.uname().machine!r}; use x86_64 or aarch64")
    if _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None) < 0 and ctypes.get_errno() != errno.ENOSYS:
        _check(-1, "no new session keyring")  # a kernel without keys has none to keep


def close_from(first: int) -> None:
    """Closes every descriptor from `first` on, whatever limit applies now."""
    _check(_libc.syscall(_CLOSE_RANGE, first, ctypes.c_uint(0xFFFFFFFF), 0), "cannot close inherited descriptors")


def loopback_up() -> None:
    with socket.socket() as sock:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, name + bytes(16)), 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | _IFF_UP))


# --- mounts


def mount(kind: str, target: str, flags: int, options: str = "") -> None:
    """Mounts a new file system of `kind`."""
    done = _libc.mount(kind.encode(), os.fsencode(target), kind.encode(), ctypes.c_ulong(flags), options.encode())
    _check(done, f"cannot mount {kind} on {target}")


def bind(source: str, target: str, *, recursive: bool = False) -> None:
    flags = ctypes.c_ulong(MS_BIND | (MS_REC if recursive else 0))
    done = _libc.mount(os.fsencode(source), os.fsencode(target), None, flags, None)
    _check(done, f"cannot mount {source} on {target}")


def keep_mounts_private() -> None:
    """What is mounted from here on stays in this namespace, and what the host mounts stays out."""
    _check(_libc.mount(None, b"/", None, ctypes.c_ulong(MS_REC | MS_PRIVATE), None), "cannot make mounts private")


def unmount(target: str) -> None:
    """With everything below it. Raises OSError when nothing is mounted there."""
    if _libc.umount2(os.fsencode(target), _MNT_DETACH | _UMOUNT_NOFOLLOW) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), target)


def pick(path: str) -> int:
    """A detached mount of what is at `path` now; it stays when `path` is covered. Returns its descriptor."""
    flags = _OPEN_TREE_CLONE | os.O_CLOEXEC
    fd = _libc.syscall(_OPEN_TREE, _AT_FDCWD, os.fsencode(path), flags)
    return _check(int(fd), f"cannot keep {path} for the executor")


def put(picked: int, target: str) -> None:
    """Mounts what was picked, and closes its descriptor."""
    done = _libc.syscall(_MOVE_MOUNT, picked, b"", _AT_FDCWD, os.fsencode(target), _MOVE_MOUNT_F_EMPTY_PATH)
    _check(int(done), f"cannot put {target} back")
    os.close(picked)


def restrict(target: str | int, attributes: int, *, allow: int = 0, recursive: bool = False) -> None:
    """Sets mount attributes on a path or a picked mount, and takes those in `allow` away."""
    change = _MountAttributes(set=attributes, clear=allow)
    place, path = (target, b"") if isinstance(target, int) else (_AT_FDCWD, os.fsencode(target))
    flags = (_AT_RECURSIVE if recursive else 0) | (_AT_EMPTY_PATH if isinstance(target, int) else 0)
    done = _libc.syscall(_MOUNT_SETATTR, place, path, flags, ctypes.byref(change), ctypes.sizeof(change))
    _check(int(done), f"cannot restrict the mount {target}")
