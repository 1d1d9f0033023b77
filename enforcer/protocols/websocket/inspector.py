"""Step 4 of 6, inspect: a WebSocket connection, each message of the client's an exchange of its own.

Gets both sides' bytes from the 101 on; hands on the client's messages one by one for their verdicts, written anew with
other masking keys, and the server's as they come, or as `Text` of the exchange that asked for the connection where
its answers are masked. A refusal is a JSON-RPC error where the message waits for an answer in it, else a Close frame.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from enum import Enum

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import (
    Event,
    Forward,
    Outcome,
    Part,
    Refusal,
    Reply,
    Request,
    Rewrite,
    Rows,
    Text,
)
from enforcer.protocols.body_facts import facts_of
from enforcer.protocols.jsonrpc import refusal_of
from enforcer.protocols.websocket.frames import Opcode, from_client, from_server, opcode_of
from enforcer.protocols.websocket.messages import BadText, Message, MessageReader
from enforcer.verdict import Denial

# Bytes of the client's that wait behind a message whose verdict is awaited: a few socket reads.
AHEAD_LIMIT = 1024 * 1024
# Bytes of a message that are recorded: enough to recognise a call, and a row stays a row.
TEXT_LIMIT = 4096
# Bytes of a Close frame's reason (RFC 6455 section 5.5: 125 with the code).
REASON_LIMIT = 123

# Close codes of RFC 6455 section 7.4.1.
PROTOCOL_ERROR, INVALID_TEXT, POLICY_VIOLATION, TOO_BIG = 1002, 1007, 1008, 1009

# What a recorded beginning must not end in: a part of a value would no longer be recognised, and so not be masked.
_UNCERTAIN_TAIL = re.compile(r"[\w.%+'@ -]{1,400}\Z")
_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
# A Close frame ends what the server says, so that nothing waits for more.
_PARTS = {Opcode.TEXT: Part.MESSAGE, Opcode.BINARY: Part.MESSAGE, Opcode.PING: Part.ASIDE, Opcode.PONG: Part.ASIDE}


class State(Enum):
    """Where the connection stands."""

    OPEN = "messages pass"
    HELD = "a message of the client's waits for its verdict"
    CLOSED = "nothing follows"


class WebSocketInspector:
    """One connection after its handshake, which was exchange `exchange` and stays open. See
    `enforcer.protocols.base.Inspector`. `target`, `facts`, `fields`: of the handshake. `masked`: answers of it are
    masked. `rewrite`: hides values in what the client says, where its rule rewrites requests."""

    name = "http"
    half_close = True
    rewrites = True
    multiplexed = False

    def __init__(
        self,
        exchange: int,
        target: str,
        facts: dict[str, str],
        fields: Sequence[tuple[bytes, bytes]],
        *,
        masked: bool,
        rewrite: Rewrite | None,
    ) -> None:
        self._state = State.OPEN
        self._handshake = self._exchange = exchange
        self._target = target
        self._facts = facts
        self._fields = fields
        self._masked = masked
        self._rewrite = rewrite
        self._reads_bodies = False
        self._messages = {_CLIENT: MessageReader(_CLIENT, whole=True), _SERVER: MessageReader(_SERVER, whole=masked)}
        self._events: deque[Event] = deque()
        self._replies: list[bytes] = []
        self._ended: set[Side] = set()
        self._over = False
        self._message: Message | None = None
        self._fault: ProtocolError | None = None

    # --- bytes in

    def read_bodies(self) -> None:
        self._reads_bodies = True

    def receive_data(self, side: Side, data: bytes) -> None:
        if self._state is State.CLOSED or self._fault is not None:
            return
        messages = self._messages[side]
        messages.receive(data)
        if side is _CLIENT and self._state is State.HELD and messages.frames.waiting > AHEAD_LIMIT:
            raise self._failed(LimitExceeded(_CLIENT, "WebSocket: sent too much ahead of a message that is judged"))

    def receive_eof(self, side: Side) -> None:
        self._ended.add(side)

    # --- events out

    def next_event(self) -> Event | None:
        if self._state is State.CLOSED:
            return None
        if self._fault is not None:
            raise self._fault
        if self._events:
            return self._events.popleft()
        try:
            event = self._from_server()
            if event is None and self._state is State.OPEN:
                event = self._from_client()
        except ProtocolError as fault:
            raise self._failed(fault) from None
        if event is None and _SERVER in self._ended and not self._over:
            self._over = True
            orderly = any(messages.closed for messages in self._messages.values())
            return Outcome(self._handshake, "101", failed=not orderly)
        return event

    def _failed(self, fault: ProtocolError) -> ProtocolError:
        self._fault = fault
        return fault

    def _from_server(self) -> Event | None:
        messages = self._messages[_SERVER]
        if self._replies and not (messages.in_message or messages.frames.in_frame):
            return Reply(self._replies.pop(0))
        if not self._masked:
            raw = messages.passing()
            return Forward(_SERVER, raw) if raw else None
        message = messages.next()
        if message is None:
            return None
        return self._text(_SERVER, self._handshake, message, from_server(message.opcode, message.payload))

    def _text(self, side: Side, exchange: int, message: Message, raw: bytes) -> Text:
        """A message, or what a control frame says, to be masked."""
        payload = message.payload[2:] if message.opcode is Opcode.CLOSE else message.payload
        part = _PARTS.get(message.opcode, Part.PIECE)
        return Text(exchange, _media(message, payload), payload, True, raw, side, part)

    def _from_client(self) -> Event | None:
        message = self._messages[_CLIENT].next()
        if message is None:
            return None
        if message.opcode not in (Opcode.TEXT, Opcode.BINARY):
            payload = message.payload
            if self._rewrite is not None:
                code = payload[:2] if message.opcode is Opcode.CLOSE else b""
                payload = code + self._rewrite(payload[len(code) :])
            return Forward(_CLIENT, from_client(message.opcode, payload))
        self._exchange += 1
        self._message = message
        self._state = State.HELD
        kind = message.opcode.name.lower()
        return Request(
            self._exchange,
            f"WebSocket {kind}",
            _beginning(message),
            from_client(message.opcode, message.payload),
            facts=self._facts | self._facts_of(message),
            fields=self._fields,
            within=self._handshake,
        )

    def _facts_of(self, message: Message) -> dict[str, str]:
        if not self._reads_bodies:
            return {}
        json = message.opcode is Opcode.TEXT and _looks_like_json(message.payload)
        # A message that is no JSON says nothing that is read, and yet is something.
        return (
            facts_of("application/json", self._target, message.payload) if json else facts_of("", self._target, b"\0")
        )

    # --- the session's answers

    def allow(self, request: Request, *, masked: bool, rewrite: Rewrite | None = None) -> bytes:  # noqa: ARG002 - of the handshake's answers
        message = self._held()
        self._state, self._message = State.OPEN, None
        self._events.append(Outcome(request.exchange, "sent"))
        if rewrite is None:
            return request.raw
        self._events.appendleft(self._text(_CLIENT, request.exchange, message, request.raw))
        return b""

    def refuse(self, request: Request | None, denial: Denial) -> Refusal:
        if request is not None and self._state is State.HELD and not denial.unreachable:
            document = refusal_of(self._held().payload, denial)
            if document is not None:
                self._state, self._message = State.OPEN, None
                self._replies.append(from_server(Opcode.TEXT, document))
                return Refusal(b"", close=False)
        cut = self._messages[_SERVER].cut and not self._masked
        said = self._messages[_SERVER].closed or self._state is State.CLOSED
        self._state = State.CLOSED
        self._events.clear()
        if cut or said:
            return Refusal(b"", close=True)
        reason = _shortened(denial.title)
        return Refusal(from_server(Opcode.CLOSE, self._code().to_bytes(2, "big") + reason), close=True)

    def _code(self) -> int:
        if isinstance(self._fault, BadText):
            return INVALID_TEXT
        if isinstance(self._fault, LimitExceeded):
            return TOO_BIG
        return POLICY_VIOLATION if self._fault is None else PROTOCOL_ERROR

    def _held(self) -> Message:
        if self._message is None:
            raise RuntimeError("no message was handed on")
        return self._message

    def encode_row(self, rows: Rows, values: list[bytes | None]) -> bytes:  # noqa: ARG002 - the interface's
        raise TypeError("WebSocket messages hold no rows")

    def encode_text(self, text: Text, data: bytes) -> bytes:
        opcode = opcode_of(text.raw)
        if text.side is _CLIENT:
            return from_client(opcode, data)
        code = text.raw[2:4] if opcode is Opcode.CLOSE else b""  # behind a head of two bytes
        return from_server(opcode, code + data)


def _looks_like_json(payload: bytes) -> bool:
    return payload.lstrip(b" \t\r\n")[:1] in (b"{", b"[")


def _media(message: Message, payload: bytes) -> str:
    if message.opcode is Opcode.BINARY:
        return "application/octet-stream"
    return "application/json" if message.opcode is Opcode.TEXT and _looks_like_json(payload) else "text/plain"


def _beginning(message: Message) -> str:
    """What is recorded of a message: its beginning, or the size of a binary one."""
    if message.opcode is Opcode.BINARY:
        return f"{len(message.payload)} bytes"
    text = message.payload[: TEXT_LIMIT + 4].decode("utf-8", "ignore")
    if len(message.payload) <= TEXT_LIMIT:
        return text
    return _UNCERTAIN_TAIL.sub("", text[:TEXT_LIMIT]) + "…"


def _shortened(reason: str) -> bytes:
    raw = reason.encode("utf-8")
    return (
        raw if len(raw) <= REASON_LIMIT else raw[: REASON_LIMIT - 3].decode("utf-8", "ignore").encode() + "…".encode()
    )
