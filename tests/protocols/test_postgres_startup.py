"""How PostgreSQL connections open, and what ends them before they do."""

from __future__ import annotations

import struct
from dataclasses import replace

import pytest

from enforcer.errors import LimitExceeded, ProtocolError
from enforcer.protocols.base import Forward, Outcome, Probe, Reply, Request, StartTls
from enforcer.protocols.postgres import PROTOCOL
from enforcer.protocols.postgres.inspector import PostgresInspector
from tests.protocols import wire_postgres as wire
from tests.protocols.wire_postgres import C, S, Talk, i32, msg, opened, ready, startup, z


def fresh(**options: object) -> Talk:
    return Talk(PostgresInspector(), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "packet", [wire.SSL_REQUEST, wire.GSS_REQUEST, wire.CANCEL_REQUEST, startup(user="a"), startup(196610, user="a")]
)
def test_probe_knows_every_opening_packet_at_every_length(packet: bytes) -> None:
    """Each opening packet of protocol 3 is YES from its eighth byte on and MORE before that."""
    answers = [PROTOCOL.probe(packet[:n]) for n in range(1, len(packet) + 1)]
    assert answers == [Probe.MORE] * 7 + [Probe.YES] * (len(packet) - 7)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01\x02\x00\x01",
        b"SSH-2.0-x",
        startup(131072, user="a"),
        b"\0\0\0\x07",
        b"\0\1",
    ],
)
def test_probe_turns_others_away(data: bytes) -> None:
    """HTTP, TLS, SSH, protocol 2 and impossible lengths are NO."""
    assert PROTOCOL.probe(data) is Probe.NO


def test_startup_is_judged_and_its_outcome_is_the_first_ready_for_query() -> None:
    """Nothing goes upstream before the verdict; the password passes without an event of its own text."""
    talk = fresh()
    packet = startup(user="ana", database="shop", application_name="psql", my_password="hidden")
    (request,) = talk.feed(C, packet)
    assert isinstance(request, Request)
    facts = {"user": "ana", "database": "shop", "operation": "admin"}  # it sets what no statement may set otherwise
    assert (request.operation, request.exchange, request.facts) == ("Startup", 1, facts)
    assert request.text == "user=ana database=shop application_name=psql"
    assert talk.feed(S, msg("R", i32(10), z("SCRAM-SHA-256"), b"\0"))
    assert talk.feed(C, msg("p", b"secret")) == [Forward(C, msg("p", b"secret"))]
    talk.feed(S, wire.AUTH_OK + msg("K", i32(1), i32(2)) + ready())
    assert talk.of(Outcome) == [Outcome(1, "AuthenticationOk")]
    assert talk.upstream == packet + msg("p", b"secret")


def test_database_defaults_to_the_user() -> None:
    """PostgreSQL's rule: a startup packet without `database` means the user's own."""
    (request,) = fresh().feed(C, startup(user="ana"))
    assert isinstance(request, Request)
    assert request.facts == {"user": "ana", "database": "ana"}


def test_kerberos_is_declined_and_tls_is_the_sessions_to_agree_on() -> None:
    """GSSENCRequest gets `N` and the server never sees it; SSLRequest is an event with all that either end is told."""
    talk = fresh()
    assert talk.feed(C, wire.GSS_REQUEST) == [Reply(b"N")]
    assert talk.feed(C, wire.SSL_REQUEST) == [StartTls(wire.SSL_REQUEST, b"S", b"N", b"S", b"N")]
    (request,) = talk.feed(C, startup(user="ana"))
    assert isinstance(request, Request)
    assert talk.sent() == (startup(user="ana"), b"NN")


@pytest.mark.parametrize("question", [wire.SSL_REQUEST, wire.GSS_REQUEST])
def test_bytes_stuffed_behind_a_question_for_encryption_end_the_flow(question: bytes) -> None:
    """CVE-2021-23222 and its sister: nobody takes them for the first ones inside; the server has seen nothing."""
    talk = fresh()
    with pytest.raises(ProtocolError, match="bytes follow a request for encryption"):
        talk.feed(C, question + startup(user="ana"))
    assert talk.upstream == b""


