"""What statements are said to do and to touch, by what the servers' manuals say they do."""

from __future__ import annotations

import pytest

from enforcer.protocols.statement_facts import DOUBT, facts_of

POSTGRES = {
    # Queries
    "SELECT abalance FROM pgbench_accounts WHERE aid = 12345": "read",
    "select 1 as delete from t": "read",
    "SELECT has_table_privilege(c.oid, 'DELETE') AS \"delete\" FROM pg_class c": "read",
    "TABLE t": "read",
    "VALUES (1, 2)": "read",
    "WITH update AS (SELECT 1 AS x) SELECT x FROM update": "read",
    'WITH "delete" AS (SELECT 1) SELECT * FROM "delete"': "read",
    "SELECT * FROM t WHERE note = 'it''s; DELETE FROM t'": "read",
    "SELECT $q$ ( ' ; DELETE FROM t $q$": "read",
    "SELECT $a$ $b$ $a$": "read",
    "SELECT 1 /* a /* nested */ ; DELETE FROM t */": "read",
    "SELECT 1 -- ; DELETE FROM t": "read",
    "SELECT U&'d\\0061t'": "read",
    "SELECT * FROM t WHERE a @> '{1}' AND b ->> 'x' = 'y' AND c ? 'z'": "read",
    "SELECT a FROM t FOR UPDATE": "read, write",
    "SELECT a FROM t FOR SHARE": "read, write",
    "SELECT a INTO copied FROM t": "read, ddl",
    "SELECT nextval('s')": "read, write",
    "SELECT pg_read_file('/etc/passwd')": "read, admin",
    "SELECT * FROM dblink('host=x', 'DELETE FROM t') AS d(a int)": "read, admin",
    "SELECT pg_terminate_backend(1)": "read, admin",
    "SELECT set_config('role', 'postgres', false)": "read, admin",
    "SELECT query_to_xml('DELETE FROM t', true, true, '')": "read, admin",
    "SELECT lo_import('/etc/passwd')": "read, admin",
    "SELECT pg_sleep(1)": "read, admin",
    # Changes
    "INSERT INTO t (a) VALUES (1)": "write",
    "WITH d AS (DELETE FROM t RETURNING *) SELECT * FROM d": "write, read",
    "WITH a AS (WITH b AS (UPDATE t SET x = 1 RETURNING x) SELECT * FROM b) SELECT 1 FROM a": "write, read",
    "MERGE INTO t USING s ON t.a = s.a WHEN MATCHED THEN DELETE": "write",
    "SELECT E'a\\''; DELETE FROM t; --'": "read, write",
    "SELECT 1; DELETE FROM t": "read, write",
    "SELECT 1 /* a /* b */ */; DELETE FROM t": "read, write",
    "SELECT $$ $a$ $$; DELETE FROM t; SELECT $$ $a$ $$": "read, write",
    "TRUNCATE a, ONLY b.c CASCADE": "write",
    "NOTIFY c, 'x'": "write",
    "REFRESH MATERIALIZED VIEW v": "write",
    "COPY t FROM STDIN": "write",
    "COPY (DELETE FROM t RETURNING *) TO STDOUT": "write",
    "COPY t TO PROGRAM 'curl x'": "read, admin",
    "COPY t FROM '/etc/passwd'": "write, admin",
    "COPY t (a, b) TO STDOUT WITH (FORMAT binary)": "read",
    "EXPLAIN ANALYZE DELETE FROM t": "write",
    "EXPLAIN (ANALYZE, BUFFERS) UPDATE t SET a = 1": "write",
    "EXPLAIN (COSTS off) DELETE FROM t": "read",
    "EXPLAIN ANALYSE VERBOSE INSERT INTO t VALUES (1)": "write",
    "DECLARE c NO SCROLL CURSOR WITH HOLD FOR SELECT a FROM t": "read",
    "PREPARE p (int) AS DELETE FROM t WHERE a = $1": "write",
    # Definitions and administration
    "CREATE TABLE x AS SELECT * FROM y": "ddl",
    "DROP TABLE x": "ddl",
    "COMMENT ON TABLE t IS 'x'": "ddl",
    "CREATE ROLE r": "admin",
    "ALTER SYSTEM SET work_mem = '1GB'": "admin",
    "CREATE EXTENSION dblink": "admin",
    "GRANT ALL ON t TO public": "admin",
    "VACUUM t": "admin",
    "LOCK TABLE t": "admin",
    "SET ROLE postgres": "admin",
    "SET search_path TO secret": "admin",
    "SET search_path TO ''": "read",
    "SELECT pg_catalog.set_config('search_path', '', false)": "read",
    "SELECT set_config('search_path', 'secret', false)": "read, admin",
    "SELECT set_config('search_path', ''||'secret', false)": "read, admin",
    "LOCK TABLE a, ONLY b IN ACCESS SHARE MODE": "read",
    "LOCK TABLE a IN SHARE MODE": "admin",
    "SET session_replication_role = replica": "admin",
    "SET SESSION AUTHORIZATION postgres": "admin",
    "PREPARE TRANSACTION 'x'": "admin",
    # The session's own
    "BEGIN": "read",
    "START TRANSACTION READ ONLY": "read",
    "COMMIT; BEGIN": "read",
    "ROLLBACK TO SAVEPOINT a": "read",
    "SHOW server_version": "read",
    "SET application_name = 'x'": "read",
    "SET TIME ZONE 'UTC'": "read",
    "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY": "read",
    "RESET ALL": "read",
    "DEALLOCATE ALL": "read",
    "LISTEN c": "read",
    "FETCH ALL FROM c": "read",
    "": "",
    " ; -- nothing": "",
}

