"""Statements of PostgreSQL of every kind, as applications, people and attackers write them."""

from __future__ import annotations

QUERIES = """
SELECT 1
SELECT
SELECT ssn FROM customers
SELECT DISTINCT ON (email) email, ssn FROM customers ORDER BY email, id DESC
SELECT c.ssn AS x FROM ONLY public.customers AS c WHERE c.id = ANY($1) LIMIT 10 OFFSET 5
SELECT c.* FROM customers c JOIN orders o USING (id) LEFT JOIN LATERAL (SELECT ssn FROM people p WHERE p.id = c.id) l ON true
SELECT * FROM a NATURAL FULL JOIN b CROSS JOIN c
SELECT * FROM (a JOIN b ON a.x = b.x) AS j
SELECT * FROM ((SELECT ssn FROM customers) UNION ALL (SELECT email FROM people)) q (x)
SELECT ssn FROM a UNION SELECT email FROM b INTERSECT SELECT iban FROM c EXCEPT ALL SELECT salary FROM d ORDER BY 1
(SELECT ssn FROM a) UNION (SELECT ssn FROM b) LIMIT 1
TABLE customers
TABLE ONLY customers
VALUES (1, 'a'), (2, (SELECT ssn FROM customers LIMIT 1))
SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (x, y) JOIN t ON t.id = v.x
SELECT (SELECT max(salary) FROM people), EXISTS (SELECT 1 FROM a WHERE a.x = o.x) FROM orders o
SELECT ARRAY(SELECT ssn FROM customers), ARRAY[1, 2][1], (ARRAY[[1,2],[3,4]])[1][2]
SELECT count(*), count(DISTINCT ssn), sum(salary) FILTER (WHERE salary > 1) FROM people GROUP BY dept HAVING avg(salary) > 1
SELECT dept, rank() OVER w, lag(salary, 1) OVER (PARTITION BY dept ORDER BY salary ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) FROM people WINDOW w AS (PARTITION BY dept ORDER BY ssn)
SELECT a, b, sum(c) FROM t GROUP BY GROUPING SETS ((a, b), (a), ())
SELECT a, b, sum(c) FROM t GROUP BY ROLLUP (a, b)
SELECT a, b FROM t GROUP BY CUBE (a, b)
SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY salary) FROM people
SELECT string_agg(email, ', ' ORDER BY email DESC) FROM customers
SELECT CASE WHEN ssn IS NULL THEN 'x' ELSE left(ssn, 3) || repeat('*', 5) END FROM customers
SELECT CASE dept WHEN 1 THEN salary END FROM people
SELECT coalesce(email, iban, 'none'), nullif(ssn, ''), greatest(salary, 1), least(1, 2) FROM customers
SELECT CAST(ssn AS text), ssn::varchar(5), salary::numeric(10, 2), '1'::int FROM customers
SELECT extract(year FROM born), date_part('year', born), date_trunc('month', born), now() - interval '1 day' FROM people
SELECT substring(ssn FROM 1 FOR 3), substring(ssn, 2), position('a' IN email), overlay(ssn PLACING 'x' FROM 1), trim(both ' ' from email) FROM customers
SELECT trim(leading from email), upper(email), lower(email), initcap(email), length(iban) FROM customers
SELECT email LIKE '%@x', email ILIKE $1, email SIMILAR TO 'a%', email ~ '^a', email !~* 'b', email NOT LIKE 'x' ESCAPE '!' FROM customers
SELECT salary BETWEEN 1 AND 2, salary NOT BETWEEN SYMMETRIC 2 AND 1, salary IN (1, 2, 3), salary NOT IN (SELECT salary FROM people) FROM customers
SELECT (ssn, email) IN (SELECT a, b FROM t), (ssn, email) = ($1, $2), ROW(ssn, email) FROM customers
SELECT data -> 'a' -> 'b', data ->> 'c', data #> '{a,b}', data #>> '{a}', data @> '{}', data ? 'x', data ?| array['a'], data - 'a' FROM docs
SELECT jsonb_path_query(data, '$.a[*] ? (@ > 1)'), data['a']['b'] FROM docs
SELECT json_build_object('a', ssn, 'b', email), to_jsonb(c), row_to_json(c.*), json_agg(c) FROM customers c
SELECT key, value FROM docs, jsonb_each_text(data) WHERE key = 'ssn'
SELECT x.* FROM docs CROSS JOIN LATERAL jsonb_to_recordset(data) AS x (a int, b text)
SELECT * FROM json_to_record('{"a":1}') AS x (a int)
SELECT g, u FROM generate_series(1, 10, 2) AS g, unnest(ARRAY['a', 'b']) WITH ORDINALITY AS u (v, n)
SELECT * FROM ROWS FROM (generate_series(1, 2), generate_series(3, 4)) AS r (a, b)
SELECT c FROM customers c
SELECT (c).ssn, (c).* FROM customers c
SELECT (addr).street FROM people
SELECT ssn COLLATE "C" FROM customers ORDER BY ssn COLLATE "de_DE" NULLS LAST
SELECT born AT TIME ZONE 'UTC' FROM people
SELECT current_user, current_date, localtimestamp(2), session_user
SELECT a.x OPERATOR(pg_catalog.+) 1 FROM a
SELECT - salary, + 1, @ -5, |/ 4.0, 2 ^ 3, 5 % 2, 1 << 2, 3 & 1, 3 | 1, 3 # 1, ~ 1 FROM people
SELECT 1e5, .5, 5., 1_a FROM t
SELECT ssn IS DISTINCT FROM email, ssn IS NOT NULL, (a, b) OVERLAPS (c, d), ssn ISNULL, email NOTNULL FROM customers
SELECT * FROM t TABLESAMPLE bernoulli (10) REPEATABLE (1)
SELECT ssn FROM customers FETCH FIRST 5 ROWS ONLY
SELECT ssn FROM customers FETCH FIRST ROW WITH TIES
SELECT a AS "select", b "from", c AS "order by" FROM "Weird Table" "t 1"
SELECT 1 AS delete, 2 AS insert, 3 update FROM t
SELECT "delete" FROM "update" WHERE "insert" = 'drop table x'
SELECT t.delete FROM t
SELECT has_table_privilege(c.oid, 'INSERT') AS "insert", has_table_privilege(c.oid, 'DELETE') AS "delete" FROM pg_class c
SELECT $$it's$$, $x$ $$ ( $x$, E'a\\'b', U&'\\0061', B'101', X'1F', N'x'
SELECT 'a' /* comment ' */ , 'b' -- another '
SELECT 1 /* outer /* inner */ still */ , ssn FROM customers
SELECT 'it''s', ssn FROM customers
SELECT pg_catalog.upper(ssn), public.masked(ssn), upper(public.f(email)) FROM customers
SELECT my_function(), s.other(1, 2), "Quoted"(3), "Sch"."Fn"(4)
SELECT f(VARIADIC ARRAY[1, 2]), f(a => 1, b := 2), f(DISTINCT x ORDER BY y) FROM t
SELECT * FROM my_rows(1) AS m (a int, b text) WHERE b = 'x'
SELECT x FROM t WHERE y @@ to_tsquery('a & b') ORDER BY ts_rank(y, to_tsquery('a')) DESC
SELECT id, ssn FROM customers WHERE id > $1 AND email = lower($2) ORDER BY id LIMIT $3 OFFSET $4
SELECT pg_sleep(1), pg_read_file('x'), pg_ls_dir('/'), lo_import('/x'), nextval('s'), currval('s'), setval('s', 1)
SELECT dblink_exec('c', 'DELETE FROM t'), query_to_xml('SELECT 1', true, false, ''), set_config('a.b', 'c', true)
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
SELECT pg_advisory_lock(1), txid_current(), pg_export_snapshot(), pg_notify('a', 'b')
SELECT xmlelement(name a, xmlattributes(ssn AS b), email) FROM customers
SELECT xmlforest(ssn, email AS e), xmlconcat(a, b), xmlparse(document c) FROM customers
SELECT x.* FROM docs, XMLTABLE('/a' PASSING doc COLUMNS b text PATH 'b') AS x
SELECT CASE WHEN EXISTS (SELECT FROM people WHERE salary > 5) THEN 1 END
SELECT NOT EXISTS (TABLE people)
SELECT (SELECT ssn FROM customers WHERE id = o.id) FROM orders o WHERE o.total > ALL (SELECT salary FROM people)
SELECT ssn FROM customers FOR UPDATE
SELECT ssn FROM customers c FOR NO KEY UPDATE OF c SKIP LOCKED
SELECT ssn FROM customers FOR SHARE NOWAIT
SELECT ssn INTO TEMP copied FROM customers
SELECT * INTO UNLOGGED copied FROM customers
WITH a AS (SELECT ssn FROM customers) SELECT * FROM a
WITH a (x) AS MATERIALIZED (SELECT ssn FROM customers), b AS NOT MATERIALIZED (SELECT x FROM a) SELECT x FROM b
WITH customers AS (SELECT ssn FROM customers) SELECT * FROM customers
WITH RECURSIVE t (n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM t WHERE n < 100) SELECT sum(n) FROM t
WITH RECURSIVE tree AS (SELECT id, boss, ssn FROM people WHERE boss IS NULL UNION SELECT p.id, p.boss, p.ssn FROM people p JOIN tree ON p.boss = tree.id) SELECT * FROM tree
WITH RECURSIVE a AS (SELECT * FROM b), b AS (SELECT ssn FROM customers) SELECT * FROM a
WITH RECURSIVE t AS (SELECT 1 AS id UNION ALL SELECT id + 1 FROM t) SEARCH DEPTH FIRST BY id SET o CYCLE id SET c USING p SELECT * FROM t
WITH a AS (SELECT 1), b AS (WITH a AS (SELECT ssn FROM customers) SELECT * FROM a) SELECT * FROM a, b
SELECT * FROM (WITH x AS (SELECT salary FROM people) SELECT * FROM x) q
WITH d AS (DELETE FROM customers RETURNING ssn) SELECT * FROM d
WITH i AS (INSERT INTO log (a) SELECT ssn FROM customers RETURNING *), u AS (UPDATE t SET x = 1) SELECT * FROM i
SELECT * FROM (WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d) q
"""  # noqa: E501 - one statement per line

