"""Packets made by hand: they pass no hook of connect() or sendmsg(). Made outside by scapy, sent in here as bytes."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import socket
import struct
import subprocess
from pathlib import Path

from enforcer.probe.inside.kit import Case, Refused, check, each_interface, libc, technique, tool

_GROUP = "packets"
_RAW = "raw sockets need a capability the executor lacks, and are refused when made; no route inside"
_PACKET = "packet sockets need a capability the executor lacks; its namespace has only lo"
_DEVICE = "network devices need a capability the executor lacks; its namespace has no uplink"
_IP_HDRINCL, _IPV6_HDRINCL, _ETH_P_IP, _SOCK_PACKET = 3, 36, 0x0800, 10
# include/uapi/linux/if_xdp.h
_AF_XDP, _SOL_XDP, _XDP_COPY = 44, 283, 2
_XDP_MMAP_OFFSETS, _XDP_TX_RING, _XDP_UMEM_REG, _XDP_FILL_RING, _XDP_COMPLETION_RING = 1, 3, 4, 5, 6
_XDP_PGOFF_TX_RING = 0x80000000
_FRAMES, _FRAME_SIZE = 64, 2048
# include/uapi/linux/if_tun.h
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 1, 0x1000


def _frame(frame: str) -> None:
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as sock:
        each_interface(lambda _index, name: sock.sendto(bytes.fromhex(frame), (name, _ETH_P_IP)))


@technique("raw-ip", _GROUP, _RAW, users="root", stage="crafted")
def raw_ip(c: Case) -> None:
    """A raw socket of an unassigned protocol, 253."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, 253) as sock:
        sock.sendto(c.payload, (c.peer4, 0))


@technique("raw-ip-v6", _GROUP, _RAW, users="root", stage="crafted")
def raw_ip_v6(c: Case) -> None:
    """An IPv6 raw socket of an unassigned protocol, 253."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, 253) as sock:
        sock.sendto(c.payload, (c.peer6, 0))


@technique("raw-header", _GROUP, _RAW, users="root", stage="crafted")
def raw_header(c: Case) -> None:
    """A whole IPv4 packet of our own making, IP_HDRINCL."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.sendto(bytes.fromhex(c.values["ip4"]), (c.peer4, 0))


@technique("raw-header-elsewhere", _GROUP, _RAW, users="root", stage="crafted")
def raw_header_elsewhere(c: Case) -> None:
    """A whole packet for the far side, given to the kernel as one for another address that leads there."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.IPPROTO_IP, _IP_HDRINCL, 1)
        sock.sendto(bytes.fromhex(c.values["ip4"]), ("100.100.100.200", 0))


@technique("raw-header-v6", _GROUP, _RAW, users="root", stage="crafted")
def raw_header_v6(c: Case) -> None:
    """A whole IPv6 packet of our own making."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_HDRINCL, 1)
        sock.sendto(bytes.fromhex(c.values["ip6"]), (c.peer6, 0))


@technique("raw-fragments", _GROUP, _RAW, users="root", stage="crafted")
def raw_fragments(c: Case) -> None:
    """A datagram cut into fragments by hand; only the first has a port."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as sock:
        for fragment in c.values["fragments"]:
            sock.sendto(bytes.fromhex(fragment), (c.peer4, 0))


@technique("raw-icmp", _GROUP, _RAW, users="root", stage="crafted")
def raw_icmp(c: Case) -> None:
    """ICMP echo through a raw socket."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP) as sock:
        sock.sendto(bytes.fromhex(c.values["echo4"]), (c.peer4, 0))


@technique("raw-icmp-v6", _GROUP, _RAW, users="root", stage="crafted")
def raw_icmp_v6(c: Case) -> None:
    """ICMPv6 echo through a raw socket."""
    with socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6) as sock:
        sock.sendto(struct.pack(">BBHHH", 128, 0, 0, 1, 1) + c.payload, (c.peer6, 0))


