"""Step 4 of 6, inspect: the server's half of a MySQL connection.

Gets the server's bytes; hands on rows and texts where the exchange is masked, whole blocks of messages where it is not,
and the outcome of every exchange. A message that nothing under way asks for is a protocol error: a server that speaks
out of turn could make the client read one answer as another.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Rows, Text, TlsOffer, Unmaskable
from enforcer.protocols.mysql import handshake
from enforcer.protocols.mysql.charsets import is_read
from enforcer.protocols.mysql.client import ClientHalf
from enforcer.protocols.mysql.conversation import ANSWERS, Awaiting, Client, Conversation, Exchange, Said
from enforcer.protocols.mysql.diagnostics import NAMED, media_of_error, media_of_ok
from enforcer.protocols.mysql.packets import (
    FULL,
    HEADER,
    Packets,
    Reader,
    check_sequence,
    count_of,
    message_of,
    payload_of,
)
from enforcer.protocols.mysql.results import (
    CURSOR_EXISTS,
    MORE_RESULTS,
    Definition,
    Layout,
    changed_schema,
    changed_variable,
    read_definition,
    read_error,
    read_ok,
    read_row,
    text_of,
)
from enforcer.protocols.mysql.understanding import names_of

MAX_ROW: Final = 64 << 20
"""Bytes of a row that is held whole to be masked. Unmasked ones pass in pieces, of any size."""

MAX_MESSAGE: Final = 1 << 20
"""Bytes of any other message. Definitions have up to 64 KiB with their default; messages of errors 512."""

MAX_COLUMNS: Final = 4096
"""Columns of a table, and so of a result (MySQL's own limit), and parameters of a statement: those 65,535."""

MAX_PARAMETERS: Final = 65_535

STREAMED_FROM: Final = 64 << 10
"""An unmasked row of more bytes goes on in pieces; shorter ones whole, so that a denial in mid-answer can still be read
by the client."""

_ENDS: Final = 9
"""Bytes below which a message that begins with 0xFE is an EOF, and no row whose first cell has over 16 MiB."""


class ServerHalf:
    """Parser of the server's side. `passing`: bytes of a long packet still to come, which passes in pieces."""

    def __init__(self, conversation: Conversation, client: ClientHalf) -> None:
        self.passing = 0
        self.halted = False  # an answer that cannot be masked: nothing more is handed on
        self._continued = False  # the packet that passes is continued by another one
        self._conversation = conversation
        self._client = client
        self._packets = Packets(Side.SERVER)
        self._due = 0  # definitions still to come
        self._columns_due = 0  # and then, of a prepared statement, those of its columns
        self._definitions: list[Definition] = []

    def receive(self, data: bytes) -> None:
        self._packets.feed(data)

    def advance(self) -> None:
        """Reads on until bytes are missing. Raises ProtocolError, LimitExceeded."""
        while not self.halted and self._read():
            pass

    def _read(self) -> bool:
        """One message, or many rows; False where bytes are missing, or nobody may hear them yet."""
        conversation = self._conversation
        if conversation.client is Client.NEW:
            return False
        if self.passing or self._continued:
            return self._pass_on()
        header = self._packets.header()
        if header is None:
            return False
        awaiting = conversation.awaiting
        if awaiting is Awaiting.NOTHING:
            return self._unasked()
        length, sequence = header
        check_sequence(Side.SERVER, sequence, conversation.sequence)
        if awaiting is Awaiting.ROWS and not self._packets.has(HEADER + 1):
            return False
        if awaiting is Awaiting.ROWS and self._said_in_rows(length) is Said.ROW:
            exchange = conversation.exchange
            if exchange is None:
                raise ProtocolError(Side.SERVER, "rows that nobody asked for")
            return self._mask_rows(exchange) if exchange.masked else self._pass_rows(exchange)
        raw = self._packets.message(sequence, handshake.MAX_GREETING if awaiting is Awaiting.GREETING else MAX_MESSAGE)
        if raw is None:
            return False
        conversation.sequence = sequence + count_of(raw) & 0xFF
        payload = payload_of(raw)
        if not payload:
            raise ProtocolError(Side.SERVER, "an empty message")
        said = self._said(payload, awaiting)
        then = ANSWERS.get((awaiting, said))
        if then is None:
            raise ProtocolError(Side.SERVER, f"{said.name} where {awaiting.name} was due")
        conversation.awaiting = then
        _TAKE[said](self, raw, payload, awaiting)
        return True

    def _unasked(self) -> bool:
        """An error may come at any time between commands, before the server closes (a time-out, a shutdown)."""
        conversation = self._conversation
        header = self._packets.header()
        raw = self._packets.message(header[1], MAX_MESSAGE) if header is not None else None
        if raw is None:
            return False
        payload = payload_of(raw)
        if conversation.client not in (Client.READY, Client.CLOSED) or payload[:1] != b"\xff":
            raise ProtocolError(Side.SERVER, "it speaks without being asked")
        self._text(raw, payload)
        return True

    # --- what a message is

    def _said(self, payload: bytes, awaiting: Awaiting) -> Said:
        first = payload[0]
        if awaiting is Awaiting.STATISTICS:
            return Said.TEXT
        if awaiting in (Awaiting.COLUMNS, Awaiting.PARAMETERS):
            return Said.DEFINITION_LAST if self._due == 1 else Said.DEFINITION
        if first == 0xFF:
            return Said.ERROR
        if awaiting is Awaiting.GREETING:
            return Said.GREETING
        if first == 0xFE and (awaiting is Awaiting.ROWS or len(payload) < _ENDS or self._deprecates_eof):
            return Said.PROOF if awaiting is Awaiting.LOGIN else Said.EOF
        if awaiting is Awaiting.LOGIN:
            return Said.OK if first == 0 else Said.PROOF
        if awaiting is Awaiting.FIELDS:
            return Said.DEFINITION
        if first == 0:
            return Said.STATEMENT if awaiting is Awaiting.PREPARED else Said.OK
        return Said.LOCAL_INFILE if first == 0xFB else Said.COUNT

    def _said_in_rows(self, length: int) -> Said:
        first = self._packets.data[self._packets.pos + HEADER] if length else 0
        if first == 0xFF:
            return Said.ERROR
        ends = length < FULL if self._deprecates_eof else length < _ENDS
        return Said.EOF if first == 0xFE and ends else Said.ROW

    @property
    def _deprecates_eof(self) -> bool:
        return bool(self._conversation.capabilities & handshake.DEPRECATE_EOF)

    # --- rows

    def _pass_on(self) -> bool:
        """The next piece of a row that passes in pieces, over all its packets."""
        conversation, packets = self._conversation, self._packets
        if not self.passing:
            header = packets.header()
            if header is None:
                return False
            self.passing, self._continued = header[0], header[0] == FULL
            check_sequence(Side.SERVER, header[1], conversation.sequence)
            conversation.sequence = header[1] + 1 & 0xFF
            conversation.to_client(packets.take_up_to(HEADER))
            return True
        piece = packets.take_up_to(self.passing)
        self.passing -= len(piece)
        if piece:
            conversation.forward(Side.SERVER, piece)
        return bool(piece)

    def _pass_rows(self, exchange: Exchange) -> bool:
        """Hot path: hands on all the rows that are there as one block, counting them."""
        conversation, packets = self._conversation, self._packets
        header = packets.header()
        if header is None:
            return False
        if header[0] > STREAMED_FROM:
            exchange.counted += 1
            self._continued = True  # its header is read as any further one is
            return self._pass_on()
        if not packets.has(HEADER + header[0]):
            return False
        data, start, end = packets.data, packets.pos, len(packets.data)
        pos, sequence, deprecates = start, conversation.sequence, self._deprecates_eof
        while end - pos > HEADER:
            length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
            first = data[pos + HEADER]
            if length > STREAMED_FROM or length >= end - pos - HEADER + 1 or not length:
                break
            if first >= 0xFE and (first == 0xFF or length < _ENDS or deprecates):
                break
            check_sequence(Side.SERVER, data[pos + 3], sequence)
            sequence = sequence + 1 & 0xFF
            pos += HEADER + length
            exchange.counted += 1
        if pos == start:
            raise ProtocolError(Side.SERVER, "an empty row")
        packets.pos = pos
        block = data[start:pos]
        if conversation.shift:
            block = _renumbered(block, conversation.shift)
        conversation.sequence = sequence
        conversation.forward(Side.SERVER, block)
        return True

    def _mask_rows(self, exchange: Exchange) -> bool:
        """Hot path: all the rows that are there as one Rows event."""
        conversation, packets, layout = self._conversation, self._packets, self._conversation.layout
        if layout is None:
            raise ProtocolError(Side.SERVER, "rows without columns")
        data, pos, end = packets.data, packets.pos, len(packets.data)
        sequence, deprecates, start = conversation.sequence, self._deprecates_eof, packets.pos
        values: list[bytes | None] = []
        try:
            while end - pos > HEADER:
                length = data[pos] | data[pos + 1] << 8 | data[pos + 2] << 16
                first = data[pos + HEADER]
                if length == FULL or length > end - pos - HEADER or not length:
                    break
                if first >= 0xFE and (first == 0xFF or length < _ENDS or deprecates):
                    break
                check_sequence(Side.SERVER, data[pos + 3], sequence)
                values += read_row(data[pos : pos + HEADER + length], layout)
                pos += HEADER + length
                sequence = sequence + 1 & 0xFF
                exchange.counted += 1
        finally:  # also where the next one is none: what came before it goes on first, however the bytes were cut
            packets.pos, conversation.sequence = pos, sequence
            if values:
                self._emit_rows(exchange, layout, values, data[start:pos])
        return pos > start or self._mask_long_row(exchange, layout)

    def _emit_rows(self, exchange: Exchange, layout: Layout, values: list[bytes | None], raw: bytes) -> None:
        conversation = self._conversation
        raw = _renumbered(raw, conversation.shift) if conversation.shift else raw
        conversation.emit(Rows(exchange.number, layout.columns, values, layout.plain, raw, layout.strings))

    def _mask_long_row(self, exchange: Exchange, layout: Layout) -> bool:
        """One that is not there yet, or has several packets."""
        conversation = self._conversation
        raw = self._packets.message(conversation.sequence, MAX_ROW)
        if raw is None:
            return False
        conversation.sequence = conversation.sequence + count_of(raw) & 0xFF
        exchange.counted += 1
        self._emit_rows(exchange, layout, read_row(raw, layout), raw)
        return True

    # --- the connection

    def _greeting(self, raw: bytes, _payload: bytes, _awaiting: Awaiting) -> None:
        conversation = self._conversation
        greeting = handshake.read_greeting(raw)
        conversation.version = greeting.version
        conversation.client = Client.ANSWERING
        self._client.offer(greeting.capabilities)
        if greeting.capabilities & handshake.SSL:
            conversation.emit(TlsOffer(greeting.raw, greeting.in_clear))
        else:
            conversation.to_client(greeting.raw)
        conversation.finish(greeting.version)

    def _proof(self, raw: bytes, _payload: bytes, _awaiting: Awaiting) -> None:
        self._conversation.to_client(raw)

    # --- answers

    def _ok(self, raw: bytes, payload: bytes, awaiting: Awaiting) -> None:
        conversation, exchange = self._conversation, self._conversation.exchange
        ok = read_ok(payload, conversation.capabilities)
        self._heed(ok.status)
        database, character_set = changed_schema(ok), changed_variable(ok, b"character_set_client")
        if awaiting is Awaiting.LOGIN:
            conversation.client = Client.READY
            conversation.statements.clear()
        conversation.user = conversation.pending.get("user", conversation.user)
        conversation.database = conversation.pending.get("database", conversation.database)
        conversation.pending = {}
        if database is not None:
            conversation.database = database
        if character_set is not None:
            self._client.writes_in(character_set)
        if exchange is not None:
            exchange.status = exchange.status or "OK"
            if awaiting is Awaiting.RESULT:
                exchange.add_rows(ok.affected)
        self._text(raw, payload, media_of_ok(conversation.text, certain=conversation.certain))
        self._after()

    def _heed(self, status: int) -> None:
        self._conversation.heed(status)
        if status & MORE_RESULTS and self._conversation.awaiting is Awaiting.NOTHING:
            self._conversation.awaiting = Awaiting.RESULT
            self._conversation.answered += 1

    def _after(self) -> None:
        if self._conversation.awaiting is Awaiting.NOTHING:
            self._conversation.finish()

    def _eof(self, raw: bytes, payload: bytes, awaiting: Awaiting) -> None:
        conversation, exchange = self._conversation, self._conversation.exchange
        plain = len(payload) < _ENDS and not self._deprecates_eof
        status = Reader(payload, Side.SERVER, 3).integer(2) if plain else self._end_of_rows(payload)
        if awaiting is Awaiting.COLUMNS_END:
            conversation.to_client(raw)
            if status & CURSOR_EXISTS:  # its rows are fetched
                conversation.finish("cursor")
            return
        if awaiting is Awaiting.PARAMETERS_END:
            conversation.to_client(raw)
            self._next_definitions()
            return
        if exchange is not None:
            exchange.status = exchange.status or "OK"
            if awaiting is Awaiting.ROWS:
                exchange.add_rows(exchange.counted)
                exchange.counted = 0
        if plain:
            conversation.to_client(raw)
        else:
            self._text(raw, payload)
        if awaiting is Awaiting.ROWS:
            self._heed(status)
        self._after()

    def _end_of_rows(self, payload: bytes) -> int:
        return read_ok(payload, self._conversation.capabilities).status

    def _error(self, raw: bytes, payload: bytes, awaiting: Awaiting) -> None:
        conversation, exchange = self._conversation, self._conversation.exchange
        code, _, words = read_error(payload)
        if awaiting in (Awaiting.GREETING, Awaiting.LOGIN):
            conversation.client = Client.CLOSED
        conversation.pending = {}
        if exchange is not None and exchange.counted:
            exchange.add_rows(exchange.counted)
        self._text(raw, payload, media_of_error(code, words, conversation.text, certain=conversation.certain))
        conversation.finish(str(code), failed=True)

    def _local_infile(self, _raw: bytes, _payload: bytes, _awaiting: Awaiting) -> None:
        """The server asks for a file of the client's: it gets an empty one, and the client is not asked."""
        conversation = self._conversation
        conversation.forward(Side.CLIENT, message_of(b"", conversation.sequence))
        conversation.sequence = conversation.sequence + 1 & 0xFF
        conversation.shift -= 2
        if conversation.exchange is not None:
            conversation.exchange.status = "LOCAL INFILE refused"
            conversation.exchange.failed = True

    def _count(self, raw: bytes, payload: bytes, _awaiting: Awaiting) -> None:
        reader = Reader(payload, Side.SERVER)
        self._due = reader.length()
        reader.end()
        if not 0 < self._due <= MAX_COLUMNS:
            raise ProtocolError(Side.SERVER, f"a result of {self._due} columns")
        self._definitions = []
        self._conversation.layout = None
        self._conversation.to_client(raw)

    def _definition(self, raw: bytes, payload: bytes, awaiting: Awaiting) -> None:
        conversation, exchange = self._conversation, self._conversation.exchange
        definition, rest = read_definition(payload)
        masked = exchange is not None and exchange.masked
        if awaiting is Awaiting.FIELDS:
            if masked and rest.left:  # a column's default is data
                raw = message_of(payload[: rest.pos] + b"\xfb", raw[3])
            conversation.to_client(raw)
            return
        self._due -= 1
        if awaiting is Awaiting.COLUMNS:
            if exchange is not None and masked and not is_read(definition.collation):
                self.halted = True
                conversation.sequence = raw[3]  # it is due in place of this one
                words = f"the result is in collation {definition.collation}, which cannot be scanned; use utf8mb4"
                conversation.emit(Unmaskable(exchange.number, words))
                return
            self._definitions.append(definition)
        conversation.to_client(raw)
        if self._due:
            return
        if awaiting is Awaiting.COLUMNS:
            self._lay_out()
        elif self._deprecates_eof:
            self._next_definitions()

    def _lay_out(self) -> None:
        """All columns are there. Without an EOF behind them the rows begin."""
        conversation = self._conversation
        definitions, statement, exchange = self._definitions, conversation.statement, conversation.exchange
        if exchange is None:
            raise ProtocolError(Side.SERVER, "a result that nobody asked for")
        names = ("",) * len(definitions)
        if exchange.masked and conversation.understood:
            names = names_of(conversation.text, definitions, conversation.answered)
        layout = conversation.layout = Layout(definitions, names, binary=conversation.binary)
        if statement is not None:
            statement.layout = layout
        if self._deprecates_eof:
            conversation.awaiting = Awaiting.ROWS

    def _statement(self, raw: bytes, payload: bytes, _awaiting: Awaiting) -> None:
        """COM_STMT_PREPARE_OK, and how many definitions follow it."""
        conversation, statement = self._conversation, self._conversation.statement
        if statement is None:
            raise ProtocolError(Side.SERVER, "a statement that nobody prepared")
        reader = Reader(payload, Side.SERVER, 1)
        statement.number = reader.integer(4)
        self._columns_due = reader.integer(2)
        statement.parameters = self._due = reader.integer(2)
        conversation.statements.add(statement)
        conversation.to_client(raw)
        if not self._due:
            self._next_definitions()

    def _next_definitions(self) -> None:
        """Parameters are all there: then come the columns, or nothing."""
        conversation = self._conversation
        self._due, self._columns_due = self._columns_due, 0
        if self._due:
            conversation.awaiting = Awaiting.PARAMETERS
        else:
            conversation.finish("prepared")

    def _statistics(self, raw: bytes, _payload: bytes, _awaiting: Awaiting) -> None:
        self._conversation.to_client(raw)
        self._conversation.finish()

    def _text(self, raw: bytes, payload: bytes, media: str = NAMED) -> None:
        """An OK or an ERR: a Text where what is under way, or was last, is masked."""
        conversation = self._conversation
        exchange, raw = conversation.speaks_for, conversation.numbered(raw)
        data = text_of(payload, conversation.capabilities) if exchange is not None else b""
        if exchange is None or not data:
            conversation.forward(Side.SERVER, raw)
        else:
            conversation.emit(Text(exchange.number, media, data, final=True, raw=raw))


def _renumbered(block: bytes, shift: int) -> bytes:
    """Whole packets, each with its number changed."""
    out, pos = bytearray(block), 0
    while pos < len(out):
        out[pos + 3] = out[pos + 3] + shift & 0xFF
        pos += HEADER + (out[pos] | out[pos + 1] << 8 | out[pos + 2] << 16)
    return bytes(out)


_TAKE: Final[dict[Said, Callable[[ServerHalf, bytes, bytes, Awaiting], None]]] = {
    Said.GREETING: ServerHalf._greeting,
    Said.PROOF: ServerHalf._proof,
    Said.OK: ServerHalf._ok,
    Said.EOF: ServerHalf._eof,
    Said.ERROR: ServerHalf._error,
    Said.LOCAL_INFILE: ServerHalf._local_infile,
    Said.COUNT: ServerHalf._count,
    Said.DEFINITION: ServerHalf._definition,
    Said.DEFINITION_LAST: ServerHalf._definition,
    Said.STATEMENT: ServerHalf._statement,
    Said.TEXT: ServerHalf._statistics,
}
