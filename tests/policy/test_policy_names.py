"""Names judged before anything is sent: by rules that a flow to them could meet, by their address, by what was told."""

from __future__ import annotations

import textwrap
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.flow import Executor, Flow
from enforcer.policy.compiled import PolicySet
from enforcer.policy.engine import decide
from enforcer.policy.loader import load_policies
from enforcer.policy.names import (
    explain_name,
    forbids_name,
    is_reverse,
    judge_address,
    judge_name,
    match_told,
    reverse_address,
)
from enforcer.verdict import Action, Reason, Verdict
from tests.policy.policy_world import VOCABULARY, flow, lookup

AGENT = Executor("agent-1", "agent", 1000, "runner", 7)


def policies(tmp_path: Path, *rules: str, mode: str = "enforce", applies: str = "") -> PolicySet:
    body = "\n".join(f"  - {rule}" for rule in rules)
    path = tmp_path / "p.yaml"
    path.write_text(f"policy: p\nmode: {mode}\n{applies}\nrules:\n{body}\n")
    return load_policies([path], VOCABULARY)


def decide_told(
    chosen: PolicySet, asked: Flow, protocol: str, facts: dict[str, str], names: tuple[str, ...]
) -> Verdict:
    """The verdict where no rule has an `only`."""
    return match_told(chosen, asked, protocol, facts, names).verdict


ALLOW_DE = "{name: home, to: {region: [DE], protocol: [postgres]}, action: allow}"
ALLOW_API = "{name: api, to: {region: ['*'], host: [api.example, '*.cdn.example']}, action: allow}"
DENY_EVIL = "{name: evil, to: {host: ['*.evil.example', evil.example]}, action: deny}"
DENY_EVIL_HTTP = "{name: evil-http, to: {host: [evil.example], protocol: [http]}, action: deny}"
DENY_EVIL_US = "{name: evil-us, to: {host: [evil.example], region: [US]}, action: deny}"
DENY_ALL = "{name: rest, to: {region: ['*']}, action: deny}"
LOCAL = "{name: local, to: {region: [HOST], port: [5432]}, action: allow}"
LOCAL_NAMED = "{name: local, to: {region: [HOST], port: [80], host: [app.internal]}, action: allow}"

# Rules in order, a name, and who decides: a rule with its action, or nobody.
CASES = {
    "an allow without hosts could let it through": ([ALLOW_DE], "db.example", "allow home"),
    "an allow for its host": ([ALLOW_API], "api.example", "allow api"),
    "an allow for its suffix": ([ALLOW_API], "a.b.cdn.example", "allow api"),
    "not the suffix itself": ([ALLOW_API], "cdn.example", "deny"),
    "an allow for other hosts": ([ALLOW_API], "db.example", "deny"),
    "a deny for its host alone": ([DENY_EVIL, ALLOW_DE], "a.evil.example", "deny evil"),
    "a deny that needs a protocol settles nothing": ([DENY_EVIL_HTTP, ALLOW_DE], "evil.example", "allow home"),
    "a deny that needs a region settles nothing": ([DENY_EVIL_US, ALLOW_DE], "evil.example", "allow home"),
    "a deny of everything ends the list": ([ALLOW_API, DENY_ALL, ALLOW_DE], "db.example", "deny rest"),
    "the first that matches": ([ALLOW_DE, DENY_EVIL], "evil.example", "allow home"),
    "services of this host need no names": ([LOCAL], "db.example", "deny"),
    "unless they have one": ([LOCAL_NAMED], "app.internal", "allow local"),
    "and only that one": ([LOCAL_NAMED], "db.example", "deny"),
}


@pytest.mark.parametrize("what", CASES)
def test_a_name_is_judged_by_what_could_become_of_it(tmp_path: Path, what: str) -> None:
    """The first rule that settles it, with everything but the name still open."""
    rules, name, expected = CASES[what]
    verdict = judge_name(policies(tmp_path, *rules), AGENT, name)
    assert f"{verdict.action.value} {verdict.rule}".strip() == expected
    assert verdict.reason is (Reason.RULE if verdict.rule else Reason.NO_RULE)


