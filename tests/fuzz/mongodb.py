"""MongoDB in both directions: what goes upstream is what was judged, and no cut changes what comes of a dialogue."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

from enforcer.flow import Side
from enforcer.protocols.mongodb import PROTOCOL
from tests.fuzz.stores import judged, seeded
from tests.fuzz.target import TURN_CLIENT, TURN_SERVER, Target
from tests.protocols.test_contract import DIALOGUES
from tests.protocols.wire_mongodb import OP_COMPRESSED, OP_MSG, message, op_msg, op_query

C, S = Side.CLIENT, Side.SERVER
FIND = op_msg({"find": "c", "filter": {"a": {"$gt": 1}}, "$db": "d"}, 1)
FOUND = op_msg({"cursor": {"firstBatch": [{"a": [1, {"b": "x"}]}], "id": 0}, "ok": 1}, 9, 1)
PACKED = message(OP_COMPRESSED, OP_MSG.to_bytes(4, "little") + (len(FIND) - 16).to_bytes(4, "little") + b"\2", 1)
PACKED = message(OP_COMPRESSED, PACKED[16:] + zlib.compress(FIND[16:]), 1)


def judge(data: bytes) -> None:
    judged(PROTOCOL, data)


def seeds() -> Iterator[bytes]:
    yield from seeded(
        [
            DIALOGUES["mongodb"],
            [(C, FIND), (S, FOUND)],
            [(C, PACKED), (S, FOUND)],
            [(C, op_query({"isMaster": 1}, 2)), (C, FIND)],
            [(C, op_msg({"find": "c", "$db": "d"}, 1, flags=1, checksum=b"\1\2\3\4")), (S, FOUND)],
        ]
    )


WORDS = (
    *(TURN_CLIENT, TURN_SERVER, FIND, FOUND, PACKED, b"\xdd\7\0\0", b"\xd4\7\0\0", b"\xdc\7\0\0", b"\1\0\0\0"),
    *(b"\2\0\0\0", b"\5\0\0\0\0", b"\2a\0\2\0\0\0x\0", b"\3a\0\5\0\0\0\0", b"\4a\0\5\0\0\0\0", b"\x12a\0", b"\x13a\0"),
    *(b"$db\0", b"$out\0", b"$where\0", b"cursor\0", b"firstBatch\0", b"errmsg\0", b"\xff\xff\xff\x7f"),
)
TARGET = Target("mongodb", judge, seeds, WORDS)
