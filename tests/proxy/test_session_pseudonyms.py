"""Values that leave as pseudonyms and come back as themselves: judged by what the server and the client received."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest

from enforcer.flow import Side
from enforcer.masking import deltas
from enforcer.masking.errors import MaskError
from enforcer.masking.keys import Key, Keys
from enforcer.masking.pseudonyms import SessionVault
from enforcer.verdict import Field, JsonPath, Masked, MaskSpec, Operator, Pseudonyms
from tests.protocols import wire_http2
from tests.protocols.test_http2_grpc import CALL, framed
from tests.protocols.test_websocket import frame, frames
from tests.protocols.wire_http2 import DATA, END_STREAM, GET
from tests.proxy.stage import CARD, Stage, rule
from tests.proxy.test_session_websocket import opened

PSEUDONYMISE, ALIKE = Operator("pseudonymise"), Operator("pseudonymise", alike=True)
KEYS = Keys((Key(b"k" * 32),))


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits does so until the test goes on, however busy the machine is."""
    monkeypatch.setattr(deltas, "PAUSE", 60.0)
    monkeypatch.setattr(deltas, "SHORT_PAUSE", 60.0)


def pseudonymising(*items: tuple[Masked, Operator], **changes: Any) -> Any:
    """A rule whose requests carry pseudonyms."""
    masked = [item for item, _ in items]
    spec = MaskSpec(
        detectors=tuple(item for item in masked if isinstance(item, str)),
        json_paths=tuple(item for item in masked if isinstance(item, JsonPath)),
        fields=tuple(item for item in masked if isinstance(item, Field)),
        operators=items,
        pseudonyms=Pseudonyms(),
    )
    return rule(request_mask=spec, **changes)


def post(body: bytes, *fields: bytes, target: bytes = b"/v1/chat", media: bytes = b"application/json") -> bytes:
    head = [b"POST %b HTTP/1.1" % target, b"Host: api.example", b"Content-Type: %b" % media, *fields]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


def answer(body: bytes, *fields: bytes, media: bytes = b"application/json") -> bytes:
    head = [b"HTTP/1.1 200 OK", b"Content-Type: %b" % media, *fields]
    return b"\r\n".join([*head, b"Content-Length: %d" % len(body), b"", body])


def body_of(message: bytes) -> bytes:
    return message.partition(b"\r\n\r\n")[2]


def test_a_value_leaves_as_a_pseudonym_and_comes_back() -> None:
    """The server gets EMAIL_1 and a text with EMAIL_1 in it comes back with the address."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        stage.client_sends(post(b'{"to":"anna@example.org","cc":"bob@example.org","bcc":"anna@example.org"}'))
        stage.connects()
        assert body_of(stage.to_server) == b'{"to":"EMAIL_1","cc":"EMAIL_2","bcc":"EMAIL_1"}'
        stage.server_sends(answer(b'{"text":"I wrote to EMAIL_1, not to email_2 or EMAIL_3."}'))
        expected = b'{"text":"I wrote to anna@example.org, not to bob@example.org or EMAIL_3."}'
        assert body_of(stage.to_client) == expected


def test_what_looks_like_a_pseudonym_is_one_value_more() -> None:
    """A text that holds EMAIL_1 already gets it back as it was, beside the value that took that name."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        stage.client_sends(post(b'{"a":"anna@example.org","b":"EMAIL_1 and Email_2"}'))
        stage.connects()
        sent = body_of(stage.to_server)
        assert b"anna@example.org" not in sent
        stage.server_sends(answer(sent))
        assert body_of(stage.to_client) == b'{"a":"anna@example.org","b":"EMAIL_1 and Email_2"}'


