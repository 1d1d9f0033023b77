"""Facts of bodies and targets: what is told plainly is told, and what two servers may read in two ways is not."""

from __future__ import annotations

import json

import pytest
from graphql import GraphQLError, OperationDefinitionNode
from graphql.language import parse
from hypothesis import given
from hypothesis import strategies as st

from enforcer.protocols.body_facts import facts_of, is_read
from enforcer.protocols.graphql import TYPES, operations

JSON = "application/json"


def of(body: object, path: str = "/") -> dict[str, str]:
    return facts_of(JSON, path, json.dumps(body).encode())


# --- JSON-RPC and MCP


def call(tool: str, number: int = 1) -> dict[str, object]:
    """A call as the Model Context Protocol's specification shows it (2025-06-18, Tools, Calling Tools)."""
    params = {"name": tool, "arguments": {"location": "New York"}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {"cursor": "optional-cursor-value"}}
ANSWER = {"jsonrpc": "2.0", "id": 3, "result": {"roots": []}}
NOTICE = {"jsonrpc": "2.0", "method": "notifications/initialized"}


def test_a_tool_and_its_method_are_facts() -> None:
    """A call of an MCP tool, a listing, a notification and an answer to the server say which they are."""
    assert of(call("get_weather")) == {"rpc": "tools/call", "tool": "get_weather"}
    assert of(LIST) == {"rpc": "tools/list"}
    assert of(NOTICE) == {"rpc": "notifications/initialized"}
    assert of(ANSWER) == {"rpc": "(response)"}


def test_a_batch_lists_every_member_once() -> None:
    """The members' methods and tools are sorted and joined, whatever their order."""
    batch = [call("b"), LIST, call("a", 2), call("b", 3)]
    assert of(batch) == of(batch[::-1]) == {"rpc": "tools/call, tools/list", "tool": "a, b"}
    assert of([call("a")]) == of(call("a"))


@pytest.mark.parametrize("other", [{"id": 1}, {"jsonrpc": "1.0", "method": "tools/list"}, {"method": "x"}])
def test_a_batch_with_a_member_that_is_unknown_has_no_method(other: dict[str, object]) -> None:
    """Of a batch in which one member is no JSON-RPC, no method is known."""
    assert "rpc" not in of([LIST, other])


@pytest.mark.parametrize(
    "body",
    [
        {**call("a"), "params": {}},
        {**call("a"), "params": ["a"]},
        {**call("a"), "params": {"name": 1}},
        {**call("a"), "params": {"name": "a", "Name": "b"}},
        {**call("a"), "method": ["tools/call"]},
        {**call("a"), "Method": "tools/list"},
        {**LIST, "result": {}},
        {**LIST, "method": "(response)"},
        [LIST, 1],
        [LIST, None],
        call("a, b"),
        call(" a"),
        call("a\u0000"),
        call("a" * 201),
        [call(f"tool-{number}-{'x' * 100}") for number in range(20)],
    ],
    ids=repr,
)
def test_a_call_that_two_servers_may_read_in_two_ways_is_ambiguous(body: object) -> None:
    """No fact but that: a method or tool that is missing, no text, there in two spellings, or no plain name."""
    facts = of(body)
    assert facts.keys() == {"body"}
    assert facts["body"].startswith("ambiguous: ")


def test_json_rpc_in_the_query_is_seen() -> None:
    """A method that a GET request names in its query is a fact, so that no rule takes it for a mere stream."""
    assert facts_of("", "/rpc?jsonrpc=2.0&method=tools%2Fcall&id=1", b"") == {"rpc": "tools/call"}


# --- models


