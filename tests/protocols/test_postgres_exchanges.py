"""Statements, prepared statements, portals and COPY as PostgreSQL sessions carry them."""

from __future__ import annotations

import struct
import uuid

import pytest

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.protocols.base import Forward, Outcome, Request
from enforcer.protocols.postgres import names
from enforcer.protocols.postgres.inspector import PostgresInspector
from tests.protocols import wire_postgres as wire
from tests.protocols.wire_postgres import (
    BOUND,
    PARSED,
    SYNC,
    C,
    S,
    bind,
    columns,
    complete,
    describe,
    execute,
    msg,
    opened,
    parse,
    query,
    ready,
    row,
)


def asked(talk: wire.Talk) -> list[tuple[str, str]]:
    return [(event.operation, event.text) for event in talk.events if isinstance(event, Request)]


def test_a_simple_query_is_one_exchange_however_many_statements_it_has() -> None:
    """Rows of all its statements are summed, the last tag counts, and the outcome follows ReadyForQuery."""
    talk = opened(PostgresInspector())
    talk.feed(C, query("select 1; insert into t values (1), (2)"))
    answer = columns("?column?") + row(b"1") + complete("SELECT 1") + complete("INSERT 0 2") + ready("T")
    assert talk.feed(S, answer) == [Forward(S, answer), Outcome(2, "INSERT", 3)]


def test_a_failed_query_has_its_sqlstate_as_outcome() -> None:
    """The SQLSTATE of ErrorResponse is the status, and the exchange failed."""
    talk = opened(PostgresInspector())
    talk.feed(C, query("select nonsense"))
    talk.feed(S, wire.error("42703") + ready())
    assert talk.of(Outcome) == [Outcome(2, "42703", failed=True)]


def test_an_extended_batch_is_judged_message_by_message_without_waiting() -> None:
    """Parse and Bind are each a request, in order, before the server said a word; the rest follows its Bind."""
    talk = opened(PostgresInspector())
    batch = parse("select $1") + bind(b"x") + describe("P") + execute() + SYNC
    talk.feed(C, batch + batch)
    assert asked(talk) == [("Parse", "select $1"), ("Execute", "select $1")] * 2
    assert talk.upstream == batch + batch
    answer = PARSED + BOUND + columns("a") + row(b"x") + complete("SELECT 1") + ready()
    talk.feed(S, answer + answer)
    assert talk.of(Outcome) == [
        Outcome(2, "ParseComplete"),
        Outcome(3, "SELECT", 1),
        Outcome(4, "ParseComplete"),
        Outcome(5, "SELECT", 1),
    ]


@pytest.mark.parametrize(
    ("oid", "raw", "text"),
    [
        (21, struct.pack(">h", -2), "-2"),
        (23, struct.pack(">i", 70000), "70000"),
        (20, struct.pack(">q", -(2**40)), str(-(2**40))),
        (16, b"\1", "true"),
        (25, "Zoë".encode(), "Zoë"),
        (1043, b"vc", "vc"),
        (17, b"\x00\xff", "\\x00ff"),
        (701, struct.pack(">d", 0.5), "0.5"),
        (700, struct.pack(">f", 0.25), "0.25"),
        (2950, bytes(range(16)), str(uuid.UUID(bytes=bytes(range(16))))),
        (0, b"\x00\x01", "\\x0001"),
        (23, b"\x01", "\\x01"),
    ],
)
def test_binary_parameters_are_read_by_their_type(oid: int, raw: bytes, text: str) -> None:
    """Well-known types become text, anything else hex; NULL is None."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("select $1, $2", "", oid) + bind(raw, None, formats=(1,)))
    assert talk.of(Request)[-1].params == (text, None)  # type: ignore[attr-defined]


def test_parameter_types_come_from_the_servers_description_too() -> None:
    """A statement prepared without types and described has them when it is bound."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("select $1", "s") + describe("S", "s") + SYNC)
    talk.feed(S, PARSED + msg("t", wire.i16(1), wire.i32(23)) + columns("a") + ready())
    talk.feed(C, bind(struct.pack(">i", 7), statement="s", formats=(1,)))
    assert talk.of(Request)[-1].params == ("7",)  # type: ignore[attr-defined]


def test_a_name_that_sql_prepared_is_shown_as_execute() -> None:
    """PREPARE in SQL makes names too; the Bind of one is recorded as what it does."""
    talk = opened(PostgresInspector())
    talk.feed(C, bind(b"1", statement="by_sql"))
    assert asked(talk) == [("Execute", 'EXECUTE "by_sql"')]