def test_the_explanation_says_what_differs(tmp_path: Path) -> None:
    """Every rule tried with its first difference, up to the one that decides."""
    found = explain_name(policies(tmp_path, DENY_EVIL_US, ALLOW_API, ALLOW_DE, DENY_ALL), AGENT, "db.example")
    assert [(trial.rule, bool(trial.difference)) for trial in found.trials] == [
        ("evil-us", True), ("api", True), ("home", False),
    ]  # fmt: skip
    assert found.verdict == judge_name(policies(tmp_path, DENY_EVIL_US, ALLOW_API, ALLOW_DE), AGENT, "db.example")


def test_policies_of_others_do_not_count(tmp_path: Path) -> None:
    """Without a policy for this executor nothing may be asked for."""
    chosen = policies(tmp_path, ALLOW_DE, applies="applies_to: [{executor: etl-*}]")
    verdict = judge_name(chosen, AGENT, "db.example")
    assert (verdict.action, verdict.observed) == (Action.DENY, False)
    assert "no enabled policy applies" in verdict.detail


def test_observing_lets_pass_what_it_would_deny(tmp_path: Path) -> None:
    """By a rule, and where no rule matched."""
    chosen = policies(tmp_path, DENY_EVIL, mode="observe")
    for name in ("evil.example", "db.example"):
        verdict = judge_name(chosen, AGENT, name)
        assert (verdict.action, verdict.observed, verdict.passes) == (Action.DENY, True, True)


def test_an_alias_is_forbidden_by_rules_for_hosts_only(tmp_path: Path) -> None:
    """It needs no rule that allows it; a deny of everything else is not meant for it."""
    chosen = policies(tmp_path, DENY_EVIL, ALLOW_API, DENY_ALL)
    assert forbids_name(chosen, AGENT, "x.evil.example") is not None
    assert forbids_name(chosen, AGENT, "lb.provider.example") is None
    assert forbids_name(policies(tmp_path, ALLOW_DE, DENY_ALL), AGENT, "x.evil.example") is None


PLACES = {
    "3.120.0.1": "allow home",
    "8.8.8.8": "deny",
    "10.0.0.1": "deny",
    "127.0.0.1": "deny",
    "169.254.169.254": "deny",
    "198.51.100.1": "deny",
}


@pytest.mark.parametrize("address", PLACES)
def test_an_address_is_judged_by_its_place(tmp_path: Path, address: str) -> None:
    """On whatever port and with whatever protocol it might be reached."""
    verdict = judge_address(
        policies(tmp_path, ALLOW_DE), AGENT, ip_address(address), lookup(ip_address(address)), "db.example"
    )
    assert f"{verdict.action.value} {verdict.rule}".strip() == PLACES[address]


def test_an_address_that_a_rule_names_may_be_told(tmp_path: Path) -> None:
    """Private and metadata addresses where a rule is for them; loopback where a rule is for this host."""
    rules = (
        "{name: private, to: {address: [10.0.0.0/24]}, action: allow}",
        "{name: metadata, to: {address: [169.254.169.254/32]}, action: allow}",
        LOCAL,
    )
    chosen = policies(tmp_path, *rules)
    for address in ("10.0.0.1", "169.254.169.254", "127.0.0.1"):
        found = ip_address(address)
        assert judge_address(chosen, AGENT, found, lookup(found), "db.example").action is Action.ALLOW


def test_an_address_is_judged_with_the_name_it_is_asked_by(tmp_path: Path) -> None:
    """A rule for other hosts does not let it be told; a deny for this one does not either."""
    address, place = ip_address("8.8.8.8"), lookup(ip_address("8.8.8.8"))
    chosen = policies(tmp_path, DENY_EVIL_US, ALLOW_API)
    assert judge_address(chosen, AGENT, address, place, "api.example").action is Action.ALLOW
    assert judge_address(chosen, AGENT, address, place, "evil.example").rule == "evil-us"
    assert judge_address(chosen, AGENT, address, place, "db.example").reason is Reason.NO_RULE


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)))
def test_reverse_names_are_read_as_they_are_written(address: object) -> None:
    """Both ways, for every address; IPv4-mapped ones are unmapped."""
    found = ip_address(str(address))
    mapped = getattr(found, "ipv4_mapped", None)
    assert reverse_address(found.reverse_pointer) == (mapped or found)
    assert is_reverse(found.reverse_pointer)


