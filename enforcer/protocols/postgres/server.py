"""Step 4 of 6, inspect: the server's half of a PostgreSQL connection.

Gets the server's bytes; hands on rows, error texts and copied text where the exchange is masked, whole blocks of
messages where it is not, and the outcome of every exchange. A message that nothing on its way asks for is a
protocol error: a server that speaks out of turn could make the client read one answer as another.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Reply, Rows, Text, Unmaskable
from enforcer.protocols.postgres import messages, texts
from enforcer.protocols.postgres.binary import hexadecimal, said, say, saying
from enforcer.protocols.postgres.conversation import (
    ANSWERS,
    COPY_IN,
    ENDS_WITH_READY,
    Awaiting,
    Client,
    Conversation,
    Outstanding,
)
from enforcer.protocols.postgres.copying import Lines, cells_of
from enforcer.protocols.postgres.framing import Frames
from enforcer.protocols.postgres.names import Exchange
from enforcer.protocols.postgres.results import Layout, lay_out
from enforcer.protocols.postgres.values import check_encoding, decode

MAX_ROW: Final = 64 << 20
"""Bytes of a DataRow or CopyData that is held whole to be masked. Unmasked ones pass in pieces, of any size."""

MAX_MESSAGE: Final = 16 << 20
"""Bytes of any other message; the longest ones are errors that quote the statement, which has the same limit."""

MAX_BATCH: Final = 32 << 10
"""Bytes of rows that are handed on together: one scan for all of them costs little more than one for each, and what is
masked of them is written again together."""

STREAMED_FROM: Final = 64 << 10
"""An unmasked DataRow or CopyData of more bytes goes on in pieces; shorter ones whole, so that a denial in
mid-answer can still be read by the client."""

_ROW: Final = ord("D")
_COPY: Final = ord("d")
_TAG: Final = re.compile(r"(?P<word>.*?)(?P<counts>(?: \d+)*)")
_DEALLOCATE: Final = re.compile(r"\s*DEALLOCATE\s+(?:PREPARE\s+)?(\"?)([^\";\s]+)\1\s*;?\s*", re.IGNORECASE)
_FREE_PARAMETERS: Final = frozenset({b"application_name", b"search_path", b"TimeZone"})
"""Reported settings that take any text, so that a query can put data into them; the others have fixed values."""
_ZONE: Final = re.compile(rb"[A-Za-z_]+(?:[/-][A-Za-z_]+)*|Etc/GMT[+-]?\d\d?|<[+-]\d\d(?::?\d\d)?>[+-]\d\d(?::\d\d)?")
"""Time zones by their names, which the server has a list of, or by their distance: no text of anybody's."""
_COPYING_OUT: Final = frozenset({Awaiting.QUERY_COPY_OUT, Awaiting.EXECUTE_COPY_OUT})