def test_a_failed_parse_does_not_change_what_a_name_means() -> None:
    """Parse of a name in use fails; a later Bind must show the statement the server still has."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("delete from t", "s") + SYNC)
    talk.feed(S, PARSED + ready())
    talk.feed(C, parse("select 1", "s") + SYNC)
    talk.feed(S, wire.error("42P05") + ready())
    talk.feed(C, bind(statement="s"))
    assert asked(talk)[-1] == ("Execute", "delete from t")


def test_close_forgets_a_statement() -> None:
    """After Close the name means nothing."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("select 1", "s") + wire.close("S", "s") + SYNC)
    talk.feed(S, PARSED + wire.CLOSED + ready())
    talk.feed(C, bind(statement="s"))
    assert asked(talk)[-1] == ("Execute", 'EXECUTE "s"')


@pytest.mark.parametrize(("sql", "tag"), [("DEALLOCATE S;", "DEALLOCATE"), ("discard all", "DISCARD ALL")])
def test_sql_can_forget_statements_too(sql: str, tag: str) -> None:
    """DEALLOCATE folds its name as SQL does; DISCARD ALL forgets every one."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("select 1", "s") + SYNC)
    talk.feed(S, PARSED + ready())
    talk.feed(C, query(sql))
    talk.feed(S, complete(tag) + ready())
    talk.feed(C, bind(statement="s"))
    assert asked(talk)[-1] == ("Execute", 'EXECUTE "s"')


def test_an_error_skips_the_rest_of_its_batch_and_nothing_of_the_next() -> None:
    """What the server skips up to Sync is over as `skipped`; the batch after it is answered as usual."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("broken") + bind() + execute() + SYNC + parse("fine") + bind() + execute() + SYNC)
    talk.feed(S, wire.error("42601") + ready() + PARSED + BOUND + complete("SELECT 0") + ready())
    assert talk.of(Outcome) == [
        Outcome(2, "42601", failed=True),
        Outcome(3, "skipped", failed=True),
        Outcome(4, "ParseComplete"),
        Outcome(5, "SELECT", 0),
    ]


def test_what_arrives_while_the_server_skips_is_judged_and_skipped() -> None:
    """The events do not depend on whether the error or the client's next message comes first."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("broken"))
    talk.feed(S, wire.error("42601"))
    talk.feed(C, bind() + execute() + SYNC)
    talk.feed(S, ready())
    assert talk.of(Outcome) == [Outcome(2, "42601", failed=True), Outcome(3, "skipped", failed=True)]


def test_a_portal_read_in_several_round_trips_is_judged_each_time() -> None:
    """A suspended portal's exchange ends with its round trip; the next Execute is a request with the same text."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("select n") + bind(portal="p") + execute("p", 2) + SYNC)
    talk.feed(S, PARSED + BOUND + row(b"1") + row(b"2") + wire.SUSPENDED + ready("T"))
    talk.feed(C, execute("p", 2) + SYNC)
    talk.feed(S, row(b"3") + complete("SELECT 1") + ready("T"))
    assert asked(talk)[-1] == ("Execute", "select n")
    assert talk.of(Outcome)[1:] == [Outcome(3, "PortalSuspended", 2), Outcome(4, "SELECT", 1)]


def test_copy_from_stdin_streams_while_the_server_asked_for_it() -> None:
    """CopyData and CopyDone pass in copy-in; the Sync that a driver sent behind Execute is the server's to ignore."""
    talk = opened(PostgresInspector())
    talk.feed(C, parse("copy t from stdin") + bind() + execute() + SYNC)
    talk.feed(S, PARSED + BOUND + msg("G", b"\0", wire.i16(0)))
    talk.sent()
    stream = msg("d", b"1\n") + msg("d", b"2" * 100_000) + msg("c")
    talk.feed(C, stream + SYNC)
    assert talk.upstream == stream + SYNC
    talk.feed(S, complete("COPY 2") + ready())
    assert talk.of(Outcome)[-1] == Outcome(3, "COPY", 2)


