"""How right the region tables are, measured against what providers publish, and what the tables cost.

    make bench-geo             or   .venv/bin/python -m benchmarks.geo [--data DIR] [--root DIR] [--json FILE]

Measured are the country tables alone, without imported ranges: what a host has on which nobody has run
`enforcer geo update`. They are held against the providers' own lists: by default the imported ones of the instance,
with --data (or ENFORCER_GEO_DATA) the files of a directory: names begin with aws, google, azure, microsoft-azure or
oracle, or are geofeeds (RFC 8805), `.csv` and `.txt`; `.gz` is unpacked. Shares are of addresses, not of prefixes.

    right      the table names the one country that it is
    wrong      the table names one country, and it is another: a rule for that country would allow it
    in doubt   the table names several, or says that it may be elsewhere, or nothing: a rule has to cover it all
    (missed)   of those in doubt, the ones whose country is not among what the table names

Seconds are of processor time, the least of a few rounds: other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import json
import os
import random
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

from enforcer.capture import sysbpf
from enforcer.capture.generation import build_tries
from enforcer.capture.sysbpf import Map, MapType
from enforcer.config import Settings, load_settings
from enforcer.errors import ConfigError
from enforcer.geo.address import BITS, VERSIONS, Version, to_address
from enforcer.geo.cloud_regions import DOUBT, CloudRegions
from enforcer.geo.compiled import compiled
from enforcer.geo.providers import ProviderTable
from enforcer.geo.ranges import Steps, combine, flatten
from enforcer.geo.rows import Input
from enforcer.geo.sources import read_table
from enforcer.geo.table import GeoTable
from enforcer.supervisor.generation import geo_sources, geo_store

WRONG_TARGET = 0.005
LOAD_TARGET = 2.0
SWAP_TARGET = 0.001
LOOKUP_TARGET = 3e-6
MEMORY_TARGET = 60 << 20
LOOKUPS = 2_000
ROUNDS = 5
LOOKUP_ROUNDS = 300
FORMS = {"aws": "aws", "google": "google", "azure": "azure", "microsoft-azure": "azure", "oracle": "oracle"}
# Provider -> (IP version, first, last, country) of addresses that it says are in one country.
Ranges = list[tuple[Version, int, int, str]]
OUTCOMES = ("right", "wrong", "doubt", "missed")


def truth(options: argparse.Namespace, settings: Settings) -> dict[str, Ranges]:
    cloud = CloudRegions.load(settings.geo.cloud_regions)
    if options.data is None:
        store = geo_store(settings)
        tables = [table for table in store.tables(settings.geo.sources) if table.form in FORMS.values()]
        read = [(t.name, read_table(t, tuple(Input.read(path, "") for path in t.paths), cloud)) for t in tables]
        return {name: list(_placed(table, cloud)) for name, table in read if isinstance(table, ProviderTable)}
    found: dict[str, Ranges] = {}
    for path in sorted(options.data.iterdir()):
        data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        form = next((form for prefix, form in FORMS.items() if path.name.startswith(prefix)), None)
        if form is not None:
            source = Input(path, data, hashlib.sha256(data).hexdigest())
            found[form] = list(_placed(ProviderTable(form, form, [source], cloud), cloud))
        elif path.suffix in {".csv", ".txt"} and b"," in data:
            found[path.stem] = list(_geofeed(data.decode()))
    return found


def _placed(table: ProviderTable, cloud: CloudRegions) -> Iterator[tuple[Version, int, int, str]]:
    """Rows without a place are kept, so that a range around them does not claim their addresses."""
    for row in table.rows():
        (region,) = row.regions or ("",)
        yield row.version, row.first, row.last, cloud.country(region) or ""


def _geofeed(text: str) -> Iterator[tuple[Version, int, int, str]]:
    for row in csv.reader(line for line in text.splitlines() if line.strip() and not line.startswith("#")):
        network = ip_network(row[0].strip())
        version: Version = 4 if network.version == 4 else 6
        yield version, int(network.network_address), int(network.broadcast_address), row[1].strip()


def shares(table: GeoTable, steps: Steps, version: Version, ranges: Ranges) -> Counter[str]:
    """Addresses by outcome."""
    names = [""]
    numbers: dict[str, int] = {"": 0}
    flat = []
    for family, first, last, country in ranges:
        if family == version:
            number = numbers.setdefault(country or "-", len(names))
            if number == len(names):
                names.append(country)
            flat.append((first, last, number))
    pairs: list[tuple[int, int]] = []

    def numbered(is_at: int, said: int) -> int:
        pairs.append((is_at, said))
        return len(pairs) - 1

    both = combine(flatten(flat, BITS[version]), steps, numbered)
    found: Counter[str] = Counter()
    for first, end, ident in zip(both.starts, [*both.starts[1:], 1 << both.bits], both.ids, strict=True):
        is_at, said = pairs[ident]
        if names[is_at]:
            for outcome in _outcomes(names[is_at], table.sets[said].regions):
                found[outcome] += end - first
    return found


def _outcomes(country: str, said: frozenset[str]) -> tuple[str, ...]:
    if len(said) == 1:
        return ("right",) if country in said else ("wrong",)
    return ("doubt",) if country in said or DOUBT in said or not said else ("doubt", "missed")


def as_steps(table: GeoTable, version: Version) -> Steps:
    """The compiled table as ranges, from the same entries that the kernel gets."""
    width = BITS[version] // 8
    rows = []
    for count, keys, values in table.kernel_entries(version):
        for at in range(count):
            key = keys[at * (width + 4) : (at + 1) * (width + 4)]
            first = int.from_bytes(key[4:])
            size = 1 << BITS[version] - int.from_bytes(key[:4], sys.byteorder)
            rows.append((first, first + size - 1, int.from_bytes(values[4 * at : 4 * at + 4], sys.byteorder)))
    return flatten(rows, BITS[version])


def accuracy(table: GeoTable, published: dict[str, Ranges]) -> dict[str, dict[str, float]]:
    steps = {version: as_steps(table, version) for version in VERSIONS}
    found: dict[str, dict[str, float]] = {}
    for provider, ranges in published.items():
        for version in VERSIONS:
            counts = shares(table, steps[version], version, ranges)
            whole = counts["right"] + counts["wrong"] + counts["doubt"]
            if whole:
                found[f"{provider} IPv{version}"] = {name: counts[name] / whole for name in OUTCOMES}
    return found


def report_accuracy(found: dict[str, dict[str, float]]) -> None:
    head = f"{'addresses of':<20} {'right':>8} {'wrong':>8} {'in doubt':>9} {'(missed)':>9}"
    print(f"{head}   wrong below {WRONG_TARGET:.1%}")
    for name, one in found.items():
        verdict = "reached" if one["wrong"] < WRONG_TARGET else "MISSED"
        parts = f"{one['right']:>8.3%} {one['wrong']:>8.3%} {one['doubt']:>9.3%} {one['missed']:>9.3%}"
        print(f"{name:<20} {parts}   {verdict}")


def load_seconds(table: GeoTable) -> float:
    """Both tries into the kernel."""
    samples = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        tries = build_tries(table)
        samples.append(time.process_time() - begun)
        for fd in tries.values():
            os.close(fd)
    return min(samples)


def swap_seconds() -> float:
    """The one store that puts a generation in force: the median of a thousand, as time passes."""
    fd = sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=1)
    generation = Map(fd, 4, 4)
    samples = []
    for number in range(1000):
        begun = time.perf_counter()
        generation.update(bytes(4), number.to_bytes(4, sys.byteorder))
        samples.append(time.perf_counter() - begun)
    generation.close()
    return statistics.median(samples)


def lookup_seconds(table: GeoTable) -> dict[str, float]:
    """One look into the table, with the whole answer: 2,000 addresses at random (those of IPv6 where rows begin, for
    most of the space is empty) again and again, as executors go to the same places again and again."""
    chance = random.Random(1)
    rows = as_steps(table, 6).starts
    drawn = {4: [chance.getrandbits(32) for _ in range(LOOKUPS)], 6: [chance.choice(rows) for _ in range(LOOKUPS)]}
    found = {}
    for version in VERSIONS:
        addresses = [to_address(version, value) for value in drawn[version]]
        samples = []
        for _ in range(LOOKUP_ROUNDS):
            begun = time.process_time()
            for address in addresses:
                table.lookup(address)
            samples.append((time.process_time() - begun) / LOOKUPS)
        found[f"IPv{version}"] = min(samples)
    return found


RESIDENT = """
import random, sys
from ipaddress import IPv4Address
from pathlib import Path
from enforcer.geo.table import GeoTable
def field(name):
    return sum(int(line.split()[1]) for line in open("/proc/self/smaps_rollup") if line.startswith(name)) << 10