CHANGES = """
INSERT INTO customers VALUES (1, 'x')
INSERT INTO customers (id, ssn) VALUES ($1, $2) RETURNING id
INSERT INTO customers AS c (id, ssn) VALUES (1, DEFAULT) ON CONFLICT (id) DO UPDATE SET ssn = excluded.ssn, n = c.n + 1 WHERE c.email IS NULL
INSERT INTO customers (id) VALUES (1), (2) ON CONFLICT DO NOTHING
INSERT INTO customers (id) VALUES (1) ON CONFLICT ON CONSTRAINT pk DO NOTHING
INSERT INTO archive SELECT * FROM customers WHERE born < now() - interval '10 years'
INSERT INTO archive (ssn) SELECT ssn FROM customers
INSERT INTO archive (ssn) (SELECT ssn FROM customers)
INSERT INTO customers DEFAULT VALUES
INSERT INTO customers (id) OVERRIDING SYSTEM VALUE VALUES (1)
INSERT INTO t (a[1], b.c) VALUES (1, 2)
WITH x AS (SELECT ssn FROM customers) INSERT INTO archive SELECT * FROM x
UPDATE customers SET ssn = NULL
UPDATE customers SET ssn = $1, email = lower(email) WHERE id = $2 RETURNING *
UPDATE ONLY customers AS c SET salary = p.salary FROM people p WHERE p.id = c.id
UPDATE customers SET (ssn, email) = ('a', 'b')
UPDATE customers SET (ssn, email) = (SELECT a, b FROM t WHERE t.id = customers.id)
UPDATE customers SET (ssn, email) = ROW ('a', DEFAULT)
UPDATE t SET a = (WITH d AS (SELECT salary FROM people) SELECT max(salary) FROM d)
UPDATE customers SET addr.street = 'x', tags[1] = 'y'
DELETE FROM customers
DELETE FROM ONLY public.customers c USING orders o WHERE o.id = c.id AND o.total = 0 RETURNING c.ssn
DELETE FROM customers WHERE id IN (SELECT id FROM people WHERE salary = 1)
DELETE FROM t WHERE CURRENT OF c
MERGE INTO customers c USING people p ON c.id = p.id WHEN MATCHED AND p.salary > 1 THEN UPDATE SET ssn = p.ssn WHEN NOT MATCHED THEN INSERT (id, ssn) VALUES (p.id, p.ssn)
MERGE INTO t USING (SELECT ssn FROM customers) s ON t.a = s.ssn WHEN MATCHED THEN DELETE
MERGE INTO t USING s ON t.a = s.a WHEN NOT MATCHED THEN DO NOTHING
TRUNCATE customers
TRUNCATE TABLE ONLY a, b RESTART IDENTITY CASCADE
REFRESH MATERIALIZED VIEW CONCURRENTLY v
NOTIFY c
"""  # noqa: E501

