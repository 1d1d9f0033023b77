"""Each source alone: what it reads, and how it refuses what is damaged."""

from __future__ import annotations

import random
from ipaddress import ip_address, summarize_address_range
from pathlib import Path

import maxminddb
import pytest

from enforcer.errors import TableError
from enforcer.geo.country_mmdb import SHIPPED, CountryMmdb
from enforcer.geo.ipfire import IpfireTable
from enforcer.geo.operator_csv import OperatorTable, read_operator_tables
from enforcer.geo.rows import Input, Source
from enforcer.geo.sources import Sources

from .geo_files import IPFIRE_HEADER, write_csv, write_ipfire, write_mmdb

ROWS = {
    "3.120.0.0/14": "DE",
    "3.124.0.0/16": "FR",
    "8.8.8.0/24": "US",
    "255.255.255.255/32": "JP",
    "2001:4860::/32": "US",
    "2a05:d014::/33": "DE",
    "2a05:d014:8000::/127": "FR",
}


def read(path: Path) -> Input:
    return Input.read(path, "mend")


def cidrs_of(source: Source) -> dict[str, str]:
    """Rows as the standard library writes their CIDRs."""
    out: dict[str, str] = {}
    for row in source.rows():
        first, last = (ip_address(value) if row.version == 4 else ip_address(value.to_bytes(16)) for value in row[1:3])
        for network in summarize_address_range(first, last):  # type: ignore[type-var]
            out[str(network)] = "/".join(sorted(row.regions))
    return out


@pytest.mark.parametrize("record_size", [24, 28, 32])
def test_mmdb_rows_are_what_the_library_iterates(tmp_path: Path, record_size: int) -> None:
    """Walking the tree yields the networks and codes that maxminddb itself yields, for every record size."""
    path = write_mmdb(tmp_path / "t.mmdb", ROWS, record_size=record_size)
    with maxminddb.open_database(str(path)) as reader:
        expected = {str(network): record["country_code"] for network, record in reader}  # type: ignore[call-overload,index]
    assert expected == ROWS
    assert cidrs_of(CountryMmdb(read(path))) == ROWS


def test_mmdb_of_ipv4_only(tmp_path: Path) -> None:
    """An IPv4-only file has its IPv4 tree at the root, and nothing to say of IPv6."""
    four = {cidr: code for cidr, code in ROWS.items() if ":" not in cidr}
    path = write_mmdb(tmp_path / "t.mmdb", four, ip_version=4)
    assert cidrs_of(CountryMmdb(read(path))) == four


def test_mmdb_codes_that_are_no_country(tmp_path: Path) -> None:
    """`EU`, `AP` and a dissolved country are no countries: such a prefix has no row."""
    rows = {"1.0.0.0/24": "EU", "2.0.0.0/24": "AN", "3.0.0.0/24": "DE", "4.0.0.0/24": "AP"}
    path = write_mmdb(tmp_path / "t.mmdb", rows)
    assert cidrs_of(CountryMmdb(read(path))) == {"3.0.0.0/24": "DE"}


def test_shipped_mmdb_origin() -> None:
    """The shipped table names its release, its date and the checksum that was published with it."""
    origin = CountryMmdb(read(SHIPPED)).origin
    assert str(origin) == "geo-whois-asn-country 2.3.2026061719"
    assert origin.date == "2026-06-17"
    assert origin.sha256 == "c5f7c0e9bd6a6ccb5a2e9634764544a0d08bd0bd8788b8aedfac87bea184c652"


def test_truncated_xz(tmp_path: Path) -> None:
    """An xz file cut short is refused and named."""
    path = tmp_path / "cut.mmdb.xz"
    path.write_bytes(SHIPPED.read_bytes()[:-1000])
    with pytest.raises(TableError, match=r"cut\.mmdb\.xz: not a whole xz file .*; install the table again"):
        CountryMmdb(read(path))