@pytest.mark.parametrize("coded", [False, True], ids=["plain", "gzip"])
def test_pseudonyms_come_back_from_streamed_deltas(coded: bool) -> None:
    """A pseudonym spread over the deltas of server-sent events is put together again, in clear and in gzip."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        stage.client_sends(post(b'{"prompt":"anna@example.org"}'))
        stage.connects()
        deltas = ["Hi E", "MA", "IL", "_", "1", "!", " bye"]
        events = b"".join(b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % delta.encode() for delta in deltas)
        events += b"data: [DONE]\n\n"
        coding = (b"Content-Encoding: gzip",) if coded else ()
        stage.server_sends(answer(gzip.compress(events) if coded else events, *coding, media=b"text/event-stream"))
        got = body_of(stage.to_client)
        got = gzip.decompress(got) if coded else got
        assert got.count(b"data: ") == len(deltas) + 1
        assert (
            b"".join(part.partition(b'"')[0] for part in got.split(b'"content":"')[1:]) == b"Hi anna@example.org! bye"
        )
        assert got.endswith(b"data: [DONE]\n\n")


def test_fields_of_the_head_and_of_the_query_are_replaced() -> None:
    """Header fields and pairs of the query that an item names, on their way out and on their way back."""
    items = ((Field("header", "x-user"), PSEUDONYMISE), (Field("query", "mail*"), PSEUDONYMISE))
    with Stage(pseudonymising(*items)) as stage:
        stage.client_sends(b"GET /?mailbox=a%20b&q=1 HTTP/1.1\r\nHost: api.example\r\nX-User: Anna B\r\n\r\n")
        stage.connects()
        assert stage.to_server.startswith(b"GET /?mailbox=MAIL_1&q=1 HTTP/1.1\r\n")
        assert b"\r\nX-User: USER_2\r\n" in stage.to_server
        stage.server_sends(answer(b"{}", b"Location: /u/USER_2?m=MAIL_1", b"X-Echo: USER_2"))
        assert b"\r\nLocation: /u/Anna%20B?m=a%20b\r\n" in stage.to_client
        assert b"\r\nX-Echo: Anna B\r\n" in stage.to_client


def test_what_is_recorded_is_what_was_sent() -> None:
    """The recorded target holds pseudonyms, and the counts say how many values, never which."""
    with Stage(pseudonymising(("phone", PSEUDONYMISE)), hold=0) as stage:
        stage.client_sends(b"GET /find?n=%2B442079460958 HTTP/1.1\r\nHost: api.example\r\n\r\n")
        stage.connects()
        stage.server_sends(answer(b"{}"))
        rows = [row for kind, row in stage.log if kind == "row"]
        assert [row["text"] for row in rows if "text" in row] == ["GET /find?n=PHONE_1"]
        assert "442079460958" not in repr(rows)
        assert {"phone": 1} in [dict(row["masked"]) for row in rows if "masked" in row]


def test_a_pseudonym_alike_is_a_card_number() -> None:
    """A card's pseudonym has its length and a valid Luhn digit, as text and as a number, and comes back as the card."""
    with Stage(pseudonymising(("credit_card", ALIKE))) as stage:
        stage.client_sends(post(b'{"n":%b,"s":"%b"}' % (CARD.encode(), CARD.encode())))
        stage.connects()
        assert body_of(stage.to_server) == b'{"n":9999000000000012,"s":"9999000000000012"}'
        stage.server_sends(answer(b'{"n":9999000000000012,"s":"9999 0000 0000 0012"}'))
        assert body_of(stage.to_client) == b'{"n":%b,"s":"%b"}' % (CARD.encode(), CARD.encode())


