"""Step 1 of 6, capture: what every table says of one address, one by one. Gets the tables, hands on their answers:
`enforcer geo lookup` shows with them how a region came about. Never decides: the compiled table does."""

from __future__ import annotations

from dataclasses import dataclass

from enforcer.flow import Address
from enforcer.geo.address import normalise
from enforcer.geo.anycast import ANYCAST, AnycastList
from enforcer.geo.country_mmdb import CountryMmdb
from enforcer.geo.rows import Source
from enforcer.geo.sources import Inputs
from enforcer.geo.special import HARD_KINDS, special_origin, special_rows


@dataclass(frozen=True, slots=True)
class Answer:
    """One table's answer. `rank`: of several answers the highest counts, and country tables count together. `regions`:
    empty where it says that there is none."""

    rank: int
    layer: str
    source: str
    regions: tuple[str, ...]
    kind: str
    words: str


_LAYERS = {4: "operator", 2: "anycast", 1: "provider", 0: "country"}


def answers(inputs: Inputs, address: Address) -> list[Answer]:
    """Of those tables that say anything, the ones that count most first. Raises TableError for a damaged one."""
    layers = inputs.layers()
    found = [*_special(address)]
    for rank, kind, sources in (
        (4, "operator", layers.operators),
        (2, ANYCAST, [AnycastList()]),
        (1, "provider", layers.providers),
        (0, "country", layers.countries),
    ):
        found += [answer for source in sources if (answer := _of(source, address, rank, kind)) is not None]
    return sorted(found, key=lambda answer: -answer.rank)


def _special(address: Address) -> list[Answer]:
    """The narrowest special-purpose range around the address."""
    address = normalise(address)
    rows = [row for row in special_rows() if row.version == address.version and row.first <= int(address) <= row.last]
    if not rows:
        return []
    row = min(rows, key=lambda row: row.last - row.first)
    rank = 5 if row.kind in HARD_KINDS else 3
    return [Answer(rank, "special-purpose", str(special_origin()), (), row.kind, row.why)]


def _of(source: Source, address: Address, rank: int, kind: str) -> Answer | None:
    address = normalise(address)
    if isinstance(source, CountryMmdb):
        code = source.country(address)
        return Answer(rank, _LAYERS[rank], str(source.origin), (code,), kind, "") if code else None
    value = int(address)
    rows = [row for row in source.rows() if row.version == address.version and row.first <= value <= row.last]
    if not rows:
        return None
    row = min(rows, key=lambda row: row.last - row.first)
    return Answer(rank, _LAYERS[rank], str(source.origin), tuple(sorted(row.regions)), row.kind or kind, row.label)
