"""Sockets that are not IP, and system calls that make sockets without the usual ones."""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import struct
import time
from types import TracebackType

from enforcer.probe.inside.kit import HEARD, Case, Missing, Refused, connect, sockaddr, syscall, technique

_GROUP = "foreign families"
_STOP = "the seccomp filter knows TCP and UDP over IP, netlink, and nothing else"
_RING = "the hooks are on the socket, whichever thread of the kernel uses it; the filter refuses io_uring"
_AF_SMC, _AF_RDS, _AF_TIPC = 43, 21, 30
_FAMILIES, _TYPES, _PROTOCOLS = range(1, 46), (1, 2, 3, 5), (0, 1, 6, 17, 33, 58, 132, 136, 255, 262)
# include/uapi/linux/io_uring.h
_SQPOLL, _GETEVENTS, _WAKEUP = 2, 1, 2
_OP_CONNECT, _OP_SEND, _OP_SOCKET = 16, 26, 45
_SQES_AT = 0x10000000


@technique("vsock-local", _GROUP, _STOP, stage="neighbour")
def vsock_local(c: Case) -> None:
    """vsock to this machine, where a helper outside forwards."""
    failure: OSError | None = None
    for cid in (1, socket.VMADDR_CID_HOST):
        with socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.5)
            try:
                sock.connect((cid, c.values["relay_port"]))
                c.talk(sock)
                return
            except OSError as error:
                failure = error
    raise failure or Refused("no answer")


@technique("smc", _GROUP, _STOP)
def smc(c: Case) -> None:
    """Shared memory communication, which falls back to a TCP connection of the kernel's."""
    with socket.socket(_AF_SMC, socket.SOCK_STREAM, 0) as sock:
        connect(sock, sockaddr(c.peer4, c.port))
        sock.sendall(c.payload)


@technique("rds", _GROUP, _STOP)
def rds(c: Case) -> None:
    """Reliable datagram sockets, whose transport is a TCP connection of the kernel's."""
    with socket.socket(_AF_RDS, socket.SOCK_SEQPACKET, 0) as sock:
        connect(sock, sockaddr(c.peer4, c.port))
        sock.send(c.payload)


@technique("families-swept", _GROUP, _STOP)
def families_swept(c: Case) -> None:
    """Every family, type and protocol that opens, connected to the far side with whatever address it may take."""
    failure: OSError | None = None
    for family in _FAMILIES:
        # Outside, each kind of a family that the kernel does not have would be a search for its module.
        if family == socket.AF_UNIX or (not c.inside and _is_unknown(family)):
            continue
        for kind in _TYPES:
            for protocol in _PROTOCOLS:
                try:
                    _say(c, family, kind, protocol)
                except OSError as error:
                    failure = failure or error
    if failure is not None and c.inside:
        raise failure


def _is_unknown(family: int) -> bool:
    try:
        socket.socket(family, _TYPES[0], 0).close()
    except OSError as error:
        return error.errno == errno.EAFNOSUPPORT
    return False


def _say(c: Case, family: int, kind: int, protocol: int) -> None:
    with socket.socket(family, kind, protocol) as sock:
        sock.setblocking(False)
        address = sockaddr(c.peer6 if family == socket.AF_INET6 else c.peer4, c.port)
        try:
            connect(sock, address)
        except BlockingIOError:
            time.sleep(0.02)
        sock.send(c.payload)


class _Ring:
    """As much of io_uring as is needed: one operation at a time, and its result."""

    def __init__(self, flags: int) -> None:
        parameters = ctypes.create_string_buffer(struct.pack("=4I", 0, 0, flags, 0), 120)
        self._fd = syscall("io_uring_setup", 8, parameters)
        self._flags = flags
        fields = struct.unpack_from("=10I", parameters.raw)
        self._sq = struct.unpack_from("=10I", parameters.raw, 40)
        self._cq = struct.unpack_from("=10I", parameters.raw, 80)
        sq_size = self._sq[6] + fields[0] * 4
        cq_size = self._cq[5] + fields[1] * 16
        self._ring = mmap.mmap(self._fd, max(sq_size, cq_size))
        self._entries = mmap.mmap(self._fd, fields[0] * 64, offset=_SQES_AT)

    def __enter__(self) -> _Ring:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._fd)

    def do(self, operation: int, fd: int, *, offset: int = 0, address: int = 0, length: int = 0) -> int:
        """Submits one operation and returns its result. Raises OSError as the call itself would."""
        _head, tail_at, mask_at, _entries, _flags, _dropped, array_at, *_ = self._sq
        (tail,) = struct.unpack_from("=I", self._ring, tail_at)
        (mask,) = struct.unpack_from("=I", self._ring, mask_at)
        slot = tail & mask
        entry = struct.pack("=BBHiQQIIQ", operation, 0, 0, fd, offset, address, length, 0, 1)
        self._entries[slot * 64 : slot * 64 + 64] = entry.ljust(64, b"\0")
        struct.pack_into("=I", self._ring, array_at + 4 * slot, slot)
        struct.pack_into("=I", self._ring, tail_at, tail + 1)
        syscall("io_uring_enter", self._fd, 1, 1, _GETEVENTS | (_WAKEUP if self._flags & _SQPOLL else 0), None, 0)
        return self._completion()

    def _completion(self) -> int:
        head_at, _tail, mask_at, _entries, _overflow, entries_at, *_ = self._cq
        (head,) = struct.unpack_from("=I", self._ring, head_at)
        (mask,) = struct.unpack_from("=I", self._ring, mask_at)
        _data, result, _more = struct.unpack_from("=QiI", self._ring, entries_at + 16 * (head & mask))
        struct.pack_into("=I", self._ring, head_at, head + 1)
        if result < 0:
            raise OSError(-result, os.strerror(-result))
        return int(result)


def _by_ring(c: Case, flags: int) -> None:
    address = ctypes.create_string_buffer(sockaddr(c.peer4, c.port), 16)
    text = ctypes.create_string_buffer(c.payload, len(c.payload))
    with _Ring(flags) as ring:
        try:
            fd = ring.do(_OP_SOCKET, socket.AF_INET, offset=socket.SOCK_STREAM)
        except OSError as error:
            if error.errno != 22:
                raise
            raise Missing("io_uring sockets, Linux 5.19") from None
        ring.do(_OP_CONNECT, fd, offset=16, address=ctypes.addressof(address))
        ring.do(_OP_SEND, fd, address=ctypes.addressof(text), length=len(c.payload))
        with socket.socket(fileno=fd) as sock:
            sock.settimeout(1)
            if HEARD not in sock.recv(4096):
                raise Refused("answered by somebody else")


@technique("io-uring", _GROUP, _RING)
def io_uring(c: Case) -> None:
    """Socket, connection and data through io_uring, without those system calls."""
    _by_ring(c, 0)


@technique("io-uring-polled", _GROUP, _RING)
def io_uring_polled(c: Case) -> None:
    """The same from a thread of the kernel, IORING_SETUP_SQPOLL."""
    _by_ring(c, _SQPOLL)
