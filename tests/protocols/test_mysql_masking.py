"""Masking MySQL's answers and requests: both protocols, every type, errors, OKs, and however the bytes are cut."""

from __future__ import annotations

import struct
from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.flow import Side
from enforcer.masking.masker import masker_for
from enforcer.protocols.base import Request, Rows, Text, Unmaskable
from enforcer.protocols.mysql import PROTOCOL
from enforcer.proxy.exchange import RequestMask
from enforcer.verdict import Column, MaskSpec
from tests.conversation import DENIAL, Conversation
from tests.protocols import wire_mysql as my
from tests.protocols.test_mysql import MASKABLE, logged_in

CARD, MASKED = b"4111111111111111", b"************1111"
UNSIGNED = 0x20


def hide(data: bytes) -> bytes:
    return data.replace(CARD, MASKED)


def hidden(rows: Rows) -> list[bytes | None]:
    return [value if value is None else hide(value) for value in rows.values]


def masking(capabilities: int = my.BASIC, **how: Any) -> Conversation:
    return logged_in(capabilities, mask_rows=hidden, mask_text=lambda text: hide(text.data), **how)


def asks(talk: Conversation, statement: bytes) -> None:
    talk.client_sends(my.query(statement))
    talk.expect_request("Query")
    talk.take_upstream()


def test_a_row_is_masked_and_its_columns_are_named() -> None:
    """By where the server says that a column comes from, what it is called, and what the statement says."""
    seen: list[tuple[str, ...]] = []

    def look(rows: Rows) -> list[bytes | None]:
        seen.append(rows.columns)
        return hidden(rows)

    with logged_in(mask_rows=look) as talk:
        asks(talk, b"SELECT card AS number, UPPER(name) FROM customers c")
        head = (
            my.count(1, 2)
            + my.column(2, b"number", b"card", b"c", b"customers")
            + my.column(3, b"UPPER(name)")
            + my.eof(4)
        )
        talk.server_sends(head + my.row(5, CARD, None) + my.eof(6))
        talk.expect_client(head + my.row(5, MASKED, None) + my.eof(6))
        talk.expect_outcome("OK", rows=1)
    number, name = seen[0]
    assert {"customers.card", "c.number"} <= set(number.split("\0"))
    assert "customers.name" in name.split("\0")


def test_a_column_of_unknown_origin_has_no_name() -> None:
    """What a procedure returns may be anything: an empty name is hidden by every rule for columns."""
    seen: list[tuple[str, ...]] = []

    def look(rows: Rows) -> list[bytes | None]:
        seen.append(rows.columns)
        return rows.values

    with logged_in(mask_rows=look) as talk:
        for statement in (b"CALL p()", b"SHOW WARNINGS", b"SHOW TABLES"):
            asks(talk, statement)
            talk.server_sends(my.result(b"x", names=(b"a",)))
            talk.take_client()
            talk.expect_outcome("OK", rows=1)
    assert seen == [("",), ("",), ("customers.a",)]


