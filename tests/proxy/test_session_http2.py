"""HTTP/2 in a session: streams side by side, each with its verdict, its masks and its rows."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from enforcer.verdict import JsonPath, MaskSpec
from tests.protocols.wire_http2 import DATA, END_STREAM, GET, OK, SETTINGS, frame, frames, get, headers, opening
from tests.proxy.stage import CARD, MASKED_CARD, US, Stage, allow, rule

JSON = [(b":status", b"200"), (b"content-type", b"application/json")]


@pytest.fixture
def stage() -> Iterator[Stage]:
    """A connection to Germany, whose cards are masked; one host is denied."""
    denied = rule("deny", name="no-shop", region_words=("*",), hosts=frozenset({"shop.example"}))
    with Stage(denied, allow("credit_card")) as built:
        yield built


def told(data: bytes) -> list[tuple[str, int]]:
    return [(kind, stream) for kind, _, stream, _ in frames(data)]


def test_streams_are_judged_one_by_one(stage: Stage) -> None:
    """Of three streams one is for a denied host: it alone is refused, and each has a row of its own."""
    other = [*GET[:2], (b":authority", b"shop.example"), GET[3]]
    stage.client_sends(opening() + headers(1, GET) + headers(3, other) + headers(5, get(b"/b")))
    stage.connects()
    assert [one for one in told(stage.take("server")) if one[0] == "HEADERS"] == [("HEADERS", 1), ("HEADERS", 3)]
    refusal = [payload for kind, _, stream, payload in frames(stage.take("client")) if (kind, stream) == ("DATA", 3)]
    assert json.loads(refusal[0])["rule"] == "no-shop"
    stage.server_sends(frame(SETTINGS, 0, 0) + headers(1, OK) + headers(3, OK))
    stage.settle()
    stage.client_lost()
    rows = {row["exchange"]: (row["action"], row.get("status")) for row in stage.rows("exchanges")}
    assert rows == {1: ("allow", "200"), 2: ("deny", None), 3: ("allow", "200")}
    assert stage.row("sessions")["protocol"] == "http"


def test_one_answer_that_cannot_be_masked() -> None:
    """A field rule meets what is no JSON: that stream is refused and recorded, the other is masked and goes on."""
    mask = MaskSpec(detectors=("credit_card",), json_paths=(JsonPath("$.secret"),))
    with Stage(rule(mask=mask)) as built:
        built.client_sends(opening() + headers(1, GET) + headers(3, GET))
        built.connects()
        built.take("client")
        good = json.dumps({"card": CARD}).encode()
        built.server_sends(
            frame(SETTINGS, 0, 0)
            + headers(1, JSON, end=False)
            + frame(DATA, END_STREAM, 1, b"{ no json")
            + headers(3, JSON, end=False)
            + frame(DATA, END_STREAM, 3, good)
        )
        sent = frames(built.take("client"))
        bodies = {stream: payload for kind, _, stream, payload in sent if kind == "DATA"}
        assert json.loads(bodies[1])["title"].startswith("egress to")
        assert json.loads(bodies[3]) == {"card": MASKED_CARD}
        assert not built.client.ended
        built.client_lost()
        statuses = {row["exchange"]: row["status"] for row in built.rows("exchanges") + built.rows("outcomes")}
        assert statuses == {1: "unmaskable", 2: "200"}


def test_fields_and_trailers_of_answers_are_masked() -> None:
    """In the head and behind the body, whatever they are called."""
    with Stage(rule(mask=MaskSpec(detectors=("credit_card",)))) as built:
        built.client_sends(opening() + headers(1, GET))
        built.connects()
        built.take("client")
        named = [(b"x-card", CARD.encode())]
        built.server_sends(
            frame(SETTINGS, 0, 0)
            + headers(1, [*JSON, *named], end=False)
            + frame(DATA, 0, 1, b"{}")
            + headers(1, named)
        )
        assert CARD.encode() not in built.take("client")
        assert built.row("exchanges")["masked"] == {"credit_card": 2}


def test_a_server_that_cannot_be_reached_is_tried_again(stage: Stage) -> None:
    """502 on the stream that asked; the next one dials anew and is answered."""
    stage.client_sends(opening() + headers(1, GET))
    stage.cannot_connect(ConnectionRefusedError(111, "Connection refused"))
    sent = frames(stage.take("client"))
    problem = next(payload for kind, _, stream, payload in sent if (kind, stream) == ("DATA", 1))
    assert (json.loads(problem)["status"], stage.client.ended) == (502, "")
    stage.client_sends(headers(3, GET))
    stage.connects()
    assert told(stage.take("server")) == [("SETTINGS", 0), ("HEADERS", 1)]


def test_all_denied_and_nothing_dialled() -> None:
    """Another country: every stream has its 403, and there is no connection to anywhere."""
    with Stage(allow(), address=US) as built:
        built.client_sends(opening() + headers(1, GET) + headers(3, GET))
        assert [one for one in told(built.to_client) if one[0] == "DATA"] == [("DATA", 1), ("DATA", 3)]
        assert built.dials == []


def test_a_malformed_request_is_on_record(stage: Stage) -> None:
    """A stream that breaks the protocol is denied with its fault, and the connection lives."""
    stage.client_sends(opening() + headers(1, [*GET, (b"connection", b"close")]))
    row = stage.row("exchanges")
    assert (row["action"], row["reason"]) == ("deny", "protocol error")
    assert "HTTP/1 connections" in row["detail"]
    assert not stage.client.ended


def test_a_server_that_ends_while_the_client_reads_slowly() -> None:
    """An answer in pieces, as small as the client wants them, is whole when the server ends, and then all ends."""
    with Stage(allow()) as built:
        built.client_sends(opening((4, 5)) + headers(1, GET))
        built.connects()
        built.take("client")
        built.server_sends(frame(SETTINGS, 0, 0) + headers(1, OK, end=False) + frame(DATA, 0, 1, b"hello"))
        built.client_sends(frame(8, 0, 1, b"\0\0\0\x06"))
        built.server_sends(frame(DATA, END_STREAM, 1, b" world"))
        built.server_ends()
        data = b"".join(payload for kind, _, _, payload in frames(built.take("client")) if kind == "DATA")
        assert data == b"hello world"
        assert built.client.ended == "closed"


def test_a_flood_ends_the_session_on_record(stage: Stage) -> None:
    """GOAWAY with words, and a session whose record says what it was."""
    stage.client_sends(opening() + frame(6, 0, 0, b"12345678") * 2000)
    assert frames(stage.to_client)[-1][0] == "GOAWAY"
    assert "move nothing" in stage.row("sessions")["detail"]
