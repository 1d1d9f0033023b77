"""What the kernel decides by itself is never more than what `decide` allows, whatever a flow carries."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.flow import Executor, Flow, Mode
from enforcer.geo.merge import UNKNOWN, RegionSet
from enforcer.geo.special import HARD_KINDS, SPECIAL, hard_kind
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.policy.destinations import parse_network
from enforcer.policy.direct import (
    MAX_RANGES,
    PortRange,
    audience_of,
    direct_plan,
    direct_ranges,
    host_ports,
    why_proxied,
)
from enforcer.policy.engine import decide, relayed, special_class
from enforcer.policy.loader import load_policies
from enforcer.verdict import Action, Verdict

from .policy_world import VOCABULARY, flow, load, write_policy

GERMANY = RegionSet(frozenset({"DE"}), "country", "test")
PACKS = Path(__file__).parents[2] / "policies"


def executor(
    name: str = "agent", user: str = "root", cgroup: str = "a.slice/b.service", mode: Mode = "attached"
) -> Executor:
    return Executor(f"{name}-1", name, 0, user, 7, cgroup, mode)


# --- examples


def test_a_direct_rule_takes_its_ports(tmp_path: Path) -> None:
    """Region and ports of a direct rule go direct; other ports and other regions do not."""
    policies = load(tmp_path, "name: tls, to: {region: [DE, FR], port: [443, 8000-8100]}, action: allow, path: direct")
    sets = [UNKNOWN, GERMANY, RegionSet(frozenset({"US"}), "country", ""), RegionSet(frozenset({"FR"}), "operator", "")]
    (audience,) = direct_plan(policies, [executor()], sets)
    ranges = (PortRange(443, 443, "test", "tls"), PortRange(8000, 8100, "test", "tls"))
    assert audience.ranges == {1: ranges, 3: ranges}
    assert audience.surplus == ()


@pytest.mark.parametrize(
    ("earlier", "left"),
    [
        ("to: {region: [FR]}, action: deny", [(440, 450)]),
        ("to: {region: [DE], port: [445]}, action: deny", [(440, 444), (446, 450)]),
        ("to: {port: [440-444]}, action: deny", [(445, 450)]),
        ("to: {region: ['*'], protocol: [http]}, action: deny", []),
        ("to: {region: [DE], port: [450], protocol: [http]}, action: allow", [(440, 449)]),
        ("to: {region: [DE, FR], host: [a.example]}, action: allow", []),
        ("to: {address: [8.8.8.8], port: [440]}, action: allow", [(441, 450)]),
        ("to: {region: [FR], address: [8.8.8.8]}, action: allow", [(440, 450)]),
        ("to: {region: [HOST]}, action: allow", [(440, 450)]),
        ("to: {region: [DE], port: [450-460]}, action: allow, path: direct", [(440, 449)]),
    ],
)
def test_what_an_earlier_rule_may_match_is_not_direct(
    tmp_path: Path, earlier: str, left: list[tuple[int, int]]
) -> None:
    """Each rule before it takes out the ports at which it might match, by its protocol, host or address alone too."""
    direct = "name: later, to: {region: [DE], port: [440-450]}, action: allow, path: direct"
    policies = load(tmp_path, f"name: first, {earlier}", direct)
    found = direct_ranges(policies, executor(), GERMANY)
    assert [(one.low, one.high) for one in found if one.rule == "later"] == left


def test_a_disputed_prefix_is_allowed_whole_and_denied_in_part(tmp_path: Path) -> None:
    """A direct rule covers every region that an address may be in; an earlier denial of one of them takes it out."""
    both = RegionSet(frozenset({"DE", "FR"}), "country", "")
    direct = "name: d, to: {{region: [{}], port: [1]}}, action: allow, path: direct"
    assert direct_ranges(load(tmp_path, direct.format("DE")), executor(), both) == ()
    whole = load(tmp_path, direct.format("DE, FR"))
    assert direct_ranges(whole, executor(), both) == (PortRange(1, 1, "test", "d"),)
    denied = load(tmp_path, "name: fr, to: {region: [FR]}, action: deny", direct.format("DE, FR"))
    assert direct_ranges(denied, executor(), both) == ()


@pytest.mark.parametrize("kind", ["loopback", "metadata", "link-local", "multicast", "unknown", "private", "reserved"])
def test_special_kinds_never_go_direct(tmp_path: Path, kind: str) -> None:
    """A set that is no place is not opened, even if it came with a region."""
    policies = load(tmp_path, "name: d, to: {region: [DE], port: [1]}, action: allow, path: direct")
    for regions in (frozenset({"DE"}), frozenset[str]()):
        assert direct_ranges(policies, executor(), RegionSet(regions, kind, "")) == ()


def test_a_surplus_of_ranges_is_left_to_the_proxy(tmp_path: Path) -> None:
    """The fifth range of a set is dropped and named; none is widened or joined over a gap."""
    ports = "1, 3, 5, 7-8, 10"
    policies = load(tmp_path, f"name: d, to: {{region: [DE], port: [{ports}]}}, action: allow, path: direct")
    (audience,) = direct_plan(policies, [executor()], [UNKNOWN, GERMANY])
    assert [(one.low, one.high) for one in audience.ranges[1]] == [(1, 1), (3, 3), (5, 5), (7, 8)]
    assert audience.surplus == (("test", "d"),)
    assert why_proxied(policies, executor(), GERMANY, 10) == (
        "more than 4 ranges of ports would go direct to that region"
    )
    assert why_proxied(policies, executor(), GERMANY, 8) == ""


@pytest.mark.parametrize(
    ("rules", "ports"),
    [
        (["to: {region: [HOST], port: [5432, 80-90]}, action: allow"], [(80, 90), (5432, 5432)]),
        (["to: {region: [HOST]}, action: allow"], [(1, 65535)]),
        (["to: {region: ['*']}, action: allow", "to: {address: [127.0.0.1]}, action: allow"], []),
        (
            ["to: {region: [HOST], port: [1-9]}, action: deny", "to: {region: [HOST], port: [5-12]}, action: allow"],
            [(10, 12)],
        ),
        (
            [
                "to: {region: [HOST], port: [1-9], protocol: [http]}, action: deny",
                "to: {region: [HOST], port: [5-12]}, action: allow",
            ],
            [(5, 12)],
        ),
        (["to: {region: ['*']}, action: deny", "to: {region: [HOST], port: [22]}, action: allow"], [(22, 22)]),
    ],
)  # fmt: skip
def test_ports_of_the_host_are_those_that_a_rule_opens(
    tmp_path: Path, rules: list[str], ports: list[tuple[int, int]]
) -> None:
    """Only rules for HOST open and close them, in their order; a denial of one protocol closes no port."""
    policies = load(tmp_path, *(f"name: r{number}, {rule}" for number, rule in enumerate(rules)))
    assert host_ports(policies, executor()) == ports


def test_overlapping_ports_of_a_rule_are_one_range(tmp_path: Path) -> None:
    """Ports written twice or side by side do not use up the kernel's ranges."""
    policies = load(tmp_path, "name: d, to: {region: [DE], port: [1-5, 4, 6, 5-9, 80]}, action: allow, path: direct")
    assert [one[:2] for one in direct_ranges(policies, executor(), GERMANY)] == [(1, 9), (80, 80)]


