"""TLS passed on unread: the name is what the client asks for, however the hello is cut; what is odd is refused."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.flow import Side
from enforcer.identify.protocol import identify
from enforcer.protocols.base import Forward, Outcome, Request, Unmaskable
from enforcer.protocols.tls import TlsInspector
from enforcer.protocols.tls.client_hello import HELLO_LIMIT
from tests.conversation import DENIAL
from tests.protocols.wire_tls import client_hello, extension, records, server_name, vector, written

C, S = Side.CLIENT, Side.SERVER
GREASE = extension(0x3A3A, b"") + extension(0xEAEA, b"\0")


def asked(data: bytes) -> Request:
    """The one request that `data` makes."""
    inspector = TlsInspector()
    inspector.receive_data(C, data)
    request = inspector.next_event()
    assert isinstance(request, Request)
    return request


@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_name_and_protocols_of_a_real_client(newest: ssl.TLSVersion) -> None:
    """OpenSSL's hello of either version names its server and what it speaks."""
    request = asked(client_hello("DB.example.org", ["h2", "http/1.1"], newest=newest))
    assert (request.operation, request.text, request.raw) == ("ClientHello", "db.example.org", b"")
    assert request.facts == {"host": "db.example.org", "alpn": "h2 http/1.1"}


def test_a_client_that_names_nobody() -> None:
    """Without a server name no host is known."""
    assert asked(client_hello(None)).facts == {}


def test_a_client_that_encrypts_its_hello_names_nobody() -> None:
    """With ECH, or what looks like it, the name in clear may be another one than is meant."""
    body = written(GREASE, server_name(b"public.example"), extension(0xFE0D, b"\0" * 8))
    assert asked(records(body)).facts == {"ech": "yes"}


@pytest.mark.parametrize("size", [1, 2, 5, 100, 16384])
def test_a_hello_over_many_records_and_reads(size: int) -> None:
    """Records of any size, read byte by byte: one request once the hello is whole, then all bytes in order."""
    data = records(written(GREASE, server_name(b"a.example")), size) + b"\x14\3\3\0\1\1"
    inspector = TlsInspector()
    asked_at = []
    for at, byte in enumerate(data):
        inspector.receive_data(C, bytes([byte]))
        event = inspector.next_event()
        if event is not None:
            assert isinstance(event, Request)
            asked_at.append((at, event.facts["host"]))
    assert asked_at == [(len(data) - 7, "a.example")]
    assert inspector.allow(Request(1, "", "", b""), masked=False) == b""
    passed = b""
    while isinstance(event := inspector.next_event(), Forward):
        passed += event.raw
    assert passed == data


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (written(server_name(b"a.example"), server_name(b"a.example")), "extension 0 twice"),
        (written(server_name(b"a.example", b"b.example")), "after the end of the list of server names"),
        (written(server_name(b"a.example", kind=1)), "no host name"),
        (written(server_name(b"a.example\0")), "no host name"),
        (written(server_name(b"a.example.")), "no host name"),
        (written(server_name(b"*.example")), "no host name"),
        (written(server_name("ä.example".encode())), "no host name"),
        (written(server_name(b"")), "no host name"),
        (written(extension(0, b"\0\0")), "beyond the end"),
        (written(extension(0, b"")), "beyond the end"),
        (written(extension(0, vector(2, b"\0\0\1a") + b"x")), "after the end of the server name"),
        (written(extension(16, vector(2, b""))), "an empty list of protocols"),
        (written(extension(16, vector(2, b"\0"))), "an empty protocol name"),
        (written(tail=b"x"), "after the end of the ClientHello"),
        (written(session=bytes(33)), "a session id"),
        (written()[:-1], "beyond the end"),
        (b"\3\3", "beyond the end"),
    ],
)
def test_odd_hellos_are_refused(body: bytes, why: str) -> None:
    """What is cut, doubled, trailing or no name ends the flow, and says why."""
    with pytest.raises(ProtocolError, match=why):
        TlsInspector().receive_data(C, records(body))


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x16\3\1\0\1\1" + b"\x15\3\1\0\2\1\0", "another record"),
        (b"\x16\3\1\0\1\1" + b"\x16\3\1\0\0", "a record of 0 bytes"),
        (b"\x16\3\1\x40\1\1", "a record of 16385 bytes"),
        (b"\x16\3\1\0\1\2", "no ClientHello"),
        (records(written())[:-1].replace(b"\x16\3\1\0", b"\x16\3\1\0", 1) + b"\0", None),
        (b"\x16\3\1" + vector(2, records(written())[5:] + b"\0"), "something else in the record"),
    ],
)
def test_odd_records_are_refused(data: bytes, why: str | None) -> None:
    """So does another record in the midst of it, one of a forbidden length, or more than the hello in its record."""
    inspector = TlsInspector()
    if why is None:
        inspector.receive_data(C, data)
        assert isinstance(inspector.next_event(), Request)
        return
    with pytest.raises(ProtocolError, match=why):
        inspector.receive_data(C, data)


