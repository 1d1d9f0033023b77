"""`only`: what a rule asks of each exchange it allows. What does not hold is denied by that rule; doubt closes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.compiled import PolicySet
from enforcer.policy.described import Described, described
from enforcer.policy.engine import decide, match, may_pass, reads_bodies
from enforcer.policy.expectations import run_expectations
from enforcer.policy.explain import explain
from enforcer.policy.loader import load_policies, read_policy
from enforcer.policy.names import match_told
from enforcer.policy.only import Only, first_difference
from enforcer.policy.only_http import PARTS
from enforcer.policy.paths import template_matches
from enforcer.policy.words import glob_matches
from enforcer.protocols.base import Request
from enforcer.protocols.target import Ambiguous, plain_path
from enforcer.verdict import Action, Reason

from .policy_world import VOCABULARY, flow, load, lookup, write_policy

TO = "to: {region: [DE], protocol: [http]}, action: allow"


def rules(tmp_path: Path, only: str, *, more: str = "", head: str = "") -> PolicySet:
    return load(tmp_path, f"name: a, {TO}, only: {only}{more}", head=head)


def request(
    method: str = "GET",
    target: str = "/",
    *fields: tuple[bytes, bytes],
    bodiless: bool = False,
    **facts: str,
) -> Request:
    """A request as an inspector of HTTP hands it on."""
    told = {"host": "a.example", "method": method, "path": target.partition("?")[0], **facts}
    return Request(1, method, f"{method} {target}", b"", facts=told, fields=fields, bodiless=bodiless)


def difference(only: Only, asked: Request | Described) -> str | None:
    return first_difference(only, asked)


# --- each condition


@pytest.mark.parametrize(
    ("only", "asked", "expected"),
    [
        (Only(method=("GET", "HEAD")), request("HEAD"), None),
        (Only(method=("GET", "HEAD")), request("DELETE"), "method DELETE is not in GET, HEAD"),
        (Only(method=("GET",)), request("get"), "method get is not in GET"),
        (Only(method=("GET",)), Described(), "no method is known"),
        (Only(path=("/v1/users/{id}",)), request(target="/v1/users/7?x=/y"), None),
        (Only(path=("/v1/users/{id}",)), request(target="/v1/users/%37"), None),
        (Only(path=("/v1/users/{id}",)), request(target="/v1/users/7/keys"), "the path is not in /v1/users/{id}"),
        (Only(path=("/v1/users/{id}",)), request(target="/v1/users/"), "the path is not in /v1/users/{id}"),
        (
            Only(path=("/v1/**",)),
            request(target="/v1/../admin"),
            "the path may be read in two ways: a dot segment",
        ),
        (Only(path=("/**",)), request(target="*"), "the path may be read in two ways: it does not begin with a slash"),
        (Only(path=("/**",)), Described(), "no path is known"),
        (Only(header=(("x-team", ("data-*",)),)), request("GET", "/", (b"X-Team", b" data-eu ")), None),
        (Only(header=(("x-team", ("data-*",)),)), request(), "there is no header field x-team"),
        (
            Only(header=(("x-team", ("data-*",)),)),
            request("GET", "/", (b"x-team", b"data-eu"), (b"X-TEAM", b"sales")),
            "header field x-team is not in data-*",
        ),
        (
            Only(header=(("x-team", ("data-*",)),)),
            request("GET", "/", (b"x-team", b"data-eu"), (b"X_Team", b"sales")),
            "header field x-team is not in data-*",
        ),
        (
            Only(content_type=("application/*",)),
            request("POST", "/", (b"Content-Type", b"Application/JSON; a=b")),
            None,
        ),
        (
            Only(content_type=("application/json",)),
            request("POST", "/", (b"content-type", b"text/plain")),
            "content type text/plain is not in application/json",
        ),
        (Only(content_type=("application/json",)), request("POST"), "there is no content type"),
        (Only(content_type=("application/json",)), request("POST", bodiless=True), None),
        (
            Only(content_type=("application/*",)),
            request("POST", "/", (b"content-type", b"application/json, text/html")),
            "the content type may be read in two ways",
        ),
        (
            Only(content_type=("application/json",)),
            request("POST", "/", (b"content-type", b"application/json"), (b"content-type", b"text/html")),
            "content type text/html is not in application/json",
        ),
        (
            Only(grpc=("shop.Orders/*",)),
            request("POST", "/shop.Orders/List", (b"content-type", b"application/grpc")),
            None,
        ),
        (
            Only(grpc=("shop.*/Get*",)),
            request("POST", "/shop.Orders/List", (b"content-type", b"application/grpc+proto")),
            "gRPC method shop.Orders/List is not in shop.*/Get*",
        ),
        (Only(grpc=("*/*",)), request("POST", "/a.B/C", (b"content-type", b"application/json")), "it is not gRPC"),
        (
            Only(grpc=("*/*",)),
            request("POST", "/a.B/C/D", (b"content-type", b"application/grpc-web")),
            "no gRPC method is known",
        ),
        (Only(graphql_type=("query",)), request(graphql="query, query Me"), None),
        (Only(graphql_type=("query",)), request(graphql="mutation M, query"), "GraphQL mutation is not in query"),
        (Only(graphql_name=("Get*",)), request(graphql="query GetMe"), None),
        (Only(graphql_name=("Get*",)), request(graphql="query"), "a GraphQL operation has no name"),
        (Only(graphql_name=("Get*",)), request(graphql="query Me"), "GraphQL operation Me is not in Get*"),
        (Only(graphql_type=("query",)), request(), "no GraphQL operation is known"),
        (Only(rpc=("tools/*",)), request("POST", rpc="tools/call, tools/list"), None),
        (
            Only(rpc=("tools/list",)),
            request("POST", rpc="tools/call, tools/list"),
            "JSON-RPC method tools/call is not in tools/list",
        ),
        (Only(rpc=("*",)), request("POST"), "no JSON-RPC method is known"),
        (Only(rpc=("tools/*",)), request("GET", bodiless=True), None),
        (Only(rpc=("tools/*",)), request("DELETE", bodiless=True), None),
        (Only(rpc=("tools/*",)), request("POST", bodiless=True), "no JSON-RPC method is known"),
        (Only(rpc=("tools/*",)), request("GET"), "no JSON-RPC method is known"),
        (Only(rpc=("tools/*",)), request("GET", "/?METHOD=evil", bodiless=True), "no JSON-RPC method is known"),
        (Only(rpc=("tools/*",)), request("GET", "/?%zz", bodiless=True), "no JSON-RPC method is known"),
        (Only(tool=("search_*",)), request("POST", rpc="tools/call", tool="search_web"), None),
        (Only(tool=("search_*",)), request("POST", rpc="tools/list"), None),
        (
            Only(tool=("search_*",)),
            request("POST", rpc="tools/call", tool="exec, search_web"),
            "tool exec is not in search_*",
        ),
        (Only(tool=("search_*",)), request("POST", rpc="tools/call"), "no tool is known"),
        (Only(tool=("search_*",)), request("POST"), "no JSON-RPC method is known"),
        (Only(model=("gpt-4o*",)), request("POST", model="gpt-4o-mini"), None),
        (Only(model=("gpt-4o*",)), request("POST", model="gpt-4o, o1"), "model o1 is not in gpt-4o*"),
        (Only(model=("*",)), request("POST"), "no model is known"),
        (
            Only(model=("*",)),
            request("POST", model="gpt-4o", body="ambiguous: it is not JSON"),
            "the body is ambiguous: it is not JSON",
        ),
    ],
)
def test_a_condition_holds_or_says_why_not(only: Only, asked: Request | Described, expected: str | None) -> None:
    """Each kind of condition, met and missed; what is missing, ambiguous or twice with another value is missed."""
    assert difference(only, asked) == expected


def test_what_does_not_fit_is_told_in_one_bounded_line() -> None:
    """Whatever the client wrote, a difference is short and printable; paths and values of fields are not quoted."""
    long = difference(Only(model=("a",)), request(model="x" * 200))
    assert long is not None
    assert len(long) < 120
    secret = request("GET", "/4111111111111111", (b"authorization", b"Bearer secret"))
    for only in (Only(path=("/a",)), Only(header=(("authorization", ("no",)),))):
        words = difference(only, secret)
        assert words is not None
        assert "4111" not in words
        assert "secret" not in words
    odd = difference(Only(method=("GET",)), request("\x1b[31m\n"))
    assert odd == "method \\x1b[31m\\n is not in GET"


@pytest.mark.parametrize(
    ("template", "path", "fits"),
    [
        ("/", "/", True),
        ("/**", "/", True),
        ("/**", "/a/b", True),
        ("/v1/**", "/v1/", True),
        ("/v1/**", "/v1/a/b/", True),
        ("/v1/**", "/v1", False),
        ("/v1/**", "/v10/a", False),
        ("/v1/*", "/v1/a", True),
        ("/v1/*", "/v1/", False),
        ("/v1/*", "/v1/a/b", False),
        ("/v1/a*c", "/v1/ac", True),
        ("/v1/a*c", "/v1/a-b-c", True),
        ("/v1/a*c", "/v1/abcd", False),
        ("/*/x", "/y/x", True),
        ("/{a}/{b}", "/1/2", True),
        ("/{a}/{b}", "/1", False),
        ("/a.b", "/aXb", False),
        ("/a", "/A", False),
    ],
)
def test_templates(template: str, path: str, fits: bool) -> None:
    """Braces and a star are one segment and not an empty one; `/**` is what is below; case counts."""
    assert template_matches(template, path) is fits


@pytest.mark.parametrize(
    ("glob", "text", "fits"),
    [
        ("*", "", True),
        ("a*", "a", True),
        ("a*a", "a", False),
        ("a*b*c", "a-b-b-c", True),
        ("a*b*c", "acb", False),
        ("**", "x", True),
        ("a?[b]", "a?[b]", True),
        ("a?", "ab", False),
    ],
)
def test_globs(glob: str, text: str, fits: bool) -> None:
    """A star is any text; nothing else is special."""
    assert glob_matches(glob, text) is fits


def test_a_glob_cannot_be_made_slow() -> None:
    """Many stars against a long text take no time to speak of: matching is linear."""
    assert not glob_matches("*a" * 200 + "b", "a" * 60_000)


@given(
    st.lists(st.sampled_from(["v1", "admin", ".", "..", "%2e%2e", "%2F", "\\", ";x", "", "a"]), max_size=6),
    st.sampled_from(["/v1/**", "/v1/{id}", "/v1/*"]),
)
def test_no_path_below_a_template_leads_elsewhere(parts: list[str], template: str) -> None:
    """What a template of `/v1` lets through has no segment that any server takes for a way out of it."""
    target = "/" + "/".join(parts)
    asked = request(target=target)
    if first_difference(Only(path=(template,)), asked) is None:
        assert plain_path(target).startswith("/v1/")
        assert not {".", "..", "%2e%2e", "%2F", "\\", ";x"} & set(parts)
    else:
        try:
            assert not template_matches(template, plain_path(target))
        except Ambiguous:
            return


# --- the verdict


def test_a_clause_that_does_not_hold_denies_by_its_rule(tmp_path: Path) -> None:
    """No later rule is tried: the rule that matches decides, and says in which clause and why."""
    policies = load(tmp_path, f"name: a, {TO}, only: {{method: [GET]}}", "name: b, to: {region: [DE]}, action: allow")
    matched = match(policies, flow(), "http", {})
    allowed, denied = matched.on(request("GET")), matched.on(request("DELETE"))
    assert (allowed.action, allowed.reason, allowed.rule) == (Action.ALLOW, Reason.RULE, "a")
    assert (denied.action, denied.reason, denied.policy, denied.rule) == (Action.DENY, Reason.CLAUSE, "test", "a")
    assert denied.detail == "method DELETE is not in GET"
    assert Reason.CLAUSE.value == "the rule's only clause"
    assert match(policies, flow(), "postgres", {}).on(request()).rule == "b"


def test_all_conditions_of_a_clause_hold(tmp_path: Path) -> None:
    """Method and path and model: the first that does not is told."""
    policies = rules(tmp_path, '{method: [POST], path: [/v1/chat], model: ["gpt-*"]}')
    matched = match(policies, flow(), "http", {})
    for asked, detail in (
        (request("POST", "/v1/chat", model="gpt-4o"), ""),
        (request("GET", "/v1/x", model="o1"), "method GET is not in POST"),
        (request("POST", "/v1/x", model="o1"), "the path is not in /v1/chat"),
        (request("POST", "/v1/chat", model="o1"), "model o1 is not in gpt-*"),
        (request("POST", "/v1/chat"), "no model is known"),
    ):
        assert matched.on(asked).detail == detail


def test_decide_without_facts_is_closed(tmp_path: Path) -> None:
    """Who asks for a verdict and knows nothing of the request gets a denial."""
    assert decide(rules(tmp_path, "{method: [GET]}"), flow(), "http", {}).reason is Reason.CLAUSE


def test_an_observed_clause_records_and_lets_pass(tmp_path: Path) -> None:
    """In observe mode the clause's denial is recorded, and what passes is masked and durable as the rule says."""
    policies = rules(
        tmp_path,
        "{method: [GET]}",
        more=", mask: {response: [iban], request: [email]}, record: durable",
        head="mode: observe",
    )
    verdict = match(policies, flow(), "http", {}).on(request("PUT"))
    assert (verdict.action, verdict.reason, verdict.observed, verdict.passes) == (
        Action.DENY,
        Reason.CLAUSE,
        True,
        True,
    )
    assert verdict.durable
    assert (verdict.mask.detectors, verdict.request_mask.detectors) == (("iban",), ("email",))
    enforced = match(rules(tmp_path, "{method: [GET]}"), flow(), "http", {}).on(request("PUT"))
    assert not enforced.passes


