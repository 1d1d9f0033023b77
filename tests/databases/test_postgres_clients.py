"""Real clients do through the enforcer what they do without it, byte for byte, and all of it is recorded."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import psycopg
import pytest

from enforcer.policy.only import Only
from enforcer.verdict import MaskSpec
from tests.databases.conftest import PostgresServer
from tests.databases.gateway import Gateway, allow, rule

SCRIPT = r"""
\set ON_ERROR_STOP off
\timing off
create table goods
  (id serial primary key, name text not null, price numeric(8,2), made timestamptz default '2026-11-22 12:00+00');
insert into goods (name, price) select 'thing ' || n, n * 1.5 from generate_series(1, 500) n;
\d goods
\dt
select count(*), sum(price) from goods \gx
select id, name from goods where id < 4 \g (format=csv)
select 'a' as x, 2 as y \gset
select :'x', :y;
select 1/0;
selec 1;
begin; insert into goods (name) values (null); select 1; rollback;
begin; savepoint s; select * from nowhere; rollback to s; select 'still here'; commit;
select 1; select 2\; select 3;
copy goods (id, name) to stdout with (format csv, header);
\copy (select * from goods order by id limit 5) to stdout
copy goods (name, price) from stdin;
first	1.5
se\tcond	\N
\.
\copy goods (name) from stdin csv
"third, of all"
\.
copy goods (name, price) from stdin;
bad	number
\.
select name, price from goods where id > 500 order by id;
do $$ begin raise notice 'noted %', 7; raise warning 'careful'; end $$;
listen ears; notify ears, 'payload';
prepare p (int) as select name from goods where id = $1; execute p (7); deallocate p;
select $1::int + 1 \bind 4 \g
explain (costs off) select * from goods where id = 1;
select repeat('long ', 30000) as l \g /dev/null
select array[1, 2], '{"a": null}'::jsonb, point(1, 2), '\xdeadbeef'::bytea, null;
select n, repeat('x', n) from generate_series(1, 2000) n \g /dev/null
;
drop table goods;
"""


def environment(port: int, database: str = "postgres") -> dict[str, str]:
    settings = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGDATABASE": database}
    return {**os.environ, **settings, "PGTZ": "UTC", "PSQL_HISTORY": "/dev/null", "PGSSLMODE": "disable"}


def run(
    port: int, *command: str, database: str = "postgres", text: str | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment(port, database), input=text, capture_output=True, text=True, check=False, timeout=120
    )


@contextmanager
def databases(server: PostgresServer, *names: str) -> Iterator[None]:
    direct = f"host=127.0.0.1 port={server.port} user=postgres"
    with psycopg.connect(direct, autocommit=True) as connection:
        for name in names:
            connection.execute(f"create database {name}")
        try:
            yield
        finally:
            for name in names:
                connection.execute(f"drop database {name} with (force)")


@pytest.fixture(scope="module")
def gateway(postgres_server: PostgresServer) -> Iterator[Gateway]:
    with Gateway(postgres_server.port, allow()) as running:
        yield running


def url(gateway: Gateway, database: str = "postgres") -> str:
    return f"host=127.0.0.1 port={gateway.port} user=postgres dbname={database}"


def test_psql_prints_what_it_prints_without_us(postgres_server: PostgresServer, gateway: Gateway) -> None:
    """Queries, errors, transactions, COPY both ways, notices, notifications, prepared statements, long rows."""
    with databases(postgres_server, "psql_a", "psql_b"):
        direct = run(postgres_server.port, "psql", "-X", "-e", database="psql_a", text=SCRIPT)
        through = run(gateway.port, "psql", "-X", "-e", database="psql_b", text=SCRIPT)
    clean = [(done.stdout + done.stderr).replace("psql_b", "psql_a").splitlines() for done in (direct, through)]
    served = [[line for line in lines if "Asynchronous notification" not in line] for lines in clean]
    assert served[1] == served[0]
    assert "still here" in through.stdout
    statuses = {row["text"].strip(";"): (row.get("status"), row.get("rows")) for row in gateway.exchanges("Query")}
    assert statuses["select 1/0"][0] == "22012"
    assert statuses["copy goods (id, name) to stdout with (format csv, header)"] == ("COPY", 500), statuses
    assert statuses["copy goods (name, price) from stdin"][0] in ("COPY", "22P02")


def test_pgbench_runs(postgres_server: PostgresServer, gateway: Gateway) -> None:
    """Its own tables made, and transactions of several clients at once in each way of asking, none failed."""
    with databases(postgres_server, "bench"):
        made = run(gateway.port, "pgbench", "-i", "-q", "-s", "1", "-I", "dtg", database="bench")
        assert made.returncode == 0, made.stderr
        for mode in ("simple", "extended", "prepared"):
            options = ("-M", mode, "-c", "4", "-j", "2", "-t", "10", "-n")
            done = run(gateway.port, "pgbench", *options, database="bench")
            assert done.returncode == 0, done.stderr
            assert "number of transactions actually processed: 40/40" in done.stdout
            assert "number of failed transactions: 0" in done.stdout


def unmarked(dump: str) -> list[str]:
    """A dump without the random word that guards it against psql's own commands."""
    return [line for line in dump.splitlines() if "restrict" not in line]


