"""Step 1 of 6, capture: the sockets that a process tree already has when it is taken over.

Gets process ids; labels them and their sockets as the executor's, and closes every TCP connection that nobody judged.
What it cannot find (a socket on its way to another process) is nobody's, and the last line drops its packets.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from enforcer.capture import abi
from enforcer.capture.namespace import cookie_of, run_inside
from enforcer.capture.sysbpf import Map
from enforcer.errors import KernelError
from enforcer.flow import Endpoint
from enforcer.geo.address import normalise

# __NR_pidfd_getfd is one number for all architectures since 5.6.
_PIDFD_GETFD = 438
# linux/sock_diag.h, inet_diag.h, netlink.h
_NETLINK_SOCK_DIAG, _SOCK_DESTROY = 4, 21
_REQUEST, _ACK, _ERROR = 1, 4, 2
_TCP_LISTEN, _TCP_CLOSE = 10, 7
_TCP_INFO_STATE = 0  # struct tcp_info begins with the state
_SIOCGSKNS = 0x894C  # linux/sockios.h
_INET = (socket.AF_INET, socket.AF_INET6)

_libc = ctypes.CDLL(None, use_errno=True)


def take_over(pids: Iterable[int], executor: int, owners: Map, tasks: Map) -> int:
    """Labels `pids` and their sockets in `executor_by_task` and `owner_by_socket` and closes their connections; what
    has its label was judged, and stays. Returns how many were closed.

    Raises KernelError when the kernel refuses to close one; it then stays, and the last line drops its packets.
    """
    closed = 0
    for pid in pids:
        _mark(pid, executor, tasks)
        for sock in sockets_of(pid):
            with sock:
                if sock.family in _INET:
                    closed += _take(sock, executor, owners)
                else:
                    _claim(sock, executor, owners)
    return closed


def recognise(pids: Iterable[int], executor: int, owners: Map, tasks: Map) -> None:
    """Labels `pids` and their sockets, for programs that never saw them made. Connections stay: whether their packets
    pass does not rest on the label."""
    for pid in pids:
        _mark(pid, executor, tasks)
        for sock in sockets_of(pid):
            with sock:
                _claim(sock, executor, owners)


def close_connections(pids: Iterable[int], ends: Callable[[Endpoint], bool]) -> int:
    """Closes the TCP connections of `pids` whose far end `ends` says to end; how many. Raises KernelError."""
    closed = 0
    for pid in pids:
        for sock in sockets_of(pid):
            with sock:
                if sock.family not in _INET or sock.type != socket.SOCK_STREAM:
                    continue
                try:
                    host, port = sock.getpeername()[:2]
                except OSError:
                    continue  # it listens, or has ended
                if ends(Endpoint(normalise(host), port)):
                    _close(sock)
                    closed += 1
    return closed


def _mark(pid: int, executor: int, tasks: Map) -> None:
    """Of a process with more threads only the first: others may not be traced by the executor itself."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        tasks.update(struct.pack("=i", pidfd), struct.pack("=Q", executor))
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH):  # it has ended
            raise
    finally:
        os.close(pidfd)


def _claim(sock: socket.socket, executor: int, owners: Map) -> None:
    """What is of no family that is let in cannot be used any more."""
    if sock.family not in (*_INET, socket.AF_UNIX, socket.AF_NETLINK):
        return
    key = struct.pack("=i", sock.fileno())
    known = owners.lookup(key)
    if known is None or abi.Owner.from_buffer_copy(known).executor not in (executor, abi.OWNER_ANYONE):
        netns = cookie_of(sock) if sock.family in _INET else 0
        label = bytes(abi.Owner(executor=executor, netns=netns))
        if known is None:
            owners.add(key, label)  # if the socket was not connected meanwhile: that is kept with its owner
        else:
            owners.update(key, label)


