"""Step 4 of 6, inspect: one PostgreSQL connection, as the session sees it.

Gets bytes of both sides, hands on events, and turns verdicts into what goes upstream or into PostgreSQL's own
refusals. The order of events is the order in which each side must see its bytes. Never decides anything.
"""

from __future__ import annotations

from typing import Final

from enforcer.errors import EnforcerError, LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Inspector, Probe, Refusal, Request, Rewrite, Rows, Text
from enforcer.protocols.postgres import messages, rewriting, startup
from enforcer.protocols.postgres.binary import unsaid
from enforcer.protocols.postgres.client import ClientHalf
from enforcer.protocols.postgres.conversation import SIMPLE, Awaiting, Client, Conversation, Outstanding
from enforcer.protocols.postgres.copying import cells_of, line_of
from enforcer.protocols.postgres.names import Exchange
from enforcer.protocols.postgres.results import Kind
from enforcer.protocols.postgres.server import ServerHalf
from enforcer.protocols.postgres.texts import is_copied, write_text, write_values
from enforcer.verdict import Denial

INSUFFICIENT_PRIVILEGE: Final = "42501"
"""SQLSTATE of every denial: class 42 makes drivers report it, where class 08 would make pools retry."""

_DATA_ROW: Final = ord("D")
_COPIED: Final = ord("d")
_FUNCTION_RESULT: Final = ord("V")

UNREACHABLE: Final = "08001"
"""SQLSTATE (the client cannot establish the connection) where policy allowed it and the server is not there."""

ABORT_BATCH: Final = messages.describe_portal(b"refused by the egress enforcer")
"""Describe of a portal that does not exist: the server fails the batch and rolls its implicit transaction back,
just as if the refused statement itself had failed there. It can execute nothing."""