def test_a_dump_and_its_restoration_are_what_they_are_without_us(
    postgres_server: PostgresServer, gateway: Gateway, tmp_path: Path
) -> None:
    """Under a rule that lets only reading pass and masks, pg_dump makes the dump that it makes without us, with large
    objects; what pg_restore makes of it through us dumps as the same."""
    made = """
        create schema s; create type s.mood as enum ('sad', 'ok');
        create table s.people (id bigserial primary key, name text, m s.mood, data jsonb, raw bytea, unique (name));
        insert into s.people (name, m, data, raw) select E'n\\t' || n, 'ok', '{"a": [1, null]}', '\\x00ff' from
          generate_series(1, 3000) n;
        create view s.v as select name from s.people; comment on view s.v is 'it''s a "view"';
        create function s.f(a int) returns int language sql as $$ select a + 1 $$;
        create aggregate s.agg (int) (sfunc = int4pl, stype = int, initcond = '0');
        create type s.pair as (a int, b text); create domain s.positive as int check (value > 0);
        create table s.parts (a int) partition by range (a); create index on s.parts (a);
        create table s.first partition of s.parts for values from (1) to (10);
        create function s.t() returns trigger language plpgsql as $$ begin return new; end $$;
        create trigger t before insert on s.first for each row execute function s.t();
        create policy all_of_them on s.people using (id > 0); alter table s.people enable row level security;
        select lo_from_bytea(0, 'large');
    """
    reading = rule(only=Only(operation=("read",)), mask=MaskSpec(detectors=("credit_card", "iban", "email", "us_ssn")))
    with databases(postgres_server, "dumped", "restored"), Gateway(postgres_server.port, reading) as reader:
        assert (
            run(postgres_server.port, "psql", "-X", "-v", "ON_ERROR_STOP=1", "-c", made, database="dumped").returncode
            == 0
        )
        direct = run(postgres_server.port, "pg_dump", "--inserts", database="dumped")
        through = run(reader.port, "pg_dump", "--inserts", database="dumped")
        assert (through.returncode, unmarked(through.stdout)) == (0, unmarked(direct.stdout)), through.stderr
        archive = str(tmp_path / "archive")
        done = run(reader.port, "pg_dump", "-Fc", "-f", archive, database="dumped")
        assert done.returncode == 0, done.stderr
        done = run(gateway.port, "pg_restore", "-d", "restored", "-e", archive)
        assert done.returncode == 0, done.stderr
        again = run(postgres_server.port, "pg_dump", "--inserts", database="restored")
    assert unmarked(again.stdout) == unmarked(direct.stdout)


async def _asyncpg(port: int) -> list[object]:
    told: list[object] = []
    connection = await asyncpg.connect(host="127.0.0.1", port=port, user="postgres", database="postgres", ssl=False)
    try:
        await connection.execute("create temp table t (id int, name text, at timestamptz, data bytea, n numeric)")
        records = [(n, f"name {n}", None, bytes((n % 256,)), n) for n in range(1000)]
        told.append(await connection.copy_records_to_table("t", records=records))
        statement = await connection.prepare("select * from t where id = $1")
        told += [tuple(await statement.fetchrow(n)) for n in (1, 5, 999)]
        async with connection.transaction():
            told += [
                tuple(row) async for row in connection.cursor("select id, n from t order by id limit 30", prefetch=7)
            ]
        await connection.executemany("insert into t (id, name) values ($1, $2)", [(n, "more") for n in range(50)])
        told.append(await connection.fetchval("select count(*) from t where name = any($1::text[])", ["more"]))
        heard: asyncio.Queue[str] = asyncio.Queue()
        await connection.add_listener("ears", lambda *told: heard.put_nowait(told[-1]))
        await connection.execute("select pg_notify('ears', 'hello')")
        told.append(await asyncio.wait_for(heard.get(), 30))
        for bad in ("select 1/0", "select * from nowhere"):
            with pytest.raises(asyncpg.PostgresError) as error:
                await connection.fetch(bad)
            told.append(error.value.sqlstate)
        with pytest.raises(asyncio.TimeoutError):
            await connection.fetch("select pg_sleep(30)", timeout=0.3)  # it cancels on a connection of its own
        told.append(await connection.fetchval("select 'alive'"))
    finally:
        await connection.close()
    return told