def test_messages_of_a_websocket_have_pseudonyms_both_ways() -> None:
    """What the client says leaves with pseudonyms, message by message; what the server says has the values again."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        opened(stage)
        stage.client_sends(frame(0x81, b'{"to":"anna@example.org"}'))
        assert frames(stage.take("server"), Side.CLIENT) == [(0x81, b'{"to":"EMAIL_1"}')]
        stage.server_sends(frame(0x81, b'{"text":"EMAIL_1?"}', client=False))
        assert frames(stage.take("client"), Side.SERVER) == [(0x81, b'{"text":"anna@example.org?"}')]


EMAIL = b"anna@example.org"


def messages(stage: Stage) -> list[tuple[int, bytes]]:
    return frames(stage.take("client"), Side.SERVER)


def speaks(stage: Stage, *said: bytes, first: int = 0x81) -> list[tuple[int, bytes]]:
    """The server says all that, each in a message; what the client has by then."""
    stage.server_sends(b"".join(frame(first, one, client=False) for one in said))
    return messages(stage)


def asked_of_a_websocket(stage: Stage) -> None:
    """A WebSocket whose server knows the address as EMAIL_1."""
    opened(stage)
    stage.client_sends(frame(0x81, EMAIL))
    assert frames(stage.take("server"), Side.CLIENT) == [(0x81, b"EMAIL_1")]


@pytest.mark.parametrize("shape", [b"%b", b'{"delta": "%b"}'], ids=["text", "JSON"])
def test_a_pseudonym_over_several_messages_comes_back(shape: bytes) -> None:
    """A language model's words come as messages of a WebSocket: a pseudonym that is cut by them is put together, in as
    many messages; a message waits only while it may end in a part of one."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        asked_of_a_websocket(stage)
        assert speaks(stage, shape % b"to ") == [(0x81, shape % b"to ")]
        assert speaks(stage, shape % b"EM") == []
        assert speaks(stage, shape % b"AIL_") == []
        got = speaks(stage, shape % b"1", shape % b". ")
        assert got[-1] == (0x81, shape % b". ")
        said = [payload if shape == b"%b" else json.loads(payload)["delta"].encode() for _, payload in got]
        assert (b"".join(said), len(said)) == (EMAIL + b". ", 4)


def test_what_answers_are_masked_by_holds_beside_pseudonyms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each message and event is masked by itself, and then has its values again; also those that waited."""
    cards = MaskSpec(detectors=("credit_card",))
    text = b"%b to EMAIL" % CARD.encode()
    with Stage(pseudonymising(("email", PSEUDONYMISE), mask=cards)) as stage:
        asked_of_a_websocket(stage)
        assert speaks(stage, text) == []
        assert b"".join(payload for _, payload in speaks(stage, b"_1!")) == b"************1111 to anna@example.org!"
    monkeypatch.setattr(deltas, "PAUSE", 0.05)
    with Stage(pseudonymising(("email", PSEUDONYMISE), mask=cards)) as stage:
        stage.client_sends(post(b'{"prompt":"anna@example.org"}'))
        stage.connects()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        event = b"data: %b\n\n" % text
        stage.server_sends(head + b"%x\r\n%b\r\n" % (len(event), event))
        stage.until(lambda: b"data: ************1111 to EMAIL\n\n" in stage.to_client)
        assert CARD.encode() not in stage.to_client


def test_messages_keep_their_order_and_control_frames_do_not_wait() -> None:
    """A binary message behind one that waits waits as well; a ping does not; a Close frame ends the waiting."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        asked_of_a_websocket(stage)
        assert speaks(stage, b"an EMA") == []
        assert speaks(stage, b"\0\1", first=0x82) == []
        assert speaks(stage, b"EMAIL_1", first=0x89) == [(0x89, b"anna@example.org")]
        assert speaks(stage, b"\x03\xe8by EMA", first=0x88) == [
            *[(0x81, b"an EMA"), (0x82, b"\0\1")],
            (0x88, b"\x03\xe8by EMA"),
        ]


def test_messages_that_wait_go_on_when_the_server_is_gone() -> None:
    """The server ends the connection without a Close frame: what it said before still reaches the client."""
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        asked_of_a_websocket(stage)
        assert speaks(stage, b"an EMA") == []
        stage.server_ends()
        assert messages(stage)[0] == (0x81, b"an EMA")


