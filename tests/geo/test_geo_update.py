"""Importing tables: what comes, what is refused and changes nothing, and the way back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from enforcer.cli import cli
from enforcer.config import Settings, load_settings
from enforcer.errors import EnforcerError, TableError
from enforcer.geo import compiled as compiling
from enforcer.geo import sources
from enforcer.geo.compiled import build_into
from enforcer.geo.download import download
from enforcer.geo.imports import Store
from enforcer.geo.table import GeoTable
from enforcer.supervisor.generation import table_path

from .geo_files import AWS, CLOUDFLARE, write_ipfire, write_mmdb
from .https_server import Server, serving


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("https")) as server:
        yield server


@pytest.fixture
def trusted(server: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    """The server, which the system's trust store knows."""
    monkeypatch.setenv("SSL_CERT_FILE", str(server.certificate))
    server.bodies.clear()
    server.faults.clear()
    return server


BUILD_IN_CHILD = compiling._build_in_child


class Instance:
    """A root with small country tables of its own, and the command line for it. Tables are compiled in this process,
    which saves half a second each; `test_every_format` does it as the product does."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        monkeypatch.setattr(compiling, "_build_in_child", lambda tables, where: build_into(tables.read(), where))
        (root / "etc/enforcer/policies").mkdir(parents=True)
        mmdb = write_mmdb(root / "small.mmdb", {"3.0.0.0/8": "US", "15.0.0.0/8": "US", "99.0.0.0/8": "US"})
        monkeypatch.setattr(sources, "SHIPPED", mmdb)
        own = property(lambda settings: (settings.root / "var/cache/enforcer/geo",))
        monkeypatch.setattr(Settings, "geo_caches", own)
        self.configure()

    def configure(self, *entries: dict[str, Any], **geo: Any) -> None:
        text = yaml.safe_dump({"policies": [], "geo": {"sources": list(entries), **geo}})
        (self.root / "etc/enforcer/enforcer.yaml").write_text(text)

    def aws(self, content: Any = AWS) -> Path:
        """A file of AWS's form, named as source in the settings."""
        path = self.root / "aws.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        self.configure({"name": "aws", "format": "aws", "file": str(path)})
        return path

    def run(self, *words: str) -> Result:
        return CliRunner().invoke(cli, ["--root", str(self.root), "geo", *words], catch_exceptions=True)

    def ok(self, *words: str) -> str:
        result = self.run(*words)
        assert result.exit_code == 0, (result.output, result.exception)
        return result.output

    def refused(self, *words: str) -> str:
        """The one-line errors of a command that fails as commands do, without a traceback."""
        result = self.run(*words)
        assert isinstance(result.exception, EnforcerError), result.exception
        return str(result.exception)

    def settings(self) -> Settings:
        return load_settings(self.root)

    def region(self, address: str) -> str:
        """What a supervisor that starts now would say."""
        return str(GeoTable.open(table_path(self.settings())).lookup(ip_address(address)))

    def files(self) -> dict[str, bytes]:
        """Everything that was imported, with what the links say."""
        top = self.root / "var/lib/enforcer"
        return {
            str(path.relative_to(top)): bytes(path.readlink()) if path.is_symlink() else path.read_bytes()
            for path in sorted(top.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Instance:
    return Instance(tmp_path, monkeypatch)


def test_an_import_counts_until_it_is_rolled_back(instance: Instance) -> None:
    """A new version takes the place of the one before, says what it changes, and makes room for it again."""
    path = instance.aws()
    assert instance.region("3.120.0.1") == "US"
    assert "kill -HUP" not in instance.ok("update", "--dry-run")
    assert instance.files() == {}
    assert "kill -HUP" in instance.ok("update")
    assert instance.region("3.120.0.1") == "DE aws/eu-central-1"

    moved = json.loads(json.dumps(AWS))
    moved["syncToken"], moved["prefixes"][2]["network_border_group"] = "1753388599", "eu-central-1"
    path.write_text(json.dumps(moved))
    text = instance.ok("update", "aws")
    assert "moved 0." in text
    assert "aws/eu-central-1-waw-1: moved away 100.00%" in text
    assert "moved here" in text
    assert instance.region("15.220.0.1") == "DE aws/eu-central-1"

    assert "back to version 1753388594" in instance.ok("rollback", "aws")
    assert instance.region("15.220.0.1") == "PL aws/eu-central-1-waw-1"
    assert "there is no version before" in instance.refused("rollback", "aws")
    instance.ok("update")
    assert instance.region("15.220.0.1") == "DE aws/eu-central-1"
    assert "nothing has changed" in instance.ok("update")


def damaged(**changes: Any) -> str:
    return json.dumps({**AWS, **changes})


HOST_BITS = {"ip_prefix": "3.0.0.1/16", "region": "us-east-1", "service": "EC2"}
TWICE = {"ip_prefix": "3.120.0.0/14", "region": "us-east-1", "service": "EC2"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "the file is empty"),
        (json.dumps(AWS)[:-100], "not a whole aws range file"),
        ("<html>busy</html>", "not a whole aws range file"),
        (damaged(prefixes=[], ipv6_prefixes=[]), "no range in it"),
        (damaged(prefixes=[*AWS["prefixes"], HOST_BITS]), "host bits set"),
        (damaged(prefixes=[*AWS["prefixes"], TWICE]), "is in eu-central-1 and in us-east-1"),
        (damaged(prefixes=AWS["prefixes"][2:]), "of its IPv4 addresses are lost, more than 10.0%"),
        (damaged(ipv6_prefixes=[]), "100.0% of its IPv6 addresses are lost"),
        (json.dumps(AWS).replace("eu-central-1", "us-east-1"), "are moved, more than 10.0%"),
    ],
    ids=["empty", "cut", "no JSON", "no rows", "host bits", "contradiction", "shrunk", "one family gone", "moved"],
)
def test_a_bad_table_replaces_nothing(instance: Instance, content: str, message: str) -> None:
    """Whatever is wrong with the newer file, the older one stays byte for byte, and still counts."""
    path = instance.aws()
    instance.ok("update")
    before, answer = instance.files(), instance.region("3.120.0.1")
    path.write_text(content)
    assert message in instance.refused("update")
    assert instance.files() == before
    assert instance.region("3.120.0.1") == answer == "DE aws/eu-central-1"