def test_asyncpg_does_what_it_does_without_us(postgres_server: PostgresServer, gateway: Gateway) -> None:
    """Binary rows and parameters, COPY in binary, cursors, pipelined batches, notifications, cancellation."""
    through = asyncio.run(_asyncpg(gateway.port))
    assert through == asyncio.run(_asyncpg(postgres_server.port))
    assert through[-1] == "alive"
    assert any(row["operation"] == "CancelRequest" for row in gateway.exchanges())


def _fail_in_the_middle(connection: psycopg.Connection, pipeline: psycopg.Pipeline) -> None:
    connection.execute("select 1/0")
    connection.execute("select 2")
    pipeline.sync()


def _psycopg(port: int) -> list[object]:
    told: list[object] = []
    settings = f"host=127.0.0.1 port={port} user=postgres sslmode=disable"
    with psycopg.connect(settings, autocommit=True) as connection:
        connection.execute("create temp table t (id int, name text, d double precision)")
        with connection.cursor().copy("copy t from stdin (format binary)") as copy:
            copy.set_types(["int4", "text", "float8"])
            for n in range(500):
                copy.write_row((n, f"n {n}" if n % 3 else None, n / 7))
        with connection.cursor(binary=True) as cursor:
            told += cursor.execute("select * from t order by id limit 20").fetchall()
            told += cursor.execute("select * from t where id = %s and name = %s", (4, "n 4"), prepare=True).fetchall()
        with connection.cursor().copy("copy t to stdout (format binary)") as copy:
            told.append(b"".join(bytes(piece) for piece in copy))
        # At the end it may say again that it was aborted, which depends on what had arrived by then.
        with suppress(psycopg.errors.PipelineAborted), connection.pipeline() as pipeline:
            first = connection.execute("select 1")
            with pytest.raises(psycopg.errors.DivisionByZero):
                _fail_in_the_middle(connection, pipeline)
            told.append(first.fetchall())
        with connection.transaction(), connection.cursor(name="named") as named:
            named.itersize = 11
            told += list(named.execute("select id from t order by id limit 50"))
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(30)")
        timer.join()
        told.append(connection.execute("select 'alive'").fetchone())
    return told


def test_psycopg_does_what_it_does_without_us(postgres_server: PostgresServer, gateway: Gateway) -> None:
    """libpq's binary mode, COPY in binary both ways, a pipeline that fails, a named cursor, cancellation."""
    assert _psycopg(gateway.port) == _psycopg(postgres_server.port)


@pytest.mark.parametrize("prepare", [False, True])
def test_an_encoding_that_is_not_read_is_refused_and_the_connection_lives_on(gateway: Gateway, prepare: bool) -> None:
    """Half of a character could be a quote in it; one whose ASCII is ASCII is taken."""
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        for statement in ("set client_encoding to 'SJIS'", "SET NAMES 'GBK'", "set local client_encoding = big5;"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege, match="is not inspected; stay with UTF8"):
                connection.execute(statement, prepare=prepare)
        connection.execute("set client_encoding to 'LATIN1'", prepare=prepare)
        assert connection.execute("select 'é'").fetchone() == ("é",)


def test_statements_are_recorded_with_parameters_and_outcome(gateway: Gateway) -> None:
    """Text, parameters of every format in words, masked; rows, SQLSTATE; what they do, to which tables, by whom."""
    with psycopg.connect(url(gateway), autocommit=True) as connection:
        connection.execute("create temp table r (id int, card text)")
        connection.execute("insert into r values (%b, %t)", (7, "4111111111111111"))
        with pytest.raises(psycopg.errors.UndefinedColumn):
            connection.execute("select nothing from r")
    found = gateway.until(
        lambda: [row for row in gateway.exchanges("Execute") if "insert into r" in row["text"] and row.get("status")]
    )
    (row,) = found
    assert row["params"] == ["7", "************1111"]
    assert (row["status"], row["rows"], row["failed"]) == ("INSERT", 1, False)
    assert row["facts"]["operation"] == "write"
    assert (row["facts"]["table"], row["facts"]["user"], row["facts"]["database"]) == ("r", "postgres", "postgres")
    assert row["duration_ns"] > 0
    failed = [row for row in gateway.exchanges() if row["text"] == "select nothing from r"]
    assert (failed[0].get("status"), failed[0].get("failed")) == ("42703", True)
