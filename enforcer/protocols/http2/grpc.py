"""Step 4 of 6, inspect: messages of gRPC that are rewritten on their way, one by one.

Gets DATA as it comes; puts messages together from their prefixes (gRPC over HTTP/2, "Length-Prefixed-Message"), and
hands on the texts in them as one `Text` each. Without its schema a message of Protocol Buffers shows where its fields
are, but not which are texts, so all of them are looked at, and what is hidden keeps its number of bytes: then no length
around it changes, and the message stays one whatever it is.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from enforcer.protocols.base import Event, Part, Text, Unmaskable
from enforcer.protocols.codings import READABLE, CodingError, Decoder
from enforcer.protocols.http2.peer import Half
from enforcer.protocols.http2.texts import Texts
from enforcer.protocols.media import Description

# Bytes of one message, decompressed: what gRPC's own implementations take unless they are told otherwise.
MESSAGE_LIMIT = 4 * 1024 * 1024
# Bytes of messages that are not whole, of all streams of a connection: eight of the largest.
UNFINISHED_LIMIT = 8 * MESSAGE_LIMIT
# Messages within messages: Protocol Buffers' own readers stop at 100.
DEPTH_LIMIT = 100
# Numbers from here on have the nine digits that the shortest identifiers have.
_LONG = 10**8

_PREFIX = 5
_VARINT, _FIXED64, _LENGTH, _GROUP, _GROUP_END, _FIXED32 = range(6)
# Between the texts of a message while they are masked; one that holds it counts as several.
_BETWEEN = b"\0"


class Kind(Enum):
    """What a stretch of a message may be."""

    TEXT = "the bytes of a field that is no message"
    VARINT = "a number of as many bytes as it needs"
    FIXED = "a number of four or eight bytes"
    FLAT = "a field that reads as a message and as text"


@dataclass(slots=True)
class Stretch:
    """Bytes `start` to `end` of a message. `inner`: of what is FLAT, how many of the stretches before are its own."""

    kind: Kind
    start: int
    end: int
    text: bytes
    inner: int = 0


class Budget:
    """What all calls of a connection hold of messages that are not whole, in bytes."""

    def __init__(self) -> None:
        self.used = 0


class Messages(Texts):
    """See `Texts`. `said`: what follows `application/grpc` in the media type, and the value of `grpc-encoding`."""

    def __init__(
        self,
        exchange: int,
        half: Half,
        said: tuple[str, str],
        budget: Budget,
        send_head: Callable[[int], None],
    ) -> None:
        kind, coding = said
        super().__init__(exchange, half.sender.side, half, Description("application/grpc"), send_head)
        self._budget = budget
        self._json = kind == "+json"
        self._coding = coding
        self._received = bytearray()
        # Messages whose texts were handed on, in order; None is the end of the body.
        self._handed: deque[tuple[bytes, list[Stretch]] | None] = deque()

    def feed(self, data: bytes, final: bool) -> list[Event]:
        self._received += data
        self._budget.used += len(data)
        if self._budget.used > UNFINISHED_LIMIT:
            return [self._not("too many large gRPC messages at once")]
        received, at = self._received, 0
        events: list[Event] = []
        while len(received) - at >= _PREFIX:
            length = int.from_bytes(received[at + 1 : at + _PREFIX], "big")
            if length > MESSAGE_LIMIT:
                return [*events, self._not(f"a gRPC message of more than {MESSAGE_LIMIT} bytes")]
            end = at + _PREFIX + length
            if len(received) < end:
                break
            try:
                message = self._plain(received[at], bytes(received[at + _PREFIX : end]))
            except CodingError as error:
                return [*events, self._not(str(error))]
            events.append(self._hand_on(message))
            at = end
        del received[:at]
        self._budget.used -= at
        if final:
            if received:
                return [*events, self._not("a gRPC message that ends too early")]
            self._handed.append(None)
            events.append(Text(self.exchange, self.media, b"", True, b"", self.side))
        return events

    def encode(self, text: Text, data: bytes) -> list[Event]:
        if not self._handed:
            return super().encode(text, data)  # the trailers
        handed = self._handed.popleft()
        if handed is None:
            self._body_done = True
            if not self.trailers:
                self.half.push(b"", end=True)
            return []
        message, stretches = handed
        if data != text.data:
            rewritten = data if self._json else write(message, stretches, data)
            if rewritten is None:
                return [self._not("a value in a gRPC message that may be part of its structure")]
            message = rewritten
        self.half.push(b"\0" + len(message).to_bytes(4, "big") + message, end=False)
        return []

    def forget(self) -> None:
        self._budget.used -= len(self._received)
        self._received.clear()

    def _plain(self, compressed: int, message: bytes) -> bytes:
        """What the message stands for. It goes on uncompressed, which its prefix says. Raises CodingError."""
        if compressed == 0:
            return message
        if compressed != 1 or self._coding not in READABLE:
            raise CodingError("a gRPC message is compressed in a way that is not read")
        message = Decoder((self._coding,)).feed(message, True)
        if len(message) > MESSAGE_LIMIT:
            raise CodingError(f"a gRPC message of more than {MESSAGE_LIMIT} bytes")
        return message

    def _hand_on(self, message: bytes) -> Text:
        if self._json:
            self._handed.append((message, []))
            return Text(self.exchange, "application/json", message, True, message, self.side, Part.MESSAGE)
        stretches = stretches_of(message)
        self._handed.append((message, stretches))
        joined = _BETWEEN.join([stretch.text for stretch in stretches])
        return Text(self.exchange, self.media, joined, True, joined, self.side, Part.MESSAGE)

    def _not(self, reason: str) -> Unmaskable:
        return Unmaskable(self.exchange, reason)


def stretches_of(message: bytes) -> list[Stretch]:
    """Everything in a message that may hold a value; the message as a whole where it is none."""
    found = _walk(message, 0, len(message), 0)
    if found is None:
        return [Stretch(Kind.TEXT, 0, len(message), message)]
    return found


def write(message: bytes, stretches: list[Stretch], data: bytes) -> bytes | None:
    """The message with the stretches' texts replaced, byte for byte as long; None where that is not safe."""
    if not stretches:
        return None if data else message
    parts = deque(data.split(_BETWEEN))
    if len(parts) != sum(stretch.text.count(_BETWEEN) + 1 for stretch in stretches):
        return None
    out = bytearray(message)
    changed: list[bool] = []
    for stretch in stretches:
        text = _BETWEEN.join([parts.popleft() for _ in range(stretch.text.count(_BETWEEN) + 1)])
        changed.append(text != stretch.text)
        if text == stretch.text:
            continue
        if stretch.kind is Kind.TEXT:
            out[stretch.start : stretch.end] = _fitted(text, stretch.end - stretch.start)
        elif stretch.kind is Kind.FIXED:
            out[stretch.start : stretch.end] = bytes(stretch.end - stretch.start)
        elif stretch.kind is Kind.VARINT:  # one may have more bytes than it needs
            out[stretch.start : stretch.end] = b"\x80" * (stretch.end - stretch.start - 1) + b"\0"
        elif not any(changed[-1 - stretch.inner : -1]):
            return None
    return bytes(out)