@pytest.mark.parametrize("damage", ["no marker", "head cut", "garbage", "loop", "no data"])
def test_damaged_mmdb(tmp_path: Path, damage: str) -> None:
    """Every damage to an MMDB ends in a TableError that names the file and a mend, never in rows or another error."""
    path = write_mmdb(tmp_path / "t.mmdb", {} if damage == "no data" else ROWS)
    data = path.read_bytes()
    if damage == "no marker":
        data = data[: data.rindex(b"MaxMind.com")]
    elif damage == "head cut":
        data = data[len(data) // 2 :]
    elif damage == "garbage":
        data = bytes(range(256)) * 4
    elif damage == "loop":
        data = bytes(6) + data[6:]  # both records of the root lead to the root
    path.write_bytes(data)
    with pytest.raises(TableError, match=r"t\.mmdb: .*; install the table again"):
        list(CountryMmdb(read(path)).rows())


def test_randomly_damaged_mmdb(tmp_path: Path) -> None:
    """Flipped bytes and cuts anywhere in an MMDB end in rows or in a TableError, never in another error or a hang."""
    path = write_mmdb(tmp_path / "t.mmdb", ROWS)
    whole = path.read_bytes()
    rng = random.Random(1)
    refused = 0
    for _ in range(1500):
        data = bytearray(whole)
        for _ in range(rng.randint(1, 3)):
            data[rng.choice([rng.randrange(len(data)), rng.randrange(len(data) - 260, len(data))])] = rng.getrandbits(8)
        if rng.random() < 0.2:
            data = data[: rng.randrange(1, len(data))]
        try:
            list(CountryMmdb(Input(path, bytes(data), "")).rows())
        except TableError:
            refused += 1
    assert refused > 1000


def test_empty_and_missing_files(tmp_path: Path) -> None:
    """An empty file and a missing one are refused with their path."""
    (tmp_path / "geoip").write_bytes(b"")
    (tmp_path / "geoip6").write_bytes(b"x")
    with pytest.raises(TableError, match=r"geoip: the file is empty; fetch it"):
        Sources(ipfire=tmp_path).read()
    with pytest.raises(TableError, match=r"nowhere\.mmdb: No such file or directory; install"):
        Sources(mmdb=tmp_path / "nowhere.mmdb").read()


def ipfire(directory: Path) -> IpfireTable:
    return IpfireTable(read(directory / "geoip"), read(directory / "geoip6"))


def test_ipfire_rows_and_origin(tmp_path: Path) -> None:
    """Both files are read; `??` and `EU` rows carry no country; the header's date is the version."""
    four = [("1.0.0.0/24", "AU"), ("1.0.1.0/24", "??"), ("1.0.2.0/23", "EU"), ("3.120.0.0/14", "DE")]
    table = ipfire(write_ipfire(tmp_path, four, [("2a05:d014::/32", "DE")]))
    assert str(table.origin) == "ipfire 2026-06-25"
    assert cidrs_of(table) == {
        "1.0.0.0/24": "AU",
        "3.120.0.0/14": "DE",
        "223.255.255.0/24": "AU",
        "2a05:d014::/32": "DE",
        "2c0f:fff0::/32": "NG",
    }


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("1,2,DE\n", "ends at 0.0.0.2, before the last public block"),
        ("", "ends at nothing"),
        ("1,2,DE\n3758096000,37580", "the last line is cut short"),
        ("1,2\n3758096000,3758096001,DE\n", "geoip:3: not `first,last,code`"),
        ("x,2,DE\n3758096000,3758096001,DE\n", "geoip:3: not `first,last,code`"),
        ("5,2,DE\n3758096000,3758096001,DE\n", "geoip:3: the range is reversed"),
        ("5,9,DE\n9,10,FR\n3758096000,3758096001,DE\n", "geoip:4: the range is reversed or not after the one before"),
        ("5,9,DEU\n3758096000,3758096001,DE\n", "geoip:3: the country code"),
        ("5,4294967296,DE\n", "geoip:3: the range is reversed or not"),
    ],
)
def test_damaged_ipfire(tmp_path: Path, text: str, fault: str) -> None:
    """Every damage to an IPFire file ends in a TableError that names file, line and mend; a cut at a line end too."""
    directory = write_ipfire(tmp_path, [])
    (directory / "geoip").write_text(IPFIRE_HEADER + text)
    with pytest.raises(TableError) as caught:
        list(ipfire(directory).rows())
    assert fault in str(caught.value)
    assert "fetch it again with tools/fetch-ipfire.sh" in str(caught.value)


def operator(*paths: Path) -> list[OperatorTable]:
    return read_operator_tables([read(path) for path in paths])