@pytest.mark.parametrize("question", [wire.SSL_REQUEST, wire.GSS_REQUEST])
def test_encryption_is_asked_for_once(question: bytes) -> None:
    """A second question is an error, so that nobody keeps a connection busy without opening it."""
    talk = fresh()
    talk.feed(C, question)
    with pytest.raises(ProtocolError, match="encryption is requested twice"):
        talk.feed(C, question)


def test_cancel_request_is_judged_and_ends_with_the_servers_close() -> None:
    """A CancelRequest goes upstream as it is; the server answers by closing."""
    talk = fresh()
    (request,) = talk.feed(C, wire.CANCEL_REQUEST)
    assert isinstance(request, Request)
    assert (request.operation, request.facts, request.raw) == ("CancelRequest", {}, wire.CANCEL_REQUEST)
    assert talk.eof(S) == [Outcome(1, "CancelRequest")]
    with pytest.raises(ProtocolError, match="bytes follow"):
        talk.feed(C, b"\0")


def test_a_refused_startup_is_fatal_and_readable() -> None:
    """The client gets FATAL 42501 with rule, region, prefix and how to ask; the connection ends."""
    talk = fresh(deny=lambda _: True)
    talk.feed(C, startup(user="ana"))
    assert (talk.upstream, talk.client, talk.closed) == (b"", wire.denied("FATAL"), True)


def test_the_flow_as_a_whole_is_refused_with_fatal() -> None:
    """`refuse(None)` is FATAL 42501 and nothing is handed on afterwards."""
    talk = opened(PostgresInspector())
    refusal = talk.inspector.refuse(None, wire.DENIAL)
    assert (refusal.to_client, refusal.close) == (wire.denied("FATAL"), True)
    assert talk.feed(C, wire.query("select 1")) == []


def test_an_unreachable_server_has_its_own_sqlstate() -> None:
    """Class 08 tells the client that the connection, not the request, is at fault."""
    talk = fresh()
    talk.inspector.receive_data(C, startup(user="ana"))
    request = talk.inspector.next_event()
    assert isinstance(request, Request)
    refusal = talk.inspector.refuse(request, replace(wire.DENIAL, unreachable=True))
    assert b"SFATAL\0VFATAL\0C08001\0M8.8.8.8:5432 cannot be reached" in refusal.to_client


def test_failed_authentication_is_the_startups_outcome() -> None:
    """An ErrorResponse before ReadyForQuery fails the startup with its SQLSTATE."""
    talk = fresh()
    talk.feed(C, startup(user="ana"))
    talk.feed(S, wire.error("28P01", "FATAL"))
    assert talk.of(Outcome) == [Outcome(1, "28P01", failed=True)]


@pytest.mark.parametrize(
    ("packet", "reason"),
    [
        (startup(user="a", client_encoding="SJIS"), "client_encoding 'SJIS' is not inspected"),
        (struct.pack(">ii", 15, 196608) + b"user\0a\0", "has no end"),
        (struct.pack(">ii", 17, 196608) + b"user\0a\0\0x", "longer than its parts"),
        (struct.pack(">ii", 23, 196608) + b"user\0a\0user\0b\0\0", "given twice"),
        (startup(database="a"), "names no user"),
        (startup(131072, user="a"), "none of protocol 3"),
        (struct.pack(">ii", 9, 80877103), "length 9 is impossible"),
        (msg("Q", z("select 1")), "is over 10000"),
    ],
)
def test_startup_packets_that_end_the_flow(packet: bytes, reason: str) -> None:
    """Replication, unscannable encodings, ambiguous or malformed packets are the client's protocol error."""
    talk = fresh()
    with pytest.raises(ProtocolError, match=reason) as fault:
        talk.feed(C, packet)
    assert fault.value.side is C


