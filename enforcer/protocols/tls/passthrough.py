"""Step 4 of 6, inspect: one TLS connection that is passed on whole, or refused before a byte of it.

Gets bytes of either side; asks once for a verdict, with the server's name from the ClientHello as the host, then hands
all of them on unread. What is to be masked here cannot be, so it is refused.
"""

from __future__ import annotations

from enforcer.flow import Side
from enforcer.protocols.base import Event, Refusal, Request
from enforcer.protocols.opaque import OpaqueInspector, State
from enforcer.protocols.tls.client_hello import ClientHello, Collector, parse
from enforcer.verdict import Denial

# The operation of its one request.
HELLO = "ClientHello"
# A fatal alert, access_denied (RFC 8446 section 6.2), in a record of the version that everyone reads.
ACCESS_DENIED = bytes((21, 3, 1, 0, 2, 2, 49))


class TlsInspector(OpaqueInspector):
    """One connection, which is one exchange. See `enforcer.protocols.base.Inspector`."""

    name = "tls"

    def __init__(self) -> None:
        super().__init__()
        self._hello: ClientHello | None = None
        self._collector = Collector()

    def receive_data(self, side: Side, data: bytes) -> None:
        if self._hello is None and side is Side.CLIENT and self._state is State.NEW:
            body = self._collector.feed(data)
            if body is not None:
                self._hello = parse(body)
        super().receive_data(side, data)

    def next_event(self) -> Event | None:
        if self._state is State.NEW and self._hello is None:
            return None
        return super().next_event()

    def _request(self) -> Request:
        """The host is what the client asks for, unless that may hide another (ECH): then none is known."""
        if self._hello is None:
            raise RuntimeError("asked before the ClientHello")
        facts = {"alpn": " ".join(self._hello.alpn)} if self._hello.alpn else {}
        if self._hello.encrypted:
            facts["ech"] = "yes"
        elif self._hello.name:
            facts["host"] = self._hello.name
        return Request(1, HELLO, self._hello.name, b"", facts=facts)

    def withdraw(self) -> bytes:
        """All that the client has sent, for whoever ends TLS himself; this inspector is done then."""
        taken = b"".join(one.raw for one in self._passing if one.side is Side.CLIENT)
        self._close()
        return taken

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """An alert is understood only before the handshake has got anywhere."""
        early = self._state in (State.NEW, State.HELD)
        super().refuse(request, denial)
        return Refusal(ACCESS_DENIED if early else b"", close=True)