@technique("raw-udp", _GROUP, _RAW, users="root", stage="crafted")
def raw_udp(c: Case) -> None:
    """UDP made by hand and sent through a raw socket of protocol 17."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_UDP) as sock:
        sock.sendto(struct.pack(">HHHH", c.port, c.port, 8 + len(c.payload), 0) + c.payload, (c.peer4, 0))


@technique("raw-tcp", _GROUP, _RAW, users="root", stage="crafted")
def raw_tcp(c: Case) -> None:
    """A SYN made by hand with the token in it, through a raw socket of protocol 6."""
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as sock:
        sock.sendto(bytes.fromhex(c.values["syn"]), (c.peer4, 0))


@technique("ping-program", _GROUP, "no_new_privs: a program's file capabilities do not count in an executor")
def ping_program(c: Case) -> None:
    """ping(8), which brings its own privilege, with the token as its pattern."""
    command = [tool("ping"), "-c", "1", "-W", "1", "-p", c.payload.hex(), c.peer4]
    _run(command)


@technique("packet-raw", _GROUP, _PACKET, users="root", stage="crafted")
def packet_raw(c: Case) -> None:
    """A whole Ethernet frame through AF_PACKET, on each interface there is."""
    _frame(c.values["frame4"])


@technique("packet-raw-v6", _GROUP, _PACKET, users="root", stage="crafted")
def packet_raw_v6(c: Case) -> None:
    """An Ethernet frame with IPv6 through AF_PACKET."""
    _frame(c.values["frame6"])


@technique("packet-arp", _GROUP, _PACKET, users="root", stage="crafted")
def packet_arp(c: Case) -> None:
    """The token behind an ARP request, which is not IP at all."""
    _frame(c.values["arp"])


@technique("packet-vlan", _GROUP, _PACKET, users="root", stage="crafted")
def packet_vlan(c: Case) -> None:
    """An IP packet behind a VLAN tag."""
    _frame(c.values["vlan"])


@technique("packet-dgram", _GROUP, _PACKET, users="root", stage="crafted")
def packet_dgram(c: Case) -> None:
    """An IP packet through AF_PACKET, the kernel writing the frame's head."""
    packet, mac = bytes.fromhex(c.values["ip4"]), bytes.fromhex(c.values["mac"])
    with socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0) as sock:
        each_interface(lambda _index, name: sock.sendto(packet, (name, _ETH_P_IP, 0, 0, mac)))


@technique("packet-old", _GROUP, _PACKET, users="root", stage="crafted")
def packet_old(c: Case) -> None:
    """A frame through the obsolete SOCK_PACKET, whose family is AF_INET."""
    frame = bytes.fromhex(c.values["frame4"])
    with socket.socket(socket.AF_INET, _SOCK_PACKET, socket.htons(_ETH_P_IP)) as sock:

        def send(_index: int, name: str) -> None:
            # struct sockaddr_pkt: family, device, protocol
            address = struct.pack("=H14sH", socket.AF_PACKET, name.encode(), socket.htons(_ETH_P_IP))
            check(libc.sendto(sock.fileno(), frame, ctypes.c_size_t(len(frame)), 0, address, len(address)), "sendto")

        each_interface(send)


@technique("xdp", _GROUP, _PACKET, users="root", stage="crafted")
def xdp(c: Case) -> None:
    """A frame through AF_XDP, from shared memory straight to the driver."""
    each_interface(lambda index, _name: _send_by_xdp(index, bytes.fromhex(c.values["frame4"])))


def _send_by_xdp(index: int, frame: bytes) -> None:
    with socket.socket(_AF_XDP, socket.SOCK_RAW, 0) as sock, mmap.mmap(-1, _FRAMES * _FRAME_SIZE) as memory:
        memory[: len(frame)] = frame
        # What names the memory must be gone when it is closed, also after a failure.
        start = ctypes.addressof((ctypes.c_char * len(memory)).from_buffer(memory))
        sock.setsockopt(_SOL_XDP, _XDP_UMEM_REG, struct.pack("=QQII", start, len(memory), _FRAME_SIZE, 0))
        for ring in (_XDP_FILL_RING, _XDP_COMPLETION_RING, _XDP_TX_RING):
            sock.setsockopt(_SOL_XDP, ring, _FRAMES)
        offsets = struct.unpack("=16Q", sock.getsockopt(_SOL_XDP, _XDP_MMAP_OFFSETS, 128))
        producer, _consumer, descriptors, _flags = offsets[4:8]
        with mmap.mmap(sock.fileno(), descriptors + _FRAMES * 16, offset=_XDP_PGOFF_TX_RING) as ring_memory:
            # struct sockaddr_xdp: family, flags, interface, queue, umem of another socket
            address = struct.pack("=HHIII", _AF_XDP, _XDP_COPY, index, 0, 0)
            check(libc.bind(sock.fileno(), address, len(address)), "bind")
            struct.pack_into("=QII", ring_memory, descriptors, 0, len(frame), 0)
            struct.pack_into("=I", ring_memory, producer, 1)
            check(libc.sendto(sock.fileno(), None, 0, socket.MSG_DONTWAIT, None, 0), "sendto")


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines() or ["no output"]
        raise Refused(f"{Path(command[0]).name}: {lines[-1]}")


