"""Precedence and disagreement: many sources, one answer."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import TableError
from enforcer.geo import merge as merging
from enforcer.geo.address import normalise
from enforcer.geo.merge import Layers, merge
from enforcer.geo.rows import Origin, Row
from enforcer.geo.sources import Sources
from enforcer.geo.special import SPECIAL
from enforcer.geo.table import GeoTable

from .geo_files import table_of, write_csv, write_ipfire, write_mmdb


def region(table: GeoTable, address: str) -> tuple[str, str]:
    found = table.lookup(ip_address(address))
    return str(found), found.kind


@pytest.fixture
def table(tmp_path: Path) -> GeoTable:
    """Two country tables that agree, differ and fall silent, and an operator's table across all layers."""
    mmdb = write_mmdb(
        tmp_path / "t.mmdb",
        {
            "3.0.0.0/8": "DE",
            "4.0.0.0/8": "US",
            "5.0.0.0/8": "FR",
            "10.0.0.0/8": "US",
            "169.254.0.0/16": "US",
            "2a05::/16": "DE",
            "2a06::/16": "FR",
        },
    )
    ipfire = write_ipfire(
        tmp_path / "ipfire",
        [("3.0.0.0/8", "DE"), ("4.0.0.0/9", "CA"), ("6.0.0.0/8", "JP"), ("7.0.0.0/8", "EU")],
        [("2a05::/17", "DE"), ("2a05:8000::/17", "CH")],
    )
    own = write_csv(
        tmp_path / "own.csv",
        "4.0.0.0/16,NL,office\n5.0.0.0/8,BE\n5.1.0.0/16,LU\n10.1.0.0/16,DE\n100.64.0.0/10,AT/CH\n169.0.0.0/8,SE\n"
        "192.0.2.0/24,DE\n240.0.0.0/8,DE\n11.9.9.9,CH\n2001:db8::/32,DE\nfd00::/8,DE\n64:ff9b::/96,DE\n"
        "64:ff9b:1::/48,DE\n1.1.1.0/24,AU\n",
    )
    return table_of(Sources(mmdb, ipfire, (own,)), tmp_path / "cache")


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("3.1.2.3", ("DE", "country")),  # both agree
        ("4.1.0.0", ("CA/US", "country")),  # they differ: both
        ("4.128.0.0", ("US/?", "country")),  # only the primary knows
        ("6.0.0.0", ("JP/?", "country")),  # only the second knows
        ("7.0.0.0", ("unknown", "unknown")),  # EU names no country
        ("2a05:7fff::", ("DE", "country")),
        ("2a05:8000::", ("CH/DE", "country")),
        ("2a06::1", ("FR/?", "country")),
        ("2a07::1", ("unknown", "unknown")),
    ],
)
def test_country_tables_are_opinions(table: GeoTable, address: str, expected: tuple[str, str]) -> None:
    """Agreement gives one region, disagreement both, one voice counts, and none is unknown."""
    assert region(table, address) == expected


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("4.0.0.1", ("NL", "operator")),  # over two disagreeing countries
        ("5.0.255.255", ("BE", "operator")),
        ("5.1.0.0", ("LU", "operator")),  # the longest prefix wins within the operator's tables
        ("5.2.0.0", ("BE", "operator")),
        ("11.9.9.8", ("unknown", "unknown")),
        ("11.9.9.9", ("CH", "operator")),
        ("10.0.255.255", ("private", "private")),  # over the country table's US
        ("10.1.0.0", ("DE", "operator")),  # over private
        ("100.64.0.1", ("AT/CH", "operator")),  # over shared
        ("100.100.100.200", ("metadata", "metadata")),  # not over metadata
        ("169.253.255.255", ("SE", "operator")),
        ("169.254.0.0", ("link-local", "link-local")),  # not over link-local
        ("169.254.169.254", ("metadata", "metadata")),
        ("192.0.2.1", ("DE", "operator")),  # over documentation
        ("240.0.0.1", ("DE", "operator")),  # over reserved
        ("241.0.0.1", ("reserved", "reserved")),
        ("2001:db8::1", ("DE", "operator")),
        ("fd00::1", ("DE", "operator")),
        ("fd00:ec2::254", ("metadata", "metadata")),
        ("64:ff9b::808:808", ("DE", "operator")),
        ("64:ff9b::a9fe:a9fe", ("metadata", "metadata")),  # NAT64 of 169.254.169.254
        ("64:ff9b::7f00:1", ("loopback", "loopback")),  # NAT64 of 127.0.0.1
        ("2002:7f00:1::1", ("loopback", "loopback")),  # 6to4 of 127.0.0.1
        ("64:ff9b:1::808:808", ("DE", "operator")),  # a NAT64 of the site's own
        ("64:ff9b:1::a9fe:a9fe", ("metadata", "metadata")),  # its 169.254.169.254, as a /96
        ("64:ff9b:1:a9fe:a9:fe00::", ("metadata", "metadata")),  # and as a /48
        ("64:ff9b:1:7f12:34:5600::", ("loopback", "loopback")),  # 127.18.52.86
        ("64:ff9b:1:a9fd:a9:fe00::", ("DE", "operator")),
        ("1.1.1.1", ("AU", "operator")),  # over anycast
    ],
)
def test_operator_beats_all_but_hard_ranges(table: GeoTable, address: str, expected: tuple[str, str]) -> None:
    """An operator's row beats countries and soft special ranges, never metadata, link-local, loopback, multicast."""
    assert region(table, address) == expected


