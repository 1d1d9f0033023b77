"""Step 4 of 6, inspect: WebSocket messages, put together from their fragments (RFC 6455 section 5.4).

Gets one side's bytes; hands on whole messages and control frames, in the order they ended. A stream that nobody needs
to understand is handed on as it comes instead, checked, and without keeping it.
"""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.websocket.frames import FrameReader, Header, Opcode, Payload, head

# Bytes of a message that is put together. Libraries stop at 1 MiB (websockets) to 100 MiB (ws); models take and send
# pictures and sound in some hundred KiB.
MESSAGE_LIMIT = 8 << 20
# Close codes that may be on the wire (section 7.4, and the registry): 1004 to 1006 and 1015 may not.
_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))
_APPLICATIONS = range(3000, 5000)


class BadText(ProtocolError):
    """Text that is not UTF-8 (section 8.1)."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message (TEXT or BINARY) or a control frame, whole."""

    opcode: Opcode
    payload: bytes


class MessageReader:
    """Reads the messages of `side`. `whole`: put together, else frames are handed on as they come. `in_message`: more
    of one follows. `closed`: a Close frame has come, after which nothing counts (section 5.5.1)."""

    def __init__(self, side: Side, *, whole: bool) -> None:
        self.frames = FrameReader(side)
        self.in_message = False
        self.closed = False
        self._side = side
        self._whole = whole
        self._header: Header | None = None
        self._opcode = Opcode.TEXT
        self._pieces: list[bytes] = []
        self._size = 0
        self._control = b""
        self._fault: ProtocolError | None = None

    def receive(self, data: bytes) -> None:
        if not self.closed:
            self.frames.receive(data)

    def next(self) -> Message | None:
        """The next message or control frame. Raises ProtocolError, LimitExceeded."""
        while not self.closed and (unit := self.frames.next()) is not None:
            if type(unit) is Header:
                self._begin(unit)
            elif type(unit) is Payload:
                message = self._take(unit)
                if message is not None:
                    return message
        return None

    def passing(self) -> bytes:
        """The frames, checked, as they go on to the client. Raises ProtocolError, once what came before the fault has
        gone on: a refusal in the midst of a frame would be taken for a part of it."""
        if self._fault is not None:
            raise self._fault
        out: list[bytes] = []
        try:
            while not self.closed and (unit := self.frames.next()) is not None:
                if type(unit) is Header:
                    self._begin(unit)
                    if not unit.control:
                        out.append(head(unit.opcode, unit.length, final=unit.final))
                elif type(unit) is Payload:
                    out.append(self._passing(unit))
        except ProtocolError as fault:
            if not out:
                raise
            self._fault = fault
        return b"".join(out)

    def _passing(self, piece: Payload) -> bytes:
        """A control frame goes on as a whole, which is checked; of others each piece."""
        message = self._take(piece)
        if self._header is None or not self._header.control:
            return piece.data
        return b"" if message is None else head(message.opcode, len(message.payload)) + message.payload

    @property
    def cut(self) -> bool:
        """A frame has gone on in part (where frames are handed on as they come)."""
        return self.frames.in_frame and self._header is not None and not self._header.control

    def _begin(self, header: Header) -> None:
        self._header = header
        if header.control:
            return
        if (header.opcode is Opcode.CONTINUATION) is not self.in_message:
            raise ProtocolError(self._side, "WebSocket: a fragment without its beginning, or a message inside another")
        if not self.in_message:
            self._opcode = header.opcode
        self.in_message = True
        self._size += header.length
        if self._whole and self._size > MESSAGE_LIMIT:
            raise LimitExceeded(self._side, f"WebSocket: a message of more than {MESSAGE_LIMIT >> 20} MiB")

    def _take(self, piece: Payload) -> Message | None:
        header = self._header
        if header is None:
            raise RuntimeError("a payload without its header")
        if header.control:
            self._control += piece.data
            if not piece.last:
                return None
            control, self._control = self._control, b""
            if header.opcode is Opcode.CLOSE:
                self._check_close(control)
                self.closed = True
            return Message(header.opcode, control)
        if self._whole and piece.data:
            self._pieces.append(piece.data)
        if not (piece.last and header.final):
            return None
        payload = b"".join(self._pieces)
        self._pieces, self._size, self.in_message = [], 0, False
        if self._whole and self._opcode is Opcode.TEXT:
            self._check_text(payload)
        return Message(self._opcode, payload)

    def _check_close(self, payload: bytes) -> None:
        if not payload:
            return
        code = int.from_bytes(payload[:2], "big")
        if len(payload) < 2 or not (code in _CODES or code in _APPLICATIONS):
            raise ProtocolError(self._side, "WebSocket: a Close frame without a valid code")
        self._check_text(payload[2:])

    def _check_text(self, payload: bytes) -> None:
        try:
            payload.decode("utf-8")
        except UnicodeDecodeError:
            raise BadText(self._side, "WebSocket: text that is not UTF-8") from None