def test_executors_are_grouped_by_the_policies_that_apply(tmp_path: Path) -> None:
    """Executors under the same policies share a plan, whatever their mode; one under none has an empty one."""
    paths = [
        write_policy(
            tmp_path,
            f"policy: {name}\napplies_to: [{{{who}}}]\nrules:\n"
            f"  - {{name: d, to: {{region: [DE], port: [{port}]}}, action: allow, path: direct}}\n",
            name,
        )
        for name, who, port in (("one", "executor: agent", 1), ("two", "cgroup: a.slice/b*", 2))
    ]
    policies = load_policies(paths, VOCABULARY)
    attached = [executor(), executor("other"), executor("third"), executor("free", cgroup="c.slice/d")]
    isolated = executor(cgroup="", mode="isolated")
    plan = direct_plan(policies, [*attached, isolated], [GERMANY])
    assert [(one.policies, one.executors, [r.low for r in one.ranges.get(0, ())]) for one in plan] == [
        (("one", "two"), ("agent-1",), [1, 2]),
        (("two",), ("other-1", "third-1"), [2]),
        ((), ("free-1",), []),
        (("one",), ("agent-1",), [1]),
    ]
    assert audience_of(policies, isolated) == ("one",)
    assert why_proxied(policies, isolated, GERMANY, 1) == "an isolated executor has no route of its own"


def test_the_shipped_packs_leave_nothing_direct() -> None:
    """No pack opens a way around the proxy."""
    for path in PACKS.glob("*.yaml"):
        policies = load_policies([path], VOCABULARY)
        assert direct_ranges(policies, executor(), GERMANY) == ()


