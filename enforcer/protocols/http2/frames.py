"""Step 4 of 6, inspect: frames of HTTP/2 on the wire (RFC 9113 section 4): their kinds, flags and codes, and how they
are written. Reading them is `peer`'s."""

from __future__ import annotations

from struct import Struct

from enforcer.errors import ProtocolError
from enforcer.flow import Side

# RFC 9113 section 3.4: what a client begins with.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEADER = 9
# Bytes of one frame's payload: the least that every peer takes (RFC 9113 section 4.2). No more is asked for or sent.
FRAME_LIMIT = 1 << 14
# RFC 9113 sections 6.9.1 and 6.9.2.
WINDOW_LIMIT = (1 << 31) - 1
FIRST_WINDOW = 65535

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)

END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x1, 0x4, 0x8, 0x20

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE, MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = (
    range(1, 7)
)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = range(4)
SETTINGS_TIMEOUT, STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM = range(4, 8)
CANCEL, COMPRESSION_ERROR, CONNECT_ERROR, ENHANCE_YOUR_CALM = range(8, 12)
INADEQUATE_SECURITY, HTTP_1_1_REQUIRED = 12, 13
# RFC 9113 section 7, as they are recorded.
CODE_NAMES = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)

# Length and type in one number, flags, stream.
HEADER = Struct("!IBI")
SETTING = Struct("!HI")
_NUMBER = Struct("!I")
_TWO_NUMBERS = Struct("!II")


class ConnectionFault(ProtocolError):
    """`side` broke the connection, in a way that no single stream can answer for. `code`: RFC 9113 section 7."""

    def __init__(self, side: Side, reason: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(side, f"HTTP/2: {reason}")
        self.code = code


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return HEADER.pack(len(payload) << 8 | kind, flags, stream) + payload


def head_frames(stream: int, block: bytes, *, end: bool) -> bytes:
    """A field block as HEADERS, and CONTINUATION where it is long."""
    flags = END_STREAM if end else 0
    if len(block) <= FRAME_LIMIT:
        return HEADER.pack(len(block) << 8 | HEADERS, flags | END_HEADERS, stream) + block
    parts = [block[at : at + FRAME_LIMIT] for at in range(0, len(block), FRAME_LIMIT)]
    first = frame(HEADERS, flags, stream, parts[0])
    middle = [frame(CONTINUATION, 0, stream, part) for part in parts[1:-1]]
    return b"".join((first, *middle, frame(CONTINUATION, END_HEADERS, stream, parts[-1])))


def reset(stream: int, code: int) -> bytes:
    return frame(RST_STREAM, 0, stream, _NUMBER.pack(code))


def window_update(stream: int, more: int) -> bytes:
    return frame(WINDOW_UPDATE, 0, stream, _NUMBER.pack(more))


def settings(pairs: tuple[tuple[int, int], ...]) -> bytes:
    return frame(SETTINGS, 0, 0, b"".join([SETTING.pack(name, value) for name, value in pairs]))


def goaway(last_stream: int, code: int, words: str = "") -> bytes:
    """`words`: for people who look at their client's log."""
    return frame(GOAWAY, 0, 0, _TWO_NUMBERS.pack(last_stream, code) + words.encode("ascii", "backslashreplace")[:1024])


def number(payload: bytes) -> int:
    """The 31 bits that windows and streams have, without the reserved one."""
    return int(_NUMBER.unpack_from(payload)[0]) & WINDOW_LIMIT


def code_name(payload: bytes, at: int = 0) -> str:
    """An error code's name; an unknown one is INTERNAL_ERROR (RFC 9113 section 7)."""
    code = _NUMBER.unpack_from(payload, at)[0]
    return CODE_NAMES[code] if code < len(CODE_NAMES) else CODE_NAMES[INTERNAL_ERROR]
