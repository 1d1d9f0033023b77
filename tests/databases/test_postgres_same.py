"""PostgreSQL answers through the enforcer as it does without it: thousands of statements, each in three protocols."""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import product

import psycopg
import pytest

from tests.databases.conftest import PostgresServer
from tests.databases.gateway import Gateway, allow
from tests.databases.test_postgres_clients import databases

VALUES = (
    *("0", "1", "-7", "32767", "2147483648", "9223372036854775807", "1.5", "-0.001", "1e30", "'NaN'::float8", "null"),
    *("''", "'a'", "'Zoë'", "'it''s'", "E'\\\\t\\\\n'", "'x'::bytea", "true", "'2026-11-22'::date", "now() - now()"),
    *("'{\"a\": [1, null]}'::jsonb", "array[1, 2, null]", "array['a', null]", "row(1, 'x')", "'10.0.0.1'::inet"),
    *("'[1,5)'::int4range", "'1 day 2 hours'::interval", "'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11'::uuid", "point(1, 2)"),
)
FUNCTIONS = (
    *("{}", "({})::text", "pg_typeof({})", "length({})", "abs({})", "upper({})", "round({})", "to_json({})", "md5({})"),
    *("({}) is null", "coalesce({}, {})", "({}) = ({})", "({}) + ({})", "({}) || ({})", "greatest({}, {})"),
    *(
        "({})::int",
        "({})::numeric(8,2)",
        "({})::date",
        "array[{}]",
        "count({})",
        "sum({})",
        "min({})",
        "quote_literal({})",
    ),
)
SHAPES = (
    "select {}",
    "select {} as a, {} as b",
    "select n, {} from generate_series(1, 3) n",
    "with w as (select {} as v) select v, v from w",
    "select x from (values ({}), ({})) v(x) order by 1",
    "select {} where false",
)
WRITES = (
    "insert into t (a, b) values ({n}, 'row {n}') returning *",
    "update t set b = b || '!' where mod(a, 7) = {m} returning a",
    "delete from t where a = {n}",
    "select * from t order by a limit {m}",
    "select count(*), max(b) from t where a < {n}",
    "insert into t (a) values (null)",
    "insert into t (a, b) values (1, 'again')",
    "create table t{n} as select * from t where a < {m}",
    "drop table if exists t{m}",
    "truncate nowhere",
    "select * from t{n}",
    "begin", "commit", "rollback", "savepoint s", "rollback to s", "release s",
    "set local work_mem = '{m}MB'", "show work_mem", "explain (costs off) select * from t where a = {n}",
    "do $$ begin perform {n}; end $$", "select {n} / {m}", "", "-- nothing", "selec {n}", "vacuum t",
    "declare c cursor for select a from t order by a", "fetch 2 from c", "close c",
    "prepare p{m} as select {n}", "execute p{m}", "deallocate p{m}", "lock table t", "analyze t", "table t limit {m}",
)  # fmt: skip


def statements(count: int) -> list[str]:
    """So many, half of them reading and half writing, always the same."""
    chance = random.Random(6)
    reads = list(product(SHAPES, FUNCTIONS))
    made: list[str] = []
    while len(made) < count:
        shape, function = chance.choice(reads)
        expression = _filled(function, chance)
        made.append(shape.replace("{}", expression))
        made.append(chance.choice(WRITES).format(n=chance.randint(1, 60), m=chance.randint(0, 6)))
    return made[:count]


def _filled(function: str, chance: random.Random) -> str:
    while "{}" in function:
        function = function.replace("{}", chance.choice(VALUES), 1)
    return function


def answers(connection: psycopg.Connection, made: list[str]) -> Iterator[tuple[str, object]]:
    """What comes of each: by turns in the simple protocol, in the extended one, and in it with binary results."""
    for number, statement in enumerate(made):
        cursor = connection.cursor(binary=number % 3 == 2)
        try:
            cursor.execute(statement, () if number % 3 else None)
            columns = [(column.name, column.type_code) for column in cursor.description or ()]
            rows = cursor.fetchall() if cursor.description else []
            yield (
                statement,
                (cursor.statusmessage, cursor.rowcount, columns, repr(rows), connection.info.transaction_status),
            )
        except psycopg.Error as error:
            told = error.diag
            place = (told.sqlstate, told.message_primary, told.message_detail, told.statement_position, told.severity)
            yield statement, (*place, connection.info.transaction_status)


def compare(server: PostgresServer, count: int) -> None:
    made = statements(count)
    with Gateway(server.port, allow()) as gateway, databases(server, "same_a", "same_b"):
        told = []
        for port, name in ((server.port, "same_a"), (gateway.port, "same_b")):
            settings = f"host=127.0.0.1 port={port} user=postgres dbname={name} sslmode=disable"
            with psycopg.connect(settings, autocommit=True, prepare_threshold=None) as connection:
                connection.execute("create table t (a int primary key, b text); set timezone = 'UTC'")
                told.append(list(answers(connection, made)))
        differing = [(one, other) for one, other in zip(*told, strict=True) if one != other]
        assert differing == []
        gateway.ended()
        asked = sorted(gateway.exchanges(), key=lambda row: row["exchange"])
        sent = [row["text"] for row in asked if row["operation"] in ("Query", "Parse")]
    assert [text for text in sent if text in set(made)] == made


def test_some_hundred_statements_are_answered_alike(postgres_server: PostgresServer) -> None:
    """Rows, columns, types, tags, errors with their positions, and the transaction's status; all are recorded."""
    compare(postgres_server, 200)


@pytest.mark.full
def test_thousands_of_statements_are_answered_alike(postgres_server: PostgresServer) -> None:
    """The same, long enough for every shape to meet every function."""
    compare(postgres_server, 5000)
