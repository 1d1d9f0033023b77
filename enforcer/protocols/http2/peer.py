"""Step 4 of 6, inspect: one side's connection of HTTP/2 (RFC 9113 sections 4, 5.2, 6): its frames, settings, windows.

Gets bytes; hands on whole frames. Collects what goes back to that side. A side is granted what the other
side takes: windows are passed on end to end, stream by stream, so that little piles up here and a reader that is slow
on one stream holds up no other. Never knows what a stream carries.
"""

from __future__ import annotations

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.http2.compression import HEAD_LIMIT, Decoder, Encoder, Fields
from enforcer.protocols.http2.frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    ENHANCE_YOUR_CALM,
    FIRST_WINDOW,
    FLOW_CONTROL_ERROR,
    FRAME_HEADER,
    FRAME_LIMIT,
    FRAME_SIZE_ERROR,
    HEADER,
    HEADERS,
    PADDED,
    WINDOW_LIMIT,
    ConnectionFault,
    frame,
    head_frames,
    settings,
    window_update,
)

# Bytes that may wait to be read while a verdict is awaited. The session stops reading meanwhile, so this is a few
# socket reads (uvloop: 256 KiB each).
AHEAD_LIMIT = 1024 * 1024
# CONTINUATION frames of one block. A block has at most 64 KiB, which is four full ones; the flood of 2024
# (CVE-2024-27316 and others) was of frames without end.
CONTINUATION_LIMIT = 16
# Frames that move nothing (PING, SETTINGS, PRIORITY, empty DATA, unknown kinds, resets), more of them than reads and
# DATA frames together. nghttp2 gives up at 1,000 unsent answers, Go at 10,000; CVE-2019-9512 to 9518.
IDLE_LIMIT = 1000
# Bytes granted at once though a side has not used up half of its window.
_LARGE_GRANT = 1 << 16


