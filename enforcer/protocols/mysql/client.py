"""Step 4 of 6, inspect: the client's half of a MySQL connection.

Gets the client's bytes; hands on Requests to be judged (the connection itself, the login, and every command that says
something), and forwards what only carries those out. Nothing that needs a verdict, and nothing behind it, leaves before
the verdict.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Request, StartTls
from enforcer.protocols.mysql import handshake
from enforcer.protocols.mysql.charsets import fault_of, is_read
from enforcer.protocols.mysql.conversation import Awaiting, Client, Conversation
from enforcer.protocols.mysql.handshake import decode
from enforcer.protocols.mysql.packets import Packets, Reader, count_of, message_of, payload_of
from enforcer.protocols.mysql.results import ACCESS_DENIED, error
from enforcer.protocols.mysql.statements import Bound, Statement, read_attributes, read_execution
from enforcer.protocols.mysql.understanding import facts_of, misread, unread

MAX_COMMAND: Final = 32 << 20
"""Bytes of a command, which is held whole for its verdict. Servers take 16 to 64 MiB (max_allowed_packet)."""

MAX_AHEAD: Final = MAX_COMMAND + (1 << 20)
"""Bytes that may pile up behind a command: the next one, and what was on its way."""

MAX_LOGIN: Final = 128 << 10
"""Bytes of a login, or of what a client proves itself with: connection attributes have up to 64 KiB."""

NO_TLS: Final = b"TLS is neither read nor passed on here; connect without it (--ssl-mode=DISABLED, --skip-ssl)"


@dataclass(slots=True)
class Asked:
    """A request under judgement, and what is due of the server once it is allowed. `text`, after `before`: a statement.
    `pending`: what user and database are once the server agrees."""

    request: Request
    awaiting: Awaiting
    statement: Statement | None = None
    before: bytes = b""
    text: bytes = b""
    bound: Bound | None = None
    binary: bool = False
    pending: dict[str, str] | None = None


class ClientHalf:
    """Parser of the client's side. `asked` is the Request that waits for its verdict."""

    def __init__(self, conversation: Conversation) -> None:
        self.asked: Asked | None = None
        self._conversation = conversation
        self._packets = Packets(Side.CLIENT)
        self._exchanges = 0
        self._offered = 0
        self._in_tls = False
        self._unread = False  # the client writes in a character set that cannot be read

    def offer(self, capabilities: int) -> None:
        """What the server offers, and is read here."""
        self._offered = capabilities

    def writes_in(self, character_set: str) -> None:
        """The server says what the client writes in from now on."""
        fault = fault_of(b"SET NAMES " + character_set.encode("ascii", "replace"))
        self._unread = bool(fault)

    def receive(self, data: bytes) -> None:
        """Keeps bytes until they are read. Raises LimitExceeded when too many come while an answer is due."""
        self._packets.feed(data)
        if self._packets.size > MAX_AHEAD:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_AHEAD} bytes were sent before the answer to what came before")

    def advance(self) -> None:
        """Reads on until a Request has to be judged or bytes are missing. Raises ProtocolError, LimitExceeded."""
        while self.asked is None and self._read():
            pass

    def _read(self) -> bool:
        conversation = self._conversation
        state = conversation.client
        if state is Client.NEW:
            self._ask("Connect", "", b"", Awaiting.GREETING)
            return True
        if state is Client.ANSWERING:
            return self._log_in()
        if state is Client.PROVING:
            return self._prove()
        return state is Client.READY and conversation.awaiting is Awaiting.NOTHING and self._command()

    def _log_in(self) -> bool:
        conversation = self._conversation
        raw = self._packets.message(conversation.sequence, MAX_LOGIN)
        if raw is None:
            return False
        login = handshake.read_login(raw, self._offered)
        if not is_read(login.collation):
            raise ProtocolError(Side.CLIENT, f"collation {login.collation} is not inspected; use utf8mb4")
        if login.capabilities & handshake.SSL and login.is_ssl_request is self._in_tls:
            raise ProtocolError(Side.CLIENT, "TLS is asked for inside TLS, or said to be there where it is not")
        conversation.sequence = conversation.sequence + 1 & 0xFF
        if login.is_ssl_request:
            self._in_tls = True
            refused = error(ACCESS_DENIED[0], ACCESS_DENIED[1].encode(), NO_TLS)
            decline = message_of(refused, conversation.sequence)
            begun = self._packets.take_up_to(self._packets.size)
            conversation.emit(StartTls(login.raw, decline=decline, client=begun))
            return True
        conversation.capabilities = login.capabilities
        conversation.user, conversation.database = login.user, login.database
        self._ask("Login", login.described, login.raw, Awaiting.LOGIN)
        return True

    def _prove(self) -> bool:
        """What authentication plugins ask for: passed on, and never recorded."""
        conversation = self._conversation
        raw = self._packets.message(conversation.sequence, MAX_LOGIN)
        if raw is None:
            return False
        conversation.sequence = conversation.sequence + 1 & 0xFF
        conversation.forward(Side.CLIENT, raw)
        return True

    def _command(self) -> bool:
        raw = self._packets.message(0, MAX_COMMAND)
        if raw is None:
            return False
        conversation = self._conversation
        conversation.sequence = count_of(raw) & 0xFF
        payload = payload_of(raw)
        if not payload:
            raise ProtocolError(Side.CLIENT, "a command without a word")
        take = _TAKE.get(payload[0])
        if take is None:
            name = _REFUSED.get(payload[0], f"command {payload[0]:#04x}")
            self._ask(name, "", raw, Awaiting.DONE, fault=f"{name} is not inspected")
        else:
            take(self, payload, raw)
        return True

    def _ask(
        self,
        operation: str,
        text: str,
        raw: bytes,
        awaiting: Awaiting,
        *,
        params: tuple[str | None, ...] = (),
        facts: dict[str, str] | None = None,
        fault: str = "",
    ) -> Asked:
        conversation = self._conversation
        self._exchanges += 1
        said = {"user": conversation.user, "database": conversation.database}
        about = {name: value for name, value in said.items() if value} | (facts or {})
        request = Request(self._exchanges, operation, text, raw, params, about, fault=fault)
        self.asked = Asked(request, awaiting)
        conversation.emit(request)
        return self.asked

    def _statement_fault(self, text: bytes) -> str:
        if self._unread:
            return "statements are written in a character set that is not inspected; use utf8mb4"
        return fault_of(text)

    def _facts(self, text: bytes) -> dict[str, str]:
        conversation = self._conversation
        facts = facts_of(text, conversation.database, conversation.user)
        if conversation.in_the_dark and (not text.isascii() or (b'"' in text and not conversation.tells_quotes)):
            return unread(facts, "what reads its quotes may have been set by what was not understood")
        return facts if not conversation.misread else misread(facts, text, conversation.misread)

    def _query(self, payload: bytes, raw: bytes) -> None:
        reader, bound = Reader(payload, Side.CLIENT, 1), None
        if self._conversation.capabilities & handshake.QUERY_ATTRIBUTES:
            bound = read_attributes(reader, payload)
        params = bound.shown if bound is not None else ()
        before, text = payload[: reader.pos], reader.rest()
        fault = self._statement_fault(text)
        asked = self._ask(
            "Query", decode(text), raw, Awaiting.RESULT, params=params, facts=self._facts(text), fault=fault
        )
        asked.before, asked.text, asked.bound = before, text, bound

    def _prepare(self, payload: bytes, raw: bytes) -> None:
        text = payload[1:]
        facts = self._facts(text)
        fault = self._statement_fault(text)
        asked = self._ask("Prepare", decode(text), raw, Awaiting.PREPARED, facts=facts, fault=fault)
        asked.before, asked.text = payload[:1], text
        asked.statement = Statement(text, facts)

    def _prepared(self, payload: bytes) -> Statement | None:
        return self._conversation.statements.get(Reader(payload, Side.CLIENT, 1).integer(4))

    def _unknown(self, operation: str, raw: bytes) -> None:
        """The server would not know it either: what it prepared, it told."""
        self._ask(operation, "", raw, Awaiting.DONE, fault="the prepared statement is not known")

    def _execute(self, payload: bytes, raw: bytes) -> None:
        statement = self._prepared(payload)
        if statement is None:
            self._unknown("Execute", raw)
            return
        attributes = bool(self._conversation.capabilities & handshake.QUERY_ATTRIBUTES)
        bound = read_execution(payload, statement, attributes)
        text = decode(statement.text)
        asked = self._ask("Execute", text, raw, Awaiting.RESULT, params=bound.shown, facts=statement.facts)
        asked.statement, asked.bound, asked.binary = statement, bound, True

    def _fetch(self, payload: bytes, raw: bytes) -> None:
        """Rows of a statement that was executed before, whose parameters stand there."""
        statement = self._prepared(payload)
        if statement is None or statement.layout is None:
            self._unknown("Fetch", raw)
            return
        asked = self._ask("Fetch", decode(statement.text), raw, Awaiting.ROWS, facts=statement.facts)
        asked.statement, asked.binary = statement, True

    def _send_long_data(self, payload: bytes, raw: bytes) -> None:
        """A piece of a parameter: it waits for the execution that it belongs to."""
        statement, reader = self._prepared(payload), Reader(payload, Side.CLIENT, 5)
        index = reader.integer(2)
        if statement is not None:
            self._conversation.statements.send_ahead(statement, index, reader.rest(), raw)

    def _reset_statement(self, payload: bytes, raw: bytes) -> None:
        statement = self._prepared(payload)
        if statement is None:
            self._unknown("Reset", raw)
            return
        self._conversation.statements.take_ahead(statement)
        self._carry_out(raw, Awaiting.DONE)

    def _close_statement(self, payload: bytes, raw: bytes) -> None:
        self._conversation.statements.close(Reader(payload, Side.CLIENT, 1).integer(4))
        self._conversation.forward(Side.CLIENT, raw)

    def _init_db(self, payload: bytes, raw: bytes) -> None:
        name = decode(payload[1:])
        asked = self._ask("InitDB", name, raw, Awaiting.DONE, facts={"database": name})
        asked.pending = {"database": name}

    def _change_user(self, payload: bytes, raw: bytes) -> None:
        conversation = self._conversation
        capabilities, reader = conversation.capabilities, Reader(payload, Side.CLIENT, 1)
        user = decode(reader.to_nul())
        if capabilities & handshake.SECURE_CONNECTION:
            reader.take(reader.integer(1))
        else:
            reader.to_nul()
        database = decode(reader.to_nul_or_end())
        if reader.left and not is_read(reader.integer(2)):
            raise ProtocolError(Side.CLIENT, "its collation is not inspected; use utf8mb4")
        if reader.left and capabilities & handshake.PLUGIN_AUTH:
            reader.to_nul_or_end()
        attributes = {}
        if reader.left and capabilities & handshake.CONNECT_ATTRS:
            attributes = handshake.read_attributes(reader)
        named = {"user": user, "database": database}
        text = handshake.describe(user, database, attributes)
        self._ask("ChangeUser", text, raw, Awaiting.LOGIN, facts=named).pending = named

    def _field_list(self, payload: bytes, raw: bytes) -> None:
        table = Reader(payload, Side.CLIENT, 1).to_nul_or_end()
        text = b"SHOW COLUMNS FROM `" + table.replace(b"`", b"``") + b"`"
        self._ask("FieldList", decode(text), raw, Awaiting.FIELDS, facts=self._facts(text))

    def _kill(self, payload: bytes, raw: bytes) -> None:
        text = b"KILL %d" % Reader(payload, Side.CLIENT, 1).integer(4)
        self._ask("ProcessKill", decode(text), raw, Awaiting.DONE, facts=self._facts(text))

    def _carry_out(self, raw: bytes, awaiting: Awaiting) -> None:
        self._conversation.forward(Side.CLIENT, raw)
        self._conversation.expect(awaiting, None)

    def _ping(self, payload: bytes, raw: bytes) -> None:
        Reader(payload, Side.CLIENT, 1).end()
        self._carry_out(raw, Awaiting.DONE)

    def _set_option(self, payload: bytes, raw: bytes) -> None:
        reader = Reader(payload, Side.CLIENT, 1)
        reader.take(2)
        reader.end()
        self._carry_out(raw, Awaiting.DONE)

    def _statistics(self, payload: bytes, raw: bytes) -> None:
        Reader(payload, Side.CLIENT, 1).end()
        self._carry_out(raw, Awaiting.STATISTICS)

    def _reset_connection(self, payload: bytes, raw: bytes) -> None:
        Reader(payload, Side.CLIENT, 1).end()
        self._conversation.statements.clear()
        self._carry_out(raw, Awaiting.DONE)

    def _quit(self, payload: bytes, raw: bytes) -> None:
        Reader(payload, Side.CLIENT, 1).end()
        self._conversation.client = Client.CLOSED
        self._conversation.forward(Side.CLIENT, raw)


