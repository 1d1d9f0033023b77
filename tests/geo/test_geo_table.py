"""The compiled table: lookups, kernel entries, the file and its cache."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
import threading
from bisect import bisect_right
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path

import maxminddb
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import TableError
from enforcer.flow import Address
from enforcer.geo.address import VERSIONS, normalise, to_address
from enforcer.geo.compiled import KEPT, build_into, cached, compiled, place
from enforcer.geo.country_mmdb import SHIPPED
from enforcer.geo.ipfire import LAST_BLOCK
from enforcer.geo.iso import countries
from enforcer.geo.sources import Sources
from enforcer.geo.special import HARD_KINDS, hard_kind
from enforcer.geo.table import HEADER, GeoTable

from .geo_files import table_of, write_csv, write_ipfire, write_mmdb

ROWS = {
    "3.0.0.0/8": "DE",
    "12.8.8.0/24": "US",
    "2600:1f18::/32": "US",
    "2a05:d014::/65": "DE",
    "2a05:d014::8000:0:0:0/128": "FR",
}


@pytest.fixture
def small(tmp_path: Path) -> Sources:
    return Sources(write_mmdb(tmp_path / "t.mmdb", ROWS))


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("12.8.8.8", "US"),
        ("8.8.8.8", "anycast"),
        ("88.198.0.1", "DE"),
        ("51.38.0.1", "FR"),
        ("3.120.0.1", "DE"),
        ("77.88.8.8", "RU"),
        ("13.112.0.1", "JP"),
        ("34.89.128.1", "DE"),
        ("20.52.0.1", "DE"),
        ("2a05:d014::1", "DE"),
        ("::ffff:12.8.8.8", "US"),
        ("::ffff:8.8.8.8", "anycast"),
        ("::ffff:3.120.0.1", "DE"),
    ],
)
def test_well_known_addresses(full: GeoTable, address: str, expected: str) -> None:
    """Addresses whose operators publish where they are have that region, IPv4-mapped ones as well."""
    assert str(full.lookup(ip_address(address))) == expected


def _blocks_from_abroad(version: int) -> list[range]:
    """What IANA gave to others than ARIN, read from the list by other means than the product's."""
    data = yaml.safe_load((SHIPPED.parent / "registries.yaml").read_text())[f"ipv{version}"]
    entries = [str(entry) for block in data.values() for entry in block]
    if version == 6:
        networks = [ip_network(entry) for entry in entries]
        return sorted((range(int(one[0]), int(one[-1]) + 1) for one in networks), key=lambda block: block.start)
    pairs = [(int(entry.split("-")[0]), int(entry.split("-")[-1])) for entry in entries]
    return [range(low * 2**24, (high + 1) * 2**24) for low, high in sorted(pairs)]


FROM_ABROAD = {version: _blocks_from_abroad(version) for version in VERSIONS}


class Oracle:
    """The sources' answers by other means: maxminddb's own lookup, and a bisect over IPFire's text."""

    def __init__(self, sources: Sources, directory: Path) -> None:
        import lzma

        plain = directory / "plain.mmdb"
        plain.write_bytes(lzma.decompress(sources.mmdb.read_bytes()))
        self._reader = maxminddb.open_database(str(plain))
        self._ipfire: dict[int, tuple[list[int], list[int], list[str]]] = {}
        for version, name in ((4, "geoip"), (6, "geoip6")) if sources.ipfire else ():
            lines = [line.split(",") for line in (sources.ipfire / name).read_text().split() if line.count(",") == 2]
            to_int = int if version == 4 else (lambda text: int(IPv6Address(text)))
            self._ipfire[version] = [to_int(x[0]) for x in lines], [to_int(x[1]) for x in lines], [x[2] for x in lines]

    def regions(self, address: Address) -> set[str]:
        """Both answers, and doubt where only one is there, or where North America holds an address from abroad."""
        record = self._reader.get(address)
        opinions = [{record["country_code"]} & countries().keys()] if record else [set()]  # type: ignore[call-overload,index]
        if self._ipfire:
            firsts, lasts, codes = self._ipfire[address.version]
            at = bisect_right(firsts, int(address)) - 1
            inside = at >= 0 and int(address) <= lasts[at]
            opinions.append({codes[at]} & countries().keys() if inside else set())
        found = set().union(*opinions)
        at = bisect_right(FROM_ABROAD[address.version], int(address), key=lambda block: block.start) - 1
        abroad = at >= 0 and int(address) in FROM_ABROAD[address.version][at]
        doubted = found and (not all(opinions) or (abroad and found & {"US", "CA"}))
        return found | {"?"} if doubted else found

    def boundaries(self, address: Address) -> tuple[int, int]:
        _, length = self._reader.get_with_prefix_len(address)
        network = ip_network(f"{address}/{length}", strict=False)
        return int(network.network_address), int(network.broadcast_address)