@pytest.mark.parametrize(
    ("kind", "flags", "raw", "text"),
    [
        (1, 0, b"\x80", b"-128"),
        (2, UNSIGNED, b"\xff\xff", b"65535"),
        (3, 0, struct.pack("<i", -7), b"-7"),
        (8, 0, struct.pack("<q", int(CARD)), CARD),
        (8, UNSIGNED, b"\xff" * 8, b"18446744073709551615"),
        (4, 0, struct.pack("<f", 1.5), b"1.5"),
        (5, 0, struct.pack("<d", 1e300), b"1e+300"),
        (10, 0, b"\x04\xe8\x07\x02\x1d", b"2024-02-29"),
        (10, 0, b"\x00", b"0000-00-00"),
        (12, 0, b"\x07\xe8\x07\x02\x1d\x17\x3b\x3b", b"2024-02-29 23:59:59"),
        (7, 0, b"\x0b\xe8\x07\x02\x1d\x17\x3b\x3b\x40\xe2\x01\x00", b"2024-02-29 23:59:59.123456"),
        (11, 0, b"\x0c\x01\x22\x00\x00\x00\x16\x3b\x3b\x01\x00\x00\x00", b"-838:59:59.000001"),
        (246, 0, b"\x051.250", b"1.250"),
        (253, 0, b"\x10" + CARD, CARD),
        (252, 0, b"\x03\0\xff\xfe", b"\0\xff\xfe"),
        (245, 0, b"\x02{}", b"{}"),
    ],
)
def test_cells_of_the_binary_protocol(kind: int, flags: int, raw: bytes, text: bytes) -> None:
    """Each type is shown to the masker as the text protocol has it; hidden, a text is masked and all else is NULL."""
    shown: list[bytes | None] = []

    def look(rows: Rows) -> list[bytes | None]:
        shown.extend(rows.values)
        return hidden(rows)

    names = enumerate((b"a", b"b", b"c"), 2)
    columns = b"".join(my.column(sequence, name, name, b"t", kind=kind, flags=flags) for sequence, name in names)
    masked = {CARD: b"\x10" + MASKED if kind == 253 else None}.get(text, raw)
    with logged_in(mask_rows=look) as talk:
        talk.client_sends(my.command(0x16, b"SELECT a, b, c FROM t"))
        talk.expect_request("Prepare")
        talk.server_sends(my.prepared(1, 1, 3, 0) + columns + my.eof(5))
        talk.expect_outcome("prepared")
        talk.client_sends(my.execute(1))
        talk.expect_request("Execute")
        talk.take_client()
        talk.take_upstream()
        head = my.count(1, 3) + columns + my.eof(5)
        talk.server_sends(head + my.binary_row(6, b"\x08", raw, raw) + my.eof(7))
        expected = my.binary_row(6, b"\x08", raw, raw) if masked == raw else None
        if expected is None:
            nulls = b"\x1c" if masked is None else b"\x08"
            expected = my.binary_row(6, nulls, *([] if masked is None else [masked, masked]))
        talk.expect_client(head + expected + my.eof(7))
        talk.expect_outcome("OK", rows=1)
    assert shown == [text, None, text]


@pytest.mark.parametrize("kind", [8, 10, 246])
def test_a_number_or_date_of_the_text_protocol_becomes_null(kind: int) -> None:
    """Drivers make numbers of what stands in such a column, and would fail on asterisks."""
    with masking() as talk:
        asks(talk, b"SELECT n FROM t")
        head = my.count(1, 1) + my.column(2, b"n", b"n", b"t", kind=kind) + my.eof(3)
        talk.server_sends(head + my.row(4, CARD) + my.eof(5))
        talk.expect_client(head + my.row(4, None) + my.eof(5))
        talk.expect_outcome("OK", rows=1)


@pytest.mark.parametrize(
    ("kind", "raw", "number", "sent"),
    [
        (3, struct.pack("<i", 4711), b"4000", struct.pack("<i", 4000)),
        (3, struct.pack("<i", 4711), b"99999999999", None),
        (5, struct.pack("<d", 1.5), b"1", struct.pack("<d", 1.0)),
        (246, my.lenenc(b"47.11"), b"40", my.lenenc(b"40")),
        (10, b"\x04\xe8\x07\x02\x1d", b"2024", None),
    ],
)
def test_a_number_in_place_of_a_number_stays_one(kind: int, raw: bytes, number: bytes, sent: bytes | None) -> None:
    """What an operator makes of it, where it fits the type; no date is made of a year."""
    with logged_in(mask_rows=lambda _rows: [number]) as talk:
        talk.client_sends(my.command(0x16, b"SELECT n FROM t"))
        talk.expect_request("Prepare")
        column = my.column(2, b"n", b"n", b"t", kind=kind)
        talk.server_sends(my.prepared(1, 1, 1, 0) + column + my.eof(3))
        talk.expect_outcome("prepared")
        talk.client_sends(my.execute(1))
        talk.expect_request("Execute")
        talk.take_client()
        talk.take_upstream()
        talk.server_sends(my.count(1, 1) + column + my.eof(3) + my.binary_row(4, b"\0", raw) + my.eof(5))
        row = my.binary_row(4, b"\4") if sent is None else my.binary_row(4, b"\0", sent)
        talk.expect_client(my.count(1, 1) + column + my.eof(3) + row + my.eof(5))
        talk.expect_outcome("OK", rows=1)


