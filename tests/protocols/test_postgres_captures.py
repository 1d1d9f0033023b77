"""Recorded sessions of real clients, cut in every way: the inspector must not care how bytes arrive."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Event, Forward, Outcome, Request, Rows
from enforcer.protocols.postgres.inspector import PostgresInspector
from tests.protocols.wire_postgres import C, S, Talk, capture

NAMES = ["psql", "psycopg-pipeline", "asyncpg-prepared", "pgjdbc"]
CUT_ANYWHERE = NAMES[:3]


def joined(events: list[Event]) -> list[Event]:
    """Neighbouring forwards of one side count as one, as do neighbouring rows: that is what the other end sees."""
    result: list[Event] = []
    for event in events:
        last = result[-1] if result else None
        if isinstance(event, Forward) and isinstance(last, Forward) and last.side is event.side:
            result[-1] = Forward(event.side, last.raw + event.raw)
        elif isinstance(event, Rows) and isinstance(last, Rows) and event.exchange == last.exchange:
            assert (event.columns, event.binary) == (last.columns, last.binary)
            result[-1] = replace(last, values=last.values + event.values, raw=last.raw + event.raw)
        else:
            result.append(event)
    return result


def run(pieces: list[tuple[Side, bytes]], *, masked: bool) -> Talk:
    talk = Talk(PostgresInspector(), masked=masked)
    for side, data in pieces:
        talk.feed(side, data)
    talk.eof(S)
    return talk


def total(pieces: list[tuple[Side, bytes]], side: Side) -> bytes:
    return b"".join(data for whose, data in pieces if whose is side)


@pytest.mark.parametrize("name", NAMES)
def test_an_unmasked_session_passes_byte_for_byte(name: str) -> None:
    """With everything allowed and nothing masked both ends receive exactly what the other one sent."""
    pieces = capture(name)
    talk = run(pieces, masked=False)
    assert (talk.upstream, talk.client) == (total(pieces, C), total(pieces, S))


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_byte_by_byte_gives_the_same_events(name: str, masked: bool) -> None:
    """The smallest pieces and the recorded ones make the same events."""
    pieces = capture(name)
    bytewise = [(side, data[i : i + 1]) for side, data in pieces for i in range(len(data))]
    assert joined(run(bytewise, masked=masked).events) == joined(run(pieces, masked=masked).events)


@pytest.mark.parametrize("name", CUT_ANYWHERE)
@given(data=st.data(), masked=st.booleans())
def test_any_cut_gives_the_same_events(name: str, data: st.DataObject, masked: bool) -> None:
    """Pieces of any size make the same events."""
    pieces = capture(name)
    cut = []
    for side, piece in pieces:
        marks = data.draw(st.lists(st.integers(0, len(piece)), max_size=4).map(sorted))
        edges = [0, *marks, len(piece)]
        cut += [(side, piece[a:b]) for a, b in pairwise(edges)]
    assert joined(run(cut, masked=masked).events) == joined(run(pieces, masked=masked).events)


@pytest.mark.parametrize("name", CUT_ANYWHERE)
@given(data=st.data())
def test_damaged_sessions_end_as_protocol_errors_only(name: str, data: st.DataObject) -> None:
    """Whatever byte is changed on whichever side, nothing but ProtocolError is raised."""
    pieces = capture(name)
    where = data.draw(st.integers(0, len(pieces) - 1))
    side, piece = pieces[where]
    at = data.draw(st.integers(0, len(piece) - 1))
    changed = piece[:at] + bytes((data.draw(st.integers(0, 255)),)) + piece[at + 1 :]
    try:
        run([*pieces[:where], (side, changed), *pieces[where + 1 :]], masked=True)
    except ProtocolError as fault:
        assert fault.reason  # noqa: PT017 (both ways out are right; the type is what is proved)


def test_every_request_has_exactly_one_outcome() -> None:
    """In every capture each exchange begins once and ends once."""
    for name in NAMES:
        talk = run(capture(name), masked=True)
        begun = [event.exchange for event in talk.events if isinstance(event, Request)]
        ended = [event.exchange for event in talk.events if isinstance(event, Outcome)]
        assert sorted(ended) == begun == list(range(1, len(begun) + 1))


def test_psql_is_read_as_it_was_typed() -> None:
    """Statements, rows and outcomes of the psql capture are those of its script."""
    talk = run(capture("psql"), masked=True)
    outcomes = [(event.status, event.rows) for event in talk.events if isinstance(event, Outcome)]
    assert outcomes == [
        ("AuthenticationOk", None),
        ("CREATE TABLE", None),
        ("INSERT", 2),
        ("SELECT", 2),
        ("SELECT", 1),
        ("23505", None),
        ("COPY", 2),
        ("BEGIN", None),
        ("42703", None),
        ("ROLLBACK", None),
        ("DROP TABLE", None),
    ]
    first = next(event for event in talk.events if isinstance(event, Rows) and any(event.columns))
    assert first.columns == ("people.id", "people.name", "people.card")
    assert first.values[:3] == [b"1", b"Ana", b"4111 1111 1111 1111"]


def test_asyncpg_rows_of_a_statement_described_once_have_names_and_formats() -> None:
    """asyncpg describes at prepare and executes in binary: int4 is binary, text is text, on every execution."""
    talk = run(capture("asyncpg-prepared"), masked=True)
    rows = [event for event in talk.events if isinstance(event, Rows) and event.columns[0] == "i"]
    assert [(row.columns, row.binary) for row in rows] == [(("i", "s"), (True, False))] * 3
    assert [len(row.values) for row in rows] == [6] * 3
    assert [row.values[:2] for row in rows] == [[bytes((0, 0, 0, n)), f"value {n}".encode()] for n in range(3)]
    bound = [event.params for event in talk.events if isinstance(event, Request) and event.params]
    assert bound == [(str(n), f"value {n}") for n in range(3)]


def test_jdbc_rows_have_their_columns_and_formats_however_often_they_are_asked_for() -> None:
    """Described with its first executions, then by name and in binary, then two rows at a time from a portal: every
    cell has its column, and what is binary is told."""
    talk = run(capture("pgjdbc"), masked=True)
    names = tuple(f"customers.{name}" for name in ("id", "name", "card", "digits", "born"))
    rows = [event for event in talk.events if isinstance(event, Rows) and len(event.columns) == len(names)]
    assert {row.columns for row in rows} == {names}
    assert sum(len(row.values) for row in rows) == 5 * (9 * 2 + 7 * 5)
    assert {row.binary for row in rows} == {(False,) * 5, (True, False, False, True, True)}
    fetched = [event for event in talk.events if isinstance(event, Request) and event.operation == "Execute"]
    assert len(fetched) > 9 + 7 * 3


def test_psycopg_pipelines_and_binary_parameters_are_read() -> None:
    """Five pipelined executions show their parameters; int2 is binary on the wire."""
    talk = run(capture("psycopg-pipeline"), masked=False)
    inserts = [e for e in talk.events if isinstance(e, Request) and e.operation == "Execute" and "insert" in e.text]
    assert [e.params for e in inserts] == [(str(n), f"row {n}") for n in range(5)]