def test_full_table_against_independent_lookups(full: GeoTable, full_sources: Sources, tmp_path: Path) -> None:
    """At each boundary ±1 of sampled rows, ours and the MMDB's, the table says what its sources say one by one."""
    oracle = Oracle(full_sources, tmp_path)
    rng = random.Random(20260617)
    checked = 0
    for version in VERSIONS:
        entries = [entry for _, keys, _ in full.kernel_entries(version) for entry in _keys(version, keys)]
        marks: set[int] = set()
        for first, length in rng.sample(entries, 2000):
            marks |= {first - 1, first, first + (1 << ((32 if version == 4 else 128) - length)), first + 1}
            low, high = oracle.boundaries(to_address(version, first))
            marks |= {low - 1, low, high, high + 1}
        for value in marks:
            if not 0 <= value < 1 << (32 if version == 4 else 128):
                continue
            address = to_address(version, value)
            if normalise(address) != address:
                continue
            found = full.lookup(address)
            if found.kind in {"country", "unknown"}:
                assert found.regions == oracle.regions(address), address
                checked += 1
            assert version == 6 or address in ip_network(found.prefix)
    assert checked > 10_000


def _keys(version: int, keys: bytes) -> list[tuple[int, int]]:
    size = 4 if version == 4 else 16
    return [(int.from_bytes(raw), length) for length, raw in struct.iter_unpack(f"=I{size}s", keys)]


def test_kernel_entries_are_the_rows(full: GeoTable) -> None:
    """The tries get as many rows as are counted, disjoint, ascending per block, each with the id Python looks up."""
    for version in VERSIONS:
        bits = 32 if version == 4 else 128
        rows: list[tuple[int, int]] = []
        for count, keys, values in full.kernel_entries(version, chunk=50_000):
            assert count <= 50_000
            parsed = _keys(version, keys)
            ids = [ident for (ident,) in struct.iter_unpack("=I", values)]
            assert len(parsed) == len(ids) == count
            for (first, length), ident in list(zip(parsed, ids, strict=True))[::997]:
                assert full.find(to_address(version, first)) == (ident, first, length)
                assert full.find(to_address(version, first + (1 << bits - length) - 1)) == (ident, first, length)
                assert 0 < ident < len(full.sets)
            rows += parsed
        assert len(rows) == full.counts[f"v{version}"]
        rows.sort()
        end = 0
        for first, length in rows:
            assert first >= end
            end = first + (1 << bits - length)


def test_kernel_entry_bytes(small: Sources, tmp_path: Path) -> None:
    """A key is `struct bpf_lpm_trie_key`: native u32 prefix length, address in network order; a value a native u32."""
    table = table_of(small, tmp_path)
    ident = struct.pack("=I", table.set_id(ip_address("12.8.8.8")))
    four = dict(_entries(table, 4, 8))
    assert four[struct.pack("=I", 24) + bytes([12, 8, 8, 0])] == ident
    six = dict(_entries(table, 6, 20))
    assert six[struct.pack("=I", 32) + bytes.fromhex("26001f18") + bytes(12)] == ident
    french = table.set_id(ip_address("2a05:d014::8000:0:0:0"))
    assert six[struct.pack("=I", 128) + bytes.fromhex("2a05d014000000008000000000000000")] == struct.pack("=I", french)
    assert six[struct.pack("=I", 65) + bytes.fromhex("2a05d014") + bytes(12)] != ident


