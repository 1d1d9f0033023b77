"""Datagrams, in every way the kernel offers to send one."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import struct

from enforcer.probe.inside.kit import Case, check, connect, datagram, libc, send_to, sockaddr, technique

_GROUP = "UDP"
_STOP = "no UDP but to the resolver: refused at connect and sendmsg, last on the packet itself; no route inside"
# include/uapi/linux/udp.h, in.h, in6.h
_UDP_CORK, _UDP_SEGMENT, _IPV6_ADDRFORM = 1, 103, 1
_IP_TTL, _IP_PKTINFO = 2, 8


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct mmsghdr: a struct msghdr, and the bytes that were sent of it."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("name_length", ctypes.c_uint32),
        ("vector", ctypes.POINTER(_Iovec)),
        ("vector_length", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
        ("sent", ctypes.c_uint),
    )


@technique("udp-sendto", _GROUP, _STOP)
def udp_sendto(c: Case) -> None:
    """sendto() on an unconnected socket."""
    c.udp(c.peer4)


@technique("udp-sendto-v6", _GROUP, _STOP)
def udp_sendto_v6(c: Case) -> None:
    """sendto() to an IPv6 address."""
    c.udp(c.peer6)


@technique("udp-sendto-mapped", _GROUP, _STOP)
def udp_sendto_mapped(c: Case) -> None:
    """sendto() to the IPv4-mapped form on an IPv6 socket."""
    c.udp(f"::ffff:{c.peer4}")


@technique("udp-sendmsg", _GROUP, _STOP)
def udp_sendmsg(c: Case) -> None:
    """sendmsg() with the outgoing interface and source address chosen by a control message."""
    with datagram(c.peer4) as sock:
        about = struct.pack("=i4s4s", 0, bytes(4), bytes(4))
        sock.sendmsg([c.payload], [(socket.IPPROTO_IP, _IP_PKTINFO, about)], 0, (c.peer4, c.port))


@technique("udp-sendmmsg", _GROUP, _STOP)
def udp_sendmmsg(c: Case) -> None:
    """sendmmsg(), two datagrams in one call."""
    with datagram(c.peer4) as sock:
        address = sockaddr(c.peer4, c.port)
        vector = _Iovec(c.payload, len(c.payload))
        messages = (_Message * 2)()
        for message in messages:
            message.name, message.name_length = address, len(address)
            message.vector, message.vector_length = ctypes.pointer(vector), 1
        check(libc.sendmmsg(sock.fileno(), messages, 2, 0), "sendmmsg")


@technique("udp-connected", _GROUP, _STOP)
def udp_connected(c: Case) -> None:
    """connect(), then send()."""
    with datagram(c.peer4) as sock:
        sock.connect((c.peer4, c.port))
        sock.send(c.payload)


@technique("udp-connected-v6", _GROUP, _STOP)
def udp_connected_v6(c: Case) -> None:
    """connect() and send() over IPv6."""
    with datagram(c.peer6) as sock:
        sock.connect((c.peer6, c.port))
        sock.send(c.payload)


@technique("udp-connected-control", _GROUP, _STOP)
def udp_connected_control(c: Case) -> None:
    """A control message on a connected socket, for which hooks get a null address."""
    with datagram(c.peer4) as sock:
        sock.connect((c.peer4, c.port))
        sock.sendmsg([c.payload], [(socket.IPPROTO_IP, _IP_TTL, struct.pack("=i", 64))])


@technique("udp-elsewhere", _GROUP, _STOP)
def udp_elsewhere(c: Case) -> None:
    """connect() to a resolver, then sendto() somewhere else."""
    with datagram(c.peer4) as sock:
        with contextlib.suppress(OSError):
            sock.connect((c.home4, 53))
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("udp-family-zero", _GROUP, _STOP)
def udp_family_zero(c: Case) -> None:
    """sendto() with the address family left unspecified."""
    with datagram(c.peer4) as sock:
        send_to(sock, c.payload, 0, sockaddr(c.peer4, c.port, socket.AF_UNSPEC))


@technique("udp-reconnected", _GROUP, _STOP)
def udp_reconnected(c: Case) -> None:
    """connect() to a resolver, dissolve it with AF_UNSPEC, connect() to the far side."""
    with datagram(c.peer4) as sock:
        with contextlib.suppress(OSError):
            sock.connect((c.home4, 53))
        connect(sock, sockaddr("0.0.0.0", 0, socket.AF_UNSPEC))  # noqa: S104 - dissolves
        sock.connect((c.peer4, c.port))
        sock.send(c.payload)


@technique("udp-corked", _GROUP, _STOP)
def udp_corked(c: Case) -> None:
    """Datagrams put together with UDP_CORK and let go."""
    with datagram(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_CORK, 1)
        sock.sendto(c.payload, (c.peer4, c.port))
        sock.send(c.payload)
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_CORK, 0)


@technique("udp-segmented", _GROUP, _STOP)
def udp_segmented(c: Case) -> None:
    """One send that the kernel cuts into datagrams, UDP_SEGMENT."""
    with datagram(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_UDP, _UDP_SEGMENT, 1000)
        sock.sendto(c.payload * 200, (c.peer4, c.port))


@technique("udp-fragmented", _GROUP, _STOP)
def udp_fragmented(c: Case) -> None:
    """A datagram larger than the link takes, so that later fragments have no port."""
    with datagram(c.peer4) as sock:
        sock.sendto(c.payload * 400, (c.peer4, c.port))


@technique("udp-address-form", _GROUP, _STOP)
def udp_address_form(c: Case) -> None:
    """An IPv6 socket with a mapped peer, turned into an IPv4 one with IPV6_ADDRFORM."""
    with datagram("::1") as sock:
        sock.connect((f"::ffff:{c.peer4}", c.port))
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ADDRFORM, socket.AF_INET)
        send_to(sock, c.payload, 0, sockaddr(c.peer4, c.port))


@technique("udp-quic", _GROUP, _STOP)
def udp_quic(c: Case) -> None:
    """UDP 443, as HTTP/3 uses it."""
    c.udp(c.peer4, 443)


@technique("udp-dns-encrypted", _GROUP, _STOP)
def udp_dns_encrypted(c: Case) -> None:
    """UDP 853, as DNS over QUIC uses it."""
    c.udp(c.peer4, 853)


@technique("udp-bound", _GROUP, _STOP)
def udp_bound(c: Case) -> None:
    """From a port that replies come from, 53, where the kernel lets the user have it; else from a chosen one."""
    with datagram(c.peer4) as sock:
        try:
            sock.bind(("", 53))
        except OSError:
            sock.bind(("", c.port))
        sock.sendto(c.payload, (c.peer4, c.port))
