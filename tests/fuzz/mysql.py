"""MySQL in both directions: nothing goes upstream before its verdict, and no cut changes what comes of a dialogue."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from enforcer.flow import Side
from enforcer.protocols.mysql import PROTOCOL
from tests.fuzz.stores import play, seeded
from tests.fuzz.target import TURN_CLIENT, TURN_SERVER, Target, dialogue, options
from tests.protocols import wire_mysql as my
from tests.protocols.test_contract import DIALOGUES

C, S = Side.CLIENT, Side.SERVER
OPENING = [(S, my.greeting()), (C, my.login()), (S, my.ok(2))]
LATER = my.BASIC | my.SESSION_TRACK | my.DEPRECATE_EOF | my.QUERY_ATTRIBUTES
TRACKED = my.lenenc(b"") + my.lenenc(b"\x01" + my.lenenc(my.lenenc(b"other")))
ATTRIBUTES = b"\x01\x01\0\x01\xfd\0" + my.lenenc(b"a") + my.lenenc(b"b")


def judge(data: bytes) -> None:
    (flags, step), rest = options(data, 2)
    turns = dialogue(rest)
    talk, upstream, to_client = play(PROTOCOL, turns, step % 64, flags)
    assert len(talk.outcomes) <= len(talk.requests)
    assert all(request.fault or request.raw in upstream for request in talk.requests[1:-1])
    if step % 64:
        again, same_upstream, same_client = play(PROTOCOL, turns, 0, flags)
        if not (talk.closed or again.closed):
            assert (same_upstream, same_client) == (upstream, to_client)
            assert [one.text for one in again.requests] == [one.text for one in talk.requests]


def seeds() -> Iterator[bytes]:
    column = my.column(2, b"name", b"name", b"customers")
    prepared = my.prepared(1, 1, 1, 1) + my.column(2, b"?") + my.eof(3) + my.column(4, b"name") + my.eof(5)
    long_data = my.command(0x18, struct.pack("<IH", 1, 0) + b"ahead")
    run = my.execute(1, b"\0\1\xfd\0", flags=1)
    fetched = my.binary_row(1, b"\0", b"\3Ada") + my.eof(2)
    later = [(S, my.greeting(LATER)), (C, my.login(LATER)), (S, my.ok(2, status=my.TRACKED | 2, tail=TRACKED))]
    yield from seeded(
        [
            DIALOGUES["mysql"],
            [
                *OPENING,
                (C, my.command(0x16, b"SELECT name FROM customers WHERE id = ?")),
                (S, prepared),
                (C, long_data + run),
                (S, my.count(1, 1) + column + my.eof(3, my.CURSOR | 2)),
                (C, my.command(0x1C, struct.pack("<II", 1, 5))),
                (S, fetched),
            ],
            [
                *later,
                (C, my.query(ATTRIBUTES + b"SELECT name FROM customers")),
                (S, my.count(1, 1) + column + my.row(3, b"Ada", None) + my.ok(4, header=0xFE, tail=TRACKED)),
                (C, my.command(4, b"customers\0")),
                (S, my.column(1, b"name")[:-1] + b"\0" + my.ok(2, header=0xFE)),
            ],
            [*OPENING, (C, my.query(b"SELECT 1")), (S, my.packet(b"\xfbfile", 1) + my.ok(3))],
            [
                *OPENING,
                (C, my.command(0x11, b"u\0\0d\0")),
                (S, my.packet(b"\xfeplugin\0x", 1)),
                (C, my.packet(b"p", 2)),
            ],
            [*OPENING, (C, my.command(0x0E) + my.command(0x09)), (S, my.ok(1) + my.packet(b"Uptime", 1))],
        ]
    )


WORDS = (
    TURN_CLIENT,
    TURN_SERVER,
    *(my.ok(number) for number in range(4)),
    *(my.eof(number) for number in range(4)),
    *(bytes((length, 0, 0, number)) for length in (0, 1, 5) for number in range(4)),
    my.query(b"SELECT 1"),
    my.execute(1),
    my.err(1, 1064, b"42000", b"x"),
    b"\xfb",
    b"\xfc\xff\xff",
    b"\xfe" + b"\xff" * 8,
    b"\xff\xff\xff\0",
)
TARGET = Target("mysql", judge, seeds, WORDS)