@pytest.mark.parametrize(
    "name",
    ["3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.0.0.1.in-addr.arpa", "a.b.c.d.in-addr.arpa", "1.ip6.arpa",
     "01.0.0.127.in-addr.arpa", ".".join(["g"] * 32) + ".ip6.arpa", ".".join(["10"] * 32) + ".ip6.arpa", "db.example"],
)  # fmt: skip
def test_other_names_stand_for_no_address(name: str) -> None:
    """Networks, numbers that are none, and everything else."""
    assert reverse_address(name) is None


ALLOW_DB = textwrap.dedent(
    "{name: db, to: {region: [DE], host: [db.example], protocol: [postgres]}, action: allow, mask: {response: [iban]}}"
)
ALLOW_CRM = "{name: crm, to: {region: [DE], host: [crm.example]}, action: allow, record: durable}"


def test_told_names_help_rules_for_hosts(tmp_path: Path) -> None:
    """A protocol that names no host is judged by the name its address was told for, in addition to its region."""
    chosen = policies(tmp_path, ALLOW_DB)
    there, elsewhere = flow("3.120.0.1"), flow("8.8.8.8")
    assert decide_told(chosen, there, "postgres", {}, ()).action is Action.DENY
    verdict = decide_told(chosen, there, "postgres", {}, ("db.example",))
    assert (verdict.action, verdict.rule) == (Action.ALLOW, "db")
    assert "told this address for db.example" in verdict.detail
    assert decide_told(chosen, elsewhere, "postgres", {}, ("db.example",)).action is Action.DENY


def test_what_the_client_names_itself_counts_alone(tmp_path: Path) -> None:
    """Memory never replaces what is in the protocol."""
    chosen = policies(tmp_path, ALLOW_DB)
    facts = {"host": "other.example"}
    there = flow("3.120.0.1")
    assert decide_told(chosen, there, "postgres", facts, ("db.example",)) == decide(chosen, there, "postgres", facts)


def test_an_allow_has_to_hold_for_every_name_and_a_deny_for_one(tmp_path: Path) -> None:
    """An address told for two names: both must be allowed, and then the masks and the care of both apply."""
    there = flow("3.120.0.1")
    two = ("db.example", "crm.example")
    assert decide_told(policies(tmp_path, ALLOW_DB), there, "postgres", {}, two).action is Action.DENY
    both = decide_told(policies(tmp_path, ALLOW_DB, ALLOW_CRM), there, "postgres", {}, two)
    assert (both.action, both.durable, both.mask.detectors) == (Action.ALLOW, True, ("iban",))
    denied = policies(tmp_path, "{name: no, to: {host: [crm.example]}, action: deny}", ALLOW_DE)
    assert decide_told(denied, there, "postgres", {}, two).rule == "no"
    assert decide_told(denied, there, "postgres", {}, ("db.example",)).rule == "home"


def test_the_name_in_a_client_hello_has_to_lead_to_the_address(tmp_path: Path) -> None:
    """Nothing else of the connection is ever seen: a name allows only where the executor was told this address for it,
    and denies in any case. Rules without hosts do not ask."""
    named = "{name: api, to: {region: [DE], host: [api.example], protocol: [tls]}, action: allow}"
    anybody = "{name: any, to: {region: [DE], protocol: [tls]}, action: allow}"
    evil = "{name: evil, to: {host: [evil.example]}, action: deny}"
    there, api = flow("3.120.0.1", 443), {"host": "api.example"}
    chosen = policies(tmp_path, evil, named)
    assert decide_told(chosen, there, "tls", api, ("api.example", "other.example")).rule == "api"
    for told in ((), ("other.example",)):
        verdict = decide_told(chosen, there, "tls", api, told)
        assert verdict.action is Action.DENY
        assert "the name api.example did not lead to this address" in verdict.detail
        assert decide_told(policies(tmp_path, evil, anybody), there, "tls", api, told).rule == "any"
        assert (
            decide_told(policies(tmp_path, evil, anybody), there, "tls", {"host": "evil.example"}, told).rule == "evil"
        )
    # Without a name in the hello, or with one that may hide another, what was told is all there is.
    assert decide_told(chosen, there, "tls", {}, ("api.example",)).rule == "api"
    assert decide_told(chosen, there, "tls", {"ech": "yes"}, ("api.example", "other.example")).action is Action.DENY
    # HTTP is read: its host needs no proof beside its region.
    http = "{name: web, to: {region: [DE], host: [api.example], protocol: [http]}, action: allow}"
    assert decide_told(policies(tmp_path, http), there, "http", api, ()).rule == "web"
