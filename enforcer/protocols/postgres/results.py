"""Step 4 of 6, inspect: which columns the cells of a PostgreSQL result come from, and which of them are binary.

Gets statements as they were judged, and the server's descriptions; hands on column names for the masker. What SQL's
FETCH and EXECUTE give back is that of the cursors and statements they name. Where it is not known, the name is empty,
which every column's rule hides.
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.protocols.postgres.messages import MAX_NAME, Field, each_format
from enforcer.protocols.postgres.values import TEXT_TYPES, decode
from enforcer.protocols.statement_facts import FUNCTION, JOINED, OPERATION, columns_of

Layout = tuple[tuple[str, ...], tuple[bool, ...]]
"""The name of each column, and whether its cells are in a binary format that is not their text."""

DIALECT: Final = "postgres"
_UNKNOWN: Final = "unknown"

UNNAMED: Final = ("*",)
"""A column that nobody has named: any of its table's."""

MAX_DEFINITIONS: Final = 1000
"""Cursors and statements whose queries are remembered per connection, and queries per name; past that none is known."""
MAX_MEANINGS: Final = 16

_NAME: Final = r'("(?:[^"]|"")+"|[a-z_\x80-\U0010ffff][a-z0-9_$\x80-\U0010ffff]*)'
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_DECLARE: Final = re.compile(
    rf"\s*DECLARE\s+{_NAME}(?:\s+(?:BINARY|ASENSITIVE|INSENSITIVE|NO\s+SCROLL|SCROLL))*\s+CURSOR"
    r"(?:\s+WITH(?:OUT)?\s+HOLD)?\s+FOR\s+(.*)",
    _FLAGS,
)
_PREPARE: Final = re.compile(rf"\s*PREPARE\s+{_NAME}\s*(?:\([^()]*\)\s*|\s)AS\s+(.*)", _FLAGS)
_DEFINES: Final = re.compile(r"DECLARE|PREPARE", re.IGNORECASE)
_DIRECTION: Final = (
    r"(?:(?:NEXT|PRIOR|FIRST|LAST|ALL|[+-]?\d+|(?:ABSOLUTE|RELATIVE)\s+[+-]?\d+"
    r"|(?:FORWARD|BACKWARD)(?:\s+(?:ALL|\d+))?)\s+)?"
)
_FETCH: Final = re.compile(rf"\s*FETCH\s+{_DIRECTION}(?:(?:FROM|IN)\s+)?{_NAME}\s*;?\s*", _FLAGS)
_EXECUTE: Final = re.compile(rf"\s*EXECUTE\s+{_NAME}\s*(?:\([^;]*\))?\s*;?\s*", _FLAGS)


def _plain(name: str) -> str:
    """A name as the server compares it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


class Definitions:
    """The queries behind names that SQL can fetch from: cursors (portals are some) and prepared statements.

    A name keeps every meaning it was ever given, for whether the server took a new one is known later than it is
    needed. `_obscure`: something ran that may have given any name any meaning."""

    def __init__(self) -> None:
        self._queries: dict[tuple[re.Pattern[str], str], list[str]] = {}
        self._obscure = False

    def portal(self, name: bytes, query: str) -> None:
        self._add(_FETCH, decode(name), query)

    def statement(self, name: bytes, query: str) -> None:
        self._add(_EXECUTE, decode(name), query)

    def judged(self, text: str, facts: dict[str, str]) -> None:
        """A statement goes to the server."""
        if self._obscure:
            return
        if _DEFINES.search(text) is not None:
            declared, prepared = _DECLARE.fullmatch(text), _PREPARE.fullmatch(text)
            if declared is not None:
                self._add(_FETCH, _plain(declared[1]), declared[2])
            elif prepared is not None:
                self._add(_EXECUTE, _plain(prepared[1]), prepared[2])
            elif "'" not in text or ";" in text:  # else most likely a value with such a word in it
                self._obscure = True
        opaque = _UNKNOWN in facts.get(OPERATION, "") and _EXECUTE.fullmatch(text) is None
        self._obscure |= opaque or FUNCTION in facts

    def behind(self, text: str) -> tuple[str, ...] | None:
        """The queries whose columns the result of `text` has; None where that is not known."""
        for pattern in (_FETCH, _EXECUTE):
            named = pattern.fullmatch(text)
            if named is not None:
                return None if self._obscure else self._known(pattern, _plain(named[1]))
        return (text,)

    def _known(self, pattern: re.Pattern[str], name: str) -> tuple[str, ...] | None:
        queries = self._queries.get((pattern, name))
        return tuple(queries) if queries else None

    def _add(self, pattern: re.Pattern[str], name: str, query: str) -> None:
        if not name or self._obscure:
            return
        queries = self._queries.setdefault((pattern, name), [])
        if query not in queries:
            queries.append(query)
        full = len(queries) > MAX_MEANINGS or len(self._queries) > MAX_DEFINITIONS
        if full or len(name.encode()) > MAX_NAME:
            self._obscure = True
            self._queries.clear()


def lay_out(
    queries: tuple[str, ...] | None, fields: tuple[Field, ...] | None, formats: tuple[int, ...], cells: int
) -> Layout:
    """Of a row with so many cells, which is of one of `queries`. A description that does not fit it is none. `formats`:
    the format codes that were asked for."""
    described = fields if fields is not None and len(fields) == cells else None
    codes = each_format(formats, cells)
    if len(codes) != cells:
        codes = (1,) * cells  # cannot be: the server refuses such a Bind; binary is the careful reading
    types = tuple(field.type_oid for field in described) if described else (0,) * cells
    binary = tuple(code == 1 and oid not in TEXT_TYPES for code, oid in zip(codes, types, strict=True))
    own = tuple(decode(field.name) for field in described) if described else UNNAMED * cells
    if not queries:
        return ("",) * cells, binary
    meanings = [columns_of(query, DIALECT, own) for query in queries]
    return tuple(JOINED.join(one) if all(one) else "" for one in zip(*meanings, strict=True)), binary