def test_without_eofs_rows_end_with_an_ok() -> None:
    """CLIENT_DEPRECATE_EOF: what stands in that OK is masked as well."""
    capabilities = my.BASIC | my.DEPRECATE_EOF
    with masking(capabilities) as talk:
        asks(talk, b"SELECT card FROM customers")
        head = my.count(1, 1) + my.column(2, b"card", b"card", b"customers")
        talk.server_sends(head + my.row(3, CARD) + my.ok(4, header=0xFE, tail=b"of " + CARD))
        talk.expect_client(head + my.row(3, MASKED) + my.ok(4, header=0xFE, tail=b"of " + MASKED))
        talk.expect_outcome("OK", rows=1)


def test_errors_are_masked() -> None:
    """A duplicate key quotes the value that is there already."""
    words = b"Duplicate entry '%s' for key 'card'"
    with masking() as talk:
        asks(talk, b"INSERT INTO customers SELECT * FROM other")
        talk.server_sends(my.err(1, 1062, b"23000", words % CARD))
        talk.expect_client(my.err(1, 1062, b"23000", words % MASKED))
        talk.expect_outcome("1062", failed=True)


def test_an_insert_id_that_is_to_be_hidden_is_none() -> None:
    """LAST_INSERT_ID(expression) puts any number into an OK; so does a tracked variable any text."""
    tracked = my.lenenc(b"") + my.lenenc(b"\0" + my.lenenc(my.lenenc(b"init_connect") + my.lenenc(CARD)))
    clean = my.lenenc(b"") + my.lenenc(b"\0" + my.lenenc(my.lenenc(b"init_connect") + my.lenenc(MASKED)))
    with masking(MASKABLE) as talk:
        asks(talk, b"UPDATE t SET a = LAST_INSERT_ID(card)")
        talk.server_sends(my.ok(1, affected=1, last_id=int(CARD), status=my.TRACKED | 2, tail=tracked))
        talk.expect_client(my.ok(1, affected=1, last_id=0, status=my.TRACKED | 2, tail=clean))
        talk.expect_outcome("OK", rows=1)


def test_defaults_of_columns_are_not_told() -> None:
    """COM_FIELD_LIST returns what a column is when nothing is said, which is data."""
    column = my.column(1, b"card", b"card", b"customers")
    with masking() as talk:
        talk.client_sends(my.command(4, b"customers\0"))
        talk.expect_request("FieldList", "SHOW COLUMNS FROM `customers`")
        talk.take_upstream()
        talk.server_sends(my.packet(column[4:] + my.lenenc(CARD), 1) + my.eof(2))
        talk.expect_client(my.packet(column[4:] + b"\xfb", 1) + my.eof(2))
        talk.expect_outcome("OK")


def test_a_result_in_a_character_set_that_cannot_be_scanned_is_refused() -> None:
    """In words, with the number that the client is due; not a row of it goes on."""
    with masking() as talk:
        asks(talk, b"SELECT name FROM customers")
        talk.server_sends(my.count(1, 1) + my.column(2, b"name", b"name", b"customers", collation=my.GBK) + my.eof(3))
        said = talk.take_client()
        assert said.startswith(my.count(1, 1) + said[5:8] + b"\x02\xff")
        assert talk.closed


