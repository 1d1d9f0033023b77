"""HTTP/1 exchanges as dialogues: what goes upstream, what the client gets, what is judged and recorded."""

from __future__ import annotations

import json

import pytest

from enforcer.errors import LimitExceeded
from enforcer.flow import Side
from enforcer.protocols.base import Probe
from enforcer.protocols.http1 import PROTOCOL
from enforcer.protocols.http1.inspector import AHEAD_LIMIT, TRANSITIONS, Input, State
from enforcer.protocols.http1.reader import AHEAD_PIECES
from enforcer.verdict import Denial
from tests.conversation import DENIAL, Conversation

GET = b"GET /a?b=c HTTP/1.1\r\nHost: Example.EU.:8080\r\nAccept: */*\r\n\r\n"
GET_REBUILT = b"GET /a?b=c HTTP/1.1\r\nHost: Example.EU.:8080\r\nAccept: */*\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 5\r\n\r\nhello"
UNREACHABLE = Denial("192.0.2.1:80", "DE", "192.0.2.0/24", "p", "r", "timed out", "0a1b", unreachable=True)


def talk(**arguments: object) -> Conversation:
    return Conversation(PROTOCOL.inspector(), **arguments)  # type: ignore[arg-type]


def head_and_body(message: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = message.partition(b"\r\n\r\n")
    return head.split(b"\r\n"), body


@pytest.mark.parametrize(
    ("data", "answer"),
    [
        (b"G", Probe.MORE),
        (b"GET", Probe.MORE),
        (b"GET ", Probe.YES),
        (b"\r\nPOST /", Probe.YES),
        (b"\r\n", Probe.MORE),
        (b"M-SEARCH * ", Probe.YES),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Probe.NO),
        (b"PRI", Probe.MORE),
        (b"get / ", Probe.NO),
        (b"A" * 24 + b" ", Probe.YES),
        (b"A" * 24, Probe.NO),
        (b"A" * 25 + b" ", Probe.NO),
        (b"\x16\x03\x01\x02\x00\x01", Probe.NO),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", Probe.NO),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", Probe.NO),
        (b"*1\r\n$4\r\nPING\r\n", Probe.NO),
    ],
)
def test_probe(data: bytes, answer: Probe) -> None:
    """A method and a blank are HTTP/1; TLS, PostgreSQL, SSH, Redis and HTTP/2's preface are not."""
    assert PROTOCOL.probe(data) is answer


