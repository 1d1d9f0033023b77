"""Options and headers that lead a packet elsewhere, or past a check, after connect() was judged."""

from __future__ import annotations

import contextlib
import socket
import struct

from enforcer.probe.inside.kit import Case, datagram, stream, technique

_GROUP = "source routing"
_STOP = "options refused by setsockopt; packets with them dropped on their way out; no route inside"
_LSRR, _SSRR, _NOP, _END = 131, 137, 1, 0
_ROUTING_TYPES = (4, 2)  # segment routing (RFC 8754), mobile IPv6 (RFC 6275)
# include/uapi/linux/in.h, in6.h
_IP_OPTIONS, _IP_RETOPTS = 4, 7
_HOPOPTS, _DSTOPTS, _RTHDR = 54, 59, 57
# A SYN or a datagram is all that is wanted: nobody at the far side forwards.
_GLANCE = 0.2


def _via(kind: int, first: str, last: str) -> bytes:
    """An IPv4 source route: the kernel sends to `first` and carries `last` along (RFC 791)."""
    route = socket.inet_aton(first) + socket.inet_aton(last)
    return bytes([_NOP, kind, 3 + len(route), 4]) + route


def _segments(kind: int, via: str) -> bytes:
    """An IPv6 routing header with one hop to visit first."""
    hop = socket.inet_pton(socket.AF_INET6, via)
    if kind == 2:
        return struct.pack("=BBBBI", 0, 2, 2, 1, 0) + hop
    # Two segments: the last one is filled in by the kernel with the destination.
    return struct.pack("=BBBBBBH", 0, 4, 4, 1, 1, 0, 0) + bytes(16) + hop


def _glance(sock: socket.socket, address: tuple[str, int]) -> None:
    sock.settimeout(_GLANCE)
    with contextlib.suppress(TimeoutError):
        sock.connect(address)


@technique("lsrr-tcp", _GROUP, _STOP)
def lsrr_tcp(c: Case) -> None:
    """TCP to an allowed site, loosely source-routed by way of the far side."""
    with stream(c.home4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, _via(_LSRR, c.peer4, c.home4))
        _glance(sock, (c.home4, c.port))


@technique("ssrr-tcp", _GROUP, _STOP)
def ssrr_tcp(c: Case) -> None:
    """TCP to an allowed site, strictly source-routed by way of the far side."""
    with stream(c.home4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, _via(_SSRR, c.peer4, c.home4))
        _glance(sock, (c.home4, c.port))


@technique("lsrr-udp", _GROUP, _STOP)
def lsrr_udp(c: Case) -> None:
    """UDP to an allowed site, source-routed for the whole socket."""
    with datagram(c.home4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, _via(_LSRR, c.peer4, c.home4))
        sock.sendto(c.payload, (c.home4, c.port))


@technique("lsrr-message", _GROUP, _STOP)
def lsrr_message(c: Case) -> None:
    """UDP to an allowed site, source-routed for one message by IP_RETOPTS."""
    with datagram(c.home4) as sock:
        options = [(socket.IPPROTO_IP, _IP_RETOPTS, _via(_LSRR, c.peer4, c.home4))]
        sock.sendmsg([c.payload], options, 0, (c.home4, c.port))


@technique("options-shift", _GROUP, _STOP)
def options_shift(c: Case) -> None:
    """UDP with forty bytes of no-op options, which move the ports from where a careless filter reads them."""
    with datagram(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, bytes([_NOP] * 39 + [_END]))
        sock.sendto(c.payload, (c.peer4, c.port))


@technique("options-shift-tcp", _GROUP, _STOP)
def options_shift_tcp(c: Case) -> None:
    """TCP with no-op options."""
    with stream(c.peer4) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_OPTIONS, bytes([_NOP] * 8))
        sock.connect((c.peer4, c.port))
        c.talk(sock)


@technique("rthdr-tcp", _GROUP, _STOP)
def rthdr_tcp(c: Case) -> None:
    """TCP to an allowed site with an IPv6 routing header by way of the far side."""
    _by_routing_header(c, socket.SOCK_STREAM)


@technique("rthdr-udp", _GROUP, _STOP)
def rthdr_udp(c: Case) -> None:
    """UDP to an allowed site with an IPv6 routing header by way of the far side."""
    _by_routing_header(c, socket.SOCK_DGRAM)


def _by_routing_header(c: Case, kind: int) -> None:
    failure: OSError | None = None
    for header in _ROUTING_TYPES:
        with socket.socket(socket.AF_INET6, kind) as sock:
            try:
                sock.setsockopt(socket.IPPROTO_IPV6, _RTHDR, _segments(header, c.peer6))
                if kind == socket.SOCK_STREAM:
                    _glance(sock, (c.home6, c.port))
                else:
                    sock.sendto(c.payload, (c.home6, c.port))
                return
            except OSError as error:
                failure = error
    if failure is not None:
        raise failure


@technique("rthdr-loopback", _GROUP, _STOP)
def rthdr_loopback(c: Case) -> None:
    """UDP to ::1 with a routing header by way of the far side."""
    with datagram("::1") as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, _RTHDR, _segments(4, c.peer6))
        sock.sendto(c.payload, ("::1", c.port))


@technique("hop-by-hop", _GROUP, _STOP, users="root")
def hop_by_hop(c: Case) -> None:
    """UDP with an IPv6 hop-by-hop header, which moves what follows."""
    with datagram(c.peer6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, _HOPOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        sock.sendto(c.payload, (c.peer6, c.port))


@technique("destination-options", _GROUP, _STOP, users="root")
def destination_options(c: Case) -> None:
    """TCP with an IPv6 destination options header."""
    with stream(c.peer6) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, _DSTOPTS, bytes([0, 0, 1, 4, 0, 0, 0, 0]))
        sock.connect((c.peer6, c.port))
        c.talk(sock)
