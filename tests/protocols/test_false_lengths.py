"""Lengths that are not true and messages out of turn, in every database's protocol: refused in its words, nothing of
them handed on, and little kept of what they announce."""

from __future__ import annotations

import struct
import tracemalloc
from collections.abc import Callable
from typing import NamedTuple

import pytest

from enforcer.flow import Side
from enforcer.protocols.base import Rows
from enforcer.protocols.registry import PROTOCOLS, SERVER_FIRST
from tests.conversation import Conversation
from tests.protocols import wire_mysql as my
from tests.protocols import wire_postgres as pg
from tests.protocols.wire_mongodb import op_msg

GIGABYTE = 10**9
MEBIBYTE = 1 << 20
KEPT = 2 * MEBIBYTE
"""More than is kept of anything that is refused for its length, or that passes in pieces."""


def same(rows: Rows) -> list[bytes | None]:
    return list(rows.values)


def conversation(name: str, *, masked: bool) -> Conversation:
    inspector = {one.name: one for one in (*PROTOCOLS, *SERVER_FIRST)}[name].inspector()
    return Conversation(inspector, mask_rows=same if masked else None, quiet=True)


def postgres(*, masked: bool = False) -> Conversation:
    talk = conversation("postgres", masked=masked)
    talk.client_sends(pg.startup(user="ana"))
    talk.server_sends(pg.AUTH_OK + pg.ready())
    return talk


def mysql(*, masked: bool = False) -> Conversation:
    talk = conversation("mysql", masked=masked)
    talk.server_sends(my.greeting())
    talk.client_sends(my.login())
    talk.server_sends(my.ok(2))
    return talk


def redis(*, masked: bool = False) -> Conversation:
    return conversation("redis", masked=masked)


def mongodb(*, masked: bool = False) -> Conversation:
    return conversation("mongodb", masked=masked)


class Spoken(NamedTuple):
    """`begin`: a connection on which requests may be sent. `ask`: one that is answered with rows. `words`: what every
    refusal of the flow has in it."""

    begin: Callable[..., Conversation]
    ask: bytes
    words: bytes


