"""Step 1 of 6, capture: which tables there are, how old they are and whose. Gets them read, hands on what
`enforcer geo sources` and `enforcer doctor` tell."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

from enforcer.config import Geo, GeoSource
from enforcer.errors import TableError
from enforcer.geo.address import VERSIONS, Version
from enforcer.geo.anycast import ANYCAST, AnycastList
from enforcer.geo.imports import Imported, Store
from enforcer.geo.merge import Layers
from enforcer.geo.rows import Source
from enforcer.geo.sources import SHIPPED_NAME

_LICENCES = {
    SHIPPED_NAME: "CC0 1.0; NRO statistics in it CC BY 4.0, Copyright Number Resource Organization (NRO), https://www.nro.net",
    "ipfire": "CC BY-SA 4.0, IPFire location database, https://location.ipfire.org",
}
_PUBLISHED = "published by the provider for this use; not redistributed here"
_OWN_LICENCE = {"operator": "yours", "provider": _PUBLISHED, ANYCAST: "part of the enforcer"}


@dataclass(frozen=True, slots=True)
class Entry:
    """One table. `rows`: ranges by IP version; `age_days`: since `date`, the publisher's day, or the day it was
    imported where the publisher names none; -1 where there is neither. Without a `version` it is not there yet."""

    name: str
    layer: str
    version: str
    date: str
    age_days: int
    rows: Mapping[Version, int]
    licence: str
    taken_from: str
    previous: str
    warnings: tuple[str, ...]

    def plain(self) -> dict[str, Any]:
        return {**asdict(self), "rows": {f"v{version}": self.rows[version] for version in VERSIONS}}


def inventory(layers: Layers, store: Store, geo: Geo, today: date) -> list[Entry]:
    """All tables, those that count most first. Raises TableError where one is damaged."""
    imported = {source.name: found for source in geo.sources if (found := _sound(store, source)) is not None}
    ranked = (
        ("operator", layers.operators),
        (ANYCAST, [AnycastList()]),
        ("provider", layers.providers),
        ("country", layers.countries),
    )
    entries = [
        _entry(source, layer, imported.get(source.origin.name), geo, today)
        for layer, tables in ranked
        for source in tables
    ]
    return [*entries, *(_missing(source) for source in geo.sources if source.name not in imported)]


def stale(name: str, day: str, geo: Geo, today: date) -> str:
    """What is to be said of a table of that day, or an empty text."""
    age = _age(day, today)
    return f"{age} days old; 'enforcer geo update {name}' imports a newer one" if age > geo.stale_days else ""


def _sound(store: Store, source: GeoSource) -> Imported | None:
    found = store.current(source.name)
    return found if found is not None and found.form == source.format else None


def _age(day: str, today: date) -> int:
    return (today - date.fromisoformat(day)).days if day else -1


def _entry(source: Source, layer: str, imported: Imported | None, geo: Geo, today: date) -> Entry:
    origin = source.origin
    day = origin.date or (imported.checked if imported else "")
    licence = _LICENCES.get(origin.name) or _OWN_LICENCE.get(layer) or "that of its publisher"
    taken_from, previous = (imported.taken_from, imported.previous) if imported else ("", "")
    warnings = tuple(_warnings(source, day, geo, today))
    rows = Counter(row.version for row in source.rows())
    counts: dict[Version, int] = {version: rows[version] for version in VERSIONS}
    age = _age(day, today)
    return Entry(origin.name, layer, origin.version, day, age, counts, licence, taken_from, previous, warnings)


def _warnings(source: Source, day: str, geo: Geo, today: date) -> Iterator[str]:
    old = stale(source.origin.name, day, geo, today)
    if old:
        yield old
    unplaced: frozenset[str] = getattr(source, "unplaced", frozenset())
    if unplaced:
        yield unplaced_words(unplaced)


def unplaced_words(unplaced: frozenset[str]) -> str:
    some = ", ".join(sorted(unplaced)[:5])
    return f"the country of {some} is not known, so their addresses are unknown; name it in geo.cloud_regions"


def _missing(source: GeoSource) -> Entry:
    nothing: dict[Version, int] = {4: 0, 6: 0}
    warning = f"not imported yet; import it with 'enforcer geo update {source.name}'"
    return Entry(
        source.name, source.format, "", "", -1, nothing, "", str(source.file or source.url or ""), "", (warning,)
    )


def stale_tables(store: Store, geo: Geo, today: date) -> list[str]:
    """A line for each imported table that is old, damaged or missing, without reading them whole."""
    lines = []
    for source in geo.sources:
        try:
            found = _sound(store, source)
            if found is None:
                lines.append(f"{source.name}: not imported yet")
                continue
            store.table(found)
        except TableError as error:
            lines.append(str(error))
            continue
        old = stale(source.name, found.published or found.checked, geo, today)
        if old:
            lines.append(f"{source.name}: {old}")
    return lines