MYSQL = {
    "SELECT 5--1, 'it\\'s; DELETE FROM t', \"x\" FROM t # ; DELETE FROM t": "read",
    "SELECT 1 -- ; DELETE FROM t": "read",
    "SELECT /*!40001 SQL_NO_CACHE */ * FROM `t`": "read",
    "SELECT /*+ MAX_EXECUTION_TIME(1) */ a FROM t": "read",
    "SELECT 1 /*!; DELETE FROM t */": "read, write",
    "SELECT 1 /* /* */; DELETE FROM t; -- */": "read, write",
    "SELECT 1--1; DELETE FROM t": "read, write",
    "SELECT @a := 1, @@version": "read",
    "SELECT a FROM t LOCK IN SHARE MODE": "read, write",
    "SELECT a FROM t INTO OUTFILE '/tmp/x'": "admin",
    "SELECT a INTO @x FROM t": "read",
    "SELECT load_file('/etc/passwd')": "read, admin",
    "SELECT SLEEP(1)": "read, admin",
    "REPLACE INTO t VALUES (1)": "write",
    "INSERT INTO t SET a = 1 ON DUPLICATE KEY UPDATE a = VALUES(a)": "write",
    "UPDATE a JOIN b ON a.x = b.x SET a.y = b.y": "write",
    "DELETE a FROM a JOIN b USING (id)": "write",
    "LOAD DATA INFILE '/etc/passwd' INTO TABLE t": "admin",
    "HANDLER t OPEN": "read",
    "SHOW TABLES": "read",
    "DESCRIBE t": "read",
    "EXPLAIN DELETE FROM t": "read",
    "ANALYZE TABLE t": "admin",
    "SET NAMES utf8mb4": "read",
    "SET autocommit = 0, time_zone = '+00:00'": "read",
    "SET sql_mode = 'ANSI_QUOTES'": "admin",
    'SET sql_mode = "ANSI_QUOTES"': "admin",
    "SET sql_mode = 4": "admin",
    "SET SESSION sql_mode = 'STRICT_TRANS_TABLES,NO_ZERO_DATE', autocommit = 1": "read",
    "SET autocommit=1, sql_mode = concat(@@sql_mode,',STRICT_TRANS_TABLES')": "read",
    "SET sql_mode = concat(@@sql_mode,',ANSI_QUOTES')": "admin",
    "/*!40100 SET @@SQL_MODE='' */": "read",
    "SET @old = @@sql_mode, @@sql_mode = 'ORACLE'": "admin",
    "SET @a = 'x'": "read",
    "/*M!100100 SET @@MAX_STATEMENT_TIME=0.000000 */": "read",
    "/*!50701 DELETE FROM t */;": "write",
    "SET GLOBAL general_log = 1": "admin",
    "USE shop": "read",
    "KILL 7": "admin",
}

