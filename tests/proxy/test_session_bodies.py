"""Bodies through a whole session: masked on the way out, read for facts, and answers that stream."""

from __future__ import annotations

import gzip
import json
import zlib

import pytest

from enforcer.policy.only import Only
from enforcer.verdict import Field, JsonPath, MaskSpec
from tests.fuzz.strict_http1 import read_request, read_response
from tests.proxy.stage import CARD, DE, MASKED_CARD, Stage, allow, rule

CARDS = MaskSpec(detectors=("credit_card",))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
GET = b"GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n"


def post(body: bytes, *fields: str) -> bytes:
    head = "".join(f"{field}\r\n" for field in (*fields, f"Content-Length: {len(body)}"))
    return f"POST /a HTTP/1.1\r\nHost: shop.example\r\n{head}\r\n".encode() + body


def body_at_server(stage: Stage) -> bytes:
    read = read_request(stage.to_server)
    assert read is not None
    assert read[0].complete
    return read[0].body


def test_a_request_is_masked_before_the_server_gets_it() -> None:
    """Target, fields and body reach the server masked, the record counts it, and the row never holds the value."""
    request = post(json.dumps({"card": CARD}).encode(), "Content-Type: application/json", f"X-Card: {CARD}")
    with Stage(rule(request_mask=CARDS)) as stage:
        stage.client_sends(request.replace(b"/a", f"/a?n={CARD}".encode()))
        stage.connects()
        assert body_at_server(stage) == json.dumps({"card": MASKED_CARD}).encode()
        assert CARD.encode() not in stage.to_server
        stage.server_sends(OK)
        assert stage.to_client == OK
        row = stage.row("exchanges")
        assert row["masked"] == {"credit_card": 3}
        assert CARD not in json.dumps(stage.records.lines)


def test_fields_of_answers_are_masked() -> None:
    """Header fields, also of interim answers and those without a body, and the reason; what keeps a client logged in
    stays, as cookies of requests do."""
    fields = f"X-Card: {CARD}\r\nLocation: /a?n={CARD}\r\nLink: <%34111111111111111>\r\n"
    kept = f"Set-Cookie: card={CARD}\r\nX-Plain: none\r\nContent-Length: 0\r\n\r\n"
    said = f"HTTP/1.1 103 Early {CARD}\r\n{fields}\r\nHTTP/1.1 302 Found {CARD}\r\n{fields}{kept}".encode()
    with Stage(rule(mask=CARDS)) as stage:
        stage.client_sends(GET)
        stage.connects()
        stage.server_sends(said)
        told = stage.to_client
        assert told.count(CARD.encode()) == 1
        assert f"Set-Cookie: card={CARD}\r\nX-Plain: none\r\n".encode() in told
        assert told.count(f"Location: /a?n={MASKED_CARD}\r\n".encode()) == 2
        assert stage.row("exchanges")["masked"] == {"credit_card": 8}


def test_fields_of_requests_by_path() -> None:
    """A rule that names a member hides it in requests as in answers."""
    with Stage(rule(request_mask=MaskSpec(json_paths=(JsonPath("$..ssn"),)))) as stage:
        stage.client_sends(post(b'{"a": {"ssn": "07"}, "n": 1}', "Content-Type: application/json"))
        stage.connects()
        assert json.loads(body_at_server(stage)) == {"a": {"ssn": "**"}, "n": 1}


def test_a_request_that_cannot_be_masked_is_refused() -> None:
    """Nothing of it reaches the server, the client is told why, and the record says so."""
    with Stage(rule(request_mask=CARDS)) as stage:
        stage.client_sends(post(b"abcd", "Content-Encoding: compress"))
        stage.connects()
        assert stage.to_server == b""
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert (
            b"it cannot be masked safely: the request: it is encoded in a way that is not read here" in stage.to_client
        )
        assert stage.row("exchanges")["status"] == "unmaskable"


@pytest.mark.parametrize("said", ["header=absent", 'charset=utf-8; Header="absent"', "header=present"])
def test_a_table_that_has_no_names_is_refused(said: str) -> None:
    """RFC 4180's parameter says that the first line holds no names: no column of it can be found by name."""
    with Stage(rule(request_mask=MaskSpec(fields=(Field("csv", "name"),)))) as stage:
        stage.client_sends(post(b"name,b\r\nAda,x\r\n", f"Content-Type: text/csv; {said}"))
        stage.connects()
        if said == "header=present":
            assert body_at_server(stage) == b"name,b\r\n***,x\r\n"
        else:
            assert stage.to_server == b""
            assert b"without a first line cannot be masked by column" in stage.to_client


def test_a_request_whose_text_is_no_json_is_refused() -> None:
    """What only the masker finds out is found out before anything of it has gone."""
    with Stage(rule(request_mask=MaskSpec(json_paths=(JsonPath("$..ssn"),)))) as stage:
        stage.client_sends(post(b'{"ssn": "07"', "Content-Type: application/json"))
        stage.connects()
        assert stage.to_server == b""
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")


def test_events_stream_masked_and_compressed() -> None:
    """Each event of a compressed stream is masked and reaches the client before the next one has come."""
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Encoding: gzip\r\n\r\n"
    events = [f'data: {{"card": "{CARD}", "n": {n}}}\n\n'.encode() for n in range(3)]
    masked = [event.replace(CARD.encode(), MASKED_CARD.encode()) for event in events]
    coder = zlib.compressobj(wbits=31)
    with Stage(allow("credit_card")) as stage:
        stage.client_sends(GET)
        stage.connects()
        sent = head
        for number, event in enumerate(events):
            sent += coder.compress(event) + coder.flush(2)
            stage.server_sends(sent)
            sent = b""
            read = read_response(stage.to_client, "GET", ended=False)
            assert read is not None
            plain = zlib.decompressobj(31).decompress(read[0].body)
            assert plain == b"".join(masked[: number + 1])
        stage.server_sends(coder.flush())
        stage.server_ends()
        read = read_response(stage.to_client, "GET", ended=True)
        assert read is not None
        assert read[0].complete
        assert gzip.decompress(read[0].body) == b"".join(masked)


def test_rules_about_bodies_are_asked_with_the_body() -> None:
    """An `only` by MCP tool lets one call pass and denies another, in JSON-RPC, on one connection."""

    def call(tool: str) -> bytes:
        asked = {"jsonrpc": "2.0", "id": tool, "method": "tools/call", "params": {"name": tool}}
        return post(json.dumps(asked).encode(), "Content-Type: application/json")

    with Stage(rule(only=Only(tool=("read_*",)))) as stage:
        stage.client_sends(call("read_file") + call("delete_file") + call("read_dir"))
        stage.connects()
        assert stage.to_server == call("read_file")
        stage.server_sends(OK)
        assert stage.to_server == call("read_file") + call("read_dir")
        assert stage.to_client.startswith(OK + b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        error = json.loads(stage.to_client.rpartition(b"\r\n\r\n")[2])
        assert error["id"] == "delete_file"
        assert error["error"]["data"]["destination"] == f"{DE}:80"
        stage.server_sends(OK)
        assert stage.to_client.endswith(OK)
        denied = [row for row in stage.rows("exchanges") if row["action"] == "deny"]
        assert [row["facts"]["tool"] for row in denied] == ["delete_file"]