def test_a_hello_without_end_is_refused() -> None:
    """A length over the limit ends the flow before its bytes are kept."""
    with pytest.raises(LimitExceeded):
        TlsInspector().receive_data(C, b"\x16\3\1\0\4\1" + (HELLO_LIMIT + 1).to_bytes(3, "big"))


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(1, 64))
def test_any_damage_is_refused_or_read(noise: bytes, at: int, size: int) -> None:
    """A hello with bytes overwritten, at any cut of records: a request or a ProtocolError, and never another name."""
    body = bytearray(written(GREASE, server_name(b"a.example"), extension(16, vector(2, b"\2h2"))))
    body[at : at + len(noise)] = noise
    inspector = TlsInspector()
    try:
        inspector.receive_data(C, records(bytes(body), size))
    except ProtocolError:
        return
    request = inspector.next_event()
    assert isinstance(request, Request)
    host = request.facts.get("host")
    assert host is None or host.encode() in bytes(body).lower()


def test_a_refused_client_gets_an_alert() -> None:
    """A fatal access_denied before the handshake (RFC 8446 section 6.2); later nothing, which would be noise to it."""
    inspector = TlsInspector()
    inspector.receive_data(C, client_hello("a.example"))
    assert inspector.refuse(asked(client_hello("a.example")), DENIAL).to_client == bytes.fromhex("15030100020231")
    open_one = TlsInspector()
    open_one.receive_data(C, client_hello("a.example"))
    request = open_one.next_event()
    assert isinstance(request, Request)
    open_one.allow(request, masked=False)
    assert open_one.refuse(None, DENIAL).to_client == b""


def test_what_is_to_be_masked_is_refused() -> None:
    """A masking rule cannot be kept on what is not read."""
    inspector = TlsInspector()
    inspector.receive_data(C, client_hello("a.example"))
    request = inspector.next_event()
    assert isinstance(request, Request)
    inspector.allow(request, masked=True)
    inspector.receive_data(S, b"\x16\3\3")
    events = [inspector.next_event() for _ in range(2)]
    assert isinstance(events[1], Unmaskable)


def test_its_end_is_the_end_of_both_sides() -> None:
    """One exchange, from hello to the last end of stream."""
    inspector = TlsInspector()
    inspector.receive_data(C, client_hello("a.example"))
    request = inspector.next_event()
    assert isinstance(request, Request)
    inspector.allow(request, masked=False)
    assert isinstance(inspector.next_event(), Forward)
    inspector.receive_eof(C)
    assert inspector.next_event() is None
    inspector.receive_eof(S)
    assert isinstance(inspector.next_event(), Outcome)


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (client_hello("a.example")[:6], "tls"),
        (b"\x16\3\1\2\0", None),
        (b"\x16", None),
        (b"\x16\3\1\2\0\2", "opaque"),
        (b"\x16\4", None),  # so may MongoDB's length
        (b"\x16\4\0\0\1\0\0\0\0\0\0\0\1\1\1\1", "opaque"),
        (b"\x80\x2e\1\3\1", "opaque"),
    ],
)
def test_who_begins_like_tls(first: bytes, name: str | None) -> None:
    """A handshake record with a ClientHello is TLS; a server's message, SSL 2 and other bytes are not."""
    found = identify(first)
    assert (found.name if found else None) == name