UNKNOWN = {
    "postgres": [
        "SELECT 'a\\'; DELETE FROM t; --'",
        "SELECT 'a' 'b\\'; DELETE FROM t; --'",
        "SELECT 1$$; DELETE FROM t; SELECT $$",
        "DO $$ BEGIN DELETE FROM t; END $$",
        "CALL p()",
        "EXECUTE p(1)",
        "SELECT 'unfinished",
        'SELECT "unfinished',
        "SELECT 1 /* unfinished",
        "SELECT {# ; DELETE FROM t; #} 1",
        "SELECT 1\u00a0; DELETE FROM t",
        "\u017fELECT 1",
        "SELEKT 1",
        "SELECT 1 FROM (SELECT 2",
        "(" * 65 + "SELECT 1" + ")" * 65,
        "SELECT " + "1," * 40_000 + "1",
        "SELECT 'x" + "x" * (1 << 20) + "'",
        "SELECT 1;" * 101,
        "SELECT " + "ARRAY[" * 30 + "1" + "]" * 30,
        "SELECT a" + "[1]" * 1001,
        "SELECT * FROM t0 " + " ".join(f"JOIN t{number} USING (id)" for number in range(1, 1000)),
        "SELECT " + ", ".join(f"c{number}" for number in range(1000)) + " FROM a" + ", a" * 1000,
        "SELECT " + "a + " * 10_000 + "a",
        'SELECT U&"d\\0061ta" FROM t',
        "SET work_mem TO (SELECT 1)",
    ],
    "mysql": [
        "/*!50701 DELETE FROM t */ SELECT 1",
        "SELECT 1 /*M!100000 ; DELETE FROM t */",
        "/*!40000 SELECT /* */ 1 */",
        "SELECT 1 /*! unfinished",
        "SELECT {x (SELECT 1)}",
        "PREPARE p FROM 'DELETE FROM t'",
        "EXECUTE IMMEDIATE 'DELETE FROM t'",
        "CALL p()",
        "DO SLEEP(5)",
        "SET @x = (SELECT ssn FROM t)",
        "SET sql_mode = CONCAT('ANSI', '_QUOTES')",
        "SET sql_mode = concat(@@sql_mode,',STRICT_TRANS_TABLES'), @a = load_file('x')",
        "SET STATEMENT sql_mode='ANSI_QUOTES' FOR SELECT 1",
        "SELECT t.1a FROM t",
        "SELECT 'it\\'; DELETE FROM t",
    ],
}


@pytest.mark.parametrize(
    ("statement", "dialect", "operations"),
    [(text, name, said) for name, texts in (("postgres", POSTGRES), ("mysql", MYSQL)) for text, said in texts.items()],
)
def test_a_statement_is_what_it_does(statement: str, dialect: str, operations: str) -> None:
    """However a change is wrapped, it is told, and what only looks like one is not."""
    facts = facts_of(statement, dialect)
    assert (facts.get("operation", ""), facts.get(DOUBT)) == (operations, None)


@pytest.mark.parametrize(
    ("statement", "dialect"), [(text, dialect) for dialect, texts in UNKNOWN.items() for text in texts]
)
def test_what_may_be_read_in_two_ways_or_not_at_all_is_unknown(statement: str, dialect: str) -> None:
    """There are no other facts then, and a word why."""
    facts = facts_of(statement, dialect)
    assert facts.pop(DOUBT)
    assert facts == {"operation": "unknown"}
