"""What rules ask of each request: real HTTP requests from an executor, judged one by one, by what the far side got."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from tests.fixtures.world import EMAIL, MASKED_EMAIL, Shell, enforcing, eventually, session_list, write_policy
from tests.system.far_side import HTTP_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

RULE = """
      - name: {name}
        to: {{region: [DE], host: [{name}.example], protocol: [http]}}
        action: allow
        only: {only}
"""
POLICY = "    policy: requests\n    rules:" + "".join(
    RULE.format(name=name, only=only)
    for name, only in {
        "seen": "{path: [/seen]}",
        "api": '{method: [GET, POST], path: ["/v1/users/{id}", /endless], header: {x-team: ["data-*"]}}',
        "mcp": '{method: [GET, POST], path: [/mcp], rpc: [initialize, "tools/*"], tool: ["search_*"]}',
        "llm": '{method: [POST], path: [/v1/chat/completions], content_type: [application/json], model: ["mistral-*"]}',
        "shop": "{graphql: {type: [query]}}",
    }.items()
).replace('["mistral-*"]}\n', '["mistral-*"]}\n        mask: {request: [email]}\n')
TEAM = {"X-Team": "data-eu"}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "requests", files={"requests": POLICY}) as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run("import http.client")
        yield running


@pytest.fixture(autouse=True)
def asked(shell: Shell) -> Iterator[None]:
    """A connection of its own for each test, with a far side that has seen nothing."""
    shell.run(
        "connection = http.client.HTTPConnection(address, port, timeout=20)", address=FRANKFURT.address, port=HTTP_PORT
    )
    ask(shell, "seen", "GET", "/seen")
    yield
    shell.run("connection.close()")


def ask(
    shell: Shell, host: str, method: str, path: str, body: str | None = None, **headers: str
) -> tuple[int, dict[str, Any], int]:
    """Status, JSON of the answer, and the client's port, of a request on the test's connection."""
    code = """
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        answer = [response.status, response.read().decode(), connection.sock.getsockname()[1]]
    """
    status, text, port = shell.run(
        code, method=method, path=path, body=body, headers={"Host": f"{host}.example", **headers}
    )
    return status, json.loads(text), port


def seen(shell: Shell) -> list[list[str]]:
    """What reached the far side since it was last asked: method, target and body of each request."""
    found: list[list[str]] = ask(shell, "seen", "GET", "/seen")[1]["seen"]
    return found


def call(tool: str) -> str:
    return json.dumps({"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": tool, "arguments": {}}})


def test_method_path_and_header_are_judged_request_by_request(shell: Shell) -> None:
    """On one connection allowed and denied requests alternate; the far side gets the allowed ones and nothing else."""
    requests: list[tuple[str, str, dict[str, str], int]] = [
        ("GET", "/v1/users/7", TEAM, 200),
        ("DELETE", "/v1/users/7", TEAM, 403),
        ("GET", "/v1/users/%38?x=1", TEAM, 200),
        ("GET", "/v1/users/7/keys", TEAM, 403),
        ("GET", "/v1/users/..%2fadmin", TEAM, 403),
        ("GET", "/v1/users/%2e%2e", TEAM, 403),
        ("GET", "/v1/users/7;admin", TEAM, 403),
        ("GET", "/v1/users/9", {}, 403),
        ("GET", "/v1/users/9", {"X-Team": "sales"}, 403),
        ("POST", "/v1/users/9", TEAM, 200),
    ]
    answers = [ask(shell, "api", method, path, "", **headers) for method, path, headers, _ in requests]
    assert [answer[0] for answer in answers] == [expected for *_, expected in requests]
    assert len({port for *_, port in answers}) == 1
    assert [line[:2] for line in seen(shell)] == [[one[0], one[1]] for one in requests if one[3] == 200]


def test_a_denial_says_which_clause_and_where_it_is_recorded(instance: Instance, shell: Shell) -> None:
    """The refusal names rule and reason, and the exchange of the session in which the record says the same."""
    problem = ask(shell, "api", "DELETE", "/v1/users/7", **TEAM)[1]
    assert (problem["policy"], problem["rule"], problem["region"]) == ("requests", "api", "DE")
    assert problem["reason"] == "rule requests/api allows only some requests: method DELETE is not in GET, POST"

    def recorded() -> Any:
        session = instance.json("sessions", "show", problem["session"], "--json")
        return next((one for one in session["exchanges"] if one["exchange"] == problem["exchange"]), None)

    row = eventually(recorded, "the denied exchange")
    assert (row["action"], row["policy"], row["rule"]) == ("deny", "requests", "api")
    assert (row["reason"], row["detail"]) == ("the rule's only clause", "method DELETE is not in GET, POST")
    assert row["text"] == "DELETE /v1/users/7"
    told = instance.run("sessions", "show", problem["session"]).stdout
    assert "method DELETE is not in GET, POST" in told


def test_tools_of_mcp_are_judged_by_name(shell: Shell) -> None:
    """Calls of named tools pass, alone and in a batch; others, and what cannot be told, do not."""
    batch = f"[{call('search_web')}, {call('exec')}]"
    twice = call("search_web").replace('"name": "search_web"', '"name": "search_web", "n\\u0061me": "exec"')
    bodies = [
        (call("search_web"), True),
        (call("exec"), False),
        (batch, False),
        (twice, False),
        (batch.replace("exec", "search_docs"), True),
        ('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"}', True),
        ('{"jsonrpc": "2.0", "id": 1, "method": "resources/read", "params": {"uri": "file:///"}}', False),
        ('{"jsonrpc": "2.0", "id": 1, "method": "tools/list"', False),
    ]
    answers = [ask(shell, "mcp", "POST", "/mcp", body, **JSON) for body, _ in bodies]
    unread = ask(shell, "mcp", "POST", "/mcp", call("search_web"), **{"Content-Type": "text/plain"})
    stream = ask(shell, "mcp", "GET", "/mcp")
    assert (unread[0], stream[0]) == (403, 200)
    allowed = [body for body, passes in bodies if passes]
    assert [line[2] for line in seen(shell)] == [*allowed, ""]
    assert [("target" in answer[1]) for answer in answers] == [passes for _, passes in bodies]
    assert len({port for *_, port in [*answers, unread, stream]}) == 1


def test_models_are_judged_by_name_and_requests_to_them_masked(instance: Instance, shell: Shell) -> None:
    """The far side gets the named models' requests, with the address in them masked; the record says which model."""

    def chat(model: str) -> str:
        return json.dumps({"model": model, "messages": [{"role": "user", "content": f"write to {EMAIL}"}]})

    path = "/v1/chat/completions"
    statuses = [
        ask(shell, "llm", "POST", path, body, **JSON)[0]
        for body in (
            chat("mistral-small"),
            chat("gpt-4o"),
            chat("mistral-small").replace('"model"', '"model": "gpt-4o", "mod\\u0065l"'),
            '{"messages": []}',
        )
    ]
    statuses.append(ask(shell, "llm", "POST", path, chat("mistral-small"), **{"Content-Type": "text/plain"})[0])
    assert statuses == [200, 403, 403, 403, 403]
    (got,) = seen(shell)
    assert got == ["POST", path, chat("mistral-small").replace(EMAIL, MASKED_EMAIL)]
    session = session_list(instance)[0]["id"]

    def rows() -> Any:
        found = instance.json("sessions", "show", session, "--json")["exchanges"]
        return [one for one in found if one["facts"].get("host") == "llm.example"][:4] if len(found) >= 6 else None

    told = eventually(rows, "the exchanges")
    assert [row["facts"].get("model") for row in told] == ["mistral-small", "gpt-4o", None, None]
    assert told[2]["facts"]["body"].startswith("ambiguous: ")
    assert [row["detail"] for row in told[1:]] == [
        "model gpt-4o is not in mistral-*",
        "the body is ambiguous: an object has a name twice",
        "no model is known",
    ]


