"""Step 4 of 6, inspect: bytes of a protocol nobody here reads. Passed on whole or not at all.

Gets bytes of either side; asks once, before any of them, for a verdict on the connection, then hands all of them on.
Reached only where a rule says `protocol: opaque`. What is to be masked here cannot be, so it is refused.
"""

from __future__ import annotations

from collections import deque
from enum import Enum

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import (
    Event,
    Forward,
    Outcome,
    Probe,
    Protocol,
    Refusal,
    Request,
    Rewrite,
    Rows,
    Text,
    Unmaskable,
)
from enforcer.verdict import Denial

# Bytes kept before the verdict. The session stops reading meanwhile: a few socket reads (uvloop: 256 KiB each).
PENDING_LIMIT = 1024 * 1024


class State(Enum):
    """Where the connection stands."""

    NEW = "nothing was asked yet"
    HELD = "the connection waits for its verdict"
    OPEN = "all bytes pass"
    CLOSED = "nothing follows"


class OpaqueInspector:
    """One connection, which is one exchange. See `enforcer.protocols.base.Inspector`."""

    name = "opaque"
    half_close = True
    rewrites = False
    multiplexed = False

    def __init__(self) -> None:
        self._state = State.NEW
        self._passing: deque[Forward] = deque()
        self._pending = 0
        self._ended: set[Side] = set()
        self._masked = False

    def read_bodies(self) -> None:
        """There are none."""

    def receive_data(self, side: Side, data: bytes) -> None:
        if self._state is State.CLOSED or not data:
            return
        self._pending += len(data)
        if self._state is not State.OPEN and self._pending > PENDING_LIMIT:
            raise LimitExceeded(side, f"more than {PENDING_LIMIT} bytes before the verdict")
        self._passing.append(Forward(side, data))

    def receive_eof(self, side: Side) -> None:
        self._ended.add(side)

    def next_event(self) -> Event | None:
        if self._state is State.NEW:
            self._state = State.HELD
            return self._request()
        if self._state is not State.OPEN:
            return None
        if self._passing:
            event = self._passing.popleft()
            if self._masked and event.side is Side.SERVER:
                self._close()
                return Unmaskable(1, "what is passed unread cannot be masked")
            return event
        if len(self._ended) == len(Side):
            self._close()
            return Outcome(1, "closed")
        return None

    def _request(self) -> Request:
        return Request(1, "connect", "", b"")

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:  # noqa: ARG002 - never set here
        self._state = State.OPEN
        self._masked = masked
        return request.raw

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:  # noqa: ARG002 - the interface's
        self._close()
        return Refusal(b"", close=True)

    def _close(self) -> None:
        self._state = State.CLOSED
        self._passing.clear()

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:  # noqa: ARG002 - the interface's
        raise TypeError("opaque bytes hold no rows")

    def encode_text(self, text: Text, data: bytes) -> bytes:  # noqa: ARG002 - the interface's
        raise TypeError("opaque bytes hold no text")


class Opaque:
    """The registry's entry. Its probe is never asked: what no protocol claims is opaque."""

    name = "opaque"

    def probe(self, data: bytes) -> Probe:  # noqa: ARG002 - the interface's
        return Probe.YES

    def inspector(self) -> OpaqueInspector:
        return OpaqueInspector()


PROTOCOL: Protocol = Opaque()
