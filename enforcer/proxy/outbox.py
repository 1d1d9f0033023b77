"""Step 5 of 6, forward: what a session has for either side, kept until the end of the turn.

Gets bytes that policy has passed; writes them once the rows that announce them have left. Counts them for the record.
"""

from __future__ import annotations

import asyncio

from enforcer.proxy.journal import Journal
from enforcer.proxy.ledger import Ledger
from enforcer.proxy.tls import TlsLayer


class Outbox:
    """Bytes for the `client` and, once there is one, for the `server`."""

    def __init__(self, ledger: Ledger, journal: Journal, client: asyncio.Transport | TlsLayer) -> None:
        self.client = client
        self.server: asyncio.Transport | None = None
        self._ledger = ledger
        self._journal = journal
        self._to_client: list[bytes] = []
        self._to_server: list[bytes] = []
        self._scheduled = False  # at the end of this turn

    def go_on(self, ledger: Ledger) -> None:
        """What comes is another session's, to a server that is still to be reached."""
        self.server = None
        self._ledger = ledger

    def to_client(self, raw: bytes) -> None:
        if raw:
            self._ledger.bytes_down += len(raw)
            self._to_client.append(raw)

    def to_server(self, raw: bytes) -> None:
        if raw:
            self._ledger.bytes_up += len(raw)
            self._to_server.append(raw)

    def drop_unsent(self) -> None:
        """What was meant for a server that will never get it."""
        self._ledger.bytes_up -= sum(map(len, self._to_server))
        self._to_server.clear()

    def write_soon(self) -> None:
        """Has what there is written at the end of this turn, or at once where it is much."""
        if not self._scheduled and (self._to_client or self._to_server):
            self._scheduled = True
            size = sum(map(len, self._to_client)) + sum(map(len, self._to_server))
            self._journal.before_bytes(self.write, size)

    def write(self) -> None:
        self._scheduled = False
        if self._to_client:
            out, self._to_client = self._to_client, []
            self.client.write(b"".join(out) if len(out) > 1 else out[0])
        if self._to_server and self.server is not None:
            out, self._to_server = self._to_server, []
            self.server.write(b"".join(out) if len(out) > 1 else out[0])