class Peer:
    """The connection to `side`. Windows count bytes of DATA: `window` what we may send it, `granted` what it may send
    us. `initial`: its first window for streams; `announced`: the one it was told for its own. `out`: frames for it.
    `ended`: its end of stream came; `gone`: and was heeded, after all its frames."""

    def __init__(self, side: Side) -> None:
        self.side = side
        self.decoder = Decoder(side)
        self.encoder = Encoder()
        self.window = FIRST_WINDOW
        self.granted = FIRST_WINDOW
        self.initial = FIRST_WINDOW
        self.announced = FIRST_WINDOW
        # How far streams may exceed what they were granted, since a smaller first window was not acknowledged yet.
        self.slack = 0
        self.unacknowledged = 0
        self.greeted = False
        self.ended = False
        self.gone = False
        self.streams_limit = WINDOW_LIMIT
        self.out: list[bytes] = []
        # Bytes that wait for its window, of all streams; and the streams that they wait on.
        self.queued = 0
        self.blocked: dict[int, Half] = {}
        self._idle = 0
        self._unread = b""
        self._at = 0
        self._block: list[bytes] = []
        self._block_size = 0
        self._block_stream = 0
        self._block_flags = 0

    # --- bytes in, frames out

    def receive(self, data: bytes) -> None:
        at = self._at
        self._unread = self._unread[at:] + data if at < len(self._unread) else data
        self._at = 0
        if self._idle:
            self._idle -= 1
        if len(self._unread) > AHEAD_LIMIT:
            raise LimitExceeded(self.side, "HTTP/2: sent too much ahead of a verdict")

    def skip(self, start: bytes) -> bool:
        """Takes `start` off the front; False while it is not whole. Raises ConnectionFault where it differs."""
        have = self._unread[: len(start)]
        if not start.startswith(have):
            raise ConnectionFault(self.side, "does not begin as the RFC wants")
        if len(have) < len(start):
            return False
        self._at = len(start)
        return True

    @property
    def unread(self) -> bool:
        return self._at < len(self._unread)

    def next_frame(self) -> tuple[int, int, int, bytes] | None:
        """Kind, flags, stream and payload of the next frame, without padding; a field block comes as one HEADERS.

        Of DATA the padding stays, for it counts (`unpadded`). None where more bytes are needed.
        """
        while True:
            at, unread = self._at, self._unread
            if len(unread) - at < FRAME_HEADER:
                return None
            first, flags, stream = HEADER.unpack_from(unread, at)
            length, kind = first >> 8, first & 0xFF
            stream &= WINDOW_LIMIT
            if length > FRAME_LIMIT:
                raise ConnectionFault(self.side, f"a frame of more than {FRAME_LIMIT} bytes", FRAME_SIZE_ERROR)
            end = at + FRAME_HEADER + length
            if len(unread) < end:
                return None
            self._at = end
            payload = unread[at + FRAME_HEADER : end]
            if self._block_stream:
                if kind != CONTINUATION or stream != self._block_stream:
                    raise ConnectionFault(self.side, "another frame in the middle of a field block")
                whole = self._continue(flags, payload)
                if whole is not None:
                    return whole
            elif kind == CONTINUATION:
                raise ConnectionFault(self.side, "a CONTINUATION of nothing")
            elif kind == HEADERS and not flags & END_HEADERS:
                self._block_stream, self._block_flags = stream, flags
                self._block, self._block_size = [payload], length
            else:
                return kind, flags, stream, payload

    def _continue(self, flags: int, payload: bytes) -> tuple[int, int, int, bytes] | None:
        self._block.append(payload)
        self._block_size += len(payload)
        if self._block_size > HEAD_LIMIT or len(self._block) > CONTINUATION_LIMIT:
            raise ConnectionFault(self.side, "a field block that goes on and on", ENHANCE_YOUR_CALM)
        if not flags & END_HEADERS:
            return None
        block, stream = b"".join(self._block), self._block_stream
        if self._block_flags & PADDED:
            # Its padding is at the end of the first frame.
            block = unpadded(self.side, PADDED, self._block[0]) + b"".join(self._block[1:])
        self._block, self._block_stream = [], 0
        return HEADERS, (self._block_flags | END_HEADERS) & ~PADDED, stream, block

    def moved_nothing(self) -> None:
        """One more frame of the kinds that floods are made of."""
        self._idle += 1
        if self._idle > IDLE_LIMIT:
            raise ConnectionFault(self.side, f"more than {IDLE_LIMIT} frames that move nothing", ENHANCE_YOUR_CALM)

    def moved(self) -> None:
        """DATA went its way: its answer may be two frames of WINDOW_UPDATE."""
        self._idle = self._idle - 3 if self._idle > 3 else 0

    # --- windows

    def receive_flow(self, size: int) -> None:
        """DATA of `size` bytes, padding included, came."""
        self.granted -= size
        if self.granted < 0:
            raise ConnectionFault(self.side, "more DATA than the connection's window allows", FLOW_CONTROL_ERROR)

    def grant(self, room: int) -> None:
        """Lets it send until it has `room`, where that is worth a frame."""
        more = min(room, WINDOW_LIMIT) - self.granted
        if more > 0 and (more >= self.granted or more >= _LARGE_GRANT):
            self.granted += more
            self.out.append(window_update(0, more))

    def announce(self, initial: int) -> int:
        """Tells it another first window for its streams; returns the change for those that are open."""
        change = initial - self.announced
        if change:
            self.announced = initial
            if change < 0:
                self.slack -= change
            self.unacknowledged += 1
            self.out.append(settings(((4, initial),)))
        return change

    def acknowledged(self) -> None:
        if not self.unacknowledged:
            raise ConnectionFault(self.side, "an acknowledgement of no settings")
        self.unacknowledged -= 1
        if not self.unacknowledged:
            self.slack = 0

    def acknowledge(self) -> None:
        self.out.append(frame(4, ACK, 0))

    def take_out(self) -> bytes:
        out = self.out
        if not out:
            return b""
        self.out = []
        return out[0] if len(out) == 1 else b"".join(out)


