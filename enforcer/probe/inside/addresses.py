"""Addresses that mean the far side without looking like it, and local ones that a helper outside listens on."""

from __future__ import annotations

import socket
import struct

from enforcer.probe.inside.kit import Case, each_interface, technique

_GROUP = "address forms"
_CONNECT = "connect() leads to the proxy, which judges the real destination"
_EMBEDDED = "the embedded IPv4 address is judged as well; no table places these ranges"
_LOCAL = "local addresses belong to the executor's own namespace or lead to the proxy"
_DATAGRAM = "no UDP but to the resolver; no route in the executor's namespace"


@technique("tcp4", _GROUP, _CONNECT)
def tcp4(c: Case) -> None:
    """TCP to an IPv4 address."""
    c.tcp(c.peer4)


@technique("tcp6", _GROUP, _CONNECT)
def tcp6(c: Case) -> None:
    """TCP to an IPv6 address."""
    c.tcp(c.peer6)


@technique("tcp-mapped", _GROUP, _CONNECT)
def tcp_mapped(c: Case) -> None:
    """TCP to the IPv4-mapped form, ::ffff:a.b.c.d, on an IPv6 socket."""
    c.tcp(f"::ffff:{c.peer4}")


@technique("tcp-nat64", _GROUP, _EMBEDDED, stage="embedded")
def tcp_nat64(c: Case) -> None:
    """TCP to the address embedded for NAT64, 64:ff9b::a.b.c.d."""
    c.tcp(c.values["nat64"])


@technique("tcp-6to4", _GROUP, _EMBEDDED, stage="embedded")
def tcp_6to4(c: Case) -> None:
    """TCP to the address embedded for 6to4, 2002:AABB:CCDD::1."""
    c.tcp(c.values["6to4"])


@technique("tcp-teredo", _GROUP, _EMBEDDED, stage="embedded")
def tcp_teredo(c: Case) -> None:
    """TCP to the address embedded for Teredo, inverted at the end of 2001:0::/32."""
    c.tcp(c.values["teredo"])


@technique("tcp-compatible", _GROUP, _EMBEDDED, stage="embedded")
def tcp_compatible(c: Case) -> None:
    """TCP to the deprecated IPv4-compatible form, ::a.b.c.d."""
    c.tcp(c.values["compatible"])


@technique("tcp-scoped", _GROUP, _CONNECT, stage="embedded")
def tcp_scoped(c: Case) -> None:
    """TCP to the far side's link-local IPv6 address, on each interface there is."""
    for index, _ in socket.if_nameindex():
        with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as sock:
            sock.settimeout(0.3)
            if sock.connect_ex((c.values["link_local"], c.port, 0, index)) == 0:
                c.talk(sock)
                return
    raise ConnectionRefusedError("on no interface")


@technique("metadata-v4", _GROUP, "denied before any rule, in the kernel and in the proxy", stage="embedded")
def metadata_v4(c: Case) -> None:
    """HTTP to the cloud metadata address 169.254.169.254."""
    with socket.create_connection(("169.254.169.254", 80), 1) as sock:
        c.talk(sock, f"GET /{c.token} HTTP/1.1\r\nHost: metadata\r\n\r\n".encode())


@technique("metadata-v6", _GROUP, "denied before any rule, in the kernel and in the proxy", stage="embedded")
def metadata_v6(c: Case) -> None:
    """HTTP to the IPv6 cloud metadata address fd00:ec2::254."""
    with socket.create_connection(("fd00:ec2::254", 80), 1) as sock:
        c.talk(sock, f"GET /{c.token} HTTP/1.1\r\nHost: metadata\r\n\r\n".encode())


