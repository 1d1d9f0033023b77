"""Step 4 of 6, inspect: what the values of MongoDB's documents are called, so that rules on columns find them.

Gets a command; hands on the names of values by their paths: `db.collection.path.to.field`, list indexes left out. A
value that an aggregation may have taken from elsewhere has all the names that it may have there, and none where that
may be any: then every rule on columns hides it.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import copy
from typing import Final

from enforcer.protocols.mongodb.commands import ADMIN, UNKNOWN, Command
from enforcer.protocols.statement_facts import JOINED

MAX_NAMES: Final = 64
"""Names of one value; where it may have come from more places, it may have come from any."""


class Naming:
    """Names for the documents that a command answers with."""

    def __init__(self, command: Command) -> None:
        self.prefix = command.prefix
        self._sources = None if command.operation in (ADMIN, UNKNOWN) else command.sources
        self._foreign = command.foreign
        self.makes_names = command.makes_names or command.operation == UNKNOWN
        self._known: dict[str, str] = {}

    def nameless(self) -> Naming:
        """For values of which it is not known what they are."""
        naming = copy(self)
        naming._sources, naming._known = None, {}
        return naming

    def column(self, path: str) -> str:
        name = self._known.get(path)
        if name is None:
            if len(self._known) >= 10_000:  # fields that are made up of data
                self._known.clear()
            name = self._known[path] = self._name(path)
        return name

    def _name(self, path: str) -> str:
        if self._sources is None:
            return ""
        names = {f"{self.prefix}.{path}": None}
        if self._sources or self._foreign:
            tails = list(_tails(path))
            for source in self._sources:
                names[f"{self.prefix}.{source}"] = None
                names.update(dict.fromkeys(f"{self.prefix}.{source}.{tail}" for tail in tails))
            for table in self._foreign:
                names.update(dict.fromkeys(f"{table}.{tail}" for tail in tails))
                names.update(dict.fromkeys(f"{table}.{source}" for source in self._sources))
        return JOINED.join(names) if len(names) <= MAX_NAMES else ""


def _tails(path: str) -> Iterator[str]:
    """`a.b.c`, `b.c`, `c`."""
    while path:
        yield path
        path = path.partition(".")[2]
