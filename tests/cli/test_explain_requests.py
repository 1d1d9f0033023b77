"""`enforcer explain` of requests, for rules with `only`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from enforcer.cli.explain_cmd import explain
from enforcer.errors import UsageError

from .policy_context import SmallContext, run, run_json

POLICY = """\
policy: web
rules:
  - name: api
    to: {region: [DE], protocol: [http]}
    action: allow
    only: {method: [GET, POST], path: ["/v1/{id}"], header: {x-team: ["a*"]}, model: ["gpt-*"]}
    mask: {request: [email], response: [iban]}
"""
DEST = "3.120.0.1:443"


@pytest.fixture
def context(tmp_path: Path) -> SmallContext:
    context = SmallContext(tmp_path, ("web",))
    context.install("web", POLICY)
    return context


def test_a_request_that_misses_the_clause_is_told_why(context: SmallContext) -> None:
    """The rule matches, the verdict says what does not hold, and a line says all that is asked."""
    question = (DEST, "--host", "a.example", "--method", "POST", "--path", "/v1/7?x=1", "--header", "X-Team: b")
    lines = run(explain, context, *question, "--fact", "model=gpt-4o").stdout.splitlines()
    assert lines[5:9] == [
        "protocol     http",
        "host         a.example",
        "request      POST /v1/7?x=1",
        "facts        header X-Team, model gpt-4o",
    ]
    assert lines[-4:] == [
        "  web/api  allow  MATCH, and not its only: header field x-team is not in a*",
        "",
        "verdict: deny, rule web/api, by its only: header field x-team is not in a*",
        "only: method GET, POST; path /v1/{id}; header x-team a*; model gpt-*",
    ]


def test_a_request_that_fits_is_allowed_with_its_masks(context: SmallContext) -> None:
    """The masks of both directions are part of the verdict, in text and JSON."""
    question = (DEST, "--method", "GET", "--path", "/v1/7", "--header", "x-team:a", "--fact", "model=gpt-4o")
    assert (
        "verdict: allow, rule web/api, masks iban, masks email in requests\n" in run(explain, context, *question).stdout
    )
    answer: Any = run_json(explain, context, *question)
    assert (answer["verdict"]["masks"], answer["verdict"]["request_masks"]) == (["iban"], ["email"])
    assert (answer["protocol"], answer["protocol_assumed"], answer["request"]) == ("http", False, "GET /v1/7")
    assert answer["facts"] == {"method": "GET", "path": "/v1/7", "model": "gpt-4o"}
    assert answer["only"] == ["method GET, POST", "path /v1/{id}", "header x-team a*", "model gpt-*"]


def test_without_a_request_the_clause_is_missed_and_told(context: SmallContext) -> None:
    """A destination alone is not enough for a rule with `only`: what is missing is said."""
    output = run(explain, context, DEST).stdout
    assert "with --protocol http: deny, rule web/api, by its only: no method is known\n" in output
    answer: Any = run_json(explain, context, DEST, "--protocol", "http")
    assert answer["verdict"]["reason"] == "the rule's only clause"


@pytest.mark.parametrize(
    ("option", "fault"),
    [
        (("--path", "v1"), "'v1' is not a path; begin it with '/'"),
        (("--header", "x-team"), "'x-team' is not a header field; write NAME:VALUE"),
        (
            ("--fact", "models=a"),
            "'models=a' is not a fact; write NAME=VALUE, NAME one of grpc, graphql, rpc, tool, model",
        ),
        (("--fact", "model"), "'model' is not a fact;"),
    ],
)
def test_a_description_that_cannot_be_is_refused(context: SmallContext, option: tuple[str, str], fault: str) -> None:
    """What is no path, field or fact is one clear error."""
    error = run(explain, context, DEST, *option).exception
    assert isinstance(error, UsageError)
    assert str(error).startswith(fault)