def test_what_requests_say_is_rewritten() -> None:
    """The statement, and every parameter: texts masked, numbers NULL, those sent ahead as well."""
    with logged_in(rewrite=hide) as talk:
        talk.client_sends(my.query(b"SELECT '" + CARD + b"'"))
        talk.expect_request("Query")
        talk.expect_upstream(my.query(b"SELECT '" + MASKED + b"'"))
        talk.server_sends(my.result(b"x", names=(b"a",)))
        talk.take_client()
        talk.expect_outcome("OK", rows=1)
        talk.client_sends(my.command(0x16, b"SELECT ?, ?, ?"))
        talk.expect_request("Prepare")
        columns = b"".join(my.column(sequence, b"?") for sequence in (2, 3, 4))
        talk.server_sends(my.prepared(1, 1, 0, 3) + columns + my.eof(5))
        talk.expect_outcome("prepared")
        talk.take_client()
        talk.take_upstream()
        talk.client_sends(my.command(0x18, struct.pack("<IH", 1, 2) + CARD))
        number = struct.pack("<q", int(CARD))
        types = b"\1\xfd\0\x08\0\xfc\0"
        talk.client_sends(my.execute(1, b"\0" + types + my.lenenc(CARD) + number))
        talk.expect_request("Execute", params=(CARD.decode(), CARD.decode(), CARD.decode()))
        ahead = my.command(0x18, struct.pack("<IH", 1, 2) + MASKED)
        talk.expect_upstream(ahead + my.execute(1, b"\2" + types + my.lenenc(MASKED)))


@pytest.mark.parametrize(
    ("said", "sent"),
    [
        (b"SELECT '%s'", b"SELECT '************1111'"),
        (b'SELECT "a \\" %s"', b"SELECT 'a \" ************1111'"),
        (b"SELECT 'it''s \\\\ %s'", b"SELECT 'it''s \\\\ ************1111'"),
        (b"SELECT 1 /* %s */ + n'%s' # %s", b"SELECT 1   + '************1111'  "),
        (b"SELECT %s, 0x%s", b"SELECT  NULL ,  NULL "),
        (b"SELECT /*!50000 '%s' */", b"SELECT /*!50000 '************1111' */"),
        (b"SELECT 'a', `b` -- %s", b"SELECT 'a', `b`  "),
    ],
)
def test_values_are_hidden_within_literals(said: bytes, sent: bytes) -> None:
    """A string stays one, a number becomes NULL, a comment goes: the statement is the one that was judged."""
    with logged_in(rewrite=hide) as talk:
        talk.client_sends(my.query(said.replace(b"%s", CARD)))
        talk.expect_request("Query")
        talk.expect_upstream(my.query(sent))


def test_what_stands_for_a_value_cannot_end_its_string() -> None:
    """Quotes and backslashes of a replacement are the value's."""
    with logged_in(rewrite=lambda data: data.replace(CARD, b"O'Neill\\")) as talk:
        talk.client_sends(my.query(b"SELECT '" + CARD + b"', 1"))
        talk.expect_request("Query")
        talk.expect_upstream(my.query(b"SELECT 'O''Neill\\\\', 1"))


def test_a_value_outside_of_literals_is_not_sent() -> None:
    """A name cannot be hidden without becoming another; the connection lives on."""
    with logged_in(rewrite=hide) as talk:
        talk.client_sends(my.query(b"SELECT `" + CARD + b"`"))
        talk.expect_request("Query")
        talk.expect_upstream(b"")
        told = talk.take_client()
        assert told[4:7] == b"\xff" + struct.pack("<H", 1142)
        assert b"not within a literal" in told
        talk.client_sends(my.query(b"SELECT 1"))
        talk.expect_request("Query")
        talk.expect_upstream(my.query(b"SELECT 1"))


