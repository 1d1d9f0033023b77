"""`python -m enforcer.geo.build`: compiles the geography tables ahead of time, e.g. when a package is installed.

Prints one line: the table's path, its counts and the seconds it took. On a fault: one line per fault on standard
error, exit code 5, and no table.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from enforcer.errors import TableError
from enforcer.geo.compiled import SYSTEM_CACHE, build_into, cached
from enforcer.geo.country_mmdb import SHIPPED
from enforcer.geo.sources import Sources, Table, operator_files
from enforcer.geo.table import GeoTable

ETC = Path("/etc/enforcer")
CACHE = Path("/var/cache/enforcer")


def main(arguments: list[str] | None = None) -> int:
    options = _parser().parse_args(arguments)
    started = time.monotonic()
    try:
        inputs = _sources(options).read()
        path = cached(inputs.key, [options.cache])
        done = "already built"
        if path is None:
            path = build_into(inputs, options.cache)
            done = f"{time.monotonic() - started:.1f} s"
        counts = GeoTable.open(path).counts
    except TableError as error:
        sys.stderr.write(f"{error}\n")
        return TableError.exit_code
    sys.stdout.write(
        f"{path}: {counts['v4']} IPv4 and {counts['v6']} IPv6 prefixes, {counts['sets']} region sets, {done}\n"
    )
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m enforcer.geo.build", description="Compile the geography tables.")
    parser.add_argument("--cache", type=Path, default=SYSTEM_CACHE, metavar="DIR", help="where the table goes")
    parser.add_argument("--mmdb", type=Path, default=SHIPPED, metavar="FILE", help="primary country table")
    parser.add_argument("--ipfire", type=Path, metavar="DIR", help="second opinion: directory of geoip and geoip6")
    parser.add_argument(
        "--operator",
        type=Path,
        action="append",
        default=[],
        metavar="PATH",
        help="operator's CSV, or a directory of them",
    )
    parser.add_argument(
        "--import",
        dest="imported",
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME:FORMAT", "FILE"),
        help="an imported table and its files",
    )
    parser.add_argument(
        "--cloud-region", action="append", default=[], metavar="NAME=COUNTRY", help="a region that is not known yet"
    )
    parser.add_argument(
        "--only", action="store_true", help="use only the tables named here, none from the usual places"
    )
    return parser


def _sources(options: argparse.Namespace) -> Sources:
    usual = Sources() if options.only else Sources.discover(ETC, CACHE)
    named: list[Path] = []
    for path in options.operator:
        named += operator_files(path) if path.is_dir() else [path]
    imported = tuple(_table(words) for words in options.imported)
    regions = tuple((name, country) for name, _, country in (text.partition("=") for text in options.cloud_region))
    operators = tuple(named) or usual.operator_csvs
    return Sources(options.mmdb, options.ipfire or usual.ipfire, operators, imported, regions)


def _table(words: list[str]) -> Table:
    name, _, form = words[0].partition(":")
    return Table(name, form, tuple(map(Path, words[1:])))


if __name__ == "__main__":
    sys.exit(main())
