"""A failure of masking of any kind, in any protocol, refuses the message: nothing of it reaches the far side.

A protocol of the registry has a dialogue here, which passes masked where masking works, and where it fails does not
pass; or it is not read, and rules that want it masked are refused.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import hyperscan
import pytest
import structlog

from enforcer.errors import PolicyError
from enforcer.flow import Side
from enforcer.masking.errors import MaskError
from enforcer.masking.masker import scanner_of
from enforcer.policy.loader import read_policy
from enforcer.protocols import registry
from enforcer.protocols.base import Protocol
from enforcer.proxy.environment import Environment
from enforcer.verdict import MaskSpec
from tests.policy.policy_world import VOCABULARY
from tests.protocols import wire_mysql as my
from tests.protocols import wire_postgres as pg
from tests.protocols.test_http1_upgrade import AGREE, ASK
from tests.protocols.test_http2_grpc import CALL, framed, text_field
from tests.protocols.test_websocket import frame as message
from tests.protocols.test_websocket import frames
from tests.protocols.wire_http2 import DATA, END_STREAM, GET, OK, SETTINGS, frame, headers, opening, post
from tests.protocols.wire_mongodb import op_msg
from tests.proxy.stage import CARD, MASKED_CARD, Stage, allow, rule

DETECTORS = ("credit_card", "iban")
"""A set that nothing else uses: the scanner that is made to fail is this rule's alone, not the record's."""
MASK = MaskSpec(detectors=DETECTORS)
SECRET = CARD.encode()

Play = Callable[[Stage], Iterator[None]]


class Dialogue(NamedTuple):
    """What is said: up to a `yield` all is well; what comes then holds the secret, and `to` must not get it. `read`:
    what the far side reads in the bytes that it gets."""

    play: Play
    to: str = "client"
    port: int = 80
    read: Callable[[bytes], bytes] = bytes


def http1_request(stage: Stage) -> Iterator[None]:
    yield
    head = b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Type: text/plain\r\nContent-Length: 16\r\n\r\n"
    stage.client_sends(head + SECRET)
    if stage.dials:
        stage.connects()


def http1_target(stage: Stage) -> Iterator[None]:
    yield
    stage.client_sends(b"GET /a?card=" + SECRET + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    if stage.dials:
        stage.connects()


def http1_long_request(stage: Stage) -> Iterator[None]:
    stage.client_sends(b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
    yield
    stage.client_sends(b"10\r\n" + SECRET + b"\r\n0\r\n\r\n")
    if stage.dials:
        stage.connects()


def asked(stage: Stage) -> None:
    stage.client_sends(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
    stage.connects()


def http1_answer(stage: Stage) -> Iterator[None]:
    asked(stage)
    yield
    stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Length: 16\r\n\r\n" + SECRET)


def http1_stream(stage: Stage) -> Iterator[None]:
    asked(stage)
    stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
    stage.server_sends(b"600\r\n[" + b'"x",' * 383 + b'"y"\r\n')
    yield
    stage.server_sends(b'13\r\n,"' + SECRET + b'"\r\n1\r\n]\r\n0\r\n\r\n')


def events(stage: Stage) -> Iterator[None]:
    asked(stage)
    stage.server_sends(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    stage.server_sends(b"c\r\ndata: well\n\n\r\n")
    assert b"well" in stage.to_client
    yield
    stage.server_sends(b"18\r\ndata: " + SECRET + b"\n\n\r\n")


def http2_request(stage: Stage) -> Iterator[None]:
    yield
    fields = post(b"/", (b"content-type", b"text/plain"))
    stage.client_sends(opening() + headers(1, fields, end=False) + frame(DATA, END_STREAM, 1, SECRET))
    if stage.dials:
        stage.connects()


def http2_answer(stage: Stage) -> Iterator[None]:
    stage.client_sends(opening() + headers(1, GET))
    stage.connects()
    stage.server_sends(frame(SETTINGS, 0, 0) + headers(1, OK, end=False))
    yield
    stage.server_sends(frame(DATA, END_STREAM, 1, SECRET))


def grpc_request(stage: Stage) -> Iterator[None]:
    yield
    call = framed(text_field(1, SECRET))
    stage.client_sends(opening() + headers(1, CALL, end=False) + frame(DATA, END_STREAM, 1, call))
    if stage.dials:
        stage.connects()


def grpc_answer(stage: Stage) -> Iterator[None]:
    stage.client_sends(opening() + headers(1, CALL, end=False) + frame(DATA, END_STREAM, 1, framed(b"")))
    stage.connects()
    answer = [(b":status", b"200"), (b"content-type", b"application/grpc")]
    stage.server_sends(frame(SETTINGS, 0, 0) + headers(1, answer, end=False))
    yield
    stage.server_sends(frame(DATA, 0, 1, framed(text_field(1, SECRET))) + headers(1, [(b"grpc-status", b"0")]))


def switched(stage: Stage) -> None:
    stage.client_sends(ASK % b"")
    stage.connects()
    stage.server_sends(AGREE % b"")


def websocket_request(stage: Stage) -> Iterator[None]:
    switched(stage)
    yield
    stage.client_sends(message(0x81, SECRET))


def payloads(raw: bytes) -> bytes:
    """What a WebSocket's server reads: what its client sends comes under a key (RFC 6455, section 5.3)."""
    return b"".join(payload for _, payload in frames(raw.removeprefix(ASK % b""), Side.CLIENT))


