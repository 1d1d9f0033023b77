"""What cloud regions, anycast and doubt mean for a verdict: the tables' sets meet rules as the product reads them."""

from __future__ import annotations

from datetime import date
from ipaddress import ip_address
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from enforcer.config import Geo, GeoSource, Settings
from enforcer.doctor import host
from enforcer.flow import Endpoint, Executor, Flow, Region
from enforcer.geo.imports import Store
from enforcer.geo.inventory import stale_tables
from enforcer.geo.merge import RegionSet
from enforcer.geo.rows import Origin
from enforcer.policy.compiled import PolicySet
from enforcer.policy.direct import direct_plan
from enforcer.policy.engine import decide
from enforcer.policy.loader import load_policies
from enforcer.supervisor.generation import vocabulary
from enforcer.verdict import Reason

REGIONS = {
    "frankfurt": Region(frozenset({"aws/eu-central-1"}), "provider", "3.120.0.0/13", "aws 1", "DE aws/eu-central-1"),
    "warsaw": Region(frozenset({"aws/eu-central-1-waw-1"}), "provider", "15.220.0.0/20", "aws 1"),
    "germany": Region(frozenset({"DE"}), "country", "88.198.0.0/16", "table 1"),
    "perhaps germany": Region(frozenset({"DE", "?"}), "country", "88.198.0.0/16", "table 1"),
    "anycast": Region(frozenset(), "anycast", "8.8.8.0/24", "anycast services"),
    "unknown": Region(frozenset(), "unknown", "0.0.0.0/0", "no table"),
}


def policies(tmp_path: Path, to: str, action: str = "allow", path: str = "") -> PolicySet:
    text = (
        f'policy: p\napplies_to: [{{executor: "*"}}]\nrules:\n  - {{name: r, to: {{{to}}}, action: {action}{path}}}\n'
    )
    (tmp_path / "p.yaml").write_text(text)
    return load_policies([tmp_path / "p.yaml"], vocabulary(Settings(groups={"FRA": ("aws/eu-central-1",)})))


def flow(name: str) -> Flow:
    who = Executor("executor-1", "any", 1000, "", 1, "", "isolated")
    return Flow(who, Endpoint(ip_address("8.8.8.8"), 443), REGIONS[name], 1, 2, 1000, 3)


@pytest.mark.parametrize(
    ("to", "passing"),
    [
        ("region: [DE]", {"frankfurt", "germany"}),
        ("region: [EEA]", {"frankfurt", "warsaw", "germany"}),
        ("region: [aws/eu-central-1]", {"frankfurt"}),
        ("region: [FRA]", {"frankfurt"}),
        ("region: [PL]", {"warsaw"}),
        ('region: ["*"]', {"frankfurt", "warsaw", "germany", "perhaps germany"}),
        ("address: [8.8.8.8]", set(REGIONS)),
    ],
)
def test_what_an_allow_rule_covers(tmp_path: Path, to: str, passing: set[str]) -> None:
    """A country covers the cloud regions in it, a cloud region itself; doubt only "everywhere", anycast no region."""
    found = policies(tmp_path, f"{to}, protocol: [http]")
    assert {name for name in REGIONS if decide(found, flow(name), "http", {}).passes} == passing


def test_what_a_deny_rule_covers(tmp_path: Path) -> None:
    """A deny needs only one of the regions that an address may be in."""
    found = policies(tmp_path, "region: [DE]", "deny")
    denied = {name for name in REGIONS if decide(found, flow(name), "http", {}).reason is Reason.RULE}
    assert denied == {"frankfurt", "germany", "perhaps germany"}


@pytest.mark.parametrize(("name", "reason"), [("anycast", Reason.UNKNOWN_REGION), ("germany", Reason.NO_RULE)])
def test_why_nothing_matched(tmp_path: Path, name: str, reason: Reason) -> None:
    """An anycast address is not a special-purpose one: what lacks is its region."""
    assert decide(policies(tmp_path, "region: [FR], protocol: [http]"), flow(name), "http", {}).reason is reason


def test_the_kernels_plan_knows_cloud_regions(tmp_path: Path) -> None:
    """A direct rule for a country lets its cloud regions go past the proxy, and neither doubt nor anycast."""
    sets = [RegionSet(one.regions, one.kind, one.source) for one in REGIONS.values()]
    who = Executor("executor-1", "any", 1000, "", 1, "/a", "attached")
    (audience,) = direct_plan(policies(tmp_path, "region: [DE], port: [443]", path=", path: direct"), [who], sets)
    assert set(audience.ranges) == {list(REGIONS).index("frankfurt"), list(REGIONS).index("germany")}


def test_a_region_for_people() -> None:
    """Shown and recorded is the country with the cloud region; the set stays what rules are held against."""
    assert str(REGIONS["frankfurt"]) == REGIONS["frankfurt"].names == "DE aws/eu-central-1"
    assert (str(REGIONS["anycast"]), REGIONS["anycast"].names) == ("anycast", "")


def test_old_tables_are_told(tmp_path: Path) -> None:
    """doctor's check: missing before an import, fine after it, missing again when the table is old or was changed."""
    source = GeoSource(name="aws", format="aws")
    settings = Settings(root=tmp_path, geo=Geo(sources=(source,)))
    place: Any = SimpleNamespace(settings=settings)
    assert host.region_tables(place).status == "missing"
    assert "aws: not imported yet" in host.region_tables(place).detail
    store = Store(tmp_path / "var/lib/enforcer/geo")
    today = date.today()
    store.choose(
        store.write(source, {"table": b"x"}, Origin("aws", "1", today.isoformat(), ""), "/x", today.isoformat())
    )
    assert host.region_tables(place).status == "ok"
    assert "400 days old" in stale_tables(store, settings.geo, date.fromordinal(today.toordinal() + 400))[0]
    next((tmp_path / "var/lib/enforcer/geo/aws").glob("2*/table")).write_bytes(b"y")
    assert "not what was imported" in host.region_tables(place).detail
    assert host.region_tables(SimpleNamespace(settings=Settings())).status == "does not apply"  # type: ignore[arg-type]
