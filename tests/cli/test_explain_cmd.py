"""`enforcer explain`."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.cli.explain_cmd import explain
from enforcer.errors import UsageError
from enforcer.protocols.registry import NAMES

from .policy_context import SmallContext, run, run_json


@pytest.fixture
def context(tmp_path: Path) -> SmallContext:
    context = SmallContext(tmp_path, ("eu-only",))
    context.install("eu-only")
    return context


def test_a_denial_is_explained_rule_by_rule(context: SmallContext) -> None:
    """The answer reads from the facts over the rules to the verdict."""
    lines = run(explain, context, "8.8.8.8:5432", "--protocol", "postgres").stdout.splitlines()
    generation = context.policies().generation
    assert lines == [
        "destination  8.8.8.8:5432",
        "region       US (country)",
        "prefix       8.8.8.0/24",
        "source       test table 1",
        "executor     any",
        "protocol     postgres",
        "",
        f"rules tried, first match wins (policy generation {generation}):",
        "  eu-only/eea-databases   allow  no: region US is not in EEA",
        "  eu-only/eea-http        allow  no: region US is not in EEA",
        "  eu-only/eea-unreadable  deny   no: region US is not in EEA",
        "  eu-only/outside-eea     deny   MATCH",
        "",
        "verdict: deny, rule eu-only/outside-eea",
    ]


def test_an_allow_says_what_comes_with_it(context: SmallContext) -> None:
    """Masks and durable recording are part of the verdict."""
    output = run(explain, context, "3.120.0.1:5432", "--protocol", "postgres").stdout
    assert output.endswith(
        "verdict: allow, rule eu-only/eea-databases, masks credit_card, iban, email, us_ssn,"
        " recorded before it is sent\n"
    )


def test_what_is_assumed_is_said(context: SmallContext) -> None:
    """Without port and protocol, 443 and opaque are assumed aloud, and the other protocols' verdicts are given."""
    lines = run(explain, context, "2a05:d014::1").stdout.splitlines()
    assert lines[0] == "destination  [2a05:d014::1]:443 (port assumed)"
    assert "protocol     opaque (assumed)" in lines
    others = lines[lines.index("verdict: deny, rule eu-only/eea-unreadable") + 1 :]
    assert {
        "with --protocol http: allow, rule eu-only/eea-http, masks credit_card, iban, email, us_ssn",
        "with --protocol postgres: allow, rule eu-only/eea-databases, masks credit_card, iban, email, us_ssn,"
        " recorded before it is sent",
        "with --protocol tls: deny, rule eu-only/outside-eea",
    } <= set(others)
    assert len(others) == len(NAMES) - 1


def test_a_statement_is_explained(tmp_path: Path) -> None:
    """It is read as one that is sent: the answer says what it does, and what does not fit."""
    context = SmallContext(tmp_path, ("sql",))
    context.install(
        "sql",
        "policy: sql\nrules:\n  - {name: reads, to: {region: [US], protocol: [postgres]}, action: allow,"
        " only: {operation: [read], table: [a], user: [app]}}\n",
    )
    question = ("8.8.8.8:5432", "--protocol", "postgres", "--fact", "user=app", "--fact")
    denied = run(explain, context, *question, "statement=DELETE FROM a").stdout
    assert "verdict: deny, rule sql/reads, by its only: operation write is not in read" in denied
    assert "operation write, table a, column a.*" in denied
    allowed = run(explain, context, *question, "statement=SELECT b FROM a").stdout
    assert "verdict: allow, rule sql/reads" in allowed


def test_executor_user_and_host_take_part(tmp_path: Path) -> None:
    """Policies that apply to others are named as such; the host is matched as a client would name it."""
    context = SmallContext(tmp_path, ("web",))
    context.install(
        "web",
        'policy: web\napplies_to: [{executor: "ci-*"}, {user: agent}]\nrules:\n'
        "  - {name: api, to: {region: [US], host: [api.example]}, action: allow}\n",
    )
    question = ("8.8.8.8:80", "--protocol", "http", "--host", "API.example")
    other = run(explain, context, *question).stdout
    assert "  web         no: applies to executor ci-*, user agent, not to executor any\n" in other
    assert other.endswith("verdict: deny, no rule matched (no enabled policy applies to executor any)\n")
    for who in (("--executor", "ci-1"), ("--user", "agent")):
        assert run(explain, context, *question, *who).stdout.endswith("verdict: allow, rule web/api\n")