def test_a_direct_rule_with_other_conditions_is_not_direct() -> None:
    """Should a direct rule with a protocol, host or address ever reach this, its ports go to the proxy."""
    for more in (
        {"protocols": frozenset({"http"})},
        {"hosts": frozenset({"a.example"})},
        {"suffixes": (".example",)},
        {"networks": (parse_network("3.0.0.0/8"),)},
        {"action": Action.DENY},
    ):
        fields = {"action": Action.ALLOW, "region_words": ("DE",), "regions": frozenset({"DE"}), "direct": True}
        rule = Rule("d", **{**fields, **more})  # type: ignore[arg-type]
        policies = PolicySet.of((Policy("p", False, ("*",), frozenset(), (rule,)),))
        assert direct_ranges(policies, executor(), GERMANY) == ()
        assert why_proxied(policies, executor(), GERMANY, 1) == "rule p/d may match first"
        assert not relayed(policies, flow())


def test_special_addresses_are_never_in_a_placed_set() -> None:
    """What the engine refuses by the address itself, no table can place: the kernel's sets say the same. 0.0.0.0 and ::
    are the exception that the kernel takes out by itself."""
    special = ["127.0.0.0/8", "::1/128", "169.254.0.0/16", "fe80::/10", "224.0.0.0/4", "ff00::/8"]
    for network in map(ip_network, special):
        first, last = int(network.network_address), int(network.broadcast_address)
        assert hard_kind(network.version, first, last) in HARD_KINDS
    soft = [ip_network(row.cidr) for row in SPECIAL if row.kind not in HARD_KINDS]
    refused = {str(one[0]) for one in soft if special_class(flow(str(one[0]), regions="DE", kind="operator"))}
    assert refused == {"0.0.0.0", "::"}


# --- against `decide`

CODES = st.sampled_from(["DE", "FR", "US"])
PORTS = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)).map(lambda one: (one[0], one[0] + one[1])), max_size=3)
CONDITIONS = {
    "name": st.just(""),
    "region_words": st.just(()),
    "regions": st.frozensets(CODES, max_size=3),
    "ports": PORTS.map(tuple),
}
READ = st.builds(
    Rule,
    **CONDITIONS,
    action=st.sampled_from(Action),
    hosts=st.sampled_from([frozenset[str](), frozenset[str](), frozenset({"a.example"})]),
    suffixes=st.sampled_from([(), (), (".b.example",)]),
    protocols=st.frozensets(st.sampled_from(["http", "postgres", "opaque"]), max_size=2),
)
ANYWHERE = st.builds(
    Rule, name=st.just(""), action=st.sampled_from(Action), region_words=st.just(("*",)), ports=PORTS.map(tuple)
)
HOST = st.builds(
    Rule,
    name=st.just(""),
    action=st.sampled_from(Action),
    region_words=st.just(("HOST",)),
    ports=PORTS.map(tuple),
    protocols=st.frozensets(st.sampled_from(["http", "opaque"]), max_size=1),
    hosts=st.sampled_from([frozenset[str](), frozenset({"a.example"})]),
)
DIRECT = st.builds(Rule, **CONDITIONS, action=st.just(Action.ALLOW), direct=st.just(True))
NETWORKS = st.lists(
    st.sampled_from(["8.0.0.0/7", "8.8.8.8/32", "2a05::/16"]).map(parse_network), min_size=1, max_size=2
)
ADDRESSED = st.builds(
    Rule, **CONDITIONS, action=st.sampled_from(Action), networks=NETWORKS.map(tuple), protocols=st.just(frozenset())
)
WITHOUT_ADDRESSES = st.one_of(DIRECT, DIRECT, READ, ANYWHERE, HOST)


def policy_sets(rules: st.SearchStrategy[Rule]) -> st.SearchStrategy[PolicySet]:
    """Up to three policies for different executors, the rules of each with names of their own."""

    def named(rules: list[Rule]) -> tuple[Rule, ...]:
        return tuple(
            Rule(
                f"r{number}", one.action, one.region_words or tuple(sorted(one.regions)), one.regions, one.networks,
                one.hosts, one.suffixes, one.ports, one.protocols, direct=one.direct and bool(one.regions),
            )
            for number, one in enumerate(rules)
        )  # fmt: skip

    policies = st.lists(
        st.tuples(
            st.booleans(), st.sampled_from([("*",), ("agent",), ()]), st.lists(rules, min_size=1, max_size=5).map(named)
        ),
        max_size=3,
    )
    return policies.map(
        lambda parts: PolicySet.of(
            tuple(
                Policy(f"p{number}", observe, names, frozenset({"root"}) if not names else frozenset(), rules)
                for number, (observe, names, rules) in enumerate(parts)
            )
        )
    )


ADDRESSES = ("8.8.8.8", "9.9.9.9", "77.1.1.1", "2a05:d014::1", "2001:4860::1")
CARRIED = list(
    product(("http", "postgres", "opaque", "unheard-of"), (None, "a.example", "x.b.example", "other.example"))
)
EXECUTORS = [executor(), executor("other"), executor("other", user="nobody")]
PORT_UNIVERSE = (*range(1, 14), 65535)
SETS = [
    RegionSet(frozenset(regions), kind, "")
    for regions in ((), ("DE",), ("FR",), ("DE", "FR"), ("DE", "US"))
    for kind in ("country", "operator", "unknown", "private", "metadata")
]


