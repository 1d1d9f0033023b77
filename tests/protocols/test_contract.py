"""What every protocol of the registry keeps, whatever it speaks: see `docs/adding-a-protocol.md`.

A new protocol adds one dialogue to `DIALOGUES`; the rest applies by itself.
"""

from __future__ import annotations

import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols import http2
from enforcer.protocols.base import (
    Event,
    Forward,
    Inspector,
    Outcome,
    Probe,
    Reply,
    Request,
    Rewrite,
    Rows,
    Text,
    Unmaskable,
)
from enforcer.protocols.registry import NAMES as WORDS
from enforcer.protocols.registry import by_name
from tests.conversation import DENIAL
from tests.protocols import wire_http2, wire_mysql
from tests.protocols.wire_mongodb import op_msg
from tests.protocols.wire_tls import client_hello

C, S = Side.CLIENT, Side.SERVER
Dialogue = list[tuple[Side, bytes]]

# What a client may make an inspector keep while it waits: the largest named limit (PostgreSQL's message), and slack.
MEMORY_LIMIT = 40 * 1024 * 1024


def pg(kind: bytes, body: bytes) -> bytes:
    """A PostgreSQL message: type, length including itself, body (protocol 3.0, section 55.7)."""
    return kind + struct.pack("!i", len(body) + 4) + body


