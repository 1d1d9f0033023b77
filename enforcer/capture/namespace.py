"""Step 1 of 6, capture: an executor's network namespace, and our listeners inside it.

The supervisor enters the namespace on a thread of its own (namespaces belong to threads), creates the listening
sockets, and the thread ends. A socket stays in the namespace, and in the cgroup, that it was created in.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
import threading
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

from enforcer.errors import HostError

CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71  # include/uapi/asm-generic/socket.h, since 5.14
MS_BIND, MNT_DETACH = 4096, 2
# As many as wait between two turns of a busy worker; the kernel caps it at net.core.somaxconn.
BACKLOG = 4096
# Tried one after another when an executor's own server already has the port.
PORT_ATTEMPTS = 64

# Bytes of questions that wait for the resolver; the kernel caps it at net.core.rmem_max.
QUESTIONS = 1 << 20

_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


def _check(result: int, what: str) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise HostError(f"{what}: {os.strerror(code)}; run as root on the host")


def run_inside(netns: int, function: Callable[[], T]) -> T:
    """Calls `function` on a thread inside the namespace behind descriptor `netns`; returns or raises as it does."""
    outcome: list[T] = []
    failure: list[Exception] = []

    def enter() -> None:
        try:
            _check(_libc.setns(netns, CLONE_NEWNET), "cannot enter the executor's network namespace")
            outcome.append(function())
        except Exception as error:  # noqa: BLE001 - raised again by the caller, on its own thread
            failure.append(error)

    thread = threading.Thread(target=enter, name="netns")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def cookie_of(sock: socket.socket) -> int:
    """The cookie of the socket's network namespace, which the kernel programs know it by."""
    raw = sock.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int(struct.unpack("=Q", raw)[0])


def netns_cookie(netns: int) -> int:
    """The cookie of the namespace behind descriptor `netns`."""

    def ask() -> int:
        with socket.socket() as sock:
            return cookie_of(sock)

    return run_inside(netns, ask)


def listen_inside(
    netns: int, ports: Iterable[int], count: int, *, join: bool = False
) -> tuple[int, list[tuple[socket.socket, socket.socket]]]:
    """Creates `count` pairs of listeners, 127.0.0.1 and ::1, in the namespace behind `netns`.

    All share one port (SO_REUSEPORT), the first of `ports` that nobody listens on; with `join`, one that others of ours
    may listen on. Each worker gets a pair of its own and nobody else keeps it open: when workers die, connections are
    refused at once instead of waiting for nobody.
    Returns the port and the pairs. Raises HostError when no port is free.
    """

    def create() -> tuple[int, list[tuple[socket.socket, socket.socket]]]:
        for candidate in ports:
            try:
                if not join:
                    _check_free(candidate)
                return candidate, [(_listen4(candidate), _listen6(candidate)) for _ in range(count)]
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise HostError("every port for the listener is taken in the executor; free one from listener_port on")

    return run_inside(netns, create)


def bind_inside(netns: int, ports: Iterable[int]) -> tuple[int, tuple[socket.socket, socket.socket]]:
    """A pair of UDP sockets for the resolver, 127.0.0.1 and ::1, in the namespace behind `netns`, on the first of
    `ports` that is free on both. Nobody shares it. Returns the port and the pair. Raises HostError when none is free.
    """

    def create() -> tuple[int, tuple[socket.socket, socket.socket]]:
        for candidate in ports:
            try:
                return candidate, _bind_pair(candidate)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise HostError("every port for the resolver is taken in the executor; free one from resolver.port on")

    return run_inside(netns, create)


def _bind_pair(port: int) -> tuple[socket.socket, socket.socket]:
    kind = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    with ExitStack() as stack:
        sock4 = stack.enter_context(socket.socket(socket.AF_INET, kind))
        sock6 = stack.enter_context(socket.socket(socket.AF_INET6, kind))
        sock4.bind(("127.0.0.1", port))
        sock6.bind(("::1", port))
        for sock in (sock4, sock6):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, QUESTIONS)
        stack.pop_all()
    return sock4, sock6


def _check_free(port: int) -> None:
    """Raises OSError(EADDRINUSE) where anybody listens, also one who would share: another executor's listener."""
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with socket.socket(family) as sock:
            # Connections of before that wait for their end are in nobody's way.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address, port))


def _listen4(port: int) -> socket.socket:
    return _listen(socket.AF_INET, ("127.0.0.1", port))


def _listen6(port: int) -> socket.socket:
    return _listen(socket.AF_INET6, ("::1", port))


def _listen(family: socket.AddressFamily, address: tuple[str, int]) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        # A worker may come back while connections of the one before it are still in TIME_WAIT.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def every_namespace() -> list[int]:
    """A descriptor of each network namespace that a process of this host is in; they are the caller's to close."""
    found: dict[int, int] = {}
    for process in Path("/proc").glob("[0-9]*/ns/net"):
        try:
            netns = os.open(process, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue  # it has ended
        inode = os.fstat(netns).st_ino
        if inode in found:
            os.close(netns)
        else:
            found[inode] = netns
    return list(found.values())


def keep(netns: int, path: Path) -> None:
    """Bind-mounts the namespace on `path`, so that a restarted supervisor finds it again."""
    path.touch(mode=0o600)
    source = f"/proc/self/fd/{netns}".encode()
    _check(_libc.mount(source, bytes(path), None, MS_BIND, None), f"cannot keep the namespace at {path}")


def release(path: Path) -> None:
    """Undoes `keep`; a path that is gone already is fine."""
    if not path.exists():
        return
    _libc.umount2(bytes(path), MNT_DETACH)
    path.unlink()
