"""Step 4 of 6, inspect: what a name in a query may stand for.

Values only: what the FROM clause offers (`Source`), what a query gives back (`Output`, `Star`), and the scopes that
names are looked up in. Where it is not known which table a column is of, it may be of each that has columns not known.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

Names = frozenset[str]
"""Columns as `table.column`; `table.*` where it may be any of a table's; empty where it may be of any table."""

NOTHING: Final[Names] = frozenset()
ANYTHING: Final[Names] = frozenset({""})

OF_ROWS: Final = frozenset(
    (
        *("row_to_json", "to_json", "to_jsonb", "json_agg", "jsonb_agg", "json_build_array", "jsonb_build_array"),
        *("array_agg", "any_value", "concat", "quote_literal", "quote_nullable", "record_out", "record_send"),
        *("json_agg_strict", "jsonb_agg_strict", "min", "max"),
    )
)
"""PostgreSQL calls them where a row has no such column: `u.to_json` is `to_json(u)` (its manual, section 38.5.3)."""


@dataclass(frozen=True, slots=True)
class Output:
    """One output column: its name (empty where the server makes one up) and what it comes from."""

    name: str
    sources: Names


@dataclass(frozen=True, slots=True)
class Star:
    """Output columns whose number is not known: those of `tables`, those in `named` by their names, and whatever else
    there is may come from `other`."""

    tables: tuple[str, ...] = ()
    named: tuple[Output, ...] = ()
    other: Names = NOTHING

    def of(self, name: str) -> Names:
        """What the output column of this name comes from."""
        found = {f"{table}.{name}" for table in self.tables}.union(self.other)
        return frozenset(found).union(*(output.sources for output in self.named if output.name == name))

    @property
    def all(self) -> Names:
        found = {f"{table}.*" for table in self.tables}.union(self.other)
        return frozenset(found).union(*(output.sources for output in self.named))


Item = Output | Star
Items = tuple[Item, ...]


def all_of(items: Items) -> Names:
    return NOTHING.union(*(item.sources if isinstance(item, Output) else item.all for item in items))


class Source:
    """One entry of a FROM clause, of name `alias`. `items`: what `*` of it stands for."""

    __slots__ = ("_known", "_stars", "alias", "items")

    def __init__(self, alias: str, items: Items) -> None:
        self.alias = alias
        self.items = items
        self._stars = [item for item in items if isinstance(item, Star)]
        self._known: dict[str, Names] = {}
        for item in items:
            for output in (item,) if isinstance(item, Output) else item.named:
                self._known[output.name] = self._known.get(output.name, NOTHING) | output.sources

    @property
    def open(self) -> bool:
        """May it have columns that are not known?"""
        return any(star.tables or star.other for star in self._stars)

    def has(self, name: str) -> bool:
        return name in self._known

    def of(self, name: str) -> Names:
        """What its column of this name comes from, or a function of the whole row that is written like a column."""
        known = self._known.get(name)
        if name in OF_ROWS and known is None:
            return all_of(self.items)
        open_ones = (f"{table}.{name}" for star in self._stars for table in star.tables)
        return (known or NOTHING).union(open_ones, *(star.other for star in self._stars))


@dataclass(slots=True)
class Scope:
    """What is in reach of a query's expressions. `merged`: its joins make one column of two (USING, NATURAL)."""

    outer: Scope | None = None
    sources: list[Source] = field(default_factory=list)
    merged: bool = False

    @property
    def width(self) -> int:
        """How many entries names are looked up in."""
        return len(self.sources) + (self.outer.width if self.outer is not None else 0)

    def source(self, alias: str) -> Source | None:
        """The entry of this name, the nearest; in another case where no name is exactly so."""
        return self._source(alias, str) or self._source(alias.lower(), str.lower)

    def _source(self, alias: str, fold: Callable[[str], str]) -> Source | None:
        scope: Scope | None = self
        while scope is not None:
            for source in scope.sources:
                if fold(source.alias) == alias:
                    return source
            scope = scope.outer
        return None

    def column(self, name: str) -> Names:
        """A column that names no table. Empty where nothing in reach can have it."""
        found: set[str] = set()
        scope: Scope | None = self
        while scope is not None:
            known = [source for source in scope.sources if source.has(name)]
            for source in scope.sources:
                if source in known or (source.open and (scope.merged or not known)):
                    found |= source.of(name)
            if known:
                break
            scope = scope.outer
        return frozenset(found)

    def star(self) -> Items:
        """What `*` stands for. Columns that a join merges change the order of all."""
        items = tuple(item for source in self.sources for item in source.items)
        if not self.merged:
            return items
        tables = [table for item in items if isinstance(item, Star) for table in item.tables]
        named = [output for item in items for output in ([item] if isinstance(item, Output) else item.named)]
        other = NOTHING.union(*(item.other for item in items if isinstance(item, Star)))
        return (Star(tuple(tables), tuple(named), other),)


def union(left: Items, right: Items) -> Items:
    """The outputs of a set operation: by position, where both are known."""
    if len(left) == len(right) and all(isinstance(item, Output) for item in (*left, *right)):
        pairs = zip(left, right, strict=True)
        return tuple(
            Output(one.name, one.sources | other.sources)
            for one, other in pairs
            if isinstance(one, Output) and isinstance(other, Output)
        )
    tables = [table for item in left if isinstance(item, Star) for table in item.tables]
    named = [output for item in left for output in ([item] if isinstance(item, Output) else item.named)]
    other = all_of(right).union(*(item.other for item in left if isinstance(item, Star)))
    return (Star(tuple(tables), tuple(named), other),)