def test_operator_rows(tmp_path: Path) -> None:
    """Comments, spaces, labels with commas, several regions, single addresses and a byte order mark are read."""
    text = "\ufeff# ours\n\n10.0.0.0/8,DE,Frankfurt, hall 2\n 192.168.1.1 , DE/FR\n2001:db8::/32,FR\n  # end\n"
    (table,) = operator(write_csv(tmp_path / "own.csv", text))
    assert cidrs_of(table) == {"10.0.0.0/8": "DE", "192.168.1.1/32": "DE/FR", "2001:db8::/32": "FR"}
    assert [row.label for row in table.rows()] == ["Frankfurt, hall 2", "", ""]


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("10.0.0.1/8,DE", "10.0.0.1/8 has host bits set; write 10.0.0.0/8"),
        ("2001:db8::1/32,DE", "2001:db8::1/32 has host bits set; write 2001:db8::/32"),
        ("10.0.0.0/33,DE", "'10.0.0.0/33' is no CIDR"),
        ("10.0.0.0/255.0.0.0,DE", "'10.0.0.0/255.0.0.0' is no CIDR"),
        ("fe80::%eth0/64,DE", "'fe80::%eth0/64' is no CIDR"),
        ("example.com,DE", "'example.com' is no CIDR"),
        ("10.0.0.0/8", "no region; write `cidr,region`"),
        ("10.0.0.0/8,", "'' is no ISO 3166-1 alpha-2 country code"),
        ("10.0.0.0/8,de", "'de' is no ISO 3166-1 alpha-2 country code; did you mean DE?"),
        ("10.0.0.0/8,Germany", "did you mean DE?"),
        ("10.0.0.0/8,DE/", "'' is no ISO 3166-1 alpha-2 country code"),
        ("10.0.0.0/8,EU", "'EU' is no ISO 3166-1 alpha-2 country code"),
        ("::ffff:10.0.0.0/104,DE", "is IPv4 in IPv6 form; write it as IPv4"),
        ("127.0.0.0/8,DE", "127.0.0.0/8 is loopback, which no table can place in a region; remove the row"),
        ("169.254.169.254,DE", "169.254.169.254 is metadata, which no table"),
        ("10.0.0.0/8,DE,red \x1b[31m", "the label holds control characters"),
        ("fe80::/64,DE", "fe80::/64 is link-local, which no table"),
    ],
)
def test_operator_faults(tmp_path: Path, line: str, fault: str) -> None:
    """Each fault names file, line and mend."""
    path = write_csv(tmp_path / "own.csv", f"# first\n{line}\n")
    with pytest.raises(TableError) as caught:
        operator(path)
    assert str(caught.value).startswith(f"{path}:2: ")
    assert fault in str(caught.value)


def test_operator_faults_all_at_once(tmp_path: Path) -> None:
    """Faults of all files are reported together, and a CIDR with two regions names both places."""
    one = write_csv(tmp_path / "a.csv", "10.0.0.0/8,DE\nbad,DE\n")
    two = write_csv(tmp_path / "b.csv", "10.0.0.0/8,FR\n10.0.0.0/8,DE\n")
    three = tmp_path / "c.csv"
    three.write_bytes(b"10.0.0.0/8,\xff\n")
    four = write_csv(tmp_path / "d.csv", "# nothing\n")
    with pytest.raises(TableError) as caught:
        operator(one, two, three, four)
    lines = str(caught.value).splitlines()
    assert len(lines) == 4
    assert lines[0].startswith(f"{one}:2: 'bad' is no CIDR")
    assert lines[1] == f"{two}:1: the same CIDR has another region at {one}:1; keep one of them"
    assert lines[2] == f"{three}: not UTF-8 text; save it as UTF-8"
    assert lines[3] == f"{four}: no rows in it; add one as `cidr,region` or remove the file"


def test_discover(tmp_path: Path) -> None:
    """What is installed is found: CSV files by name, the IPFire directory where it exists, and the shipped table."""
    assert Sources.discover(tmp_path / "etc", tmp_path / "lib") == Sources(SHIPPED, None, ())
    (tmp_path / "etc" / "geo").mkdir(parents=True)
    for name in ("b.csv", "a.csv", "notes.txt"):
        write_csv(tmp_path / "etc" / "geo" / name, "10.0.0.0/8,DE\n")
    directory = write_ipfire(tmp_path / "lib" / "geo" / "ipfire", [])
    found = Sources.discover(tmp_path / "etc", tmp_path / "lib")
    assert found.ipfire == directory
    assert [path.name for path in found.operator_csvs] == ["a.csv", "b.csv"]


def test_half_an_ipfire_installation(tmp_path: Path) -> None:
    """One of the two IPFire files alone is refused: a second opinion on IPv4 only would be a silent gap."""
    directory = write_ipfire(tmp_path, [])
    (directory / "geoip6").unlink()
    with pytest.raises(TableError, match=r"geoip6: No such file or directory; fetch it"):
        Sources(ipfire=directory).read()
