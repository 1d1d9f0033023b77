"""Step 4 of 6, inspect: the server's messages that can quote data, taken apart for the masker and put together again.

Gets ErrorResponse, NoticeResponse, NotificationResponse, ParameterStatus; hands on the parts that may hold data,
joined by NUL bytes (PostgreSQL's text holds none), and rebuilds the message around what comes back.
"""

from __future__ import annotations

from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.postgres.messages import MASKABLE_FIELDS, Reader, message, read_error

_SEPARATOR: Final = b"\x00"
_MEDIA: Final = {ord("E"): "error", ord("N"): "error", ord("A"): "notification", ord("S"): "parameter"}


def _parts(raw: bytes) -> list[tuple[bytes, bytes, bool]]:
    """(what stands before it, the value, may it hold data?) of each NUL-terminated part of a message."""
    if raw[0] in b"EN":
        return [(bytes((code,)), value, code in MASKABLE_FIELDS) for code, value in read_error(raw)]
    reader = Reader(raw, Side.SERVER)
    before = reader.take(4) if raw[0] == ord("A") else b""
    name, value = reader.string(), reader.string()
    reader.end()
    return [(before, name, False), (b"", value, True)]


def read_text(raw: bytes) -> tuple[str, bytes]:
    """The message's media word, and its values that may hold data, joined by NUL bytes."""
    return _MEDIA[raw[0]], _SEPARATOR.join(value for _, value, data in _parts(raw) if data)


def write_text(raw: bytes, data: bytes) -> bytes:
    """`raw` with those values replaced by the ones in `data`. Raises ProtocolError where their number changed."""
    parts = _parts(raw)
    values = data.split(_SEPARATOR) if any(maskable for _, _, maskable in parts) else []
    if len(values) != sum(maskable for _, _, maskable in parts):
        raise ProtocolError(Side.SERVER, "a masked message does not fit its fields")
    body = b""
    for before, value, maskable in parts:
        body += before + (values.pop(0) if maskable else value) + _SEPARATOR
    return message(raw[:1], body + (_SEPARATOR if raw[0] in b"EN" else b""))


def is_copied(raw: bytes) -> bool:
    """Is this Text's message CopyData, or the end of copied text, rather than one of the above?"""
    return not raw or raw[0] == ord("d")
