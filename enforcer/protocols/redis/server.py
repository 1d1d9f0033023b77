"""Step 4 of 6, inspect: the server's half of a Redis connection: replies (RESP2 and RESP3) and what is pushed.

Gets the server's bytes; hands on replies as they come where nothing is masked, value by value where something is, and
the outcome of every command. What no command asked for and no subscription brings is a protocol error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Rows, Text
from enforcer.protocols.redis.columns import Frame, Shape, readable
from enforcer.protocols.redis.conversation import (
    MAX_QUEUED,
    SUBSCRIBING,
    UNSUBSCRIBING,
    Cells,
    Conversation,
    Pending,
)
from enforcer.protocols.unread import Unread

MAX_HELD: Final = 64 << 20
"""Bytes of one value that is held whole to be masked, and of a pushed message. Unmasked replies pass in pieces, of any
size (Redis's own limit is 512 MiB)."""

STREAMED_FROM: Final = 64 << 10
"""An unmasked value of more bytes goes on in pieces."""

MAX_DEPTH: Final = 64
"""Lists in lists; Redis's own replies have seven, those of scripts what their authors liked."""

MAX_PUSHED: Final = 100_000
"""Values of a pushed message; those of client-side caching name keys by the thousand."""

BATCH_CELLS: Final = 256
BATCH_BYTES: Final = 64 << 10
"""A masked reply goes on in rows of so many values, or as many as make so many bytes: whatever its length, little of it
is held."""

_LINE_LIMIT: Final = 64 << 10
"""Bytes of a line: errors may quote arguments."""
_SHORT_LINE: Final = 4096
_SIMPLE, _ERROR_LINE, _INTEGER, _STRING = b"+-:$"
_COUNT: Final = re.compile(rb"0|[1-9][0-9]{0,9}")
_SCRIPTS: Final = ("EVAL", "FCALL")
_CODES: Final = frozenset(b"ERR NOSCRIPT WRONGTYPE BUSY OOM READONLY NOPERM MOVED ASK CLUSTERDOWN TRYAGAIN".split())
_ERROR: Final = re.compile(rb"[A-Z][A-Z0-9_]*(?= |\Z)")
_LINES, _BULKS, _LISTS = b"+-:_#,(", b"$=!", b"*%~>|"
_WORD: Final = {ord("$"): "value", ord("="): "value", ord(":"): "integer", ord(","): "double", ord("("): "integer"}
_MESSAGES: Final = {b"message": 3, b"smessage": 3, b"pmessage": 4}
"""Pushed messages and their lengths: the last element is the payload, the one before the channel."""
_CONFIRMATIONS: Final = frozenset(name.lower().encode() for name in (*SUBSCRIBING, *UNSUBSCRIBING))
_OK: Final = frozenset((b"+OK\r\n", b"+QUEUED\r\n", b"+PONG\r\n", b"+RESET\r\n"))


@dataclass(slots=True)
class Reading:
    """The reply or push that is being read.

    `item`: whose it is, None for a push. `held`: its values are taken apart. `maybe_push`: RESP2 cannot tell before its
    first element. `stack`: the lists that are open. `first`: its type. `begun`: something of it was handed on.
    `described`: it has attributes. `elements`: the outermost list's, of a push."""

    item: Pending | None
    held: bool
    maybe_push: bool
    stack: list[Frame] = field(default_factory=list)
    first: bytes = b""
    begun: bool = False
    described: bool = False
    status: str = ""
    rows: int | None = None
    failed: bool = False
    elements: list[bytes] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0
    places: list[int] = field(default_factory=list)
    columns: list[str] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    binary: list[bool] = field(default_factory=list)


class ServerHalf:
    """Parser of the server's side."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._unread = Unread(Side.SERVER)
        self._reading: Reading | None = None
        self._passing = 0  # bytes of a long value still to come

    def receive(self, data: bytes) -> None:
        self._unread.feed(data)

    def advance(self) -> None:
        """Reads on until bytes are missing. Raises ProtocolError, LimitExceeded."""
        while True:
            if self._reading is None and not self._passing:
                self._pass_short()
            if not self._read():
                return

    def _pass_short(self) -> None:
        """Hot path: replies of one line, or one string, to commands of which nothing is masked; all that are there."""
        conversation, unread = self._conversation, self._unread
        pending = conversation.pending
        if not pending or not pending[0].plain or conversation.subscribed or not unread.has(unread.size):
            return
        data, start = unread.data, unread.pos
        pos = start
        while pending and pending[0].plain:
            end = data.find(b"\r\n", pos, pos + _SHORT_LINE)
            if end < 0:
                break
            kind, stop, failed = data[pos], end + 2, False
            status, rows = "integer", None
            if kind == _STRING:
                text = data[pos + 1 : end]
                size = int(text) if _COUNT.fullmatch(text) else -1
                stop += size + 2
                if size < 0 or stop > len(data) or data[stop - 2 : stop] != b"\r\n":
                    break
                status, rows = "value", 1
            elif kind in (_SIMPLE, _ERROR_LINE):
                failed = kind == _ERROR_LINE
                code = _ERROR.match(data, pos + 1, end)
                status = code[0].decode("ascii") if code is not None else "ERR" if failed else "text"
            elif kind != _INTEGER:
                break
            pos = stop
            conversation.finish(pending.popleft(), status, rows, failed=failed)
        if pos > start:
            unread.pos = pos
            conversation.forward(data[start:pos])
            conversation.speak()

    def _read(self) -> bool:
        """One scalar or list header; False where bytes are missing."""
        unread, conversation = self._unread, self._conversation
        if self._passing:
            piece = unread.take_up_to(self._passing)
            self._passing -= len(piece)
            if piece:
                conversation.forward(piece)
            if not self._passing and self._reading is not None:
                self._element(self._reading)
            return bool(piece)
        end = unread.line_end(_LINE_LIMIT)
        if end < 0:
            return False
        start = unread.pos
        kind = unread.data[start] if end > start else 0
        reading = self._reading or self._begin(kind)
        if kind in _LISTS:
            self._open(reading, kind, unread.data[start : end + 2])
            unread.pos = end + 2
            return True
        if kind in _LINES:
            raw, text = unread.data[start : end + 2], unread.data[start + 1 : end]
        elif kind in _BULKS:
            size = self._count(unread.data[start + 1 : end])
            if size < 0:
                raw, text = unread.data[start : end + 2], b""
                kind = ord("_")
            else:
                whole = end + 2 - start + size + 2
                if not unread.has(whole):
                    return self._part(reading, size, end + 2 - start, whole)
                start = unread.pos
                raw = unread.data[start : start + whole]
                if raw[-2:] != b"\r\n":
                    raise ProtocolError(Side.SERVER, "a string is longer than it says")
                text = raw[whole - size - 2 : -2]
                unread.pos = start + whole
                self._scalar(reading, kind, raw, text)
                return True
        else:
            raise ProtocolError(Side.SERVER, f"a reply of the unknown type {chr(kind)!a}")
        unread.pos = end + 2
        self._scalar(reading, kind, raw, text)
        return True

    def _begin(self, kind: int) -> Reading:
        conversation = self._conversation
        item = conversation.head()
        push = kind == ord(">")
        # RESP2 has no type of its own for what is pushed.
        maybe = (
            kind == ord("*")
            and not conversation.resp3
            and (conversation.subscribed or (item is not None and item.confirmations != 0))
        )
        if item is None and not (push or maybe):
            raise ProtocolError(Side.SERVER, "a reply to no command")
        if push:
            item = None
        masked = item is not None and item.masked and not item.swallow
        reading = self._reading = Reading(item, push or maybe or masked, maybe)
        if item is not None and item.plan is not None:
            item.plan.begin()
            if item.plan.shape is Shape.EXEC:
                item.plan.inner = conversation.queued
        conversation.in_reply = True
        return reading

    def _count(self, text: bytes) -> int:
        """A length; -1 for null. Raises ProtocolError."""
        if text == b"-1":
            return -1
        if not _COUNT.fullmatch(text):
            reason = "streamed strings and lists are not inspected" if text == b"?" else "a length is no plain number"
            raise ProtocolError(Side.SERVER, reason)
        return int(text)

    def _part(self, reading: Reading, size: int, head: int, whole: int) -> bool:
        """A string that is not all there: a long one goes on in pieces, if it may."""
        if reading.item is not None and reading.item.swallow:
            raise ProtocolError(Side.SERVER, "a reply that none of its kind is")
        if reading.held:
            if whole > MAX_HELD:
                raise LimitExceeded(Side.SERVER, f"a value of {size} bytes is over the limit of {MAX_HELD} for masking")
            return False
        if size <= STREAMED_FROM:
            return False
        if not reading.stack:
            reading.status, reading.rows = "value", 1
        self._pass(reading, self._unread.take_up_to(head))
        self._passing = whole - head
        return True

    def _pass(self, reading: Reading, raw: bytes) -> None:
        """Structure, or what is not masked."""
        if reading.held:
            self._hold(reading, raw)
        elif reading.item is None or not reading.item.swallow:
            reading.begun = True
            self._conversation.forward(raw)

    def _hold(self, reading: Reading, raw: bytes) -> None:
        reading.pieces.append(raw)
        reading.size += len(raw)
        if reading.item is None or reading.maybe_push:
            if reading.size > MAX_HELD or len(reading.pieces) > MAX_PUSHED:
                raise LimitExceeded(Side.SERVER, "a pushed message is longer than can be held")
        elif reading.size >= BATCH_BYTES or len(reading.values) >= BATCH_CELLS:
            self._flush(reading)

    def _open(self, reading: Reading, kind: int, raw: bytes) -> None:
        if kind == ord(">") and (reading.item is not None or reading.stack):
            raise ProtocolError(Side.SERVER, "something is pushed in the midst of a reply")
        count = self._count(raw[1:-2])
        attribute = kind == ord("|")
        reading.described |= attribute
        if not reading.stack and not attribute:
            reading.first = raw[:1]
            reading.status, reading.rows = ("array", count) if count >= 0 else ("nil", 0)
        self._pass(reading, raw)
        children = 2 * count if kind in b"%|" else count
        if children > 0:
            if len(reading.stack) >= MAX_DEPTH:
                raise LimitExceeded(Side.SERVER, f"a reply nests more than {MAX_DEPTH} lists")
            reading.stack.append(Frame(children, attribute=attribute))
        elif not attribute:
            self._element(reading)

    def _scalar(self, reading: Reading, kind: int, raw: bytes, text: bytes) -> None:
        top = not reading.stack
        if top:
            reading.first = raw[:1]
            self._summarize(reading, kind, text)
        elif (reading.item is None or reading.maybe_push) and len(reading.stack) == 1:
            reading.elements.append(text)
        if not reading.held:
            self._pass(reading, raw)
        elif top and kind == ord("-"):
            self._error(reading, raw)
        else:
            self._cell(reading, kind, raw, text)
        self._element(reading)

    def _summarize(self, reading: Reading, kind: int, text: bytes) -> None:
        if kind in b"-!+":
            code = _code(reading.item, text)
            reading.failed = kind != ord("+")
            reading.status = code or ("ERR" if reading.failed else "text")
        elif kind == ord("_"):
            reading.status, reading.rows = "nil", 0
        else:
            reading.status = _WORD.get(kind, "value")
            reading.rows = 1 if kind in b"$=" else None

    def _error(self, reading: Reading, raw: bytes) -> None:
        self._flush(reading)
        item = reading.item
        if item is None:
            self._conversation.forward(raw)
            return
        code = _code(item, raw[1:-2])
        start = len(code) + 2 if code and len(code) + 3 < len(raw) else 1
        media = "anything" if item.name.startswith(_SCRIPTS) else "error"
        self._conversation.emit(Text(item.exchange, media, raw[start:-2], True, raw))

    def _cell(self, reading: Reading, kind: int, raw: bytes, text: bytes) -> None:
        """A value that may have to be hidden, unless it is none."""
        item, number = reading.item, kind in b":,("
        plan = item.plan if item is not None else None
        if raw in _OK or kind in b"_#" or (kind == ord(":") and (plan is None or plan.counts(reading.stack))):
            self._pass(reading, raw)
            return
        if plan is not None and plan.serialized(reading.stack) and kind == ord("$") and item is not None:
            self._pass(reading, null(resp3=self._conversation.resp3))
            return
        push = item is None or reading.maybe_push
        if push and len(reading.stack) == 1 and reading.stack[0].index == 0:
            self._pass(reading, raw)  # what kind of message it is
            return
        described = reading.described and any(frame.attribute for frame in reading.stack)
        unnamed = plan is None or push or described
        reading.columns.append("" if plan is None or unnamed else plan.column(reading.stack, text))
        reading.places.append(len(reading.pieces))
        reading.values.append(text[4:] if kind == ord("=") else text)
        reading.binary.append(number)
        self._hold(reading, raw)

    def _flush(self, reading: Reading) -> None:
        """What is held of the reply goes on: as a row where it has values."""
        item = reading.item
        if reading.pieces:
            self._hand_on(reading, item if item is not None and item.masked else None)

    def _hand_on(self, reading: Reading, owner: Pending | None) -> None:
        reading.begun = True
        raw = b"".join(reading.pieces)
        if owner is not None and reading.values:
            cells = Cells(reading.pieces, reading.places, self._conversation.resp3)
            binary = tuple(reading.binary)
            strings = tuple(not number for number in binary)  # all others are
            row = Rows(owner.exchange, tuple(reading.columns), reading.values, binary, raw, strings)
            self._conversation.emit_row(row, cells)
        else:
            self._conversation.forward(raw)
        reading.pieces, reading.places, reading.size = [], [], 0
        reading.columns, reading.values, reading.binary = [], [], []

    def _element(self, reading: Reading) -> None:
        """A value is complete, and with it maybe the lists that it is the last of."""
        stack = reading.stack
        while stack:
            frame = stack[-1]
            frame.index += 1
            frame.left -= 1
            if frame.left:
                return
            stack.pop()
            if frame.attribute:  # what it describes is still to come
                return
        self._end(reading)

    def _end(self, reading: Reading) -> None:
        conversation, item = self._conversation, reading.item
        self._reading = None
        conversation.in_reply = False
        kind = reading.elements[0] if reading.elements and (item is None or reading.maybe_push) else b""
        known = kind in _MESSAGES or kind in _CONFIRMATIONS
        if reading.maybe_push and not known and (item is None or (reading.first == b"*" and kind != b"pong")):
            raise ProtocolError(Side.SERVER, "something else than a message comes while messages are subscribed to")
        if item is None or known:
            self._pushed(reading, kind)
        else:
            self._flush(reading)
            self._effect(item, reading)
            conversation.answered(reading.status, reading.rows, failed=reading.failed)
        conversation.speak()

    def _pushed(self, reading: Reading, kind: bytes) -> None:
        conversation, elements = self._conversation, reading.elements
        head = conversation.head()
        confirms = kind in _CONFIRMATIONS and head is not None and head.name.lower().encode() == kind
        owner = head if confirms else conversation.carrier or conversation.last_masked or head
        message = _MESSAGES.get(kind) == len(elements)
        names = [kind.decode("ascii", "replace")] * len(reading.values)
        if message and len(names) == len(elements) - 1:
            names[-1] = readable(elements[-2])
        reading.columns = names
        if message and conversation.carrier is not None:
            conversation.carrier.messages += 1
        self._hand_on(reading, owner if owner is not None and owner.masked else None)
        if kind in _CONFIRMATIONS:
            self._confirmed(kind.decode("ascii"), elements, head if confirms else None)

    def _confirmed(self, kind: str, elements: list[bytes], head: Pending | None) -> None:
        """Redis says how many subscriptions there are now: of channels and patterns together, or of shards."""
        conversation, counts = self._conversation, self._conversation.counts
        total = self._count(elements[2]) if len(elements) == 3 else -1
        opposite = UNSUBSCRIBING.get(kind.upper())
        named = opposite or kind
        if head is not None and head.confirmations < 0:
            head.confirmations = max(1, counts[named])
        shards = named == "ssubscribe"
        before = counts[named] if shards else counts["subscribe"] + counts["psubscribe"]
        if total < 0 or abs(total - before) > 1 or counts[named] + total - before < 0:
            raise ProtocolError(Side.SERVER, "a subscription is confirmed that does not fit those before")
        counts[named] += total - before
        if head is not None:
            head.confirmations -= 1
            if not head.confirmations and opposite is None:
                conversation.carry(head)
            elif not head.confirmations:
                conversation.answered(kind, None, failed=False)
        if not conversation.subscribed:
            conversation.end_carrier("unsubscribed")

    def _effect(self, item: Pending, reading: Reading) -> None:
        """What a reply says of the connection's state."""
        conversation, queued = self._conversation, reading.status == "QUEUED"
        if queued and item.plan is not None:
            if len(conversation.queued) >= MAX_QUEUED:
                raise LimitExceeded(Side.CLIENT, f"over {MAX_QUEUED} commands in a transaction")
            conversation.queued.append(item.plan)
        done = not reading.failed
        if item.sets_user:
            conversation.user.settle(done=done, queued=queued)
        if item.sets_database:
            conversation.database.settle(done=done, queued=queued)
        if item.name == "HELLO" and done and not queued:
            conversation.resp3 = reading.first == b"%"
        elif item.name in ("EXEC", "DISCARD", "RESET", "MULTI") and not queued:
            conversation.queued = []
        if item.name == "RESET" and done and not queued:
            conversation.resp3 = False
            conversation.counts = dict.fromkeys(conversation.counts, 0)
            conversation.end_carrier("unsubscribed")

    @property
    def mid_reply(self) -> bool:
        """The client has the beginning of a reply, and not its end."""
        return self._reading is not None and self._reading.begun

    def end(self) -> None:
        """The server is gone: what it has not answered has failed."""
        conversation = self._conversation
        conversation.end_carrier("connection closed")
        while conversation.pending:
            item = conversation.pending.popleft()
            conversation.finish(item, "connection closed", failed=item.name not in ("QUIT", "SHUTDOWN"))
        conversation.end_block()


def null(*, resp3: bool) -> bytes:
    return b"_\r\n" if resp3 else b"$-1\r\n"


def write_row(row: Rows, cells: Cells, values: list[bytes | None]) -> bytes:
    """The reply's bytes with its values replaced; every value keeps its type, or becomes null."""
    pieces = list(cells.pieces)
    for place, before, value in zip(cells.places, row.values, values, strict=True):
        if value != before:
            pieces[place] = null(resp3=cells.resp3) if value is None else _scalar(pieces[place], value)
    return b"".join(pieces)


def _scalar(raw: bytes, value: bytes) -> bytes:
    kind = raw[:1]
    if kind in b"+-" and not (b"\r" in value or b"\n" in value):
        return kind + value + b"\r\n"
    if kind == b"=":
        value = raw[raw.index(b"\r\n") + 2 :][:4] + value
    kind = b"!" if kind == b"-" else kind if kind in b"$=!" else b"$"
    return b"%b%d\r\n%b\r\n" % (kind, len(value), value)


def _code(item: Pending | None, text: bytes) -> str:
    """The first word of an error or a status; of scripts, which say what they like, only one that clients go by."""
    found = _ERROR.match(text)
    if found is None or (item is not None and item.name.startswith(_SCRIPTS) and found[0] not in _CODES):
        return ""
    return found[0].decode("ascii")


def write_error(text: Text, data: bytes) -> bytes:
    """An error reply with its words replaced; they stay one line."""
    raw = text.raw
    return raw[: len(raw) - 2 - len(text.data)] + data.replace(b"\r", b" ").replace(b"\n", b" ") + b"\r\n"
