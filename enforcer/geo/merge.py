"""Step 1 of 6, capture: many tables become one. Gets sources, hands on one step function per address family.

Precedence, lowest first: country tables, providers' own ranges, public anycast services, soft special-purpose ranges,
operator tables, hard special-purpose ranges (see `special.HARD_KINDS`). Country tables are opinions of equal rank:
where they agree a prefix has one region, where they do not it has both. Where only one of several knows it, or knows
no more than its holder's address (see `doubt.py`), it may be elsewhere as well. Doubt widens the set, and a rule that
allows must cover it all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import NamedTuple

from enforcer.errors import TableError
from enforcer.geo.address import BITS, VERSIONS, Version
from enforcer.geo.anycast import ANYCAST, AnycastList
from enforcer.geo.cloud_regions import DOUBT, CloudRegions
from enforcer.geo.doubt import abroad, north_america
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
    words: str = ""


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
    """Gives every distinct RegionSet one number, and remembers how many country tables stand behind it."""

    def __init__(self, cloud: CloudRegions) -> None:
        self._cloud = cloud
        self._numbers: dict[RegionSet, int] = {UNKNOWN: 0}
        self._opinions: dict[int, int] = {}
        self._north_america = north_america()
        self.all: list[RegionSet] = [UNKNOWN]

    def number(self, regions: frozenset[str], kind: str, source: str) -> int:
        entry = RegionSet(regions, kind, source, self._words(regions))
        number = self._numbers.setdefault(entry, len(self.all))
        if number == len(self.all):
            self.all.append(entry)
        return number

    def _words(self, regions: frozenset[str]) -> str:
        """Only where the codes alone would not say it."""
        plain = "/".join(sorted(regions))
        words = self._cloud.words(regions)
        return "" if words == plain else words

    def opinion(self, regions: frozenset[str], source: str) -> int:
        """The set of one country table's answer."""
        number = self.number(regions, "country", source)
        self._opinions[number] = 1
        return number

    def both(self, one: int, two: int) -> int:
        """The set of country tables' answers together."""
        if not one or not two:
            return one or two
        a, b = self.all[one], self.all[two]
        number = self.number(a.regions | b.regions, "country", f"{a.source} + {b.source}")
        self._opinions[number] = self._opinions[one] + self._opinions[two]
        return number

    def alone(self, ident: int) -> int:
        """The same in doubt where only one table knows it."""
        return self._doubtful(ident) if self._opinions.get(ident) == 1 else ident

    def held_from_abroad(self, ident: int) -> int:
        """The same in doubt where the answer may be no more than the holder's address."""
        return self._doubtful(ident) if self.all[ident].regions & self._north_america else ident

    def _doubtful(self, ident: int) -> int:
        found = self.all[ident]
        return self.number(found.regions | {DOUBT}, found.kind, found.source)

    def claimed_twice(self, one: int, two: int) -> int:
        """The set of two providers' answers: in either region, or in none where either says so."""
        if not one or not two or one == two:
            return one or two
        a, b = self.all[one], self.all[two]
        source = f"{a.source} + {b.source}"
        if a.regions and b.regions:
            return self.number(a.regions | b.regions, a.kind, source)
        return self.number(frozenset(), b.kind if a.regions else a.kind, source)


@dataclass(frozen=True, slots=True)
class Layers:
    """`countries` holds at least one table, the primary first; their order shows only in the text of a source.
    Operator tables are one source: the longest prefix wins across files."""

    countries: Sequence[Source]
    providers: Sequence[Source] = ()
    operators: Sequence[Source] = ()
    cloud: CloudRegions = field(default_factory=CloudRegions.load)


def merge(layers: Layers) -> Merged:
    """Raises TableError where a source is damaged or the result has too many distinct sets."""
    sets = _Sets(layers.cloud)
    anycast = AnycastList()
    opinions = [_country_steps(source, sets) for source in layers.countries]
    providers = [_rows_steps([source], sets, "provider") for source in layers.providers]
    services = _rows_steps([anycast], sets, ANYCAST)
    own = _rows_steps(layers.operators, sets, "operator")
    steps: dict[Version, Steps] = {}
    placed: dict[Version, int] = {}
    disputed: dict[Version, int] = {}
    for version in VERSIONS:
        country = reduce(lambda a, b: combine(a, b, sets.both), [opinion[version] for opinion in opinions])
        placed[version] = addresses(country, bool)
        disputed[version] = addresses(country, lambda ident: len(sets.all[ident].regions) > 1)
        country = _doubted(version, country, sets, several=len(opinions) > 1)
        claims = [table[version] for table in providers]
        claimed = reduce(lambda a, b: combine(a, b, sets.claimed_twice), claims, Steps(BITS[version], [0], [0]))
        soft, hard = (_special_steps(version, sets, hard=hard) for hard in (False, True))
        steps[version] = over(country, reduce(over, (claimed, services[version], soft, own[version], hard)))
    below = (anycast, *layers.providers, *layers.countries)
    origins = (*(s.origin for s in layers.operators), special_origin(), *(s.origin for s in below))
    return _dense(Merged(steps, tuple(sets.all), origins, placed, disputed))


def _country_steps(source: Source, sets: _Sets) -> dict[Version, Steps]:
    name = str(source.origin)
    numbers: dict[frozenset[str], int] = {}
    ranges: dict[Version, list[tuple[int, int, int]]] = {4: [], 6: []}
    for version, first, last, regions, _, _ in source.rows():
        number = numbers.get(regions)
        if number is None:
            number = numbers[regions] = sets.opinion(regions, name)
        ranges[version].append((first, last, number))
    return _flatten(ranges, name)


def _doubted(version: Version, country: Steps, sets: _Sets, *, several: bool) -> Steps:
    """Country tables' answers with doubt where they deserve it. `several`: there are tables that could have agreed."""

    def doubt(ident: int, foreign: int) -> int:
        if not ident:
            return ident
        if several:
            ident = sets.alone(ident)
        return sets.held_from_abroad(ident) if foreign else ident

    return combine(country, abroad(version), doubt)


def _rows_steps(sources: Iterable[Source], sets: _Sets, kind: str) -> dict[Version, Steps]:
    """Several sources as one: the longest prefix wins across them. Rows without a kind of their own are of `kind`."""
    ranges: dict[Version, list[tuple[int, int, int]]] = {4: [], 6: []}
    for source in sources:
        for row in source.rows():
            words = f"{source.origin} {row.label}".rstrip()
            ranges[row.version].append((row.first, row.last, sets.number(row.regions, row.kind or kind, words)))
    return _flatten(ranges, f"{kind} tables")


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
