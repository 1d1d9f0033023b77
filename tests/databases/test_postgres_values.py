"""Binary values are read, for the record and for detectors, as the server itself writes them."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psycopg
import pytest

from enforcer.protocols.postgres.values import parameter_text
from enforcer.verdict import MaskSpec
from tests.databases.conftest import PostgresServer
from tests.databases.gateway import Gateway, allow, rule
from tests.protocols import wire_postgres as wire

VALUES = (
    *(f"int2 '{n}'" for n in (0, -32768, 32767)),
    *(f"int4 '{n}'" for n in (0, -1, 2147483647)),
    *(f"int8 '{n}'" for n in (-(2**63), 2**63 - 1)),
    *(
        f"numeric '{n}'"
        for n in ("0", "1", "-12345.6780", "0.0001", "10000", "100000000", "1e40", "99.990", "12345678.9")
    ),
    *(f"float8 '{n}'" for n in ("0.5", "-2.25", "1e300")),
    *(f"date '{day}'" for day in ("2000-01-01", "1999-12-31", "2026-11-22", "0001-01-01", "9999-12-31")),
    *(f"timestamp '{at}'" for at in ("2026-11-22 19:46:00", "1970-01-01 00:00:00.000001")),
    *(f"time '{at}'" for at in ("00:00:00", "23:59:59.999999")),
    "timestamptz '2026-11-22 19:46:00.5+00'",
    "uuid 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'",
    "text 'Zoë'",
    "varchar 'x'",
    "char(3) 'ab'",
    "name 'n'",
    """json '{"a": [1]}'""",
    """jsonb '{"a": [1]}'""",
    "bytea '\\x00ff'",
    "oid '4294967295'",
)
SENDERS = {"varchar": "varcharsend", "text": "textsend", "char(3)": "bpcharsend", "name": "namesend", "oid": "oidsend"}
SENDERS |= {name: f"{name}send" for name in ("int2", "int4", "int8", "float8", "bytea")}
HEX_ONLY = ("numeric 'NaN'", "date 'infinity'", "timestamp '294276-12-31'", "date '0044-03-15 BC'", "interval '1 day'")


@pytest.fixture(scope="module")
def server(postgres_server: PostgresServer) -> psycopg.Connection:
    return psycopg.connect(f"host=127.0.0.1 port={postgres_server.port} user=postgres", autocommit=True)


def sent(server: psycopg.Connection, value: str) -> tuple[bytes, int, str]:
    """(binary form, type OID, text) of a value, as the server has them."""
    kind = value.split(" ", maxsplit=1)[0]
    send = SENDERS.get(kind, f"{kind}_send")
    row = server.execute(
        f"set timezone = 'UTC'; select {send}(v), pg_typeof(v)::oid::int8, v::text from (select {value} as v) q"
    )
    while row.nextset():
        pass
    found = row.fetchone()
    assert found is not None
    return found


@pytest.mark.parametrize("value", VALUES)
def test_it_reads_as_the_server_writes_it(server: psycopg.Connection, value: str) -> None:
    """The type's `send` function and its text are two spellings of one value."""
    raw, oid, text = sent(server, value)
    assert (parameter_text(raw, 1, oid) or "").rstrip() == ("true" if text == "t" else text).rstrip()


@pytest.mark.parametrize("value", HEX_ONLY)
def test_what_python_cannot_say_is_hex(server: psycopg.Connection, value: str) -> None:
    """Infinity, years before Christ or far ahead, and types that are not known here."""
    raw, oid, _ = sent(server, value)
    assert parameter_text(raw, 1, oid) == "\\x" + raw.hex()


CARD = "4111111111111111"
HIDING = (
    f"{CARD}::int8",
    f"{CARD}::numeric",
    "'192.0.2.1'::inet",
    "'2001:db8::7/128'::inet",
    "'192.0.2.0/24'::cidr",
    "'00:00:5e:00:53:af'::macaddr",
    "'00:00:5e:00:53:af:00:01'::macaddr8",
    f"array[1, {CARD}]::int8[]",
    f"array[[null, {CARD}], [3, 4]]::numeric[]",
    "array['192.0.2.1'::inet]",
    f"row(1, row('x', {CARD}::int8))",
    f"row({CARD}::int8, null)::numbers",
    f"array[row({CARD}::int8, 'x')::numbers]",
    f"'{CARD}'::bytea",
)
KEPT = ("7::int8", "411111111111111::int8 + 7", "7.5::numeric", "array[1, 2]::int8[]", "row(1, 'x')", "'{}'::int8[]")


@pytest.fixture(scope="module")
def gateway(postgres_server: PostgresServer, server: psycopg.Connection) -> Iterator[Gateway]:
    server.execute("create type numbers as (one int8, two text)")
    with Gateway(postgres_server.port, allow("credit_card", "ip_address", "mac_address")) as running:
        yield running
    server.execute("drop type numbers")


@pytest.mark.parametrize("described", [True, False])
def test_a_detector_finds_in_binary_what_it_finds_in_text(gateway: Gateway, described: bool) -> None:
    """Integers, numerics, addresses, and what arrays and rows hold of them, whether the client had them described or
    not: NULL, as any binary value; what was described and has nothing to hide is what it was."""
    asked = wire.describe("P", "") if described else b""
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(30)
        client.sendall(wire.startup(user="postgres"))
        answers_to(client)
        for value in (*HIDING, *(KEPT if described else ())):
            text = f"select v, 'kept'::text, 7::int4 from (select {value} as v from generate_series(1, 2)) q"
            client.sendall(wire.parse(text) + wire.bind(results=(1,)) + asked + wire.execute() + wire.SYNC)
            told = answers_to(client)
            assert told.count(wire.i32(4) + b"kept" + wire.i32(4) + wire.i32(7)) == 2, (value, told)
            assert (wire.i16(3) + wire.i32(-1) in told) is (value in HIDING), (value, told)


def test_bytes_are_read_in_the_text_format_too(gateway: Gateway) -> None:
    """As hexadecimal digits, alone, in arrays and in a COPY: NULL where they say something to hide."""
    query = f"select '{CARD} x'::bytea as a, array['{CARD}'::bytea] as b, 'none'::bytea as c, 'x' as d"
    with psycopg.connect(f"host=127.0.0.1 port={gateway.port} user=postgres", autocommit=True) as client:
        for style in ("hex", "escape"):
            client.execute(f"set bytea_output = {style}")
            assert client.execute(query).fetchone() == (None, None, b"none", "x")
        client.execute("set bytea_output = hex")
        with client.cursor().copy(f"copy ({query}) to stdout") as copy:
            told = b"".join(bytes(piece) for piece in copy)
    assert told == b"\\N\t\\N\t\\\\x6e6f6e65\tx\n"


def test_what_is_binary_is_hidden_in_requests(postgres_server: PostgresServer, server: psycopg.Connection) -> None:
    """A parameter in binary that says a card number reaches the server as NULL, another one as it is."""
    with (
        Gateway(postgres_server.port, rule(request_mask=MaskSpec(detectors=("credit_card",)))) as hiding,
        psycopg.connect(f"host=127.0.0.1 port={hiding.port} user=postgres", autocommit=True) as client,
    ):
        found = client.execute("select %b::int8::text, %b::int8::text", (int(CARD), 7 << 40)).fetchone()
    assert found == (None, str(7 << 40))


def answers_to(client: socket.socket) -> bytes:
    told = b""
    while not told.endswith(wire.ready()):
        more = client.recv(65536)
        assert more, told
        told += more
    return told
