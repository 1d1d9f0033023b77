"""Binary values are read for the record as the server itself writes them."""

from __future__ import annotations

import psycopg
import pytest

from enforcer.protocols.postgres.values import parameter_text
from tests.databases.conftest import PostgresServer

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