def test_a_region_names_its_row(table: GeoTable) -> None:
    """The answer carries the CIDR and the origin, with version and label, of the row that gave it."""
    both = table.lookup(ip_address("3.1.2.3"))
    assert both.prefix == "3.0.0.0/8"
    assert both.source == "t 2026-06-17 + ipfire 2026-06-25"
    assert table.lookup(ip_address("4.128.0.0")).source == "t 2026-06-17"
    own = table.lookup(ip_address("4.0.0.1"))
    assert own.prefix == "4.0.0.0/16"
    assert own.source.startswith("own.csv ")
    assert own.source.endswith(" office")
    assert table.lookup(ip_address("10.0.0.1")).source == "RFC 1918 private use"
    nothing = table.lookup(ip_address("11.9.9.8"))
    assert (nothing.regions, nothing.prefix, nothing.source) == (frozenset(), "0.0.0.0/0", "no table")
    assert table.lookup(ip_address("2a07::1")).prefix == "::/0"


def test_disputed_share_is_counted(table: GeoTable) -> None:
    """4.0.0.0/9 is disputed: 2^23 addresses; 3/8, 4/8, 5/8, 6/8, 10/8, 169.254/16 and 223.255.255/24 are placed."""
    assert table.counts["v4_disputed"] == 2**23
    assert table.counts["v4_placed"] == 5 * 2**24 + 2**16 + 2**8


@pytest.mark.parametrize("row", SPECIAL, ids=lambda row: row.cidr)
def test_every_special_range_has_its_kind(full: GeoTable, row: tuple[str, str, str]) -> None:
    """Both ends of each special range have its kind, or that of a special range inside it, and no region."""
    network = ip_network(row[0])
    inner = [other for other in SPECIAL if ip_network(other.cidr).version == network.version]
    for address in (network.network_address, network.broadcast_address):
        if normalise(address) != address:
            continue
        kinds = [other for other in inner if address in ip_network(other.cidr)]
        narrowest = max(kinds, key=lambda other: ip_network(other.cidr).prefixlen)
        found = full.lookup(address)
        assert found.regions == frozenset()
        if address.version == 4 or not any(address in ip_network(form) for form in ("64:ff9b::/96", "2002::/16")):
            assert found.kind == narrowest.kind


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("9.255.255.255", "country"),
        ("10.0.0.0", "private"),
        ("10.255.255.255", "private"),
        ("11.0.0.0", "country"),
        ("100.63.255.255", "country"),
        ("100.64.0.0", "shared"),
        ("100.127.255.255", "shared"),
        ("100.128.0.0", "country"),
        ("126.255.255.255", "country"),
        ("127.255.255.255", "loopback"),
        ("168.63.129.15", "country"),
        ("168.63.129.16", "metadata"),
        ("168.63.129.17", "country"),
        ("169.254.169.253", "link-local"),
        ("169.254.169.255", "link-local"),
        ("172.15.255.255", "country"),
        ("172.16.0.0", "private"),
        ("172.32.0.0", "country"),
        ("223.255.255.255", "country"),
        ("224.0.0.0", "multicast"),
        ("255.255.255.255", "reserved"),
        ("::", "reserved"),
        ("::1", "loopback"),
        ("::2", "embedded"),
        ("2001::", "embedded"),
        ("2001:db8::1", "documentation"),
        ("2002::1", "embedded"),
        ("3fff::1", "documentation"),
        ("fdff::1", "private"),
        ("fe80::1", "link-local"),
        ("ff02::1", "multicast"),
    ],
)
def test_special_boundaries(full: GeoTable, address: str, kind: str) -> None:
    """The full table switches kind exactly at the boundaries that the RFCs name."""
    assert full.lookup(ip_address(address)).kind == kind