def test_graphql_is_judged_by_its_operations(shell: Shell) -> None:
    """Queries pass by POST and GET; a mutation does not, also not beside a query that is asked for."""
    both = json.dumps({"query": "query A { a } mutation B { b }", "operationName": "A"})
    posts = ['{"query": "query A { a }"}', '{"query": "mutation B { b }"}', both]
    statuses = [ask(shell, "shop", "POST", "/graphql", body, **JSON)[0] for body in posts]
    targets = ["/graphql?query=%7Ba%7D", "/graphql?query=mutation%7Bb%7D", "/graphql"]
    statuses += [ask(shell, "shop", "GET", target)[0] for target in targets]
    assert statuses == [200, 403, 403, 200, 403, 403]
    assert [line[:2] for line in seen(shell)] == [["POST", "/graphql"], ["GET", targets[0]]]


def test_inside_tls_it_is_the_same(shell: Shell) -> None:
    """TLS ends here for a rule with `only` too, and the request inside is refused in HTTP's words, before any dial."""
    resolve = f"api.example:{HTTP_PORT}:{FRANKFURT.address}"
    done = shell.curl(
        "-k", "--http1.1", "--resolve", resolve, "-X", "DELETE", f"https://api.example:{HTTP_PORT}/v1/users/7"
    )
    assert json.loads(done.stdout)["reason"].endswith("method DELETE is not in GET, POST")
    assert seen(shell) == []