def _walk(data: bytes, start: int, end: int, depth: int) -> list[Stretch] | None:
    """The stretches of a message in Protocol Buffers' wire format, None where it is none."""
    found: list[Stretch] = []
    at, groups = start, 0
    while at < end:
        tag, at = _varint(data, at, end)
        wire, field = tag & 7, tag >> 3
        if at < 0 or not 0 < field < 1 << 29:
            return None
        begun = at
        if wire == _VARINT:
            value, at = _varint(data, at, end)
        elif wire in (_FIXED64, _FIXED32):
            at += 8 if wire == _FIXED64 else 4
            value = int.from_bytes(data[begun:at], "little")
        elif wire == _LENGTH:
            length, begun = _varint(data, at, end)
            at = begun + length
            if begun < 0 or at > end:
                return None
            found += _field(data, begun, at, depth)
            continue
        elif wire in (_GROUP, _GROUP_END):
            groups += 1 if wire == _GROUP else -1
            if groups < 0:
                return None
            continue
        else:
            return None
        if at < 0 or at > end:
            return None
        if value >= _LONG:
            found.append(Stretch(Kind.VARINT if wire == _VARINT else Kind.FIXED, begun, at, b"%d" % value))
    return None if groups else found


def _field(data: bytes, start: int, end: int, depth: int) -> list[Stretch]:
    if start == end:
        return []
    text = data[start:end]
    inner = _walk(data, start, end, depth + 1) if depth < DEPTH_LIMIT else None
    if inner is None:
        return [Stretch(Kind.TEXT, start, end, text)]
    try:
        printable = text.decode("utf-8").replace("\n", "").replace("\t", "").replace("\r", "").isprintable()
    except UnicodeDecodeError:
        printable = False
    if printable:
        inner.append(Stretch(Kind.FLAT, start, end, text, len(inner)))
    return inner


def _varint(data: bytes, at: int, end: int) -> tuple[int, int]:
    """A number and where what follows it begins; -1 where it does not end."""
    value = shift = 0
    while at < end and shift < 70:
        octet = data[at]
        at += 1
        value |= (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
    return 0, -1


def _fitted(text: bytes, length: int) -> bytes:
    """`text` in exactly `length` bytes, which stay UTF-8 if they were."""
    if len(text) > length:
        text = text[:length].decode("utf-8", "ignore").encode()
    return text.ljust(length, b"*")
