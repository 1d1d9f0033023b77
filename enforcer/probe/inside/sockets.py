"""Connections made in unusual ways: early data, other calls, other options, other addresses to come from."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import signal
import socket
import struct
import tempfile
import time

from enforcer.probe.inside.kit import PATIENCE, Case, Refused, check, connect, libc, sockaddr, stream, technique

_GROUP = "sockets"
_SAME = "the hook is on the socket, whichever call uses it"
_OPTION = "refused without the capability; connect() leads to the proxy all the same"
# include/uapi/linux/tcp.h, in.h, in6.h, socket.h
_TCP_FASTOPEN_CONNECT, _TCP_REPAIR, _TCP_REPAIR_OFF = 30, 19, 0
_IP_TRANSPARENT, _IP_UNICAST_IF, _IPV6_ADDRFORM = 19, 50, 1
_SO_ZEROCOPY, _MSG_ZEROCOPY = 60, 0x4000000
_MSG_FASTOPEN = 0x20000000
_SO_BINDTODEVICE, _SO_MARK = 25, 36
# Seconds of a race at most, and how often the swapped address is to be taken.
_RACE, _RACES = 3.0, 20


@technique("tcp-fast-open", _GROUP, "sendto(MSG_FASTOPEN) runs the connect hook: the SYN goes to the proxy")
def tcp_fast_open(c: Case) -> None:
    """Data in the SYN, with sendto(MSG_FASTOPEN)."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.sendto(c.payload, _MSG_FASTOPEN, (c.peer4, c.port))
        c.listen(sock)


@technique("tcp-fast-open-connect", _GROUP, "the connect hook runs when connect() is called, not when data is sent")
def tcp_fast_open_connect(c: Case) -> None:
    """A connect() that waits for the first data, TCP_FASTOPEN_CONNECT."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_FASTOPEN_CONNECT, 1)
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("tcp-nonblocking", _GROUP, _SAME)
def tcp_nonblocking(c: Case) -> None:
    """A connect() that does not wait."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.setblocking(False)
        sock.connect_ex((c.peer4, c.port))
        time.sleep(0.1)
        sock.setblocking(True)
        c.talk(sock)


@technique("tcp-reconnected", _GROUP, "the record of the destination is overwritten at every connect()")
def tcp_reconnected(c: Case) -> None:
    """A socket that talked to an allowed site, dissolved with AF_UNSPEC and connected to the far side."""
    with stream(c.home4) as sock:
        sock.connect((c.home4, 80))
        sock.sendall(b"GET / HTTP/1.1\r\nHost: home\r\nConnection: close\r\n\r\n")
        sock.recv(4096)
        connect(sock, sockaddr("0.0.0.0", 0, socket.AF_UNSPEC))  # noqa: S104 - dissolves
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("tcp-port-reused", _GROUP, "the original destination belongs to the connection, not to its source port")
def tcp_port_reused(c: Case) -> None:
    """Allowed and denied destination in turn from one source port."""
    failure: OSError | None = None
    for _ in range(3):
        for address, port in ((c.home4, 80), (c.peer4, c.port)):
            with stream(address) as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                # So that the port is free again at once.
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.bind(("", c.port + 20000))
                try:
                    sock.connect((address, port))
                    c.talk(sock, b"GET / HTTP/1.1\r\nHost: home\r\n\r\n" if address == c.home4 else None)
                except OSError as error:
                    failure = error
    if failure is not None:
        raise failure


@technique("tcp-address-race", _GROUP, "the kernel copies the address once, before the hook sees it")
def tcp_address_race(c: Case) -> None:
    """A second process that swaps the address in shared memory while connect() reads it."""
    allowed, denied = (sockaddr(address, c.port) for address in (c.home4, c.peer4))
    with mmap.mmap(-1, mmap.PAGESIZE) as memory:
        memory[:16] = allowed
        swapper = os.fork()
        if swapper == 0:
            while True:
                memory[:16] = denied
                memory[:16] = allowed
        shared = (ctypes.c_char * 16).from_buffer(memory)
        deadline, lost = time.monotonic() + _RACE, 0
        try:
            while lost < _RACES and time.monotonic() < deadline:
                with stream(c.peer4) as sock:
                    sock.setblocking(True)
                    if libc.connect(sock.fileno(), shared, 16) == 0:
                        lost += sock.getpeername()[0] == c.peer4
                        sock.sendall(c.payload)
        finally:
            os.kill(swapper, signal.SIGKILL)
            os.waitpid(swapper, 0)
            del shared


@technique("tcp-bound-source", _GROUP, "a rewritten connect() from an address of the outside fails closed")
def tcp_bound_source(c: Case) -> None:
    """Bound to the wildcard address and a port of its own before connecting."""
    with stream(c.peer4) as sock:
        sock.bind(("0.0.0.0", 0))  # noqa: S104 - a source
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("tcp-host-source", _GROUP, "the executor's namespace does not have the host's addresses", stage="neighbour")
def tcp_host_source(c: Case) -> None:
    """Bound to the host's public address before connecting."""
    with stream(c.peer4) as sock:
        sock.bind((c.values["host4"], 0))
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("tcp-transparent", _GROUP, _OPTION, users="root")
def tcp_transparent(c: Case) -> None:
    """A transparent socket with a foreign source, IP_TRANSPARENT; a SYN is enough."""
    with stream(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_TRANSPARENT, 1)
        sock.bind((c.home4, 0))
        sock.settimeout(0.2)
        try:
            sock.connect((c.peer4, c.port))
        except TimeoutError:
            return


