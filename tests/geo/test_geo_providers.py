"""Providers' own range files: what each format says, what is refused, and where their rows rank."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from enforcer.errors import TableError
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.groups import Groups
from enforcer.geo.providers import ProviderTable
from enforcer.geo.rows import Input
from enforcer.geo.sources import Sources, Table

from .geo_files import AWS, AZURE, CLOUDFLARE, GOOGLE, ORACLE, table_of, write_csv, write_ipfire, write_mmdb

FORMS = {"aws": AWS, "google": GOOGLE, "azure": AZURE, "oracle": ORACLE}


def read(tmp_path: Path, form: str, content: Any) -> ProviderTable:
    path = tmp_path / f"{form}.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return ProviderTable(form, form, [Input.read(path, "")], CloudRegions.load())


def said(table: ProviderTable, address: str) -> tuple[set[str], str]:
    """Regions and kind of the narrowest row around an address."""
    one = ip_address(address)
    rows = [row for row in table.rows() if row.version == one.version and row.first <= int(one) <= row.last]
    row = min(rows, key=lambda row: row.last - row.first)
    return set(row.regions), row.kind


@pytest.mark.parametrize(
    ("form", "address", "regions", "kind"),
    [
        ("aws", "3.120.0.1", {"aws/eu-central-1"}, "provider"),
        ("aws", "2a05:d014::1", {"aws/eu-central-1"}, "provider"),
        ("aws", "15.220.1.1", {"aws/eu-central-1-waw-1"}, "provider"),  # a Local Zone in Warsaw
        ("aws", "99.77.0.1", set(), "anycast"),  # GLOBAL
        ("aws", "99.77.1.1", {"aws/us-east-1"}, "provider"),  # inside a GLOBAL range
        ("aws", "51.204.0.1", set(), "unknown"),  # a region that no documentation places
        ("google", "34.89.128.1", {"google/europe-west3"}, "provider"),
        ("google", "2600:1900:40d0::1", {"google/europe-west3"}, "provider"),
        ("google", "34.96.64.1", set(), "anycast"),  # global
        ("azure", "20.52.0.1", {"azure/germanywc"}, "provider"),
        ("azure", "20.52.0.5", {"azure/germanywc"}, "provider"),  # also in a tag that names no region
        ("azure", "20.52.9.1", set(), "anycast"),  # the edge, inside a range of a region
        ("azure", "13.107.6.1", set(), "anycast"),  # in no region
        ("azure", "2603:1020::1", {"azure/westeurope"}, "provider"),
        ("oracle", "129.159.0.1", {"oracle/eu-frankfurt-1"}, "provider"),
    ],
)
def test_what_a_file_says(tmp_path: Path, form: str, address: str, regions: set[str], kind: str) -> None:
    """Each provider's documented form gives a prefix its cloud region, anycast where it has none, or unknown."""
    assert said(read(tmp_path, form, FORMS[form]), address) == (regions, kind)


def test_versions_and_dates(tmp_path: Path) -> None:
    """A table's origin is the publisher's own version and day; where it names none, the hash stands for the version."""
    origins = {form: read(tmp_path, form, content).origin for form, content in FORMS.items()}
    assert (origins["aws"].version, origins["aws"].date) == ("1753388594", "2025-07-24")
    assert (origins["google"].version, origins["google"].date) == ("1753409788780", "2025-07-24")
    assert (origins["azure"].version, origins["azure"].date) == ("363", "")
    assert (origins["oracle"].version, origins["oracle"].date) == ("2025-07-21T07:13:25.4", "2025-07-21")


def test_unplaced_regions_are_told(tmp_path: Path) -> None:
    """The regions whose country is not known are named, so that the importer can tell them."""
    assert read(tmp_path, "aws", AWS).unplaced == {"aws/me-west-1"}


def test_cloudflare_lists(tmp_path: Path) -> None:
    """Both lists together are one table of anycast prefixes."""
    inputs = []
    for name, text in CLOUDFLARE.items():
        (tmp_path / name).write_text(text)
        inputs.append(Input.read(tmp_path / name, ""))
    table = ProviderTable("cloudflare", "cloudflare", inputs, CloudRegions.load())
    assert said(table, "104.16.0.1") == (set(), "anycast")
    assert said(table, "2606:4700::1") == (set(), "anycast")


