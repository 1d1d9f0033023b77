"""Step 4 of 6, inspect: what both halves of a Redis connection share.

Gets commands that went upstream and replies that came; hands on events in the order in which the client must see its
replies: ours to refused commands have their places among the server's. Never reads a byte.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Reply, Rows
from enforcer.protocols.redis.columns import Plan

MAX_OUTSTANDING: Final = 100_000
"""Commands that wait for their replies (about 60 MB of memory). Redis's documentation advises pipelines of 10,000."""

MAX_QUEUED: Final = 100_000
"""Commands of one transaction."""

SUBSCRIBING: Final = frozenset(("SUBSCRIBE", "PSUBSCRIBE", "SSUBSCRIBE"))
UNSUBSCRIBING: Final = {"UNSUBSCRIBE": "subscribe", "PUNSUBSCRIBE": "psubscribe", "SUNSUBSCRIBE": "ssubscribe"}
"""Each with the word that Redis confirms its opposite by."""


@dataclass(slots=True, eq=False)
class Pending:
    """A command that the server has yet to answer.

    `exchange`: 0 where it is none of the client's. `confirmations`: of subscriptions, how many will come (-1: as many
    as there are subscriptions). `local`: our own reply, alone or (`swallow`) in the place of the server's. `messages`:
    that came of a subscription. `plain`: its reply is not looked at, and says nothing of the connection."""

    exchange: int = 0
    name: str = ""
    plan: Plan | None = None
    masked: bool = False
    confirmations: int = 0
    local: bytes = b""
    swallow: bool = False
    messages: int = 0
    plain: bool = False
    sets_user: bool = False
    sets_database: bool = False


@dataclass(slots=True)
class Cells:
    """What a row is made of. `pieces`: the reply's bytes, one scalar or list header each. `places`: where its values
    stand in them. `resp3`: how a null is written."""

    pieces: list[bytes]
    places: list[int]
    resp3: bool


class Possible:
    """What a setting of the connection may be: commands that change it are judged before their replies are there."""

    def __init__(self, value: str) -> None:
        self._now = {value}
        self._proposed: deque[str] = deque()

    def propose(self, value: str) -> None:
        self._proposed.append(value)

    def settle(self, *, done: bool, queued: bool) -> None:
        """The oldest proposal was answered. `queued`: a transaction will decide."""
        value = self._proposed.popleft()
        if queued:
            self._now.add(value)
        elif done:
            self._now = {value}

    def values(self) -> set[str]:
        return self._now.union(self._proposed) if self._proposed else self._now


class Conversation:
    """State of one connection, and the events that wait to be handed on."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque()
        self.pending: deque[Pending] = deque()
        self.user = Possible("default")
        self.database = Possible("0")
        self.multi = False  # as far as the commands that were allowed go
        self.dirty = False  # one of the transaction's was refused: it must not be carried out
        self.queued: list[Plan] = []  # of the commands that the server queued
        self.resp3 = False
        self.in_reply = False  # the server is in the midst of one
        self.closed = False
        self.counts = {"subscribe": 0, "psubscribe": 0, "ssubscribe": 0}
        self.carrier: Pending | None = None  # the subscription that messages belong to
        self.last_masked: Pending | None = None
        self.cells: deque[Cells] = deque()  # of the rows among the events
        self._block: list[bytes] = []
        self._outcomes: list[Event] = []

    @property
    def subscribed(self) -> bool:
        return any(self.counts.values())

    def forward(self, raw: bytes) -> None:
        """Bytes of the server's go on as they are; neighbours become one event."""
        self._block.append(raw)

    def emit(self, event: Event) -> None:
        self.end_block()
        self.events.append(event)

    def emit_row(self, row: Rows, cells: Cells) -> None:
        self.emit(row)
        self.cells.append(cells)

    def end_block(self) -> None:
        """Hands on what `forward` gathered, and what ended with it."""
        if self._block:
            self.events.append(Forward(Side.SERVER, b"".join(self._block)))
            self._block.clear()
        if self._outcomes:
            self.events += self._outcomes
            self._outcomes.clear()

    def head(self) -> Pending | None:
        """What the server answers next."""
        return self.pending[0] if self.pending else None

    def expect(self, item: Pending) -> None:
        """A command goes upstream, or a reply of ours takes its place in line. Raises LimitExceeded."""
        if len(self.pending) >= MAX_OUTSTANDING:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_OUTSTANDING} commands wait for their replies")
        self.pending.append(item)

    def speak(self) -> None:
        """Our own replies whose turn has come go to the client."""
        while not self.in_reply and self.pending and self.pending[0].local and not self.pending[0].swallow:
            self.emit(Reply(self.pending.popleft().local))

    def answered(self, status: str, rows: int | None, *, failed: bool) -> None:
        """The server's reply to the oldest command is complete."""
        item = self.pending.popleft()
        if item.swallow:
            self.emit(Reply(item.local))
            status, rows, failed = item.local[1:].split(b" ", 1)[0].decode("ascii"), None, True
        self.finish(item, status, rows, failed=failed)

    def finish(self, item: Pending, status: str, rows: int | None = None, *, failed: bool = False) -> None:
        if not item.exchange:
            return
        if item.masked:
            self.last_masked = item
        self._outcomes.append(Outcome(item.exchange, status, rows, failed))

    def carry(self, item: Pending) -> None:
        """Messages belong to the latest subscription."""
        self.pending.popleft()
        self.end_carrier("subscribed")
        self.carrier = item

    def end_carrier(self, status: str, *, failed: bool = False) -> None:
        carrier, self.carrier = self.carrier, None
        if carrier is not None:
            self.finish(carrier, status, carrier.messages, failed=failed)
