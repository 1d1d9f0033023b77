"""Where result columns come from, against real servers: a cell that shows a column is hidden by its rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import psycopg
import pymysql
import pytest

from enforcer.masking.fields import ColumnRules
from enforcer.protocols.statement_facts import columns_of, facts_of
from enforcer.verdict import Column
from tests.databases.conftest import PostgresServer
from tests.databases.mysql_server import PASSWORD, USER, MariaDb
from tests.databases.queries import DEFINITIONS, MARKS, Queries

# A third of them are none: names that may be of several tables.
SEEDS = [range(80), pytest.param(range(80, 6000), marks=pytest.mark.full)]

RULES = {name: ColumnRules((Column(name),)) for name in MARKS}

BY_HAND = """
SELECT p FROM people p
SELECT people FROM people
SELECT p::text, (p).ssn, (p).* FROM people p
SELECT row(p.*), row(p.ssn, 1), array[p.ssn], array_agg(p) FROM people p GROUP BY p.ssn, p.*
SELECT p.row_to_json FROM people p
SELECT p.to_jsonb FROM public.people p
SELECT public.people.to_json FROM public.people
SELECT p.concat FROM people p
SELECT p.json_agg FROM people p
SELECT p.json_build_array FROM people p
SELECT p.quote_literal FROM people p
SELECT p.record_send FROM people p
SELECT ssn(p) FROM people p
SELECT to_json(p) -> 'ssn', json_agg(p), jsonb_agg(to_jsonb(p)) FROM people p
SELECT value FROM people p, json_each_text(row_to_json(p))
SELECT x.* FROM people p, jsonb_to_record(to_jsonb(p)) AS x (ssn text, a text)
SELECT * FROM people p, LATERAL (VALUES (p.ssn), (p.email)) v (a)
SELECT a FROM (SELECT array_agg(ssn) s FROM people) q, unnest(s) a
SELECT u FROM people, unnest(string_to_array(ssn, 'Q', 'x')) u, regexp_matches(email, '(X+)') m
SELECT regexp_matches(ssn, '(.*)'), format('%s', p), format('%s-%s', ssn, 1), concat_ws('a', ssn, email) FROM people p
SELECT ssn || email, left(ssn, 2), reverse(email), md5(note), overlay(ssn placing 'a' from 1 for 1) FROM people
SELECT DISTINCT ON (ssn) email FROM people ORDER BY ssn
SELECT max(ssn), min(email) OVER (), string_agg(note, ',') FROM people GROUP BY email
SELECT first_value(ssn) OVER w, lag(email, 0) OVER w FROM people WINDOW w AS (PARTITION BY note)
SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY ssn), mode() WITHIN GROUP (ORDER BY email) FROM people
SELECT CASE ssn WHEN 'a' THEN 'b' ELSE email END, nullif(note, ''), greatest(ssn, 'A') FROM people
SELECT x FROM people AS p (a, x)
SELECT a, ssn FROM people AS p (a, b, ssn, d)
SELECT * FROM people AS p (a, b, ssn, d)
SELECT note FROM people p (a, b)
SELECT j.* FROM people JOIN orders USING (id) AS j
SELECT j.ssn, j.note FROM (people p JOIN orders o ON p.id = o.id) AS j (a, b, ssn, d, note, f, g)
SELECT * FROM people NATURAL LEFT JOIN (SELECT id, iban FROM orders) o
SELECT id, p.*, iban FROM people p JOIN (SELECT iban, id, total ssn FROM orders) o USING (id)
SELECT * FROM people JOIN (SELECT id, iban AS email FROM orders) o USING (id)
WITH RECURSIVE r (n, s) AS (SELECT 1, ssn FROM people UNION ALL SELECT n + 1, email FROM r, people WHERE n < 3) SELECT s FROM r
WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT ssn AS k FROM people) SELECT k FROM a
WITH people AS (SELECT email AS ssn FROM people) SELECT ssn FROM people
WITH x AS (SELECT * FROM people), y AS (SELECT * FROM x) SELECT q.* FROM (SELECT y.*, 1 FROM y) q
WITH i AS (INSERT INTO orders (iban) SELECT 'a' FROM people RETURNING iban, note) SELECT * FROM i
WITH u AS (UPDATE people SET id = '1' RETURNING ssn s, people.*) SELECT s, email FROM u
UPDATE people p SET id = o.id FROM orders o RETURNING o.iban, p.ssn, o.*
UPDATE people SET id = '1' RETURNING *
DELETE FROM orders o USING people p WHERE o.iban = 'a' AND false RETURNING p.ssn, o.*
INSERT INTO orders (id) VALUES ('2') ON CONFLICT DO NOTHING RETURNING orders
SELECT ssn FROM people UNION SELECT iban FROM orders ORDER BY 1
SELECT * FROM people UNION ALL SELECT iban, total, note, person FROM orders
(SELECT ssn a FROM people) EXCEPT (SELECT iban FROM orders) LIMIT 1
SELECT (SELECT ssn FROM people LIMIT 1), (SELECT o.iban FROM people LIMIT 1), exists (SELECT ssn FROM people) FROM orders o
SELECT (SELECT iban FROM people LIMIT 1) FROM orders
SELECT (SELECT p FROM people p LIMIT 1), ARRAY(SELECT ssn FROM people) FROM orders
SELECT ssn AS email, email AS ssn FROM people
SELECT 'a' AS ssn, count(*) AS email FROM people
TABLE people
TABLE ONLY people
SELECT * FROM (TABLE people) q (a, b)
VALUES ((SELECT ssn FROM people LIMIT 1), 'a'), ('b', (SELECT iban FROM orders LIMIT 1))
SELECT set_config('a.b', ssn, false) FROM people
SELECT current_setting('a.b')
SELECT table_to_xml('people', true, false, '')
SELECT query_to_xml('SELECT ssn AS a FROM people', true, false, '')
SELECT xmlelement(name a, xmlattributes(ssn AS b), email), xmlforest(note) FROM people
SELECT (xpath('//a', xmlelement(name a, ssn)))[1] FROM people
SELECT (array_agg(ssn))[1], (array_agg(email))[1:1] FROM people
SELECT hidden.a FROM (SELECT (SELECT max(ssn) FROM people) a) hidden
SELECT "people"."ssn" "Total, net" FROM "people"
SELECT PEOPLE.SSN FROM People
SELECT U&"\\0073sn" FROM people
SELECT ssn::varchar::text COLLATE "C", CAST(email AS text) FROM people
SELECT jsonb_path_query(to_jsonb(p), '$.ssn') FROM people p
SELECT to_jsonb(p) ->> 'ssn', to_jsonb(p) #>> '{email}', (to_jsonb(p))['note'] FROM people p
SELECT q FROM (SELECT ssn FROM people) q
SELECT q::text, row_to_json(q) FROM (SELECT ssn AS a, email FROM people) q
SELECT g FROM people, generate_series(1, length(ssn)) g
SELECT * FROM ROWS FROM (json_each_text((SELECT row_to_json(p) FROM people p LIMIT 1)), generate_series(1, 2)) AS r (a, b, c)
SELECT (r).f1 FROM (SELECT ROW(ssn, 1) r FROM people) q
SELECT lower(ssn) || upper(lower(ssn)) FROM people
SELECT least(ssn, email), translate(ssn, 'a', 'b'), btrim(ssn, 'a'), trim(both 'a' from email), substring(note from 1 for 2) FROM people
SELECT quote_nullable(p), num_nonnulls(p), to_json(array[p]) FROM people p
""".strip().splitlines()  # noqa: E501 - one query per line

IN_MYSQL = """
SELECT @a := ssn, @a FROM people
SELECT @a
SELECT ssn INTO @b FROM people LIMIT 1
SELECT concat(@b, 'a')
SELECT p.* FROM people p JOIN orders o USING (id)
SELECT group_concat(ssn ORDER BY email SEPARATOR ';'), max(note) FROM people
SELECT if(1, ssn, email), ifnull(ssn, 1), elt(1, email), insert(ssn, 1, 0, 'a'), hex(unhex(hex(note))) FROM people
SELECT PEOPLE.ssn FROM people AS PEOPLE
SELECT SsN, `eMail` FROM people
SELECT json_object('a', ssn), json_arrayagg(email), json_extract(json_object('a', note), '$.a') FROM people
SELECT * FROM (SELECT ssn a, p.* FROM people p) q
SELECT ssn FROM people UNION SELECT iban FROM orders
SELECT a FROM (VALUES ((SELECT ssn FROM people LIMIT 1))) AS v (a)
VALUES ((SELECT ssn FROM people LIMIT 1), 1)
WITH q (a) AS (SELECT ssn FROM people) SELECT a FROM q
SELECT people.ssn FROM people, orders WHERE orders.id = people.id
SELECT t.people.ssn FROM t.people
SELECT convert(ssn USING utf8mb4), cast(email AS char), substr(note FROM 1 FOR 2), trim(LEADING 'a' FROM id) FROM people
SELECT DISTINCT ssn FROM people GROUP BY ssn HAVING ssn > 'A' ORDER BY ssn
SELECT straight_join ssn FROM people FORCE INDEX () WHERE 1
SELECT CASE WHEN 1 THEN ssn END `case`, -email, !note, binary ssn FROM people
INSERT INTO orders (id) VALUES ('3') RETURNING id, iban
DELETE FROM orders WHERE id = '3' RETURNING *
SELECT /*! ssn, */ email FROM people
SELECT x FROM JSON_TABLE((SELECT json_arrayagg(ssn) FROM people), '$[*]' COLUMNS (x varchar(9) PATH '$')) AS j
SELECT q.* FROM people p, LATERAL (SELECT p.ssn) q
SHOW COLUMNS FROM people
DESCRIBE people
EXPLAIN SELECT ssn FROM people
SELECT SQL_NO_CACHE ssn AS 'email', email AS "x" FROM people PROCEDURE ANALYSE()
""".strip().splitlines()


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> Iterator[Any]:
    where = f"host=127.0.0.1 port={postgres_server.port} user=postgres sslmode=disable"
    with psycopg.connect(f"{where} dbname=postgres", autocommit=True) as connection:
        connection.execute("CREATE DATABASE lineage")
    with psycopg.connect(f"{where} dbname=lineage") as connection:
        for definition in DEFINITIONS:
            connection.execute(definition)
        connection.commit()
        yield connection


def shown(names: Sequence[str], rows: Sequence[Sequence[object]], query: str, dialect: str) -> list[str]:
    """The columns that show in a cell that their rule does not hide."""
    known = columns_of(query, dialect, names)
    assert len(known) == len(names)
    return [
        f"{column} in {names[index]}"
        for column, mark in MARKS.items()
        for index in range(len(names))
        if index not in RULES[column].hidden(known)
        and any(trace in str(row[index]) for row in rows for trace in (mark[:2], mark[0].encode().hex() * 2))
    ]


def in_postgres(connection: Any, query: str) -> list[str] | None:
    """None for a query that the server refuses."""
    try:
        cursor = connection.execute(query)
        rows = cursor.fetchall()
    except psycopg.Error:
        return None
    finally:
        connection.rollback()
    return shown([field.name for field in cursor.description], rows, query, "postgres")


@pytest.mark.parametrize("query", BY_HAND)
def test_no_cell_of_postgres_shows_a_hidden_column(postgres: Any, query: str) -> None:
    """By whatever way a value gets there."""
    assert in_postgres(postgres, query) in ([], None)


@pytest.mark.parametrize("seeds", SEEDS)
def test_no_cell_shows_a_hidden_column_in_any_query(postgres: Any, seeds: range) -> None:
    """Of queries at random, which nest, join, rename and shadow; all that the server takes are understood."""
    taken = 0
    for seed in seeds:
        query = Queries(seed, postgres=True).query()
        found = in_postgres(postgres, query)
        assert not found, query
        if found is not None:
            taken += 1
            assert facts_of(query, "postgres")["operation"] == "read", query
    assert taken > len(seeds) / 3


@pytest.fixture(scope="module")
def mysql(mysql_server: MariaDb) -> Iterator[Any]:
    connection = pymysql.connect(unix_socket=str(mysql_server.socket), user=USER, password=PASSWORD, autocommit=True)
    with connection, connection.cursor() as cursor:
        for definition in ("CREATE DATABASE t", "USE t", *DEFINITIONS):
            cursor.execute(definition)
        yield cursor


def in_mysql(cursor: Any, query: str) -> list[str] | None:
    try:
        cursor.execute(query)
        rows = cursor.fetchall()
    except pymysql.Error:
        return None
    if cursor.description is None:
        return []
    return shown([field[0] for field in cursor.description], rows, query, "mysql")


@pytest.mark.parametrize("query", IN_MYSQL)
def test_no_cell_of_mysql_shows_a_hidden_column(mysql: Any, query: str) -> None:
    """User variables included."""
    assert in_mysql(mysql, query) in ([], None)


@pytest.mark.parametrize("seeds", SEEDS)
def test_no_cell_of_mysql_shows_a_hidden_column_in_any_query(mysql: Any, seeds: range) -> None:
    """Of the same queries, without what only PostgreSQL has."""
    taken = 0
    for seed in seeds:
        query = Queries(seed, postgres=False).query()
        found = in_mysql(mysql, query)
        assert not found, query
        if found is not None:
            taken += 1
            assert facts_of(query, "mysql")["operation"] == "read", query
    assert taken > len(seeds) / 3