FIND = op_msg({"find": "c", "$db": "d"}, 7)
DATABASES = {
    "postgres": Spoken(postgres, pg.query("select a from t"), b"C42501\0"),
    "mysql": Spoken(mysql, my.query(b"SELECT a FROM t"), struct.pack("<H", 1045)),
    "redis": Spoken(redis, b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n", b"-NOPERM "),
    "mongodb": Spoken(mongodb, FIND, b"\x10code\0\x0d\0\0\0"),
}


def lenenc(size: int) -> bytes:
    """A length of MySQL's in eight bytes."""
    return b"\xfe" + struct.pack("<Q", size)


def cut(message: bytes, at: int, put: bytes) -> bytes:
    return message[:at] + put + message[at + len(put) :]


CLIENTS = {
    "postgres": [
        b"Q" + pg.i32(GIGABYTE),
        b"Q" + pg.i32(-1),
        b"p" + pg.i32(8) + b"late",
        pg.msg("d", b"not asked for"),
        pg.msg("c"),
        pg.msg("B", b"\0\0", pg.i16(0), pg.i16(1), pg.i32(GIGABYTE), b"x"),
        pg.msg("B", b"\0\0", pg.i16(0), pg.i16(-1)),
        pg.msg("P", b"no end"),
        pg.msg("D", b"?\0"),
        pg.msg("D", b"\0", pg.i16(0)),
        pg.startup(user="ana"),
    ],
    "mysql": [
        my.packet(b"\x03SELECT 1", 5),
        my.packet(b"", 0),
        my.login(),
        my.packet(b"\x17\1\0\0", 0),
        my.packet(b"\x11app", 0),
        my.packet(b"\x1b", 0),
    ],
    "redis": [
        b"*1\r\n$%d\r\n" % GIGABYTE,
        b"*%d\r\n" % GIGABYTE,
        b"*1\r\n$-5\r\n",
        b"*1\r\n*1\r\n$1\r\na\r\n",
        b"+OK\r\n",
        b"$4\r\nPING\r\n",
    ],
    "mongodb": [
        struct.pack("<i", GIGABYTE) + FIND[4:],
        struct.pack("<i", -1) + FIND[4:],
        struct.pack("<i", 15) + FIND[4:],
        cut(FIND, 21, struct.pack("<i", GIGABYTE)),
        cut(FIND, 21, struct.pack("<i", -7)),
        cut(FIND, FIND.index(b"find\0") + 5, struct.pack("<i", GIGABYTE)),
        op_msg({"ok": 1}, 1, 7),
    ],
}
SERVERS = {
    "postgres": [
        b"D" + pg.i32(GIGABYTE),
        pg.columns("a") + b"D" + pg.i32(GIGABYTE),
        b"T" + pg.i32(GIGABYTE),
        b"E" + pg.i32(GIGABYTE),
        pg.columns("a") + pg.msg("D", pg.i16(1), pg.i32(GIGABYTE), b"x"),
        pg.columns("a") + pg.msg("D", pg.i16(-1)),
        pg.msg("T", pg.i16(-1)),
        pg.BOUND,
        pg.msg("d", b"x"),
        pg.ready() + pg.complete("SELECT 1"),
    ],
    "mysql": [
        my.packet(lenenc(GIGABYTE), 1),
        my.count(1, 1) + my.packet(lenenc(GIGABYTE) + b"def", 2),
        my.count(1, 1) + my.column(2, b"a") + my.eof(3) + my.packet(b"\xfd\xff\xff\xff" + b"x", 4),
        my.count(1, 1) + my.column(2, b"a") + my.row(3, b"x"),
        my.ok(7),
        my.ok(1) + my.ok(2),
        my.packet(b"", 1),
    ],
    "redis": [
        b"$%d\r\nabc" % GIGABYTE,
        b"$-7\r\n",
        b"+early\r\n+twice\r\n",
        b"$3\r\nabcdef\r\n",
        b"!%d\r\n" % GIGABYTE,
    ],
    "mongodb": [
        struct.pack("<i", GIGABYTE) + op_msg({"ok": 1}, 1, 7)[4:],
        cut(op_msg({"ok": 1}, 1, 7), 21, struct.pack("<i", GIGABYTE)),
        op_msg({"ok": 1}, 1, 99),
        FIND,
    ],
}  # fmt: skip


def each(table: dict[str, list[bytes]]) -> pytest.MarkDecorator:
    cases = [
        pytest.param(name, sent, id=f"{name}-{at}") for name, every in table.items() for at, sent in enumerate(every)
    ]
    return pytest.mark.parametrize(("name", "sent"), cases)


@each(CLIENTS)
def test_what_a_client_must_not_send(name: str, sent: bytes) -> None:
    """It ends the flow, whole or byte by byte, in words that the client's driver shows; nothing of it goes upstream."""
    spoken = DATABASES[name]
    for step in (1, len(sent)):
        talk = spoken.begin()
        talk.take_upstream()
        talk.take_client()
        for at in range(0, len(sent), step):
            talk.client_sends(sent[at : at + step])
        talk.expect_error(Side.CLIENT)
        assert spoken.words in talk.take_client()
        assert talk.take_upstream() == b""
        assert talk.closed


@each(SERVERS)
def test_what_a_server_must_not_send(name: str, sent: bytes) -> None:
    """Where answers are masked it ends the flow, whole or byte by byte; a client that has nothing yet is told so."""
    spoken = DATABASES[name]
    for step in (1, len(sent)):
        talk = spoken.begin(masked=True)
        talk.client_sends(spoken.ask)
        talk.take_client()
        for at in range(0, len(sent), step):
            talk.server_sends(sent[at : at + step])
        talk.expect_error(Side.SERVER)
        assert spoken.words in talk.take_client()


LONG = {
    "postgres: a statement": (postgres, b"", b"Q" + pg.i32(GIGABYTE), Side.CLIENT, False),
    "postgres: a startup": (lambda **_: conversation("postgres", masked=False), b"", pg.i32(9000), Side.CLIENT, False),
    "postgres: a row to mask": (
        postgres, DATABASES["postgres"].ask, pg.columns("a") + b"D" + pg.i32(GIGABYTE), Side.SERVER, True,
    ),
    "postgres: a row": (
        postgres, DATABASES["postgres"].ask, pg.columns("a") + b"D" + pg.i32(GIGABYTE), Side.SERVER, False,
    ),
    "mysql: a login": (
        lambda **_: conversation("mysql", masked=False), my.greeting(), b"\xff\xff\xff\1", Side.CLIENT, False,
    ),
    "mysql: a definition": (
        mysql, DATABASES["mysql"].ask, my.count(1, 1) + b"\xff\xff\xff\2", Side.SERVER, False,
    ),
    "redis: an argument": (redis, b"", b"*1\r\n$%d\r\n" % GIGABYTE, Side.CLIENT, False),
    "redis: a value to mask": (redis, DATABASES["redis"].ask, b"$%d\r\n" % GIGABYTE, Side.SERVER, True),
    "redis: a value": (redis, DATABASES["redis"].ask, b"$%d\r\n" % GIGABYTE, Side.SERVER, False),
    "mongodb: a command": (mongodb, b"", struct.pack("<i", GIGABYTE) + FIND[4:16], Side.CLIENT, False),
    "mongodb: an answer": (mongodb, FIND, struct.pack("<iiii", GIGABYTE, 1, 7, 2013), Side.SERVER, False),
}  # fmt: skip


@pytest.mark.parametrize("what", LONG)
def test_what_is_announced_is_not_kept(what: str) -> None:
    """Sixteen mebibytes of what is said to be a gigabyte: they are refused, or pass as they come."""
    begin, before, announced, side, masked = LONG[what]
    talk = begin(masked=masked)
    if before:
        (talk.server_sends if before == my.greeting() else talk.client_sends)(before)
    send = talk.client_sends if side is Side.CLIENT else talk.server_sends
    piece = b"x" * (MEBIBYTE // 4)
    tracemalloc.start()
    try:
        send(announced)
        for _ in range(64):
            send(bytes(bytearray(piece)))  # a copy, as a read is
            talk.take_client()
            talk.take_upstream()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < KEPT
