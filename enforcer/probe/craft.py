"""Packets and frames for the far side, made with scapy: what carries the token past every hook of connect()."""

from __future__ import annotations

from ipaddress import ip_interface
from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP, fragment
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Dot1Q, Ether
from scapy.packet import Raw

from enforcer.probe.ground import PEER, Link

# Bytes per fragment of a datagram that is cut by hand.
_FRAGMENT = 200


def crafted(link: Link, token: str, port: int) -> dict[str, Any]:
    """Hexadecimal packets by the names that techniques know them by, and the addresses that belong to them."""
    text = Raw(token.encode())
    udp = UDP(sport=port, dport=port) / text
    ip4 = IP(src=link.host4, dst=PEER.address) / udp
    ip6 = IPv6(src=link.host6, dst=PEER.address6) / udp
    ether = Ether(src=link.mac, dst=link.peer_mac)
    long = IP(src=link.host4, dst=PEER.address) / UDP(sport=port, dport=port) / Raw(token.encode() * 40)
    arp = ARP(hwsrc=link.mac, psrc=link.host4, pdst=PEER.address) / text
    packets: dict[str, Any] = {
        "ip4": ip4,
        "ip6": ip6,
        "frame4": ether / ip4,
        "frame6": ether / ip6,
        "arp": Ether(src=link.mac, dst="ff:ff:ff:ff:ff:ff") / arp,
        "vlan": ether / Dot1Q(vlan=7) / ip4,
        "echo4": ICMP() / text,
        "forwarded": IP(src="10.98.0.2", dst=PEER.address) / udp,
    }
    found = {name: bytes(packet).hex() for name, packet in packets.items()}
    # Built behind its IP header, for the checksum, and cut off it again.
    syn = IP(src=link.host4, dst=PEER.address) / TCP(sport=port, dport=port, flags="S") / text
    pieces = fragment(long, fragsize=_FRAGMENT)  # type: ignore[no-untyped-call]
    hosts = list(ip_interface(PEER.ipv4).network.hosts())
    return {
        **found,
        "syn": bytes(syn)[20:].hex(),
        "fragments": [bytes(piece).hex() for piece in pieces],
        "mac": link.peer_mac.replace(":", ""),
        "mac_text": link.peer_mac,
        "interface": link.interface,
        "host4": link.host4,
        "neighbour_of_peer": str(hosts[98]),
    }