def _entries(table: GeoTable, version: int, width: int) -> list[tuple[bytes, bytes]]:
    out = []
    for count, keys, values in table.kernel_entries(4 if version == 4 else 6, chunk=3):
        out += [(keys[width * i : width * (i + 1)], values[4 * i : 4 * i + 4]) for i in range(count)]
    return out


def test_long_ipv6_rows(small: Sources, tmp_path: Path) -> None:
    """Rows longer than /64 are told apart at their exact ends."""
    table = table_of(small, tmp_path)
    expected = {
        "2a05:d013:ffff:ffff:ffff:ffff:ffff:ffff": ("unknown", "::/0"),
        "2a05:d014::": ("DE", "2a05:d014::/65"),
        "2a05:d014::7fff:ffff:ffff:ffff": ("DE", "2a05:d014::/65"),
        "2a05:d014::8000:0:0:0": ("FR", "2a05:d014:0:0:8000::/128"),
        "2a05:d014::8000:0:0:1": ("unknown", "::/0"),
    }
    for text, answer in expected.items():
        found = table.lookup(IPv6Address(text))
        assert (str(found), found.prefix) == answer


prefixes = st.one_of(
    st.tuples(st.just(4), st.integers(1, 32), st.integers(0, 2**32 - 1)),
    st.tuples(st.just(6), st.integers(40, 128), st.integers(0, 2**128 - 1).map(lambda n: n >> 44 | 0x2A05 << 112)),
)


@settings(max_examples=40, deadline=None)
@given(rows=st.lists(st.tuples(prefixes, st.sampled_from(["DE", "FR", "US/JP"])), min_size=1, max_size=10))
def test_table_is_longest_prefix_match(tmp_path_factory: pytest.TempPathFactory, rows: list) -> None:  # type: ignore[type-arg]
    """A table of random operator rows answers, at each boundary ±1, with the longest row around the address."""
    directory = tmp_path_factory.mktemp("lpm")
    networks = {}
    for (version, length, value), codes in rows:
        bits = 32 if version == 4 else 128
        address = to_address(version, value >> bits - length << bits - length)
        network = ip_network(f"{address}/{length}")
        if not hard_kind(version, int(network.network_address), int(network.broadcast_address)):
            networks[network] = codes
    if not networks:
        return
    own = write_csv(directory / "own.csv", "".join(f"{network},{codes}\n" for network, codes in networks.items()))
    mmdb = write_mmdb(directory / "t.mmdb", {"192.0.1.0/24": "SE"})
    table = table_of(Sources(mmdb, None, (own,)), directory)
    for network in networks:
        for value in (int(network.network_address) - 1, int(network.network_address), int(network.broadcast_address)):
            if value < 0:
                continue
            address = to_address(4 if network.version == 4 else 6, value)
            around = [n for n in networks if n.version == address.version and address in n]
            found = table.lookup(address)
            assert (found.kind == "operator") == (bool(around) and found.kind not in HARD_KINDS)
            if found.kind == "operator":
                longest = max(around, key=lambda n: n.prefixlen)
                assert found.regions == frozenset(networks[longest].split("/"))
                assert address in ip_network(found.prefix)


def test_normalise() -> None:
    """IPv4-mapped addresses become IPv4 and zone ids go; NAT64 stays what it is; text that is no address is refused."""
    assert normalise("::ffff:8.8.8.8") == IPv4Address("8.8.8.8")
    assert normalise(IPv6Address("::ffff:7f00:1")) == IPv4Address("127.0.0.1")
    assert str(normalise("fe80::1%eth0")) == "fe80::1"
    assert normalise("64:ff9b::808:808") == IPv6Address("64:ff9b::808:808")
    with pytest.raises(ValueError, match="example"):
        normalise("example.com")


