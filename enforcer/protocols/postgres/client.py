"""Step 4 of 6, inspect: the client's half of a PostgreSQL connection.

Gets the client's bytes; hands on Requests to be judged (startup, cancellation, Query, Parse, Bind, and an Execute
of a portal whose exchange is over), and forwards what only carries those out. Nothing that needs a verdict, and
nothing behind it, leaves before the verdict.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Reply, Request, StartTls, Text
from enforcer.protocols.postgres import messages, startup
from enforcer.protocols.postgres.conversation import COPY_IN, Awaiting, Client, Conversation, Outstanding
from enforcer.protocols.postgres.copying import media_of
from enforcer.protocols.postgres.framing import Frames
from enforcer.protocols.postgres.names import Exchange, Portal, Statement
from enforcer.protocols.postgres.results import DIALECT, Kind
from enforcer.protocols.postgres.values import check_encoding, decode, encoding_of, parameter_text, refused_encoding
from enforcer.protocols.statement_facts import DOUBT, FUNCTION, OPERATION, TABLE, facts_of, illegible
from enforcer.sql.functions import ADMIN
from enforcer.sql.understanding import UNKNOWN

MAX_MESSAGE: Final = 16 << 20
"""Bytes of a client message, which is held whole for its verdict. PostgreSQL allows 1 GiB; statements and parameters
over 16 MiB belong into COPY, which streams."""

MAX_AHEAD: Final = MAX_MESSAGE + (1 << 20)
"""Bytes that may pile up behind a request that waits for its verdict: the next message, and what was on its way."""

MAX_PASSWORD: Final = 65_535
"""Bytes; PostgreSQL's own PG_MAX_AUTH_TOKEN_LENGTH."""

STREAMED_FROM: Final = 64 << 10
"""CopyData of more bytes goes on in pieces instead of being gathered first."""

_COMMANDS: Final = b"QPBEDCHSF"
_LO_OPEN: Final = 952
_TO_READ: Final = (0x40000).to_bytes(4, "big")
"""lo_open's second argument, in binary: INV_READ."""
_READS: Final = frozenset({953, 954, 956, 958, 3170, 3171})
"""lo_close, loread, lo_lseek, lo_tell, lo_lseek64, lo_tell64: OIDs of the server's own functions never change."""

_COPY_FROM: Final = re.compile(r"\s*COPY\b.*\bFROM\s+STDIN\b", re.IGNORECASE | re.DOTALL)

UNBOUND: Final = (
    "its password is bound to one TLS connection and the enforcer makes that two; "
    "set channel_binding=disable for the client (PGCHANNELBINDING=disable), or have a rule pass tls unread"
)

UNSETTLED: Final = (
    "a statement that is not ASCII, in a batch behind what may set the client's encoding; end the batch between them"
)

_UNSETTLING: Final = re.compile(r"encoding|\bnames\b|\s*(?:fetch|move|execute)\b", re.IGNORECASE)
"""Besides what may do anything: what sets an encoding by its name, and what carries out what was said before."""

GIVEN_UP: Final = messages.message(b"f", b"the client gave up\x00")
"""CopyFail where what the client says is masked: why it gives up often quotes the line that it could not read."""

REPLICATION: Final = "replication connections carry whole databases that nobody can read here"


def _each(state: Client, codes: bytes, then: Client) -> dict[tuple[Client, int], Client]:
    return {(state, code): then for code in codes}


NEXT: Final[dict[tuple[Client, int], Client]] = {
    **_each(Client.STARTING, b"p", Client.STARTING),
    **_each(Client.STARTING, b"X", Client.CLOSED),
    **_each(Client.READY, _COMMANDS, Client.READY),
    **_each(Client.READY, b"X", Client.CLOSED),
    **_each(Client.COPYING, b"dHS", Client.COPYING),
    **_each(Client.COPYING, b"cf", Client.READY),
    **_each(Client.COPYING, b"X", Client.CLOSED),
    **_each(Client.COPY_BROKEN, b"d", Client.COPY_BROKEN),
    **_each(Client.COPY_BROKEN, b"cf", Client.READY),
    **_each(Client.COPY_BROKEN, _COMMANDS, Client.READY),
    **_each(Client.COPY_BROKEN, b"X", Client.CLOSED),
    **_each(Client.DISCARDING, b"QPBEDCHFdcf", Client.DISCARDING),
    **_each(Client.DISCARDING, b"S", Client.READY),
    **_each(Client.DISCARDING, b"X", Client.CLOSED),
}
"""What the client may send, and what it may send then; an absent key is a protocol error."""