def test_explain_says_what_the_enforcer_does(instance: Instance, shell: Shell) -> None:
    """The same request described to `explain` comes to the verdict that the executor met."""
    question = (
        "explain",
        f"{FRANKFURT.address}:{HTTP_PORT}",
        "--host",
        "mcp.example",
        "--method",
        "POST",
        "--path",
        "/mcp",
    )
    for tool, action in (("search_web", "allow"), ("exec", "deny")):
        answer = instance.json(*question, "--fact", f"tool={tool}", "--json")
        assert (answer["verdict"]["action"], answer["verdict"]["rule"]) == (action, "mcp")
        met = ask(shell, "mcp", "POST", "/mcp", call(tool), **JSON)[1]
        assert ("target" in met) is (action == "allow")
    assert answer["verdict"]["detail"] == "tool exec is not in search_*"


def test_a_reload_asks_what_is_under_way_again(instance: Instance, shell: Shell) -> None:
    """An answer that flows for a request which the new clause no longer covers is cut off; on a connection that stays
    open, bodies are read from then on."""
    without = POLICY.replace('rpc: [initialize, "tools/*"], tool: ["search_*"]', "content_type: [application/json]")
    shell.run("idle = http.client.HTTPConnection(address, port, timeout=20)", address=FRANKFURT.address, port=HTTP_PORT)
    reload(instance, without)
    code = """
        idle.request("POST", "/mcp", body=body, headers={"Host": "mcp.example", "Content-Type": "application/json"})
        answer = idle.getresponse().read().decode()
    """
    assert "target" in json.loads(shell.run(code, body=call("exec")))
    endless = """
        connection.request("GET", "/endless", headers={"Host": "api.example", "X-Team": "data-eu"})
        response = connection.getresponse()
        answer = response.read(4).decode()
    """
    assert shell.run(endless) == "more"
    reload(instance, POLICY.replace(", /endless]", "]"))
    cut = """
        try:
            while response.read(4):
                pass
            answer = "ended"
        except (OSError, http.client.HTTPException) as error:
            answer = type(error).__name__
    """
    assert shell.run(cut) in ("ConnectionResetError", "IncompleteRead")
    assert "target" in json.loads(shell.run(code, body=call("search_web")))
    assert "target" not in json.loads(shell.run(code, body=call("exec")))
    shell.run("connection.close()\nidle.close()")
    assert [line[2] for line in seen(shell)] == [call("exec"), call("search_web")]
    reload(instance, POLICY)


def reload(instance: Instance, text: str) -> None:
    before = instance.status()["generation"]
    write_policy(instance, "requests", text)
    os.kill(instance.pid, signal.SIGHUP)
    eventually(lambda: instance.status()["generation"] != before, "the new generation")