def test_same_inputs_same_bytes(small: Sources, tmp_path: Path) -> None:
    """Compiling is deterministic, so a version names its content on every machine of the same byte order."""
    assert small.read().compile() == small.read().compile()
    table = table_of(small, tmp_path)
    assert table.version == table_of(small, tmp_path).version
    assert [origin.name for origin in table.origins] == ["special-purpose addresses", "anycast services", "t"]
    assert table.sets[0].kind == "unknown"
    assert table.region_set(table.set_id(ip_address("12.8.8.8"))).regions == {"US"}


def test_a_changed_input_is_another_table(small: Sources, tmp_path: Path) -> None:
    """Every input is part of the key: another operator row, another IPFire file, another name."""
    own = write_csv(tmp_path / "own.csv", "10.0.0.0/8,DE\n")
    keys = {small.read().key, Sources(small.mmdb, None, (own,)).read().key}
    write_csv(own, "10.0.0.0/8,FR\n")
    keys.add(Sources(small.mmdb, None, (own,)).read().key)
    keys.add(Sources(small.mmdb, write_ipfire(tmp_path / "i", []), ()).read().key)
    assert len(keys) == 4


def test_compiled_builds_once_and_finds(small: Sources, tmp_path: Path) -> None:
    """The first call builds in the first writable directory, 0644; later calls with other directories first find it."""
    blocker = tmp_path / "file"
    blocker.write_text("no directory")
    one, two = tmp_path / "one", tmp_path / "two"
    path = compiled(small, [blocker / "x", one, two])
    assert path.parent == one
    assert path.stat().st_mode & 0o777 == 0o644
    assert [p.name for p in one.iterdir()] == [path.name]
    assert compiled(small, [two, one]) == path
    assert not two.exists()
    with pytest.raises(TableError, match="no place for the compiled geography table"):
        compiled(Sources(write_mmdb(tmp_path / "u.mmdb", {"1.0.0.0/8": "AU"})), [blocker / "x"])


@pytest.mark.parametrize(
    "damage", ["empty", "cut", "tail", "body", "meta", "magic", "format", "writable", "link", "renamed"]
)
def test_unsound_cache_files_are_refused_and_rebuilt(small: Sources, tmp_path: Path, damage: str) -> None:
    """A damaged, foreign-writable, linked or renamed cache file is refused by `open` or the cache, and built again."""
    cache = tmp_path / "cache"
    path = compiled(small, [cache])
    good = path.read_bytes()
    middle = bytearray(good)
    at = {"body": len(good) - 20, "meta": HEADER.size + 30, "magic": 0, "format": 8}.get(damage, 0)
    middle[at] ^= 1
    if damage == "writable":
        path.chmod(0o666)
    elif damage == "link":
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
    elif damage == "renamed":
        other = Sources(write_mmdb(tmp_path / "u.mmdb", {"1.0.0.0/8": "AU"}))
        build_into(other.read(), cache).rename(path)
    else:
        data = {"empty": b"", "cut": good[:-8], "tail": good + bytes(8)}.get(damage, bytes(middle))
        path.write_bytes(data)
    if damage != "renamed":
        with pytest.raises(TableError, match=r"; (remove it, and it is built again|build it again)$"):
            GeoTable.open(path)
    assert cached(small.read().key, [cache]) is None
    assert compiled(small, [cache]) == path
    assert path.read_bytes() == good
    assert GeoTable.open(path).lookup(ip_address("12.8.8.8")).regions == {"US"}


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_a_stranger_s_file_is_refused(small: Sources, tmp_path: Path) -> None:
    """A table that belongs to neither root nor us is not used: its owner could change it under our feet."""
    path = compiled(small, [tmp_path / "cache"])
    os.chown(path, 65534, -1)
    with pytest.raises(TableError, match="someone else owns or may write"):
        GeoTable.open(path)
    assert cached(small.read().key, [path.parent]) is None