_TAKE: Final[dict[int, Callable[[ClientHalf, bytes, bytes], None]]] = {
    0x01: ClientHalf._quit,
    0x02: ClientHalf._init_db,
    0x03: ClientHalf._query,
    0x04: ClientHalf._field_list,
    0x09: ClientHalf._statistics,
    0x0C: ClientHalf._kill,
    0x0E: ClientHalf._ping,
    0x11: ClientHalf._change_user,
    0x16: ClientHalf._prepare,
    0x17: ClientHalf._execute,
    0x18: ClientHalf._send_long_data,
    0x19: ClientHalf._close_statement,
    0x1A: ClientHalf._reset_statement,
    0x1B: ClientHalf._set_option,
    0x1C: ClientHalf._fetch,
    0x1F: ClientHalf._reset_connection,
}

_REFUSED: Final = {
    0x05: "COM_CREATE_DB",
    0x06: "COM_DROP_DB",
    0x07: "COM_REFRESH",
    0x08: "COM_SHUTDOWN",
    0x0A: "COM_PROCESS_INFO",
    0x0D: "COM_DEBUG",
    0x12: "COM_BINLOG_DUMP",
    0x13: "COM_TABLE_DUMP",
    0x15: "COM_REGISTER_SLAVE",
    0x1E: "COM_BINLOG_DUMP_GTID",
    0x20: "COM_CLONE",
    0xFA: "COM_STMT_BULK_EXECUTE",
    0xFE: "COM_MULTI",
}
"""What replicates, administers, or is of long ago: refused, and so is every number that is not known."""
