"""What really arrived: every frame that reaches a host, kept until asked. The judge of all claims about containment."""

from __future__ import annotations

import socket
from types import TracebackType
from typing import Self

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet

ETH_P_ALL = 3
_SNAPLEN = 65535
_BUFFER = 64 << 20


class Witness:
    """Created inside the namespace it watches; may be read from anywhere."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._socket.setblocking(False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def arrived(self, address: str) -> list[str]:
        """What was sent to `address` since the last call, a line per IP packet: `TCP 80 SYN`, `UDP 53`, `ICMP 8`,
        `protocol 253`. Neighbour discovery and everything else that is not addressed to it is left out."""
        lines: list[str] = []
        for frame in self.frames():
            packet = Ether(frame)
            layer = packet.getlayer(IP) or packet.getlayer(IPv6)
            if layer is not None and layer.dst == address:
                lines.append(_describe(layer))
        return lines

    def frames(self) -> list[bytes]:
        """Every frame that came in since the last call, from its link-layer header on."""
        found: list[bytes] = []
        while True:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(_SNAPLEN)
            except BlockingIOError:
                return found
            if kind != socket.PACKET_OUTGOING:
                found.append(frame)


def _describe(layer: Packet) -> str:
    if TCP in layer:
        flags = layer[TCP].flags
        return f"TCP {layer[TCP].dport}{' SYN' if flags.S else ''}"
    if UDP in layer:
        return f"UDP {layer[UDP].dport}"
    if ICMP in layer:
        return f"ICMP {layer[ICMP].type}"
    return f"protocol {layer.proto if IP in layer else layer.nh}"
