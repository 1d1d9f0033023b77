"""The shipped packs, and the expectations that files carry."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.policy.engine import decide
from enforcer.policy.expectations import run_expectations
from enforcer.policy.loader import load_policies, read_policy
from enforcer.verdict import Action

from .policy_world import VOCABULARY, flow, lookup, write_policy

PACKS = sorted((Path(__file__).parents[2] / "policies").glob("*.yaml"))


def test_all_packs_are_here() -> None:
    """The packs that the documentation names are shipped."""
    assert {"eu-only", "eu-adequacy", "us-only", "llm-apis", "llm-pseudonyms", "databases-read-only", "observe"} <= {
        path.stem for path in PACKS
    }


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.stem)
def test_a_pack_is_valid_and_holds_what_it_promises(path: Path) -> None:
    """Every shipped policy parses, describes itself, and answers its own expectations."""
    source = read_policy(path, VOCABULARY)
    assert source.file.description
    assert source.file.expect
    assert run_expectations(source, lookup) == []


@pytest.mark.parametrize("path", PACKS, ids=lambda path: path.stem)
def test_no_pack_allows_the_unread_or_the_unknown(path: Path) -> None:
    """No shipped policy allows traffic that cannot be read, or a destination without a region."""
    policies = load_policies([path], VOCABULARY)
    for address in ("3.120.0.1", "8.8.8.8", "13.112.0.1"):
        for unread in ("tls", "opaque"):
            assert decide(policies, flow(address), unread, {}).action is Action.DENY
    for address in ("100.200.0.1", "10.0.0.1", "192.0.2.1"):
        assert decide(policies, flow(address), "http", {}).action is Action.DENY


def test_observe_alone_lets_pass_what_it_denies() -> None:
    """The observe pack records a denial and lets the flow pass; the metadata service stays closed."""
    policies = load_policies([path for path in PACKS if path.stem == "observe"], VOCABULARY)
    assert decide(policies, flow("8.8.8.8"), "opaque", {}).passes
    assert not decide(policies, flow("169.254.169.254"), "http", {}).passes


def test_an_expectation_may_ask_for_an_attached_cgroup(tmp_path: Path) -> None:
    """`cgroup` says in which attached tree the asking executor runs."""
    text = """\
policy: test
applies_to: [{cgroup: system.slice/agent-*.service}]
rules:
  - {name: web, to: {region: [DE], port: [443]}, action: allow, path: direct}
expect:
  - {to: "3.120.0.1:443", cgroup: system.slice/agent-1.service, is: allow, rule: web}
  - {to: "3.120.0.1:443", cgroup: system.slice/other.service, is: deny}
  - {to: "3.120.0.1:443", is: allow}
"""
    path = write_policy(tmp_path, text)
    (failure,) = run_expectations(read_policy(path, VOCABULARY), lookup)
    assert failure.startswith(f"{path}:8: expect[2]: 3.120.0.1:443 (DE) opaque is deny by no rule matched, not allow;")


def test_failed_expectations_name_line_answer_and_wish(tmp_path: Path) -> None:
    """An expectation that does not hold says what came out; one for another rule or executor is judged as written."""
    text = """\
policy: test
applies_to: [{executor: "ci-*"}]
rules:
  - {name: web, to: {region: [DE], host: [a.example]}, action: allow}
expect:
  - {to: "3.120.0.1:443", protocol: http, host: a.example, executor: ci-1, is: allow, rule: web}
  - {to: "3.120.0.1:443", protocol: http, host: a.example, is: allow}
  - {to: "3.120.0.1:443", protocol: http, executor: ci-1, is: allow, rule: web}
  - {to: "3.120.0.1:443", protocol: http, host: a.example, executor: ci-1, is: deny}
"""
    path = write_policy(tmp_path, text)
    assert run_expectations(read_policy(path, VOCABULARY), lookup) == [
        f"{path}:7: expect[1]: 3.120.0.1:443 (DE) http is deny by no rule matched, not allow;"
        " correct the rules or the expectation",
        f"{path}:8: expect[2]: 3.120.0.1:443 (DE) http is deny by no rule matched, not allow by rule web;"
        " correct the rules or the expectation",
        f"{path}:9: expect[3]: 3.120.0.1:443 (DE) http is allow by rule web, not deny;"
        " correct the rules or the expectation",
    ]