def test_names_that_were_told_bring_all_their_clauses(tmp_path: Path) -> None:
    """A flow that may be for either of two names has to fulfil what both rules ask, masked as both say; an enforced
    denial comes before one that is only observed."""
    one = "to: {region: [DE], host: [a.example], protocol: [http]}, action: allow"
    two = "to: {region: [DE], host: [b.example], protocol: [http]}, action: allow"
    first = write_policy(
        tmp_path,
        "policy: one\nmode: observe\nrules:\n"
        f"  - {{name: a, {one}, only: {{method: [GET]}}, mask: {{request: [email]}}}}\n",
        "one",
    )
    second = write_policy(
        tmp_path,
        f"policy: two\nrules:\n  - {{name: b, {two}, only: {{path: [/x]}}, mask: {{request: [iban]}}}}\n",
        "two",
    )
    policies = load_policies([first, second], VOCABULARY)
    told = match_told(policies, flow(), "http", {}, ("a.example", "b.example"))
    assert told.on(request("GET", "/x")).action is Action.ALLOW
    assert told.on(request("GET", "/x")).request_mask.detectors == ("email", "iban")
    observed = told.on(request("PUT", "/x"))
    assert (observed.policy, observed.passes) == ("one", True)
    enforced = told.on(request("PUT", "/y"))
    assert (enforced.policy, enforced.rule, enforced.passes) == ("two", "b", False)
    assert told.on(request("GET", "/y")).rule == "b"


