"""Step 4 of 6, inspect: one Redis connection, as the session sees it.

Gets bytes of both sides, hands on events, and turns verdicts into what goes upstream or into Redis's own refusals. A
refused command answers `-NOPERM` in its place among the replies, and the connection lives on; a transaction with a
refused command is discarded at its EXEC, as Redis does it. Never decides anything.
"""

from __future__ import annotations

from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Refusal, Request, Rewrite, Rows, Text
from enforcer.protocols.redis.client import Asked, ClientHalf, encode, other_databases, user_of
from enforcer.protocols.redis.columns import Plan, Shape, plan_of
from enforcer.protocols.redis.conversation import SUBSCRIBING, UNSUBSCRIBING, Cells, Conversation, Pending
from enforcer.protocols.redis.server import ServerHalf, write_error, write_row
from enforcer.protocols.redis.texts import refusal_line
from enforcer.verdict import Denial

DISCARD: Final = encode([b"DISCARD"])
ABORTED: Final = b"-EXECABORT Transaction discarded because of previous errors.\r\n"
"""What Redis says to EXEC after one of the transaction's commands was refused."""

_CREDENTIALS: Final = frozenset(("AUTH", "HELLO"))
"""Commands whose arguments go on as they are: hiding a part of a password only breaks it."""

_UNNAMED: Final = Plan(Shape.ONE)
"""For replies that nothing is looked for in."""
_STATEFUL: Final = frozenset(("AUTH", "DISCARD", "EXEC", "HELLO", "MULTI", "RESET", "SELECT"))
"""Commands whose replies say what holds from now on."""


class RedisInspector:
    """Parser of one connection; see `enforcer.protocols.base.Inspector` for the contract. Operations are the commands'
    names. Everything the client pipelines is judged in order, without waiting for the replies to what came before."""

    name: str = "redis"
    half_close = True  # Redis ends a connection whose client sends no more, whatever is under way
    rewrites = True
    multiplexed = False

    def __init__(self) -> None:
        self._conversation = Conversation()
        self._client = ClientHalf(self._conversation)
        self._server = ServerHalf(self._conversation)
        self._cells: Cells | None = None
        self._fault: ProtocolError | None = None

    def read_bodies(self) -> None:
        """There are none."""

    def receive_data(self, side: Side, data: bytes) -> None:
        """Takes bytes of one side; they are read by `next_event`, which is where faults in them show."""
        if self._fault is not None or self._conversation.closed:
            return
        try:
            (self._client if side is Side.CLIENT else self._server).receive(bytes(data))
        except LimitExceeded as fault:
            self._fault = fault

    def receive_eof(self, side: Side) -> None:
        """Half a command or reply that `side` left behind is dropped."""
        if side is Side.SERVER and not self._conversation.closed:
            self._advance()
            self._server.end()

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed or a command waits for its verdict."""
        events = self._conversation.events
        if not events and not self._conversation.closed:
            self._advance()
        if events:
            event = events.popleft()
            if isinstance(event, Rows):
                self._cells = self._conversation.cells.popleft()
            return event
        if self._fault is not None and not self._conversation.closed:
            raise self._fault
        return None

    def _advance(self) -> None:
        """Reads both sides. A fault waits until the events before it are handed on, however the bytes were cut."""
        if self._fault is not None or self._client.asked is not None:
            return
        try:
            self._server.advance()
            self._conversation.end_block()
            self._client.advance()
        except ProtocolError as fault:
            self._fault = fault
        self._conversation.end_block()

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        """The command. An EXEC of a transaction that has a refused command goes on as DISCARD."""
        conversation, asked = self._conversation, self._judged(request)
        command, args = asked.command, asked.args
        plan = plan_of(command, args) if masked else _UNNAMED
        item = Pending(request.exchange, command.name, plan, masked)
        raw = request.raw
        if command.name == "EXEC":
            item.plan = Plan(Shape.EXEC)
            if conversation.dirty:
                raw, item.swallow, item.local = DISCARD, True, ABORTED
        if command.name in SUBSCRIBING:
            item.confirmations = len(args) - 1
        elif command.name in UNSUBSCRIBING:
            item.confirmations = len(args) - 1 or -1
        if rewrite is not None and command.name not in _CREDENTIALS:
            written = [*args[: command.words], *map(rewrite, args[command.words :])]
            raw = raw if item.swallow else encode(written)
        self._propose(asked, item)
        item.plain = not (masked or conversation.multi or command.name in _STATEFUL or item.confirmations)
        conversation.expect(item)
        self._client.asked = None
        return raw

    def _propose(self, asked: Asked, item: Pending) -> None:
        """What the command may change, from the next one on."""
        conversation, name = self._conversation, asked.command.name
        if name == "MULTI":
            conversation.multi = True
        elif name in ("EXEC", "DISCARD", "RESET"):
            conversation.multi = conversation.dirty = False
        user = "default" if name == "RESET" else user_of(asked.command, asked.args)
        if user:
            conversation.user.propose(user)
            item.sets_user = True
        selected = ["0"] if name == "RESET" else other_databases(asked.command, asked.args) if name == "SELECT" else []
        if selected:
            conversation.database.propose(selected[0])
            item.sets_database = True

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        conversation = self._conversation
        line = refusal_line(denial)
        if request is None or denial.unreachable:
            silent = self._server.mid_reply or bool(conversation.events)
            conversation.closed = True
            conversation.events.clear()
            conversation.cells.clear()
            return Refusal(b"" if silent else line, close=True)
        asked = self._judged(request)
        self._client.asked = None
        if conversation.multi and asked.command.name == "EXEC":
            # Refused or not, Redis ends the transaction at EXEC: what was queued must not wait for another one.
            conversation.multi = conversation.dirty = False
            conversation.emit(Forward(Side.CLIENT, DISCARD))
            conversation.expect(Pending(name="DISCARD", local=line, swallow=True))
            return Refusal(b"", close=False)
        conversation.dirty = conversation.multi
        if not conversation.pending and not conversation.in_reply:
            return Refusal(line, close=False)
        conversation.expect(Pending(local=line))
        return Refusal(b"", close=False)

    def _judged(self, request: Request) -> Asked:
        asked = self._client.asked
        if asked is None or asked.request is not request:
            raise RuntimeError("this command does not wait for a verdict")
        return asked

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:
        """Of the row that was handed on last."""
        if self._cells is None:
            raise RuntimeError("no row was handed on")
        return write_row(rows, self._cells, values)

    def encode_text(self, text: Text, data: bytes) -> bytes:
        return write_error(text, data)