def test_force_takes_a_large_change_and_nothing_else(instance: Instance) -> None:
    """--force accepts a table that shrank, never one that cannot be read."""
    path = instance.aws()
    instance.ok("update")
    path.write_text(damaged(prefixes=AWS["prefixes"][2:]))
    instance.ok("update", "--force")
    assert instance.region("3.120.0.1") == "US"
    path.write_text(json.dumps(AWS)[:-100])
    assert "not a whole aws range file" in instance.refused("update", "--force")


def test_max_change_is_the_operators(instance: Instance) -> None:
    """A limit of one lets a table lose and move what it likes."""
    path = instance.aws()
    instance.ok("update")
    path.write_text(damaged(prefixes=AWS["prefixes"][2:]))
    instance.configure({"name": "aws", "format": "aws", "file": str(path)}, max_change=1.0)
    instance.ok("update")


def test_a_pinned_table_is_that_one(instance: Instance) -> None:
    """With sha256 in the settings only the file that hashes to it is imported."""
    path = instance.aws()
    entry = {"name": "aws", "format": "aws", "file": str(path), "sha256": "0" * 64}
    instance.configure(entry)
    message = instance.refused("update")
    assert "its sha256 is " in message
    instance.configure({**entry, "sha256": message.split("its sha256 is ")[1][:64]})
    instance.ok("update")


def test_what_lies_there_is_what_was_imported(instance: Instance) -> None:
    """A file that is changed after its import stops the next start instead of counting, or of counting for nothing."""
    instance.aws()
    instance.ok("update")
    table = next((instance.root / "var/lib/enforcer/geo/aws").glob("2*/table"))
    table.write_bytes(table.read_bytes().replace(b"eu-central-1-waw-1", b"eu-central-1-ham-1"))
    with pytest.raises(TableError, match="not what was imported"):
        table_path(instance.settings())
    (table.parent / "meta.json").unlink()
    with pytest.raises(TableError, match="damaged"):
        table_path(instance.settings())


def test_a_table_that_does_not_compile_with_the_others_does_not_count(instance: Instance) -> None:
    """Two good files can be too much together: then neither the new one counts nor is anything of it left."""
    instance.aws()
    instance.ok("update")
    before = instance.files()
    own = instance.root / "etc/enforcer/geo"
    own.mkdir()
    (own / "own.csv").write_text("10.0.0.0/8,XX\n")
    path = instance.root / "aws.json"
    path.write_text(damaged(syncToken="9"))
    assert "'XX' is no ISO 3166-1 alpha-2 country code" in instance.refused("update")
    assert instance.files() == before


