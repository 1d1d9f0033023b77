"""What the far side saw: every frame on its link, told apart by token, by port, and else by when it came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

from enforcer.demo.witness import Witness

# Seconds without a frame after which the next attempt begins. What comes later is still known by its token or port.
QUIET = 0.03
# Seconds after which an attempt is no longer watched, even if its traffic never ends.
LONGEST = 1.5
# Frames that are described in evidence; all are counted.
_DESCRIBED = 5
# Neighbour discovery, router solicitation and multicast listener reports: every IPv6 host sends them by itself.
_HOUSEKEEPING = {130, 131, 132, 133, 134, 135, 136, 137, 143}
_ICMPV6, _HOP_BY_HOP, _IGMP, _DNS = 58, 0, 2, 53
# What the enforcer's resolver asks itself, and again for seconds while nobody answers: the one allowed name. Who hides
# something in such a question is found by the token.
_ALLOWED_QUESTION = b"\x07allowed\x04test\x00"


@dataclass(slots=True)
class Sighting:
    """What came of one attempt."""

    token: str
    port: int
    token_seen: bool = False
    frames: list[str] = field(default_factory=list)
    frame_count: int = 0

    def add(self, description: str, *, has_token: bool) -> None:
        self.token_seen |= has_token
        self.frame_count += 1
        if len(self.frames) < _DESCRIBED and description not in self.frames:
            self.frames.append(description)


class Sight:
    """Reads the witness and gives each frame to the attempt it belongs to."""

    def __init__(self, witness: Witness) -> None:
        self._witness = witness
        self._by_token: dict[bytes, Sighting] = {}
        self._by_port: dict[int, Sighting] = {}

    def begin(self, token: str, port: int) -> Sighting:
        """A new attempt; what came before it is no longer looked at."""
        sighting = Sighting(token, port)
        self._by_token[token.encode()] = sighting
        self._by_port[port] = sighting
        return sighting

    def watch(self, current: Sighting | None, quiet: float = QUIET) -> None:
        """Takes frames until none came for `quiet` seconds. Frames with neither a known token nor a known port count
        for `current`."""
        begun = time.monotonic()
        deadline = begun + quiet
        while time.monotonic() < min(deadline, begun + LONGEST):
            frames = self._witness.frames()
            for frame in frames:
                self._assign(frame, current)
            if frames:
                deadline = time.monotonic() + quiet
            time.sleep(0.005)

    def _assign(self, frame: bytes, current: Sighting | None) -> None:
        bearer = next((one for token, one in self._by_token.items() if token in frame), None)
        packet = Ether(frame)
        if bearer is not None:
            bearer.add(describe(packet), has_token=True)
            return
        if is_housekeeping(packet) or (_DNS in _ports(packet) and _ALLOWED_QUESTION in frame.lower()):
            return
        owner = next((self._by_port[port] for port in _ports(packet) if port in self._by_port), current)
        if owner is not None:
            owner.add(describe(packet), has_token=False)


def _ports(packet: Packet) -> tuple[int, ...]:
    layer = packet.getlayer(TCP) or packet.getlayer(UDP)
    return (layer.dport, layer.sport) if layer is not None else ()


def is_housekeeping(packet: Packet) -> bool:
    """Is it what the host's kernel says by itself on a link, whatever its processes do?"""
    if ARP in packet:
        return True
    six, four = packet.getlayer(IPv6), packet.getlayer(IP)
    if six is not None:
        return _icmpv6_type(six) in _HOUSEKEEPING
    return four is not None and four.proto == _IGMP


def _icmpv6_type(layer: Packet) -> int:
    """The ICMPv6 type behind at most a hop-by-hop header (MLD has one); -1 when it is none."""
    kind, data = layer.nh, bytes(layer.payload)
    if kind == _HOP_BY_HOP and len(data) >= 8:
        kind, data = data[0], data[8 * (data[1] + 1) :]
    return data[0] if kind == _ICMPV6 and data else -1


def describe(packet: Packet) -> str:
    """One line about a frame: protocol, destination, port."""
    layer = packet.getlayer(IP) or packet.getlayer(IPv6)
    if layer is None:
        return f"frame of type {packet.type:#06x}"
    if TCP in packet:
        return f"TCP {layer.dst} port {packet[TCP].dport}{' SYN' if packet[TCP].flags.S else ''}"
    if UDP in packet:
        return f"UDP {layer.dst} port {packet[UDP].dport}"
    if ICMP in packet:
        return f"ICMP {layer.dst} type {packet[ICMP].type}"
    return f"IP {layer.dst} protocol {layer.proto if IP in packet else layer.nh}"