def test_open_by_descriptor(small: Sources, tmp_path: Path) -> None:
    """A worker opens the table from an inherited descriptor, which stays open and outlives the file's name."""
    path = compiled(small, [tmp_path / "cache"])
    descriptor = os.open(path, os.O_RDONLY)
    try:
        path.unlink()
        table = GeoTable.open(descriptor)
        os.fstat(descriptor)
    finally:
        os.close(descriptor)
    assert str(table.lookup(ip_address("3.1.2.3"))) == "DE"


def test_failed_builds_leave_nothing(tmp_path: Path) -> None:
    """A fault in any source ends the build with its own message and leaves no file, not even a temporary one."""
    cache = tmp_path / "cache"
    own = write_csv(tmp_path / "own.csv", "10.0.0.0/8,DEE\n")
    with pytest.raises(TableError, match=r"own\.csv:1: 'DEE' is no ISO"):
        compiled(Sources(write_mmdb(tmp_path / "t.mmdb", ROWS), None, (own,)), [cache])
    assert list(cache.iterdir()) == []


def test_concurrent_builds(small: Sources, tmp_path: Path) -> None:
    """Builders of the same table at the same time do not disturb each other, and one table remains."""
    paths: list[Path] = []
    threads = [
        threading.Thread(target=lambda: paths.append(build_into(small.read(), tmp_path / "c"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(paths) == 4
    assert [path.name for path in (tmp_path / "c").iterdir()] == [place(tmp_path, small.read().key).name]


def test_old_tables_go(small: Sources, tmp_path: Path) -> None:
    """A cache directory keeps a bounded number of tables, the newest among them."""
    for number in range(KEPT + 2):
        own = write_csv(tmp_path / "own.csv", f"10.{number}.0.0/16,DE\n")
        path = build_into(Sources(small.mmdb, None, (own,)).read(), tmp_path / "c")
    assert len(list((tmp_path / "c").iterdir())) == KEPT
    assert path.exists()


def run_build(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "enforcer.geo.build", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_build_command(tmp_path: Path) -> None:
    """The ahead-of-time builder prints one line with path and counts; a second run says that it is there already."""
    mmdb = write_mmdb(tmp_path / "t.mmdb", ROWS)
    (tmp_path / "geo").mkdir()
    write_csv(tmp_path / "geo" / "own.csv", "10.0.0.0/8,DE\n")
    arguments = ["--only", "--cache", str(tmp_path / "c"), "--mmdb", str(mmdb), "--operator", str(tmp_path / "geo")]
    done = run_build(*arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{tmp_path}/c/")
    assert done.stdout.endswith(" s\n")
    assert run_build(*arguments).stdout.endswith(", already built\n")


def test_build_command_fault(tmp_path: Path) -> None:
    """A damaged source ends the builder with exit code 5, one line on standard error, and no table."""
    broken = tmp_path / "t.mmdb"
    broken.write_bytes(b"nonsense")
    done = run_build("--only", "--cache", str(tmp_path / "c"), "--mmdb", str(broken))
    assert done.returncode == 5
    assert done.stderr.startswith(f"{broken}: not a whole MMDB file")
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "c").exists()


def test_shipped_table_must_be_the_shipped_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped file with other content than was published is refused, even if it is a valid table."""
    import lzma

    from enforcer.geo import country_mmdb

    other = tmp_path / SHIPPED.name
    other.write_bytes(lzma.compress(write_mmdb(tmp_path / "t.mmdb", ROWS).read_bytes()))
    monkeypatch.setattr(country_mmdb, "SHIPPED", other)
    with pytest.raises(TableError, match=r"not the table that was shipped .*; reinstall enforcer"):
        Sources(other).read().compile()


def test_last_block_is_public() -> None:
    """The mark by which a cut IPFire file is known is the last block of each family that registries hand out."""
    assert IPv4Address(LAST_BLOCK[4]) == IPv4Address("223.0.0.0")
    assert IPv6Address(LAST_BLOCK[6]) == IPv6Address("2c00::")
