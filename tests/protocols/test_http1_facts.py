"""Requests whose bodies are read before they are judged: facts, limits, and refusals that JSON-RPC understands."""

from __future__ import annotations

import gzip
import json

import pytest

from enforcer.flow import Side
from enforcer.protocols.base import Request
from enforcer.protocols.http1 import PROTOCOL
from enforcer.protocols.http1.held import BODY_LIMIT
from enforcer.protocols.jsonrpc import DENIED
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
POST = b"POST /mcp HTTP/1.1\r\nHost: a\r\n"
JSON = b"Content-Type: application/json\r\n"
CALL = b'{"jsonrpc": "2.0", "id": 7, "method": "tools/call", "params": {"name": "delete_repo"}}'
NOTE = b'{"jsonrpc": "2.0", "method": "notifications/initialized"}'
UNREACHABLE = Denial("192.0.2.1:80", "DE", "192.0.2.0/24", "p", "r", "timed out", "0a1b", unreachable=True)


def talk(**arguments: object) -> Conversation:
    inspector = PROTOCOL.inspector()
    inspector.read_bodies()
    return Conversation(inspector, **arguments)  # type: ignore[arg-type]


def post(body: bytes, head: bytes = JSON) -> bytes:
    return POST + head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize("step", [1, 7, 1 << 20])
@pytest.mark.parametrize("chunked", [False, True])
def test_facts_of_a_body(step: int, chunked: bool) -> None:
    """The request is judged once its body is there, with what that says; then it goes on as it came."""
    sent = post(CALL)
    if chunked:
        sent = POST + JSON + b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(CALL), CALL)
    with talk() as t:
        for at in range(0, len(sent), step):
            assert not t.requests
            t.client_sends(sent[at : at + step])
        request = t.expect_request("POST", "POST /mcp", host="a", path="/mcp", rpc="tools/call", tool="delete_repo")
        assert dict(request.fields)[b"Content-Type"] == b"application/json"
        assert not request.bodiless
        upstream = t.take_upstream()
        if step > len(sent) or not chunked:
            assert upstream == sent


def test_compressed_body() -> None:
    """A coded body is read decoded, and goes on as it came."""
    sent = post(gzip.compress(CALL), JSON + b"Content-Encoding: gzip\r\n")
    with talk() as t:
        t.client_sends(sent)
        t.expect_request("POST", rpc="tools/call")
        t.expect_upstream(sent)


@pytest.mark.parametrize(
    ("head", "body", "why"),
    [
        (JSON + b"Content-Encoding: gzip\r\n", CALL, "compressed"),
        (JSON + b"Content-Encoding: compress\r\n", CALL, "not read"),
        (JSON + b"Content-Encoding: gzip\r\n", gzip.compress(b" " * (BODY_LIMIT + 1), mtime=0), "more than"),
        (JSON + JSON, CALL, "Content-Type"),
        (JSON, CALL + b" " * BODY_LIMIT, "more than"),
    ],
)
def test_body_that_is_not_read(head: bytes, body: bytes, why: str) -> None:
    """Where the body cannot be read that is the one fact, and what it is goes on all the same."""
    sent = post(body, head)
    with talk(quiet=True) as t:
        t.client_sends(sent)
        request = t.expect_request("POST")
        assert request.facts["body"].startswith("unread: ")
        assert why in request.facts["body"]
        assert "rpc" not in request.facts
        t.expect_upstream(sent)