OTHERS = """
BEGIN
BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY DEFERRABLE
START TRANSACTION
COMMIT AND CHAIN
END
ABORT
ROLLBACK TO SAVEPOINT a
SAVEPOINT a
RELEASE a
PREPARE TRANSACTION 'x'
COMMIT PREPARED 'x'
SET application_name = 'x'
SET LOCAL statement_timeout TO 5000
SET TIME ZONE LOCAL
SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY
SET TRANSACTION ISOLATION LEVEL READ COMMITTED
SET search_path = a, b
SET ROLE x
SET SESSION AUTHORIZATION DEFAULT
SET CONSTRAINTS ALL DEFERRED
SET NAMES 'utf8'
RESET ROLE
SHOW ALL
SHOW search_path
EXPLAIN SELECT ssn FROM customers
EXPLAIN (ANALYZE, VERBOSE, FORMAT json) SELECT ssn FROM customers
EXPLAIN ANALYZE DELETE FROM customers
EXPLAIN VERBOSE DELETE FROM customers
EXPLAIN (ANALYZE true) INSERT INTO t VALUES (1)
EXPLAIN (ANALYZE off) INSERT INTO t VALUES (1)
EXPLAIN (SELECT ssn FROM customers)
EXPLAIN ANALYZE (SELECT ssn FROM customers)
EXPLAIN ANALYZE CREATE TABLE x AS SELECT 1
EXPLAIN EXECUTE p (1)
EXPLAIN ANALYZE EXECUTE p
DECLARE c CURSOR FOR SELECT ssn FROM customers
DECLARE c BINARY INSENSITIVE SCROLL CURSOR WITH HOLD FOR SELECT ssn FROM customers FOR UPDATE
FETCH FORWARD 10 FROM c
MOVE 5 IN c
CLOSE ALL
PREPARE p AS SELECT ssn FROM customers WHERE id = $1
PREPARE p (int, text) AS INSERT INTO t VALUES ($1, $2)
EXECUTE p (1, 'x')
DEALLOCATE p
COPY customers TO STDOUT
COPY customers (ssn, email) TO STDOUT WITH (FORMAT csv, HEADER)
COPY public.customers FROM STDIN WITH CSV
COPY customers FROM '/tmp/x'
COPY customers TO PROGRAM 'cat > /tmp/x'
COPY (SELECT ssn FROM customers) TO STDOUT
COPY (WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d) TO STDOUT
COPY (INSERT INTO t VALUES (1) RETURNING a) TO STDOUT
COPY customers FROM STDIN WHERE id > 5
LISTEN c
UNLISTEN *
DISCARD ALL
LOCK TABLE customers IN ACCESS SHARE MODE
CREATE TABLE t (id int PRIMARY KEY, ssn text DEFAULT f(1) REFERENCES o (a))
CREATE TABLE t AS SELECT ssn FROM customers
CREATE TABLE t AS EXECUTE p
CREATE TEMP TABLE t (LIKE customers)
CREATE VIEW v AS SELECT ssn FROM customers
CREATE MATERIALIZED VIEW v AS SELECT ssn FROM customers
CREATE INDEX CONCURRENTLY i ON t USING gin (a) WHERE b > 1
CREATE FUNCTION f () RETURNS int LANGUAGE sql AS 'DELETE FROM t; SELECT 1'
CREATE FUNCTION f () RETURNS int BEGIN ATOMIC DELETE FROM t; SELECT 1; END
CREATE RULE r AS ON SELECT TO t DO INSTEAD SELECT * FROM u
CREATE TRIGGER g AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()
CREATE ROLE r LOGIN PASSWORD 'x'
CREATE DATABASE d
CREATE EXTENSION dblink
CREATE SERVER s FOREIGN DATA WRAPPER postgres_fdw
ALTER TABLE t ADD COLUMN a int
ALTER ROLE r SUPERUSER
ALTER SYSTEM SET a = 1
ALTER DATABASE d SET search_path = x
DROP TABLE IF EXISTS a, b CASCADE
COMMENT ON COLUMN t.a IS 'x'
GRANT SELECT (ssn) ON customers TO PUBLIC
REVOKE ALL ON t FROM u
REASSIGN OWNED BY a TO b
SECURITY LABEL ON TABLE t IS 'x'
VACUUM FULL ANALYZE t
ANALYZE t
CLUSTER t
REINDEX TABLE t
CHECKPOINT
LOAD 'x'
DO 'BEGIN DELETE FROM t; END'
CALL p(1, 2)
IMPORT FOREIGN SCHEMA s FROM SERVER x INTO y
SELECT 1; SELECT ssn FROM customers; DELETE FROM t
BEGIN; UPDATE t SET a = 1; COMMIT
SELECT ';'; SELECT $$;$$; DROP TABLE t
"""

STATEMENTS = [line for part in (QUERIES, CHANGES, OTHERS) for line in part.strip().splitlines()]
