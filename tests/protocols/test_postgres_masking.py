"""What of PostgreSQL's answers reaches a masker: the holes found in other gateways are closed here."""

from __future__ import annotations

import struct

import pytest

from enforcer.errors import ProtocolError
from enforcer.protocols.base import Forward, Outcome, Request, Rows, Text, Unmaskable
from enforcer.protocols.postgres import server
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


def masking() -> wire.Talk:
    return opened(PostgresInspector(), masked=True)


def rows(talk: wire.Talk) -> list[tuple[tuple[str, ...], list[bytes | None], tuple[bool, ...]]]:
    return [(event.columns, event.values, event.binary) for event in talk.events if isinstance(event, Rows)]


def test_cells_of_a_simple_query_have_the_names_of_its_row_description() -> None:
    """Names, NULLs and the text format arrive, and a rewritten row has correct lengths."""
    talk = masking()
    talk.feed(C, query("select name, card from t"))
    talk.sent()
    talk.feed(S, columns("name", "card") + row(b"ana", None) + complete("SELECT 1") + ready())
    assert rows(talk) == [(("t.name", "t.card"), [b"ana", None], (False, False))]
    assert talk.client == columns("name", "card") + row(b"ANA", None) + complete("SELECT 1") + ready()


def test_a_statement_described_once_keeps_its_names_for_ever() -> None:
    """Prepared re-execution sends no RowDescription; the column names must not be lost at ReadyForQuery."""
    talk = masking()
    talk.feed(C, parse("select ssn", "s") + describe("S", "s") + SYNC)
    talk.feed(S, PARSED + msg("t", wire.i16(0)) + columns("ssn") + ready())
    for _ in range(2):
        talk.feed(C, bind(statement="s") + execute() + SYNC)
        talk.feed(S, BOUND + row(b"x") + complete("SELECT 1") + ready())
    assert rows(talk) == [(("ssn",), [b"x"], (False,))] * 2


def test_a_described_portal_names_later_executions_of_its_statement() -> None:
    """pgjdbc describes the portal of the first execution only."""
    talk = masking()
    talk.feed(C, parse("select ssn", "s") + bind(statement="s") + describe("P") + execute() + SYNC)
    talk.feed(S, PARSED + BOUND + columns("ssn") + row(b"x") + complete("SELECT 1") + ready())
    talk.feed(C, bind(statement="s") + execute() + SYNC)
    talk.feed(S, BOUND + row(b"y") + complete("SELECT 1") + ready())
    assert rows(talk) == [(("ssn",), [b"x"], (False,)), (("ssn",), [b"y"], (False,))]


def test_formats_come_from_bind_because_a_described_statement_always_says_text() -> None:
    """Binary integers are marked binary; binary text is its own text and stays maskable."""
    talk = masking()
    talk.feed(C, parse("select n, s", "s") + describe("S", "s") + SYNC)
    described = msg(
        "T", wire.i16(2), *(n + struct.pack(">ihihih", 0, 0, o, -1, -1, 0) for n, o in ((b"n\0", 23), (b"s\0", 25)))
    )
    talk.feed(S, PARSED + msg("t", wire.i16(0)) + described + ready())
    talk.feed(C, bind(statement="s", results=(1,)) + execute() + SYNC)
    talk.feed(S, BOUND + row(b"\0\0\0\1", b"x") + complete("SELECT 1") + ready())
    assert rows(talk) == [(("n", "s"), [b"\0\0\0\1", b"x"], (True, False))]


def test_a_statement_nobody_described_has_the_names_of_its_text() -> None:
    """What no statement says is empty, as is all that comes of a function nobody knows; formats come from Bind."""
    talk = masking()
    talk.feed(C, parse("select mine(), b from t") + bind(results=(0, 1)) + execute() + SYNC)
    talk.feed(S, PARSED + BOUND + row(b"x", b"y") + complete("SELECT 1") + ready())
    assert rows(talk) == [(("", "t.b"), [b"x", b"y"], (False, True))]


def test_errors_are_texts_whose_values_can_be_replaced() -> None:
    """DETAIL prints whole rows, RAISE names tables as it likes: that goes to the masker, the rest of it stays."""
    talk = masking()
    talk.feed(C, query("insert"))
    talk.sent()
    talk.feed(S, wire.error("23505", M="dup", D="Key (card)=(4111) exists", t="people") + ready())
    (text,) = talk.of(Text)
    assert isinstance(text, Text)
    data = b"dup\0Key (card)=(4111) exists\0people"
    assert (text.exchange, text.media, text.data, text.final) == (2, "error", data, True)
    assert talk.client == wire.error("23505", M="DUP", D="KEY (CARD)=(4111) EXISTS", t="PEOPLE") + ready()


def test_a_masker_that_loses_a_separator_is_an_error() -> None:
    """Values could land in the wrong field; such a message is not sent."""
    text = Text(2, "error", b"a\0b", True, wire.error(M="a", D="b"))
    with pytest.raises(ProtocolError, match="does not fit its fields"):
        PostgresInspector().encode_text(text, b"ab")


