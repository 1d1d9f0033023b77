"""`decide`: first match wins, no match is a denial, and doubt closes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.flow import Flow
from enforcer.policy.compiled import PolicySet, Rule
from enforcer.policy.engine import Question, decide, first_difference, relayed
from enforcer.policy.loader import load_policies
from enforcer.verdict import Action, Reason

from .policy_world import VOCABULARY, flow, load, write_policy

ALLOW_EEA = "name: eea, to: {region: [EEA]}, action: allow"
ALLOW_ALL = 'name: all, to: {region: ["*"]}, action: allow'
DENY_ALL = 'name: none, to: {region: ["*"]}, action: deny'
OBSERVE = "mode: observe"


def judge(policies: PolicySet, asked: Flow, protocol: str = "http", host: str | None = None) -> tuple[str, str]:
    """(`allow` or `deny`, rule) for one question."""
    verdict = decide(policies, asked, protocol, {} if host is None else {"host": host})
    return verdict.action.value, verdict.rule


def test_no_policy_is_a_denial() -> None:
    """Without any policy everything is denied, and nothing is observed."""
    verdict = decide(PolicySet.of(()), flow(), "http", {})
    assert (verdict.action, verdict.reason, verdict.observed) == (Action.DENY, Reason.NO_RULE, False)


def test_no_match_is_a_denial_with_its_reason(tmp_path: Path) -> None:
    """The reason of an unmatched denial tells a known region, an unknown one and a special address apart."""
    policies = load(tmp_path, "name: a, to: {region: [RU]}, action: allow")
    for address, reason in (
        ("3.120.0.1", Reason.NO_RULE),
        ("100.200.0.1", Reason.UNKNOWN_REGION),
        ("10.0.0.1", Reason.SPECIAL_ADDRESS),
        ("192.0.2.1", Reason.SPECIAL_ADDRESS),
        ("169.254.169.254", Reason.SPECIAL_ADDRESS),
    ):
        verdict = decide(policies, flow(address), "http", {})
        assert (verdict.action, verdict.reason, verdict.rule) == (Action.DENY, reason, ""), address


def test_the_first_match_wins_across_policies(tmp_path: Path) -> None:
    """Rules are tried in the order of the files and of the rules in them; the verdict names both."""
    paths = [
        write_policy(tmp_path, f"policy: {name}\nrules:\n  - {{{rule}}}\n", name)
        for name, rule in (("one", ALLOW_EEA), ("two", DENY_ALL))
    ]
    assert decide(load_policies(paths, VOCABULARY), flow(), "http", {}).policy == "one"
    assert decide(load_policies(paths[::-1], VOCABULARY), flow(), "http", {}).policy == "two"


@pytest.mark.parametrize(
    ("regions", "allowed"),
    [("DE", True), ("NO", True), ("DE FR", True), ("US", False), ("DE US", False), ("", False)],
)
def test_an_allow_covers_every_region_of_the_address(tmp_path: Path, regions: str, allowed: bool) -> None:
    """An address that may lie outside the EEA, or anywhere, is not in it."""
    asked = flow(regions=regions, kind="country" if regions else "unknown")
    assert judge(load(tmp_path, ALLOW_EEA), asked)[0] == ("allow" if allowed else "deny")


@pytest.mark.parametrize(("regions", "denied"), [("RU", True), ("RU US", True), ("US", False), ("", False)])
def test_a_deny_needs_one_region_of_the_address(tmp_path: Path, regions: str, denied: bool) -> None:
    """An address that may be in a forbidden region is denied by that rule."""
    policies = load(tmp_path, "name: ru, to: {region: [RU]}, action: deny", ALLOW_ALL)
    rule = judge(policies, flow(regions=regions, kind="country" if regions else "unknown"))[1]
    assert (rule == "ru") is denied


@pytest.mark.parametrize(("address", "rule"), [("8.8.8.8", "all"), ("100.200.0.1", ""), ("10.0.0.1", "")])
def test_any_region_for_an_allow_is_any_known_region(tmp_path: Path, address: str, rule: str) -> None:
    """`*` allows every place that the tables know, and nothing that they do not."""
    assert judge(load(tmp_path, ALLOW_ALL), flow(address))[1] == rule


@pytest.mark.parametrize("address", ["8.8.8.8", "100.200.0.1", "10.0.0.1", "192.0.2.1", "198.18.0.1"])
def test_any_region_for_a_deny_includes_the_unknown(tmp_path: Path, address: str) -> None:
    """`*` denies by name whatever comes, known or not."""
    assert judge(load(tmp_path, DENY_ALL), flow(address)) == ("deny", "none")


def test_an_address_may_allow_what_has_no_region(tmp_path: Path) -> None:
    """Who names a private network has said where it is; a region beside it must hold as well."""
    named = load(tmp_path, "name: lan, to: {address: [10.0.0.0/24]}, action: allow")
    assert judge(named, flow("10.0.0.1")) == ("allow", "lan")
    assert judge(named, flow("10.0.1.1", regions="", kind="private")) == ("deny", "")
    both = load(tmp_path, "name: lan, to: {address: [10.0.0.0/24, 3.120.0.0/14], region: [DE]}, action: allow")
    assert judge(both, flow("10.0.0.1")) == ("deny", "")
    assert judge(both, flow("3.120.0.1")) == ("allow", "lan")
    assert judge(both, flow("8.8.8.8", regions="DE")) == ("deny", "")


@pytest.mark.parametrize("address", ["169.254.169.254", "169.254.7.7", "fe80::1"])
def test_metadata_and_link_local_need_their_own_address(tmp_path: Path, address: str) -> None:
    """Neither a region nor a network around it reaches a metadata or link-local address; only the address does."""
    wide = "name: wide, to: {address: [169.254.0.0/16, 'fe80::/10', 169.254.169.254/31]}, action: allow"
    for rule in (wide, ALLOW_ALL):
        verdict = decide(load(tmp_path, rule), flow(address), "http", {})
        assert (verdict.action, verdict.reason) == (Action.DENY, Reason.SPECIAL_ADDRESS)
    exact = load(tmp_path, f"name: exact, to: {{address: ['{address}']}}, action: allow")
    assert judge(exact, flow(address)) == ("allow", "exact")


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "224.0.0.1", "0.0.0.0", "::"])
def test_loopback_and_multicast_are_never_allowed(tmp_path: Path, address: str) -> None:
    """No rule reaches this host or a group, not even one that names the address; 0.0.0.0 is this host on Linux."""
    policies = load(tmp_path, f"name: exact, to: {{address: ['{address}']}}, action: allow", ALLOW_ALL)
    for asked in (flow(address), flow(address, regions="DE", kind="operator")):
        verdict = decide(policies, asked, "http", {})
        assert (verdict.action, verdict.reason) == (Action.DENY, Reason.SPECIAL_ADDRESS)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.0.1", "::1", "0.0.0.0", "::"])
def test_host_is_the_loopback_of_this_host_and_nothing_else(tmp_path: Path, address: str) -> None:
    """A rule for HOST reaches this host by its ports and protocols; it reaches no place, whatever a table calls it."""
    policies = load(tmp_path, "name: own, to: {region: [HOST], port: [5432], protocol: [postgres]}, action: allow")
    assert judge(policies, flow(address), "postgres") == ("allow", "own")
    assert judge(policies, flow(address, regions="DE", kind="operator"), "postgres") == ("allow", "own")
    assert judge(policies, flow(address), "http") == ("deny", "")
    assert judge(policies, flow(address, 5433), "postgres") == ("deny", "")
    for elsewhere in ("3.120.0.1", "100.200.0.1", "10.0.0.1", "169.254.169.254", "224.0.0.1"):
        assert judge(policies, flow(elsewhere), "postgres") == ("deny", "")


def test_loopback_inside_another_address_is_not_this_host(tmp_path: Path) -> None:
    """64:ff9b::7f00:1 is refused as loopback, but a gateway would take it elsewhere: HOST does not reach it."""
    policies = load(tmp_path, "name: own, to: {region: [HOST]}, action: allow")
    verdict = decide(policies, flow("64:ff9b::7f00:1", regions="", kind="loopback"), "http", {})
    assert (verdict.action, verdict.reason) == (Action.DENY, Reason.SPECIAL_ADDRESS)


def test_an_earlier_denial_of_host_wins(tmp_path: Path) -> None:
    """HOST may be denied by name; a denial of every region leaves it to the rules that name it."""
    own = "name: own, to: {region: [HOST]}, action: allow"
    assert judge(load(tmp_path, DENY_ALL, own), flow("127.0.0.1")) == ("allow", "own")
    denied = load(tmp_path, "name: ssh, to: {region: [HOST], port: [22]}, action: deny", own)
    assert judge(denied, flow("127.0.0.1", 22)) == ("deny", "ssh")
    assert judge(denied, flow("127.0.0.1", 23)) == ("allow", "own")


def test_a_direct_rule_covers_every_protocol(tmp_path: Path) -> None:
    """It is an allow that asks for nothing to be read, so opaque passes too, and the verdict says so."""
    policies = load(tmp_path, "name: d, to: {region: [DE], port: [443]}, action: allow, path: direct")
    for protocol in ("http", "postgres", "opaque"):
        verdict = decide(policies, flow(port=443), protocol, {})
        assert (verdict.action, verdict.rule, verdict.direct) == (Action.ALLOW, "d", True)
        assert verdict.detail == "its path is direct"
    assert not decide(load(tmp_path, ALLOW_EEA), flow(port=443), "http", {}).direct
    assert judge(policies, flow(port=444), "opaque") == ("deny", "")


@pytest.mark.parametrize(
    ("earlier", "unread"),
    [
        ("to: {region: [FR]}, action: deny", True),
        ("to: {region: [DE], port: [80]}, action: deny", True),
        ("to: {address: [8.8.8.8]}, action: allow", True),
        ("to: {address: [3.0.0.0/8]}, action: allow", False),
        ("to: {region: [DE], protocol: [http]}, action: deny", False),
        ("to: {region: [DE], host: [a.example]}, action: deny", False),
    ],
)
def test_a_flow_is_relayed_unread_unless_an_earlier_rule_has_to_read_it(
    tmp_path: Path, earlier: str, unread: bool
) -> None:
    """The proxy skips identification only where nothing in a flow could change its verdict."""
    direct = "name: d, to: {region: [DE], port: [443]}, action: allow, path: direct"
    policies = load(tmp_path, f"name: first, {earlier}", direct)
    assert relayed(policies, flow(port=443)) is unread


def test_no_table_row_turns_link_local_into_a_place(tmp_path: Path) -> None:
    """A table that calls 169.254.7.7 Germany does not open it to a rule for Germany."""
    verdict = decide(load(tmp_path, ALLOW_EEA), flow("169.254.7.7", regions="DE", kind="operator"), "http", {})
    assert (verdict.action, verdict.reason) == (Action.DENY, Reason.SPECIAL_ADDRESS)


@pytest.mark.parametrize(
    ("port", "allowed"),
    [(442, False), (443, True), (444, False), (7999, False), (8000, True), (8100, True), (8101, False)],
)
def test_ports_are_inclusive_ranges(tmp_path: Path, port: int, allowed: bool) -> None:
    """A range holds both of its ends."""
    policies = load(tmp_path, "name: a, to: {region: [DE], port: [443, 8000-8100]}, action: allow")
    assert judge(policies, flow(port=port))[0] == ("allow" if allowed else "deny")


def test_opaque_passes_only_where_a_rule_names_it(tmp_path: Path) -> None:
    """An allow rule without protocols is for protocols we can read; a deny rule without protocols is for all."""
    assert judge(load(tmp_path, ALLOW_EEA), flow(), "postgres") == ("allow", "eea")
    assert judge(load(tmp_path, ALLOW_EEA), flow(), "opaque") == ("deny", "")
    assert judge(load(tmp_path, DENY_ALL), flow(), "opaque") == ("deny", "none")
    named = load(tmp_path, "name: raw, to: {region: [DE], protocol: [opaque]}, action: allow")
    assert judge(named, flow(), "opaque") == ("allow", "raw")
    assert judge(named, flow(), "http") == ("deny", "")


@pytest.mark.parametrize(
    ("host", "matches"),
    [
        ("api.example.org", True),
        ("API.example.org.", True),
        ("api.example.org:8080", True),
        ("a.b.example.net", True),
        ("example.net", False),
        ("notexample.net", False),
        ("api.example.org.evil.com", False),
        ("", False),
        (None, False),
    ],
)
@pytest.mark.parametrize("action", ["allow", "deny"])
def test_hosts(tmp_path: Path, action: str, host: str | None, matches: bool) -> None:
    """Exact names and names below a suffix match, in any spelling; without a host neither allow nor deny matches."""
    to = "{region: [DE], host: [api.example.org, '*.example.net']}"
    policies = load(tmp_path, f"name: a, to: {to}, action: {action}")
    assert (judge(policies, flow(), "http", host)[1] == "a") is matches


def test_policies_apply_by_executor_or_user(tmp_path: Path) -> None:
    """A policy applies to the executors that a glob names, and to those of a user; to others it is not there."""
    policies = load(tmp_path, ALLOW_EEA, head='applies_to: [{executor: "ci-*"}, {user: agent}]')
    assert judge(policies, flow(executor="ci-7")) == ("allow", "eea")
    assert judge(policies, flow(executor="web", user="agent")) == ("allow", "eea")
    assert judge(policies, flow(executor="CI-7", user="root")) == ("deny", "")
    assert "applies to executor web" in decide(policies, flow(executor="web"), "http", {}).detail


def test_a_match_carries_mask_and_durability(tmp_path: Path) -> None:
    """What the rule says about masking and recording travels with the verdict."""
    rule = "name: a, to: {region: [DE]}, action: allow, mask: {response: [iban]}, record: durable"
    verdict = decide(load(tmp_path, rule), flow(), "http", {})
    assert (verdict.reason, verdict.mask.detectors, verdict.durable) == (Reason.RULE, ("iban",), True)


def test_observe_mode_marks_its_own_denials(tmp_path: Path) -> None:
    """A deny rule of an observing policy passes as observed; its allow rules are plain allows."""
    policies = load(tmp_path, ALLOW_EEA, DENY_ALL, head=OBSERVE)
    denied = decide(policies, flow("8.8.8.8"), "http", {})
    assert (denied.action, denied.rule, denied.observed, denied.passes) == (Action.DENY, "none", True, True)
    allowed = decide(policies, flow(), "http", {})
    assert (allowed.action, allowed.observed) == (Action.ALLOW, False)


@pytest.mark.parametrize(
    ("modes", "audiences", "observed"),
    [
        (["observe"], ["*"], True),
        (["observe", "observe"], ["*", "*"], True),
        (["observe", "enforce"], ["*", "*"], False),
        (["observe", "enforce"], ["*", "other"], True),
        (["observe"], ["other"], False),
    ],
)
def test_an_unmatched_denial_is_observed_only_if_all_that_apply_observe(
    tmp_path: Path, modes: list[str], audiences: list[str], observed: bool
) -> None:
    """One enforcing policy that applies closes; so does having none that applies."""
    paths = [
        write_policy(
            tmp_path,
            f"policy: p{number}\nmode: {mode}\napplies_to: [{{executor: '{audience}'}}]\nrules: [{{{ALLOW_EEA}}}]\n",
            f"p{number}",
        )
        for number, (mode, audience) in enumerate(zip(modes, audiences, strict=True))
    ]
    assert decide(load_policies(paths, VOCABULARY), flow("8.8.8.8"), "http", {}).observed is observed


@pytest.mark.parametrize("address", ["127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"])
def test_observe_mode_never_opens_special_addresses(tmp_path: Path, address: str) -> None:
    """The host itself, its link and its metadata service stay closed in observe mode, whatever rule denies them."""
    exact = f"name: exact, to: {{address: ['{address}']}}, action: deny"
    host = "name: host, to: {region: [HOST]}, action: deny"
    for rules in ([DENY_ALL], [exact], [ALLOW_EEA], [host]):
        assert not decide(load(tmp_path, *rules, head=OBSERVE), flow(address), "http", {}).passes


def test_an_allow_rule_that_says_nothing_matches_nothing() -> None:
    """Should a rule without region and address ever reach the engine, it opens nothing."""
    question = Question(flow(), "", "http", None)
    assert first_difference(Rule("bare", Action.ALLOW), question) == "the rule says neither region nor address"


def test_the_engine_needs_neither_yaml_nor_pydantic() -> None:
    """Workers load the engine and the compiled form without the parsers."""
    modules = "sys, enforcer.policy.engine, enforcer.policy.explain, enforcer.policy.compiled"
    code = f"import {modules}\nassert not {{'yaml', 'pydantic'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