def test_an_observed_denial_for_one_name_does_not_drop_the_clause_of_another(tmp_path: Path) -> None:
    """Where a denial for one of the names is only observed, what the other name's rule asks is still enforced."""
    deny = "{name: a, to: {host: [a.example]}, action: deny}"
    first = write_policy(tmp_path, f"policy: one\nmode: observe\nrules:\n  - {deny}\n", "one")
    rule = "{name: b, to: {region: [DE], host: [b.example], protocol: [http]}, action: allow, only: {method: [GET]}}"
    second = write_policy(tmp_path, f"policy: two\nrules:\n  - {rule}\n", "two")
    told = match_told(load_policies([first, second], VOCABULARY), flow(), "http", {}, ("a.example", "b.example"))
    assert told.on(request("GET")).observed
    assert not told.on(request("PUT")).passes


def test_request_masks_reach_the_verdict(tmp_path: Path) -> None:
    """Either direction or both; what is not named is not masked."""
    policies = load(
        tmp_path,
        f"name: a, {TO}, mask: {{request: [email, {{json: $.ssn}}], response: [iban]}}",
    )
    verdict = decide(policies, flow(), "http", {})
    assert (verdict.mask.detectors, verdict.request_mask.detectors) == (("iban",), ("email",))
    assert [path.path for path in verdict.request_mask.json_paths] == ["$.ssn"]
    alone = decide(load(tmp_path, f"name: a, {TO}, mask: {{request: [email]}}"), flow(), "http", {})
    assert (bool(alone.mask), bool(alone.request_mask)) == (False, True)


