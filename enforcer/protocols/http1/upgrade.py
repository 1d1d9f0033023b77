"""Step 4 of 6, inspect: how HTTP/1.1 gives way to WebSocket (RFC 6455 section 4) or to a tunnel (RFC 9110, CONNECT).

Gets the looked-at fields of both heads; hands on the offer as it goes to the server, without extensions, and checks
the answer against it: a 101 that does not follow from it is a fault of the server's. Other offers are never forwarded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.http1.fields import connection_options

CONNECT = "CONNECT"
SWITCHING = 101

_CLIENT, _SERVER = Side.CLIENT, Side.SERVER
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_AGREED = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"

Found = dict[bytes, list[bytes]]


@dataclass(frozen=True, slots=True)
class Offer:
    """A WebSocket asked for. `accept`: what the server has to answer. `protocols`: those it may choose from. `lines`:
    the part of the rebuilt head that the hop-by-hop fields are."""

    accept: bytes
    protocols: frozenset[bytes]
    lines: bytes = _AGREED


def wants_websocket(found: Found) -> bool:
    """Does a request ask for a WebSocket and for nothing else (section 4.2.1)?"""
    upgrade = found.get(b"upgrade")
    return (
        upgrade is not None
        and len(upgrade) == 1
        and upgrade[0].lower() == b"websocket"
        and b"upgrade" in connection_options(found.get(b"connection", ()))
    )


def read_offer(found: Found) -> Offer:
    """Judges the fields of a request that asks for a WebSocket. Raises ProtocolError (the client's)."""
    if found.get(b"sec-websocket-version") != [b"13"]:
        raise ProtocolError(_CLIENT, "a WebSocket of another version than 13")
    keys = found.get(b"sec-websocket-key", [])
    if len(keys) != 1 or not _is_key(keys[0]):
        raise ProtocolError(_CLIENT, "a WebSocket asked for without one valid key")
    protocols = [word.strip(b" \t") for value in found.get(b"sec-websocket-protocol", ()) for word in value.split(b",")]
    if any(_TOKEN.fullmatch(word) is None for word in protocols):
        raise ProtocolError(_CLIENT, "a WebSocket subprotocol that is no token")
    digest = hashlib.sha1(keys[0] + _GUID, usedforsecurity=False).digest()
    return Offer(base64.b64encode(digest), frozenset(protocols))


def _is_key(value: bytes) -> bool:
    try:
        return len(base64.b64decode(value, validate=True)) == 16 and len(value) == 24
    except binascii.Error:
        return False


def agreed_lines(offer: Offer, found: Found) -> bytes:
    """What a 101 adds to the other fields of its head. Raises ProtocolError (the server's) where it does not answer
    the offer."""
    upgrade = found.get(b"upgrade", [])
    if len(upgrade) != 1 or upgrade[0].lower() != b"websocket":
        raise ProtocolError(_SERVER, "switches to a protocol that was not offered")
    if b"upgrade" not in connection_options(found.get(b"connection", ())):
        raise ProtocolError(_SERVER, "switches protocols without saying so in Connection")
    if found.get(b"sec-websocket-accept") != [offer.accept]:
        raise ProtocolError(_SERVER, "accepts a WebSocket that was not asked for")
    if found.get(b"sec-websocket-extensions"):
        raise ProtocolError(_SERVER, "uses a WebSocket extension that was not offered")
    chosen = found.get(b"sec-websocket-protocol", [])
    if len(chosen) > 1 or not offer.protocols.issuperset(chosen):
        raise ProtocolError(_SERVER, "chooses a WebSocket subprotocol that was not offered")
    return offer.lines
