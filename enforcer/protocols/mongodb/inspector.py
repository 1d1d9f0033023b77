"""Step 4 of 6, inspect: one MongoDB connection, as the session sees it.

Gets bytes of both sides, hands on events, and turns verdicts into what goes upstream or into MongoDB's own refusals.
Messages are held whole (48 MB at most); answers find their commands by responseTo. A refused command is answered with
code 13, and the connection lives on. Never decides anything.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Refusal, Request, Rewrite, Rows, Text
from enforcer.protocols.body_facts import SEPARATOR
from enforcer.protocols.mongodb import bson
from enforcer.protocols.mongodb.bson import Malformed
from enforcer.protocols.mongodb.columns import Naming
from enforcer.protocols.mongodb.commands import HELLO, UNKNOWN, Command, command_of
from enforcer.protocols.mongodb.masking import Assembly, assemble, rewrite_request
from enforcer.protocols.mongodb.texts import describe, user_of
from enforcer.protocols.mongodb.wire import OP_QUERY, Message, Reader, reply, rewritten
from enforcer.protocols.statement_facts import COLUMN, COMMAND, DATABASE, LIST_LIMIT, OPERATION, TABLE, USER
from enforcer.verdict import Denial

MAX_AHEAD: Final = 16 << 20
"""Bytes that may pile up behind a command that waits for its verdict; drivers wait for the answer."""

MAX_OUTSTANDING: Final = 10_000
"""Commands that wait for their answers. Drivers send one at a time."""

MAX_CURSORS: Final = 10_000
"""Open cursors whose collections are remembered; the oldest are forgotten."""

UNAUTHORIZED: Final = 13
HOST_UNREACHABLE: Final = 6
"""MongoDB's own error codes."""


@dataclass(slots=True, eq=False)
class Pending:
    """A command that the server has yet to answer. `user`: whom it logs in as."""

    exchange: int
    command: Command
    naming: Naming
    masked: bool
    user: str = ""
    rows: int | None = None


@dataclass(slots=True)
class Asked:
    """A command under judgement. `user`: whom it logs in as."""

    request: Request
    message: Message
    command: Command
    naming: Naming
    user: str