def test_a_refused_table_does_not_hold_up_the_others(instance: Instance) -> None:
    """Of several sources each is judged alone; the error names the bad one."""
    good = instance.aws()
    bad = instance.root / "bad.json"
    bad.write_text("{}")
    instance.configure(
        {"name": "bad", "format": "google", "file": str(bad)}, {"name": "aws", "format": "aws", "file": str(good)}
    )
    assert "not a whole google range file" in instance.refused("update")
    assert instance.region("3.120.0.1") == "DE aws/eu-central-1"


def test_every_format(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Operator tables, MMDB and IPFire files and tables of two files are imported like any other, and used as such."""
    monkeypatch.setattr(compiling, "_build_in_child", BUILD_IN_CHILD)
    root = instance.root
    (root / "own.csv").write_text("10.1.0.0/16,DE,office\n")
    write_mmdb(root / "third.mmdb", {"3.0.0.0/8": "CA"})
    write_ipfire(root / "second", [("3.0.0.0/8", "US")])
    (root / "lists").mkdir()
    for name, text in CLOUDFLARE.items():
        (root / "lists" / name).write_text(text)
    instance.configure(
        *(
            {"name": name, "format": form, "file": str(root / file)}
            for name, form, file in (
                ("own", "csv", "own.csv"),
                ("third", "mmdb", "third.mmdb"),
                ("second", "ipfire", "second"),
                ("edge", "cloudflare", "lists"),
            )
        )
    )
    instance.ok("update")
    assert instance.region("10.1.2.3") == "DE"
    assert instance.region("3.0.0.1") == "CA/US"
    assert instance.region("15.0.0.1") == "US/?"
    assert instance.region("104.16.0.1") == "anycast"
    answer = json.loads(instance.ok("lookup", "3.0.0.1", "--json"))
    (one,) = answer["addresses"]
    assert {entry["source"].split()[0]: entry["regions"] for entry in one["answers"]} == {
        "small": ["US"], "third": ["CA"], "second": ["US"],
    }  # fmt: skip
    assert {table["name"] for table in answer["tables"]} >= {"own", "third", "second", "edge", "small"}


def test_an_imported_table_takes_the_shipped_ones_place(instance: Instance) -> None:
    """An MMDB under the shipped table's name is used instead of it, not beside it."""
    newer = write_mmdb(instance.root / "newer.mmdb", {"3.0.0.0/8": "DE"})
    instance.configure({"name": "geo-whois-asn-country", "format": "mmdb", "file": str(newer)})
    instance.ok("update")
    assert instance.region("3.0.0.1") == "DE"


def test_sources_tell_age_and_what_is_missing(instance: Instance) -> None:
    """The list has each table's version, date, counts and licence, and warns of old, missing and unplaced ones."""
    path = instance.aws()
    instance.configure(
        {"name": "aws", "format": "aws", "file": str(path)},
        {"name": "later", "format": "google", "url": "https://example.net/cloud.json"},
    )
    instance.ok("update", "aws")
    entries = {entry["name"]: entry for entry in json.loads(instance.ok("sources", "--json"))}
    assert entries["aws"]["version"] == "1753388594"
    assert entries["aws"]["rows"] == {"v4": 5, "v6": 1}
    assert any("days old" in warning for warning in entries["aws"]["warnings"])
    assert any("aws/me-west-1 is not known" in warning for warning in entries["aws"]["warnings"])
    assert entries["later"]["warnings"] == ["not imported yet; import it with 'enforcer geo update later'"]
    assert "days ago" in instance.ok("sources")


def test_lookup_and_coverage(instance: Instance) -> None:
    """A name's addresses are all shown; coverage tells settled from disputed and doubtful addresses of a region."""
    write_ipfire(instance.root / "second", [("3.0.0.0/9", "US"), ("3.128.0.0/9", "CA")])
    instance.configure({"name": "second", "format": "ipfire", "file": str(instance.root / "second")})
    instance.ok("update")
    assert "region   loopback (loopback)" in instance.ok("lookup", "localhost")
    text = instance.ok("lookup", "3.200.0.1")
    assert "region   CA/US (country)" in text
    assert "says     US: country small" in text
    shares = {share["version"]: share for share in json.loads(instance.ok("coverage", "US", "--json"))}
    assert shares[4] == {
        "region": "US", "version": 4, "settled": 2**23, "disputed": 2**23, "doubtful": 2 * 2**24,
    }  # fmt: skip
    assert "EU " not in instance.ok("coverage", "US")
    assert "IPv4 address space: unknown" in instance.ok("coverage")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["lookup", "no such"], "neither an address nor a name"),
        (["lookup", "nowhere.invalid"], "does not resolve"),
        (["coverage", "Atlantis"], "neither a country code nor a region group"),
        (["update"], "geo.sources of enforcer.yaml is empty"),
        (["update", "aws"], "aws is no source"),
        (["rollback", "aws"], "aws is no source"),
    ],
)
def test_one_line_errors(instance: Instance, words: list[str], message: str) -> None:
    """What cannot be done is said in one line with what mends it."""
    text = instance.refused(*words)
    assert message in text
    assert "; " in text
    assert "\n" not in text