@pytest.mark.parametrize("kind", ["database", "true", "ON", "1", ""])
def test_replication_is_refused_in_words(kind: str) -> None:
    """Physical or logical, it is at fault whatever rules say; a value PostgreSQL would not take is no way around."""
    (request,) = fresh().feed(C, startup(user="a", replication=kind))
    assert isinstance(request, Request)
    assert "replication connections carry whole databases" in request.fault


def test_replication_off_is_an_ordinary_session() -> None:
    """`replication=false` asks for nothing special."""
    (request,) = fresh().feed(C, startup(user="a", replication="false"))
    assert isinstance(request, Request)
    assert request.fault == ""


def sasl(*mechanisms: str) -> bytes:
    return msg("R", i32(10), *map(z, mechanisms), b"\0")


def test_channel_binding_is_taken_out_of_the_servers_offer() -> None:
    """Two TLS connections cannot be one; what else the server offers stays, and so do other messages."""
    talk = fresh()
    talk.feed(C, startup(user="ana"))
    talk.sent()
    talk.feed(S, sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256") + msg("R", i32(11), b"r=more"))
    assert talk.client == sasl("SCRAM-SHA-256") + msg("R", i32(11), b"r=more")
    talk.feed(C, msg("p", z("SCRAM-SHA-256"), i32(8), b"n,,n=,r="))
    assert talk.upstream == msg("p", z("SCRAM-SHA-256"), i32(8), b"n,,n=,r=")


def test_a_client_that_could_have_bound_its_password_is_told_what_to_set() -> None:
    """RFC 5802: with `y` the server, who offered it, would take us for an attacker, in words that help nobody."""
    talk = fresh()
    talk.feed(C, startup(user="ana"))
    talk.feed(S, sasl("SCRAM-SHA-256-PLUS", "SCRAM-SHA-256"))
    with pytest.raises(ProtocolError, match="channel_binding=disable"):
        talk.feed(C, msg("p", z("SCRAM-SHA-256"), i32(8), b"y,,n=,r="))


def test_a_server_that_insists_on_channel_binding_ends_the_flow() -> None:
    """An empty offer would leave the client without a word."""
    talk = fresh()
    talk.feed(C, startup(user="ana"))
    with pytest.raises(ProtocolError, match="only with channel binding"):
        talk.feed(S, sasl("SCRAM-SHA-256-PLUS"))


@pytest.mark.parametrize("name", ["UTF8", "'utf-8'", "LATIN1", "SQL_ASCII", "WIN1252", "ISO_8859_5", "KOI8R"])
def test_encodings_whose_ascii_is_ascii_pass(name: str) -> None:
    """Names are compared as PostgreSQL does, by letters and digits only."""
    assert fresh().feed(C, startup(user="a", client_encoding=name))


def test_an_oversized_startup_packet_is_refused_at_its_header() -> None:
    """10,001 bytes are over PostgreSQL's own limit; the body is not waited for."""
    with pytest.raises(LimitExceeded):
        fresh().feed(C, struct.pack(">ii", 10_001, 196608))


def test_the_server_may_not_speak_first() -> None:
    """Bytes of the server before the startup packet is allowed are the server's protocol error."""
    with pytest.raises(ProtocolError, match="server: message 'R'"):
        fresh().feed(S, wire.AUTH_OK)


def test_queries_wait_for_ready_for_query() -> None:
    """Before authentication is over only password messages are legal."""
    talk = fresh()
    talk.feed(C, startup(user="ana"))
    with pytest.raises(ProtocolError, match="message 'Q' is not inspected while starting"):
        talk.feed(C, wire.query("select 1"))


def test_a_server_that_switches_to_an_unscannable_encoding_ends_the_flow() -> None:
    """ParameterStatus is the truth about client_encoding, however the client set it."""
    talk = opened(PostgresInspector())
    with pytest.raises(ProtocolError, match="server: client_encoding 'GBK' is not inspected"):
        talk.feed(S, msg("S", z("client_encoding"), z("GBK")))