class Half:
    """One direction of a stream: from `sender` to `receiver`, where it has the number `stream`.

    `window`: what the receiver takes of it; `granted`: what the sender may still send. `ended`: the sender is done;
    `over`: the receiver was told so. `length`: as announced, -1 where it was not; `seen`: so far.
    """

    __slots__ = (
        "_ending",
        "_queue",
        "_trailers",
        "ended",
        "granted",
        "length",
        "over",
        "queued",
        "receiver",
        "seen",
        "sender",
        "stream",
        "window",
    )

    def __init__(self, sender: Peer, receiver: Peer, stream: int) -> None:
        self.sender = sender
        self.receiver = receiver
        self.stream = stream
        self.window = receiver.initial
        self.granted = sender.announced
        self.ended = False
        self.over = False
        self.length = -1
        self.seen = 0
        self.queued = 0
        self._queue: list[bytes] = []
        self._ending = False
        self._trailers: Fields | None = None

    def head(self, block: bytes, *, end: bool) -> None:
        """A head, which no window holds back."""
        self.receiver.out.append(head_frames(self.stream, block, end=end))
        if end:
            self.over = True

    def push(self, data: bytes, *, end: bool) -> None:
        """Sends `data` as far as the windows allow and keeps the rest."""
        receiver, size = self.receiver, len(data)
        if self.queued or size > self.window or size > receiver.window or size > FRAME_LIMIT:
            self._queue.append(data)
            self.queued += size
            receiver.queued += size
            self._ending = end
            self.drain()
            return
        self.window -= size
        receiver.window -= size
        if size or end:
            receiver.out += (HEADER.pack(size << 8 | DATA, END_STREAM if end else 0, self.stream), data)
            receiver.moved()
        if end:
            self.over = True

    def finish(self, trailers: Fields) -> None:
        """Ends it with trailers, after all that is kept."""
        if self.queued:
            self._trailers = trailers
        else:
            self.head(self.receiver.encoder.encode(trailers), end=True)

    def drain(self) -> None:
        """Sends what is kept, as far as the windows allow."""
        receiver = self.receiver
        room = min(self.window, receiver.window, self.queued)
        if room > 0 or not self.queued:
            data = b"".join(self._queue)
            self._queue = [data[room:]] if room < len(data) else []
            self.queued -= room
            receiver.queued -= room
            self.window -= room
            receiver.window -= room
            last = self._ending and not self.queued
            for at in range(0, room, FRAME_LIMIT) if room else (0,):
                piece = data[at : min(at + FRAME_LIMIT, room)]
                end = last and at + FRAME_LIMIT >= room
                if piece or end:
                    receiver.out += (HEADER.pack(len(piece) << 8 | DATA, END_STREAM if end else 0, self.stream), piece)
                    receiver.moved()
            if last:
                self.over = True
            elif self._trailers is not None and not self.queued:
                self.head(receiver.encoder.encode(self._trailers), end=True)
        if self.queued:
            receiver.blocked[self.stream] = self
        else:
            receiver.blocked.pop(self.stream, None)

    def drop(self) -> None:
        """Nothing more of it goes on."""
        self.receiver.queued -= self.queued
        self.receiver.blocked.pop(self.stream, None)
        self.queued = 0
        self._queue = []
        self.over = True

    def take(self, size: int) -> bool:
        """Counts `size` bytes of DATA, padding included, against the sender's window; False where that is too much."""
        self.granted -= size
        return self.granted >= -self.sender.slack

    def grant(self, stream: int, more_room: int = 0) -> None:
        """Lets the sender, for whom it is `stream`, send what the receiver takes; `more_room` besides."""
        if self.ended:
            return
        more = min(self.window - self.queued + more_room, WINDOW_LIMIT) - self.granted
        if more > 0 and (more >= self.granted or more >= _LARGE_GRANT):
            self.granted += more
            self.sender.out.append(window_update(stream, more))


def unpadded(side: Side, flags: int, payload: bytes) -> bytes:
    """The payload of DATA or HEADERS without its padding (RFC 9113 section 6.1)."""
    if not flags & PADDED:
        return payload
    if not payload or payload[0] >= len(payload):
        raise ConnectionFault(side, "padding that is longer than its frame")
    return payload[1 : len(payload) - payload[0]]