@dataclass(slots=True)
class Asked:
    """A request under judgement, and what joins the line of unanswered messages once it is allowed."""

    request: Request
    item: Outstanding


def _text_in(raw: bytes) -> bytes:
    """The statement in a Query or Parse."""
    return messages.read_parse(raw)[1] if raw[:1] == b"P" else messages.read_string(raw, Side.CLIENT)


def _unsettles(text: str, facts: dict[str, str]) -> bool:
    operation = facts.get(OPERATION, "")
    return ADMIN in operation or UNKNOWN in operation or FUNCTION in facts or _UNSETTLING.search(text) is not None


class ClientHalf:
    """Parser of the client's side. `asked` is the Request that waits for its verdict."""

    def __init__(self, conversation: Conversation) -> None:
        self.asked: Asked | None = None
        self._conversation = conversation
        self._frames = Frames(Side.CLIENT)
        self._waiting = b""  # a Query or Parse that is read once the server told what encoding it is in
        self._passing = 0  # bytes of a long CopyData still to come
        self._copied: Exchange | None = None  # whose data they are, where those are masked
        self._exchanges = 0
        self._identity: dict[str, str] = {}
        self._encryption_asked: set[int] = set()

    def receive(self, data: bytes) -> None:
        """Keeps bytes until they are read. Raises LimitExceeded when too many come while a request is judged."""
        self._frames.feed(data)
        if (self.asked is not None or self._waiting) and self._frames.unread > MAX_AHEAD:
            raise LimitExceeded(Side.CLIENT, f"over {MAX_AHEAD} bytes were sent while a request is judged")

    def advance(self) -> None:
        """Reads on until a Request has to be judged or bytes are missing. Raises ProtocolError, LimitExceeded."""
        while self.asked is None and self._read():
            pass

    def _read(self) -> bool:
        """One message; False where its bytes are not all there."""
        conversation, frames = self._conversation, self._frames
        if self._passing:
            return self._pass_on()
        if self._waiting:
            return self._wait(self._waiting)
        state = conversation.client
        if state in (Client.OPENING, Client.CANCELLING):
            return self._open()
        header = frames.header()
        if header is None:
            return False
        code, size = header
        then = NEXT.get((state, code))
        if then is None and code in b"dcf" and self._runs_ahead():
            state = conversation.client = Client.COPYING
            then = NEXT[state, code]
        if then is None:
            raise ProtocolError(Side.CLIENT, f"message {chr(code)!a} is not inspected while {state.name.lower()}")
        if state is Client.COPYING and code == ord("d") and size > STREAMED_FROM:
            self._passing = size
            self._copied = self._copying()
            if self._copied is not None:
                frames.take_up_to(messages.BODY)
                self._passing -= messages.BODY
            return self._pass_on()
        raw = frames.take(size, MAX_PASSWORD if code == ord("p") else MAX_MESSAGE)
        if raw is None:
            return False
        conversation.client = then
        if code in b"pX":
            if conversation.unbound and messages.claims_channel_binding(raw):
                raise ProtocolError(Side.CLIENT, UNBOUND)
            conversation.forward(Side.CLIENT, raw)
        elif state is Client.DISCARDING:
            if then is not state:
                self._end_discarded(raw)
        elif state is Client.COPYING:
            self._copy(code, raw)
        elif code in b"QP" and conversation.unsettled and not _text_in(raw).isascii():
            return self._wait(raw)
        elif code not in b"dcf":
            _TAKE[code](self, raw)
        return True

    def _wait(self, raw: bytes) -> bool:
        """A text that reads otherwise in other encodings, behind something that may have set one: it waits for what the
        server tells before it is ready. Within one batch there is nothing to wait for."""
        conversation = self._conversation
        if conversation.unsettled_here:
            raise ProtocolError(Side.CLIENT, UNSETTLED)
        self._waiting = raw if conversation.unsettled else b""
        if not self._waiting:
            _TAKE[raw[0]](self, raw)
        return not self._waiting

    def _runs_ahead(self) -> bool:
        """Are these the data of a COPY that the server has not yet asked for? Some clients do not wait."""
        waiting = self._conversation.outstanding
        if self._conversation.client is not Client.READY or not waiting:
            return False
        item = waiting[-1]
        statement = item.statement if item.awaiting is Awaiting.QUERY else None
        item.ahead = statement is not None and _COPY_FROM.match(statement.text) is not None
        return item.ahead

    def _pass_on(self) -> bool:
        piece = self._frames.take_up_to(self._passing)
        self._passing -= len(piece)
        if not piece:
            return False
        if self._copied is None:
            self._conversation.forward(Side.CLIENT, piece)
        else:
            self._emit_copied(self._copied, piece)
        return True

    def _copying(self) -> Exchange | None:
        """Whose data are being copied, where those are masked."""
        item = next((one for one in self._conversation.outstanding if one.ahead or one.awaiting in COPY_IN), None)
        exchange = item.exchange if item is not None else None
        return exchange if exchange is not None and exchange.rewritten else None

    def _emit_copied(self, exchange: Exchange, data: bytes, *, final: bool = False) -> None:
        raw = messages.copy_data(data)
        self._conversation.emit(Text(exchange.number, "copy", data, final=final, raw=raw, side=Side.CLIENT))

    def _open(self) -> bool:
        frames = self._frames
        if self._conversation.client is Client.CANCELLING and frames.has(1):
            raise ProtocolError(Side.CLIENT, "bytes follow a CancelRequest")
        if not frames.has(startup.STARTUP.size):
            return False
        length, code = startup.STARTUP.unpack_from(frames.data, frames.pos)
        startup.check(length, code)
        raw = frames.take(length, startup.MAX_STARTUP_PACKET)
        if raw is None:
            return False
        if code == startup.CANCEL_REQUEST:
            self._ask("CancelRequest", "", raw, Outstanding(Awaiting.CANCEL))
        elif code in startup.SMALLEST:
            if code in self._encryption_asked:
                raise ProtocolError(Side.CLIENT, "encryption is requested twice")
            self._encryption_asked.add(code)
            self._refuse_stuffed()
            if code == startup.SSL_REQUEST:
                self._conversation.emit(StartTls(ask=raw, yes=b"S", no=b"N", accept=b"S", decline=b"N"))
                return False
            self._conversation.emit(Reply(b"N"))
        else:
            parameters = startup.read_parameters(raw)
            check_encoding(parameters.get("client_encoding", ""), Side.CLIENT)
            user = parameters["user"]
            self._identity = {"user": user, "database": parameters.get("database") or user}
            fault = REPLICATION if startup.replicates(parameters) else ""
            facts = {OPERATION: ADMIN} if startup.administers(parameters) else {}
            item = Outstanding(Awaiting.STARTUP)
            self._ask("Startup", startup.describe(parameters), raw, item, facts=facts, fault=fault)
        return True

    def _refuse_stuffed(self) -> None:
        """What follows a question for encryption in clear, before its answer, might be taken for what is encrypted."""
        if self._frames.unread:
            raise ProtocolError(Side.CLIENT, "bytes follow a request for encryption before its answer")

    def _ask(
        self,
        operation: str,
        text: str,
        raw: bytes,
        item: Outstanding,
        *,
        params: tuple[str | None, ...] = (),
        facts: dict[str, str] | None = None,
        fault: str = "",
        media: str = "",
    ) -> None:
        self._exchanges += 1
        about = self._identity | (facts or {})
        request = Request(self._exchanges, operation, text, raw, params, about, fault=fault, media=media)
        self.asked = Asked(request, item)
        self._conversation.end_block()
        self._conversation.events.append(request)

    def _statement(self, query: bytes, oids: tuple[int, ...] = ()) -> Statement:
        """What a text means when it is sent now."""
        text = decode(query)
        carried_out, queries = self._conversation.definitions.behind(text)
        encoding = encoding_of(query)
        obscure = illegible(text, DIALECT) if encoding else {}
        if obscure:
            return Statement(text, len(query), self._identity | obscure | encoding, oids, unsettles=True)
        facts = facts_of(carried_out, DIALECT, **self._identity) | encoding
        return Statement(text, len(query), facts, oids, queries=queries, unsettles=_unsettles(text, facts))

    def _now(self, statement: Statement) -> Statement:
        """What a statement means now, where that hangs on names; itself where it means what it did."""
        if statement.queries == (statement.text,) or DOUBT in statement.facts:
            return statement
        carried_out, queries = self._conversation.definitions.behind(statement.text)
        if queries == statement.queries:
            return statement
        facts = statement.facts | facts_of(carried_out, DIALECT, **self._identity)
        unsettles = _unsettles(statement.text, facts)
        return Statement(statement.text, statement.size, facts, statement.oids, statement.fields, queries, unsettles)

    def _by_sql(self, kind: Kind, name: bytes) -> Statement:
        """What a name means that SQL gave its meaning, or may have. One that it knows nothing of is none of its own:
        then the server will say so."""
        quoted = name.replace(b'"', b'""')
        return self._statement(b'%b "%b"' % (b"EXECUTE" if kind is Kind.STATEMENT else b"FETCH", quoted))

    def _query(self, raw: bytes) -> None:
        statement = self._statement(messages.read_string(raw, Side.CLIENT))
        item = Outstanding(Awaiting.QUERY, statement=statement)
        fault = refused_encoding(statement.text)
        media = media_of(statement.text)
        self._ask("Query", statement.text, raw, item, facts=statement.facts, fault=fault, media=media)

    def _parse(self, raw: bytes) -> None:
        name, query, oids = messages.read_parse(raw)
        statement = self._statement(query, oids)
        names = self._conversation.statements
        item = Outstanding(Awaiting.PARSE, statement=statement, names=names, name=name)
        fault = refused_encoding(statement.text)
        media = media_of(statement.text)
        self._ask("Parse", statement.text, raw, item, facts=statement.facts, fault=fault, media=media)

    def _bind(self, raw: bytes) -> None:
        bind = messages.read_bind(raw)
        statement = self._conversation.statements.latest(bind.statement)
        if statement is None or self._conversation.definitions.by_sql(Kind.STATEMENT, bind.statement):
            statement = self._by_sql(Kind.STATEMENT, bind.statement)
        statement = self._now(statement)
        count = len(bind.values)
        codes = messages.each_format(bind.parameter_formats, count)
        oids = statement.oids + (0,) * (count - len(statement.oids))
        params = tuple(map(parameter_text, bind.values, codes, oids))
        portal = Portal(bind.portal, statement, bind.result_formats)
        item = Outstanding(Awaiting.BIND, portal=portal, names=self._conversation.portals, name=bind.portal)
        self._ask("Execute", statement.text, raw, item, params=params, facts=statement.facts)

    def _function_call(self, raw: bytes) -> None:
        """A function by its OID: nobody knows what it does, but for those by which libpq reads large objects."""
        call = messages.read_function_call(raw)
        codes = messages.each_format(call.formats, len(call.values))
        params = tuple(parameter_text(value, code, 0) for value, code in zip(call.values, codes, strict=True))
        reads = call.oid in _READS or (call.oid == _LO_OPEN and call.values[1:] == (_TO_READ,))
        facts = {OPERATION: "read", TABLE: "pg_largeobject"} if reads else {OPERATION: "unknown"}
        statement = Statement(f"function {call.oid}", facts=facts, unsettles=not reads)
        item = Outstanding(Awaiting.FUNCTION, statement=statement, binary=call.result_format == 1)
        self._ask("FunctionCall", statement.text, raw, item, params=params, facts=statement.facts)

    def _execute(self, raw: bytes) -> None:
        """Carries out a portal that was judged at Bind. One whose exchange is over (fetched from in an earlier
        round trip), or that SQL's DECLARE opened, is judged anew; its parameters stand with its Bind."""
        name = messages.read_execute(raw)
        portal = self._conversation.portals.latest(name)
        if portal is None or self._conversation.definitions.by_sql(Kind.CURSOR, name):
            portal = Portal(name, self._by_sql(Kind.CURSOR, name), ())
        statement = self._now(portal.statement)
        if statement is not portal.statement:
            portal = Portal(name, statement, portal.formats)
        item = Outstanding(Awaiting.EXECUTE, portal.exchange, portal)
        judged = portal.exchange is not None and not portal.exchange.done
        if not judged and not self._conversation.skipping:  # what a failed server skips needs no verdict
            self._ask("Execute", portal.statement.text, raw, item, facts=portal.statement.facts)
        else:
            self._carry_out(raw, item)

    def _describe(self, raw: bytes) -> None:
        kind, name = messages.read_target(raw)
        if kind == ord("S"):
            statement = self._conversation.statements.latest(name)
            self._carry_out(raw, Outstanding(Awaiting.STATEMENT, statement=statement))
        else:
            portal = self._conversation.portals.latest(name)
            exchange = portal.exchange if portal is not None else None
            self._carry_out(raw, Outstanding(Awaiting.PORTAL, exchange, portal))

    def _close(self, raw: bytes) -> None:
        kind, name = messages.read_target(raw)
        conversation = self._conversation
        if kind == ord("S"):
            conversation.statements.propose(name, None)
            self._carry_out(raw, Outstanding(Awaiting.CLOSE, names=conversation.statements, name=name))
        else:
            conversation.portals.propose(name, None)
            self._carry_out(raw, Outstanding(Awaiting.CLOSE, names=conversation.portals, name=name))

    def _carry_out(self, raw: bytes, item: Outstanding) -> None:
        self._conversation.unsynced = True
        self._conversation.executed |= item.awaiting is Awaiting.EXECUTE
        self._conversation.forward(Side.CLIENT, raw)
        self._conversation.expect(item)

    def _flush(self, raw: bytes) -> None:
        self._conversation.forward(Side.CLIENT, raw)

    def _sync(self, raw: bytes) -> None:
        self._conversation.unsynced = self._conversation.executed = False
        self._conversation.forward(Side.CLIENT, raw)
        self._conversation.expect(Outstanding(Awaiting.SYNC))

    def _copy(self, code: int, raw: bytes) -> None:
        """Data of a COPY FROM STDIN. The server ignores Flush and Sync until the copy is over."""
        copied = self._copying() if code in b"dcf" else None
        if copied is not None:
            self._emit_copied(copied, raw[messages.BODY :] if code == ord("d") else b"", final=code != ord("d"))
            raw = GIVEN_UP if code == ord("f") else raw
        if copied is None or code != ord("d"):
            self._conversation.forward(Side.CLIENT, raw)
        if code not in b"cf":
            return
        item = next(one for one in self._conversation.outstanding if one.ahead or one.awaiting in COPY_IN)
        item.ended = True
        item.awaiting = COPY_IN.get(item.awaiting, item.awaiting)

    def _end_discarded(self, sync: bytes) -> None:
        """The Sync that ends a refused batch: the server's to answer if any of the batch went there, else ours."""
        conversation = self._conversation
        if conversation.unsynced or conversation.skipping:
            self._sync(sync)
        else:
            conversation.expect(Outstanding(Awaiting.LOCAL, ready=True))


_TAKE: Final[dict[int, Callable[[ClientHalf, bytes], None]]] = {
    ord("Q"): ClientHalf._query,
    ord("P"): ClientHalf._parse,
    ord("B"): ClientHalf._bind,
    ord("E"): ClientHalf._execute,
    ord("D"): ClientHalf._describe,
    ord("C"): ClientHalf._close,
    ord("H"): ClientHalf._flush,
    ord("S"): ClientHalf._sync,
    ord("F"): ClientHalf._function_call,
}
