"""Step 4 of 6, inspect: which protocols there are. The one place that a new protocol is added to.

`PROTOCOLS` is in probing order; their probes exclude each other, so the order is only speed. `NAMES` are the words that
policies use: both versions of HTTP go by one.
"""

from __future__ import annotations

from enforcer.errors import UsageError
from enforcer.protocols import http1, http2, mongodb, mysql, opaque, postgres, redis, tls
from enforcer.protocols.base import Protocol, ServerFirst

PROTOCOLS: tuple[Protocol, ...] = (
    http1.PROTOCOL,
    http2.PROTOCOL,
    tls.PROTOCOL,
    postgres.PROTOCOL,
    redis.PROTOCOL,
    mongodb.PROTOCOL,
)
# What TLS's ALPN calls those that it can agree on (RFC 7301).
BY_ALPN = {"http/1.1": http1.PROTOCOL, "h2": http2.PROTOCOL, "postgresql": postgres.PROTOCOL}
# Those that no client's bytes tell, because the server speaks first.
SERVER_FIRST: tuple[ServerFirst, ...] = (mysql.PROTOCOL,)
# What none of them claims.
OPAQUE: Protocol = opaque.PROTOCOL

# The first of a name stands for it.
_BY_NAME = {protocol.name: protocol for protocol in reversed((*PROTOCOLS, *SERVER_FIRST, OPAQUE))}
NAMES: tuple[str, ...] = tuple(dict.fromkeys(protocol.name for protocol in (*PROTOCOLS, *SERVER_FIRST, OPAQUE)))


def by_name(name: str) -> Protocol:
    """The protocol that policies call `name`. Raises UsageError where there is none."""
    try:
        return _BY_NAME[name]
    except KeyError:
        raise UsageError(f"unknown protocol {name!r}; known ones: {', '.join(NAMES)}") from None
