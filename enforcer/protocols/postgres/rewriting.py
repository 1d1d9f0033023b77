"""Step 4 of 6, inspect: what PostgreSQL's client says, with values hidden on their way out.

Gets whole messages and a `Rewrite`; hands on messages. A value may only be hidden within a literal: the statement must
stay the one that was judged, so that asterisks can never end or begin a comment, a string or an operator.
Source: PostgreSQL documentation, "Lexical Structure".
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from enforcer.errors import Unwritable
from enforcer.flow import Side
from enforcer.protocols.base import CellRewrite, Rewrite
from enforcer.protocols.postgres import messages
from enforcer.protocols.postgres.binary import said, unsaid
from enforcer.protocols.postgres.names import Statement
from enforcer.protocols.postgres.results import DIALECT, UNNAMED
from enforcer.protocols.postgres.values import TEXT_TYPES
from enforcer.protocols.statement_facts import DOUBT, JOINED, parameters_of

UNWRITTEN: Final = "a value that has to be masked is not within a literal of the statement; pass it as a parameter"

_TOKEN: Final = re.compile(
    rb"""(?P<comment>--[^\r\n]*|/\*)
       | (?P<literal>[eE]'(?:[^'\\]|\\.|'')*' | (?:[uU]&|[nNbBxX])?'(?:[^']|'')*'
          | (?:[uU]&)?"(?:[^"]|"")*"
          | \$(?P<tag>(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?)\$.*?\$(?P=tag)\$)
       | (?P<number>\.?[0-9][0-9A-Za-z_.]*)
       | (?P<word>[A-Za-z_\x80-\xff][A-Za-z0-9_$\x80-\xff]*|\$[0-9]+)
       | (?P<sign>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_EDGE: Final = re.compile(rb"/\*|\*/")
_STAR: Final = ord("*")
_QUOTES: Final = frozenset(b"'\"\\$\x00")


def _tokens(text: bytes) -> Iterator[tuple[str, int, int]]:
    """(kind, start, end) of everything in a statement."""
    pos = 0
    while pos < len(text):
        match = _TOKEN.match(text, pos)
        kind = (match.lastgroup if match is not None else None) or "sign"
        end = match.end() if match is not None else pos + 1
        if kind == "tag":
            kind = "literal"
        if kind == "comment" and text[pos : pos + 2] == b"/*":
            end = _comment_end(text, pos)
        yield kind, pos, end
        pos = end


def _comment_end(text: bytes, start: int) -> int:
    """Comments nest."""
    depth, pos = 1, start + 2
    while depth:
        edge = _COMMENT_EDGE.search(text, pos)
        if edge is None:
            return len(text)
        depth += 1 if edge[0] == b"/*" else -1
        pos = edge.end()
    return pos


def _only_stars(before: bytes, after: bytes) -> bool:
    """Did nothing change but characters of the literal's value, to asterisks?"""
    return all(
        one == other or (other == _STAR and one not in _QUOTES) for one, other in zip(before, after, strict=True)
    )


def statement(text: bytes, rewrite: Rewrite) -> bytes:
    """A statement with values in its literals hidden; a number becomes NULL, a comment goes. Raises Unwritable where
    a value is anywhere else."""
    masked = rewrite(text)
    if masked == text:
        return text
    if len(masked) != len(text):
        raise Unwritable(UNWRITTEN)
    out: list[bytes] = []
    for kind, start, end in _tokens(text):
        before, after = text[start:end], masked[start:end]
        if before == after:
            out.append(before)
        elif kind == "literal" and _only_stars(before, after):
            out.append(after)
        elif kind == "number":
            out.append(b" NULL ")
        elif kind == "comment":
            out.append(b" ")
        else:
            raise Unwritable(UNWRITTEN)
    return b"".join(out)


def query(raw: bytes, rewrite: Rewrite) -> bytes:
    """A Query."""
    return messages.message(b"Q", statement(messages.read_string(raw, Side.CLIENT), rewrite) + b"\x00")


def parse(raw: bytes, rewrite: Rewrite) -> bytes:
    """A Parse."""
    name, text, _ = messages.read_parse(raw)
    tail = raw[messages.BODY + len(name) + len(text) + 2 :]
    return messages.message(b"P", name + b"\x00" + statement(text, rewrite) + b"\x00" + tail)


def bind(raw: bytes, prepared: Statement, rewrite: Rewrite) -> bytes:
    """A Bind, its parameters by the columns they meet and by what they hold."""
    read = messages.read_bind(raw)
    values = _hidden(read.values, read.parameter_formats, prepared.oids, _columns(prepared, len(read.values)), rewrite)
    head = read.portal + b"\x00" + read.statement + b"\x00"
    body = head + messages.formats(read.parameter_formats) + messages.values(values)
    return messages.message(b"B", body + messages.formats(read.result_formats))


def function_call(raw: bytes, rewrite: Rewrite) -> bytes:
    """A FunctionCall, whose arguments may go anywhere."""
    read = messages.read_function_call(raw)
    values = _hidden(read.values, read.formats, (), ("",) * len(read.values), rewrite)
    oid, result = read.oid.to_bytes(4, "big"), read.result_format.to_bytes(2, "big")
    return messages.message(b"F", oid + messages.formats(read.formats) + messages.values(values) + result)


def _columns(prepared: Statement, count: int) -> tuple[str, ...]:
    """The columns that each parameter meets; of a statement that is not understood, any."""
    if prepared.queries != (prepared.text,) or DOUBT in prepared.facts:
        return ("",) * count
    known = [JOINED.join(columns) for columns in parameters_of(prepared.text, DIALECT)]
    return tuple(name or UNNAMED[0] for name in (known + [""] * count)[:count])


def _hidden(
    values: tuple[bytes | None, ...],
    formats: tuple[int, ...],
    oids: tuple[int, ...],
    columns: tuple[str, ...],
    rewrite: Rewrite,
) -> list[bytes | None]:
    """Parameters; a binary one with a value in it becomes NULL."""
    types = (oids + (0,) * len(values))[: len(values)]
    codes = messages.each_format(formats, len(values))
    binary = tuple(code == 1 and oid not in TEXT_TYPES for code, oid in zip(codes, types, strict=True))
    cells = list(values)
    told = [
        said(cell, oid) if cell and packed else cell for cell, oid, packed in zip(cells, types, binary, strict=True)
    ]
    if isinstance(rewrite, CellRewrite):
        hidden = rewrite.cells(columns, told, binary) or told
    else:
        hidden = [rewrite(cell) if cell else cell for cell in told]
        hidden = [None if packed and new != old else new for packed, new, old in zip(binary, hidden, told, strict=True)]
    return unsaid(cells, told, hidden)
