"""PostgreSQL in both directions: every byte that goes on is part of a whole message, and nothing goes before a verdict.

An input: one byte of options (masked or not), one that says how it is cut, then a dialogue (`<client>`, `<server>`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from enforcer.flow import Side
from enforcer.protocols.postgres import PROTOCOL
from tests.conversation import Conversation
from tests.fuzz.target import TURN_CLIENT, TURN_SERVER, Target, cut, dialogue, options, written
from tests.protocols.test_contract import DIALOGUES, pg

MASKED = 1
# Codes of the untyped packets that open a connection: SSLRequest, GSSENCRequest.
ASIDE = (80877103, 80877104)


def play(turns: list[tuple[Side, bytes]], step: int, flags: int) -> tuple[Conversation, bytes, bytes]:
    """The finished conversation, and all that went to server and client."""
    masks = {"mask_text": lambda text: text.data, "mask_rows": lambda rows: rows.values} if flags & MASKED else {}
    talk = Conversation(PROTOCOL.inspector(), quiet=True, **masks)  # type: ignore[arg-type]
    upstream = b""
    for side, data in turns:
        for piece in cut(data, step):
            (talk.client_sends if side is Side.CLIENT else talk.server_sends)(piece)
            if sent := talk.take_upstream():
                assert talk.requests, "bytes went upstream before the first verdict"
                upstream += sent
    return talk, upstream, talk.take_client()


def judge(data: bytes) -> None:
    (flags, step), rest = options(data, 2)
    turns = dialogue(rest)
    talk, upstream, to_client = play(turns, step % 64, flags)
    if not talk.closed:
        _messages(upstream, opening=True)
    told = [(request.operation, request.text, request.params) for request in talk.requests]
    assert _carries(upstream, told), (upstream, told)
    if step % 64:
        again, same_upstream, _ = play(turns, 0, flags)
        if not (talk.closed or again.closed):
            assert same_upstream == upstream
            assert [(one.operation, one.text, one.params) for one in again.requests] == told
    assert isinstance(to_client, bytes)


def _messages(data: bytes, *, opening: bool) -> list[tuple[bytes, bytes]]:
    """(type, body) of every message; the last may be cut where its body passes through in pieces."""
    found, at = [], 0
    if opening and data:
        (length,) = struct.unpack_from("!i", data)
        assert 8 <= length <= 10_000
        at = length
    while at < len(data):
        assert len(data) >= at + 5, data[at:]
        kind, (length,) = data[at : at + 1], struct.unpack_from("!i", data, at + 1)
        assert length >= 4
        found.append((kind, data[at + 5 : at + 1 + length]))
        at += 1 + length
    return found


def _carries(upstream: bytes, told: list[tuple[str, str, tuple[str | None, ...]]]) -> bool:
    """Every simple Query that the server gets was judged word by word, in order."""
    if not upstream or not told or told[0][0] != "Startup":
        return True
    queries = [_text(body[:-1]) for kind, body in _messages(upstream, opening=True) if kind == b"Q"]
    judged = [text for operation, text, _ in told if operation == "Query"]
    return queries == judged[: len(queries)]


def _text(raw: bytes) -> str:
    """As recorded: UTF-8, else every byte a character."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")


STARTUP = DIALOGUES["postgres"][0][1]
READY = pg(b"Z", b"I")
LOGIN = [(Side.CLIENT, STARTUP), (Side.SERVER, pg(b"R", struct.pack("!i", 0)) + READY)]
EXTENDED = pg(b"P", b"s\0SELECT $1\0\0\0") + pg(
    b"B", b"\0s\0" + struct.pack("!hhihh", 0, 1, 1, 0, 0)[:8] + b"x" + b"\0\0"
)
TAIL = pg(b"D", b"P\0") + pg(b"E", b"\0\0\0\0\0") + pg(b"S", b"")


def seeds() -> Iterator[bytes]:
    copy = [(Side.CLIENT, pg(b"Q", b"COPY t FROM STDIN\0")), (Side.SERVER, pg(b"G", b"\0\0\0"))]
    copied = [(Side.CLIENT, pg(b"d", b"a\tb\n") + pg(b"c", b"")), (Side.SERVER, pg(b"C", b"COPY 1\0") + READY)]
    error = [(Side.CLIENT, pg(b"Q", b"SELECT\0")), (Side.SERVER, pg(b"E", b"SERROR\0C42601\0Mno\0\0") + READY)]
    extended = [(Side.CLIENT, EXTENDED + TAIL), (Side.SERVER, pg(b"1", b"") + pg(b"2", b"") + pg(b"n", b""))]
    plain = [
        (Side.CLIENT, struct.pack("!ii", 8, ASIDE[0]) + STARTUP),
        (Side.CLIENT, struct.pack("!iiii", 16, 80877102, 1, 2)),
    ]
    for flags in (0, MASKED):
        for step in (0, 1, 7):
            head = bytes([flags, step])
            yield head + written(DIALOGUES["postgres"])
            yield head + written(LOGIN + copy + copied)
            yield head + written(LOGIN + error)
            yield head + written(LOGIN + extended)
            yield head + written(plain)
            yield head + written([(Side.CLIENT, struct.pack("!iiii", 16, 80877102, 1, 2))])


WORDS = (
    *(TURN_CLIENT, TURN_SERVER, READY, STARTUP, pg(b"S", b""), pg(b"H", b""), pg(b"Q", b"SELECT 1\0"), pg(b"X", b"")),
    *(
        pg(b"1", b""),
        pg(b"2", b""),
        pg(b"3", b""),
        pg(b"n", b""),
        pg(b"I", b""),
        pg(b"C", b"SELECT 1\0"),
        pg(b"c", b""),
    ),
    *(pg(b"d", b"x"), pg(b"G", b"\0\0\0"), pg(b"H", b"\0\0\0"), pg(b"W", b"\0\0\0"), pg(b"f", b"no\0"), TAIL, EXTENDED),
    *(
        b"\0\0\0\4",
        b"\0\0\0\10",
        b"\x7f\xff\xff\xff",
        b"\xff\xff\xff\xff",
        b"\0\3\0\0",
        pg(b"F", b"\0\0\0\1" + bytes(8)),
    ),
)
TARGET = Target("postgres", judge, seeds, WORDS)
