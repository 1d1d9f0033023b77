"""`enforcer explain --name`: what the resolver would say to a name, and by which rule."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from enforcer.cli.explain_cmd import explain
from enforcer.errors import UsageError
from tests.cli.policy_context import SmallContext, run

RULES = """
policy: names
rules:
  - {name: evil, to: {host: ["*.evil.example"]}, action: deny}
  - {name: api, to: {region: [US], host: [api.example]}, action: allow}
  - {name: home, to: {region: [DE], protocol: [postgres], host: [db.example]}, action: allow}
"""


@pytest.fixture
def context(tmp_path: Path) -> SmallContext:
    context = SmallContext(tmp_path, ("names",))
    context.install("names", RULES)
    return context


def test_every_rule_tried_is_shown(context: SmallContext) -> None:
    """With what differs, up to the one that decides."""
    lines = run(explain, context, "--name", "DB.example.").stdout.splitlines()
    assert lines[0] == "name         db.example"
    assert lines[4:7] == [
        "  names/evil  deny   no: name 'db.example' is not among its hosts",
        "  names/api   allow  no: name 'db.example' is not among its hosts",
        "  names/home  allow  MATCH",
    ]
    assert lines[-2:] == ["verdict: allow, rule names/home", "its addresses are judged when they are dialled"]


def test_json_says_the_same(context: SmallContext) -> None:
    """For programs, a denial by a rule and one because nothing matched."""
    denied = json.loads(run(explain, context, "--name", "x.evil.example", "--json").stdout)
    assert (denied["name"], denied["verdict"]["action"], denied["verdict"]["rule"]) == (
        "x.evil.example",
        "deny",
        "evil",
    )
    nothing = json.loads(run(explain, context, "--name", "other.example", "--json").stdout)
    assert (nothing["verdict"]["reason"], len(nothing["trials"])) == ("no rule matched", 3)


def test_a_reverse_name_is_judged_by_its_address(context: SmallContext) -> None:
    """As the resolver does."""
    text = run(explain, context, "--name", "10.0.0.52.in-addr.arpa").stdout
    assert text.splitlines()[-1].startswith("verdict: deny")


@pytest.mark.parametrize(
    "arguments", [(), ("3.120.0.1", "--name", "db.example"), ("--name", "*.example"), ("--name", "3.120.0.1")]
)
def test_what_is_no_single_question_is_refused(context: SmallContext, arguments: tuple[str, ...]) -> None:
    """Neither, both, a pattern, an address: one line that says what to write."""
    error = run(explain, context, *arguments).exception
    assert isinstance(error, UsageError)
    assert "; " in str(error) or str(error).startswith("give DEST or --name")
