"""`explain`: the same verdict as `decide`, with the first difference of every rule tried."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from enforcer.flow import Flow
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.policy.destinations import parse_network
from enforcer.policy.engine import decide
from enforcer.policy.explain import Trial, explain
from enforcer.verdict import Action, Reason

from .policy_world import flow, load


def test_every_rule_tried_has_its_first_difference(tmp_path: Path) -> None:
    """Each rule before the match says in words what does not fit; rules behind the match are not tried."""
    policies = load(
        tmp_path,
        "name: region, to: {region: [EEA, JP]}, action: allow",
        "name: address, to: {region: [US], address: [8.8.4.0/24]}, action: allow",
        "name: port, to: {region: [US], port: [80, 8000-8100]}, action: allow",
        "name: protocol, to: {region: [US], protocol: [http]}, action: allow",
        "name: host, to: {region: [US], host: [a.example, '*.b.example']}, action: allow",
        "name: deny, to: {region: [RU]}, action: deny",
        "name: match, to: {region: [US]}, action: deny",
        "name: never, to: {region: [US]}, action: allow",
    )
    explanation = explain(policies, flow("8.8.8.8", 5432), "postgres", {"host": "c.example"})
    assert [(trial.rule, trial.difference) for trial in explanation.trials] == [
        ("region", "region US is not in EEA, JP"),
        ("address", "address 8.8.8.8 is not in 8.8.4.0/24"),
        ("port", "port 5432 is not in 80, 8000-8100"),
        ("protocol", "protocol postgres is not in http"),
        ("host", "host 'c.example' is not in a.example, *.b.example"),
        ("deny", "region US is not in RU"),
        ("match", ""),
    ]
    assert (explanation.verdict.reason, explanation.verdict.rule) == (Reason.RULE, "match")


def test_doubt_is_said_in_words(tmp_path: Path) -> None:
    """Ambiguous, unknown, private, metadata and loopback addresses, and opaque traffic, say what they are."""
    policies = load(tmp_path, "name: a, to: {region: [EEA]}, action: allow")
    for asked, protocol, difference in (
        (flow("9.9.9.9", regions="DE US"), "http", "region DE/US is not wholly in EEA"),
        (flow("100.200.0.1"), "http", "the region is unknown"),
        (flow("10.0.0.1"), "http", "a private address has no region"),
        (
            flow("169.254.169.254"),
            "http",
            "169.254.169.254 is metadata, which only a rule for address 169.254.169.254/32 reaches",
        ),
        (flow("127.0.0.1"), "http", "127.0.0.1 is loopback, which only a rule for region HOST reaches"),
        (
            flow("64:ff9b::7f00:1", regions="", kind="loopback"),
            "http",
            "64:ff9b::7f00:1 is loopback, which no rule reaches",
        ),
        (flow("224.0.0.1"), "http", "224.0.0.1 is multicast, which no rule reaches"),
        (flow(), "opaque", "protocol opaque passes only where a rule names it"),
    ):
        assert explain(policies, asked, protocol, {}).trials == (Trial("test", "a", "allow", difference),)


def test_a_policy_for_others_is_one_line(tmp_path: Path) -> None:
    """A policy that does not apply is listed once, with whom it is for."""
    policies = load(
        tmp_path,
        "name: a, to: {region: [EEA]}, action: allow",
        head="applies_to: [{executor: ci}, {user: bob}, {unit: x.service}]",
    )
    difference = "applies to executor ci, user bob, cgroup system.slice/x.service, not to executor any"
    assert explain(policies, flow(), "http", {}).trials == (Trial("test", "", "", difference),)
    attached = explain(policies, flow(cgroup="a.slice/y.service"), "http", {}).trials[0].difference
    assert attached.endswith("not to executor any in cgroup a.slice/y.service")


def test_long_lists_stay_one_line(tmp_path: Path) -> None:
    """A rule with a thousand networks is told by its first three."""
    networks = ", ".join(f"10.{number // 256}.{number % 256}.0/24" for number in range(1000))
    policies = load(tmp_path, f"name: a, to: {{address: [{networks}]}}, action: allow")
    difference = "address 3.120.0.1 is not in 10.0.0.0/24, 10.0.1.0/24, 10.0.2.0/24 and 997 more"
    assert explain(policies, flow(), "http", {}).trials[0].difference == difference


CODES = st.sampled_from(["DE", "FR", "US", "RU"])
PROTOCOLS = st.sampled_from(["http", "postgres", "opaque"])
NETWORKS = st.sampled_from(["0.0.0.0/0", "8.0.0.0/7", "8.8.8.8/32", "169.254.169.254/32", "127.0.0.1/32", "::/0"])
RULES = st.builds(
    Rule,
    name=st.sampled_from(["a", "b", "c"]),
    action=st.sampled_from(Action),
    region_words=st.lists(CODES | st.just("*"), max_size=2).map(tuple) | st.just(("HOST",)),
    regions=st.frozensets(CODES, max_size=3),
    networks=st.lists(NETWORKS.map(parse_network), max_size=2).map(tuple),
    hosts=st.frozensets(st.just("a.example"), max_size=1),
    suffixes=st.sampled_from([(), (".b.example",)]),
    ports=st.sampled_from([(), ((80, 443),)]),
    protocols=st.frozensets(PROTOCOLS, max_size=2),
    direct=st.booleans(),
)
POLICIES = st.lists(
    st.builds(
        Policy,
        name=st.sampled_from(["p", "q"]),
        observe=st.booleans(),
        executors=st.sampled_from([("*",), ("ci-*",), ()]),
        users=st.frozensets(st.just("agent"), max_size=1),
        rules=st.lists(RULES, min_size=1, max_size=4).map(tuple),
        cgroups=st.sampled_from([(), ("system.slice/*.service",)]),
    ),
    max_size=3,
).map(lambda policies: PolicySet.of(tuple(policies)))
FLOWS = st.builds(
    flow,
    address=st.sampled_from(["8.8.8.8", "9.9.9.9", "169.254.169.254", "127.0.0.1", "::1", "2a05:d014::1"]),
    port=st.sampled_from([80, 5432]),
    executor=st.sampled_from(["ci-1", "web"]),
    user=st.sampled_from(["agent", "root"]),
    cgroup=st.sampled_from(["", "system.slice/a.service"]),
    regions=st.sampled_from([None, "", "DE", "DE FR", "DE US"]),
    kind=st.sampled_from(["country", "operator", "unknown", "private", "metadata", "loopback", "multicast"]),
)
FACTS = st.sampled_from([{}, {"host": "a.example"}, {"host": "X.B.example."}])


@given(POLICIES, FLOWS, PROTOCOLS, FACTS)
def test_explain_and_decide_agree(policies: PolicySet, asked: Flow, protocol: str, facts: dict[str, str]) -> None:
    """Whatever the policies and the flow, the explained verdict is the verdict, and its last trial is the rule."""
    explanation = explain(policies, asked, protocol, facts)
    verdict = decide(policies, asked, protocol, facts)
    assert explanation.verdict == verdict
    matches = [trial for trial in explanation.trials if not trial.difference]
    assert [(trial.policy, trial.rule) for trial in matches] == (
        [(verdict.policy, verdict.rule)] if verdict.rule else []
    )


@given(POLICIES, FLOWS, PROTOCOLS, FACTS)
def test_an_allow_always_stands_on_a_region_or_an_address(
    policies: PolicySet, asked: Flow, protocol: str, facts: dict[str, str]
) -> None:
    """What is allowed has a known region or an address that a rule names; this host is reached by its own word only."""
    verdict = decide(policies, asked, protocol, facts)
    if verdict.action is Action.ALLOW:
        rules = [rule for policy in policies.policies if policy.name == verdict.policy for rule in policy.rules]
        by = [rule for rule in rules if rule.name == verdict.rule]
        assert verdict.reason is Reason.RULE
        if asked.destination.address.is_loopback:
            assert any(rule.region_words == ("HOST",) for rule in by)
        else:
            assert asked.region.regions or any(rule.networks for rule in by)
            assert asked.region.kind not in ("loopback", "multicast")


@given(POLICIES)
def test_a_policy_set_survives_the_way_to_the_worker(policies: PolicySet) -> None:
    """JSON and back gives the same policies under the same generation."""
    assert PolicySet.from_json(policies.to_json()) == policies