def test_a_row_with_another_number_of_cells_is_an_error() -> None:
    """A mask may replace cells, never add or drop one."""
    with pytest.raises(ProtocolError, match="another number of cells"):
        PostgresInspector().encode_row(Rows(2, ("a",), [b"x"], (False,), row(b"x")), [])


@pytest.mark.parametrize("code", ["N", "A", "S"])
def test_notices_notifications_and_free_settings_are_cells_of_the_last_masked_exchange(code: str) -> None:
    """They may be data and may come when nothing is asked; a cell without a column is hidden by any column's rule."""
    made = {
        "N": wire.error("P0001", M="4111").replace(b"E", b"N", 1),
        "A": msg("A", wire.i32(7), b"channel\0", b"4111\0"),
        "S": msg("S", b"application_name\0", b"4111\0"),
    }[code]
    talk = masking()
    talk.feed(C, query("select 1"))
    talk.feed(S, columns("a") + complete("SELECT 0") + ready())
    talk.sent()
    (cells,) = talk.feed(S, made)
    assert isinstance(cells, Rows)
    assert (cells.exchange, cells.columns, cells.values, cells.binary) == (2, ("",), [b"4111"], (False,))
    assert talk.client == made
    assert talk.inspector.encode_row(cells, [None]) == made[:1] + wire.i32(len(made) - 5) + made[5:].replace(
        b"4111", b""
    )


@pytest.mark.parametrize(
    ("fields", "media"),
    [
        ({"sqlstate": "42P01", "M": 'relation "4" does not exist', "P": "15"}, "diagnostic"),
        ({"sqlstate": "23505", "M": 'violates "t_key"', "D": "Key (a)=(4) already exists."}, "error"),
        ({"sqlstate": "25P02", "M": "current transaction is aborted"}, "error"),
        ({"sqlstate": "42P01", "M": 'relation "4" does not exist'}, ""),
        ({"sqlstate": "22P02", "M": 'invalid input syntax for type integer: "4"'}, ""),
        ({"sqlstate": "P0001", "M": "4"}, ""),
        ({"sqlstate": "42601", "M": 'at or near "4"', "P": "1", "W": "SQL statement"}, ""),
        ({"sqlstate": "23505", "M": 'violates "t_key"', "W": "COPY t, line 1"}, ""),
    ],
)
def test_what_an_error_may_quote_decides_how_it_is_masked(fields: dict[str, str], media: str) -> None:
    """One about the statement quotes the statement, one about names quotes names and, in its detail, values in
    brackets; any other may be a value of any column: a conversion at run time, a function's own words."""
    talk = masking()
    talk.feed(C, query("select 1"))
    (event,) = talk.feed(S, wire.error(**fields))
    quoted = [value.encode() for name, value in fields.items() if name in "MDHWq"]
    if media:
        assert isinstance(event, Text)
        assert (event.media, event.data) == (media, b"\0".join(quoted))
    else:
        assert isinstance(event, Rows)
        assert (event.columns, event.values) == (("",) * len(quoted), quoted)


def test_a_functions_result_is_a_cell_without_a_column() -> None:
    """FunctionCall names a function by its OID: what it does is unknown to policy, and its result is of any table."""
    talk = masking()
    (request,) = talk.feed(C, wire.function_call(1598, b"\0\0\0\x07", b"x", formats=(1, 0), result=1))
    assert isinstance(request, Request)
    assert (request.operation, request.text) == ("FunctionCall", "function 1598")
    assert request.params == ("\\x00000007", "x")
    assert request.facts["operation"] == "unknown"
    answer = msg("V", wire.i32(4), b"secr")
    talk.sent()
    talk.feed(S, answer + ready())
    assert rows(talk) == [(("",), [b"secr"], (True,))]
    assert talk.client == answer + ready()
    cells = talk.of(Rows)[0]
    assert isinstance(cells, Rows)
    assert talk.inspector.encode_row(cells, [None]) == msg("V", wire.i32(-1))
    assert talk.of(Outcome)[-1] == Outcome(2, "FunctionCallResponse")


@pytest.mark.parametrize(
    ("function", "cells", "operation"),
    [
        (952, (b"\0\0\x40\0", b"\0\4\0\0"), "read"),
        (952, (b"\0\0\x40\0", b"\0\2\0\0"), "unknown"),
        (952, (b"\0\0\x40\0", b"\0\6\0\0"), "unknown"),
        (952, (b"16384", b"262144"), "unknown"),
        (954, (b"\0\0\0\0", b"\0\0\x40\0"), "read"),
        (955, (b"\0\0\0\0", b"x"), "unknown"),
        (964, (b"\0\0\x40\0",), "unknown"),
    ],
)
def test_large_objects_are_read_by_calls(function: int, cells: tuple[bytes, ...], operation: str) -> None:
    """lo_open to read and loread are reading; lo_open to write, in text, lowrite and lo_unlink may be anything."""
    talk = opened(PostgresInspector())
    (request,) = talk.feed(C, wire.function_call(function, *cells, formats=(1,), result=1))
    assert isinstance(request, Request)
    assert request.facts["operation"] == operation


