"""Step 4 of 6, inspect: one MySQL connection, as the session sees it.

Gets bytes of both sides, hands on events, and turns verdicts into what goes upstream or into MySQL's own refusals. The
order of events is the order in which each side must see its bytes. Never decides anything.
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.errors import EnforcerError, LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Inspector, Probe, Refusal, Request, Rewrite, Rows, Text
from enforcer.protocols.mysql import handshake, rewriting
from enforcer.protocols.mysql.client import Asked, ClientHalf
from enforcer.protocols.mysql.conversation import Awaiting, Client, Conversation, Exchange
from enforcer.protocols.mysql.packets import count_of, message_of
from enforcer.protocols.mysql.results import (
    ACCESS_DENIED,
    MAX_MESSAGE,
    STATEMENT_DENIED,
    UNREACHABLE,
    Layout,
    error,
    with_text,
    write_rows,
)
from enforcer.protocols.mysql.server import ServerHalf
from enforcer.protocols.statement_facts import DOUBT, FUNCTION, OPERATION
from enforcer.sql.functions import ADMIN
from enforcer.verdict import Denial

PORT: Final = 3306

_THEN: Final = {Awaiting.GREETING: Client.SILENT, Awaiting.LOGIN: Client.PROVING}
"""What the client may do once this is allowed; else what it did."""


_QUERY: Final = re.compile(rb"(?is)[\s(]*(?:select|insert|update|delete|replace|show|explain|desc)\b[^;]*;?\s*")
"""What sets nothing, though it may not be understood."""


class MySqlInspector:
    """Parser of one connection; see `enforcer.protocols.base.Inspector` for the contract.

    Operations: `Connect` (nothing is sent yet, and the server greets), `Login`, `Query`, `Prepare`, `Execute`, `Fetch`,
    `InitDB`, `ChangeUser`, `FieldList`, `ProcessKill`.
    """

    name: str = "mysql"
    half_close = False
    rewrites = True
    multiplexed = False

    def __init__(self) -> None:
        self._conversation = Conversation()
        self._client = ClientHalf(self._conversation)
        self._server = ServerHalf(self._conversation, self._client)
        self._fault: ProtocolError | None = None
        self._closed = False
        # The last event, the number that the client is due after it, and the layout of the rows that it may be.
        self._handed: Event | None = None
        self._due = 0
        self._layout: Layout | None = None

    def read_bodies(self) -> None:
        """There are none."""

    def receive_data(self, side: Side, data: bytes) -> None:
        """Takes bytes of one side; they are read by `next_event`, which is where faults in them show."""
        if self._fault is not None:
            return
        try:
            (self._client if side is Side.CLIENT else self._server).receive(bytes(data))
        except LimitExceeded as fault:
            self._fault = fault

    def receive_eof(self, side: Side) -> None:
        """Half a message that `side` left behind is dropped. When the server is gone, what it has not answered has
        failed."""
        if side is Side.CLIENT:
            return
        self._advance()
        if self._conversation.exchange is not None:
            self._conversation.finish("connection closed", failed=True)
        self._conversation.end_block()

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed or a Request waits for its verdict."""
        events = self._conversation.events
        if not events and not self._closed:
            self._advance()
        if events:
            self._handed, self._due, self._layout = events.popleft()
            return self._handed
        if self._fault is not None:
            raise self._fault
        return None

    def _advance(self) -> None:
        """Reads both sides. A fault waits until the events before it are handed on, however the bytes were cut."""
        if self._fault is not None or self._client.asked is not None:
            return
        try:
            self._server.advance()
            self._conversation.end_block()
            if not self._server.halted:
                self._client.advance()
        except ProtocolError as fault:
            self._fault = fault
        self._conversation.end_block()

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        """The request's own bytes, before them what was sent ahead for it; without what `rewrite` hides in its text and
        its parameters. With `masked` nothing is asked of the server: it always says what columns are."""
        asked, conversation = self._client.asked, self._conversation
        if asked is None or asked.request is not request:
            raise EnforcerError("a verdict was given on a request that was not asked; this is a fault of the session")
        raw = request.raw if rewrite is None else _rewritten(asked, rewrite, conversation.misread)
        self._client.asked = None
        exchange = Exchange(request.exchange, masked)
        conversation.expect(asked.awaiting, exchange)
        if conversation.client is Client.READY:
            conversation.sequence = count_of(raw)
            conversation.shift = count_of(request.raw) - conversation.sequence
        if masked:
            conversation.last_masked = exchange
        conversation.statement, conversation.binary = asked.statement, asked.binary
        conversation.text = asked.text if asked.statement is None else asked.statement.text
        conversation.understood = DOUBT not in request.facts
        said = conversation.text.lower()
        sets = b"session_track" in said or (b"sql_mode" in said and ADMIN in request.facts.get(OPERATION, ""))
        conversation.in_the_dark |= sets or not (conversation.understood or _QUERY.fullmatch(said))
        conversation.certain = conversation.understood and FUNCTION not in request.facts
        conversation.pending = asked.pending or {}
        conversation.client = _THEN.get(asked.awaiting, conversation.client)
        if asked.bound is not None and asked.statement is not None:
            asked.statement.types = asked.bound.types or asked.statement.types
            ahead = conversation.statements.take_ahead(asked.statement)
            if ahead:
                raw = b"".join(ahead if rewrite is None else _sent_ahead(asked)) + raw
        if asked.awaiting is Awaiting.ROWS and asked.statement is not None:
            conversation.layout = asked.statement.layout
        return raw

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """An error, and the session goes on, for a command; an error and the end for a connection, a login or the whole
        flow."""
        conversation, asked = self._conversation, self._client.asked
        if request is None or asked is None or conversation.client is not Client.READY:
            return self._close(denial)
        self._client.asked = None
        if asked.bound is not None and asked.statement is not None:
            conversation.statements.take_ahead(asked.statement)
        return Refusal(message_of(_words(STATEMENT_DENIED, denial), conversation.sequence), close=False)

    def _close(self, denial: Denial) -> Refusal:
        conversation = self._conversation
        self._closed = True
        conversation.events.clear()
        if self._server.passing or conversation.client is Client.CLOSED:
            return Refusal(b"", close=True)
        begun = conversation.client not in (Client.NEW, Client.SILENT)
        code = UNREACHABLE if denial.unreachable else ACCESS_DENIED
        words = _words(code if begun else (code[0], ""), denial)
        return Refusal(message_of(words, self._sequence_due()), close=True)

    def _sequence_due(self) -> int:
        """The number of the next packet to the client: in place of a row or text that could not be masked, after what
        it has yet to say where that is its turn, else after what was handed on."""
        conversation, handed = self._conversation, self._handed
        if self._fault is None and isinstance(handed, (Rows, Text)):
            return handed.raw[3]
        if self._client.asked is None and conversation.client is Client.ANSWERING:
            return conversation.sequence + 1
        if (
            self._client.asked is None
            and conversation.awaiting is Awaiting.NOTHING
            and conversation.client is Client.READY
        ):
            return 1
        return self._due if handed is not None else 0

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:
        """Rows of `values`. Raises ProtocolError where their number changed."""
        if self._layout is None or self._handed is not rows:
            raise ProtocolError(Side.SERVER, "rows are written in their turn only")
        return write_rows(rows, values, self._layout)

    def encode_text(self, text: Text, data: bytes) -> bytes:
        """The OK or ERR that `text` came in, rebuilt. Raises ProtocolError where its parts did not survive."""
        return with_text(text.raw, self._conversation.capabilities, data)


