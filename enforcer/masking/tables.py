"""Step 4 of 6, inspect: columns of CSV as it streams (RFC 4180), named by its first line.

Gets pieces; hands on whole records, the cells of named columns replaced and all others as they came. The first line
says what stands between cells: a comma, semicolon, tab or bar. Holds back the record that is not complete.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Final

from enforcer.masking.errors import MaskError
from enforcer.masking.places import Filler, StandIns
from enforcer.masking.text import TextMask

RECORD_LIMIT: Final = 1 << 20
"""Bytes of one record. PostgreSQL's longest line is larger, but nobody's table is so wide."""

_SIGNS: Final = b",;\t|"
_BOM: Final = b"\xef\xbb\xbf"
_END: Final = re.compile(rb'"|\r\n|\n|\r(?!\Z)')

Cell = Callable[[bytes, Counter[str]], bytes]
"""A cell's text in, what stands for it out."""


class Table:
    """One CSV text. `named(name)`: what replaces the cells of a column, None for one that stays. Behind it, `window`
    reads for detectors; what a column's operator has written is kept from it."""

    def __init__(self, named: Callable[[str], Cell | None], window: TextMask | None) -> None:
        self._named = named
        self._window = window
        self._begin()

    def _begin(self) -> None:
        self._held = b""
        self._searched = 0
        self._quoted = False
        self._sign = b""
        self._cells: dict[int, Cell] = {}
        self._width = 0
        self._stand_ins = StandIns()
        self._filler = Filler(self._stand_ins)

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        records = self._records(data, final, counts)
        if self._window is not None:
            records = self._filler.feed(self._window.feed(records, final, counts), final)
        if final:
            self._begin()
        return records

    def _records(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        held, out, at = self._held + data, [], 0
        place, quoted = self._searched, self._quoted
        while (found := _END.search(held, place)) is not None:
            place = found.end()
            if found[0] == b'"':
                quoted = not quoted
            elif not quoted:
                out.append(self._record(held[at : found.start()], counts) + found[0])
                at = place
        if final:
            if quoted:
                raise MaskError("a CSV text ends within quotes")
            if at < len(held):
                rest = held[at:].removesuffix(b"\r")
                out.append(self._record(rest, counts) + held[at + len(rest) :])
            return b"".join(out)
        if len(held) - at > RECORD_LIMIT:
            raise MaskError(f"a CSV record of more than {RECORD_LIMIT >> 20} MiB cannot be masked by column")
        self._held = held[at:]
        self._quoted = quoted
        self._searched = len(self._held) - (1 if self._held.endswith(b"\r") and not quoted else 0)
        return b"".join(out)

    def _record(self, record: bytes, counts: Counter[str]) -> bytes:
        if self._window is not None:
            record = self._stand_ins.shield(record)
        if not self._sign:
            self._head(record)
            return record
        if not self._cells or not record:
            return record
        cells = self._split(record)
        if len(cells) > self._width:
            raise MaskError("a CSV record has more cells than its first line has names")
        for index, replace in self._cells.items():
            if index < len(cells):
                plain = self._stand_ins.fill(_unquoted(cells[index]))
                new = replace(plain, counts)
                if new != plain:
                    cells[index] = self._written(new)
        return self._sign.join(cells)

    def _head(self, record: bytes) -> None:
        counted = [(record.count(bytes((sign,))), -place) for place, sign in enumerate(_SIGNS)]
        place = -max(counted)[1]
        self._sign = _SIGNS[place : place + 1]
        names = [_unquoted(cell).decode("utf-8", "replace") for cell in self._split(record.removeprefix(_BOM))]
        self._width = len(names)
        for index, name in enumerate(names):
            cell = self._named(name.strip())
            if cell is not None:
                self._cells[index] = cell

    def _split(self, record: bytes) -> list[bytes]:
        """Cells as they are written. Quotes come in pairs: a cell goes on while they do not."""
        if b'"' not in record:
            return record.split(self._sign)
        cells: list[bytes] = []
        part = b""
        for piece in record.split(self._sign):
            part = part + self._sign + piece if part else piece
            if part.count(b'"') % 2 == 0:
                cells.append(part)
                part = b""
        return [*cells, part] if part else cells

    def _written(self, text: bytes) -> bytes:
        if any(sign in text for sign in (b'"', b"\r", b"\n", self._sign)):
            text = b'"' + text.replace(b'"', b'""') + b'"'
        return text if self._window is None else self._stand_ins.put(text).encode()


def _unquoted(cell: bytes) -> bytes:
    stripped = cell.strip(b" ")
    if len(stripped) > 1 and stripped[:1] == b'"' and stripped[-1:] == b'"':
        return stripped[1:-1].replace(b'""', b'"')
    return cell