READY = pg(b"Z", b"I")
# Every protocol by the word of policies, and the other version that goes by the same word.
PROTOCOLS = {**{word: by_name(word) for word in WORDS}, "http/2": http2.PROTOCOL}
NAMES = tuple(PROTOCOLS)
DIALOGUES: dict[str, Dialogue] = {
    "http": [
        (C, b"GET /1 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (S, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello world"),
        (
            C,
            b"POST /2 HTTP/1.1\r\nHost: a\r\nE:\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n1;x\r\nb\r\n0\r\n\r\n",
        ),
        (
            S,
            b"HTTP/1.1 200 OK\r\nContent-Type: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
        ),
        (C, b"HEAD /3 HTTP/1.1\r\nHost: a\r\n\r\n"),
        (S, b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n"),
        (C, b"POST /4 HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: x\r\nContent-Length: 3\r\n\r\nabc"),
        (S, b"HTTP/1.1 204 No\r\n\r\n"),
        (C, b'POST /5 HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{"a":1}'),
        (S, b"HTTP/1.1 500 No\r\nContent-Type: application/json\r\n\r\n{}{}{}"),
    ],
    "http/2": [
        (C, wire_http2.opening() + wire_http2.headers(1, wire_http2.GET)),
        (S, wire_http2.frame(wire_http2.SETTINGS, 0, 0) + wire_http2.headers(1, wire_http2.OK, end=False)),
        (S, wire_http2.frame(wire_http2.DATA, 0, 1, b"hello ") + wire_http2.frame(wire_http2.DATA, 1, 1, b"world")),
        (C, wire_http2.headers(3, wire_http2.post(), end=False) + wire_http2.frame(wire_http2.DATA, 1, 3, b"body")),
        (S, wire_http2.headers(3, wire_http2.OK)),
    ],
    "postgres": [
        (C, pg(b"", struct.pack("!i", 196608) + b"user\0a\0database\0b\0\0")),
        (S, pg(b"R", struct.pack("!i", 0)) + READY),
        (C, pg(b"Q", b"SELECT 1\0")),
        (
            S,
            pg(b"T", struct.pack("!h", 1) + b"x\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0))
            + pg(b"D", struct.pack("!hi", 1, 5) + b"hello")
            + pg(b"C", b"SELECT 1\0")
            + READY,
        ),
    ],
    "redis": [
        (C, b"*2\r\n$5\r\nHELLO\r\n$1\r\n3\r\n*2\r\n$7\r\nHGETALL\r\n$1\r\nh\r\n"),
        (S, b"%1\r\n$5\r\nproto\r\n:3\r\n%2\r\n$1\r\na\r\n$5\r\nhello\r\n$1\r\nb\r\n=7\r\ntxt:two\r\n"),
        (C, b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\nc\r\n*1\r\n$6\r\nNOSUCH\r\n"),
        (
            S,
            b">3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n-ERR unknown command\r\n"
            b">3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$2\r\nhi\r\n",
        ),
    ],
    "mysql": [
        (S, wire_mysql.greeting()),
        (C, wire_mysql.login(database=b"shop")),
        (S, wire_mysql.ok(2)),
        (C, wire_mysql.query(b"SELECT name FROM customers")),
        (S, wire_mysql.result(b"Ada", names=(b"name",))),
        (C, wire_mysql.command(0x16, b"SELECT name FROM customers WHERE id = ?")),
        (S, wire_mysql.prepared(1, 1, 1, 1) + wire_mysql.column(2, b"?") + wire_mysql.eof(3)),
        (S, wire_mysql.column(4, b"name", b"name", b"customers") + wire_mysql.eof(5)),
        (C, wire_mysql.execute(1, b"\0\1\x08\0" + (7).to_bytes(8, "little"))),
        (S, wire_mysql.count(1, 1) + wire_mysql.column(2, b"name", b"name", b"customers") + wire_mysql.eof(3)),
        (S, wire_mysql.binary_row(4, b"\0", b"\3Bob") + wire_mysql.eof(5)),
        (C, wire_mysql.command(0x0E)),
        (S, wire_mysql.ok(1)),
        (C, wire_mysql.query(b"INSERT INTO customers VALUES (1)")),
        (S, wire_mysql.err(1, 1062, b"23000", b"Duplicate entry '1' for key 'PRIMARY'")),
        (C, wire_mysql.command(1)),
    ],
    "mongodb": [
        (C, op_msg({"hello": 1, "compression": ["zlib"], "$db": "admin"}, 1)),
        (S, op_msg({"isWritablePrimary": True, "compression": ["zlib"], "ok": 1.0}, 101, 1)),
        (C, op_msg({"find": "c", "filter": {"a": 1}, "$db": "d"}, 2)),
        (
            S,
            op_msg({"cursor": {"firstBatch": [{"a": "x", "b": [1, {"c": "y"}]}, {}], "id": 7}, "ok": 1}, 102, 2),
        ),
        (C, op_msg({"insert": "c", "$db": "d"}, 3, sections={"documents": [{"a": "x"}, {"a": 2.5}]})),
        (S, op_msg({"n": 0, "writeErrors": [{"index": 0, "errmsg": "no", "keyValue": {"a": "x"}}], "ok": 1}, 103, 3)),
        (C, op_msg({"delete": "c", "$db": "d"}, 4, flags=2, sections={"deletes": [{"q": {}, "limit": 0}]})),
        (C, op_msg({"getMore": 7, "collection": "c", "$db": "d"}, 5, flags=1 << 16)),
        (S, op_msg({"cursor": {"nextBatch": [{"a": "z"}], "id": 7, "ns": "d.c"}, "ok": 1}, 104, 5, flags=2)),
        (S, op_msg({"cursor": {"nextBatch": [], "id": 0, "ns": "d.c"}, "ok": 1}, 105, 104)),
        (C, op_msg({"ping": 1, "$db": "d"}, 6)),
        (S, op_msg({"ok": 0, "errmsg": "no", "code": 13, "codeName": "Unauthorized"}, 106, 6)),
    ],
    "tls": [(C, client_hello("db.example.org")), (S, b"\x16\3\3\0\1\2"), (C, b"\x17\3\3\0\1x")],
    "opaque": [(C, b"hello"), (S, b"world"), (C, b"again")],
}


# What rules may ask for: nothing, masked answers, masked requests, facts of bodies.
MODES = ("plain", "masked", "rewritten", "read")


def begun(name: str, mode: str) -> Inspector:
    inspector = PROTOCOLS[name].inspector()
    if mode == "read":
        inspector.read_bodies()
    return inspector


def drain(inspector: Inspector, mode: str, out: list[Event], wire: dict[Side, bytearray]) -> None:
    """The session's part, allowing everything and masking nothing away."""
    rewrite: Rewrite | None = bytes if mode == "rewritten" and inspector.rewrites else None
    while (event := inspector.next_event()) is not None:
        out.append(event)
        match event:
            case Request():
                wire[S] += inspector.allow(event, masked=mode == "masked", rewrite=rewrite)
            case Forward(side=side):
                wire[C if side is S else S] += event.raw
            case Reply():
                wire[C] += event.raw
            case Text():
                wire[C if event.side is S else S] += inspector.encode_text(event, event.data)
            case Rows():
                wire[C] += inspector.encode_row(event, event.values)
            case Unmaskable():
                refusal = inspector.refuse(next(e for e in out if isinstance(e, Request)), DENIAL)
                wire[C] += refusal.to_client
                return


def summary(events: list[Event]) -> list[Any]:
    """The events without what depends on how the bytes were cut: texts joined, forwarded bytes left out."""
    told: list[Any] = []
    for event in events:
        match event:
            case Text():
                if told and told[-1][0] == "text" and told[-1][1] == event.exchange and not told[-1][4]:
                    told[-1] = ("text", event.exchange, event.media, told[-1][3] + event.data, event.final)
                else:
                    told.append(("text", event.exchange, event.media, event.data, event.final))
            case Forward() | Reply():
                pass
            case Rows():
                width = len(event.columns) or 1
                for at in range(0, len(event.values) or 1, width):
                    told.append(("rows", event.columns, tuple(event.values[at : at + width]), event.binary))
            case Request():
                told.append((event.exchange, event.operation, event.text, event.params, tuple(event.facts.items())))
            case Outcome():
                told.append(("outcome", event.exchange, event.status, event.rows, event.failed))
            case Unmaskable():
                told.append(("unmaskable", event.exchange))
    return told


def play(name: str, dialogue: Dialogue, mode: str) -> list[Any]:
    inspector, events = begun(name, mode), list[Event]()
    wire = {C: bytearray(), S: bytearray()}
    for side, data in dialogue:
        inspector.receive_data(side, data)
        drain(inspector, mode, events, wire)
    for side in (S, C):
        inspector.receive_eof(side)
        drain(inspector, mode, events, wire)
    return summary(events)


def cut(dialogue: Dialogue, step: int) -> Dialogue:
    return [(side, data[at : at + step]) for side, data in dialogue for at in range(0, len(data), step)]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", NAMES)
def test_events_do_not_depend_on_the_cut(name: str, mode: str) -> None:
    """However a dialogue is cut into reads, the same requests, rows, texts and outcomes come of it."""
    whole = play(name, DIALOGUES[name], mode)
    assert len(whole) >= 2
    for step in (1, 2, 3, 5, 8, 13, 21):
        assert play(name, cut(DIALOGUES[name], step), mode) == whole


@pytest.mark.parametrize("name", NAMES)
def test_nothing_before_the_verdict(name: str) -> None:
    """Up to the first Request no event carries client bytes upstream."""
    for step in (1, 1 << 20):
        inspector = PROTOCOLS[name].inspector()
        for side, data in cut(DIALOGUES[name][:1], step):
            inspector.receive_data(side, data)
            event = inspector.next_event()
            while event is not None and not isinstance(event, Request):
                assert not (isinstance(event, Forward) and event.side is C)
                event = inspector.next_event()
            if event is not None:
                break


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_dialogues(name: str, data: st.DataObject) -> None:
    """Damaged dialogues raise ProtocolError or nothing, and the flow can be refused afterwards."""
    dialogue = [(side, bytearray(part)) for side, part in DIALOGUES[name]]
    for _ in range(data.draw(st.integers(1, 6))):
        _, part = dialogue[data.draw(st.integers(0, len(dialogue) - 1))]
        at = data.draw(st.integers(0, len(part)))
        part[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=4))
    mode, step = data.draw(st.sampled_from(MODES)), data.draw(st.integers(1, 64))
    inspector, wire = begun(name, mode), {C: bytearray(), S: bytearray()}
    events: list[Event] = []
    try:
        for side, part in cut([(side, bytes(part)) for side, part in dialogue], step):
            inspector.receive_data(side, part)
            drain(inspector, mode, events, wire)
    except ProtocolError:
        inspector.refuse(None, DENIAL)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=150, deadline=None)
@given(parts=st.lists(st.tuples(st.sampled_from([C, S]), st.binary(max_size=80)), max_size=8))
def test_any_bytes(name: str, parts: Dialogue) -> None:
    """Any bytes of either side, in any order, raise ProtocolError or nothing."""
    inspector, wire = PROTOCOLS[name].inspector(), {C: bytearray(), S: bytearray()}
    events: list[Event] = []
    try:
        for side, part in parts:
            inspector.receive_data(side, part)
            drain(inspector, "plain", events, wire)
    except ProtocolError:
        inspector.refuse(None, DENIAL)


@pytest.mark.parametrize("name", NAMES)
@given(data=st.binary(min_size=1, max_size=100))
def test_probes_answer(name: str, data: bytes) -> None:
    """A probe answers any bytes without raising, and a claim or a refusal stands however many more come."""
    protocol = PROTOCOLS[name]
    answer = protocol.probe(data)
    assert isinstance(answer, Probe)
    if answer is not Probe.MORE:
        assert protocol.probe(data + b"GET / HTTP/1.1") is answer


@pytest.mark.parametrize("name", NAMES)
def test_refused_flow_ends(name: str) -> None:
    """A flow refused as a whole is closed, and hands on nothing more."""
    inspector = PROTOCOLS[name].inspector()
    inspector.receive_data(C, DIALOGUES[name][0][1])
    assert isinstance(inspector.next_event(), Request)
    assert inspector.refuse(None, DENIAL).close
    inspector.receive_data(C, DIALOGUES[name][0][1])
    assert inspector.next_event() is None


@pytest.mark.parametrize("name", ["http", "http/2", "mysql", "opaque", "mongodb", "postgres", "redis"])
def test_memory_is_bounded_while_a_verdict_is_awaited(name: str) -> None:
    """A client that goes on sending while its request is held hits a limit instead of filling the memory."""
    inspector = PROTOCOLS[name].inspector()
    first = DIALOGUES[name][0][1]
    inspector.receive_data(C, first)
    assert isinstance(inspector.next_event(), Request)
    more = first * (65536 // len(first))
    tracemalloc.start()
    try:
        for _ in range(MEMORY_LIMIT * 2 // len(more)):
            inspector.receive_data(C, bytes(bytearray(more)))  # a copy, as a socket read would be
    except ProtocolError:
        pass
    finally:
        kept, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
    assert kept < MEMORY_LIMIT
