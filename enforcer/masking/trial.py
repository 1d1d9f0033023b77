"""Step 4 of 6, inspect: a masker that tells what it did, for people who try out a mask.

Gets what a `Masker` gets, and does the same; keeps of each value where it was, why it counts as one, what stands there
now, and what put that there. Never the value itself. Only the command line has one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import orjson

from enforcer.masking import members, reasons
from enforcer.masking.escapes import unescape
from enforcer.masking.events import Events
from enforcer.masking.form import Form
from enforcer.masking.keys import Keys
from enforcer.masking.masker import Masker
from enforcer.masking.scanner import Scanner
from enforcer.masking.tables import Cell
from enforcer.masking.text import Lines, TextMask
from enforcer.verdict import MaskSpec, Operator

_BY_DEFAULT: Final = "mask, or null"
_NULL: Final = "null"
_NAMED: Final = "its name"


@dataclass(frozen=True)
class Value:
    """One value. `found`: by which detector, or as which field. `place`: the field, event or document, or line and
    column of a text, or row and name of a column, from 1 on. `offset`: bytes before it in what is read as one: the
    text, the field or the cell; of JSON, as it is once its escapes are written out. `shown`: what stands there now.
    `operator`: what put it there."""

    found: str
    place: str
    offset: int
    length: int
    shown: str
    why: str
    operator: str


class Trial(Masker):
    """See the module. `values`: what was hidden so far. `row`: the number of the row that is masked next."""

    def __init__(self, spec: MaskSpec, keys: Keys | None = None) -> None:
        super().__init__(spec, keys)
        self.names_fields = True
        self.values: list[Value] = []
        self.row = 1
        self._operators = dict(reversed(spec.operators))
        self._by_column = {column.pattern: self._operators.get(column) for column in spec.columns}
        self._place = ""
        self._in_part = False
        self._documents = 0
        if self._names is not None:
            self._names.told = self._tell_named

    def at(self, place: str) -> None:
        """What is masked next, in words."""
        self._place = place

    # --- the pieces that a masker masks one by one

    def replaced(self, kind: str, name: str, value: bytes, counts: Counter[str]) -> bytes | None:
        self.at(f"{kind} {name}")
        return super().replaced(kind, name, value, counts)

    def field(self, name: str, value: bytes, counts: Counter[str]) -> bytes:
        self.at(f"header {name}")
        return super().field(name, value, counts)

    def mask(self, data: bytes, counts: Counter[str]) -> bytes:
        masked = super().mask(data, counts)
        if masked != data and self._scanner is not None:
            plain = unescape(data)
            self._tell(self._scanner, plain if self._scanner.hits(plain) else data, None)
        return masked

    def rows(
        self,
        columns: tuple[str, ...],
        values: list[bytes | None],
        binary: tuple[bool, ...],
        counts: Counter[str],
        *,
        strings: tuple[bool, ...] = (),
    ) -> list[bytes | None] | None:
        """One row."""
        self.row += 1
        masked = super().rows(columns, values, binary, counts, strings=strings)
        named = {} if self._columns is None else self._columns.hidden(columns)
        for index, (old, new) in enumerate(zip(values, masked or values, strict=True)):
            if old is None or old == new:
                continue
            self.at(f"{self.row}:{columns[index]}")
            if index in named:
                self._tell_named(named[index], old, new, self._by_column[named[index]])
            elif self._scanner is not None:
                json = 0 if old[:1] in (b"{", b"[") else None
                self._tell(self._scanner, old if json is None else unescape(old), json, null=new is None)
        return masked

    def text(self, media: str) -> TextMask:
        if not self._in_part:
            self.at("")  # a part without a name
        self._in_part = False
        mask = super().text(media)
        if isinstance(mask, Form):
            return Form(self._piece, self._form_pair)
        self._documents = 0
        if isinstance(mask, Events):
            return Events(self._event, self.mask)
        return Lines(self._line) if isinstance(mask, Lines) else mask

    def _window(self, scanner: Scanner, *, json: bool) -> TextMask:
        return _Heard(super()._window(scanner, json=json), partial(self._tell_window, scanner, json, self._place))

    def _form_pair(self, name: str, value: bytes, counts: Counter[str]) -> bytes | None:
        return self.replaced("form", name, value, counts)

    def _form_part(self, name: str) -> TextMask | None:
        self.at(f"form {name}")
        mask = super()._form_part(name)
        self._in_part = mask is None
        return mask

    def _csv(self, name: str) -> Cell | None:
        cell = super()._csv(name)
        if cell is None:
            return None
        row = 1

        def numbered(value: bytes, counts: Counter[str]) -> bytes:
            nonlocal row
            row += 1
            self.at(f"{row}:{name}")
            return cell(value, counts)

        return numbered

    def _event(self, data: bytes, counts: Counter[str]) -> bytes:
        self._documents += 1
        self.at(f"event {self._documents}")
        return self._piece(data, counts)

    def _line(self, text: bytes, counts: Counter[str]) -> bytes:
        self._documents += 1
        self.at(f"document {self._documents}")
        return self._json(text, counts)

    def _json(self, text: bytes, counts: Counter[str]) -> bytes:
        masked = super()._json(text, counts)
        if masked != text and not self._paths and self._scanner is not None:
            self._tell(self._scanner, unescape(text), 0)
        return masked

    def _document(self, text: bytes, counts: Counter[str]) -> bytes:
        written = super()._document(text, counts)
        if text.strip():
            plain, before = unescape(text), len(self.values)
            named = self._tell_members(plain, written)
            if self._scanner is not None:
                self._tell(self._scanner, plain, 0, but=named)
            self.values[before:] = sorted(self.values[before:], key=lambda value: value.offset)
        return written

    # --- telling

    def _tell_window(self, scanner: Scanner, json: bool, place: str, text: bytes) -> None:
        self.at(place)
        if json:
            self._tell(scanner, unescape(text), 0)
        else:
            self._tell(scanner, text, None)

    def _tell(
        self,
        scanner: Scanner,
        text: bytes,
        json: int | None,
        *,
        null: bool = False,
        but: Sequence[tuple[int, int]] = (),
    ) -> None:
        """What detectors find in `text`, but in some places. `null`: it is nothing now, whatever they put there."""
        where, skipped = _Places(text, self._place), sorted(but, reverse=True)
        for one in reasons.found(scanner, text, json):
            while skipped and skipped[-1][1] <= one.start:
                skipped.pop()
            if skipped and skipped[-1][0] <= one.start:
                continue
            shown, done = (_NULL, reasons.TYPED) if null else (_text(one.put), one.operator)
            self.values.append(
                Value(one.names, where.of(one.start), one.start, one.end - one.start, shown, one.why, done)
            )

    def _tell_named(self, counted: str, old: bytes, new: bytes | None, operator: Operator | None) -> None:
        shown, done = _NULL if new is None else _text(new), str(operator or _BY_DEFAULT)
        self.values.append(Value(counted, self._place, 0, len(old), shown, _NAMED, done))

    def _tell_members(self, text: bytes, written: bytes) -> list[tuple[int, int]]:
        """What became of the members that are named; where they stand."""
        before, after = members.spans(text), members.spans(written)
        told: dict[tuple[int, int], Value] = {}
        for path, said in zip(self._paths, self._spec.json_paths, strict=True):
            for name in members.selected(text, path):
                start, end = span = before[name]
                new = written[slice(*after[name])] if name in after else b"null"
                value = orjson.loads(new)
                if span in told or orjson.loads(text[start:end]) == value:
                    continue
                shown = value if isinstance(value, str) else _text(new)
                done = str(self._operators.get(said) or _BY_DEFAULT)
                told[span] = Value(path.text, "", start, end - start, shown, f"{name} is named", done)
        where = _Places(text, self._place)
        for span in sorted(told):
            one = told[span]
            place = where.of(one.offset)
            self.values.append(Value(one.found, place, one.offset, one.length, one.shown, one.why, one.operator))
        return list(told)


class _Heard:
    """A mask whose text `hear` gets once it is whole."""

    def __init__(self, mask: TextMask, hear: Callable[[bytes], None]) -> None:
        self._mask = mask
        self._hear = hear
        self._pieces: list[bytes] = []

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        self._pieces.append(data)
        masked = self._mask.feed(data, final, counts)
        if final:
            whole, self._pieces = b"".join(self._pieces), []
            self._hear(whole)
        return masked


class _Places:
    """Line and column, in characters, of places in `text` that are asked for from left to right; where it is `within`
    something, that."""

    def __init__(self, text: bytes, within: str) -> None:
        self._text = text
        self._within = within
        self._line = 1
        self._begun = 0
        self._seen = 0

    def of(self, offset: int) -> str:
        if self._within:
            return self._within
        self._line += self._text.count(b"\n", self._seen, offset)
        self._begun = max(self._begun, self._text.rfind(b"\n", self._seen, offset) + 1)
        self._seen = offset
        return f"{self._line}:{len(_text(self._text[self._begun : offset])) + 1}"


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape")
