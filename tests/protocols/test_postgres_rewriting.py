"""Values hidden in what a client of PostgreSQL says: within literals and parameters, and nowhere else."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import Unwritable
from enforcer.protocols.base import Forward, Request, Text
from enforcer.protocols.postgres import rewriting
from enforcer.protocols.postgres.inspector import PostgresInspector
from tests.protocols import wire_postgres as wire
from tests.protocols.wire_postgres import SYNC, C, S, bind, complete, execute, msg, opened, parse, query, ready

CARD = b"4111111111111111"
HIDDEN = b"************1111"


def hide(data: bytes) -> bytes:
    """A masker's part: the card number, wherever it is, and mail addresses, which leave nothing."""
    return re.sub(rb"[a-z]+@[a-z.]+", lambda match: b"*" * len(match[0]), data.replace(CARD, HIDDEN))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"select 1", b"select 1"),
        (b"select '4111111111111111'", b"select '************1111'"),
        (b"select E'\\n4111111111111111\\'x'", b"select E'\\n************1111\\'x'"),
        (
            b"select $$4111111111111111$$, $a$ 4111111111111111 $a$",
            b"select $$************1111$$, $a$ ************1111 $a$",
        ),
        (b"select 'it''s 4111111111111111'", b"select 'it''s ************1111'"),
        (b"select U&'4111111111111111'", b"select U&'************1111'"),
        (b'select "4111111111111111"', b'select "************1111"'),
        (b"select 4111111111111111", b"select  NULL "),
        (b"select 1/4111111111111111", b"select 1/ NULL "),
        (b"select 1 -- 4111111111111111\n, 2", b"select 1  \n, 2"),
        (b"select /* me@a.b */ 1", b"select   1"),
        (b"select /* /* me@a.b */ */ 'me@a.b'", b"select   '******'"),
    ],
)
def test_a_statement_stays_the_one_that_was_judged(text: bytes, expected: bytes) -> None:
    """Literals keep their quotes, a number becomes NULL, a comment goes: asterisks begin or end nothing."""
    assert rewriting.statement(text, hide) == expected


@pytest.mark.parametrize("text", [b"select me@a.b", b"select 'x' @ me@a.b"])
def test_a_value_outside_of_literals_is_refused(text: bytes) -> None:
    """Nobody can say what the statement would be then."""
    with pytest.raises(Unwritable, match="not within a literal"):
        rewriting.statement(text, hide)


PIECES = st.sampled_from(
    ["'", "''", '"', "$$", "$a$", "--", "\n", "/*", "*/", "\\", "E'", "me@a.b", CARD.decode(), " ", "1", "x", ";", "/"]
)


@given(st.lists(PIECES, max_size=12).map(lambda pieces: "".join(pieces).encode()))
def test_no_asterisk_is_outside_of_literals(text: bytes) -> None:
    """Whatever the statement: what is new in it is within a literal, or it is NULL or a blank, or it is refused."""
    try:
        out = rewriting.statement(text, hide)
    except Unwritable:
        return
    for kind, start, end in rewriting._tokens(out):
        if kind not in ("literal", "comment"):
            assert b"*" not in out[start:end].replace(b"*/", b"") or out[start:end] in text


def allow(talk: wire.Talk, data: bytes) -> bytes:
    """What goes to the server of `data` when requests are masked."""
    talk.sent()
    talk.inspector.receive_data(C, data)
    while (event := talk.inspector.next_event()) is not None:
        if isinstance(event, Request):
            talk.upstream += talk.inspector.allow(event, masked=False, rewrite=hide)
        elif isinstance(event, Forward) and event.side is C:
            talk.upstream += event.raw
        elif isinstance(event, Text) and event.side is C:
            talk.upstream += talk.inspector.encode_text(event, hide(event.data))
    return talk.sent()[0]


def test_statements_parameters_and_copied_data_are_hidden() -> None:
    """Query, Parse, Bind in text and in binary, FunctionCall, and COPY's data in any pieces."""
    talk = opened(PostgresInspector())
    assert allow(talk, query("select '4111111111111111'")) == query("select '************1111'")
    talk.feed(S, complete("SELECT 0") + ready())
    batch = parse("select '4111111111111111', $1, $2", "", 25, 17) + bind(CARD, CARD, formats=(1,)) + execute() + SYNC
    hidden = (
        parse("select '************1111', $1, $2", "", 25, 17) + bind(HIDDEN, None, formats=(1,)) + execute() + SYNC
    )
    assert allow(talk, batch) == hidden
    talk.feed(S, wire.PARSED + wire.BOUND + complete("SELECT 0") + ready())
    assert allow(talk, wire.function_call(7, CARD)) == wire.function_call(7, HIDDEN)
    talk.feed(S, msg("V", wire.i32(-1)) + ready())
    allow(talk, query("copy t from stdin"))
    talk.feed(S, msg("G", b"\0", wire.i16(1, 0)))
    assert allow(talk, msg("d", CARD + b"\n") + msg("c")) == msg("d", HIDDEN + b"\n") + msg("c")
    talk.feed(S, complete("COPY 1") + ready())
    assert allow(talk, query("select 1")) == query("select 1")
