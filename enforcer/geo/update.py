"""Step 1 of 6, capture: a newer table: fetched, checked and compared before it counts.

Gets a source of the configuration; hands on what would change. A table that is empty, cut short, malformed, not what
its sha256 says, or too different from the one before never takes its place.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.config import GeoSource
from enforcer.errors import TableError
from enforcer.geo.address import BITS, VERSIONS, Version
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.download import download
from enforcer.geo.imports import parts_of
from enforcer.geo.ranges import OverlapError, Steps, combine, flatten
from enforcer.geo.rows import Input, Origin, Source
from enforcer.geo.sources import Table, read_table

NOWHERE = "no region"
"""What a row without a region counts as in a comparison: anycast, or a cloud region whose country is not known."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A table that was fetched and can be read. `data`: its files' bytes by name."""

    source: GeoSource
    taken_from: str
    data: Mapping[str, bytes]
    table: Source

    @property
    def origin(self) -> Origin:
        return self.table.origin

    @property
    def unplaced(self) -> frozenset[str]:
        """Cloud regions in it whose country is not known."""
        found: frozenset[str] = getattr(self.table, "unplaced", frozenset())
        return found


@dataclass(frozen=True, slots=True)
class Change:
    """Addresses of one family. `regions`: name -> (before, now, moved here from another region, moved away)."""

    before: int
    now: int
    removed: int
    moved: int
    regions: Mapping[str, tuple[int, int, int, int]]

    @property
    def lost_share(self) -> float:
        return self.removed / self.before if self.before else 0.0

    @property
    def moved_share(self) -> float:
        return self.moved / self.before if self.before else 0.0


def fetch(source: GeoSource, file: Path | None, cloud: CloudRegions) -> Candidate:
    """Takes the table from `file`, or from where the source says. Raises TableError where it cannot be used."""
    place = file or source.file
    names = parts_of(source.format)
    if place is not None:
        taken_from = str(place)
        data = {name: _read(place / name if place.is_dir() and len(names) > 1 else place) for name in names}
    elif source.url is not None:
        taken_from = source.url
        data = {name: download(f"{source.url.rstrip('/')}/{name}" if len(names) > 1 else source.url) for name in names}
    else:
        raise TableError(f"{source.name}: neither file nor url says where it is; name one, or use --file")
    _check_digest(source, data)
    where = Path(taken_from.rpartition("/")[2] or source.name) if place is None else place
    inputs = tuple(_input(where / name if len(names) > 1 else where, content) for name, content in data.items())
    table = read_table(Table(source.name, source.format, ()), inputs, cloud)
    return Candidate(source, taken_from, data, table)


def _read(path: Path) -> bytes:
    return Input.read(path, "name another file").data


def _input(path: Path, content: bytes) -> Input:
    if not content:
        raise TableError(f"{path}: the file is empty; fetch it again")
    return Input(path, content, hashlib.sha256(content).hexdigest())


def _check_digest(source: GeoSource, data: Mapping[str, bytes]) -> None:
    """A table of several files is pinned by the sha256 of all of them, one after the other."""
    digest = hashlib.sha256(b"".join(data.values())).hexdigest()
    if source.sha256 not in (None, digest):
        raise TableError(f"{source.name}: its sha256 is {digest}, not {source.sha256}; fetch it again, or pin this one")


def compare(before: Source | None, now: Source) -> Mapping[Version, Change]:
    """What `now` would change. Reads both whole, so that a damaged row shows. Raises TableError."""
    names: dict[str, int] = {"": 0}
    old = _steps(before, names) if before is not None else None
    new = _steps(now, names)
    words = list(names)
    return {v: _change(old[v] if old else Steps(BITS[v], [0], [0]), new[v], words) for v in VERSIONS}


def refuse(name: str, changes: Mapping[Version, Change], limit: float) -> None:
    """Raises TableError where the table has no address, or lost or moved more than `limit` of those of a family."""
    if not any(change.now for change in changes.values()):
        raise TableError(f"{name}: no address in it; fetch it again")
    for version, change in changes.items():
        for share, what in ((change.lost_share, "lost"), (change.moved_share, "moved")):
            if share > limit:
                raise TableError(
                    f"{name}: {share:.1%} of its IPv{version} addresses are {what}, more than {limit:.1%};"
                    " look at the summary, and use --force if it is right"
                )


def _steps(source: Source, names: dict[str, int]) -> dict[Version, Steps]:
    ranges: dict[Version, list[tuple[int, int, int]]] = {4: [], 6: []}
    words: dict[frozenset[str], int] = {}
    for row in source.rows():
        number = words.get(row.regions)
        if number is None:
            number = words[row.regions] = names.setdefault("/".join(sorted(row.regions)) or NOWHERE, len(names))
        ranges[row.version].append((row.first, row.last, number))
    try:
        return {version: flatten(ranges[version], BITS[version]) for version in VERSIONS}
    except OverlapError as error:
        raise TableError(f"{source.origin}: ranges overlap ({error}); fetch it again") from error


def _change(old: Steps, new: Steps, names: list[str]) -> Change:
    sizes = _pairs(old, new)
    regions: Counter[tuple[str, int]] = Counter()
    removed = moved = 0
    for (was, is_now), size in sizes.items():
        regions[names[was], 0] += size
        regions[names[is_now], 1] += size
        if was and is_now and was != is_now:
            moved += size
            regions[names[is_now], 2] += size
            regions[names[was], 3] += size
        elif was and not is_now:
            removed += size
    found = {
        name: (regions[name, 0], regions[name, 1], regions[name, 2], regions[name, 3])
        for name in sorted({name for name, _ in regions if name})
    }
    before, now = (sum(entry[place] for entry in found.values()) for place in (0, 1))
    return Change(before, now, removed, moved, found)


def _pairs(old: Steps, new: Steps) -> Counter[tuple[int, int]]:
    """Addresses by what they were and what they are."""
    pairs: list[tuple[int, int]] = []

    def number(was: int, is_now: int) -> int:
        pairs.append((was, is_now))
        return len(pairs) - 1

    steps = combine(old, new, number)
    sizes: Counter[tuple[int, int]] = Counter()
    for first, end, ident in zip(steps.starts, [*steps.starts[1:], 1 << steps.bits], steps.ids, strict=True):
        sizes[pairs[ident]] += end - first
    return sizes