def test_a_broken_copy_swallows_the_data_still_under_way() -> None:
    """After the server gave a copy up, its data go nowhere, and the session goes on."""
    talk = opened(PostgresInspector())
    talk.feed(C, query("copy t from stdin"))
    talk.feed(S, msg("G", b"\0", wire.i16(0)))
    talk.feed(C, msg("d", b"bad\n"))
    talk.feed(S, wire.error("22P02") + ready())
    talk.sent()
    talk.feed(C, msg("d", b"more\n") + msg("c") + query("select 1"))
    assert talk.upstream == query("select 1")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (msg("F", wire.i32(1)), "reaches past its end"),
        (wire.function_call(1, b"a", formats=(2,)), "neither text nor binary"),
        (msg("d", b"x"), "message 'd' is not inspected while ready"),
        (b"?\0\0\0\4", "message '\\?' is not inspected"),
        (b"Q\0\0\0\3", "length 3 is below 4"),
        (b"Q\xff\xff\xff\xff", "length -1 is below 4"),
        (msg("Q", b"no end"), "has no end"),
        (msg("Q", b"a\0b"), "longer than its parts"),
        (msg("B", b"\0\0", wire.i16(0, 1), wire.i32(99)), "past its end"),
        (bind(b"a", formats=(2,)), "neither text nor binary"),
        (describe("S", "n" * 64), "over 63 bytes"),
        (describe("X"), "neither a statement nor a portal"),
        (msg("p", b"late"), "message 'p' is not inspected while ready"),
    ],
)
def test_client_messages_that_end_the_flow(data: bytes, reason: str) -> None:
    """FunctionCall, stray copy data, unknown types and parts that do not fit are the client's protocol error."""
    talk = opened(PostgresInspector())
    with pytest.raises(ProtocolError, match=reason) as fault:
        talk.feed(C, data)
    assert fault.value.side is C
    assert talk.upstream == b""


@pytest.mark.parametrize(
    ("sent", "answer", "reason"),
    [
        (b"", complete("SELECT 1"), "while awaiting nothing"),
        (b"", ready(), "while awaiting nothing"),
        (query("q"), BOUND, "message '2' while awaiting query"),
        (query("q"), msg("W", b"\0", wire.i16(0)), "message 'W' while awaiting query"),
        (query("q"), msg("d", b"x"), "message 'd' while awaiting query"),
        (query("q"), msg("Z", b"?"), "unknown transaction status"),
        (parse("q"), ready(), "message 'Z' while awaiting parse"),
        (query("q"), b"T\0\0\0\2", "length 2 is below 4"),
        (query("q"), msg("T", wire.i16(1)), "has no end"),
        (query("copy t from stdin") + query("x"), msg("G", b"\0", wire.i16(0)), "pipelined behind COPY"),
    ],
)
def test_server_messages_that_end_the_flow(sent: bytes, answer: bytes, reason: str) -> None:
    """A server that speaks out of turn, in the wrong state or malformed, is cut off."""
    talk = opened(PostgresInspector())
    talk.feed(C, sent)
    with pytest.raises(ProtocolError, match=reason):
        talk.feed(S, answer)


def test_a_message_too_long_to_be_held_ends_the_flow_at_its_header() -> None:
    """A statement over 16 MiB is refused before its body is gathered."""
    talk = opened(PostgresInspector())
    with pytest.raises(LimitExceeded):
        talk.feed(C, b"Q" + wire.i32(17 << 20))


def test_remembered_statements_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """More statements than the limit end the flow rather than be forgotten."""
    monkeypatch.setattr(names, "MAX_NAMES", 3)
    talk = opened(PostgresInspector())
    with pytest.raises(LimitExceeded):
        talk.feed(C, b"".join(parse("select 1", f"s{n}") for n in range(4)))


def test_events_before_a_fault_are_handed_on_first() -> None:
    """However the bytes are cut, what came before a fault is seen."""
    talk = opened(PostgresInspector())
    with pytest.raises(ProtocolError):
        talk.feed(C, SYNC + msg("F"))
    talk.inspector = opened(PostgresInspector()).inspector
    talk.inspector.receive_data(C, SYNC + msg("F"))
    assert talk.inspector.next_event() == Forward(C, SYNC)


def test_statements_that_are_not_utf8_are_read_as_latin1_and_say_so() -> None:
    """No byte of a statement is lost, and a fact warns that its letters were guessed."""
    talk = opened(PostgresInspector())
    talk.feed(C, msg("Q", b"select '\xe9'\0"))
    (request,) = talk.of(Request)
    assert isinstance(request, Request)
    assert (request.text, request.facts["encoding"]) == ("select '\xe9'", "latin-1")


def test_exchanges_the_server_left_open_fail_when_it_is_gone() -> None:
    """Every request gets an outcome, also when the connection breaks."""
    talk = opened(PostgresInspector())
    talk.feed(C, query("select 1"))
    assert talk.eof(S) == [Outcome(2, "connection closed", failed=True)]