before = field("Rss"), field("Private")
table = GeoTable.open(Path(sys.argv[1]))
opened = field("Rss"), field("Private")
for _ in range(200_000):
    table.lookup(IPv4Address(random.getrandbits(32)))
used = field("Rss"), field("Private")
print(opened[0] - before[0], used[0] - before[0], used[1] - before[1])
"""


def resident(path: Path) -> tuple[int, int, int]:
    """Bytes that a process grows by: when it opens the table, after 200,000 lookups, and of that its own alone."""
    done = subprocess.run([sys.executable, "-c", RESIDENT, str(path)], capture_output=True, text=True, check=True)
    opened, used, private = map(int, done.stdout.split())
    return opened, used, private


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    default = os.environ.get("ENFORCER_GEO_DATA")
    parser.add_argument(
        "--data", type=Path, default=Path(default) if default else None, help="directory of range files"
    )
    parser.add_argument("--root", type=Path, default=Path("/"), help="instance whose imported ranges and tables count")
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    try:
        settings = load_settings(options.root)
    except ConfigError:
        settings = Settings(root=options.root)
    path = compiled(geo_sources(settings, ()), settings.geo_caches)
    table = GeoTable.open(path)
    print(f"table {table.version}: {', '.join(str(origin) for origin in table.origins)}\n")
    published = truth(options, settings)
    found = accuracy(table, published)
    if found:
        report_accuracy(found)
    else:
        print("nothing to hold it against: import providers' ranges with 'enforcer geo update', or name --data DIR")
    figures = costs(table, path)
    if options.json:
        options.json.write_text(json.dumps({"accuracy": found, "costs": figures}, indent=2))
    return 0


def costs(table: GeoTable, path: Path) -> dict[str, float]:
    print(f"\n{table.counts['v4']} IPv4 and {table.counts['v6']} IPv6 prefixes, {len(table.sets)} sets")
    figures: dict[str, float] = {}

    def tell(name: str, value: float, target: float, text: str) -> None:
        figures[name] = value
        print(f"{name:<44} {text:>12}   {'reached' if value < target else 'MISSED'}")

    if os.geteuid() == 0:
        loaded = load_seconds(table)
        tell(f"into the kernel, below {LOAD_TARGET:g} s", loaded, LOAD_TARGET, f"{loaded:.2f} s")
        swapped = swap_seconds()
        tell(f"swap, below {SWAP_TARGET * 1e3:g} ms", swapped, SWAP_TARGET, f"{swapped * 1e6:.1f} us")
    else:
        print("into the kernel, swap: only root can measure it")
    for version, seconds in lookup_seconds(table).items():
        tell(f"lookup, {version}, below {LOOKUP_TARGET * 1e6:g} us", seconds, LOOKUP_TARGET, f"{seconds * 1e6:.2f} us")
    opened, used, private = resident(path)
    tell(f"resident, below {MEMORY_TARGET >> 20} MB", used, MEMORY_TARGET, f"{used / 1e6:.1f} MB")
    print(f"  of that {opened / 1e6:.1f} MB when opened, and {private / 1e6:.1f} MB shared with no other process")
    return figures


if __name__ == "__main__":
    sys.exit(main())
