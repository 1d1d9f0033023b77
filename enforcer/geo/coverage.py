"""Step 1 of 6, capture: how much of the address space the tables leave in doubt. Gets a compiled table and places,
hands on shares of addresses."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from enforcer.geo.address import VERSIONS, Version
from enforcer.geo.cloud_regions import DOUBT
from enforcer.geo.table import GeoTable


@dataclass(frozen=True, slots=True)
class Share:
    """Addresses of one family that may be in a place. `settled`: only there; `disputed`: the tables name another place
    as well; `doubtful`: they may be elsewhere, where no table says."""

    version: Version
    settled: int = 0
    disputed: int = 0
    doubtful: int = 0

    @property
    def all(self) -> int:
        return self.settled + self.disputed + self.doubtful

    @property
    def in_doubt(self) -> float:
        """Between 0 and 1."""
        return (self.disputed + self.doubtful) / self.all if self.all else 0.0


class Coverage:
    """A table's sets with the addresses of each, counted once."""

    def __init__(self, table: GeoTable) -> None:
        self._sets = {version: [*zip(table.sets, table.addresses(version), strict=True)] for version in VERSIONS}

    def inside(self, places: frozenset[str]) -> list[Share]:
        """Of the addresses that may be in one of `places` (as `Groups.expand` gives them): are they surely inside?
        One share per family."""
        return [self._share(version, places) for version in VERSIONS]

    def by_kind(self, version: Version) -> Counter[str]:
        """Addresses by the kind of their set; `unknown` are those in no table as well."""
        kinds: Counter[str] = Counter()
        for entry, size in self._sets[version]:
            kinds[entry.kind] += size
        return kinds

    def regions(self) -> frozenset[str]:
        """Every region that some address has."""
        sets = (entry.regions for version in VERSIONS for entry, _ in self._sets[version])
        return frozenset[str]().union(*sets) - {DOUBT}

    def _share(self, version: Version, places: frozenset[str]) -> Share:
        found: Counter[str] = Counter()
        for entry, size in self._sets[version]:
            if entry.regions.isdisjoint(places):
                continue
            known = entry.regions - {DOUBT}
            found["disputed" if not known <= places else "doubtful" if DOUBT in entry.regions else "settled"] += size
        return Share(version, found["settled"], found["disputed"], found["doubtful"])
