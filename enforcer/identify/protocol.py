"""Step 2 of 6, identify: which protocol a client speaks, from its first bytes.

Gets the bytes received so far; hands on the protocol whose parser takes over, from the first byte. Never consumes,
changes or keeps them, and never guesses: what no protocol claims is opaque, which policy denies unless a rule names it.
"""

from __future__ import annotations

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.registry import OPAQUE, PROTOCOLS

# Bytes after which a protocol must know its own. HTTP methods have up to 24, and PostgreSQL's first packet tells in 8.
PROBE_LIMIT = 64


def identify(data: bytes) -> Protocol | None:
    """The protocol of the client's first bytes `data`, or None while more bytes are needed to tell."""
    if not data:
        return None
    first = data[:PROBE_LIMIT]
    undecided = False
    for protocol in PROTOCOLS:
        answer = protocol.probe(first)
        if answer is Probe.YES:
            return protocol
        undecided |= answer is Probe.MORE
    return None if undecided and len(data) < PROBE_LIMIT else OPAQUE