def test_chunks_over_the_limit() -> None:
    """A body that does not end is not waited for beyond the limit."""
    with talk(quiet=True) as t:
        t.client_sends(POST + JSON + b"Transfer-Encoding: chunked\r\n\r\n")
        piece = b"8000\r\n" + b"x" * 0x8000 + b"\r\n"
        for _ in range(BODY_LIMIT // 0x8000):
            t.client_sends(piece)
            assert not t.requests
        t.client_sends(piece)
        assert "more than" in t.expect_request("POST").facts["body"]
        assert len(t.take_upstream()) > BODY_LIMIT
        t.client_sends(b"0\r\n\r\n")
        t.expect_upstream(b"0\r\n\r\n")


@pytest.mark.parametrize("head", [b"Content-Type: image/png\r\n", b"", b"Content-Type: text/plain\r\n"])
def test_other_bodies_are_not_waited_for(head: bytes) -> None:
    """What is not read for facts is judged by its head."""
    with talk() as t:
        t.client_sends(POST + head + b"Content-Length: 9\r\n\r\n")
        assert not t.expect_request("POST").bodiless
        t.take_upstream()


def test_facts_of_a_target() -> None:
    """A request without a body has the facts of its target."""
    with talk() as t:
        t.client_sends(b"GET /v1/models/gpt-x HTTP/1.1\r\nHost: a\r\n\r\n")
        assert t.expect_request("GET", model="gpt-x").bodiless
        t.take_upstream()


@pytest.mark.parametrize("early", [b"", CALL[:5], CALL])
def test_continue_is_answered_here(early: bytes) -> None:
    """A client that waits for 100 gets it at once, since its body is needed; the server is not asked for another."""
    with talk() as t:
        t.client_sends(POST + JSON + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n%b" % (len(CALL), early))
        t.expect_client(b"" if early else b"HTTP/1.1 100 Continue\r\n\r\n")
        t.client_sends(CALL[len(early) :])
        t.expect_request("POST", rpc="tools/call")
        t.expect_upstream(post(CALL))


def deny_tools(request: Request) -> Denial | None:
    return DENIAL if request.facts.get("tool") else None


def rpc_error(answer: bytes) -> list[dict[str, object]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
    assert b"\r\nContent-Length: %d\r\n" % len(body) in head
    told = json.loads(body)
    return told if isinstance(told, list) else [told]


def test_denied_call_is_told_in_json_rpc() -> None:
    """A denied JSON-RPC request is answered with an error of its own id, and the connection lives (section 5.1)."""
    with talk(decide=deny_tools) as t:
        t.client_sends(post(CALL) + post(NOTE))
        t.expect_request("POST", tool="delete_repo")
        answer = t.take_client()
        (error,) = rpc_error(answer)
        assert b"Connection" not in answer
        assert (error["jsonrpc"], error["id"]) == ("2.0", 7)
        assert error["error"]["code"] == DENIED  # type: ignore[index]
        assert error["error"]["message"] == DENIAL.title  # type: ignore[index]
        assert error["error"]["data"]["session"] == "0a1b"  # type: ignore[index]
        t.expect_request("POST", rpc="notifications/initialized")
        t.expect_upstream(post(NOTE))


def test_denied_batch() -> None:
    """Each request of a batch gets its error; notifications get none (section 6)."""
    with talk(decide=deny_tools) as t:
        t.client_sends(post(b"[" + CALL + b"," + NOTE + b"," + CALL.replace(b"7", b'"x"') + b"]"))
        t.expect_request("POST")
        assert [error["id"] for error in rpc_error(t.take_client())] == [7, "x"]


@pytest.mark.parametrize("body", [NOTE, b'{"query": "{a}"}', b"[]", b'{"jsonrpc": "2.0", "id": {}, "method": "x"}'])
def test_what_waits_for_no_answer_is_refused_by_http(body: bytes) -> None:
    """Notifications, and JSON that is no JSON-RPC, are refused with problem details."""
    with talk(decide=lambda _: DENIAL) as t:
        t.client_sends(post(body))
        t.expect_request("POST")
        assert t.take_client().startswith(b"HTTP/1.1 403 Forbidden\r\nContent-Type: application/problem+json\r\n")


def test_unreachable_server_is_no_denial() -> None:
    """Policy allowed the call: that the server is not there is HTTP's 502."""
    with talk(decide=lambda _: UNREACHABLE) as t:
        t.client_sends(post(CALL))
        t.expect_request("POST")
        assert t.take_client().startswith(b"HTTP/1.1 502 ")


def test_pipelined_denial_in_the_middle() -> None:
    """A denied call between two allowed ones: each has its own answer, in order."""
    good = CALL.replace(b"tools/call", b"tools/list")
    with talk(decide=deny_tools) as t:
        t.client_sends(post(good) + post(CALL) + post(good))
        for last in (False, True):
            t.expect_request("POST", rpc="tools/list")
            t.expect_upstream(post(good))
            t.server_sends(OK)
            got = t.take_client()
            assert got.startswith(OK)
            t.expect_outcome("200")
            if not last:
                t.expect_request("POST", tool="delete_repo")
                assert rpc_error(got[len(OK) :])[0]["id"] == 7


def test_client_that_closes_while_its_body_is_awaited() -> None:
    """A body that never comes is the client's fault, and nothing of the request has gone anywhere."""
    with talk() as t:
        t.client_sends(post(CALL)[:-1])
        t.client_closes()
        t.expect_error(Side.CLIENT, "middle of a request")
        t.expect_upstream(b"")
        assert t.take_client().startswith(b"HTTP/1.1 400 ")