class MongoInspector:
    """Parser of one connection; see `enforcer.protocols.base.Inspector` for the contract. Operations are the commands'
    names."""

    name: str = "mongodb"
    half_close = True  # mongod ends a connection whose client sends no more
    rewrites = True
    multiplexed = False

    def __init__(self) -> None:
        self._readers = {side: Reader(side) for side in Side}
        self._events: deque[Event] = deque()
        self._asked: Asked | None = None
        self._assembly: Assembly | None = None
        self._ending: list[Event] = []
        self._pending: dict[int, Pending] = {}
        self._cursors: OrderedDict[int, tuple[Command, Naming]] = OrderedDict()
        self._exchanges = 0
        self._replies = 0
        self._users: dict[str, None] = {}
        self._claimed = ""
        self._fault: ProtocolError | None = None
        self._closed = False
        self._server_ended = False

    # --- bytes in

    def read_bodies(self) -> None:
        """There are none."""

    def receive_data(self, side: Side, data: bytes) -> None:
        """Takes bytes of one side; they are read by `next_event`, which is where faults in them show."""
        if self._fault is not None or self._closed:
            return
        unread = self._readers[side].unread
        unread.feed(bytes(data))
        if side is Side.CLIENT and self._asked is not None and unread.size > MAX_AHEAD:
            self._fault = LimitExceeded(side, f"over {MAX_AHEAD} bytes were sent while a command is judged")

    def receive_eof(self, side: Side) -> None:
        """Half a message that `side` left behind is dropped. What the server has not answered has failed."""
        self._server_ended |= side is Side.SERVER

    # --- events out

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed or a command waits for its verdict."""
        if self._closed:
            return None
        if not self._events:
            self._advance()
        if self._events:
            return self._events.popleft()
        if self._fault is not None:
            raise self._fault
        return None

    def _advance(self) -> None:
        """Reads both sides until there is an event."""
        if self._fault is not None:
            return
        try:
            while not self._events and self._advance_server():
                pass
            if self._events or self._asked is not None:
                return
            message = self._readers[Side.CLIENT].next()
            if message is not None:
                self._ask(message)
            elif self._server_ended:
                for item in dict.fromkeys(self._pending.values()):
                    self._events.append(Outcome(item.exchange, "connection closed", failed=True))
                self._pending.clear()
        except Malformed as error:
            side = Side.SERVER if self._assembly is not None else Side.CLIENT
            self._fault = ProtocolError(side, str(error))
        except ProtocolError as fault:
            self._fault = fault

    def _advance_server(self) -> bool:
        """One part of the answer that is being masked, or one message; False where bytes are missing."""
        assembly = self._assembly
        if assembly is not None:
            part = assembly.next()
            if part is not None:
                self._events.append(part)
                return True
            self._events.append(Forward(Side.SERVER, assembly.finish()))
            self._events += self._ending
            self._assembly = None
            return True
        message = self._readers[Side.SERVER].next()
        if message is None:
            return False
        try:
            self._answered(message)
        except Malformed as error:
            raise ProtocolError(Side.SERVER, str(error)) from None
        return True

    def _ask(self, message: Message) -> None:
        if not message.more and (len(self._pending) >= MAX_OUTSTANDING or message.request in self._pending):
            raise ProtocolError(Side.CLIENT, "too many commands wait for answers, or two under one requestID")
        command = command_of(message)
        if command.cursor and command.cursor in self._cursors:
            known, naming = self._cursors[command.cursor]
            command.tables = list(dict.fromkeys([*command.tables, *known.tables]))
        else:
            naming = Naming(command)
        edits = _without_compression(message, command)
        legacy = message.code == OP_QUERY and command.name not in HELLO
        self._exchanges += 1
        user = user_of(message, command.name)
        request = Request(
            self._exchanges,
            command.name,
            describe(message, command.name),
            rewritten(message, edits, {}) if edits else message.raw,
            facts=self._facts(command, user),
            fault="legacy queries are not inspected; use a driver that speaks OP_MSG" if legacy else "",
        )
        self._asked = Asked(request, message, command, naming, user)
        self._events.append(request)

    def _facts(self, command: Command, user: str) -> dict[str, str]:
        facts: dict[str, str] = {}
        users = [user] if user else list(self._users)
        if not command.of_connection:
            facts = {COMMAND: command.name, OPERATION: command.operation}
            databases = dict.fromkeys([command.database, *(table.partition(".")[0] for table in command.tables)])
            facts[DATABASE] = SEPARATOR.join(databases)
            tables = list(dict.fromkeys(command.tables))
            joined = SEPARATOR.join(tables)
            if any(SEPARATOR in table for table in tables) or len(joined) > LIST_LIMIT:
                facts[OPERATION], joined = UNKNOWN, ""
            if joined:
                facts[TABLE] = joined
            columns = SEPARATOR.join(column for column in command.columns if SEPARATOR not in column)
            if columns and len(columns) <= LIST_LIMIT:
                facts[COLUMN] = columns
        if users:
            facts[USER] = SEPARATOR.join(users)
        return facts

    def _answered(self, message: Message) -> None:
        """A message of the server's: an answer, or one of several."""
        item = self._pending.pop(message.response, None)
        if item is None:
            raise ProtocolError(Side.SERVER, "an answer to no command")
        status, failed = self._learn(message, item)
        self._ending = []
        if message.more:
            self._pending[message.request] = item
        else:
            self._ending.append(Outcome(item.exchange, status, item.rows, failed))
        command = item.command
        if item.masked and not command.of_connection:
            self._assembly = assemble(message, item.exchange, command, item.naming)
            return
        edits = _without_compression(message, command)
        self._events.append(Forward(Side.SERVER, rewritten(message, edits, {}) if edits else message.raw))
        self._events += self._ending

    def _learn(self, message: Message, item: Pending) -> tuple[str, bool]:
        """What an answer says: whether it failed, how many rows it has, which cursor goes on, who has logged in."""
        raw, status, failed, done = message.raw, "ok", False, False
        for element in bson.elements(raw, message.body, message.end):
            if element.name == b"ok":
                failed |= bson.number(raw, element) != 1
            elif element.name == b"codeName":
                status = bson.text(raw, element)[:64]
            elif element.name == b"code" and status == "ok":
                status = str(bson.number(raw, element))
            elif element.name in (b"n", b"nModified") and item.rows is None:
                item.rows = bson.number(raw, element)
            elif element.name == b"writeErrors":
                status, failed = "writeErrors", True
            elif element.name == b"cursor" and element.kind == bson.DOCUMENT:
                self._learn_cursor(raw, element, item)
            elif element.name == b"done":
                done = bson.number(raw, element) == 1
            elif element.name == b"speculativeAuthenticate" and element.kind == bson.DOCUMENT:
                inner = bson.elements(raw, element.start, element.end)
                done = any(one.name == b"done" and bson.number(raw, one) == 1 for one in inner)
        self._learn_user(item, failed=failed, done=done)
        return status, failed

    def _learn_cursor(self, raw: bytes, cursor: bson.Element, item: Pending) -> None:
        for element in bson.elements(raw, cursor.start, cursor.end):
            if element.name in (b"firstBatch", b"nextBatch") and element.kind == bson.ARRAY:
                item.rows = (item.rows or 0) + sum(1 for _ in bson.elements(raw, element.start, element.end))
            elif element.name == b"id":
                number = bson.number(raw, element) or 0
                if number:
                    self._cursors[number] = item.command, item.naming
                    self._cursors.move_to_end(number)
                    if len(self._cursors) > MAX_CURSORS:
                        self._cursors.popitem(last=False)
                else:
                    self._cursors.pop(item.command.cursor, None)

    def _learn_user(self, item: Pending, *, failed: bool, done: bool) -> None:
        name = item.command.name
        if item.user:
            self._claimed = "" if failed else item.user
        if self._claimed and not failed and (done or name == "authenticate"):
            self._users[self._claimed] = None
            self._claimed = ""
        if name == "logout" and not failed:
            self._users.clear()

    # --- the session's answers

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        """The command, with what `rewrite` hides in it hidden. Compression is not offered to the server."""
        asked = self._judged(request)
        raw, command = request.raw, asked.command
        if rewrite is not None and not command.of_connection:
            raw = rewrite_request(asked.message, rewrite, {})
        self._asked = None
        if asked.message.more:
            self._events.append(Outcome(request.exchange, "unacknowledged"))
            return raw
        item = Pending(request.exchange, command, asked.naming, masked, asked.user)
        self._pending[asked.message.request] = item
        return raw

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """An answer of ours. A command that wants none gets none. The server's messages go on whole, so that ours may
        stand between any two."""
        if request is None or denial.unreachable:
            asked = self._asked
            pending = self._assembly.message.response if self._assembly is not None else next(iter(self._pending), 0)
            self._closed = True
            self._events.clear()
            self._assembly = None
            message = asked.message if asked is not None else None
            return Refusal(self._refusal(message, pending, denial), close=True)
        asked = self._judged(request)
        self._asked = None
        if asked.message.more:
            return Refusal(b"", close=False)
        return Refusal(self._refusal(asked.message, 0, denial), close=False)

    def _refusal(self, message: Message | None, response: int, denial: Denial) -> bytes:
        self._replies += 1
        words = denial.title
        if not denial.unreachable:
            words += f" ({denial.explanation}); {denial.how_to_ask}"
        code, name = (HOST_UNREACHABLE, "HostUnreachable") if denial.unreachable else (UNAUTHORIZED, "Unauthorized")
        document = bson.document(ok=0.0, errmsg=words, code=code, codeName=name)
        return reply(message, response, self._replies, document)

    def _judged(self, request: Request) -> Asked:
        asked = self._asked
        if asked is None or asked.request is not request:
            raise RuntimeError("this command does not wait for a verdict")
        return asked

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:
        """Nothing yet: the message goes on once all of its documents are masked."""
        self._masked().hide_row(rows, values)
        return b""

    def encode_text(self, text: Text, data: bytes) -> bytes:
        self._masked().hide_text(text, data)
        return b""

    def _masked(self) -> Assembly:
        if self._assembly is None:
            raise RuntimeError("no answer is being masked")
        return self._assembly


def _without_compression(message: Message, command: Command) -> bson.Edits:
    """Of a hello, or the answer to one: what takes compression out of it."""
    if command.name not in HELLO:
        return {}
    return {
        element.start: (bson.ARRAY, bson.EMPTY_ARRAY)
        for element in bson.elements(message.raw, message.body, message.end)
        if element.name == b"compression" and element.end - element.start > len(bson.EMPTY_ARRAY)
    }