class PostgresInspector:
    """Parser of one connection; see `enforcer.protocols.base.Inspector` for the contract.

    Operations: `Startup`, `CancelRequest`, `Query`, `Parse`, `Execute` (a Bind, with its parameters), `FunctionCall`.
    Everything the
    client pipelines is judged in order, without waiting for answers of what came before.
    """

    name: str = "postgres"
    half_close = False
    rewrites = True
    multiplexed = False

    def __init__(self) -> None:
        self._conversation = Conversation()
        self._client = ClientHalf(self._conversation)
        self._server = ServerHalf(self._conversation)
        self._fault: ProtocolError | None = None
        self._closed = False

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
        failed, but for a CancelRequest: closing is its answer."""
        if side is Side.CLIENT:
            return
        self._advance()
        for exchange in self._conversation.unfinished():
            head = self._conversation.head()
            cancelled = head is not None and head.awaiting is Awaiting.CANCEL
            status = "CancelRequest" if cancelled else exchange.status or "connection closed"
            self._conversation.finish(exchange, status, failed=not cancelled)
        self._conversation.end_block()

    def next_event(self) -> Event | None:
        """The next event, or None when more bytes are needed or a Request waits for its verdict."""
        events = self._conversation.events
        if not events and not self._closed:
            self._advance()
        if events:
            return events.popleft()
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
            self._client.advance()
        except ProtocolError as fault:
            self._fault = fault
        self._conversation.end_block()

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:
        """The request's own bytes, with `rewrite` what its literals and parameters are without values that are hidden;
        the data of a COPY follow as Text. With `masked` nothing is asked of the server: columns are named by the
        description of the statement, whenever the client asked for one; a row of a statement that was never
        described has empty column names."""
        item = self._judged(request)
        conversation = self._conversation
        raw = request.raw if rewrite is None else _rewritten(request.raw, item, rewrite)
        self._client.asked = None
        exchange = Exchange(request.exchange, masked, rewrite is not None)
        item.exchange = exchange
        if masked:
            conversation.last_masked = exchange
        if item.portal is not None:
            item.portal.exchange = exchange
        if item.awaiting is Awaiting.STARTUP:
            conversation.client = Client.STARTING
        elif item.awaiting is Awaiting.CANCEL:
            conversation.client = Client.CANCELLING
        elif item.awaiting is Awaiting.BIND and item.portal is not None:
            conversation.portals.propose(item.name, item.portal)
            conversation.definitions.given(Kind.CURSOR, item.name, item.portal.statement.text)
        elif item.statement is not None:
            conversation.definitions.allowed(item.statement.text, item.statement.facts)
            if item.awaiting is Awaiting.PARSE:
                conversation.statements.propose(item.name, item.statement)
                conversation.definitions.given(Kind.STATEMENT, item.name, item.statement.text)
        conversation.unsynced = item.awaiting in (Awaiting.PARSE, Awaiting.BIND, Awaiting.EXECUTE)
        conversation.executed = conversation.unsynced and (conversation.executed or item.awaiting is Awaiting.EXECUTE)
        conversation.expect(item)
        return raw

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        """ERROR and the session goes on for a statement; FATAL and the end for a startup or the whole flow. Where
        answers to earlier messages are still under way, `to_client` is empty and the error follows them as a Reply
        event."""
        if request is None or (denial.unreachable and self._client.asked is None):
            return self._close(denial)  # also a startup that was allowed and then could not be delivered
        item = self._judged(request)
        self._client.asked = None
        if item.awaiting is Awaiting.CANCEL:
            self._closed = True
            return Refusal(b"", close=True)
        if item.awaiting is Awaiting.STARTUP:
            return self._close(denial)
        return Refusal(self._refuse_statement(item, _error("ERROR", denial)), close=False)

    def _refuse_statement(self, item: Outstanding, error: bytes) -> bytes:
        """The part of the refusal that goes out at once. What the server executed of this batch is rolled back; where
        it executed nothing, the transaction the client is in goes on."""
        conversation = self._conversation
        simple = item.awaiting in SIMPLE
        if not simple or conversation.skipping:
            conversation.client = Client.DISCARDING
        if conversation.skipping:
            return b""  # the batch has failed already, and the server would have ignored this too
        if conversation.unsynced and (simple or conversation.executed):
            conversation.emit(Forward(Side.CLIENT, ABORT_BATCH + (messages.SYNC if simple else messages.FLUSH)))
            conversation.expect(Outstanding(Awaiting.REFUSAL, reply=error))
            if simple:
                conversation.unsynced = conversation.executed = False
                conversation.expect(Outstanding(Awaiting.SYNC))
            return b""
        if conversation.unsynced:  # the answers before ours would else stay with the server until Sync
            conversation.emit(Forward(Side.CLIENT, messages.FLUSH))
        if conversation.outstanding:
            conversation.expect(Outstanding(Awaiting.LOCAL, reply=error, ready=simple))
            return b""
        return error + (messages.ready_for_query(conversation.status) if simple else b"")

    def _close(self, denial: Denial) -> Refusal:
        self._closed = True
        self._conversation.events.clear()
        mid_message = self._server.passing > 0
        return Refusal(b"" if mid_message else _error("FATAL", denial), close=True)

    def _judged(self, request: Request) -> Outstanding:
        asked = self._client.asked
        if asked is None or asked.request is not request:
            raise EnforcerError("a verdict was given on a request that was not asked; this is a fault of the session")
        return asked.item

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:
        """The messages that `rows` came in, with `values`. Raises ProtocolError where their number changed."""
        if len(values) != len(rows.values):
            raise ProtocolError(Side.SERVER, "a masked row has another number of cells")
        code = rows.raw[0]
        if code == _COPIED:
            return messages.copy_data(line_of(unsaid(cells_of(rows.raw[messages.BODY : -1]), rows.values, values)))
        if any(rows.binary):
            values = unsaid(messages.cells_in(rows.raw), rows.values, values)
        if code == _FUNCTION_RESULT:
            return messages.function_result(values[0])
        return messages.data_rows(values, len(rows.columns)) if code == _DATA_ROW else write_values(rows.raw, values)

    def encode_text(self, text: Text, data: bytes) -> bytes:
        """Copied text as CopyData of any cut, nothing for no data; any other text as the message it came in, rebuilt.

        Raises ProtocolError where the NUL bytes between the values of such a message did not survive."""
        return messages.copy_data(data) if is_copied(text.raw) else write_text(text.raw, data)


def _error(severity: str, denial: Denial) -> bytes:
    sqlstate = UNREACHABLE if denial.unreachable else INSUFFICIENT_PRIVILEGE
    return messages.error_response(severity, sqlstate, denial.title, denial.explanation, denial.how_to_ask)


def _rewritten(raw: bytes, item: Outstanding, rewrite: Rewrite) -> bytes:
    """A request on its way out. An Execute carries nothing that its Bind did not."""
    if item.awaiting is Awaiting.QUERY:
        return rewriting.query(raw, rewrite)
    if item.awaiting is Awaiting.PARSE:
        return rewriting.parse(raw, rewrite)
    if item.awaiting is Awaiting.BIND and item.portal is not None:
        return rewriting.bind(raw, item.portal.statement, rewrite)
    return rewriting.function_call(raw, rewrite) if item.awaiting is Awaiting.FUNCTION else raw


class Postgres:
    """PostgreSQL, frontend/backend protocol 3."""

    name: str = "postgres"

    def probe(self, data: bytes) -> Probe:
        """SSLRequest, GSSENCRequest, CancelRequest or a StartupMessage of protocol 3."""
        return startup.probe(data)

    def inspector(self) -> Inspector:
        """A fresh parser for one connection."""
        return PostgresInspector()