@pytest.mark.parametrize(
    ("path", "body", "model"),
    [
        ("/v1/chat/completions", {"model": "gpt-4o", "messages": []}, "gpt-4o"),
        ("/v1/messages", {"model": "claude-sonnet-4-5", "max_tokens": 5}, "claude-sonnet-4-5"),
        ("/v1beta/models/gemini-2.0-flash:generateContent", {"contents": []}, "gemini-2.0-flash"),
        ("/v1beta/models/gemini-2.0-flash%3AstreamGenerateContent?alt=sse", {"contents": []}, "gemini-2.0-flash"),
        (
            "/v1/projects/p/locations/europe-west1/publishers/anthropic/models/claude-3-5-sonnet@20240620:rawPredict",
            {"messages": []},
            "claude-3-5-sonnet@20240620",
        ),
        ("/model/anthropic.claude-3-haiku-20240307-v1%3A0/invoke", {}, "anthropic.claude-3-haiku-20240307-v1:0"),
        ("/openai/deployments/mine/chat/completions?api-version=2024-06-01", {"messages": []}, "mine"),
        ("/openai/deployments/mine/chat/completions", {"model": "gpt-4o"}, "gpt-4o, mine"),
        ("/api/v1/chat/completions", {"model": "a/b", "models": ["c/d", "a/b"]}, "a/b, c/d"),
        ("/v1/realtime?model=gpt-4o-realtime-preview", {"type": "session.update"}, "gpt-4o-realtime-preview"),
        ("/v1/chat/completions?model=a", {"model": "b"}, "a, b"),
        ("/v1/models", {}, None),
        ("/v1/chat/completions", {"messages": []}, None),
    ],
)
def test_a_model_is_told_by_body_or_path(path: str, body: object, model: str | None) -> None:
    """OpenAI, Anthropic, Gemini, Vertex, Bedrock, Azure and routers of several: every model that is named counts."""
    assert of(body, path).get("model") == model


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"a","model":"b"}',
        b'{"model":"a","mod\\u0065l":"b"}',
        b'{"model":"a","Model":"b"}',
        b'{"MODEL":"a"}',
        b'{"model":"a","model\\u0000":"b"}',
        b'{"model":"a","\\u006dode\\u006C":"b"}',
        b'{"model":"a","model\\u017f":["b"]}',
        b'{"model":["a"]}',
        b'{"model":"a","models":"b"}',
        b'{"model":"a","x":{"y":1,"y":2}}',
        b'{"model":"a"} {"model":"b"}',
        b'{"model":"a",}',
        b'{"model":"a","x":NaN}',
        b'{"model":"a",/*"model":"b"*/"x":1}',
        b'\xef\xbb\xbf{"model":"a"}',
        b'{"model":"\xff"}',
        b'{"model":"a"' + b',"x":' + b"[" * 100_000,
        '{"model":"a"}'.encode("utf-16"),
    ],
    ids=range(18),
)
def test_a_body_that_servers_may_read_in_two_ways_is_ambiguous(body: bytes) -> None:
    """Names twice, in escapes or in another case, values of another kind, JSON that is not strict: no model is told."""
    assert facts_of(JSON, "/", body).keys() == {"body"}


def test_a_path_that_is_ambiguous_names_no_model() -> None:
    """What the body says does not count where the path may say something else."""
    assert facts_of(JSON, "/a/%2e%2e/models/evil:generateContent", b'{"model":"good"}') == {}


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "utf-7"])
def test_a_charset_other_than_utf8_is_ambiguous(charset: str) -> None:
    """JSON is UTF-8 (RFC 8259 section 8.1); who says otherwise may be believed by some."""
    assert facts_of(f"{JSON}; charset={charset}", "/", b'{"model":"a"}').keys() == {"body"}
    assert facts_of(f'{JSON}; charset="UTF-8"', "/", b'{"model":"a"}') == {"model": "a"}


def test_only_json_and_graphql_are_read() -> None:
    """The types of JSON, with suffix and parameters, and GraphQL's own; all else has no facts."""
    read = ("application/json", "Application/JSON; charset=utf-8", "application/vnd.x+json", "application/graphql")
    assert all(is_read(kind) for kind in read)
    others = ("", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "application/json, text/x")
    assert not any(is_read(kind) for kind in others)
    assert facts_of("text/plain", "/", b'{"model":"a"}') == {}


@given(st.text(max_size=30), st.text(max_size=40), st.binary(max_size=60))
def test_nothing_makes_it_raise(kind: str, path: str, body: bytes) -> None:
    """Whatever comes, facts are short lines of plain text or absent."""
    for content_type in (kind, JSON, "application/graphql"):
        for text in facts_of(content_type, path, body).values():
            assert text.isprintable()
            assert 0 < len(text) <= 1000


@given(
    st.lists(st.sampled_from(["a", "b-c", "d.e/f", "x y"]), min_size=1, max_size=6),
    st.sampled_from(['"model"', '"mod\\u0065l"', '"MODEL"', '"\\u006d\\u006f\\u0064\\u0065\\u006c"', '"m\\u006fdel"']),
)
def test_a_second_model_in_any_spelling_is_never_overlooked(models: list[str], name: str) -> None:
    """Of an object with more than one name for it, no model is told."""
    pairs = ['"model":"first"', *(f"{name}:{json.dumps(model)}" for model in models)]
    assert facts_of(JSON, "/", ("{" + ",".join(pairs) + "}").encode()).keys() == {"body"}


