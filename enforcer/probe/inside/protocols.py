"""Transports other than TCP and UDP, as far as this kernel has them."""

from __future__ import annotations

import socket
import struct

from enforcer.probe.inside.kit import Case, connect, send_to, sockaddr, technique

_GROUP = "protocols"
_STOP = "refused when the socket is made: only TCP and UDP; no route inside"
_ICMP_ECHO, _ICMPV6_ECHO = 8, 128
_MPTCP, _UDPLITE, _SCTP, _DCCP, _L2TP = 262, 136, 132, 33, 115
_SOCK_DCCP, _SOL_DCCP, _DCCP_SERVICE = 6, 269, 2


@technique("mptcp", _GROUP, _STOP)
def mptcp(c: Case) -> None:
    """Multipath TCP, which opens further connections by itself."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _MPTCP) as sock:
        sock.settimeout(1)
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("mptcp-v6", _GROUP, _STOP)
def mptcp_v6(c: Case) -> None:
    """Multipath TCP over IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _MPTCP) as sock:
        sock.settimeout(1)
        sock.connect((c.peer6, c.port))
        c.talk(sock)


@technique("udplite", _GROUP, _STOP)
def udplite(c: Case) -> None:
    """UDP-Lite, a protocol number of its own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _UDPLITE) as sock:
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("udplite-v6", _GROUP, _STOP)
def udplite_v6(c: Case) -> None:
    """UDP-Lite over IPv6."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, _UDPLITE) as sock:
        sock.sendto(c.payload, (c.peer6, c.port))


@technique("sctp", _GROUP, _STOP)
def sctp(c: Case) -> None:
    """An SCTP association; its INIT is enough."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM, _SCTP) as sock:
        sock.setblocking(False)
        sock.connect_ex((c.peer4, c.port))


@technique("sctp-many", _GROUP, _STOP)
def sctp_many(c: Case) -> None:
    """SCTP one-to-many: a message without a connect()."""
    with socket.socket(socket.AF_INET, socket.SOCK_SEQPACKET, _SCTP) as sock:
        sock.setblocking(False)
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("dccp", _GROUP, _STOP)
def dccp(c: Case) -> None:
    """A DCCP connection; its request is enough."""
    with socket.socket(socket.AF_INET, _SOCK_DCCP, _DCCP) as sock:
        sock.setsockopt(_SOL_DCCP, _DCCP_SERVICE, struct.pack(">I", 1))
        sock.setblocking(False)
        sock.connect_ex((c.peer4, c.port))


@technique("l2tp", _GROUP, _STOP)
def l2tp(c: Case) -> None:
    """L2TP over IP, whose sockets have no connect hook."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, _L2TP) as sock:
        # struct sockaddr_l2tpip: family, unused, address, connection id
        address = struct.pack("=HH4sI4x", socket.AF_INET, 0, socket.inet_aton(c.peer4), 1)
        send_to(sock, c.payload, 0, address)


@technique("ping-socket", _GROUP, _STOP)
def ping_socket(c: Case) -> None:
    """ICMP echo through an unprivileged ping socket, without connect()."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        sock.sendto(struct.pack(">BBHHH", _ICMP_ECHO, 0, 0, 1, 1) + c.payload, (c.peer4, 0))


@technique("ping-socket-v6", _GROUP, _STOP)
def ping_socket_v6(c: Case) -> None:
    """ICMPv6 echo through an unprivileged ping socket."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM, socket.IPPROTO_ICMPV6) as sock:
        sock.sendto(struct.pack(">BBHHH", _ICMPV6_ECHO, 0, 0, 1, 1) + c.payload, (c.peer6, 0))


@technique("ping-socket-connected", _GROUP, _STOP)
def ping_socket_connected(c: Case) -> None:
    """ICMP echo through a ping socket that is connected first."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_ICMP) as sock:
        connect(sock, sockaddr(c.peer4, 0))
        sock.send(struct.pack(">BBHHH", _ICMP_ECHO, 0, 0, 1, 2) + c.payload)