def test_a_stream_that_pauses_keeps_nothing_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole message or event that ends like the beginning of a pseudonym goes on after a while, a pseudonym at its
    end taken back; and what comes later is read anew."""
    monkeypatch.setattr(deltas, "PAUSE", 0.05)
    monkeypatch.setattr(deltas, "SHORT_PAUSE", 0.01)
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        opened(stage)
        for number in range(11):  # so that EMAIL_1 may go on
            stage.client_sends(frame(0x81, b"a%d@example.org" % number))
        for said, shown in ((b"an EMA", b"an EMA"), (b"ACTIVE", b"ACTIVE"), (b"to EMAIL_1", b"to a0@example.org")):
            stage.server_sends(frame(0x81, said, client=False))
            stage.until(lambda: stage.to_client)
            assert messages(stage) == [(0x81, shown)]
        assert speaks(stage, b"EMAIL_2!") == [(0x81, b"a1@example.org!")]
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        stage.client_sends(post(b'{"prompt":"anna@example.org"}'))
        stage.connects()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        stage.server_sends(head + b"d\r\ndata: an EMA\n\r\n1\r\n\n\r\n")
        stage.until(lambda: b"data: an EMA\n\n" in stage.to_client)
        stage.server_sends(b"14\r\ndata: to EMAIL_1.\n\n\r\n0\r\n\r\n")
        assert b"data: to anna@example.org.\n\n" in stage.to_client


def test_an_event_of_http2_waits_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same of events on a stream of HTTP/2, beside another stream that does not pause."""
    monkeypatch.setattr(deltas, "PAUSE", 0.05)
    answered = [(b":status", b"200"), (b"content-type", b"text/event-stream")]
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        stage.client_sends(wire_http2.opening() + wire_http2.headers(1, GET) + wire_http2.headers(3, GET))
        stage.connects()
        heads = b"".join(wire_http2.headers(number, answered, end=False) for number in (1, 3))
        stage.server_sends(wire_http2.frame(wire_http2.SETTINGS, 0, 0) + heads)
        stage.server_sends(wire_http2.frame(DATA, 0, 1, b"data: an EMA\n\n"))

        def told() -> bool:
            stage.server_sends(wire_http2.frame(DATA, 0, 3, b"data: well\n\n"))
            return b"data: an EMA\n\n" in stage.to_client

        stage.until(told)


def test_messages_of_grpc_in_json_have_pseudonyms_both_ways() -> None:
    """gRPC with JSON inside: a call of many answers, over which a pseudonym is spread; what is left when they end goes
    on before the trailers."""
    call = [*CALL[:-2], (b"content-type", b"application/grpc+json"), *CALL[-1:]]
    answered = [(b":status", b"200"), (b"content-type", b"application/grpc+json")]
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        body = wire_http2.frame(DATA, END_STREAM, 1, framed(b'{"to":"anna@example.org"}'))
        stage.client_sends(wire_http2.opening() + wire_http2.headers(1, call, end=False) + body)
        stage.connects()
        sent = [payload for kind, _, _, payload in wire_http2.frames(stage.take("server")) if kind == "DATA"]
        assert b"".join(sent) == framed(b'{"to":"EMAIL_1"}')
        stage.server_sends(wire_http2.frame(wire_http2.SETTINGS, 0, 0) + wire_http2.headers(1, answered, end=False))
        for word in (b"to ", b"EMA", b"IL_1", b"; EM"):
            stage.server_sends(wire_http2.frame(DATA, 0, 1, framed(b'{"text":"%b"}' % word)))
        stage.server_sends(wire_http2.headers(1, [(b"grpc-status", b"0")]))
        got = wire_http2.frames(stage.take("client"))
        texts = read_messages(b"".join(payload for kind, _, _, payload in got if kind == "DATA"))
        assert [json.loads(text)["text"] for text in texts] == ["to ", "anna@example.org", "", "; EM"]
        assert got[-1][0] == "HEADERS"