@technique("metadata-others", _GROUP, "denied before any rule, in the kernel and in the proxy", stage="embedded")
def metadata_others(c: Case) -> None:
    """HTTP to other clouds' metadata addresses, 168.63.129.16 and 100.100.100.200."""
    failure: OSError | None = None
    for address in ("168.63.129.16", "100.100.100.200"):
        try:
            with socket.create_connection((address, 80), 1) as sock:
                c.talk(sock, f"GET /{c.token} HTTP/1.1\r\nHost: metadata\r\n\r\n".encode())
        except OSError as error:
            failure = error
    if failure is not None:
        raise failure


@technique("multicast-v4", _GROUP, _DATAGRAM, stage="embedded")
def multicast_v4(c: Case) -> None:
    """UDP to the multicast group of mDNS, on each interface there is."""

    def send(index: int, _name: str) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
            sock.sendto(c.payload, ("224.0.0.251", 5353))

    each_interface(send)


@technique("multicast-v6", _GROUP, _DATAGRAM, stage="embedded")
def multicast_v6(c: Case) -> None:
    """UDP to the IPv6 multicast group of all nodes, on each interface there is."""

    def send(index: int, _name: str) -> None:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            sock.sendto(c.payload, ("ff02::1", 5355, 0, index))

    each_interface(send)


@technique("broadcast-limited", _GROUP, _DATAGRAM, stage="embedded")
def broadcast_limited(c: Case) -> None:
    """UDP to 255.255.255.255."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(c.payload, ("255.255.255.255", c.port))


@technique("broadcast-network", _GROUP, _DATAGRAM, stage="embedded")
def broadcast_network(c: Case) -> None:
    """UDP to the broadcast address of the far side's network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sock.sendto(c.payload, (c.values["broadcast"], c.port))


@technique("zero-v4", "loopback", _LOCAL, stage="neighbour")
def zero_v4(c: Case) -> None:
    """TCP to 0.0.0.0, which means this host, where a helper outside forwards."""
    c.tcp("0.0.0.0", c.values["relay_port"])  # noqa: S104 - not a bind


@technique("zero-v6", "loopback", _LOCAL, stage="neighbour")
def zero_v6(c: Case) -> None:
    """TCP to ::, which means this host, where a helper outside forwards."""
    c.tcp("::", c.values["relay_port"])


@technique("loopback-v4", "loopback", _LOCAL, stage="neighbour")
def loopback_v4(c: Case) -> None:
    """TCP to 127.0.0.1, where a helper outside forwards."""
    c.tcp("127.0.0.1", c.values["relay_port"])


@technique("loopback-other", "loopback", _LOCAL, stage="neighbour")
def loopback_other(c: Case) -> None:
    """TCP to 127.0.0.5, where a helper outside forwards."""
    c.tcp("127.0.0.5", c.values["relay_port"])


@technique("loopback-mapped", "loopback", _LOCAL, stage="neighbour")
def loopback_mapped(c: Case) -> None:
    """TCP to ::ffff:127.0.0.1, where a helper outside forwards."""
    c.tcp("::ffff:127.0.0.1", c.values["relay_port"])


@technique("loopback-v6", "loopback", _LOCAL, stage="neighbour")
def loopback_v6(c: Case) -> None:
    """TCP to ::1, where a helper outside forwards."""
    c.tcp("::1", c.values["relay_port"])


@technique("loopback-udp", "loopback", _DATAGRAM, stage="neighbour")
def loopback_udp(c: Case) -> None:
    """UDP to 127.0.0.1 and ::1, where a helper outside forwards."""
    c.udp("127.0.0.1", c.values["relay_port"])
    c.udp("::1", c.values["relay_port"])


@technique("host-address-v4", "loopback", _CONNECT, stage="neighbour")
def host_address_v4(c: Case) -> None:
    """TCP to the host's own public IPv4 address, where a helper outside forwards."""
    c.tcp(c.values["host4"], c.values["relay_port"])


@technique("host-address-v6", "loopback", _CONNECT, stage="neighbour")
def host_address_v6(c: Case) -> None:
    """TCP to the host's own public IPv6 address, where a helper outside forwards."""
    c.tcp(c.values["host6"], c.values["relay_port"])
