"""Step 4 of 6, inspect: how a MySQL connection begins: the server's greeting, and the client's answer to it.

Gets those two messages; hands on what they say, and both without what cannot be read: compression, LOCAL INFILE,
TLS where it is not ended here, and whatever is not known. Source: MySQL internals, "Connection Phase"; MariaDB
Knowledge Base, "Connecting".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Probe
from enforcer.protocols.mysql.packets import HEADER, Reader, message_of, payload_of

MAX_GREETING: Final = 4096
"""Bytes of the greeting, which has about 100; an error in its place has up to 512 and a header."""

LONG_PASSWORD: Final = 1
CONNECT_WITH_DB: Final = 1 << 3
COMPRESS: Final = 1 << 5
PROTOCOL_41: Final = 1 << 9
SSL: Final = 1 << 11
SECURE_CONNECTION: Final = 1 << 15
MULTI_STATEMENTS: Final = 1 << 16
PLUGIN_AUTH: Final = 1 << 19
CONNECT_ATTRS: Final = 1 << 20
LENENC_AUTH: Final = 1 << 21
SESSION_TRACK: Final = 1 << 23
DEPRECATE_EOF: Final = 1 << 24
ZSTD: Final = 1 << 26
QUERY_ATTRIBUTES: Final = 1 << 27
MULTI_FACTOR: Final = 1 << 28

# All bits up to CLIENT_MULTI_FACTOR_AUTHENTICATION but COMPRESS, LOCAL_FILES, OPTIONAL_RESULTSET_METADATA and ZSTD.
READ: Final = (1 << 29) - 1 & ~(COMPRESS | 1 << 7 | 1 << 25 | ZSTD)
"""The capabilities under which everything that is said can be read. MariaDB's own (progress reports, bulk execution,
cached metadata) are not among them."""

_CLIENTS_OWN: Final = 1 << 1 | 1 << 4 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 12
"""FOUND_ROWS, NO_SCHEMA, ODBC, IGNORE_SPACE, INTERACTIVE, IGNORE_SIGPIPE: what a client says of itself."""

_LAYOUT: Final = CONNECT_WITH_DB | PLUGIN_AUTH | CONNECT_ATTRS | LENENC_AUTH
"""What the login itself is laid out by, which stays as it is."""

_SSL_REQUEST: Final = 32
"""Bytes of a login that ends before the user: a request for TLS."""

_SHOWN: Final = ("program_name", "_client_name", "_client_version")
_LONGEST_VERSION: Final = 55
"""Bytes; the longest that `greets` can be certain of, and longer than any server's."""


def greets(data: bytes) -> Probe:
    """Do these first bytes of a server greet as MySQL does, or refuse the connection as it does?"""
    for byte, highest in zip(data[1:HEADER], (MAX_GREETING >> 8, 0, 0), strict=False):  # its length, its number
        if byte > highest:
            return Probe.NO
    if len(data) <= HEADER:
        return Probe.MORE
    if data[HEADER] == 0xFF:
        return Probe.YES
    if data[HEADER] != 10:
        return Probe.NO
    version, nul, _ = data[HEADER + 1 : HEADER + 1 + _LONGEST_VERSION].partition(b"\x00")
    if (version and not version[:1].isdigit()) or any(not 0x20 < byte < 0x7F for byte in version):
        return Probe.NO
    if nul:
        return Probe.YES if version else Probe.NO
    return Probe.NO if len(version) == _LONGEST_VERSION else Probe.MORE


@dataclass(slots=True)
class Greeting:
    """`capabilities`: what the server offers and is read here. `raw` and `in_clear`: for the client, with and without
    the offer of TLS, the same where the server makes none."""

    version: str
    capabilities: int
    raw: bytes
    in_clear: bytes


