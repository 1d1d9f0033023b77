"""Step 4 of 6, inspect: what MySQL's client says, with values hidden on their way out.

Gets statements and bound values, and a `Rewrite`; hands on the same with values hidden. A value may only be hidden
within a literal: the statement must stay the one that was judged, so that what stands for a value can never end a
string or a comment. Source: MySQL Reference Manual, "Language Structure".
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.errors import Unwritable
from enforcer.protocols.base import CellRewrite, Rewrite
from enforcer.protocols.mysql.handshake import decode
from enforcer.protocols.mysql.packets import text_encoded
from enforcer.protocols.mysql.statements import Bound
from enforcer.protocols.mysql.understanding import parameters_of
from enforcer.protocols.mysql.values import COUNTED

UNWRITTEN: Final = "a value that has to be masked is not within a literal of the statement; pass it as a parameter"

_TOKEN: Final = re.compile(
    rb"""(?P<comment>--(?=[\s\x00]|$)[^\n]*|\#[^\n]*|/\*(?!M?!).*?\*/)
       | (?P<number>[xXbB]'[^']*'|\.?[0-9][0-9A-Za-z_.]*)
       | (?P<literal>[nN]?'(?:[^'\\]|\\.|'')*'|"(?:[^"\\]|\\.|"")*")
       | (?P<other>`(?:[^`]|``)*`|[A-Za-z_$@\x80-\xff][A-Za-z0-9_$@\x80-\xff]*|\s+|/\*M?!|\*/|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_ESCAPED: Final = re.compile(rb"(?s)\\(.)|''|\"\"")
_MEANT: Final = {
    b"0": b"\0",
    b"b": b"\b",
    b"n": b"\n",
    b"r": b"\r",
    b"t": b"\t",
    b"Z": b"\x1a",
    b"%": b"\\%",
    b"_": b"\\_",
}


def statement(text: bytes, rewrite: Rewrite, misread: bytes) -> bytes:
    """A statement with values in its literals hidden; a number becomes NULL, a comment goes. `misread`: characters that
    mean something else to the server. Raises Unwritable where a value is anywhere else."""
    if any(character in text for character in misread):
        if rewrite(text) != text:
            raise Unwritable(UNWRITTEN)
        return text
    written = _TOKEN.sub(lambda token: _token(token, rewrite), text)
    if rewrite(written) != written:
        raise Unwritable(UNWRITTEN)
    return written


def _token(token: re.Match[bytes], rewrite: Rewrite) -> bytes:
    said = token[0]
    if token.lastgroup == "other":
        return said
    if token.lastgroup == "literal":
        start = said.index(said[-1:]) + 1
        value = _ESCAPED.sub(_meant, said[start:-1])
        hidden = rewrite(value)
        return said if hidden == value else b"'" + hidden.replace(b"\\", b"\\\\").replace(b"'", b"''") + b"'"
    if rewrite(said) == said:
        return said
    return b" NULL " if token.lastgroup == "number" else b" "


def _meant(escape: re.Match[bytes]) -> bytes:
    """What an escape within a string stands for."""
    after = escape[1]
    return escape[0][:1] if after is None else _MEANT.get(after, after)


def bound(values: Bound, text: bytes, rewrite: Rewrite) -> bool:
    """Hides values among what is bound, by what they hold and by the columns they meet; returns whether there were any.
    What is no string becomes NULL."""
    cells = [values.ahead.get(index, value.text) for index, value in enumerate(values.values)]
    if isinstance(rewrite, CellRewrite):
        known = parameters_of(text, len(cells))
        names = tuple(decode(one.name) if one.name else name for one, name in zip(values.values, known, strict=True))
        hidden = rewrite.cells(names, cells, (False,) * len(cells)) or cells
    else:
        hidden = [cell if cell is None else rewrite(cell) for cell in cells]
    for index, (cell, kept) in enumerate(zip(cells, hidden, strict=True)):
        if cell == kept:
            continue
        value, fits = (
            values.values[index],
            kept is not None and (index in values.ahead or values.values[index].kind in COUNTED),
        )
        if index in values.ahead and kept is not None:
            values.ahead[index] = kept
            continue
        values.ahead.pop(index, None)
        value.text = kept if fits else None
        value.raw = text_encoded(kept) if fits else b""
    return cells != hidden