def verdicts(
    policies: PolicySet, who: Executor, where: RegionSet, port: int, addresses: tuple[str, ...]
) -> Iterator[Verdict]:
    """Every verdict that a flow to `port` of `where` can get."""
    for address in addresses:
        one = flow(address, port, regions=" ".join(where.regions), kind=where.kind)
        asked = Flow(who, one.destination, one.region, 1, 2, 3, 4)
        for protocol, host in CARRIED:
            yield decide(policies, asked, protocol, {"host": host} if host else {})


def settled(found: list[Verdict]) -> tuple[str, str] | None:
    """The one direct rule that gave every verdict, if one did."""
    rules = {(one.policy, one.rule) for one in found if one.direct and one.action is Action.ALLOW}
    return rules.pop() if len(rules) == 1 and all(one.direct for one in found) else None


@given(policies=policy_sets(st.one_of(WITHOUT_ADDRESSES, ADDRESSED)), where=st.sampled_from(SETS))
def test_direct_is_allowed_by_that_rule_whatever_the_flow_carries(policies: PolicySet, where: RegionSet) -> None:
    """Wherever the plan says direct, `decide` says allow by the same rule for every address, protocol and host; so
    nothing that `decide` denies for any of them is direct."""
    for audience in direct_plan(policies, EXECUTORS, [where]):
        members = [one for one in EXECUTORS if one.ident in audience.executors]
        direct = {
            port: (one.policy, one.rule)
            for one in audience.ranges.get(0, ())
            for port in PORT_UNIVERSE
            if one.low <= port <= one.high
        }
        for member, (port, rule) in product(members, direct.items()):
            if audience_of(policies, member) == audience.policies:
                assert settled(list(verdicts(policies, member, where, port, ADDRESSES))) == rule


@given(policies=policy_sets(WITHOUT_ADDRESSES), where=st.sampled_from(SETS))
def test_nothing_is_kept_from_going_direct_without_reason(policies: PolicySet, where: RegionSet) -> None:
    """Where no rule names an address, exactly those ports are direct at which one direct rule gives every verdict."""
    for who in EXECUTORS:
        ranges = direct_ranges(policies, who, where)
        for port in PORT_UNIVERSE:
            rule = next(((one.policy, one.rule) for one in ranges if one.low <= port <= one.high), None)
            expected = settled(list(verdicts(policies, who, where, port, ADDRESSES[:1])))
            assert rule == (expected if where.kind in ("country", "operator") else None)
            kept = any(one.low <= port <= one.high for one in ranges[:MAX_RANGES])
            assert (why_proxied(policies, who, where, port) == "") is kept


@given(policies=policy_sets(st.one_of(WITHOUT_ADDRESSES, ADDRESSED)), where=st.sampled_from(SETS))
def test_a_flow_is_relayed_unread_exactly_when_one_direct_rule_settles_it(
    policies: PolicySet, where: RegionSet
) -> None:
    """`relayed` is what trying every protocol and host would say of this address."""
    for address, port in product(ADDRESSES[::2], (1, 5, 9)):
        asked = flow(address, port, executor="agent", user="root", regions=" ".join(where.regions), kind=where.kind)
        found = [decide(policies, asked, protocol, {"host": host} if host else {}) for protocol, host in CARRIED]
        assert relayed(policies, asked) is (settled(found) is not None)


@given(policies=policy_sets(st.one_of(HOST, WITHOUT_ADDRESSES, ADDRESSED)))
def test_host_ports_hold_every_port_that_decide_may_allow(policies: PolicySet) -> None:
    """A port of the host's loopback that some flow may reach is redirected, and none that no rule opens is."""
    loopback = RegionSet(frozenset(), "loopback", "")
    for who in EXECUTORS:
        ranges = host_ports(policies, who)
        names = audience_of(policies, who)
        rules = [rule for policy in policies.policies if policy.name in names for rule in policy.rules]
        opening = [rule for rule in rules if rule.loopback and rule.action is Action.ALLOW]
        for port in PORT_UNIVERSE:
            redirected = any(low <= port <= high for low, high in ranges)
            found = verdicts(policies, who, loopback, port, ("127.0.0.1", "127.8.0.1", "::1", "0.0.0.0"))
            if any(one.action is Action.ALLOW for one in found):
                assert redirected
            if redirected:
                assert any(not rule.ports or any(a <= port <= b for a, b in rule.ports) for rule in opening)
