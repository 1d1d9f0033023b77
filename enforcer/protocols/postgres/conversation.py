"""Step 4 of 6, inspect: what both halves of a PostgreSQL connection share.

Gets messages that went upstream and answers that came; hands on events in the order in which each side must see
them. Holds the table of what the server may say when. Never reads a message's body.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum, auto
from typing import Final

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Reply
from enforcer.protocols.postgres.messages import ready_for_query
from enforcer.protocols.postgres.names import Exchange, Names, Portal, Statement
from enforcer.protocols.postgres.results import Definitions

MAX_OUTSTANDING: Final = 100_000
"""Messages the server has yet to answer (about 20 MB of memory). Pipelining drivers stay far below: they stop when
a socket buffer is full."""


class Client(IntEnum):
    """What the client may send next."""

    OPENING = auto()  # startup packets, which have no type byte
    STARTING = auto()  # passwords, until the first ReadyForQuery
    READY = auto()
    COPYING = auto()  # the data of a COPY FROM STDIN
    COPY_BROKEN = auto()  # the server gave the copy up; data still under way goes nowhere
    DISCARDING = auto()  # refused in the extended protocol: nothing counts until Sync
    CANCELLING = auto()  # a CancelRequest is the connection's only packet
    CLOSED = auto()


class Awaiting(IntEnum):
    """What the oldest unanswered message waits for."""

    NOTHING = auto()
    STARTUP = auto()
    CANCEL = auto()
    QUERY = auto()
    QUERY_COPY_OUT = auto()
    QUERY_COPY_IN = auto()
    FUNCTION = auto()
    PARSE = auto()
    BIND = auto()
    STATEMENT = auto()  # Describe of a statement: its parameters ...
    STATEMENT_ROW = auto()  # ... then its columns
    PORTAL = auto()
    EXECUTE = auto()
    EXECUTE_COPY_OUT = auto()
    EXECUTE_COPY_IN = auto()
    CLOSE = auto()
    SYNC = auto()
    REFUSAL = auto()  # the error we provoked to abort a batch
    LOCAL = auto()  # not the server's to answer: our own words, in their turn
    DONE = auto()


def _stays(state: Awaiting, codes: bytes) -> dict[tuple[Awaiting, int], Awaiting]:
    return {(state, code): state for code in codes}


ANSWERS: Final[dict[tuple[Awaiting, int], Awaiting]] = {
    **_stays(Awaiting.STARTUP, b"RKv"),
    (Awaiting.STARTUP, ord("Z")): Awaiting.DONE,
    **_stays(Awaiting.QUERY, b"TDCI"),
    (Awaiting.QUERY, ord("H")): Awaiting.QUERY_COPY_OUT,
    (Awaiting.QUERY, ord("G")): Awaiting.QUERY_COPY_IN,
    (Awaiting.QUERY, ord("Z")): Awaiting.DONE,
    **_stays(Awaiting.FUNCTION, b"V"),
    (Awaiting.FUNCTION, ord("Z")): Awaiting.DONE,
    **_stays(Awaiting.QUERY_COPY_OUT, b"d"),
    (Awaiting.QUERY_COPY_OUT, ord("c")): Awaiting.QUERY,
    (Awaiting.PARSE, ord("1")): Awaiting.DONE,
    (Awaiting.BIND, ord("2")): Awaiting.DONE,
    (Awaiting.STATEMENT, ord("t")): Awaiting.STATEMENT_ROW,
    (Awaiting.STATEMENT_ROW, ord("T")): Awaiting.DONE,
    (Awaiting.STATEMENT_ROW, ord("n")): Awaiting.DONE,
    (Awaiting.PORTAL, ord("T")): Awaiting.DONE,
    (Awaiting.PORTAL, ord("n")): Awaiting.DONE,
    **_stays(Awaiting.EXECUTE, b"D"),
    (Awaiting.EXECUTE, ord("C")): Awaiting.DONE,
    (Awaiting.EXECUTE, ord("I")): Awaiting.DONE,
    (Awaiting.EXECUTE, ord("s")): Awaiting.DONE,
    (Awaiting.EXECUTE, ord("H")): Awaiting.EXECUTE_COPY_OUT,
    (Awaiting.EXECUTE, ord("G")): Awaiting.EXECUTE_COPY_IN,
    **_stays(Awaiting.EXECUTE_COPY_OUT, b"d"),
    (Awaiting.EXECUTE_COPY_OUT, ord("c")): Awaiting.EXECUTE,
    (Awaiting.CLOSE, ord("3")): Awaiting.DONE,
    (Awaiting.SYNC, ord("Z")): Awaiting.DONE,
}
"""What the server may say, and what is awaited then; an absent key is a protocol error. Not here: ErrorResponse,
NoticeResponse, NotificationResponse, ParameterStatus, which may come at any time once the startup packet is up."""

ENDS_WITH_READY: Final = frozenset(
    {
        Awaiting.STARTUP,
        Awaiting.QUERY,
        Awaiting.QUERY_COPY_OUT,
        Awaiting.QUERY_COPY_IN,
        Awaiting.FUNCTION,
        Awaiting.SYNC,
    }
)
"""An error leaves these waiting for ReadyForQuery; after any other the server skips to the next Sync."""

SIMPLE: Final = frozenset({Awaiting.QUERY, Awaiting.FUNCTION})
"""Asked outside the extended protocol: a ReadyForQuery of its own follows the answer."""

_CARRIED_OUT: Final = frozenset({Awaiting.QUERY, Awaiting.EXECUTE, Awaiting.FUNCTION})

COPY_IN: Final = {Awaiting.QUERY_COPY_IN: Awaiting.QUERY, Awaiting.EXECUTE_COPY_IN: Awaiting.EXECUTE}
"""Copying in -> what is awaited once the client ended it."""


@dataclass(slots=True, eq=False)
class Outstanding:
    """One message that the server has yet to answer. `names`, `name`: the meaning it proposes.

    `exchange`: whose answer this is, where it belongs to one. `reply`: our own error, for
    REFUSAL and LOCAL; `ready`: a ReadyForQuery of ours follows it. `binary`: a function's result is in binary format.
    `ahead`: the client has sent data of a COPY before the server asked for them, and `ended`: all of them.
    """

    awaiting: Awaiting
    exchange: Exchange | None = None
    portal: Portal | None = None
    statement: Statement | None = None
    names: Names[Statement] | Names[Portal] | None = None
    name: bytes = b""
    reply: bytes = b""
    ready: bool = False
    binary: bool = False
    ahead: bool = False
    ended: bool = False

    @property
    def unsettles(self) -> bool:
        """Does it carry out a statement that may set the client's encoding?"""
        if self.awaiting not in _CARRIED_OUT:
            return False
        statement = self.portal.statement if self.portal is not None else self.statement
        return statement is not None and statement.unsettles