def test_parameters_are_known_by_the_columns_they_are_for() -> None:
    """Of a prepared statement, as far as it says."""
    rewrite = RequestMask(masker_for(MaskSpec(columns=(Column("*.ssn"),))), Counter())
    with logged_in(rewrite=rewrite) as talk:
        talk.client_sends(my.command(0x16, b"INSERT INTO customers (id, ssn) VALUES (?, ?)"))
        talk.expect_request("Prepare")
        talk.server_sends(my.prepared(1, 1, 0, 2) + my.column(2, b"?") + my.column(3, b"?") + my.eof(4))
        talk.expect_outcome("prepared")
        talk.take_client()
        talk.take_upstream()
        types = b"\0\1\xfd\0\xfd\0"
        talk.client_sends(my.execute(1, types + my.lenenc(b"1") + my.lenenc(b"078-05-1120")))
        talk.expect_request("Execute", params=("1", "078-05-1120"))
        talk.expect_upstream(my.execute(1, types + my.lenenc(b"1") + my.lenenc(b"*" * 11)))


ROWS = (
    my.count(1, 2)
    + my.column(2, b"card", b"card", b"customers")
    + my.column(3, b"n", b"n", b"customers", kind=my.LONGLONG)
    + my.eof(4)
)
DIALOGUE = [
    (Side.SERVER, my.greeting()),
    (Side.CLIENT, my.login()),
    (Side.SERVER, my.ok(2)),
    (Side.CLIENT, my.query(b"SELECT card, n FROM customers; SELECT 2")),
    (Side.SERVER, ROWS + my.row(5, CARD, b"1") + my.row(6, b"a" * 300, CARD) + my.eof(7, my.MORE | 2)),
    (Side.SERVER, my.count(8, 1) + my.column(9, b"2") + my.eof(10) + my.row(11, b"2") + my.eof(12)),
    (Side.CLIENT, my.query(b"INSERT INTO t VALUES (1)")),
    (Side.SERVER, my.err(1, 1062, b"23000", b"Duplicate " + CARD)),
    (Side.CLIENT, my.command(1)),
]


def played(pieces: list[tuple[Side, bytes]]) -> tuple[bytes, bytes, list[object]]:
    talk = Conversation(
        PROTOCOL.inspector(), mask_rows=hidden, mask_text=lambda text: hide(text.data), rewrite=hide, quiet=True
    )
    for side, data in pieces:
        (talk.client_sends if side is Side.CLIENT else talk.server_sends)(data)
    said = [(request.operation, request.text) for request in talk.requests]
    return talk.take_client(), talk.take_upstream(), [*said, *talk.outcomes]


WHOLE = played(DIALOGUE)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_the_cut_does_not_matter(data: st.DataObject) -> None:
    """In random pieces: the same bytes to either end, the same requests and outcomes."""
    pieces = []
    for side, raw in DIALOGUE:
        cuts = sorted(data.draw(st.lists(st.integers(0, len(raw)), max_size=6)))
        pieces += [
            (side, raw[start:end]) for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True) if end > start
        ]
    assert played(pieces) == WHOLE


def test_byte_by_byte_is_the_same() -> None:
    """And of the secret nothing is in what the client gets."""
    assert played([(side, bytes((byte,))) for side, raw in DIALOGUE for byte in raw]) == WHOLE
    assert CARD not in WHOLE[0]
    assert MASKED in WHOLE[0]


def test_a_refusal_in_mid_answer_has_the_number_that_is_due() -> None:
    """A row that could not be masked: the error stands in its place, whatever came behind it."""
    inspector = logged_in(mask_rows=hidden).inspector
    inspector.receive_data(Side.CLIENT, my.query(b"SELECT card, n FROM customers"))
    request = inspector.next_event()
    assert isinstance(request, Request)
    inspector.allow(request, masked=True)
    inspector.receive_data(Side.SERVER, ROWS + my.row(5, CARD, b"1") + my.row(6, CARD, b"1") + my.eof(7))
    event = inspector.next_event()
    while not isinstance(event, (Rows, Text, Unmaskable)):
        event = inspector.next_event()
    assert inspector.refuse(None, DENIAL).to_client[3] == 5