def read_messages(data: bytes) -> list[bytes]:
    """The messages in gRPC's framing."""
    found = []
    while data:
        length = int.from_bytes(data[1:5], "big")
        found.append(data[5 : 5 + length])
        data = data[5 + length :]
    return found


def test_streams_of_http2_share_their_pseudonyms() -> None:
    """Fields and bodies of every stream of one session, heads of the answers included."""
    items = (("email", PSEUDONYMISE), (Field("header", "x-user"), PSEUDONYMISE))
    asked = [(b":method", b"POST"), *GET[1:], (b"x-user", b"Anna"), (b"content-type", b"application/json")]
    answered = [(b":status", b"200"), (b"content-type", b"application/json"), (b"x-echo", b"USER_1")]
    with Stage(pseudonymising(*items)) as stage:
        for stream in (1, 3):
            body = wire_http2.frame(DATA, END_STREAM, stream, b'{"to":"anna@example.org"}')
            start = wire_http2.opening() if stream == 1 else b""
            stage.client_sends(start + wire_http2.headers(stream, asked, end=False) + body)
            if stream == 1:
                stage.connects()
            sent = wire_http2.frames(stage.take("server"))
            assert [payload for kind, _, _, payload in sent if kind == "DATA"] == [b'{"to":"EMAIL_2"}']
            assert b"Anna" not in b"".join(payload for _, _, _, payload in sent)
        settings = wire_http2.frame(wire_http2.SETTINGS, 0, 0)
        body = wire_http2.frame(DATA, END_STREAM, 1, b'{"text":"EMAIL_2"}')
        stage.server_sends(settings + wire_http2.headers(1, answered, end=False) + body)
        got = wire_http2.frames(stage.take("client"))
        assert [payload for kind, _, _, payload in got if kind == "DATA"] == [b'{"text":"anna@example.org"}']


def test_pseudonyms_that_cannot_be_kept_refuse_the_request() -> None:
    """Where pseudonyms of executors have no file, nothing goes to the server, and the client is told."""
    spec = MaskSpec(("email",), operators=(("email", PSEUDONYMISE),), pseudonyms=Pseudonyms("executor", 60))
    with Stage(rule(request_mask=spec)) as stage:
        stage.client_sends(post(b'{"to":"anna@example.org"}'))
        assert stage.to_client.startswith(b"HTTP/1.1 403 ")
        assert b"pseudonyms of executors cannot be kept here" in stage.to_client
        assert not stage.dials


@pytest.mark.parametrize("shape", ["answer", "events", "WebSocket", "a pause"])
def test_pseudonyms_that_cannot_be_read_refuse_the_answer(shape: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The vault fails when an answer is to have its values again: nothing of that message reaches the client."""

    def entry(_vault: SessionVault, _number: int) -> None:
        raise MaskError("the file of pseudonyms cannot be used")

    monkeypatch.setattr(deltas, "PAUSE", 0.05)
    with Stage(pseudonymising(("email", PSEUDONYMISE))) as stage:
        if shape in ("answer", "events"):
            stage.client_sends(post(b'{"to":"anna@example.org"}'))
            stage.connects()
            monkeypatch.setattr(SessionVault, "entry", entry)
            media = b"application/json" if shape == "answer" else b"text/event-stream"
            text = b'{"text":"secret EMAIL_1!"}'
            stage.server_sends(answer(text if shape == "answer" else b"data: %b\n\n" % text, media=media))
        else:
            asked_of_a_websocket(stage)
            monkeypatch.setattr(SessionVault, "entry", entry)
            monkeypatch.setattr(SessionVault, "highest", lambda _vault: 11)
            stage.server_sends(frame(0x81, b"secret EMAIL_1" + b"!" * (shape == "WebSocket"), client=False))
            stage.until(lambda: stage.client.ended or stage.client.eof_sent)
        assert b"secret" not in stage.to_client
        assert "unmaskable" in [row["status"] for row in stage.rows("exchanges")]