def _take(sock: socket.socket, executor: int, owners: Map) -> int:
    closed = 0
    key = struct.pack("=i", sock.fileno())
    known = owners.lookup(key)
    if known is not None and abi.Owner.from_buffer_copy(known).executor == executor:
        return 0
    if sock.type == socket.SOCK_STREAM and _state(sock) not in (_TCP_LISTEN, _TCP_CLOSE):
        _close(sock)
        closed = 1
    owner = abi.Owner(executor=executor, netns=cookie_of(sock))
    owners.update(key, bytes(owner))
    return closed


def sockets_of(pid: int, inodes: set[int] | None = None) -> Iterator[socket.socket]:
    """Duplicates of the process's sockets, or of those with these inode numbers. A process that ends meanwhile has
    none. Raises KernelError when the kernel refuses."""
    wanted = None if inodes is None else {f"socket:[{inode}]" for inode in inodes}
    numbers = [number for number, target in _descriptors(pid) if wanted is None or target in wanted]
    if not numbers:
        return
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        for number in numbers:
            fd = _libc.syscall(_PIDFD_GETFD, pidfd, number, 0)
            if fd >= 0:
                yield socket.socket(fileno=fd)
                continue
            code = ctypes.get_errno()
            if code not in (errno.EBADF, errno.ESRCH):
                raise KernelError(f"cannot look at the sockets of process {pid}: {os.strerror(code)}; run as root")
    finally:
        os.close(pidfd)


def _descriptors(pid: int) -> Iterator[tuple[int, str]]:
    """Number of each of its descriptors that is a socket, and what it leads to."""
    for entry in _entries(Path(f"/proc/{pid}/fd")):
        try:
            target = str(entry.readlink())
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:"):
            yield int(entry.name), target


def _entries(directory: Path) -> list[Path]:
    try:
        return list(directory.iterdir())
    except OSError:
        return []


def _state(sock: socket.socket) -> int:
    try:
        return sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 8)[_TCP_INFO_STATE]
    except OSError:
        return 0  # not TCP: a stream of another kind is none that may stay


def _close(sock: socket.socket) -> None:
    """Ends one connection as `ss -K` would; where the kernel was built without that, disconnects our duplicate of it,
    which is the process's own socket."""
    try:
        message = _destroy_request(sock)
    except OSError:
        return  # it has ended by itself
    netns = fcntl.ioctl(sock, _SIOCGSKNS)
    try:
        code = run_inside(netns, lambda: _ask(message))
    finally:
        os.close(netns)
    if code in (0, errno.ENOENT):
        return
    disconnect = struct.pack("=H14x", socket.AF_UNSPEC)
    if _libc.connect(sock.fileno(), disconnect, len(disconnect)) != 0:
        raise KernelError(f"cannot close a connection: {os.strerror(code)}; it stays cut off")


def _destroy_request(sock: socket.socket) -> bytes:
    """struct inet_diag_req_v2 for SOCK_DESTROY; the cookie is left open, the 4-tuple names one connection."""
    family = sock.family
    source, source_port = sock.getsockname()[:2]
    target, target_port = sock.getpeername()[:2]
    if family == socket.AF_INET6 and source.startswith("::ffff:"):
        family, source, target = socket.AF_INET, source[7:], target[7:]
    addresses = b"".join(socket.inet_pton(family, text.partition("%")[0]).ljust(16, b"\0") for text in (source, target))
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    body += struct.pack("!HH", source_port, target_port) + addresses + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF)
    return struct.pack("=IHHII", 16 + len(body), _SOCK_DESTROY, _REQUEST | _ACK, 1, 0) + body


def _ask(message: bytes) -> int:
    """Sends one sock_diag request in this thread's namespace; the kernel's errno, 0 for done."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as diag:
        diag.send(message)
        answer = diag.recv(8192)
    return -int(struct.unpack_from("=i", answer, 16)[0]) if struct.unpack_from("=H", answer, 4)[0] == _ERROR else 0
