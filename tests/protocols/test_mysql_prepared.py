"""MySQL's prepared statements: parameters sent ahead and with them, cursors, query attributes."""

from __future__ import annotations

import struct

import pytest

from enforcer.flow import Side
from tests.conversation import DENIAL
from tests.protocols import wire_mysql as my
from tests.protocols.test_mysql import logged_in


def test_what_is_sent_ahead_waits_for_its_execution() -> None:
    """COM_STMT_SEND_LONG_DATA has no answer, so nothing of it leaves before the verdict on what it is for."""
    prepare = my.command(0x16, b"INSERT INTO t VALUES (?, ?)")
    ahead = [my.command(0x18, struct.pack("<IH", 1, 0) + piece) for piece in (b"one ", b"two")]
    run = my.execute(1, b"\0\1\xfd\0\x08\0" + struct.pack("<q", -5))
    with logged_in(decide=lambda request: DENIAL if "-6" in request.params else None) as talk:
        talk.client_sends(prepare)
        assert talk.expect_request("Prepare").facts["operation"] == "write"
        talk.take_upstream()
        answer = my.prepared(1, 1, 0, 2) + my.column(2, b"?") + my.column(3, b"?") + my.eof(4)
        talk.server_sends(answer)
        talk.expect_client(answer)
        talk.expect_outcome("prepared")
        for piece in ahead:
            talk.client_sends(piece)
        talk.expect_upstream(b"")
        talk.client_sends(run)
        talk.expect_request("Execute", "INSERT INTO t VALUES (?, ?)", params=("one two", "-5"))
        talk.expect_upstream(b"".join(ahead) + run)
        talk.server_sends(my.ok(1, affected=1))
        talk.expect_client(my.ok(1, affected=1))
        talk.expect_outcome("OK", rows=1)
        # Refused, what was sent ahead for it is gone; MariaDB's clients may say "the last one prepared".
        talk.client_sends(ahead[0] + my.execute(0xFFFFFFFF, b"\0\1\xfd\0\x08\0" + struct.pack("<q", -6)))
        talk.expect_request("Execute", params=("one ", "-6"))
        talk.expect_upstream(b"")
        talk.take_client()
        talk.client_sends(my.execute(1, b"\1\0" + struct.pack("<q", 7)))
        talk.expect_request("Execute", params=(None, "7"))
        talk.expect_upstream(my.execute(1, b"\1\0" + struct.pack("<q", 7)))


def test_rows_of_a_cursor_are_fetched_under_a_verdict() -> None:
    """An execution that opens a cursor returns columns only; each fetch is judged, and its rows are counted."""
    column = my.column(2, b"name", b"name", b"customers")
    with logged_in() as talk:
        talk.client_sends(my.command(0x16, b"SELECT name FROM customers"))
        talk.expect_request("Prepare")
        answer = my.prepared(1, 1, 1, 0) + column + my.eof(3)
        talk.server_sends(answer)
        talk.expect_client(answer)
        talk.expect_outcome("prepared")
        talk.client_sends(my.execute(1, flags=1))
        talk.expect_request("Execute")
        answer = my.count(1, 1) + column + my.eof(3, my.CURSOR | 2)
        talk.server_sends(answer)
        talk.expect_client(answer)
        talk.expect_outcome("cursor")
        talk.client_sends(my.command(0x1C, struct.pack("<II", 1, 10)))
        talk.expect_request("Fetch", "SELECT name FROM customers")
        talk.take_upstream()
        answer = my.binary_row(1, b"\0", b"\3Ada") + my.eof(2, 0x82)
        talk.server_sends(answer)
        talk.expect_client(answer)
        talk.expect_outcome("OK", rows=1)


def test_query_attributes_are_parameters() -> None:
    """CLIENT_QUERY_ATTRIBUTES: they stand before the statement, and in the record beside it."""
    attributes = b"\x01\x01\0\x01\xfd\0" + my.lenenc(b"trace") + my.lenenc(b"abc")
    with logged_in(my.BASIC | my.QUERY_ATTRIBUTES) as talk:
        talk.client_sends(my.query(attributes + b"SELECT 1"))
        talk.expect_request("Query", "SELECT 1", params=("trace=abc",))
        talk.expect_upstream(my.query(attributes + b"SELECT 1"))


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b"\0",
        b"\0\0",
        b"\0\1\xfd\0",
        b"\0\1\xfd\0\xfe" + b"\xff" * 8,
        b"\0\1\x63\0x",
        b"\0\1\x0a\0\x05abcde",
        b"\0\1\3\0abcdX",
    ],
)
def test_executions_that_are_none(tail: bytes) -> None:
    """Parameters that do not fill the message, of no type, or of an impossible length end the flow."""
    with logged_in() as talk:
        talk.client_sends(my.command(0x16, b"SELECT ?"))
        talk.expect_request("Prepare")
        talk.server_sends(my.prepared(1, 1, 0, 1) + my.column(2, b"?") + my.eof(3))
        talk.expect_outcome("prepared")
        talk.take_client()
        talk.take_upstream()
        talk.client_sends(my.execute(1, tail))
        talk.expect_error(Side.CLIENT)
        talk.expect_upstream(b"")
        talk.take_client()