def _rewritten(asked: Asked, rewrite: Rewrite, misread: bytes) -> bytes:
    """The command with values hidden, and `asked.bound` as well. Raises what `rewrite` raises, and ProtocolError."""
    bound = asked.bound
    about = asked.text if asked.statement is None else asked.statement.text
    changed = bound is not None and rewriting.bound(bound, about, rewrite)
    before = bound.written() if bound is not None and changed else asked.before
    if not asked.text:
        return message_of(before, 0) if changed else asked.request.raw
    text = rewriting.statement(asked.text, rewrite, misread)
    return message_of(before + text, 0) if changed or text != asked.text else asked.request.raw


def _sent_ahead(asked: Asked) -> list[bytes]:
    """Parameters that were sent ahead and had something to hide, each in one piece."""
    number = asked.request.raw[5:9]
    ahead = asked.bound.ahead if asked.bound is not None else {}
    return [message_of(b"\x18" + number + index.to_bytes(2, "little") + value, 0) for index, value in ahead.items()]


def _words(kind: tuple[int, str], denial: Denial) -> bytes:
    words = f"{denial.title}; {denial.explanation}; {denial.how_to_ask}".encode()
    if len(words) > MAX_MESSAGE:
        words = words[: MAX_MESSAGE - 3].decode("utf-8", "ignore").encode() + b"..."
    return error(kind[0], kind[1].encode(), words)


class MySql:
    """MySQL and MariaDB, client/server protocol 10."""

    name: str = "mysql"
    port: int = PORT

    def probe(self, data: bytes) -> Probe:  # noqa: ARG002 - the interface's
        """No client's bytes begin it: the server speaks first."""
        return Probe.NO

    def greets(self, data: bytes) -> Probe:
        return handshake.greets(data)

    def inspector(self) -> Inspector:
        """A fresh parser for one connection."""
        return MySqlInspector()
