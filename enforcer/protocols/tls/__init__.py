"""Step 4 of 6, inspect: TLS that is passed on unread, judged by the name its client asks for.

Reading order: `client_hello` (what is said in clear), `passthrough` (the connection).
"""

from __future__ import annotations

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.tls.client_hello import CLIENT_HELLO, HANDSHAKE, RECORD_HEADER
from enforcer.protocols.tls.passthrough import TlsInspector

# Versions of the record layer that clients write: 3.0 of old ones' habit, 3.1 by RFC 8446, up to 3.4.
_MINOR_VERSIONS = range(5)


class Tls:
    """The registry's entry."""

    name = "tls"

    def probe(self, data: bytes) -> Probe:
        """A handshake record that begins with a ClientHello. That of SSL 2 is another shape, and opaque."""
        begins = data[0] == HANDSHAKE and data[1:2] in (b"", b"\3")
        if not begins or (len(data) > 2 and data[2] not in _MINOR_VERSIONS):
            return Probe.NO
        if len(data) <= RECORD_HEADER:
            return Probe.MORE
        return Probe.YES if data[RECORD_HEADER] == CLIENT_HELLO else Probe.NO

    def inspector(self) -> TlsInspector:
        return TlsInspector()


PROTOCOL: Protocol = Tls()