@technique("tcp-repair", _GROUP, _OPTION, users="root")
def tcp_repair(c: Case) -> None:
    """A connection conjured up with TCP_REPAIR, without a handshake; its first segment is enough."""
    with stream(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        sock.bind(("", c.port + 20000))
        sock.connect((c.peer4, c.port))
        with contextlib.suppress(ConnectionError):  # the far side knows of no connection, but has been reached
            sock.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _TCP_REPAIR_OFF)
            sock.sendall(c.payload)


@technique("tcp-device", _GROUP, "there is no such device in the executor's namespace", stage="neighbour")
def tcp_device(c: Case) -> None:
    """Bound to the uplink with SO_BINDTODEVICE."""
    with stream(c.peer4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_BINDTODEVICE, c.values["interface"].encode())
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("tcp-unicast-if", _GROUP, "there is no such device in the executor's namespace")
def tcp_unicast_if(c: Case) -> None:
    """Sent by each interface there is in turn, IP_UNICAST_IF."""
    failure: OSError | None = None
    for index, _ in socket.if_nameindex():
        with stream(c.peer4) as sock:
            try:
                sock.setsockopt(socket.IPPROTO_IP, _IP_UNICAST_IF, struct.pack(">I", index))
                sock.connect((c.peer4, c.port))
                c.talk(sock)
                return
            except OSError as error:
                failure = error
    raise failure or Refused("no interface")


@technique("tcp-mark", _GROUP, "nothing is exempt by mark", users="root")
def tcp_mark(c: Case) -> None:
    """With a packet mark, as exemptions go by, and a service's name for the process."""
    libc.prctl(15, b"enforcer", 0, 0, 0)
    for mark in (1, 0x1337, 0xFFFFFFFF):
        with stream(c.peer4) as sock:
            sock.setsockopt(socket.SOL_SOCKET, _SO_MARK, struct.pack("=I", mark))
            sock.connect((c.peer4, c.port))
            c.talk(sock)


@technique("tcp-address-form", _GROUP, _SAME)
def tcp_address_form(c: Case) -> None:
    """An IPv6 socket with a mapped peer, turned into an IPv4 one with IPV6_ADDRFORM."""
    with stream("::1") as sock:
        sock.connect((f"::ffff:{c.peer4}", c.port))
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDRFORM, socket.AF_INET)
        c.talk(sock)


@technique("tcp-splice", _GROUP, _SAME)
def tcp_splice(c: Case) -> None:
    """The token spliced from a pipe into the socket."""
    out, into = os.pipe()
    with stream(c.peer4) as sock:
        sock.connect((c.peer4, c.port))
        sock.settimeout(None)
        os.write(into, c.payload)
        os.splice(out, sock.fileno(), len(c.payload))
        c.listen(sock)


@technique("tcp-sendfile", _GROUP, _SAME)
def tcp_sendfile(c: Case) -> None:
    """The token sent from a file with sendfile()."""
    with tempfile.TemporaryFile() as file, stream(c.peer4) as sock:
        file.write(c.payload)
        file.flush()
        sock.connect((c.peer4, c.port))
        os.sendfile(sock.fileno(), file.fileno(), 0, len(c.payload))
        c.listen(sock)


@technique("tcp-zerocopy", _GROUP, _SAME)
def tcp_zerocopy(c: Case) -> None:
    """The token sent from our pages, MSG_ZEROCOPY."""
    with stream(c.peer4) as sock:
        sock.setsockopt(socket.SOL_SOCKET, _SO_ZEROCOPY, 1)
        sock.connect((c.peer4, c.port))
        sock.send(c.payload, _MSG_ZEROCOPY)
        c.listen(sock)


@technique("tcp-vmsplice", _GROUP, _SAME)
def tcp_vmsplice(c: Case) -> None:
    """The token's pages given to a pipe with vmsplice(), and spliced into the socket."""
    out, into = os.pipe()
    text = ctypes.create_string_buffer(c.payload, len(c.payload))
    vector = struct.pack("=QQ", ctypes.addressof(text), len(c.payload))
    with stream(c.peer4) as sock:
        sock.connect((c.peer4, c.port))
        sock.settimeout(PATIENCE)
        check(libc.vmsplice(into, vector, ctypes.c_size_t(1), 0), "vmsplice")
        os.set_blocking(sock.fileno(), True)
        os.splice(out, sock.fileno(), len(c.payload))
        c.listen(sock)


@technique("inbound", _GROUP, "nobody outside can reach the executor's namespace", stage="inbound", token_only=True)
def inbound(c: Case) -> None:
    """Listens, and lets the far side fetch the token."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        server.bind(("0.0.0.0", c.port))  # noqa: S104 - the far side dials it
        server.listen(4)
        server.settimeout(1.5)
        client, _ = server.accept()
        with client:
            client.sendall(c.payload)