class ServerHalf:
    """Parser of the server's side. `passing`: bytes of a long message still to come, which passes in pieces."""

    def __init__(self, conversation: Conversation) -> None:
        self.passing = 0
        self.halted = False  # an answer that cannot be masked: nothing more is handed on
        self._conversation = conversation
        self._frames = Frames(Side.SERVER)
        self._query_fields: tuple[messages.Field, ...] | None = None
        self._answered = 0  # statements of the Query under way that are: their number is the next one's
        self._lines: Lines | None = None  # of the text that is being copied, where it is masked by rows
        self._layout_of: Outstanding | None = None  # whose rows `_layout` describes
        self._layout: Layout = ((), (), ())
        self._saying: tuple[tuple[int, int], ...] = ()  # its columns whose bytes do not show what they say

    def receive(self, data: bytes) -> None:
        self._frames.feed(data)

    def advance(self) -> None:
        """Reads on until bytes are missing. Raises ProtocolError, LimitExceeded."""
        while not self.halted and self._read():
            pass

    def _read(self) -> bool:
        """One message, or many rows; False where bytes are missing."""
        conversation, frames = self._conversation, self._frames
        if self.passing:
            return self._pass_on()
        header = frames.header()
        if header is None:
            return False
        code, size = header
        head = conversation.head()
        state = head.awaiting if head is not None else Awaiting.NOTHING
        then = ANSWERS.get((state, code))
        if then is None and (
            code not in _ANY_TIME or conversation.client is Client.OPENING or state is Awaiting.CANCEL
        ):
            raise ProtocolError(Side.SERVER, f"message {chr(code)!a} while awaiting {state.name.lower()}")
        exchange = head.exchange if head is not None and then is not None else None
        if exchange is not None and code in (_ROW, _COPY):
            if not exchange.masked:
                return self._pass_rows(exchange, code, size)
            if code == _ROW and head is not None:
                return self._mask_rows(head, exchange) and self._say()
        raw = frames.take(size, MAX_ROW if code == _COPY else MAX_MESSAGE)
        if raw is None:
            return False
        if then is None or head is None:
            _ANY_TIME[code](self, raw)
        else:
            if then is not Awaiting.DONE:
                head.awaiting = then
            _TAKE[code](self, raw, head)
            if then is Awaiting.DONE:
                conversation.answered()
                self._after(head)
                conversation.speak()
        return True

    def _pass_on(self) -> bool:
        piece = self._frames.take_up_to(self.passing)
        self.passing -= len(piece)
        if piece:
            self._conversation.forward(Side.SERVER, piece)
        return bool(piece)

    def _pass_rows(self, exchange: Exchange, code: int, size: int) -> bool:
        """Hot path: hands on all the messages of this type that are there as one block, counting them."""
        frames = self._frames
        if not frames.has(size):
            if size <= STREAMED_FROM:
                return False
            exchange.counted += code == _ROW
            self.passing = size
            return self._pass_on()
        data, start, end = frames.data, frames.pos, len(frames.data)
        pos, count = start, 0
        unpack = messages.INT32.unpack_from
        while end - pos > messages.BODY and data[pos] == code:
            (length,) = unpack(data, pos + 1)
            if length < 4 or length >= end - pos:
                break  # impossible, or not all there: `_read` says which
            pos += 1 + length
            count += 1
        if not count:  # a message without a body
            pos, count = start + size, 1
        frames.pos = pos
        exchange.counted += count if code == _ROW else 0
        self._conversation.forward(Side.SERVER, data[start:pos])
        return True

    def _mask_rows(self, head: Outstanding, exchange: Exchange) -> bool:
        """Hot path: one Rows event for as many DataRows as are there, up to MAX_BATCH bytes."""
        conversation, frames = self._conversation, self._frames
        data, start, end = frames.data, frames.pos, len(frames.data)
        pos, count, width = start, 0, -1
        values: list[bytes | None] = []
        while end - pos >= messages.BODY and data[pos] == _ROW and pos - start < MAX_BATCH:
            length = data[pos + 1] << 24 | data[pos + 2] << 16 | data[pos + 3] << 8 | data[pos + 4]
            if length < 4 or length >= end - pos:
                break
            cells = messages.read_cells(data, pos + messages.BODY, pos + 1 + length, values)
            if cells != width and count:
                raise ProtocolError(Side.SERVER, "the rows of one result have different numbers of cells")
            width = cells
            pos += 1 + length
            count += 1
            if not cells:
                break
        if count:
            columns, binary, strings = self._layout
            if self._layout_of is not head or len(columns) != width:
                columns, binary, strings = self._layout = self._lay_out(head, width)
                self._layout_of = head
            exchange.counted += count
            frames.pos = pos
            conversation.emit(Rows(exchange.number, columns, values, binary, data[start:pos], strings))
            return True
        header = frames.header()
        size = header[1] if header is not None else 0
        if size > MAX_ROW:
            raise LimitExceeded(Side.SERVER, f"a row of {size} bytes is over the limit of {MAX_ROW} for masking")
        return frames.has(size)

    def _lay_out(self, head: Outstanding, cells: int) -> Layout:
        fields = head.portal.described if head.portal is not None else self._query_fields
        if head.portal is not None:
            layout = head.portal.layout(cells)
        elif fields is None or len(fields) != cells:
            raise ProtocolError(Side.SERVER, "a DataRow does not fit the RowDescription before it")
        else:
            queries = head.statement.queries if head.statement is not None else None
            layout = lay_out(queries, fields, tuple(field.format for field in fields), cells, self._answered)
        self._saying = saying(fields, layout[1])
        return layout

    def _say(self) -> bool:
        """Binary cells of the rows just handed on become what they say; `encode_row` has their bytes."""
        events = self._conversation.events
        if self._saying and events:
            rows = events[-1]
            if isinstance(rows, Rows):
                say(rows.values, len(rows.columns), self._saying)
        return True

    def _forward(self, raw: bytes, _head: Outstanding) -> None:
        self._conversation.forward(Side.SERVER, raw)

    def _authentication(self, raw: bytes, _head: Outstanding) -> None:
        offered = messages.without_channel_binding(raw)
        self._conversation.unbound |= offered != raw
        self._conversation.forward(Side.SERVER, offered)

    def _function_result(self, raw: bytes, head: Outstanding) -> None:
        """A cell that has no column: of which table it is, nobody can tell."""
        value, exchange = messages.read_function_result(raw), head.exchange
        if exchange is None or not exchange.masked:
            self._conversation.forward(Side.SERVER, raw)
        else:
            told = said(value, 0) if value and head.binary else value
            self._conversation.emit(Rows(exchange.number, ("",), [told], (head.binary,), raw))
        if exchange is not None:
            exchange.status = "FunctionCallResponse"

    def _row_description(self, raw: bytes, head: Outstanding) -> None:
        fields = messages.read_row_description(raw)
        if head.awaiting is Awaiting.QUERY:
            self._query_fields, self._layout_of = fields, None
        else:
            self._describe(head, fields)
        self._conversation.forward(Side.SERVER, raw)

    def _no_data(self, raw: bytes, head: Outstanding) -> None:
        self._describe(head, ())
        self._conversation.forward(Side.SERVER, raw)

    def _describe(self, head: Outstanding, fields: tuple[messages.Field, ...]) -> None:
        """Remembers the columns by statement: one described once may be executed for ever after."""
        statement = head.statement
        if head.portal is not None:
            head.portal.fields = fields
            statement = head.portal.statement
        if statement is not None:
            statement.fields = fields

    def _parameter_description(self, raw: bytes, head: Outstanding) -> None:
        if head.statement is not None:
            head.statement.oids = messages.read_parameter_description(raw)
        self._conversation.forward(Side.SERVER, raw)

    def _command_complete(self, raw: bytes, head: Outstanding) -> None:
        tag = _TAG.fullmatch(decode(messages.read_string(raw, Side.SERVER)))
        if head.exchange is None or tag is None:
            raise ProtocolError(Side.SERVER, "CommandComplete holds no tag")
        head.exchange.status = tag["word"]
        if tag["counts"]:
            head.exchange.add_rows(int(tag["counts"].split()[-1]))
        head.exchange.counted = 0
        self._query_fields = None
        self._answered += head.awaiting is Awaiting.QUERY
        if "DEALLOCATE" in tag["word"] or tag["word"] == "DISCARD ALL":
            statement = head.portal.statement if head.portal is not None else head.statement
            self._deallocate(tag["word"], statement.text if statement is not None else "")
        self._conversation.forward(Side.SERVER, raw)

    def _deallocate(self, tag: str, text: str) -> None:
        """SQL closed prepared statements. One that is named in no plain DEALLOCATE stays remembered, unused."""
        statements = self._conversation.statements
        named = _DEALLOCATE.fullmatch(text)
        if tag in ("DEALLOCATE ALL", "DISCARD ALL"):
            statements.forget_all()
        elif named is not None:
            statements.forget((named[2] if named[1] else named[2].lower()).encode())

    def _empty_query(self, raw: bytes, head: Outstanding) -> None:
        if head.exchange is not None:
            head.exchange.status = "EmptyQueryResponse"
        self._conversation.forward(Side.SERVER, raw)

    def _suspended(self, raw: bytes, head: Outstanding) -> None:
        if head.exchange is not None:
            head.exchange.status = "PortalSuspended"
            head.exchange.add_rows(head.exchange.counted)
        self._conversation.forward(Side.SERVER, raw)

    def _copy_out(self, raw: bytes, head: Outstanding) -> None:
        if messages.read_copy_format(raw) != 0 and head.exchange is not None and head.exchange.masked:
            self._conversation.emit(Unmaskable(head.exchange.number, "COPY in binary format; use its text format"))
            self.halted = True
            return
        if head.exchange is not None and head.exchange.masked:
            statement = head.portal.statement if head.portal is not None else head.statement
            known = statement is not None and statement.queries is not None
            lines = Lines(statement.text if statement is not None else "", known=known)
            self._lines = lines if lines.readable else None
        self._conversation.forward(Side.SERVER, raw)

    def _copy_data(self, raw: bytes, head: Outstanding) -> None:
        exchange = head.exchange
        if exchange is None:
            return
        data = raw[messages.BODY :]
        if self._lines is None:
            self._conversation.emit(Text(exchange.number, "copy", data, final=False, raw=raw))
        else:
            self._copied_rows(exchange, self._lines, self._lines.feed(data))

    def _copied_rows(self, exchange: Exchange, copied: Lines, lines: list[bytes]) -> None:
        for line in lines:
            cells = [hexadecimal(cell) if cell else cell for cell in cells_of(line)]
            binary = (False,) * len(cells)
            whole = messages.copy_data(line + b"\n")
            self._conversation.emit(Rows(exchange.number, copied.columns(len(cells)), cells, binary, whole))

    def _copy_done(self, raw: bytes, head: Outstanding) -> None:
        self._end_copied_text(head)
        self._conversation.forward(Side.SERVER, raw)

    def _end_copied_text(self, head: Outstanding) -> None:
        lines, self._lines = self._lines, None
        if head.exchange is None or not head.exchange.masked:
            return
        if lines is None:
            self._conversation.emit(Text(head.exchange.number, "copy", b"", final=True, raw=b""))
        else:
            self._copied_rows(head.exchange, lines, lines.end())

    def _copy_in(self, raw: bytes, head: Outstanding) -> None:
        """The client's data come next. The server ignores any Sync that was sent behind the COPY."""
        conversation = self._conversation
        waiting = conversation.outstanding
        if head.ahead:
            if head.ended:
                head.awaiting = COPY_IN[head.awaiting]
            conversation.forward(Side.SERVER, raw)
            return
        if any(item.awaiting is not Awaiting.SYNC for item in list(waiting)[1:]):
            raise ProtocolError(Side.CLIENT, "messages are pipelined behind COPY FROM STDIN")
        conversation.unsynced = head.awaiting is Awaiting.EXECUTE_COPY_IN
        while len(waiting) > 1:
            waiting.pop()
        conversation.client = Client.COPYING
        conversation.forward(Side.SERVER, raw)

    def _ready(self, raw: bytes, head: Outstanding) -> None:
        conversation = self._conversation
        status = raw[messages.BODY :]
        if status not in (b"I", b"T", b"E"):
            raise ProtocolError(Side.SERVER, "ReadyForQuery holds an unknown transaction status")
        conversation.status = status
        conversation.forward(Side.SERVER, raw)
        self._query_fields = None
        self._answered = 0
        # It has told by now what was set before.
        conversation.unsettled = any(item.unsettles for item in conversation.outstanding if item is not head)
        if head.awaiting is Awaiting.STARTUP:
            conversation.client = Client.READY
            if head.exchange is not None:
                head.exchange.status = "AuthenticationOk"
        if status != b"T":
            conversation.portals.forget_all()  # portals end with their transaction

    def _after(self, head: Outstanding) -> None:
        """Outcomes that follow from an answered message."""
        conversation, exchange = self._conversation, head.exchange
        if head.awaiting is Awaiting.SYNC:
            conversation.finish_bound()
        elif exchange is None:
            return
        elif head.awaiting is Awaiting.PARSE:
            conversation.finish(exchange, "ParseComplete")
        elif head.awaiting in ENDS_WITH_READY:
            conversation.finish(exchange, exchange.status, failed=exchange.failed)
            conversation.finish_bound()
        elif head.awaiting is Awaiting.EXECUTE and exchange.status != "PortalSuspended" and exchange.in_flight == 0:
            conversation.finish(exchange, exchange.status)

    def _error(self, raw: bytes) -> None:
        """ErrorResponse: ends what is awaited; in the extended protocol also all that follows up to Sync."""
        conversation, head = self._conversation, self._conversation.head()
        fields = dict(messages.read_error(raw))
        sqlstate = decode(fields.get(ord("C"), b""))
        if head is None:
            self._text(raw)
            return
        if head.awaiting in _COPYING_OUT:
            self._end_copied_text(head)
        if head.awaiting in COPY_IN or (head.ahead and not head.ended):
            conversation.client = Client.COPY_BROKEN
        if head.awaiting is Awaiting.REFUSAL:
            conversation.emit(Reply(head.reply))
        else:
            self._text(raw)
        self._query_fields = None
        if head.awaiting not in ENDS_WITH_READY:
            if head.exchange is not None:
                conversation.finish(head.exchange, sqlstate, failed=True)
            conversation.fail()
            return
        if head.exchange is not None:
            head.exchange.status, head.exchange.failed = sqlstate, True
            if head.awaiting is Awaiting.STARTUP:
                conversation.finish(head.exchange, sqlstate, failed=True)
        if head.awaiting in (Awaiting.QUERY_COPY_OUT, Awaiting.QUERY_COPY_IN):
            head.awaiting = Awaiting.QUERY

    def _parameter_status(self, raw: bytes) -> None:
        reader = messages.Reader(raw, Side.SERVER)
        name, value = reader.string(), reader.string()
        reader.end()
        if name == b"client_encoding":
            check_encoding(decode(value), Side.SERVER)
        head = self._conversation.head()
        starting = head is not None and head.awaiting is Awaiting.STARTUP  # as the client or the configuration set it
        if name in _FREE_PARAMETERS and not starting and not (name == b"TimeZone" and _ZONE.fullmatch(value)):
            self._text(raw)
        else:
            self._conversation.forward(Side.SERVER, raw)

    def _text(self, raw: bytes) -> None:
        """A message that can quote data: where its exchange is masked a Text, or cells of no column where it may be
        nothing but data. One outside any exchange belongs to the last masked one, if there ever was one."""
        conversation, head = self._conversation, self._conversation.head()
        exchange = head.exchange if head is not None and head.exchange is not None else conversation.last_masked
        if exchange is None or not exchange.masked:
            conversation.forward(Side.SERVER, raw)
            return
        media = texts.kind(raw)
        if media:
            conversation.emit(Text(exchange.number, media, texts.read_text(raw), final=True, raw=raw))
            return
        values: list[bytes | None] = [*texts.values_of(raw)]
        conversation.emit(Rows(exchange.number, ("",) * len(values), values, (False,) * len(values), raw))


_TAKE: Final[dict[int, Callable[[ServerHalf, bytes, Outstanding], None]]] = {
    ord("R"): ServerHalf._authentication,
    ord("V"): ServerHalf._function_result,
    ord("K"): ServerHalf._forward,
    ord("v"): ServerHalf._forward,
    ord("1"): ServerHalf._forward,
    ord("2"): ServerHalf._forward,
    ord("3"): ServerHalf._forward,
    ord("t"): ServerHalf._parameter_description,
    ord("T"): ServerHalf._row_description,
    ord("n"): ServerHalf._no_data,
    ord("C"): ServerHalf._command_complete,
    ord("I"): ServerHalf._empty_query,
    ord("s"): ServerHalf._suspended,
    ord("H"): ServerHalf._copy_out,
    ord("G"): ServerHalf._copy_in,
    ord("d"): ServerHalf._copy_data,
    ord("c"): ServerHalf._copy_done,
    ord("Z"): ServerHalf._ready,
}

_ANY_TIME: Final[dict[int, Callable[[ServerHalf, bytes], None]]] = {
    ord("E"): ServerHalf._error,
    ord("N"): ServerHalf._text,
    ord("A"): ServerHalf._text,
    ord("S"): ServerHalf._parameter_status,
}