def websocket_answer(stage: Stage) -> Iterator[None]:
    switched(stage)
    yield
    stage.server_sends(message(0x81, SECRET, client=False))


def queried(stage: Stage, sql: str) -> None:
    stage.client_sends(pg.startup(user="ana"))
    stage.connects()
    stage.server_sends(pg.AUTH_OK + pg.msg("S", pg.z("client_encoding"), pg.z("UTF8")) + pg.ready())
    stage.client_sends(pg.query(sql))


def postgres_statement(stage: Stage) -> Iterator[None]:
    queried(stage, "SELECT 1")
    stage.server_sends(pg.columns("a") + pg.row(b"1") + pg.complete("SELECT 1") + pg.ready())
    yield
    stage.client_sends(pg.query(f"SELECT '{CARD}'"))


def postgres_parameter(stage: Stage) -> Iterator[None]:
    queried(stage, "SELECT 1")
    stage.server_sends(pg.columns("a") + pg.row(b"1") + pg.complete("SELECT 1") + pg.ready())
    yield
    stage.client_sends(pg.parse("SELECT $1") + pg.bind(SECRET) + pg.execute() + pg.msg("S"))


def postgres_rows(stage: Stage) -> Iterator[None]:
    queried(stage, "SELECT card FROM cards")
    stage.server_sends(pg.columns("card"))
    yield
    stage.server_sends(pg.row(SECRET) + pg.complete("SELECT 1") + pg.ready())


def postgres_notice(stage: Stage) -> Iterator[None]:
    queried(stage, "SELECT f()")
    yield
    stage.server_sends(pg.error(M=f"no card {CARD}") + pg.ready())


def postgres_copy(stage: Stage) -> Iterator[None]:
    queried(stage, "COPY cards TO STDOUT")
    stage.server_sends(pg.msg("H", b"\0", pg.i16(1, 0)))
    yield
    stage.server_sends(pg.msg("d", SECRET + b"\n") + pg.msg("c") + pg.complete("COPY 1") + pg.ready())


def redis_command(*words: bytes) -> bytes:
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def redis_request(stage: Stage) -> Iterator[None]:
    stage.client_sends(redis_command(b"PING"))
    stage.connects()
    stage.server_sends(b"+PONG\r\n")
    yield
    stage.client_sends(redis_command(b"SET", b"k", SECRET))


def redis_value(stage: Stage) -> Iterator[None]:
    stage.client_sends(redis_command(b"GET", b"k"))
    stage.connects()
    yield
    stage.server_sends(b"$16\r\n" + SECRET + b"\r\n")


def redis_hash(stage: Stage) -> Iterator[None]:
    stage.client_sends(redis_command(b"HGETALL", b"k"))
    stage.connects()
    yield
    stage.server_sends(b"*2\r\n$4\r\ncard\r\n$16\r\n" + SECRET + b"\r\n")


def redis_error(stage: Stage) -> Iterator[None]:
    stage.client_sends(redis_command(b"GET", b"k"))
    stage.connects()
    yield
    stage.server_sends(b"-ERR no " + SECRET + b"\r\n")


def logged_in(stage: Stage) -> None:
    stage.settle()
    stage.connects()
    stage.server_sends(my.greeting())
    stage.client_sends(my.login())
    stage.server_sends(my.ok(2))


def mysql_statement(stage: Stage) -> Iterator[None]:
    logged_in(stage)
    yield
    stage.client_sends(my.query(b"SELECT '" + SECRET + b"'"))