def test_a_policy_with_clauses_survives_the_way_to_the_worker(tmp_path: Path) -> None:
    """Every part of a clause is in the JSON and in the generation."""
    only = (
        '{method: [GET], path: [/a/**], header: {x-a: [b], x-c: ["d*"]}, content_type: [a/b], grpc: [a.B/*],'
        " graphql: {type: [query], name: [Q]}, rpc: [r], tool: [t], model: [m]}"
    )
    policies = rules(tmp_path, only, more=", mask: {request: [email]}")
    assert PolicySet.from_json(policies.to_json()) == policies
    clause = policies.policies[0].rules[0].only
    assert clause is not None
    assert clause.to_plain().keys() == PARTS.keys()
    assert (
        rules(tmp_path, only.replace("[m]", "[n]"), more=", mask: {request: [email]}").generation != policies.generation
    )


# --- what follows before a request is read


def test_bodies_are_read_where_a_rule_that_may_come_asks(tmp_path: Path) -> None:
    """By region, address, port and executor, whatever protocol and host; a clause about heads alone reads none."""
    asking = rules(tmp_path, "{model: [a]}")
    assert reads_bodies(asking, flow())
    assert not reads_bodies(asking, flow("8.8.8.8"))
    assert not reads_bodies(rules(tmp_path, "{model: [a]}", head='applies_to: [{executor: "ci-*"}]'), flow())
    for only in ("{graphql: {type: [query]}}", "{graphql: {name: [a]}}", "{rpc: [a]}", "{tool: [a]}"):
        assert reads_bodies(rules(tmp_path, only), flow())
    assert not reads_bodies(rules(tmp_path, "{method: [GET], path: [/a], content_type: [a/b], grpc: [a/b]}"), flow())


