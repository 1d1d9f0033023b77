"""What rules ask of statements, with real clients and servers: what does not fit is refused and never carried out."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import psycopg
import pymysql
import pytest

from enforcer.policy.only import Only
from tests.databases.conftest import PostgresServer
from tests.databases.gateway import Gateway, rule
from tests.databases.mysql_server import DATABASE, PASSWORD, USER, MariaDb
from tests.protocols import wire_postgres as wire

REPORTS = Only(
    operation=("read",), table=("orders", "public.orders"), column=("*orders.id", "*orders.total"), user=("postgres",)
)
REFUSED = {
    "DELETE FROM orders": "operation write is not in read",
    "SELECT 1; DELETE FROM orders": "operation write is not in read",
    "WITH gone AS (DELETE FROM orders RETURNING id) SELECT id FROM gone": "operation write is not in read",
    "EXPLAIN ANALYZE DELETE FROM orders": "operation write is not in read",
    "COPY (DELETE FROM orders RETURNING id) TO STDOUT": "operation write is not in read",
    "SELECT E'\\''; DELETE FROM orders; --'": "operation write is not in read",
    "DO $$ BEGIN DELETE FROM orders; END $$": "the statement is not understood",
    "SELECT purge()": "function purge may do anything",
    "SELECT pg_read_file('/etc/hostname')": "operation admin is not in read",
    "SELECT id FROM people": "table people is not in orders",
    "SELECT iban FROM orders": "column orders.iban is not in *orders.id",
    "SELECT * FROM orders": "column orders.* is not in *orders.id",
    "SELECT id FROM orders WHERE iban = 'DE'": "column orders.iban is not in *orders.id",
    "SELECT row_to_json(o) FROM orders o": "column orders.* is not in *orders.id",
}


@pytest.fixture(scope="module")
def reports(postgres_server: PostgresServer) -> Iterator[tuple[Gateway, int]]:
    """Reads two columns of one table, in a database of its own."""
    where = f"host=127.0.0.1 port={postgres_server.port} user=postgres sslmode=disable"
    with psycopg.connect(f"{where} dbname=postgres", autocommit=True) as direct:
        direct.execute("CREATE DATABASE reports")
    with psycopg.connect(f"{where} dbname=reports", autocommit=True) as direct:
        direct.execute("CREATE TABLE orders (id int, total int, iban text)")
        direct.execute("CREATE TABLE people (id int)")
        direct.execute("INSERT INTO orders VALUES (1, 10, 'DE')")
        direct.execute("CREATE FUNCTION purge() RETURNS int LANGUAGE sql AS 'DELETE FROM orders RETURNING id'")
    with Gateway(postgres_server.port, rule(only=REPORTS, protocols=frozenset({"postgres"}))) as gateway:
        yield gateway, postgres_server.port


def connected(port: int, **options: str) -> psycopg.Connection[tuple[object, ...]]:
    where = f"host=127.0.0.1 port={port} user=postgres dbname=reports sslmode=disable"
    return psycopg.connect(where, autocommit=True, **options)  # type: ignore[arg-type]


def test_only_what_fits_is_carried_out(reports: tuple[Gateway, int]) -> None:
    """Each refusal names what does not fit; the connection lives on, and nothing was changed."""
    gateway, direct = reports
    with connected(gateway.port) as client:
        for statement, why in REFUSED.items():
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as refusal:
                client.execute(statement)
            assert why in f"{refusal.value} {refusal.value.diag.message_detail}", statement
            assert client.execute("SELECT id, total FROM public.orders").fetchall() == [(1, 10)]
    with connected(direct) as server:
        assert server.execute("SELECT count(*) FROM orders").fetchone() == (1,)
    refused = [row for row in gateway.exchanges() if row["action"] == "deny"]
    assert len(refused) == len(REFUSED)
    assert {row["reason"] for row in refused} == {"the rule's only clause"}


@pytest.mark.parametrize(
    "options",
    [
        "-c search_path=pg_catalog",
        "-csearch\\_path=x",
        "--search-path=pg_catalog",
        "-c jit=off -c role=x",
        "-O",
        "-c jit",
    ],
)
def test_a_connection_sets_no_more_than_its_statements_may(reports: tuple[Gateway, int], options: str) -> None:
    """What is administration in a statement is so among a connection's first parameters: FATAL 42501."""
    gateway, _ = reports
    with pytest.raises(psycopg.OperationalError, match="only some requests: operation admin is not in read"):
        connected(gateway.port, options=options)
    with connected(gateway.port, options="-c jit=off --extra-float-digits=1 -cDateStyle=ISO,\\ DMY") as client:
        assert client.execute("SELECT id FROM orders").fetchall() == [(1,)]
        assert client.execute("SHOW datestyle").fetchone() == ("ISO, DMY",)


HIDDEN = "SELECT E'Á\\' AS x; DELETE FROM orders; --'"
"""In UTF-8 one statement with a long literal; in SJIS the second byte of the letter takes the backslash with it, the
literal ends at the quote, and another statement follows."""
SETTING = "SELECT set_config('client_encoding', 'SJIS', false)"