def mysql_parameter(stage: Stage) -> Iterator[None]:
    logged_in(stage)
    stage.client_sends(my.command(0x16, b"SELECT ?"))
    stage.server_sends(my.prepared(1, 1, 0, 1) + my.column(2, b"?") + my.eof(3))
    yield
    stage.client_sends(my.execute(1, b"\0\1\xfd\0" + my.lenenc(SECRET)))


def mysql_rows(stage: Stage) -> Iterator[None]:
    logged_in(stage)
    stage.client_sends(my.query(b"SELECT card FROM customers"))
    stage.server_sends(my.count(1, 1) + my.column(2, b"card", b"card", b"customers") + my.eof(3))
    yield
    stage.server_sends(my.row(4, SECRET) + my.eof(5))


def mysql_error(stage: Stage) -> Iterator[None]:
    logged_in(stage)
    stage.client_sends(my.query(b"INSERT INTO customers SELECT 1"))
    yield
    stage.server_sends(my.err(1, 1062, b"23000", b"Duplicate entry '" + SECRET + b"' for key 'card'"))


def mongodb_request(stage: Stage) -> Iterator[None]:
    yield
    stage.client_sends(op_msg({"insert": "c", "$db": "d"}, 1, sections={"documents": [{"card": CARD}]}))
    if stage.dials:
        stage.connects()


def found(stage: Stage) -> None:
    stage.client_sends(op_msg({"find": "c", "$db": "d"}, 1))
    stage.connects()


def mongodb_document(stage: Stage) -> Iterator[None]:
    found(stage)
    yield
    stage.server_sends(op_msg({"cursor": {"firstBatch": [{"a": [{"card": CARD}]}], "id": 0}, "ok": 1}, 101, 1))


def mongodb_error(stage: Stage) -> Iterator[None]:
    found(stage)
    yield
    stage.server_sends(op_msg({"ok": 0, "errmsg": f"no {CARD}", "code": 2}, 101, 1))


# Protocol, by its name or, where two go by one, its package -> what is said in it.
DIALOGUES: dict[str, dict[str, Dialogue]] = {
    "http1": {
        "request": Dialogue(http1_request, "server"),
        "target": Dialogue(http1_target, "server"),
        "long request": Dialogue(http1_long_request, "server"),
        "answer": Dialogue(http1_answer),
        "streamed answer": Dialogue(http1_stream),
        "events": Dialogue(events),
        "WebSocket to the server": Dialogue(websocket_request, "server", read=payloads),
        "WebSocket to the client": Dialogue(websocket_answer),
    },
    "http2": {
        "request": Dialogue(http2_request, "server"),
        "answer": Dialogue(http2_answer),
        "gRPC request": Dialogue(grpc_request, "server"),
        "gRPC answer": Dialogue(grpc_answer),
    },
    "mysql": {
        "statement": Dialogue(mysql_statement, "server", port=3306),
        "parameter": Dialogue(mysql_parameter, "server", port=3306),
        "rows": Dialogue(mysql_rows, port=3306),
        "error": Dialogue(mysql_error, port=3306),
    },
    "postgres": {
        "statement": Dialogue(postgres_statement, "server", port=5432),
        "parameter": Dialogue(postgres_parameter, "server", port=5432),
        "rows": Dialogue(postgres_rows, port=5432),
        "error": Dialogue(postgres_notice, port=5432),
        "COPY": Dialogue(postgres_copy, port=5432),
    },
    "mongodb": {
        "request": Dialogue(mongodb_request, "server"),
        "document": Dialogue(mongodb_document),
        "error": Dialogue(mongodb_error),
    },
    "redis": {
        "request": Dialogue(redis_request, "server", port=6379),
        "value": Dialogue(redis_value, port=6379),
        "hash": Dialogue(redis_hash, port=6379),
        "error": Dialogue(redis_error, port=6379),
    },
}
SPOKEN = [(f"{protocol}: {name}", one) for protocol, named in DIALOGUES.items() for name, one in named.items()]
FAILURES = [
    *(MemoryError(), hyperscan.ScratchInUseError("scratch in use"), hyperscan.ScanTerminated(), ValueError("x")),
    MaskError("it cannot be masked"),  # what masking itself says where it gives up
]


@pytest.fixture(autouse=True)
def unsaid() -> Iterator[None]:
    """What is logged of a failure, with everything that was at hand in each frame, takes seconds to lay out."""
    with structlog.testing.capture_logs():
        yield


