"""Step 4 of 6, inspect: the untyped packets that open a PostgreSQL connection, and the probe for them.

Gets a client's first bytes, hands on what they ask for: encryption, cancellation, or a session's parameters.
Source: PostgreSQL documentation, "Start-up", "Canceling Requests in Progress", "SSL/GSSAPI Session Encryption".
"""

from __future__ import annotations

import re
import struct
from typing import Final

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Probe
from enforcer.protocols.postgres.messages import Reader
from enforcer.protocols.postgres.values import decode
from enforcer.sql import settings

STARTUP: Final = struct.Struct(">ii")
"""Length of the whole packet, then what it asks for."""

MAX_STARTUP_PACKET: Final = 10_000
"""Bytes; PostgreSQL's own MAX_STARTUP_PACKET_LENGTH."""

CANCEL_REQUEST: Final = 80877102
SSL_REQUEST: Final = 80877103
GSSENC_REQUEST: Final = 80877104
PROTOCOL_MAJOR: Final = 3
"""Upper half of a StartupMessage's code. The minor version is the server's to negotiate (3.0, 3.2)."""

SMALLEST: Final = {CANCEL_REQUEST: 16, SSL_REQUEST: 8, GSSENC_REQUEST: 8}
LARGEST: Final = {CANCEL_REQUEST: 12 + 256, SSL_REQUEST: 8, GSSENC_REQUEST: 8}
"""Bytes per request; protocol 3.2 lets a cancel key have up to 256 bytes."""

_SECRET_WORDS: Final = ("password", "secret", "token")
_OWN: Final = frozenset({"user", "database", "replication", "options"})
"""Parameters that are no settings. Those that begin with `_pq_.` are the protocol's."""
_OPTION: Final = re.compile(r"(?:\\.|[^\s\\])+", re.DOTALL)
_NO_REPLICATION: Final = frozenset({"false", "off", "no", "0"})


def check(length: int, code: int) -> None:
    """Raises ProtocolError unless a packet of `length` bytes may carry `code`, LimitExceeded where it is too long."""
    if length > MAX_STARTUP_PACKET:
        raise LimitExceeded(Side.CLIENT, f"startup packet of {length} bytes is over {MAX_STARTUP_PACKET}")
    if code not in SMALLEST and code >> 16 != PROTOCOL_MAJOR:
        raise ProtocolError(Side.CLIENT, f"startup code {code} is none of protocol 3")
    if not SMALLEST.get(code, STARTUP.size + 1) <= length <= LARGEST.get(code, MAX_STARTUP_PACKET):
        raise ProtocolError(Side.CLIENT, f"startup packet length {length} is impossible")


def read_parameters(raw: bytes) -> dict[str, str]:
    """The parameters of a StartupMessage. Raises ProtocolError for a missing user, a parameter given twice (servers
    differ in which one counts), or a wrong end."""
    reader = Reader(raw, Side.CLIENT, STARTUP.size)
    parameters: dict[str, str] = {}
    while name := reader.string():
        key, value = decode(name), reader.string()
        if key in parameters:
            raise ProtocolError(Side.CLIENT, "a startup parameter is given twice")
        parameters[key] = decode(value)
    reader.end()
    if not parameters.get("user"):
        raise ProtocolError(Side.CLIENT, "the startup packet names no user")
    return parameters


def replicates(parameters: dict[str, str]) -> bool:
    """Is it a connection for replication, physical or logical, in which the server streams its log?"""
    return parameters.get("replication", "off").lower() not in _NO_REPLICATION


def administers(parameters: dict[str, str]) -> bool:
    """Does it set what a statement may set as administration only, such as the search_path or the role?"""
    given = [(name, value) for name, value in parameters.items() if name not in _OWN and not name.startswith("_pq_.")]
    options = [
        re.sub(r"\\(.)", r"\1", option, flags=re.DOTALL) for option in _OPTION.findall(parameters.get("options", ""))
    ]
    while options:
        option = options.pop(0)
        if option == "-c" and options:
            option += options.pop(0)
        name, equals, value = option[2:].partition("=")
        if option[:2] not in ("-c", "--") or not equals:
            return True  # a switch of the server's
        given.append((name.replace("-", "_"), value))
    return not all(settings.is_harmless(name.lower(), f"'{value}'") for name, value in given)


def describe(parameters: dict[str, str]) -> str:
    """`user=... database=... application_name=...` for the record, without anything named like a secret."""
    shown = (name for name in parameters if not any(word in name.lower() for word in _SECRET_WORDS))
    return " ".join(f"{name}={parameters[name]}" for name in shown)


def probe(data: bytes) -> Probe:
    """Do these first bytes of a client open a PostgreSQL connection?"""
    if len(data) >= STARTUP.size:
        try:
            check(*STARTUP.unpack_from(data))
        except ProtocolError:
            return Probe.NO
        return Probe.YES
    head = data[:4]
    lowest, highest = STARTUP.size.to_bytes(4, "big"), MAX_STARTUP_PACKET.to_bytes(4, "big")
    if not lowest[: len(head)] <= head <= highest[: len(head)]:
        return Probe.NO
    codes = [code.to_bytes(4, "big") for code in SMALLEST] + [PROTOCOL_MAJOR.to_bytes(2, "big")]
    tail = data[4:]
    return Probe.MORE if any(tail[: len(code)] == code[: len(tail)] for code in codes) else Probe.NO
