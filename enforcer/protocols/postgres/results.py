"""Step 4 of 6, inspect: which columns the cells of a PostgreSQL result come from, and which of them are binary.

Gets statements that were allowed, and the server's descriptions; hands on column names for the masker. What FETCH and
EXECUTE do and give back is that of the cursors and statements they name. Where it is not known, the name is empty,
which every column's rule hides.
"""

from __future__ import annotations

import re
from enum import Enum, auto
from typing import Final

from enforcer.protocols.postgres.messages import MAX_NAME, Field, each_format
from enforcer.protocols.postgres.values import BYTES, STRINGS, TEXT_TYPES, decode
from enforcer.protocols.statement_facts import FUNCTION, JOINED, OPERATION, columns_of, is_utf8
from enforcer.sql.shape import Doubtful, shape_of

Layout = tuple[tuple[str, ...], tuple[bool, ...], tuple[bool, ...]]
"""The name of each column, whether its cells are in a binary format that is not their text, and whether clients read
them as texts."""

DIALECT: Final = "postgres"
_UNKNOWN: Final = "unknown"

UNNAMED: Final = ("*",)
"""A column that nobody has named: any of its table's."""

MAX_DEFINITIONS: Final = 1000
"""Cursors and statements whose queries are remembered per connection, and queries per name; past that none is known."""
MAX_MEANINGS: Final = 16
MAX_DEFINED: Final = 32 << 20
"""Characters of all of these queries, as of prepared statements (`names.MAX_STATEMENT_BYTES`)."""

_NAME: Final = r'("(?:[^"]|"")+"|[a-z_\x80-\U0010ffff][a-z0-9_$\x80-\U0010ffff]*)'
_FLAGS: Final = re.IGNORECASE | re.DOTALL
_DECLARE: Final = re.compile(
    rf"\s*DECLARE\s+{_NAME}(?:\s+(?:BINARY|ASENSITIVE|INSENSITIVE|NO\s+SCROLL|SCROLL))*\s+CURSOR"
    r"(?:\s+WITH(?:OUT)?\s+HOLD)?\s+FOR\s+(.*)",
    _FLAGS,
)
_PREPARE: Final = re.compile(rf"\s*PREPARE\s+{_NAME}\s*(?:\((?:[^()]|\([^()]*\))*\)\s*|\s)AS\s+(.*)", _FLAGS)
_DEFINITION: Final = re.compile(r"\s*(?:DECLARE|PREPARE)\b", re.IGNORECASE)
_DIRECTION: Final = (
    r"(?:(?:NEXT|PRIOR|FIRST|LAST|ALL|[+-]?\d+|(?:ABSOLUTE|RELATIVE)\s+[+-]?\d+"
    r"|(?:FORWARD|BACKWARD)(?:\s+(?:ALL|\d+))?)\s+)?"
)
_FETCH: Final = re.compile(rf"\s*FETCH\s+{_DIRECTION}(?:(?:FROM|IN)\s+)?{_NAME}\s*;?\s*", _FLAGS)
# Of a shape. What is computed for a parameter may come from anywhere.
_LITERAL: Final = r"\s*[+-]?\s*(?:'s'|1|NULL|TRUE|FALSE)\s*"
_EXECUTE: Final = re.compile(rf"\s*EXECUTE\s+{_NAME}\s*(?:\({_LITERAL}(?:,{_LITERAL})*\)\s*)?;?\s*", _FLAGS)
_EXECUTES: Final = re.compile(r"\s*(?:/\*.*?\*/\s*|--[^\r\n]*\s)*EXECUTE\b", _FLAGS)


class Kind(Enum):
    """What a name may be of. SQL and the protocol share both."""

    CURSOR = auto()  # a portal
    STATEMENT = auto()


def _plain(name: str) -> str:
    """A name as the server compares it."""
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()


def _statements(text: str) -> list[str]:
    """The shapes of the statements in a text; none where it cannot be read."""
    try:
        return [part for part in shape_of(text, DIALECT).split(";") if part.strip()]
    except Doubtful:
        return []


