"""Step 2: a client's first bytes name one protocol, as soon as they can and no later than the limit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import UsageError
from enforcer.identify.protocol import PROBE_LIMIT, identify
from enforcer.protocols.registry import NAMES, OPAQUE, PROTOCOLS, by_name

# RFC 8446 section 4.1.2: a handshake record (22), legacy version 3.1, that begins with a ClientHello (1).
CLIENT_HELLO = bytes.fromhex("16030100f8010000f40303")
# PostgreSQL: length 8, SSLRequest 80877103; length 16 and protocol 3.0 (196608), `user`.
SSL_REQUEST = bytes.fromhex("0000000804d2162f")
STARTUP = bytes.fromhex("0000001000030000") + b"user\0a\0\0"


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"GET / HTTP/1.1\r\n", "http"),
        (b"POST /x HTTP/1.1\r\nHost: a\r\n\r\n", "http"),
        (SSL_REQUEST, "postgres"),
        (STARTUP, "postgres"),
        (CLIENT_HELLO, "tls"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http"),
        (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "opaque"),
        (b"SSH-2.0-OpenSSH_9.2p1\r\n", "opaque"),
        (b"\0" * PROBE_LIMIT, "opaque"),
        (b"A" * PROBE_LIMIT, "opaque"),
        (b"\xff\xff\xff\xff", "opaque"),
    ],
)
def test_first_bytes(data: bytes, name: str) -> None:
    """Known openings are recognised, and everything else is opaque."""
    protocol = identify(data)
    assert protocol is not None
    assert protocol.name == name


@pytest.mark.parametrize("data", [b"", b"G", b"GET", b"\r\n"])
def test_needs_more(data: bytes) -> None:
    """A beginning that may still become a known protocol is not judged yet."""
    assert identify(data) is None


@given(st.binary(min_size=1, max_size=2 * PROBE_LIMIT))
def test_any_bytes(data: bytes) -> None:
    """Any bytes get an answer within the limit, it does not change with more, and no two protocols claim the same."""
    answers = [identify(data[:size]) for size in range(1, len(data) + 1)]
    decided = [answer for answer in answers if answer is not None]
    assert len(set(map(id, decided))) <= 1
    if len(data) >= PROBE_LIMIT:
        assert answers[PROBE_LIMIT - 1] is not None
    assert sum(protocol.probe(data).value == "yes" for protocol in PROTOCOLS) <= 1


def test_names() -> None:
    """Policies may name each protocol of the registry, and nothing else."""
    assert NAMES == ("http", "tls", "postgres", "redis", "mongodb", "mysql", "opaque")
    assert [by_name(name).name for name in NAMES] == list(NAMES)
    assert by_name("opaque") is OPAQUE
    with pytest.raises(UsageError, match="gopher"):
        by_name("gopher")