def test_a_file_is_of_one_source(instance: Instance) -> None:
    """--file without exactly one name is refused, and with it stands in for the place in the settings."""
    path = instance.aws()
    instance.configure(
        {"name": "aws", "format": "aws"}, {"name": "google", "format": "google", "url": "https://example.net/"}
    )
    assert "--file is one table" in instance.refused("update", "--file", str(path))
    assert "neither file nor url" in instance.refused("update", "aws")
    instance.ok("update", "aws", "--file", str(path))
    assert instance.region("3.120.0.1") == "DE aws/eu-central-1"
    assert "never imported" in instance.refused("rollback", "google")


def test_versions_kept_are_bounded(instance: Instance) -> None:
    """After many updates the version in force, the one before and one more are left."""
    path = instance.aws()
    for number in range(6):
        path.write_text(damaged(syncToken=str(number)))
        instance.ok("update")
    home = instance.root / "var/lib/enforcer/geo/aws"
    assert len([entry for entry in home.iterdir() if entry.is_dir() and not entry.is_symlink()]) == 3
    store = Store(home.parent)
    now = store.current("aws")
    assert now is not None
    assert now.version == "5"
    assert store.previous("aws").version == "4"
    assert (home.parent.parent.stat().st_mode & 0o777) == 0o700


def test_download(trusted: Server) -> None:
    """A whole body comes, also after a redirection to another https URL."""
    trusted.bodies["/x"] = trusted.bodies["/moved"] = b"table" * 1000
    trusted.faults["/y"] = "moved"
    assert download(trusted.url("/x")) == download(trusted.url("/y")) == b"table" * 1000


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("404", "the server answers 404"),
        ("500", "the server answers 500"),
        ("cut", "of 5000 bytes came"),
        ("longer", "5000 of 5007 bytes came"),
        ("chunked", "IncompleteRead"),
        ("unsized", "does not say how long it is"),
        ("plain", "which is not https"),
    ],
)
def test_download_faults(trusted: Server, fault: str, message: str) -> None:
    """What is not there, comes short or would come unprotected is an error of one line."""
    trusted.bodies["/x"] = b"table" * 1000
    trusted.faults["/x"] = fault
    with pytest.raises(TableError, match=message) as caught:
        download(trusted.url("/x"))
    assert "\n" not in str(caught.value)


def test_download_of_a_stranger(server: Server) -> None:
    """A server whose certificate nobody vouches for is not believed, nor is one without."""
    server.bodies["/x"] = b"table"
    with pytest.raises(TableError, match="certificate verify failed"):
        download(server.url("/x"))
    with pytest.raises(TableError, match="is not https"):
        download("http://127.0.0.1:9/x")
    with pytest.raises(TableError, match="refused"):
        download("https://127.0.0.1:9/x")


def test_update_over_https(trusted: Server, instance: Instance) -> None:
    """A source with a URL is fetched, each part of a table of two files by its own name; a cut one changes nothing."""
    trusted.bodies["/aws.json"] = json.dumps(AWS).encode()
    for name, text in CLOUDFLARE.items():
        trusted.bodies[f"/lists/{name}"] = text.encode()
    instance.configure(
        {"name": "aws", "format": "aws", "url": trusted.url("/aws.json")},
        {"name": "edge", "format": "cloudflare", "url": trusted.url("/lists/")},
    )
    instance.ok("update")
    before = instance.files()
    assert instance.region("2606:4700::1") == "anycast"
    trusted.faults = {"/aws.json": "cut", "/lists/ips-v6": "404"}
    message = instance.refused("update")
    assert "bytes came" in message
    assert "answers 404" in message
    assert instance.files() == before
