"""Step 4 of 6, inspect: rows within COPY's text format, so that they can be masked cell by cell.

Gets CopyData in any cut; hands on whole lines, their cells without escapes, and writes them again. Which columns they
are of is said by the statement. CSV, binary, and text with other signs than PostgreSQL's own stay texts.
Source: PostgreSQL documentation, COPY, "Text Format".
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.postgres.results import DIALECT, UNNAMED
from enforcer.protocols.statement_facts import columns_of
from enforcer.sql.shape import Doubtful, shape_of

MAX_LINE: Final = 64 << 20
"""Bytes of a line that is held until its end, as of any row that is masked."""

COPIED: Final = "copy"
COPIED_BINARY: Final = "binary copy"
"""Media of COPY's output."""

_NULL: Final = b"\\N"
_ESCAPE: Final = re.compile(rb"\\(x[0-9A-Fa-f]{1,2}|[0-7]{1,3}|.)", re.DOTALL)
_MEANT: Final = {b"b": b"\b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t", b"v": b"\v"}
_WRITTEN: Final = {
    0x08: b"\\b", 0x0C: b"\\f", 0x0A: b"\\n", 0x0D: b"\\r", 0x09: b"\\t", 0x0B: b"\\v", 0x5C: b"\\\\"
}  # fmt: skip
_SPECIAL: Final = re.compile(rb"[\b\f\n\r\t\v\\]")

_NAME: Final = r'(?:"(?:[^"]|"")+"|[a-z_\x80-\U0010ffff][a-z0-9_$\x80-\U0010ffff]*)'
_FLAGS: Final = re.IGNORECASE | re.DOTALL
# STDIN means the same here.
_PLAIN_END: Final = r"\s+TO\s+STD(?:OUT|IN)(?:\s+(?:WITH\s+)?\(\s*FORMAT\s+'?text'?\s*\))?\s*;?\s*"
_TABLE: Final = re.compile(rf"\s*COPY\s+({_NAME}(?:\s*\.\s*{_NAME})?)\s*(?:\(([^()]*)\))?{_PLAIN_END}", _FLAGS)
_TO_CLIENT: Final = re.compile(r"\s*COPY\s+(BINARY\b)?.*\sTO\s+STD(?:OUT|IN)\b(.*)", _FLAGS)
_BINARY: Final = re.compile(r"\bBINARY\b", _FLAGS)
# In a shape any; those that are not binary are known by the text.
_QUOTED: Final = re.compile(r"\bFORMAT\s+'s'", _FLAGS)
_NOT_BINARY: Final = re.compile(r"\bFORMAT\s+'(?:TEXT|CSV)'", _FLAGS)
_QUERY: Final = re.compile(rf"\s*COPY\s*\((.*)\){_PLAIN_END}", _FLAGS)


def columns_of_copy(text: str, cells: int) -> tuple[str, ...] | None:
    """The column names of a COPY TO STDOUT in the text format, of so many cells; None where it is in another format or
    not understood."""
    table, query = _TABLE.fullmatch(text), _QUERY.fullmatch(text)
    if query is not None:
        return columns_of(query[1], DIALECT, UNNAMED * cells)
    if table is None:
        return None
    selected = f"select {table[2] or '*'} from {table[1]}"  # noqa: S608 - only read here
    return columns_of(selected, DIALECT, UNNAMED * cells)


def media_of(text: str) -> str:
    """Of what a statement is answered with where that is COPY's output and no rows: COPIED or COPIED_BINARY; empty for
    any other, and for one that cannot be read."""
    if "std" not in text.lower() or columns_of_copy(text, 1) is not None:
        return ""
    try:
        copies = [found for part in shape_of(text, DIALECT).split(";") if (found := _TO_CLIENT.fullmatch(part))]
    except Doubtful:
        return ""
    quoted = _NOT_BINARY.search(text) is None
    if any(copy[1] or _BINARY.search(copy[2]) or (quoted and _QUOTED.search(copy[2])) for copy in copies):
        return COPIED_BINARY
    return COPIED if copies else ""


def unescaped(cell: bytes) -> bytes | None:
    """What a cell says; None for NULL."""
    if b"\\" not in cell:
        return cell
    return None if cell == _NULL else _ESCAPE.sub(_read, cell)


def _read(match: re.Match[bytes]) -> bytes:
    said = match[1]
    if said[:1] == b"x" and len(said) > 1:
        return bytes((int(said[1:], 16),))
    if said[:1] in b"01234567":
        return bytes((int(said, 8) & 0xFF,))
    return _MEANT.get(said, said)


def escaped(value: bytes | None) -> bytes:
    """A value as a cell."""
    if value is None:
        return _NULL
    return _SPECIAL.sub(lambda match: _WRITTEN[match[0][0]], value)


def cells_of(line: bytes) -> list[bytes | None]:
    """A line's cells."""
    return [unescaped(cell) for cell in line.split(b"\t")]


def line_of(values: list[bytes | None]) -> bytes:
    """A row, with the end of its line."""
    return b"\t".join(map(escaped, values)) + b"\n"


class Lines:
    """The lines of one copied text. `known`: does its statement say whose columns they are?"""

    def __init__(self, text: str, *, known: bool = True) -> None:
        self._text = text
        self._known = known
        self._rest = b""
        self._columns: tuple[str, ...] | None = None
        self.readable = columns_of_copy(text, 1) is not None

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that `data` completes, without their ends. Raises LimitExceeded for one that does not end."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > MAX_LINE:
            raise LimitExceeded(Side.SERVER, f"a line of COPY is over the limit of {MAX_LINE} bytes for masking")
        return lines

    def end(self) -> list[bytes]:
        """A last line that was not ended."""
        rest, self._rest = self._rest, b""
        return [rest] if rest else []

    def columns(self, cells: int) -> tuple[str, ...]:
        """Of a row with so many cells."""
        if self._columns is None or len(self._columns) != cells:
            known = columns_of_copy(self._text, cells) if self._known else None
            self._columns = known or ("",) * cells
        return self._columns
