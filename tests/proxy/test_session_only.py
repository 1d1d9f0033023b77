"""A rule's `only` in a session: asked of every request, also of those under way when a generation comes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from enforcer.policy.only import Only
from tests.proxy.stage import CARD, MASKED_CARD, US, Stage, allow, rule

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
READS = rule(only=Only(method=("GET",)))
CHATS = rule(only=Only(model=("gpt-4o*",)))


def get(path: str = "/a", method: str = "GET") -> bytes:
    return f"{method} {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n".encode()


def chat(model: str) -> bytes:
    body = json.dumps({"model": model}).encode()
    head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"POST /chat HTTP/1.1\r\nHost: llm.example\r\n{head}\r\n".encode() + body


def problem(answer: bytes) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return document


def test_allowed_and_denied_requests_take_turns_on_one_connection() -> None:
    """The verdict remembered for a host is not that of its first request; a denial leaves the connection open."""
    with Stage(READS) as stage:
        stage.client_sends(get())
        stage.connects()
        stage.server_sends(OK)
        stage.take("client")
        stage.client_sends(get(method="DELETE"))
        denied = problem(stage.take("client"))
        stage.client_sends(get("/b"))
        stage.server_sends(OK)
        assert stage.take("client") == OK
        assert stage.to_server == get() + get("/b")
        assert denied["exchange"] == 2
        assert denied["reason"] == "rule test/allow-de allows only some requests: method DELETE is not in GET"
        rows = [(row["action"], row["reason"], row["detail"]) for row in stage.rows("exchanges")]
        assert sorted(rows) == [
            ("allow", "rule", ""),
            ("allow", "rule", ""),
            ("deny", "the rule's only clause", "method DELETE is not in GET"),
        ]
        assert len(stage.dials) == 1


def test_a_denied_first_request_dials_nobody() -> None:
    """Nothing is known of the server, and nothing of the request reaches it."""
    with Stage(READS) as stage:
        stage.client_sends(get(method="PUT"))
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert stage.dials == []


def test_bodies_are_read_where_a_rule_asks() -> None:
    """The model of each request decides; without such a rule a body is not waited for."""
    with Stage(CHATS) as stage:
        head, _, body = chat("gpt-4o-mini").partition(b"\r\n\r\n")
        stage.client_sends(head + b"\r\n\r\n")
        assert stage.dials == []
        stage.client_sends(body)
        stage.connects()
        assert stage.to_server == chat("gpt-4o-mini")
        stage.server_sends(OK)
        stage.client_sends(chat("o1"))
        assert stage.to_server == chat("gpt-4o-mini")
        assert stage.rows("exchanges")[-1]["detail"] == "model o1 is not in gpt-4o*"
    with Stage(READS, rule(region="US", only=Only(model=("x",))), address=US) as stage:
        stage.client_sends(chat("x"))
        stage.connects()
        assert stage.to_server == chat("x")


def test_what_the_record_quotes_is_masked() -> None:
    """The reason of a denial holds a word of the client's: it is masked like everything else at rest."""
    with Stage(CHATS) as stage:
        stage.client_sends(chat(CARD))
        assert CARD.encode() in stage.to_client  # it is the client's own
        assert stage.row("exchanges")["detail"] == f"model {MASKED_CARD} is not in gpt-4o*"
        assert stage.row("sessions")["detail"] == f"model {MASKED_CARD} is not in gpt-4o*"
        stage.client_lost()
        assert CARD not in json.dumps(stage.records.lines)


@pytest.mark.parametrize(
    ("new", "lives"), [(READS, True), (rule(only=Only(method=("GET",), path=("/b",))), False), (CHATS, False)]
)
def test_a_reload_asks_the_request_under_way(new: Any, lives: bool) -> None:
    """What no longer holds is cut off, and so is a request whose body was not read and is asked for now."""
    with Stage(allow()) as stage:
        stage.client_sends(get())
        stage.connects()
        stage.new_generation(new)
        assert (stage.client.ended == "") is lives


def test_after_a_reload_bodies_are_read_on_open_connections() -> None:
    """Between two requests nothing is under way: the next one's body is read, and decides."""
    with Stage(allow()) as stage:
        stage.client_sends(chat("o1"))
        stage.connects()
        stage.server_sends(OK)
        stage.new_generation(CHATS)
        stage.take("client")
        stage.client_sends(chat("gpt-4o"))
        stage.server_sends(OK)
        assert stage.take("client") == OK
        stage.client_sends(chat("o1"))
        assert problem(stage.take("client"))["reason"].endswith("model o1 is not in gpt-4o*")
        assert stage.to_server == chat("o1") + chat("gpt-4o")


def test_an_observed_clause_lets_pass_and_records_a_denial() -> None:
    """In observe mode the request goes on, its answer is masked as the rule says, and the row says what it misses."""
    with Stage(allow("credit_card", only=Only(method=("GET",))), observe=True) as stage:
        stage.client_sends(get(method="PUT"))
        stage.connects()
        body = json.dumps({"card": CARD}).encode()
        stage.server_sends(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        assert MASKED_CARD.encode() in stage.to_client
        stage.client_lost()
        row = stage.row("exchanges")
        assert (row["action"], row["observed"], row["detail"]) == ("deny", True, "method PUT is not in GET")
