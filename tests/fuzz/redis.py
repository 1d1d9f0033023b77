"""Redis in both directions: what goes upstream is what was judged, and no cut changes what comes of a dialogue."""

from __future__ import annotations

from collections.abc import Iterator

from enforcer.flow import Side
from enforcer.protocols.redis import PROTOCOL
from enforcer.protocols.redis.client import encode
from tests.fuzz.stores import judged, seeded
from tests.fuzz.target import TURN_CLIENT, TURN_SERVER, Target
from tests.protocols.test_contract import DIALOGUES

C, S = Side.CLIENT, Side.SERVER


def command(*words: bytes) -> bytes:
    return encode(list(words))


def judge(data: bytes) -> None:
    judged(PROTOCOL, data)


def seeds() -> Iterator[bytes]:
    multi = command(b"MULTI") + command(b"HGETALL", b"h") + command(b"EXEC")
    exec_ = b"+OK\r\n+QUEUED\r\n*1\r\n*2\r\n$1\r\nf\r\n$1\r\nv\r\n"
    message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n$1\r\nm\r\n"
    confirmed = b"*3\r\n$9\r\nsubscribe\r\n$1\r\nc\r\n:1\r\n"
    left = b"*3\r\n$11\r\nunsubscribe\r\n$1\r\nc\r\n:0\r\n"
    yield from seeded(
        [
            DIALOGUES["redis"],
            [(C, multi), (S, exec_)],
            [(C, command(b"SUBSCRIBE", b"c")), (S, confirmed + message), (C, command(b"UNSUBSCRIBE")), (S, left)],
            [(C, command(b"EVAL", b"x", b"0")), (S, b"|1\r\n+a\r\n:1\r\n%1\r\n+k\r\n~2\r\n=5\r\ntxt:a\r\n_\r\n")],
            [(C, command(b"AUTH", b"u", b"p") + command(b"SELECT", b"3")), (S, b"-NOAUTH no\r\n+OK\r\n")],
        ]
    )


WORDS = (
    *(
        TURN_CLIENT,
        TURN_SERVER,
        b"\r\n",
        b"+OK\r\n",
        b"+QUEUED\r\n",
        b"$-1\r\n",
        b"*-1\r\n",
        b"*0\r\n",
        b"_\r\n",
        b"#t\r\n",
    ),
    *(
        b"$1\r\na\r\n",
        b":1\r\n",
        b",1.5\r\n",
        b"(12\r\n",
        b"*2\r\n",
        b"%1\r\n",
        b"~1\r\n",
        b">3\r\n",
        b"|1\r\n",
        b"$?\r\n",
    ),
    *(
        b"!5\r\nERR x\r\n",
        b"=5\r\ntxt:a\r\n",
        b"$1000000000\r\n",
        command(b"MULTI"),
        command(b"EXEC"),
        command(b"RESET"),
    ),
    *(
        command(b"HELLO", b"3"),
        command(b"SUBSCRIBE", b"c"),
        command(b"UNSUBSCRIBE"),
        command(b"CLIENT", b"REPLY", b"OFF"),
    ),
)
TARGET = Target("redis", judge, seeds, WORDS)
