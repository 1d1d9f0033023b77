"""Step 4 of 6, inspect: MongoDB: every command an exchange, answers masked document by document.

Reading order: `bson` (documents), `wire` (messages), `commands` (what they do, and to which collections), `columns`
(what values are called), `texts` (the record), `masking` (values out and in again), `inspector`.
"""

from __future__ import annotations

from typing import Final

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.mongodb.inspector import MongoInspector
from enforcer.protocols.mongodb.wire import HEADER, OP_COMPRESSED, OP_MSG, OP_QUERY

_CODES: Final = tuple(code.to_bytes(4, "little") for code in (OP_MSG, OP_QUERY, OP_COMPRESSED))
_LARGEST: Final = 1 << 20
"""Bytes of a connection's first message, with room: it is a greeting."""


class MongoDB:
    """The registry's entry."""

    name: str = "mongodb"

    def probe(self, data: bytes) -> Probe:
        """A length, any requestID, no responseTo, and one of three opCodes. Lengths that PostgreSQL's and TLS's first
        bytes look like are theirs."""
        if data[:1] == b"\0"[: len(data)] and data[1:2] == b"\0":
            return Probe.NO
        if len(data) >= 4 and not HEADER.size < int.from_bytes(data[:4], "little") <= _LARGEST:
            return Probe.NO
        if len(data) > 5 and data[:2] == b"\x16\3" and data[5] == 1:
            return Probe.NO
        if data[8:12] != bytes(len(data[8:12])):
            return Probe.NO
        code = data[12:16]
        if not any(known.startswith(code) for known in _CODES):
            return Probe.NO
        return Probe.YES if len(code) == 4 else Probe.MORE

    def inspector(self) -> MongoInspector:
        return MongoInspector()


PROTOCOL: Final[Protocol] = MongoDB()
"""What the registry holds."""