@pytest.mark.parametrize(
    "sent",
    [
        wire.query(SETTING) + wire.query(HIDDEN),
        wire.query("SELECT 1; SET client_encoding TO sjis") + wire.query(HIDDEN),
        wire.parse(SETTING) + wire.bind() + wire.execute() + wire.SYNC + wire.query(HIDDEN),
        wire.parse(SETTING) + wire.bind() + wire.execute() + wire.query(HIDDEN),
        wire.parse(SETTING) + wire.bind() + wire.execute() + wire.parse(HIDDEN) + wire.SYNC,
    ],
)
def test_no_encoding_hides_a_statement(reports: tuple[Gateway, int], sent: bytes) -> None:
    """A text that is sent right behind what sets another encoding waits until the server has told which; then the
    connection ends, and nothing of it was carried out. In one batch with it, it ends at once."""
    gateway, direct = reports
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(30)
        client.sendall(wire.startup(user="postgres", database="reports", client_encoding="UTF8"))
        told = b""
        while wire.ready() not in told:
            told += client.recv(65536)
        client.sendall(sent)
        told = b""
        while more := client.recv(65536):
            told += more
    assert b"is not inspected" in told or b"that is not ASCII, in a batch behind" in told
    with connected(direct) as server:
        assert server.execute("SELECT count(*) FROM orders").fetchone() == (1,)


def test_other_texts_wait_for_nothing_they_need_not(reports: tuple[Gateway, int]) -> None:
    """Behind a setting of an encoding that is read, a text beyond ASCII is carried out once that is told."""
    gateway, _ = reports
    setting = wire.query("SELECT set_config('client_encoding', 'WIN1252', false)")
    with socket.create_connection(("127.0.0.1", gateway.port)) as client:
        client.settimeout(30)
        client.sendall(wire.startup(user="postgres", database="reports"))
        told = b""
        while wire.ready() not in told:
            told += client.recv(65536)
        latin = wire.msg("Q", "SELECT 'é' AS x".encode("cp1252") + b"\0")
        client.sendall(setting + latin + wire.query("SELECT 7 AS y"))
        while told.count(wire.ready()) < 4:
            told += client.recv(65536)
    assert wire.row("é".encode("cp1252")) in told
    assert wire.row(b"7") in told


def test_prepared_statements_are_judged_as_well(reports: tuple[Gateway, int]) -> None:
    """Where the server is to prepare them, and with their parameters."""
    gateway, _ = reports
    with connected(gateway.port) as client:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            client.execute("UPDATE orders SET total = %s", (0,), prepare=True)
        for total in (10, 11):
            found = client.execute("SELECT id FROM orders WHERE total = %s", (total,), prepare=True).fetchall()
            assert found == ([(1,)] if total == 10 else [])
    asked = gateway.exchanges("Execute")[-1]["facts"]
    assert (asked["operation"], asked["table"]) == ("read", "orders")
    assert asked["column"] == "orders.id, orders.total"


def test_execute_does_what_was_prepared(reports: tuple[Gateway, int]) -> None:
    """That outlives a rollback, and fails in the server's words once deallocated; a name has all its meanings."""
    gateway, _ = reports
    with connected(gateway.port) as client:
        client.execute("BEGIN")
        client.execute("PREPARE q (int, numeric(8, 2)) AS SELECT id FROM orders WHERE id = $1 AND $2 > -1")
        client.execute("ROLLBACK")
        assert client.execute("/* app */ EXECUTE q (1, 2.5)").fetchall() == [(1,)]
        client.execute("DEALLOCATE q")
        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            client.execute("EXECUTE q (1, 2.5)")
        client.execute("PREPARE q AS SELECT total FROM orders")
        with pytest.raises(psycopg.errors.DuplicatePreparedStatement):
            client.execute("PREPARE q AS SELECT id FROM public.orders")
        assert client.execute("EXECUTE q").fetchall() == [(10,)]
        asked = gateway.exchanges()[-1]["facts"]
        assert (asked["operation"], asked["table"]) == ("read", "orders, public.orders")
        for refused in ("PREPARE w AS DELETE FROM orders", "EXECUTE w", "EXECUTE q (pg_sleep(0))", "EXPLAIN EXECUTE q"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                client.execute(refused)
        assert client.execute("EXECUTE q").fetchall() == [(10,)]
        client.execute("PREPARE w AS SELECT id FROM orders")  # what was refused gave it no meaning
        assert client.execute("EXECUTE w").fetchall() == [(1,)]


def test_only_what_fits_is_carried_out_by_mysql(mysql_server: MariaDb) -> None:
    """In MySQL's words; a database that a statement names counts as much as the connection's."""
    only = Only(operation=("read",), database=(DATABASE,), column=("customers.id", "customers.name"))
    refused = {
        "DELETE FROM customers": "operation write",
        "SELECT 1 /*! ; DELETE FROM customers */": "operation write",
        "SELECT user FROM mysql.user": "database mysql",
        "USE mysql": "database mysql",
        "SELECT SSN FROM customers": "column customers.ssn",
        "SELECT sleep(0)": "operation admin",
        "BEGIN NOT ATOMIC DELETE FROM customers; END": "is not understood",
        "SET sql_mode = 'ANSI_QUOTES'": "operation admin",
    }
    login = {"user": USER, "password": PASSWORD, "database": DATABASE, "autocommit": True}
    with (
        Gateway(mysql_server.port, rule(only=only, protocols=frozenset({"mysql"}))) as gateway,
        pymysql.connect(host="127.0.0.1", port=gateway.port, read_timeout=30, **login) as client,  # type: ignore[call-overload]
        client.cursor() as cursor,
    ):
        for statement, why in refused.items():
            with pytest.raises(pymysql.Error) as refusal:
                cursor.execute(statement)
            assert refusal.value.args[0] == 1142
            assert why in refusal.value.args[1]
            cursor.execute("SELECT name FROM customers WHERE id = 1")
            assert cursor.fetchall() == (("Ada",),)
