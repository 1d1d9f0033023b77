"""Step 1 of 6, capture: many tables become one. Gets sources, hands on one step function per address family.

Precedence, lowest first: country tables, soft special-purpose ranges, operator tables, hard special-purpose ranges
(see `special.HARD_KINDS`). Country tables are opinions of equal rank: where they agree a prefix has one region,
where they do not it has both, and where only one knows that one counts. Doubt widens the set, and a rule that
allows must cover it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import NamedTuple

from enforcer.errors import TableError
from enforcer.geo.address import BITS, VERSIONS, Version
from enforcer.geo.ranges import OverlapError, Steps, addresses, combine, flatten, over
from enforcer.geo.rows import Origin, Source
from enforcer.geo.special import HARD_KINDS, special_origin, special_rows

MAX_SETS = 0xFFFF
"""A set's id is 16 bits wide in the compiled table. Two country tables make about 4,000 sets."""


class RegionSet(NamedTuple):
    """What many prefixes have in common; the fields are those of `flow.Region` without the prefix."""

    regions: frozenset[str]
    kind: str
    source: str


UNKNOWN = RegionSet(frozenset(), "unknown", "no table")
"""Set 0: an address that is in no row of any table."""


@dataclass(frozen=True, slots=True)
class Merged:
    """One disjoint function per family over `sets` (index = id), and where it all came from.

    `disputed`: addresses on which country tables disagree, before other layers cover them; `placed`: addresses
    that any of them knows.
    """

    steps: dict[Version, Steps]
    sets: tuple[RegionSet, ...]
    origins: tuple[Origin, ...]
    placed: dict[Version, int]
    disputed: dict[Version, int]


class _Sets:
    """Gives every distinct RegionSet one number."""

    def __init__(self) -> None:
        self._numbers: dict[RegionSet, int] = {UNKNOWN: 0}
        self.all: list[RegionSet] = [UNKNOWN]

    def number(self, regions: frozenset[str], kind: str, source: str) -> int:
        entry = RegionSet(regions, kind, source)
        number = self._numbers.setdefault(entry, len(self.all))
        if number == len(self.all):
            self.all.append(entry)
        return number

    def both(self, one: int, two: int) -> int:
        """The set of two country tables' answers."""
        if not one or not two:
            return one or two
        a, b = self.all[one], self.all[two]
        return self.number(a.regions | b.regions, "country", f"{a.source} + {b.source}")


def merge(countries: Sequence[Source], operators: Sequence[Source]) -> Merged:
    """`countries` holds at least one table, the primary first; their order shows only in the text of a source.

    Raises TableError where a source is damaged or the result has too many distinct sets.
    """
    sets = _Sets()
    opinions = [_country_steps(source, sets) for source in countries]
    own = _operator_steps(operators, sets)
    steps: dict[Version, Steps] = {}
    placed: dict[Version, int] = {}
    disputed: dict[Version, int] = {}
    for version in VERSIONS:
        country = reduce(lambda a, b: combine(a, b, sets.both), [opinion[version] for opinion in opinions])
        placed[version] = addresses(country, bool)
        disputed[version] = addresses(country, lambda ident: len(sets.all[ident].regions) > 1)
        layers = _special_steps(version, sets, hard=False), own[version], _special_steps(version, sets, hard=True)
        steps[version] = over(country, reduce(over, layers))
    origins = (*(s.origin for s in operators), special_origin(), *(s.origin for s in countries))
    return _dense(Merged(steps, tuple(sets.all), origins, placed, disputed))


def _country_steps(source: Source, sets: _Sets) -> dict[Version, Steps]:
    name = str(source.origin)
    numbers: dict[frozenset[str], int] = {}
    ranges: dict[Version, list[tuple[int, int, int]]] = {4: [], 6: []}
    for version, first, last, regions, _ in source.rows():
        number = numbers.get(regions)
        if number is None:
            number = numbers[regions] = sets.number(regions, "country", name)
        ranges[version].append((first, last, number))
    return _flatten(ranges, name)


def _operator_steps(operators: Iterable[Source], sets: _Sets) -> dict[Version, Steps]:
    """All operator files as one source: the longest prefix wins across files."""
    ranges: dict[Version, list[tuple[int, int, int]]] = {4: [], 6: []}
    for source in operators:
        for row in source.rows():
            words = f"{source.origin} {row.label}".rstrip()
            ranges[row.version].append((row.first, row.last, sets.number(row.regions, "operator", words)))
    return _flatten(ranges, "operator tables")


def _special_steps(version: Version, sets: _Sets, *, hard: bool) -> Steps:
    """The soft layer holds every special range; the hard one only those that lie above operator rows."""
    return flatten(
        [
            (row.first, row.last, sets.number(frozenset(), row.kind, row.why))
            for row in special_rows()
            if row.version == version and (not hard or row.kind in HARD_KINDS)
        ],
        BITS[version],
    )


def _flatten(ranges: dict[Version, list[tuple[int, int, int]]], name: str) -> dict[Version, Steps]:
    try:
        return {version: flatten(ranges[version], BITS[version]) for version in VERSIONS}
    except OverlapError as error:
        raise TableError(f"{name}: ranges overlap ({error}); install the table again") from error


def _dense(merged: Merged) -> Merged:
    """The same with ids that no prefix uses left out."""
    used = sorted({ident for steps in merged.steps.values() for ident in steps.ids} | {0})
    if len(used) > MAX_SETS:
        raise TableError(
            f"{len(used)} distinct sets of region and source, more than {MAX_SETS}; use fewer labels in operator tables"
        )
    renumber = {old: new for new, old in enumerate(used)}
    steps = {
        version: Steps(old.bits, old.starts, [renumber[ident] for ident in old.ids])
        for version, old in merged.steps.items()
    }
    sets = tuple(merged.sets[ident] for ident in used)
    return Merged(steps, sets, merged.origins, merged.placed, merged.disputed)
