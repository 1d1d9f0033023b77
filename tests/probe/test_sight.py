"""Frames are given to the attempt they belong to, whenever they come."""

from __future__ import annotations

from typing import cast

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6EchoRequest, ICMPv6ND_NS, IPv6, IPv6ExtHdrHopByHop
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from enforcer.demo.witness import Witness
from enforcer.probe.sight import Sight, Sighting


class Frames:
    """A witness of frames that a test puts in."""

    def __init__(self) -> None:
        self.waiting: list[bytes] = []

    def frames(self) -> list[bytes]:
        found, self.waiting = self.waiting, []
        return found


def saw(*packets: Packet) -> tuple[Sighting, Sighting]:
    """What an earlier attempt (token `early`, port 7) and the current one (`later`, port 8) get of these packets."""
    frames = Frames()
    sight = Sight(cast(Witness, frames))
    earlier, current = sight.begin("early", 7), sight.begin("later", 8)
    frames.waiting = [bytes(packet) for packet in packets]
    sight.watch(current, 0.01)
    return earlier, current


def test_a_token_names_its_attempt() -> None:
    """A late datagram with an earlier token counts for the earlier attempt, whatever its port."""
    earlier, current = saw(Ether() / IP() / UDP(dport=8) / Raw(b"xx early xx"))
    assert (earlier.token_seen, earlier.frame_count) == (True, 1)
    assert current.frame_count == 0


def test_a_port_names_its_attempt() -> None:
    """A late segment without a token counts by its port."""
    earlier, current = saw(Ether() / IP() / TCP(dport=7, flags="S"))
    assert (earlier.token_seen, earlier.frames) == (False, ["TCP 127.0.0.1 port 7 SYN"])
    assert current.frame_count == 0


@pytest.mark.parametrize(
    "packet",
    [
        Ether() / IP(proto=253) / Raw(b"?"),
        Ether() / IPv6() / ICMPv6EchoRequest(),
        Ether(type=0x88B5) / Raw(b"?"),
        Ether() / IP() / UDP(dport=443),
    ],
)
def test_anything_else_counts_for_the_current_attempt(packet: Packet) -> None:
    """A frame that nothing accounts for is held against whoever is at work."""
    earlier, current = saw(packet)
    assert (earlier.frame_count, current.frame_count) == (0, 1)


def test_a_hosts_own_housekeeping_counts_for_nobody() -> None:
    """ARP, neighbour discovery and multicast reports are what every host says by itself."""
    report = IPv6(dst="ff02::16", nh=0) / IPv6ExtHdrHopByHop(nh=58) / Raw(b"\x8f\0\0\0\0\0\0\0")
    earlier, current = saw(Ether() / ARP(), Ether() / IPv6() / ICMPv6ND_NS(), Ether() / report)
    assert (earlier.frame_count, current.frame_count) == (0, 0)


def test_what_the_resolver_asks_again_counts_for_nobody() -> None:
    """The allowed question of an attempt before, in any case of its letters; another name counts, and so does a
    token."""
    allowed = Raw(b"\0\1\1\0\0\1\0\0\0\0\0\0\x07aLLowed\x04tEst\0\0\x10\0\1")
    question = Ether() / IP() / UDP(sport=40000, dport=53) / allowed
    assert [one.frame_count for one in saw(question)] == [0, 0]
    denied = Ether() / IP() / UDP(sport=40000, dport=53) / Raw(b"\x07example\0\0\x10\0\1")
    elsewhere = Ether() / IP() / UDP(sport=40000, dport=54) / allowed
    assert [one.frame_count for one in saw(denied, elsewhere)] == [0, 2]
    assert saw(question / Raw(b"later"))[1].token_seen


def test_a_token_in_housekeeping_is_seen() -> None:
    """Whoever hides the token behind an ARP request is found out."""
    _, current = saw(Ether() / ARP() / Raw(b"later"))
    assert current.token_seen


def test_an_endless_stream_ends_the_watch() -> None:
    """Frames that never cease do not hold up the run."""

    class Endless(Frames):
        def frames(self) -> list[bytes]:
            return [bytes(Ether() / IP(proto=253))]

    sight = Sight(cast(Witness, Endless()))
    current = sight.begin("later", 8)
    sight.watch(current, 0.5)
    assert current.frame_count > 1