def read_greeting(raw: bytes) -> Greeting:
    """Raises ProtocolError where it is none of protocol 10 with the capabilities of MySQL 4.1."""
    payload = payload_of(raw)
    reader = Reader(payload, Side.SERVER)
    if reader.integer(1) != 10:
        raise ProtocolError(Side.SERVER, "the greeting is not of protocol 10")
    version = reader.to_nul().decode("ascii", "replace")
    reader.take(4 + 8 + 1)
    low_at = reader.pos
    low = reader.integer(2)
    reader.take(1 + 2)
    high_at = reader.pos
    offered = low | reader.integer(2) << 16
    reader.take(1)
    reserved_at = reader.pos
    reader.take(10)
    if not offered & PROTOCOL_41 or not offered & SECURE_CONNECTION:
        raise ProtocolError(Side.SERVER, "a server older than MySQL 4.1 is not inspected")

    def told(capabilities: int) -> bytes:
        told = bytearray(payload)
        told[low_at : low_at + 2] = (capabilities & 0xFFFF).to_bytes(2, "little")
        told[high_at : high_at + 2] = (capabilities >> 16).to_bytes(2, "little")
        told[reserved_at : reserved_at + 10] = bytes(10)  # MariaDB's own capabilities
        return message_of(bytes(told), raw[3])

    kept = offered & READ
    return Greeting(version, kept, told(kept), told(kept & ~SSL))


@dataclass(slots=True)
class Login:
    """The client's answer. `raw`: for the server. `is_ssl_request`: it ends before the user, and TLS follows."""

    raw: bytes
    capabilities: int
    collation: int
    is_ssl_request: bool
    user: str = ""
    database: str = ""
    described: str = ""


def read_login(raw: bytes, offered: int) -> Login:
    """Raises ProtocolError for what was not offered and cannot be left off, and for a login of before MySQL 4.1."""
    payload = payload_of(raw)
    reader = Reader(payload, Side.CLIENT)
    asked = reader.integer(4)
    if not asked & PROTOCOL_41:
        raise ProtocolError(Side.CLIENT, "a client older than MySQL 4.1 is not inspected")
    for bit, what in ((COMPRESS | ZSTD, "compression"), (SSL, "TLS")):
        if asked & bit & ~offered:
            raise ProtocolError(Side.CLIENT, f"{what} was not offered, and is asked for")
    capabilities = asked & (offered | _CLIENTS_OWN | _LAYOUT)
    reader.take(4)
    collation = reader.integer(1)
    reader.take(23)
    told = bytearray(payload)
    told[:4] = capabilities.to_bytes(4, "little")
    if not asked & LONG_PASSWORD:
        told[28:32] = bytes(4)  # MariaDB's own capabilities
    sent = message_of(bytes(told), raw[3])
    if len(payload) == _SSL_REQUEST:
        if not asked & SSL:
            raise ProtocolError(Side.CLIENT, "the login names no user")
        return Login(sent, capabilities, collation, is_ssl_request=True)
    user = reader.to_nul()
    if asked & LENENC_AUTH:
        reader.text()
    elif asked & SECURE_CONNECTION:
        reader.take(reader.integer(1))
    else:
        reader.to_nul()
    # Some clients leave off what they say will follow; then it is empty.
    database = reader.to_nul_or_end() if asked & CONNECT_WITH_DB else b""
    if asked & PLUGIN_AUTH:
        reader.to_nul_or_end()
    attributes = read_attributes(reader) if asked & CONNECT_ATTRS and reader.left else {}
    login = Login(sent, capabilities, collation, False, decode(user), decode(database))
    login.described = describe(login.user, login.database, attributes)
    return login


def read_attributes(reader: Reader) -> dict[str, str]:
    """Connection attributes: what a client program says of itself."""
    end = reader.length() + reader.pos
    attributes: dict[str, str] = {}
    while reader.pos < end:
        name = decode(reader.text())
        attributes[name] = decode(reader.text())
    return attributes


def describe(user: str, database: str, attributes: dict[str, str]) -> str:
    """`user=... database=... program_name=...` for the record."""
    parts = [f"user={user}", *([f"database={database}"] if database else [])]
    return " ".join(parts + [f"{name}={attributes[name]}" for name in _SHOWN if attributes.get(name)])


def decode(raw: bytes) -> str:
    """`raw` as text: UTF-8, else Latin-1, which loses nothing."""
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return raw.decode("latin-1")
