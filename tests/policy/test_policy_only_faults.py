"""Faults of `only` and of `mask: request`: what a file may not ask is refused with what mends it."""

from __future__ import annotations

from pathlib import Path

import pytest

from .policy_world import load
from .test_policy_loader import faults_of

HTTP = "name: a, to: {region: [DE], protocol: [http]}, action: allow, "
PLAIN = "name: a, to: {region: [DE]}, action: allow, "


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (HTTP + "only: {}", "only: names nothing; write at least one condition, or remove it"),
        (HTTP + "only: {method: []}", "only.method: is empty; name at least one"),
        (HTTP + "only: {method: GET}", "only.method: is not a list;"),
        (HTTP + "only: {method: [get]}", "only.method[0]: 'get' is not a method; write it in capitals, such as GET"),
        (HTTP + "only: {verb: [GET]}", "only.verb: unknown key; known are method, path, header,"),
        (HTTP + "only: {paths: [/a]}", "only.paths: unknown key; did you mean 'path'?"),
        (HTTP + "only: {path: [v1]}", "only.path[0]: 'v1' is not a path; begin it with '/'"),
        (HTTP + "only: {path: ['/a?b=c']}", "only.path[0]: '/a?b=c' has a query, and paths are compared without;"),
        (HTTP + "only: {path: [/a/../b]}", "only.path[0]: '/a/../b' never matches: a dot segment; write"),
        (HTTP + "only: {path: [//a]}", "only.path[0]: '//a' never matches: an empty segment; write"),
        (HTTP + "only: {path: [/a%2fb]}", "only.path[0]: '/a%2fb' never matches: an encoded slash; write"),
        (HTTP + "only: {path: [/a%7e]}", "only.path[0]: '/a%7e' is not in normal form; do not encode"),
        (HTTP + "only: {path: [/**/a]}", "only.path[0]: '/**/a' has '**' within; write it once, at the end"),
        (HTTP + "only: {path: ['/a{b}']}", "only.path[0]: '/a{b}' has braces around less or more than a segment;"),
        (HTTP + "only: {path: ['/{a b}']}", "only.path[0]: '/{a b}' has braces around less or more than a segment;"),
        (HTTP + "only: {header: {}}", "only.header: names nothing;"),
        (HTTP + "only: {header: {x-a: []}}", "only.header.x-a: is empty;"),
        (HTTP + "only: {header: {x_a: [b]}}", "only.header.x_a: 'x_a' is not the name of a header field; use letters"),
        (
            HTTP + "only: {header: {Host: [b]}}",
            "only.header.Host: the host is a condition on the destination; write it",
        ),
        (HTTP + "only: {header: {X-A: [b], x-a: [c]}}", "only.header.x-a: 'x-a' is the same field as 'X-A'; write one"),
        (
            HTTP + "only: {content_type: [json]}",
            "only.content_type[0]: 'json' is not a content type; write one without",
        ),
        (HTTP + "only: {content_type: ['a/b; c=d']}", "only.content_type[0]: 'a/b; c=d' is not a content type; write"),
        (
            HTTP + "only: {grpc: [Service]}",
            "only.grpc[0]: 'Service' is not a gRPC method; write package.Service/Method",
        ),
        (HTTP + "only: {graphql: {}}", "only.graphql: names nothing;"),
        (HTTP + "only: {graphql: {type: [read]}}", "only.graphql.type[0]: 'read' is not accepted; write 'query',"),
        (HTTP + "only: {graphql: {types: [query]}}", "only.graphql.types: unknown key; did you mean 'type'?"),
        (HTTP + "only: {tool: ['a,b']}", "only.tool[0]: 'a,b' holds a comma and never matches; list the names"),
        (
            PLAIN + "only: {method: [GET]}",
            "only: method is asked of http, and the rule is for every protocol; add protocol",
        ),
        (
            PLAIN.replace("[DE]", "[DE], protocol: [http, postgres]") + "only: {model: [a]}",
            "only: postgres cannot be asked for model; give postgres a rule of its own without only",
        ),
        (
            PLAIN.replace("[DE]", "[DE], protocol: [tls]") + "only: {path: [/a]}",
            "only: tls cannot be asked for path; give tls a rule of its own without only",
        ),
        (
            PLAIN.replace("[DE]", "[DE], protocol: [opaque]") + "only: {method: [GET]}",
            "only: opaque cannot be asked for method;",
        ),
        (
            PLAIN.replace("[DE]", "[DE], port: [80]") + "path: direct, only: {method: [GET]}",
            "only: a direct flow is not read, so nothing can be asked; remove only, or path: direct",
        ),
        (
            "name: a, to: {region: [DE], protocol: [http]}, action: deny, only: {method: [GET]}",
            "only: a deny rule denies all that it matches; remove only, or turn it into an allow rule",
        ),
        (HTTP + "mask: {request: []}", "mask.request: is empty;"),
        (HTTP + "mask: {request: [ssn]}", "mask.request[0]: unknown detector 'ssn';"),
        (
            HTTP + "mask: {request: [{column: a.b}]}",
            "mask.request[0]: requests of its protocols have no columns; name a",
        ),
        (
            PLAIN.replace("[DE]", "[DE], protocol: [tls]") + "mask: {request: [email]}",
            "mask: tls traffic cannot be masked; give tls a rule of its own without mask",
        ),
    ],
)
def test_each_fault_is_named(tmp_path: Path, rule: str, fault: str) -> None:
    """A fault in what a rule asks of requests names line, field, what is wrong and what mends it."""
    faults = faults_of(tmp_path, f"policy: test\nrules:\n  - {{{rule}}}\n")
    assert len(faults) == 1, faults
    assert faults[0].startswith(f"3: rules[0].{fault}"), faults[0]
    assert "; " in faults[0] or "did you mean" in faults[0]


def test_requests_of_databases_are_masked_by_detector_and_column(tmp_path: Path) -> None:
    """Statements, and their parameters by the columns they meet."""
    plain = PLAIN.replace("[DE]", "[DE], protocol: [http, postgres]")
    rule = load(tmp_path, f"{plain} mask: {{request: [email, {{column: users.ssn}}]}}").policies[0].rules[0]
    assert [column.pattern for column in rule.request_mask.columns] == ["users.ssn"]


def test_all_that_can_be_asked_is_accepted(tmp_path: Path) -> None:
    """One rule may use every condition, and mask both ways."""
    only = (
        "{method: [GET, M-SEARCH], path: [/, '/v1/{id}/*.json', '/files/**', /caf%C3%A9], header: {X-Team: ['a*']},"
        " content_type: [Application/JSON, 'text/*'], grpc: ['a.B/*'], graphql: {type: [query], name: ['Get*']},"
        " rpc: [initialize, 'tools/*', (response)], tool: ['search_*'], model: ['gpt-4o*', 'anthropic.claude-v1:0']}"
    )
    rule = load(tmp_path, f"{HTTP} only: {only}, mask: {{request: [email], response: [iban]}}").policies[0].rules[0]
    assert rule.only is not None
    assert rule.only.header == (("x-team", ("a*",)),)
    assert rule.only.content_type == ("application/json", "text/*")
