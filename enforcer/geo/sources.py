"""Step 1 of 6, capture: which table files there are, and what they are together. Gets paths, hands on one merged table.

Nothing here decides precedence (`merge.py`) or keeps a result (`compiled.py`).
"""

from __future__ import annotations

import hashlib
import sys
from array import array
from dataclasses import asdict, dataclass, field
from pathlib import Path

from enforcer.errors import TableError
from enforcer.geo.anycast import AnycastList
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.country_mmdb import SHIPPED, CountryMmdb
from enforcer.geo.doubt import registries_sha256
from enforcer.geo.ipfire import IpfireTable
from enforcer.geo.merge import Layers, Merged, merge
from enforcer.geo.operator_csv import read_operator_tables
from enforcer.geo.providers import PROVIDERS, ProviderTable
from enforcer.geo.ranges import cidrs
from enforcer.geo.rows import Input, Source
from enforcer.geo.special import special_origin
from enforcer.geo.table import BLOCKS, FORMAT, encode

IPFIRE_FILES = ("geoip", "geoip6")
SHIPPED_NAME = SHIPPED.name.removesuffix(".mmdb.xz")


@dataclass(frozen=True, slots=True)
class Table:
    """One imported table. `form`: a format of `config.GeoSource`; `paths`: its files, in the order of that format."""

    name: str
    form: str
    paths: tuple[Path, ...]


@dataclass(frozen=True, slots=True)
class Sources:
    """Paths only. `ipfire`: a directory with `geoip` and `geoip6`, or None where there is no second opinion.
    `imported`: what `enforcer geo update` has fetched; `cloud_regions`: the operator's, `("aws/eu-new-1", "DE")`."""

    mmdb: Path = SHIPPED
    ipfire: Path | None = None
    operator_csvs: tuple[Path, ...] = ()
    imported: tuple[Table, ...] = ()
    cloud_regions: tuple[tuple[str, str], ...] = ()

    @classmethod
    def discover(
        cls,
        etc: Path,
        cache: Path,
        imported: tuple[Table, ...] = (),
        cloud_regions: tuple[tuple[str, str], ...] = (),
    ) -> Sources:
        """What is installed: `etc`/geo/*.csv and `cache`/geo/ipfire beside the shipped table, and what was imported.

        `etc` and `cache` are `/etc/enforcer` and `/var/cache/enforcer` or their like under another root. An imported
        IPFire table takes the place of the one in `cache`.
        """
        ipfire = cache / "geo" / "ipfire"
        found = ipfire if ipfire.is_dir() and not any(table.form == "ipfire" for table in imported) else None
        return cls(SHIPPED, found, operator_files(etc / "geo"), imported, cloud_regions)

    def read(self) -> Inputs:
        """Reads every file, once. Raises TableError where one is missing, unreadable or empty, or a name of a cloud
        region is none."""
        again = "install the table again, or name another"
        fetch = "fetch it with tools/fetch-ipfire.sh, or remove the directory"
        ipfire = None
        if self.ipfire is not None:
            ipv4, ipv6 = (Input.read(self.ipfire / name, fetch) for name in IPFIRE_FILES)
            ipfire = ipv4, ipv6
        operators = tuple(Input.read(path, "correct it or remove it") for path in self.operator_csvs)
        imported = tuple((table, tuple(Input.read(path, IMPORT) for path in table.paths)) for table in self.imported)
        cloud = CloudRegions.load(dict(self.cloud_regions))
        return Inputs(Input.read(self.mmdb, again), ipfire, operators, imported, cloud)


IMPORT = "import it again with 'enforcer geo update'"


