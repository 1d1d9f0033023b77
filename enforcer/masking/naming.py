"""Step 4 of 6, inspect: the fields of one rule that are masked for their names, and what is put in their place.

Gets names and values of header fields, query and form pairs, CSV and result columns; hands on what takes a value's
place, or None where no item of the rule names it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from enforcer.masking.fields import ColumnRules, hide_cells, stars
from enforcer.masking.operators import Operators
from enforcer.masking.pseudonyms import LITERAL
from enforcer.masking.tables import Cell
from enforcer.verdict import Column, Field, Masked, MaskSpec, Operator

_WORD: Final = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:_[A-Za-z0-9]+)*")
_WORD_MAX: Final = 24
_KEPT: Final = 256
"""Names whose rule is remembered, per rule: of what one application sends, with room."""


def word_of(masked: Masked) -> str:
    """The word of a pseudonym: of a detector its name, of a field the last word in its name."""
    match masked:
        case str():
            return masked.upper()
        case Field():
            text = masked.name
        case Column():
            text = masked.pattern
        case path:
            text = path.path
    words = [word for word in _WORD.findall(text) if len(word) <= _WORD_MAX]
    # Digits at the end would run into the number.
    return (words[-1].upper().rstrip("0123456789_") if words else "") or LITERAL


class _Rule(NamedTuple):
    """What becomes of a field. `counted`: its name in the record. `word`: for a pseudonym of its value."""

    counted: str
    operator: Operator | None
    word: str


Told = Callable[[str, bytes, bytes | None, Operator | None], None]
"""Hears what an item (by its name in the record) has made of a value, and by which operator."""


class Names:
    """The fields of one rule. `kinds`: of which there are any. `told`: who wants to hear of each value."""

    def __init__(self, spec: MaskSpec, operators: dict[Masked, Operator], apply: Operators) -> None:
        self.kinds = frozenset(field.kind for field in spec.fields)
        self.told: Told | None = None
        self._apply = apply
        self._fields = [
            (
                field.kind,
                _matcher(field.name),
                _Rule(f"{field.kind} {field.name}", operators.get(field), word_of(field)),
            )
            for field in spec.fields
        ]
        self._columns = ColumnRules(spec.columns) if spec.columns else None
        self._by_pattern = {
            column.pattern: _Rule(column.pattern, operators.get(column), word_of(column)) for column in spec.columns
        }
        self._known: dict[tuple[str, str], _Rule | None] = {}

    def replaced(self, kind: str, name: str, value: bytes, counts: Counter[str]) -> bytes | None:
        """What stands for `value`; None where no item names it. Raises MaskError."""
        rule = self._rule(kind, name)
        return None if rule is None else self._put(rule, value, counts)

    def cell(
        self, pattern: str, value: bytes | None, counts: Counter[str], *, binary: bool, string: bool
    ) -> bytes | None:
        """A cell of the column that `pattern`, an item of the rule, names."""
        rule = self._by_pattern[pattern]
        if rule.operator is None:
            return hide_cells([value], binary, pattern, counts)[0]
        new = self._apply.cell(rule.operator, value, rule.word, binary=binary, string=string)
        if new != value:
            counts[pattern] += 1
        return new

    def csv(self, name: str) -> Cell | None:
        """What replaces the cells of the CSV column `name`: a `csv` item, or a `column` that may be it."""
        rule = self._rule("csv", name)
        if rule is None and self._columns is not None:
            pattern = self._columns.hidden((name,)).get(0)
            rule = None if pattern is None else self._by_pattern[pattern]
        return None if rule is None else partial(self._put, rule)

    def _put(self, rule: _Rule, value: bytes, counts: Counter[str]) -> bytes:
        if rule.operator is None:
            new = stars(value.decode("utf-8", "replace")).encode()
        else:
            new = self._apply.plain(rule.operator, value, rule.word) if value else value
        if new != value:
            counts[rule.counted] += 1
            if self.told is not None:
                self.told(rule.counted, value, new, rule.operator)
        return new

    def _rule(self, kind: str, name: str) -> _Rule | None:
        if (kind, name) not in self._known:
            if len(self._known) >= _KEPT:
                self._known.clear()
            fitting = (rule for known, matcher, rule in self._fields if known == kind and matcher.fullmatch(name))
            self._known[kind, name] = next(fitting, None)
        return self._known[kind, name]


def _matcher(pattern: str) -> re.Pattern[str]:
    return re.compile(".*".join(map(re.escape, pattern.split("*"))), re.IGNORECASE | re.DOTALL)
