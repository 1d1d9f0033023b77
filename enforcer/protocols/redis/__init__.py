"""Step 4 of 6, inspect: Redis (RESP2 and RESP3): every command an exchange, replies masked value by value.

Reading order: `commands` (what they do, and to which keys), `columns` (what values of replies are called), `texts` (the
record and the refusal), `conversation` (what both halves share), `client`, `server`, `inspector`.
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.redis.inspector import RedisInspector

_BEGINNING: Final = re.compile(rb"\*[1-9][0-9]{0,6}\r\n\$[1-9][0-9]{0,6}\r\n")
"""An array of bulk strings, the first of them a name. Lines that people type have no such mark."""
_BYTES: Final = re.compile(rb"\*(?:[1-9](?:[0-9]{0,6}(?:\r(?:\n(?:\$(?:[1-9](?:[0-9]{0,6}(?:\r)?)?)?)?)?)?)?)?")
"""What may still become one."""


class Redis:
    """The registry's entry."""

    name: str = "redis"

    def probe(self, data: bytes) -> Probe:
        if _BEGINNING.match(data):
            return Probe.YES
        return Probe.MORE if _BYTES.fullmatch(data) else Probe.NO

    def inspector(self) -> RedisInspector:
        return RedisInspector()


PROTOCOL: Final[Protocol] = Redis()
"""What the registry holds."""