class Fake:
    """A source in memory. Its rows lie in three blocks of 64 addresses: public, soft special and hard special."""

    def __init__(self, name: str, rows: list[Row]) -> None:
        self.origin = Origin(name, "1", "", "")
        self._rows = rows

    def rows(self) -> Iterator[Row]:
        return iter(self._rows)


BASES = {"public": 8 << 24, "private": 10 << 24, "loopback": 127 << 24}
WIDTH = 6

fake_rows = st.lists(
    st.tuples(
        st.sampled_from(sorted(BASES)),
        st.integers(0, WIDTH),
        st.integers(0, (1 << WIDTH) - 1),
        st.sets(st.sampled_from(["DE", "FR", "US"]), min_size=1, max_size=2),
    ),
    max_size=8,
    unique_by=lambda row: (row[0], row[1], row[2] >> WIDTH - row[1]),
)


def to_row(row: tuple[str, int, int, set[str]]) -> Row:
    base, length, offset, regions = row
    first = BASES[base] + (offset >> WIDTH - length << WIDTH - length)
    return Row(4, first, first + (1 << WIDTH - length) - 1, frozenset(regions))


def narrowest(rows: list[Row], value: int) -> frozenset[str]:
    around = [row for row in rows if row.first <= value <= row.last]
    return min(around, key=lambda row: row.last - row.first).regions if around else frozenset()


@given(fake_rows, fake_rows, fake_rows)
def test_merge_against_brute_force(one: list, two: list, own: list) -> None:  # type: ignore[type-arg]
    """For every address the merge equals the precedence rules applied to that address alone."""
    a, b, o = ([to_row(row) for row in rows] for rows in (one, two, own))
    merged = merge(Layers([Fake("a", a), Fake("b", b)], operators=[Fake("o", o)]))
    steps = merged.steps[4]
    ends = [*steps.starts[1:], 1 << 32]
    for base, block in BASES.items():
        for value in range(block, block + (1 << WIDTH)):
            at = next(i for i, end in enumerate(ends) if value < end)
            found = merged.sets[steps.ids[at]]
            operator, opinions = narrowest(o, value), [narrowest(rows, value) for rows in (a, b)]
            country = frozenset[str]().union(*opinions, {"?"} if bool(opinions[0]) != bool(opinions[1]) else ())
            if base == "loopback":
                assert (found.regions, found.kind) == (frozenset(), "loopback")
            elif operator:
                assert (found.regions, found.kind) == (operator, "operator")
            elif base == "private":
                assert (found.regions, found.kind) == (frozenset(), "private")
            else:
                assert (found.regions, found.kind) == (country, "country" if country else "unknown")


def test_crossing_country_ranges() -> None:
    """A country table whose ranges cross is refused, whoever read it."""
    rows = [Row(4, 100, 200, frozenset({"DE"})), Row(4, 150, 250, frozenset({"FR"}))]
    with pytest.raises(TableError, match="bad 1: ranges overlap"):
        merge(Layers([Fake("bad", rows)]))


def test_too_many_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """More sets than 16 bits can number are refused with the mend, never wrapped around."""
    monkeypatch.setattr(merging, "MAX_SETS", 50)
    rows = [Row(4, n, n, frozenset({"DE"}), f"label {n}") for n in range(60)]
    with pytest.raises(TableError, match="use fewer labels"):
        merge(Layers([Fake("a", [])], operators=[Fake("o", rows)]))
