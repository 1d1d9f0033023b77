"""Step 4 of 6, inspect: values hidden for where they are, whatever they look like: SQL columns and JSON members.

Nothing of the value stays: a text becomes asterisks, anything else a null. Where it is not known which table or column
a value is from, it is taken to be from the one that is named.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import lru_cache
from operator import ne
from typing import Any, Final

from enforcer.verdict import Column

_STARS_MAX: Final = 16
"""Asterisks that stand for a text of so many characters or more: longer ones tell more about it than they help."""

_RULES_CACHED: Final = 256
"""Column tuples remembered per masker: the result shapes of one application, with room."""

# Text-format cells that a client turns into something else than a string, and so cannot read as asterisks.
_TYPED: Final = re.compile(
    r"""[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)? | nan | [+-]?infinity   # numbers
      | -?\$[0-9,.]+                                                               # money
      | t | f | true | false
      | [0-9]{4,6}-[0-9]{2}-[0-9]{2}(?:[ T][0-9:.]+.*)?(?:\ BC)?                   # date, timestamp
      | [0-9]{2}:[0-9]{2}(?::[0-9.]+)?(?:[+-][0-9:]+)?                             # time
      | -?[0-9]+\ (?:year|mon|day)s?.*                                             # interval
      | [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                                # uuid
      | (?:[0-9]{1,3}\.){3}[0-9]{1,3}(?:/[0-9]+)?                                  # inet
      | \\x[0-9a-f]*                                                               # bytea
      | [{\[(].*                                                                   # json, array, range, record
    """,
    re.VERBOSE | re.IGNORECASE | re.DOTALL,
)


_PLAIN: Final = frozenset(b"GHJKLMOPQRSUVWXYZghjklmopqrsuvwxyz")
"""Characters that begin none of these."""

_ALIKE: Final = bytes.maketrans(b"123456789", b"0" * 9)
"""To none of them it matters which digit it is; so most values of a column look alike."""

_SHAPES_CACHED: Final = 1024
_SHAPE_CACHED: Final = 64
"""So many, of so many bytes."""

_ASTERISKS: Final = tuple(b"*" * count for count in range(_STARS_MAX + 1))


def _stars(text: str) -> str:
    return "*" * min(len(text), _STARS_MAX)


def hide_json(value: Any) -> Any:
    """A string becomes asterisks; a number, boolean, object or array becomes null."""
    return (_stars(value) or value) if isinstance(value, str) else None


def hide_cells(values: list[bytes | None], binary: bool, rule: str, counts: Counter[str]) -> list[bytes | None]:
    """The cells of one column, and how many of them changed, counted for `rule`: a text becomes asterisks; what is
    binary, or looks like a number, a date or the like, becomes NULL."""
    hidden: list[bytes | None] = [None] * len(values) if binary else list(map(_hide_cell, values))
    changed = sum(map(ne, hidden, values))
    if changed:
        counts[rule] += changed
    return hidden


def _hide_cell(value: bytes | None) -> bytes | None:
    if not value:
        return value
    if not value.isascii():
        text = value.decode("utf-8", "replace")
        return None if _TYPED.fullmatch(text) else _stars(text).encode()
    if value[0] not in _PLAIN:
        shape = value.translate(_ALIKE)
        if _is_typed(shape) if len(shape) <= _SHAPE_CACHED else _TYPED.fullmatch(shape.decode("ascii")):
            return None
    return _ASTERISKS[len(value)] if len(value) < _STARS_MAX else _ASTERISKS[_STARS_MAX]


@lru_cache(maxsize=_SHAPES_CACHED)
def _is_typed(shape: bytes) -> bool:
    return _TYPED.fullmatch(shape.decode("ascii")) is not None


def _glob(pattern: str, star: str) -> str:
    return star.join(map(re.escape, pattern.split("*")))


def _matcher(pattern: str) -> re.Pattern[str]:
    """Matches the columns that `pattern` means: `column` (of any table), `schema.table.column`,
    `collection.path.to.field`, in any case. A column that names no table may be of the right one, and one of `table.*`
    the right one. Places in arrays (`items.0.card`) are no part of a path."""
    below = pattern.endswith(".**")
    table, _, column = pattern.removesuffix(".**").rpartition(".")
    prefix = rf"(?:.*\.)?{_path(table)}{_PLACES}\." if table else r"(?:.*\.)?"
    named = _glob(column, "[^.]*")
    own = rf"{prefix}{named}\..*" if below else rf"(?:{prefix})?{named}{_PLACES}"
    return re.compile(rf"{own}|{prefix}\*|\*", re.IGNORECASE | re.DOTALL)


_PLACES: Final = r"(?:\.[0-9]+)*"


def _path(pattern: str) -> str:
    return rf"{_PLACES}\.".join(_glob(part, ".*") for part in pattern.split("."))


class ColumnRules:
    """The column rules of one specification, with what they mean for the result shapes seen lately."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self._rules = [(column.pattern, _matcher(column.pattern)) for column in columns]
        self._hidden: dict[tuple[str, ...], dict[int, str]] = {}

    def hidden(self, names: tuple[str, ...]) -> dict[int, str]:
        """Index -> pattern of the columns to hide. What comes from several columns has their names with NUL between,
        and is hidden where one of them is meant. A column without a name is hidden by any rule."""
        known = self._hidden.get(names)
        if known is None:
            if len(self._hidden) >= _RULES_CACHED:
                self._hidden.clear()
            known = self._hidden[names] = {
                index: rule for index, name in enumerate(names) if (rule := self._rule(name)) is not None
            }
        return known

    def _rule(self, name: str) -> str | None:
        for one in name.split("\0"):
            for pattern, matcher in self._rules:
                if not one or matcher.fullmatch(one):
                    return pattern
        return None


def typed(text: str) -> bool:
    """Does a client turn a cell of this text into something else than a string?"""
    return _TYPED.fullmatch(text) is not None


def stars(text: str) -> str:
    """What stands for a text that is hidden as a field."""
    return _stars(text)