def test_what_may_pass_does_not_ask_the_clauses(tmp_path: Path) -> None:
    """A server may be looked at where some request to the host could pass, and nowhere else."""
    policies = load(
        tmp_path,
        "name: a, to: {region: [DE], host: [a.example], protocol: [http]}, action: allow, only: {method: [GET]}",
        "name: rest, to: {region: ['*']}, action: deny",
    )
    assert may_pass(policies, flow(), "a.example")
    assert not may_pass(policies, flow(), "b.example")
    assert not may_pass(policies, flow(), None)
    assert not may_pass(policies, flow("8.8.8.8"), "a.example")
    assert not may_pass(policies, flow(), "a.example", "postgres")
    assert may_pass(load(tmp_path, DENY, head="mode: observe"), flow(), "a.example")


DENY = "name: rest, to: {region: ['*']}, action: deny"


# --- telling it


def test_explain_tells_the_match_and_the_clause(tmp_path: Path) -> None:
    """The rule's trial is a match, the verdict its clause's, and the clause is there to be printed."""
    policies = rules(tmp_path, "{method: [GET], header: {x-team: [a, b]}}")
    asked = described(host="a.example", method="PUT")
    explanation = explain(policies, flow(), "http", asked.facts, asked)
    assert [(trial.rule, trial.difference) for trial in explanation.trials] == [("a", "")]
    assert explanation.verdict.detail == "method PUT is not in GET"
    assert [clause.only.words() for clause in explanation.clauses] == [["method GET", "header x-team a, b"]]


def test_a_description_says_what_a_request_would() -> None:
    """Target, fields and facts are those that an inspector would hand on; a model in the path is found there."""
    asked = described(
        host="h", method="POST", path="/v1beta/models/gemini:x?a=b", header={"X-A": "1"}, stated={"model": "m"}
    )
    assert asked.facts == {"host": "h", "method": "POST", "path": "/v1beta/models/gemini:x", "model": "gemini, m"}
    assert (asked.text, asked.fields, asked.bodiless) == ("POST /v1beta/models/gemini:x?a=b", [(b"X-A", b"1")], False)
    grpc = described(grpc="a.B/C")
    assert (grpc.facts, grpc.fields) == ({"method": "POST", "path": "/a.B/C"}, [(b"content-type", b"application/grpc")])
    assert described(stated={"tool": "b,a"}).facts == {"rpc": "tools/call", "tool": "a, b"}
    assert described(method="GET").bodiless
    assert not described(method="GET", content_type="a/b").bodiless
    assert not described(method="POST").bodiless


BELOW = "\n    action"
EXAMPLE = (
    'to: "3.120.0.1:80", protocol: http, method: POST, path: /v1/x, header: {X-Team: a}, content_type: application/json'
)


def test_expectations_may_describe_a_request(tmp_path: Path) -> None:
    """Method, path, header, content type and facts of an example are asked as of a request; a failure says why."""
    path = write_policy(
        tmp_path,
        f"""\
policy: test
rules:
  - name: a
    {TO.replace(", action", BELOW)}
    only: {{method: [POST], path: [/v1/*], header: {{x-team: [a]}}, content_type: [application/json], model: [gpt-*]}}
expect:
  - {{{EXAMPLE}, model: gpt-4, is: allow, rule: a}}
  - {{{EXAMPLE}, model: o1, is: deny, rule: a}}
  - {{to: "3.120.0.1:80", protocol: http, method: GET, is: allow}}
""",
    )
    (failure,) = run_expectations(read_policy(path, VOCABULARY), lookup)
    assert failure == (
        f"{path}:10: expect[2]: 3.120.0.1:80 (DE) http is deny by rule a (method GET is not in POST), not allow;"
        " correct the rules or the expectation"
    )