def test_an_attached_cgroup_takes_part(tmp_path: Path) -> None:
    """A policy for a cgroup applies to what runs in it, written as /proc/PID/cgroup has it or as a policy has it."""
    context = SmallContext(tmp_path, ("web",))
    context.install(
        "web",
        "policy: web\napplies_to: [{unit: agent.service}]\n"
        "rules:\n  - {name: api, to: {region: [US]}, action: allow}\n",
    )
    question = ("8.8.8.8:80", "--protocol", "http")
    assert (
        "applies to cgroup system.slice/agent.service, not to executor any\n" in run(explain, context, *question).stdout
    )
    for cgroup in ("/system.slice/agent.service", "system.slice/agent.service/worker"):
        output = run(explain, context, *question, "--cgroup", cgroup).stdout
        assert f"executor     any, cgroup {cgroup.removeprefix('/')}\n" in output
        assert output.endswith("verdict: allow, rule web/api\n")
    assert run_json(explain, context, *question, "--cgroup", "a/b")["cgroup"] == "a/b"


def test_the_path_of_a_direct_rule_is_said(tmp_path: Path) -> None:
    """Direct for an attached executor; by the proxy for an isolated one, and where an earlier rule may match."""
    context = SmallContext(tmp_path, ("tls",))
    context.install(
        "tls",
        "policy: tls\nrules:\n"
        "  - {name: web, to: {region: [DE], port: [80], protocol: [http]}, action: allow}\n"
        "  - {name: rest, to: {region: [DE], port: [80, 443]}, action: allow, path: direct}\n",
    )
    attached = ("--cgroup", "a/b", "--protocol", "opaque")
    for question, path in (
        (("3.120.0.1:443", *attached), "direct: decided in the kernel, neither read nor masked"),
        (("3.120.0.1:80", *attached), "proxy: rule tls/web may match first"),
        (
            ("3.120.0.1:443", "--protocol", "opaque"),
            "proxy: an isolated executor has no route of its own; relayed unread",
        ),
    ):
        output = run(explain, context, *question).stdout
        assert output.endswith(f"\nverdict: allow, rule tls/rest\npath: {path}\n")
    assert "path: " not in run(explain, context, "3.120.0.1:80", "--protocol", "http").stdout
    answer = run_json(explain, context, "3.120.0.1:443", *attached)
    assert (answer["path"], answer["path_detail"], answer["verdict"]["direct"]) == ("direct", "", True)
    assert run_json(explain, context, "8.8.8.8:443", *attached)["path"] == "proxy"


def test_the_hosts_own_services_are_explained(tmp_path: Path) -> None:
    """Loopback is reached by a rule for HOST only, and each other rule says so."""
    context = SmallContext(tmp_path, ("own",))
    context.install(
        "own",
        'policy: own\nrules:\n  - {name: all, to: {region: ["*"]}, action: allow}\n'
        "  - {name: db, to: {region: [HOST], port: [5432]}, action: allow}\n",
    )
    lines = run(explain, context, "127.0.0.1:5432", "--protocol", "postgres").stdout.splitlines()
    assert "  own/all  allow  no: 127.0.0.1 is loopback, which only a rule for region HOST reaches" in lines
    assert lines[-1] == "verdict: allow, rule own/db"


def test_observe_mode_and_no_policy_are_said(tmp_path: Path) -> None:
    """A denial that passes says so; without policies the answer says that everything is denied."""
    context = SmallContext(tmp_path, ("observe",))
    context.install("observe")
    output = run(explain, context, "8.8.8.8:80", "--protocol", "http").stdout
    assert output.endswith("verdict: deny, rule observe/everything, but passes: the policy only observes\n")
    assert "no policy is enabled: every flow is denied\n" in run(explain, SmallContext(tmp_path), "8.8.8.8").stdout


def test_as_json(context: SmallContext) -> None:
    """--json carries the facts, the trials and the verdict."""
    answer = run_json(explain, context, "8.8.8.8:80", "--protocol", "http", "--host", "a.example")
    assert (answer["destination"], answer["regions"], answer["prefix"]) == ("8.8.8.8:80", ["US"], "8.8.8.0/24")
    assert answer["trials"][0] == {
        "policy": "eu-only",
        "rule": "eea-databases",
        "action": "allow",
        "difference": "region US is not in EEA",
    }
    verdict = answer["verdict"]
    assert (verdict["action"], verdict["reason"], verdict["rule"]) == ("deny", "rule", "outside-eea")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["db.example.org:5432"], "names are not resolved here"),
        (["db.example.org"], "names are not resolved here"),
        (["8.8.8.8:0"], "ports go from 1 to 65535"),
        (["[::1"], "is not an address"),
        (["8.8.8.8", "--cgroup", "a/*"], "is not one cgroup; write its path without '*'"),
        (["8.8.8.8", "--protocol", "ftp"], "unknown protocol 'ftp'; known are http, "),
        (["8.8.8.8", "--fact", "statement=SELECT 1"], "statements are of one protocol; say which with --protocol"),
    ],
)
def test_bad_questions_are_refused(context: SmallContext, arguments: list[str], message: str) -> None:
    """A name, a bad port or an unknown protocol is one line with the mend, and exit code 2."""
    error = run(explain, context, *arguments).exception
    assert isinstance(error, UsageError)
    assert error.exit_code == 2
    assert message in str(error)
    assert "\n" not in str(error)
