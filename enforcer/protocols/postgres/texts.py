"""Step 4 of 6, inspect: the server's messages that can quote data, taken apart for the masker and put together again.

Gets ErrorResponse, NoticeResponse, NotificationResponse, ParameterStatus; hands on the parts that may hold data, as a
text joined by NUL bytes (PostgreSQL's text holds none) or as cells without a column, and rebuilds the message around
what comes back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.postgres.messages import MASKABLE_FIELDS, Reader, message, read_error

_SEPARATOR: Final = b"\x00"
_ERRORS: Final = b"EN"

ANYTHING: Final = ""
"""A message that may be data wholly: what NOTIFY and RAISE say, a setting, what a conversion could not read."""

STATEMENT: Final = "diagnostic"
"""It says where in the statement the fault is, and so was made before there were any data: it quotes the statement."""

NAMED: Final = "error"
"""Its sentence is PostgreSQL's own with names in it; values are in brackets or quotes, in its detail."""

_ELSEWHERE: Final = frozenset(b"Wqp")
"""Fields of what came about within functions, casts and copies: there any text is possible."""

_POSITION: Final = ord("P")
_SQLSTATE: Final = ord("C")

_NAMES_ONLY: Final = (
    *("08", "0B", "23", "25", "26", "28", "2D", "3B", "3D", "40", "53", "54", "55", "57"),
    *("42501", "42701", "42710", "42712", "42723", "42P03", "42P04", "42P05", "42P06", "42P07", "42P17"),
)
"""SQLSTATEs, by their beginning, of transactions, sessions, resources, constraints, and of names already taken."""


def _parts(raw: bytes) -> list[tuple[bytes, bytes, bool]]:
    """(what stands before it, the value, may it hold data?) of each NUL-terminated part of a message."""
    if raw[0] in _ERRORS:
        return [(bytes((code,)), value, code in MASKABLE_FIELDS) for code, value in read_error(raw)]
    reader = Reader(raw, Side.SERVER)
    before = reader.take(4) if raw[0] == ord("A") else b""
    name, value = reader.string(), reader.string()
    reader.end()
    return [(before, name, False), (b"", value, True)]


def kind(raw: bytes) -> str:
    """What such a message may hold: ANYTHING, STATEMENT or NAMED."""
    if raw[0] not in _ERRORS:
        return ANYTHING
    fields = dict(read_error(raw))
    if not _ELSEWHERE.isdisjoint(fields):
        return ANYTHING
    if _POSITION in fields:
        return STATEMENT
    return NAMED if fields.get(_SQLSTATE, b"").decode("latin-1").startswith(_NAMES_ONLY) else ANYTHING


def values_of(raw: bytes) -> list[bytes]:
    """The message's values that may hold data."""
    return [value for _, value, data in _parts(raw) if data]


def read_text(raw: bytes) -> bytes:
    """The same, joined by NUL bytes."""
    return _SEPARATOR.join(values_of(raw))


def write_text(raw: bytes, data: bytes) -> bytes:
    """`raw` with those values replaced by the ones in `data`. Raises ProtocolError where their number changed."""
    return write_values(raw, data.split(_SEPARATOR) if values_of(raw) else [])


def write_values(raw: bytes, values: Sequence[bytes | None]) -> bytes:
    """`raw` with those values replaced, by nothing where there is None. Raises ProtocolError where their number
    changed."""
    parts, rest = _parts(raw), list(values)
    if len(rest) != sum(maskable for _, _, maskable in parts):
        raise ProtocolError(Side.SERVER, "a masked message does not fit its fields")
    body = b""
    for before, value, maskable in parts:
        body += before + ((rest.pop(0) or b"") if maskable else value) + _SEPARATOR
    return message(raw[:1], body + (_SEPARATOR if raw[0] in _ERRORS else b""))


def is_copied(raw: bytes) -> bool:
    """Is this Text's message CopyData, or the end of copied text, rather than one of the above?"""
    return not raw or raw[0] == ord("d")
