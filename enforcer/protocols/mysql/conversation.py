"""Step 4 of 6, inspect: what both halves of a MySQL connection share.

Gets what was asked and what was answered; hands on events in the order in which each side must see them. Holds the
table of what the server may answer when. One command is under way at a time: the next is read when its answer is
complete.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome
from enforcer.protocols.mysql.packets import renumbered
from enforcer.protocols.mysql.results import ANSI_QUOTES, NO_BACKSLASHES, Layout
from enforcer.protocols.mysql.statements import Statement, Statements


class Client(Enum):
    """What the client may send next."""

    NEW = auto()  # the connection itself is to be judged
    SILENT = auto()  # the server greets first
    ANSWERING = auto()  # a login, or a request for TLS before it
    PROVING = auto()  # what the authentication plugins ask for
    READY = auto()  # commands
    CLOSED = auto()


class Awaiting(Enum):
    """What is due of the server."""

    NOTHING = auto()
    GREETING = auto()
    LOGIN = auto()
    RESULT = auto()
    COLUMNS = auto()
    COLUMNS_END = auto()
    ROWS = auto()
    PREPARED = auto()
    PARAMETERS = auto()
    PARAMETERS_END = auto()
    FIELDS = auto()
    DONE = auto()
    STATISTICS = auto()


class Said(Enum):
    """What a message of the server is. OK may end rows as well; DEFINITION_LAST is the last column's or parameter's."""

    GREETING = auto()
    OK = auto()
    ERROR = auto()
    EOF = auto()
    PROOF = auto()  # authentication goes on
    LOCAL_INFILE = auto()
    COUNT = auto()
    DEFINITION = auto()
    DEFINITION_LAST = auto()
    ROW = auto()
    STATEMENT = auto()
    TEXT = auto()


ANSWERS: Final[dict[tuple[Awaiting, Said], Awaiting]] = {
    (Awaiting.GREETING, Said.GREETING): Awaiting.NOTHING,
    (Awaiting.GREETING, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.LOGIN, Said.PROOF): Awaiting.LOGIN,
    (Awaiting.LOGIN, Said.OK): Awaiting.NOTHING,
    (Awaiting.LOGIN, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.RESULT, Said.OK): Awaiting.NOTHING,
    (Awaiting.RESULT, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.RESULT, Said.LOCAL_INFILE): Awaiting.RESULT,
    (Awaiting.RESULT, Said.COUNT): Awaiting.COLUMNS,
    (Awaiting.COLUMNS, Said.DEFINITION): Awaiting.COLUMNS,
    (Awaiting.COLUMNS, Said.DEFINITION_LAST): Awaiting.COLUMNS_END,
    (Awaiting.COLUMNS_END, Said.EOF): Awaiting.ROWS,
    (Awaiting.ROWS, Said.ROW): Awaiting.ROWS,
    (Awaiting.ROWS, Said.EOF): Awaiting.NOTHING,
    (Awaiting.ROWS, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.PREPARED, Said.STATEMENT): Awaiting.PARAMETERS,
    (Awaiting.PREPARED, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.PARAMETERS, Said.DEFINITION): Awaiting.PARAMETERS,
    (Awaiting.PARAMETERS, Said.DEFINITION_LAST): Awaiting.PARAMETERS_END,
    (Awaiting.PARAMETERS_END, Said.EOF): Awaiting.PARAMETERS,
    (Awaiting.FIELDS, Said.DEFINITION): Awaiting.FIELDS,
    (Awaiting.FIELDS, Said.EOF): Awaiting.NOTHING,
    (Awaiting.FIELDS, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.DONE, Said.OK): Awaiting.NOTHING,
    (Awaiting.DONE, Said.EOF): Awaiting.NOTHING,
    (Awaiting.DONE, Said.ERROR): Awaiting.NOTHING,
    (Awaiting.STATISTICS, Said.TEXT): Awaiting.NOTHING,
}
"""What the server may say, and what is due then; an absent key is a protocol error. Beside it: an end that announces
more results leads back to RESULT, an end of columns that announces a cursor to NOTHING, PARAMETERS is left when all
definitions of a statement are there, and with CLIENT_DEPRECATE_EOF nothing stands between definitions and rows."""


@dataclass(slots=True, eq=False)
class Exchange:
    """One judged request on its way. `rows`: returned or affected so far; `counted`: rows of the result under way."""

    number: int
    masked: bool
    rows: int | None = None
    counted: int = 0
    status: str = ""
    failed: bool = False

    def add_rows(self, count: int) -> None:
        self.rows = (self.rows or 0) + count


class Conversation:
    """State of one connection, and the events that wait to be handed on.

    `sequence`: number of the packet that is due next, of either side. `shift`: how much higher the numbers are that the
    client sees, in the answer under way. `events` come with the number that the client is due after each, and with the
    layout of the result under way. `answered`: results of the command that there were before that one."""

    def __init__(self) -> None:
        self.client = Client.NEW
        self.awaiting = Awaiting.NOTHING
        self.events: deque[tuple[Event, int, Layout | None]] = deque()
        self.capabilities = 0
        self.sequence = 0
        self.shift = 0
        self.exchange: Exchange | None = None
        self.last_masked: Exchange | None = None
        self.statements = Statements()
        self.statement: Statement | None = None  # whose answer is due, where it is a prepared one's
        self.layout: Layout | None = None
        self.answered = 0
        self.binary = False
        self.text = b""  # the statement whose answer is due, and whether it was understood
        self.understood = False
        self.certain = False  # does it what its words say, and calls no functions but the server's own?
        self.version = ""
        self.misread = b""  # characters that mean something else to the server, by its sql_mode, than they are read as
        self.in_the_dark = False  # something was carried out that may have set how the client is read, untold
        self.database = ""
        self.user = ""
        self.pending: dict[str, str] = {}  # what `user` and `database` become when the server agrees
        self._block: list[bytes] = []
        self._block_side = Side.CLIENT

    def forward(self, side: Side, raw: bytes) -> None:
        """`raw` goes on as it is; neighbours become one event."""
        if self._block and self._block_side is not side:
            self.end_block()
        self._block_side = side
        self._block.append(raw)

    def to_client(self, raw: bytes) -> None:
        """A whole message of the server's."""
        self.forward(Side.SERVER, self.numbered(raw))

    def numbered(self, raw: bytes) -> bytes:
        """`raw` as the client has to see it."""
        return renumbered(raw, raw[3] + self.shift) if self.shift else raw

    def emit(self, event: Event) -> None:
        self.end_block()
        self.events.append((event, self.sequence + self.shift, self.layout))

    def end_block(self) -> None:
        """Hands on what `forward` gathered."""
        if self._block:
            block = Forward(self._block_side, b"".join(self._block))
            self.events.append((block, self.sequence + self.shift, self.layout))
            self._block.clear()

    def expect(self, awaiting: Awaiting, exchange: Exchange | None) -> None:
        """A command goes upstream; its answer begins with the next number."""
        self.awaiting = awaiting
        self.exchange = exchange
        self.shift = 0
        self.answered = 0

    def finish(self, status: str = "", *, failed: bool = False) -> None:
        """Nothing more is due; the exchange, if it was one, is over."""
        exchange, self.exchange = self.exchange, None
        self.awaiting = Awaiting.NOTHING
        self.shift = 0
        if exchange is not None:
            told = status or exchange.status
            self.emit(Outcome(exchange.number, told, exchange.rows, failed or exchange.failed))

    @property
    def tells_quotes(self) -> bool:
        """MariaDB says whether `ANSI_QUOTES` is set; MySQL does not."""
        return "MariaDB" in self.version

    def heed(self, status: int) -> None:
        """What the server says of the session in each OK and EOF."""
        quotes = b'"' if status & ANSI_QUOTES else b""
        self.misread = quotes + (b"\\" if status & NO_BACKSLASHES else b"")

    @property
    def speaks_for(self) -> Exchange | None:
        """The masked exchange that what the server says now belongs to, also between exchanges."""
        exchange = self.exchange if self.exchange is not None else self.last_masked
        return exchange if exchange is not None and exchange.masked else None