def test_copied_text_may_be_cut_anywhere_and_ends_before_copy_done() -> None:
    """CSV: each CopyData is a piece of one text; what the masker holds back comes with its last, empty piece."""
    talk = masking()
    talk.feed(C, query("copy t to stdout csv"))
    begun = talk.feed(S, msg("H", b"\0", wire.i16(1, 0)) + msg("d", b"41") + msg("d", b"11\n"))
    assert [e.data for e in begun if isinstance(e, Text)] == [b"41", b"11\n"]
    ended = talk.feed(S, msg("c") + complete("COPY 1") + ready())
    assert ended[0] == Text(2, "copy", b"", True, b"")
    assert talk.inspector.encode_text(ended[0], b"held") == msg("d", b"held")
    assert talk.inspector.encode_text(ended[0], b"") == b""
    assert ended[1] == Forward(S, msg("c") + complete("COPY 1") + ready())


def test_copied_text_also_ends_before_an_error() -> None:
    """What the masker holds back is asked for before the message that breaks the copy off."""
    talk = masking()
    talk.feed(C, query("copy t to stdout csv"))
    events = talk.feed(S, msg("H", b"\0", wire.i16(1, 0)) + msg("d", b"x") + wire.error("57014") + ready())
    assert [e.media for e in events if isinstance(e, Text)] == ["copy", "copy", "error"]


@pytest.mark.parametrize("cut", range(1, 12))
def test_copied_lines_are_rows_however_they_are_cut(cut: int) -> None:
    """COPY's text format: cells without escapes, NULL, names of the table's columns; written again as it came."""
    talk = masking()
    talk.feed(C, query("COPY shop.t (a, b) TO STDOUT"))
    text = b"x\\ty\\\\\t\\N\n\t1\n"
    talk.feed(S, msg("H", b"\0", wire.i16(2, 0, 0)))
    talk.sent()
    for at in range(0, len(text), cut):
        talk.feed(S, msg("d", text[at : at + cut]))
    talk.feed(S, msg("c") + complete("COPY 2") + ready())
    names = ("shop.t.a", "shop.t.b")
    assert rows(talk) == [(names, [b"x\ty\\", None], (False, False)), (names, [b"", b"1"], (False, False))]
    first, second = b"X\\tY\\\\\t\\N\n", b"\t1\n"
    assert talk.client == msg("d", first) + msg("d", second) + msg("c") + complete("COPY 2") + ready()


def test_binary_copy_cannot_be_masked_and_nothing_of_it_is_handed_on() -> None:
    """Format 1 is refused as a whole when masked, and passes when not."""
    answer = msg("H", b"\1", wire.i16(1, 1)) + msg("d", b"PGCOPY\n")
    talk = masking()
    talk.feed(C, query("copy t to stdout binary"))
    (event,) = talk.feed(S, answer)
    assert isinstance(event, Unmaskable)
    assert event.exchange == 2
    assert talk.feed(S, ready()) == []
    assert talk.inspector.refuse(None, wire.DENIAL).to_client == wire.denied("FATAL")
    talk = opened(PostgresInspector())
    talk.feed(C, query("copy t to stdout binary"))
    assert talk.feed(S, answer) == [Forward(S, answer)]


def test_half_a_row_is_never_handed_on_when_masked() -> None:
    """A connection that breaks inside a row loses the row rather than show it unmasked."""
    talk = masking()
    talk.feed(C, query("select card"))
    talk.sent()
    talk.feed(S, columns("card") + row(b"4111111111111111")[:-3])
    talk.eof(S)
    assert talk.client == columns("card")


def test_a_masked_row_over_the_limit_ends_the_flow_at_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would have to be held whole; unmasked it passes in pieces."""
    monkeypatch.setattr(server, "MAX_ROW", 1000)
    talk = masking()
    talk.feed(C, query("select card"))
    with pytest.raises(ProtocolError, match="over the limit"):
        talk.feed(S, columns("card") + row(b"x" * 2000)[:100])


@pytest.mark.parametrize(
    "bad",
    [msg("D", wire.i16(1)), msg("D", wire.i16(2), wire.i32(1), b"x"), msg("D", wire.i16(1), wire.i32(-2)), msg("D")],
)
def test_rows_whose_cells_do_not_fill_them_end_the_flow(bad: bytes) -> None:
    """Cells that reach past the row, or leave some of it over, are the server's protocol error."""
    talk = masking()
    talk.feed(C, query("select"))
    with pytest.raises(ProtocolError, match="server"):
        talk.feed(S, columns("a") + bad)


def test_a_row_that_does_not_fit_its_description_ends_the_flow() -> None:
    """In the simple protocol names and cells must agree."""
    talk = masking()
    talk.feed(C, query("select"))
    with pytest.raises(ProtocolError, match="does not fit the RowDescription"):
        talk.feed(S, columns("a") + row(b"x", b"y"))