def operator_files(directory: Path) -> tuple[Path, ...]:
    """The operator's tables, in the order of their names. Raises TableError where the directory cannot be read."""
    try:
        return tuple(sorted(path for path in directory.iterdir() if path.suffix == ".csv"))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise TableError(f"{directory}: {error.strerror}; make it a readable directory or remove it") from error


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files' contents; everything that a compiled table depends on."""

    mmdb: Input
    ipfire: tuple[Input, Input] | None
    operators: tuple[Input, ...]
    imported: tuple[tuple[Table, tuple[Input, ...]], ...] = ()
    cloud: CloudRegions = field(default_factory=CloudRegions.load)

    @property
    def key(self) -> str:
        """Hash of all inputs, of the shipped lists and of the table's format."""
        parts = [f"format {FORMAT} {sys.byteorder}", f"special {special_origin().sha256}"]
        parts += [f"anycast {AnycastList().origin.sha256}", f"registries {registries_sha256()}"]
        parts.append(f"mmdb {self.mmdb.path.name} {self.mmdb.sha256}")
        parts += [f"ipfire {part.sha256}" for part in self.ipfire or ()]
        parts += [f"operator {part.path.name} {part.sha256}" for part in self.operators]
        for table, inputs in self.imported:
            parts += [f"imported {table.form} {table.name} {part.sha256}" for part in inputs]
        if any(table.form in PROVIDERS for table, _ in self.imported):
            parts.append(f"cloud {self.cloud.sha256}")
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def layers(self) -> Layers:
        """All tables, read. Raises TableError where a file is damaged. The operator's are first: they are quick, and
        wrong most often."""
        operators = [*read_operator_tables(self.operators), *self._read("csv")]
        providers = [table for form in sorted(PROVIDERS) for table in self._read(form)]
        own = [*self._read("mmdb"), *self._read("ipfire")]
        shipped = any(table.form == "mmdb" and table.name == SHIPPED_NAME for table, _ in self.imported)
        countries: list[Source] = [] if shipped else [CountryMmdb(self.mmdb)]
        if self.ipfire is not None:
            countries.append(IpfireTable(*self.ipfire))
        return Layers([*countries, *own], providers, operators, self.cloud)

    def _read(self, form: str) -> list[Source]:
        return [read_table(table, inputs, self.cloud) for table, inputs in self.imported if table.form == form]

    def merge(self) -> Merged:
        """Raises TableError where a file is damaged."""
        return merge(self.layers())

    def compile(self) -> bytes:
        """The compiled table's bytes. Takes about ten seconds and 300 MB for the shipped tables."""
        merged = self.merge()
        figures = {
            "sets": len(merged.sets),
            "v4_placed": merged.placed[4],
            "v4_disputed": merged.disputed[4],
            "v6_placed": merged.placed[6] >> 64,
            "v6_disputed": merged.disputed[6] >> 64,
        }
        meta = {
            "origins": [asdict(origin) for origin in merged.origins],
            "sets": [(sorted(entry.regions), entry.kind, entry.source, entry.words) for entry in merged.sets],
            "figures": figures,
        }
        return encode(self.key, _columns(merged), meta)


def read_table(table: Table, inputs: tuple[Input, ...], cloud: CloudRegions) -> Source:
    """An imported table as a source. Raises TableError where it cannot be believed."""
    if table.form == "csv":
        return read_operator_tables(inputs, table.name)[0]
    if table.form == "mmdb":
        return CountryMmdb(inputs[0], table.name)
    if table.form == "ipfire":
        return IpfireTable(inputs[0], inputs[1], table.name)
    return ProviderTable(table.name, table.form, inputs, cloud)


def _columns(merged: Merged) -> dict[str, list[array[int]]]:
    columns = {block: [array(code) for code in codes] for block, codes in BLOCKS.items()}
    first4, length4, set4 = columns["v4"]
    for first, length, ident in cidrs(merged.steps[4]):
        first4.append(first)
        length4.append(length)
        set4.append(ident)
    high6, length6, set6 = columns["v6"]
    high_long, low_long, length_long, set_long = columns["v6long"]
    for first, length, ident in cidrs(merged.steps[6]):
        if length <= 64:
            high6.append(first >> 64)
            length6.append(length)
            set6.append(ident)
        else:
            high_long.append(first >> 64)
            low_long.append(first & 0xFFFF_FFFF_FFFF_FFFF)
            length_long.append(length)
            set_long.append(ident)
    return columns