def _through_device(c: Case, kind: str, *options: str) -> None:
    """Makes a network device with `ip`, and sends a datagram through it."""
    ip, name = tool("ip"), f"ep{c.port}"
    _run([ip, "link", "add", name, "type", kind, *options])
    try:
        _run([ip, "addr", "add", "10.99.0.1/24", "dev", name])
        _run([ip, "link", "set", name, "up"])
        subprocess.run(
            [ip, "neigh", "add", "10.99.0.2", "lladdr", "02:00:00:00:00:02", "dev", name],
            capture_output=True,
            check=False,  # a point-to-point device needs none
        )
        c.udp("10.99.0.2")
    finally:
        subprocess.run([ip, "link", "del", name], capture_output=True, check=False)


@technique("tunnel-vxlan", _GROUP, _DEVICE, users="root", stage="crafted")
def tunnel_vxlan(c: Case) -> None:
    """A VXLAN device to the far side: the outer packets are the kernel's own."""
    _through_device(c, "vxlan", "id", "7", "remote", c.peer4, "dstport", "4789")


@technique("tunnel-geneve", _GROUP, _DEVICE, users="root", stage="crafted")
def tunnel_geneve(c: Case) -> None:
    """A Geneve device to the far side."""
    _through_device(c, "geneve", "id", "7", "remote", c.peer4)


@technique("tunnel-gre", _GROUP, _DEVICE, users="root", stage="crafted")
def tunnel_gre(c: Case) -> None:
    """A GRE device to the far side."""
    _through_device(c, "gre", "remote", c.peer4, "local", c.values["host4"])


@technique("tunnel-ipip", _GROUP, _DEVICE, users="root", stage="crafted")
def tunnel_ipip(c: Case) -> None:
    """An IP-in-IP device to the far side."""
    _through_device(c, "ipip", "remote", c.peer4, "local", c.values["host4"])


@technique("macvlan", _GROUP, _DEVICE, users="root", stage="crafted")
def macvlan(c: Case) -> None:
    """A device of its own on the uplink, with an address of its own, and a datagram from it."""
    ip, name = tool("ip"), f"ep{c.port}"
    _run([ip, "link", "add", name, "link", c.values["interface"], "type", "macvlan", "mode", "bridge"])
    try:
        _run([ip, "addr", "add", c.values["neighbour_of_peer"] + "/24", "dev", name])
        _run([ip, "link", "set", name, "up"])
        _run([ip, "neigh", "replace", c.peer4, "lladdr", c.values["mac_text"], "dev", name])
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode())
            sock.sendto(c.payload, (c.peer4, c.port))
    finally:
        subprocess.run([ip, "link", "del", name], capture_output=True, check=False)


@technique("tun-injection", _GROUP, _DEVICE, users="root", stage="crafted")
def tun_injection(c: Case) -> None:
    """A packet written into a TUN device, which the host then forwards as if it came from elsewhere."""
    device = os.open("/dev/net/tun", os.O_RDWR)
    try:
        name = f"ep{c.port}"
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
        _run([tool("ip"), "addr", "add", "10.98.0.1/24", "dev", name])
        _run([tool("ip"), "link", "set", name, "up"])
        os.write(device, bytes.fromhex(c.values["forwarded"]))
    finally:
        os.close(device)