def aws_with(**changes: Any) -> dict[str, Any]:
    entry = {"ip_prefix": "3.0.0.0/16", "region": "us-east-1", "service": "EC2", "network_border_group": "us-east-1"}
    return {**AWS, "prefixes": [*AWS["prefixes"], {**entry, **changes}]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (json.dumps(AWS)[:-40], "not a whole aws range file"),
        ("", "the file is empty"),
        ("[]", "not a whole aws range file"),
        ("null", "not a whole aws range file"),
        (json.dumps("[" * 100_000), "not a whole aws range file"),
        ("[" * 100_000, "not a whole aws range file"),
        (json.dumps({"syncToken": "1", "createDate": "2025", "prefixes": []}), "not a whole aws range file"),
        ({**AWS, "prefixes": [], "ipv6_prefixes": []}, "no range in it"),
        (aws_with(ip_prefix="3.0.0.1/16"), "3.0.0.1/16 has host bits set"),
        (aws_with(ip_prefix="3.0.0.0"), "is no prefix"),
        (aws_with(ip_prefix=7), "is no prefix"),
        (aws_with(ip_prefix="3.0.0.0/33"), "is no prefix"),
        (aws_with(ip_prefix="0.0.0.0/0"), "wider than any provider's range"),
        (aws_with(ip_prefix="10.0.0.0/16"), "holds addresses that are private"),
        (aws_with(ip_prefix="169.254.169.254/32"), "holds addresses that are"),
        (aws_with(ip_prefix="::ffff:3.0.0.0/112"), "holds addresses that are"),
        (aws_with(ip_prefix="3.120.0.0/14"), "3.120.0.0/14 is in eu-central-1 and in us-east-1"),
        (aws_with(network_border_group="../us"), "which is no name of a region"),
        (aws_with(network_border_group=["us"]), "not a whole aws range file"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    """A file that is cut short, empty, of another shape, or that has one wrong entry is refused as a whole."""
    with pytest.raises(TableError, match=message) as caught:
        read(tmp_path, "aws", content)
    assert all("; " in line for line in str(caught.value).splitlines())


def test_faults_are_bounded(tmp_path: Path) -> None:
    """Of thousands of faults the first ten are told."""
    entry = {"ip_prefix": "3.0.0.1/16", "region": "us-east-1", "service": "EC2"}
    with pytest.raises(TableError) as caught:
        read(tmp_path, "aws", {**AWS, "prefixes": [entry] * 3000})
    assert len(str(caught.value).splitlines()) == 10


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    """Two country tables that call everything US, AWS, Oracle and Cloudflare above them, the operator's own on top."""
    for form in ("aws", "oracle"):
        (tmp_path / form).write_text(json.dumps(FORMS[form]))
    for name, text in CLOUDFLARE.items():
        (tmp_path / name).write_text(text)
    mmdb = write_mmdb(tmp_path / "t.mmdb", {"3.0.0.0/8": "US", "51.204.0.0/14": "US", "104.0.0.0/8": "US"})
    ipfire = write_ipfire(tmp_path / "i", [("3.0.0.0/8", "US"), ("51.204.0.0/14", "US"), ("104.0.0.0/8", "US")])
    own = write_csv(tmp_path / "own.csv", "3.120.7.0/24,FR,moved\n")
    imported = (
        Table("amazon", "aws", (tmp_path / "aws",)),
        Table("oracle", "oracle", (tmp_path / "oracle",)),
        Table("cloudflare", "cloudflare", tuple(tmp_path / name for name in CLOUDFLARE)),
    )
    return Sources(mmdb, ipfire, (own,), imported)


def test_precedence(sources: Sources, tmp_path: Path) -> None:
    """The operator's row beats the provider's, and that both country tables, also where it says less."""
    table = table_of(sources, tmp_path / "cache")
    found = {text: table.lookup(ip_address(text)) for text in ("3.120.7.1", "3.120.0.1", "3.0.0.1", "51.204.0.1")}
    assert (str(found["3.120.7.1"]), found["3.120.7.1"].kind) == ("FR", "operator")
    provider = found["3.120.0.1"]
    assert (str(provider), provider.regions, provider.kind) == ("DE aws/eu-central-1", {"aws/eu-central-1"}, "provider")
    assert provider.source == "amazon 1753388594"
    assert (str(found["3.0.0.1"]), found["3.0.0.1"].kind) == ("US", "country")
    assert (found["51.204.0.1"].regions, found["51.204.0.1"].kind) == (frozenset(), "unknown")
    assert "aws/me-west-1, whose country is not known" in found["51.204.0.1"].source
    assert table.lookup(ip_address("104.16.0.1")).kind == "anycast"


def test_two_providers_claim_the_same(sources: Sources, tmp_path: Path) -> None:
    """Addresses that two providers list may be in either region; where one of them names none, they are in none."""
    (tmp_path / "oracle").write_text(
        json.dumps(
            {
                "last_updated_timestamp": "2025-07-21T07:13:25.4",
                "regions": [{"region": "us-ashburn-1", "cidrs": [{"cidr": "3.120.0.0/24"}, {"cidr": "104.16.0.0/24"}]}],
            }
        )
    )
    table = table_of(sources, tmp_path / "cache")
    both = table.lookup(ip_address("3.120.0.1"))
    assert both.regions == {"aws/eu-central-1", "oracle/us-ashburn-1"}
    assert str(both) == "DE aws/eu-central-1/US oracle/us-ashburn-1"
    assert (table.lookup(ip_address("104.16.0.1")).regions, table.lookup(ip_address("104.16.0.1")).kind) == (
        frozenset(),
        "anycast",
    )


def test_the_operators_regions(sources: Sources, tmp_path: Path) -> None:
    """A region that is not known has a country once the operator names it, and that makes another table."""
    more = Sources(sources.mmdb, sources.ipfire, (), sources.imported, (("aws/me-west-1", "IL"),))
    assert more.read().key != Sources(sources.mmdb, sources.ipfire, (), sources.imported).read().key
    found = table_of(more, tmp_path / "cache").lookup(ip_address("51.204.0.1"))
    assert (str(found), found.kind) == ("IL aws/me-west-1", "provider")


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        ({"aws/eu-central-1": "FR"}, "it is in DE; remove the entry"),
        ({"aws/eu-new-1": "XX"}, "'XX' is no ISO 3166-1 alpha-2 country code"),
        ({"ibm/eu-de": "DE"}, "no such name; write it as aws/eu-central-1"),
        ({"aws/EU-DE": "DE"}, "no such name"),
    ],
)
def test_bad_regions_of_the_operator(extra: dict[str, str], message: str) -> None:
    """A region cannot be moved, and neither names nor countries are guessed."""
    with pytest.raises(TableError, match=message):
        CloudRegions.load(extra)


def test_regions_in_groups() -> None:
    """A country and a group hold the cloud regions that are there; a cloud region is only itself; Warsaw is not DE."""
    groups = Groups.load({"HOME": ["aws/eu-central-1", "FR"]}, {"aws/eu-new-1": "DE"})
    assert {"DE", "aws/eu-central-1", "azure/germanywc", "aws/eu-new-1"} <= groups.expand("DE")
    assert "aws/eu-central-1-waw-1" not in groups.expand("DE")
    assert "aws/eu-central-1-waw-1" in groups.expand("PL") & groups.expand("EU")
    assert "aws/eu-central-2" not in groups.expand("EEA")
    assert groups.expand("aws/eu-central-1") == {"aws/eu-central-1"}
    assert groups.expand("HOME") >= {"aws/eu-central-1", "FR", "azure/centralfrance"}
    assert "DE" not in groups.expand("HOME")


def test_a_region_nobody_knows() -> None:
    """A misspelt or new region is refused with the nearest one and with where to name it."""
    with pytest.raises(ValueError, match=r"did you mean aws/eu-central-1\?.*geo\.cloud_regions"):
        Groups.load().expand("aws/eu-centrall-1")