@pytest.fixture
def stage_of() -> Iterator[Callable[[Dialogue], Stage]]:
    """Stages whose rule masks requests or answers."""
    opened: list[Stage] = []

    def make(dialogue: Dialogue) -> Stage:
        masked = {"request_mask" if dialogue.to == "server" else "mask": MASK}
        opened.append(Stage(rule(**masked), port=dialogue.port))
        return opened[-1].__enter__()

    yield make
    for stage in opened:
        stage.__exit__(None, None, None)


def fail(monkeypatch: pytest.MonkeyPatch, failure: Exception) -> None:
    """From now on the engine fails whenever the rule's scanner asks it."""

    def scan(*_asked: object) -> None:
        raise failure

    monkeypatch.setattr(scanner_of(frozenset(DETECTORS)), "_scan", scan)


@pytest.mark.parametrize("dialogue", [one for _, one in SPOKEN], ids=[name for name, _ in SPOKEN])
def test_without_a_failure_it_passes_masked(dialogue: Dialogue, stage_of: Callable[[Dialogue], Stage]) -> None:
    """The secret reaches the far side hidden: the dialogues do lead through the mask."""
    stage = stage_of(dialogue)
    for _ in dialogue.play(stage):
        pass
    read = dialogue.read(stage.sent(dialogue.to))
    assert MASKED_CARD.encode() in read
    assert SECRET not in read


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("dialogue", [one for _, one in SPOKEN], ids=[name for name, _ in SPOKEN])
def test_a_failure_refuses_the_message(
    dialogue: Dialogue, failure: Exception, stage_of: Callable[[Dialogue], Stage], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the engine raises: not a byte of the message goes on, the flow ends as denied, and that is recorded."""
    stage = stage_of(dialogue)
    for _ in dialogue.play(stage):
        stage.take(dialogue.to)
        fail(monkeypatch, failure)
    read = dialogue.read(stage.sent(dialogue.to))
    assert SECRET[:6] not in read
    assert MASKED_CARD.encode() not in read
    assert stage.client.ended or stage.client.eof_sent or b"denied" in stage.to_client
    if isinstance(failure, MaskError):
        assert "unmaskable" in [row["status"] for row in stage.rows("exchanges")]
    else:
        assert stage.row("session_ends")["cause"] == f"internal error: {type(failure).__name__}"


def test_a_record_that_cannot_be_masked_is_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mask of the record fails: the request is refused, and its text is in no row."""
    with Stage(allow()) as stage:
        recorded: Environment = stage.environment
        monkeypatch.setattr(recorded.record_masker._scanner, "_scan", lambda *_asked: gc.no_such_thing)
        stage.client_sends(b"GET /a?card=" + SECRET + b" HTTP/1.1\r\nHost: a\r\n\r\n")
        assert stage.dials == []
        assert stage.row("session_ends")["cause"] == "internal error: AttributeError"
        assert CARD not in str(stage.records.lines)


def protocols() -> list[Protocol]:
    every = (*registry.PROTOCOLS, *registry.SERVER_FIRST, registry.OPAQUE)
    return list(dict.fromkeys(every))


@pytest.mark.parametrize("protocol", protocols(), ids=lambda one: type(one.inspector()).__module__.split(".")[2])
def test_every_protocol_fails_closed(protocol: Protocol, tmp_path: Path) -> None:
    """Whoever adds a protocol adds what is said in it when masking fails; or no rule can ask for it to be masked."""
    package = type(protocol.inspector()).__module__.split(".")[2]
    if package in DIALOGUES:
        return
    assert protocol.name in refused_masks(tmp_path), (
        f"{protocol.name} is masked, and nothing proves that it fails closed; add its dialogue to DIALOGUES of "
        "tests/proxy/test_masking_failures.py"
    )


def refused_masks(tmp_path: Path) -> list[str]:
    """The protocols that no rule may ask to be masked."""
    policy = tmp_path / "masked.yaml"
    refused = []
    for name in registry.NAMES:
        conditions = f"{{region: [EEA], protocol: [{name}]}}"
        rules = f"[{{name: all, to: {conditions}, action: allow, mask: {{response: [email]}}}}]"
        policy.write_text(f"policy: masked\nrules: {rules}\n")
        try:
            read_policy(policy, replace(VOCABULARY, protocols=frozenset(registry.NAMES)))
        except PolicyError as error:
            refused += [name] * (f"{name} traffic cannot be masked" in str(error))
    return refused
