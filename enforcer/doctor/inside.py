"""Runs inside a real isolated executor, on the system's Python: tries to get out and prints what it could, as JSON.

Gets the paths of service sockets as arguments. Imports nothing of ours: the executor may not even see it.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import struct
import sys
from collections.abc import Callable
from pathlib import Path

_AF_ALG, _AF_VSOCK, _CLONE_NEWUSER, _IO_URING_SETUP = 38, 40, 0x10000000, 425
_HEXADECIMAL, _OWN_PROCESSES = 16, 3
_libc = ctypes.CDLL(None, use_errno=True)


def _call(result: int) -> None:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _opens(family: int, kind: int, protocol: int = 0) -> Callable[[], object]:
    return lambda: socket.socket(family, kind, protocol)


def _connects(path: str) -> None:
    socket.socket(socket.AF_UNIX).connect("\0" + path[1:] if path.startswith("@") else path)


def _sends(family: int, address: str) -> None:
    socket.socket(family, socket.SOCK_DGRAM).sendto(b"out", (address, 9))


def _capabilities() -> None:
    status = Path("/proc/self/status").read_text()
    held = [line for line in status.splitlines() if line.startswith("Cap") and int(line.split()[1], _HEXADECIMAL)]
    if not held:
        raise PermissionError


def _interfaces() -> None:
    if [name for _, name in socket.if_nameindex()] == ["lo"]:
        raise PermissionError


def _processes() -> None:
    """In a PID namespace of its own there are the first process and this one."""
    if sum(path.name.isdecimal() for path in Path("/proc").iterdir()) <= _OWN_PROCESSES:
        raise PermissionError


def _cgroup() -> None:
    next(iter(Path("/sys/fs/cgroup").rglob("cgroup.procs"))).write_text("0")


def _attempts(paths: list[str]) -> dict[str, Callable[[], object]]:
    return {
        "open AF_VSOCK": _opens(_AF_VSOCK, socket.SOCK_STREAM),
        "open AF_PACKET": _opens(socket.AF_PACKET, socket.SOCK_RAW),
        "open AF_ALG": _opens(_AF_ALG, socket.SOCK_SEQPACKET),
        "open a raw IP socket": _opens(socket.AF_INET, socket.SOCK_RAW, 253),
        "open an ICMP socket": _opens(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP),
        "send UDP over IPv4": lambda: _sends(socket.AF_INET, "198.18.0.2"),
        "send UDP over IPv6": lambda: _sends(socket.AF_INET6, "2001:db8::2"),
        "connect over IPv4": lambda: socket.create_connection(("198.18.0.2", 9), 0.5),
        "connect over IPv6": lambda: socket.create_connection(("2001:db8::2", 9), 0.5),
        "make a user namespace": lambda: _call(_libc.unshare(_CLONE_NEWUSER)),
        "set up io_uring": lambda: _call(_libc.syscall(_IO_URING_SETUP, 1, ctypes.create_string_buffer(120))),
        "see the host's processes": _processes,
        "use an interface": _interfaces,
        "use a capability": _capabilities,
        "leave its cgroup": _cgroup,
        **{f"connect to {path}": lambda path=path: _connects(path) for path in paths},  # type: ignore[misc]
    }


def main() -> None:
    could = []
    for name, attempt in _attempts(sys.argv[1:]).items():
        try:
            attempt()
        except (OSError, StopIteration):
            continue
        could.append(name)
    # A frame around it, so that a half-written answer is not taken for a whole one.
    text = json.dumps({"could": could, "tried": len(_attempts(sys.argv[1:]))}).encode()
    os.write(1, struct.pack("!I", len(text)) + text)


if __name__ == "__main__":
    main()