def test_simple_exchange() -> None:
    """A plain request and answer pass unchanged, with method, target and normalised host as facts."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET", "GET /a?b=c", host="example.eu", method="GET", path="/a")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")


def test_keep_alive_with_a_repeated_and_a_changed_head() -> None:
    """Each exchange of a connection is judged by its own head, also where it repeats the one before."""
    with talk() as t:
        for host in (b"a", b"a", b"b", b"a"):
            t.client_sends(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            t.expect_request("GET", "GET /", host=host.decode())
            t.expect_upstream(b"GET / HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
            t.server_sends(OK)
            t.expect_client(OK)
            t.expect_outcome("200")


def test_pipelined_request_waits() -> None:
    """A second request sent ahead is neither judged nor forwarded before the first one's outcome."""
    with talk() as t:
        t.client_sends(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n")
        t.expect_request("GET", "GET /1")
        t.expect_upstream(b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n")
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
        t.expect_request("GET", "GET /2")
        t.expect_upstream(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")


@pytest.mark.parametrize(
    "unit",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 65536\r\n\r\n" + b"x" * 65536,
    ],
)
def test_too_much_ahead_is_refused(unit: bytes) -> None:
    """Requests piled up behind an exchange that does not end hit a limit instead of filling the memory."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        for _ in range(600):
            t.client_sends(unit)
        held = sum(len(piece) for piece in t.inspector._asked if isinstance(piece, bytes))  # type: ignore[attr-defined]
        assert held <= AHEAD_LIMIT
        assert len(t.inspector._asked) < 2 * AHEAD_PIECES  # type: ignore[attr-defined]
        for _ in range(600):
            if not t.closed:
                t.server_sends(OK)
        assert isinstance(t.expect_error(Side.CLIENT), LimitExceeded)
        t.requests.clear()
        t.outcomes.clear()
        t.take_upstream()
        t.take_client()


def test_request_body_with_content_length() -> None:
    """A body follows its head upstream byte for byte, also when it comes in pieces after the verdict."""
    with talk() as t:
        t.client_sends(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0010\r\n\r\nabc")
        t.expect_request("POST")
        t.expect_upstream(b"POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        t.client_sends(b"defghij")
        t.expect_upstream(b"defghij")


def test_chunked_request_is_framed_anew() -> None:
    """Chunk extensions and trailers do not go on; the data does."""
    with talk() as t:
        t.client_sends(
            b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nTrailer: X\r\n\r\n"
            b"3;ext=1\r\nabc\r\n1\r\nd\r\n0\r\nX: y\r\n\r\n"
        )
        t.expect_request("POST")
        t.expect_upstream(b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n")


def test_expect_continue() -> None:
    """`Expect: 100-continue` and the interim answer pass, and the body after them."""
    with talk() as t:
        t.client_sends(b"PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        t.expect_request("PUT")
        t.expect_upstream(b"PUT /x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
        t.server_sends(b"HTTP/1.1 100 Continue\r\n\r\n")
        t.expect_client(b"HTTP/1.1 100 Continue\r\n\r\n")
        t.client_sends(b"abc")
        t.expect_upstream(b"abc")
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")


def test_hop_by_hop_fields_stay_here() -> None:
    """Fields of RFC 9110 section 7.6.1, and those that Connection lists, are not forwarded."""
    with talk() as t:
        t.client_sends(
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\nKeep-Alive: 5\r\n"
            b"TE: trailers\r\nProxy-Connection: keep-alive\r\n\r\n"
        )
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\nX-Other: 2\r\n\r\n")
        t.server_sends(
            b"HTTP/1.1 204 No Content\r\nConnection: keep-alive, X-B\r\nX-B: 1\r\nKeep-Alive: 5\r\n"
            b'Alt-Svc: h3=":443"\r\nX-C: 3\r\nUpgrade: h2c\r\n\r\n'
        )
        t.expect_client(b"HTTP/1.1 204 No Content\r\nX-C: 3\r\n\r\n")
        t.expect_outcome("204")


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"", b""),
        (b"Content-Length: 3\r\n", b"abc"),
        (b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n0\r\n\r\n"),
    ],
)
def test_upgrade_offer_is_dropped_and_its_body_kept(framing: bytes, body: bytes) -> None:
    """A WebSocket or h2c offer goes on as a plain request with its whole body, and the next request is its own."""
    offer = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n"
    with talk() as t:
        t.client_sends(
            b"POST /1 HTTP/1.1\r\nHost: a\r\n"
            + offer
            + framing
            + b"\r\n"
            + body
            + b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"
        )
        t.expect_request("POST", "POST /1")
        t.expect_upstream(b"POST /1 HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n" + body)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
        t.expect_request("GET", "GET /2")
        t.expect_upstream(b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n")


def test_switching_protocols_unasked() -> None:
    """A server that switches protocols all the same is at fault, and nothing of it reaches the client."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nraw")
        t.expect_error(Side.SERVER, "switches protocols")
        assert t.take_client().startswith(b"HTTP/1.1 502 ")


def test_absolute_form_becomes_origin_form() -> None:
    """`http://` targets that name the Host go on in origin-form (RFC 9112 section 3.2.2)."""
    with talk() as t:
        t.client_sends(b"GET http://EXAMPLE.eu?q HTTP/1.1\r\nHost: example.eu:80\r\n\r\n")
        t.expect_request("GET", "GET /?q", host="example.eu")
        t.expect_upstream(b"GET /?q HTTP/1.1\r\nHost: example.eu:80\r\n\r\n")


def test_http_10_client() -> None:
    """An HTTP/1.0 client gets no chunks and no interim answers, and the connection ends."""
    with talk() as t:
        t.client_sends(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\nExpect: 100-continue\r\n\r\n")
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        t.server_sends(
            b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"
        )
        t.expect_client(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nabc")
        t.server_sends(b"2\r\nde\r\n0\r\n\r\n")
        t.expect_client(b"de")
        t.expect_outcome("200")
        t.client_sends(GET)


def test_http_10_server() -> None:
    """An answer that ends with the connection says so to the client, and is complete at the server's end."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\nab")
        t.expect_client(b"HTTP/1.1 200 OK\r\nServer: x\r\nConnection: close\r\n\r\nab")
        t.server_sends(b"cd")
        t.expect_client(b"cd")
        t.server_closes()
        t.expect_outcome("200")


def test_close_is_passed_on() -> None:
    """A client that ends the connection after this exchange is heard by both sides."""
    with talk() as t:
        t.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        t.expect_request("GET")
        t.expect_upstream(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        t.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx")
        t.expect_client(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx")
        t.expect_outcome("200")


@pytest.mark.parametrize("cut", range(1, 60, 7))
def test_head_has_no_body(cut: int) -> None:
    """The answer to HEAD ends with its head although it tells a length, wherever the bytes are cut."""
    answer = b"HTTP/1.1 200 OK\r\nETag: x\r\nContent-Length: 5000\r\n\r\n"
    rebuilt = b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\nETag: x\r\n\r\n"
    with talk() as t:
        for _ in range(2):
            t.client_sends(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            t.expect_request("HEAD")
            t.expect_upstream(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
            t.server_sends(answer[:cut])
            t.server_sends(answer[cut:])
            t.expect_client(rebuilt)
            t.expect_outcome("200")
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")


def test_server_error_is_a_failure() -> None:
    """A 5xx answer is recorded as failed."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        t.expect_client(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n")
        t.expect_outcome("503", failed=True)


def test_answer_before_the_body_is_complete() -> None:
    """After an early answer the rest of the body still goes on, and the next request comes after it."""
    with talk() as t:
        t.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        t.expect_request("POST")
        t.expect_upstream(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nab")
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
        t.client_sends(b"cd" + GET)
        t.expect_request("GET")
        t.expect_upstream(b"cd" + GET_REBUILT)


def refuse_all(request: object) -> Denial:
    return DENIAL


def test_refusal_says_what_and_how_to_ask() -> None:
    """A denied request gets 403 problem details (RFC 9457), and the connection serves the next one."""
    with talk(decide=lambda request: DENIAL if request.text == "GET /no" else None) as t:
        t.client_sends(b"GET /no HTTP/1.1\r\nHost: a\r\n\r\n" + GET)
        t.expect_request("GET", "GET /no")
        lines, body = head_and_body(t.take_client())
        assert lines[0] == b"HTTP/1.1 403 Forbidden"
        assert b"Content-Type: application/problem+json" in lines
        assert b"Cache-Control: no-store" in lines
        assert b"Content-Length: %d" % len(body) in lines
        assert not any(line.startswith(b"Connection") for line in lines)
        assert body.endswith(b"}\n")
        assert json.loads(body) == {
            "type": "urn:enforcer:egress-denied",
            "title": "egress to 8.8.8.8:80 denied: rule eu-only/everything-else forbids region US",
            "status": 403,
            "detail": "region US (8.8.8.0/24), rule eu-only/everything-else, session 0a1b",
            "destination": "8.8.8.8:80",
            "region": "US",
            "prefix": "8.8.8.0/24",
            "policy": "eu-only",
            "rule": "everything-else",
            "reason": "rule eu-only/everything-else forbids region US",
            "session": "0a1b",
            "exchange": 0,
            "how_to_ask": "ask this host's operator; 'enforcer explain 8.8.8.8:80' shows every rule tried",
        }
        t.expect_request("GET", "GET /a?b=c")
        t.expect_upstream(GET_REBUILT)


def test_refused_short_body_is_dropped() -> None:
    """The rest of a refused request's short body is read and dropped, and the connection goes on."""
    with talk(decide=lambda request: DENIAL if request.operation == "POST" else None) as t:
        t.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nsec")
        t.expect_request("POST")
        assert b"Connection: close" not in t.take_client()
        t.client_sends(b"ret" + GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: 65537\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Content-Length: 3\r\nExpect: 100-continue\r\n",
        b"Content-Length: 0\r\nConnection: close\r\n",
    ],
)
def test_refusal_that_ends_the_connection(head: bytes) -> None:
    """A long, unbounded or withheld body is not waited for: the refusal announces the end."""
    with talk(decide=refuse_all) as t:
        t.client_sends(b"POST / HTTP/1.1\r\nHost: a\r\n" + head + b"\r\n")
        t.expect_request("POST")
        assert b"\r\nConnection: close\r\n" in t.take_client()
        assert t.closed


def test_refused_head_gets_no_body() -> None:
    """A refused HEAD is answered with a head alone."""
    with talk(decide=refuse_all) as t:
        t.client_sends(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n")
        t.expect_request("HEAD")
        lines, body = head_and_body(t.take_client())
        assert lines[0] == b"HTTP/1.1 403 Forbidden"
        assert body == b""


def test_unreachable_server_is_502_and_the_next_request_is_tried() -> None:
    """An allowed request that could not be delivered gets 502, and the connection stays."""
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, GET + GET)
    first = inspector.next_event()
    inspector.allow(first, masked=False)  # type: ignore[arg-type]
    refusal = inspector.refuse(first, UNREACHABLE)  # type: ignore[arg-type]
    assert refusal.to_client.startswith(b"HTTP/1.1 502 Bad Gateway\r\n")
    assert not refusal.close
    second = inspector.next_event()
    assert getattr(second, "exchange", None) == 2


def test_refusal_in_mid_answer_only_closes() -> None:
    """Once the answer's head is out, a refusal has no words left."""
    inspector = PROTOCOL.inspector()
    inspector.receive_data(Side.CLIENT, GET)
    request = inspector.next_event()
    inspector.allow(request, masked=False)  # type: ignore[arg-type]
    inspector.receive_data(Side.SERVER, b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab")
    inspector.next_event()
    refusal = inspector.refuse(None, DENIAL)
    assert (refusal.to_client, refusal.close) == (b"", True)


# --- ends and faults


def test_server_closes_in_mid_answer() -> None:
    """A truncated answer is the server's fault, not a complete one."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
        t.expect_client(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
        t.server_closes()
        t.expect_error(Side.SERVER, "closed in the middle of a response")


def test_server_closes_unasked() -> None:
    """A server that closes before it answers is told as 502; one that closes between exchanges is not at fault."""
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_closes()
        t.expect_error(Side.SERVER, "closed without a response")
        assert t.take_client().startswith(b"HTTP/1.1 502 ")
    with talk() as t:
        t.client_sends(GET)
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
        t.server_closes()
        t.client_sends(GET)


def test_client_closes() -> None:
    """A client may close its half after a complete request, not in the middle of one."""
    with talk() as t:
        t.client_sends(GET)
        t.client_closes()
        t.expect_request("GET")
        t.expect_upstream(GET_REBUILT)
        t.server_sends(OK)
        t.expect_client(OK)
        t.expect_outcome("200")
    with talk() as t:
        t.client_sends(GET[:-1])
        t.client_closes()
        t.expect_error(Side.CLIENT, "closed in the middle of a request")
        assert t.take_client().startswith(b"HTTP/1.1 400 ")


def test_every_state_and_input_is_either_listed_or_refused() -> None:
    """Every state has a row, every target is a state, and a closed connection never opens again."""
    assert set(TRANSITIONS) == set(State)
    assert all(target in State for row in TRANSITIONS.values() for target in row.values())
    assert set(TRANSITIONS[State.CLOSED].values()) == {State.CLOSED}
    assert {what for row in TRANSITIONS.values() for what in row} == set(Input)