class Definitions:
    """The queries behind names that SQL can use: cursors (portals are some) and prepared statements.

    A name keeps every meaning it was ever given, for whether the server took a new one is known later than it is
    needed: one that failed, was rolled back or is no more only adds to what is behind its name. `_obscure`: something
    ran that may have given any name any meaning. `_by_sql`: the names that SQL gave a meaning, of which the protocol's
    own messages do not tell; `_shuffled`: it may have been any.
    """

    def __init__(self) -> None:
        self._queries: dict[tuple[Kind, str], list[str]] = {}
        self._by_sql: set[tuple[Kind, str]] = set()
        self._size = 0
        self._obscure = False
        self._shuffled = False

    def given(self, kind: Kind, name: bytes, query: str) -> None:
        """A Bind or a Parse that names what it makes goes to the server."""
        if name:
            self._add(kind, decode(name), query)

    def allowed(self, text: str, facts: dict[str, str]) -> None:
        """A statement goes to the server."""
        self._obscure |= _UNKNOWN in facts.get(OPERATION, "") or FUNCTION in facts
        lower = text.lower()
        if "declare" not in lower and "prepare" not in lower:
            return
        statements = _statements(text)
        if statements and not any(map(_DEFINITION.match, statements)):
            return
        declared, prepared = _DECLARE.fullmatch(text), _PREPARE.fullmatch(text)
        if len(statements) == 1 and declared is not None:
            self._add(Kind.CURSOR, _plain(declared[1]), declared[2], by_sql=True)
        elif len(statements) == 1 and prepared is not None:
            self._add(Kind.STATEMENT, _plain(prepared[1]), prepared[2], by_sql=True)
        else:
            self._obscure = self._shuffled = True

    def by_sql(self, kind: Kind, name: bytes) -> bool:
        """May `name` mean what SQL says, rather than what the protocol's messages said?"""
        return bool(name) and (self._shuffled or (kind, decode(name)) in self._by_sql)

    def behind(self, text: str) -> tuple[str, tuple[str, ...] | None]:
        """What the server carries out for `text`, and the queries whose columns the result has; None where those are
        not known."""
        executed = _EXECUTE.fullmatch(";".join(_statements(text))) if _EXECUTES.match(text) is not None else None
        if executed is not None:
            queries = self._known(Kind.STATEMENT, _plain(executed[1]))
            return ("\n;\n".join(queries) if queries else text), queries
        fetched = _FETCH.fullmatch(text)
        return text, (text,) if fetched is None else self._known(Kind.CURSOR, _plain(fetched[1]))

    def _known(self, kind: Kind, name: str) -> tuple[str, ...] | None:
        queries = None if self._obscure else self._queries.get((kind, name))
        return tuple(queries) if queries else None

    def _add(self, kind: Kind, name: str, query: str, *, by_sql: bool = False) -> None:
        # The server cuts longer names, and compares others than ASCII ones in the session's encoding.
        odd = len(name) > MAX_NAME or not name.isascii()
        if by_sql and not self._shuffled:
            self._by_sql.add((kind, name))
            self._shuffled = odd or len(self._by_sql) > MAX_DEFINITIONS
        if self._obscure:
            return
        queries = self._queries.setdefault((kind, name), [])
        if query not in queries:
            queries.append(query)
            self._size += len(query)
        full = len(queries) > MAX_MEANINGS or len(self._queries) > MAX_DEFINITIONS or self._size > MAX_DEFINED
        if odd or full:
            self._obscure = True
            self._queries.clear()


def lay_out(
    queries: tuple[str, ...] | None,
    fields: tuple[Field, ...] | None,
    formats: tuple[int, ...],
    cells: int,
    number: int = 0,
) -> Layout:
    """Of a row with so many cells, which is of one of `queries`, of its statement `number`. A description that does not
    fit it is none. `formats`: the format codes that were asked for."""
    described = fields if fields is not None and len(fields) == cells else None
    codes = each_format(formats, cells)
    if len(codes) != cells:
        codes = (1,) * cells  # cannot be: the server refuses such a Bind; binary is the careful reading
    types = tuple(field.type_oid for field in described) if described else (0,) * cells
    binary = tuple(
        oid in BYTES or (code == 1 and oid not in TEXT_TYPES) for code, oid in zip(codes, types, strict=True)
    )
    strings = tuple(oid in STRINGS for oid in types)
    own = tuple(decode(field.name) for field in described) if described else UNNAMED * cells
    if not queries:
        return ("",) * cells, binary, strings
    meanings = [columns_of(query, DIALECT, own, number) for query in queries]
    legible = [is_utf8(field.name) for field in described] if described else (True,) * cells
    named = zip(legible, zip(*meanings, strict=True), strict=True)
    return tuple(JOINED.join(one) if plain and all(one) else "" for plain, one in named), binary, strings