# --- GraphQL


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ("{ me { name } }", ["query"]),
        ("query { a }", ["query"]),
        (
            "query Hero($e: Episode = JEDI) @cached(for: 5) { hero(e: $e) { ...f } } fragment f on H @x { name }",
            ["query Hero"],
        ),
        ('mutation Like($in: In = {a: [1, -2.5e3], b: "}"}) { like(in: $in) { id } }', ["mutation Like"]),
        ("subscription S { s } query Q { q }", ["subscription S", "query Q"]),
        ("# mutation M { m }\nquery Q { q }", ["query Q"]),
        ('query Q { q(a: """ } mutation M { m } \\""" """) }', ["query Q"]),
        ('query Q { q(a: "\\"} mutation M { m }") }', ["query Q"]),
        ("query mutation { mutation }", ["query mutation"]),
        ("\ufeffquery,Q,{,q,}", ["query Q"]),
    ],
)
def test_every_operation_of_a_document_is_found(document: str, found: list[str]) -> None:
    """Types and names as the specification's grammar has them, past strings, comments, values and directives."""
    assert operations(document) == found
    assert _by_reference(document) == found


@pytest.mark.parametrize(
    "document",
    [
        "",
        "query",
        "query {",
        "query { a ) }",
        'query { a(b: "unterminated) }',
        'query { a(b: """unterminated) }',
        'query { a(b: """"") }',
        "type Query { a: Int }",
        "query Q { a } extend type T { b: Int }",
        "hello world",
        "fragment f on T",
        "query Q { a } $",
        "query { a(b: 01) }",
        "query { a(b: 1x) }",
        "query { a ; b }",
        "query { a\u0000b }",
        "{" * 10_000,
        "query { " + "a " * 200_000 + "}",
    ],
)
def test_what_is_no_document_has_no_operation(document: str) -> None:
    """Unbalanced, unterminated, of type definitions, or too large: no operation is known."""
    assert operations(document) is None


PIECES = st.sampled_from(
    [
        "query ",
        "mutation ",
        "{",
        "}",
        "(",
        ")",
        '"',
        '"""',
        "\\",
        "#",
        "\n",
        "a ",
        "B ",
        "@d",
        "$v:",
        "=1",
        "...",
        "fragment f on T ",
    ]
)


@given(
    st.lists(PIECES, max_size=14).map("".join)
    | st.lists(PIECES, max_size=6).map(lambda p: f"query Q {{ a {''.join(p)} }}")
)
def test_operations_are_those_that_a_server_sees(document: str) -> None:
    """Whatever the reference implementation accepts as operations, we see the same ones or none."""
    found = operations(document)
    if found is None:
        return
    reference = _by_reference(document)
    assert reference is None or reference == found


def _by_reference(document: str) -> list[str] | None:
    """The operations as graphql-core, the port of the reference implementation, reads them."""
    try:
        nodes = parse(document, no_location=True).definitions
    except GraphQLError:
        return None
    found = [node for node in nodes if isinstance(node, OperationDefinitionNode)]
    return [" ".join([node.operation.value, *([node.name.value] if node.name else [])]) for node in found]


def test_graphql_over_http() -> None:
    """By POST as JSON, as a batch, as a document of its own type, and by GET (GraphQL over HTTP, section 5)."""
    query, mutation = {"query": "query Q { a }"}, {"query": "mutation { b }", "operationName": None}
    assert of(query) == {"graphql": "query Q"}
    assert of([query, mutation]) == {"graphql": "mutation, query Q"}
    assert facts_of("application/graphql", "/graphql", b"subscription S { s }") == {"graphql": "subscription S"}
    assert facts_of("", "/graphql?query=query%20Q%20%7B%20a%20%7D&operationName=Q", b"") == {"graphql": "query Q"}
    assert facts_of("", "/graphql?query=%7Ba+b%7D", b"") == {"graphql": "query"}


def test_an_operation_that_the_request_names_does_not_hide_the_others() -> None:
    """All operations of the document count, whatever `operationName` says, in body or query."""
    body = {"query": "query Q { a } mutation M { b }", "operationName": "Q"}
    assert of(body) == of(body, "/graphql?operationName=M") == {"graphql": "mutation M, query Q"}


def test_body_and_query_both_count() -> None:
    """Some servers prefer the query's document to the body's: both are told, or neither where one is not understood."""
    body = {"query": "query Q { a }"}
    assert of(body, "/graphql?query=mutation%20M%7Bb%7D") == {"graphql": "mutation M, query Q"}
    assert of(body, "/graphql?query=words") == {}
    assert of(body, "/graphql?query=%7Ba%7D&query=%7Bb%7D").keys() == {"body"}
    assert of({**body, "documentId": "7a"}) == {}
    assert of([body, {"id": "7a"}]) == {}


def test_the_words_are_those_of_the_specification() -> None:
    """GraphQL has three types of operations."""
    assert TYPES == ("query", "mutation", "subscription")