class Conversation:
    """State of one connection, and the events that wait to be handed on."""

    def __init__(self) -> None:
        self.client = Client.OPENING
        self.events: deque[Event] = deque()
        self.outstanding: deque[Outstanding] = deque()
        self.statements: Names[Statement] = Names()
        self.portals: Names[Portal] = Names()
        self.definitions = Definitions()
        self.status = b"I"  # transaction status as the server last said it
        self.unsynced = False  # extended messages went upstream and no Sync after them
        self.executed = False  # an Execute was among them: there is something to roll back
        self.unsettled = False  # what was sent may have set the client's encoding, and the server has not yet told
        self.unsettled_here = False  # it is in the batch that no Sync has ended yet
        self.skipping = False  # the server failed and ignores everything until the Sync still to come
        self.last_masked: Exchange | None = None
        self.unbound = False  # the server's offer to bind passwords to its TLS connection was taken out
        self._bound: dict[int, Exchange] = {}  # bound and not finished, by number
        self._block: list[bytes] = []
        self._block_side = Side.CLIENT

    def forward(self, side: Side, raw: bytes) -> None:
        """`raw` goes on as it is; neighbours become one event."""
        if self._block and self._block_side is not side:
            self.end_block()
        self._block_side = side
        self._block.append(raw)

    def emit(self, event: Event) -> None:
        self.end_block()
        self.events.append(event)

    def end_block(self) -> None:
        """Hands on what `forward` gathered."""
        if self._block:
            self.events.append(Forward(self._block_side, b"".join(self._block)))
            self._block.clear()

    def head(self) -> Outstanding | None:
        """What the server answers next."""
        return self.outstanding[0] if self.outstanding else None

    def expect(self, item: Outstanding) -> None:
        """A message goes upstream (or, LOCAL, an answer of ours takes its place in line). Raises LimitExceeded."""
        if item.awaiting is Awaiting.SYNC:
            self.skipping = self.unsettled_here = False
        if self.skipping:
            self._abandon(item)
            return
        if len(self.outstanding) >= MAX_OUTSTANDING:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_OUTSTANDING} messages wait for their answers")
        self.outstanding.append(item)
        if item.unsettles:
            self.unsettled = True
            self.unsettled_here |= item.awaiting is Awaiting.EXECUTE
        if item.exchange is not None:
            item.exchange.in_flight += 1
        self.speak()

    def answered(self) -> Outstanding:
        """The oldest message has its answer."""
        item = self.outstanding.popleft()
        if item.names is not None:
            item.names.confirm(item.name)
        if item.exchange is not None:
            item.exchange.in_flight -= 1
            if item.awaiting is Awaiting.BIND:
                self._bound[item.exchange.number] = item.exchange
        return item

    def speak(self) -> None:
        """Our own answers whose turn has come go to the client."""
        while self.outstanding and self.outstanding[0].awaiting is Awaiting.LOCAL:
            item = self.outstanding.popleft()
            self.emit(Reply(item.reply + (ready_for_query(self.status) if item.ready else b"")))

    def fail(self) -> None:
        """The server reported an error in an extended batch: it skips everything up to the next Sync."""
        while self.outstanding and self.outstanding[0].awaiting is not Awaiting.SYNC:
            item = self.outstanding.popleft()
            if item.exchange is not None:
                item.exchange.in_flight -= 1
            self._abandon(item)
        self.skipping = not self.outstanding

    def finish(self, exchange: Exchange, status: str, *, failed: bool = False) -> None:
        """`exchange` is over, unless it is already."""
        if exchange.done:
            return
        exchange.done = True
        self._bound.pop(exchange.number, None)
        if exchange.counted:
            exchange.add_rows(exchange.counted)
        self.emit(Outcome(exchange.number, status, exchange.rows, failed))

    def finish_bound(self) -> None:
        """A round trip ended: portals with nothing under way are over. A later Execute is judged anew."""
        for exchange in [exchange for exchange in self._bound.values() if exchange.in_flight == 0]:
            self.finish(exchange, exchange.status or "BindComplete")

    def unfinished(self) -> Iterable[Exchange]:
        """Every exchange without its outcome, oldest first."""
        waiting = {item.exchange.number: item.exchange for item in self.outstanding if item.exchange is not None}
        return [exchange for _, exchange in sorted({**self._bound, **waiting}.items())]

    def _abandon(self, item: Outstanding) -> None:
        if item.names is not None:
            item.names.withdraw(item.name)
        if item.exchange is not None and item.exchange.in_flight == 0:
            self.finish(item.exchange, "skipped", failed=True)
