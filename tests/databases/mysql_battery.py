"""A few hundred statements of MySQL, and what a connection says to each: for asking twice and comparing."""

from __future__ import annotations

from itertools import product
from typing import Any

TYPES = {
    "TINYINT": ("-128", "127", "0"),
    "SMALLINT UNSIGNED": ("0", "65535"),
    "MEDIUMINT": ("-8388608", "8388607"),
    "INT UNSIGNED": ("0", "4294967295"),
    "BIGINT": ("-9223372036854775808", "9223372036854775807"),
    "BIGINT UNSIGNED": ("18446744073709551615",),
    "FLOAT": ("0.5", "-1.25e10"),
    "DOUBLE": ("1e300", "-2.5e-300"),
    "DECIMAL(30,10)": ("12345678901234567890.1234567890", "-0.0000000001"),
    "BIT(12)": ("b'101010101010'",),
    "DATE": ("'2024-02-29'", "'0000-00-00'"),
    "DATETIME(6)": ("'2024-02-29 23:59:59.123456'", "'1000-01-01 00:00:00'"),
    "TIMESTAMP(3) NULL": ("'2024-02-29 23:59:59.123'",),
    "TIME(6)": ("'-838:59:59.000001'", "'00:00:00'", "'12:34:56'"),
    "YEAR": ("2024", "1901"),
    "CHAR(10)": ("'ä'", "''", "'a\\0b'"),
    "VARCHAR(1000)": ("REPEAT('ü', 700)", "'NULL'"),
    "BINARY(4)": ("x'00ff0001'",),
    "VARBINARY(500)": ("REPEAT(x'fb', 300)",),
    "TINYTEXT": ("'tiny'",),
    "MEDIUMTEXT": ("REPEAT('long ', 20000)",),
    "LONGBLOB": ("REPEAT(x'fe00', 40000)",),
    "ENUM('a','b')": ("'b'",),
    "SET('x','y')": ("'x,y'",),
    "JSON": ("'{\"a\": [1, null]}'",),
}
EXPRESSIONS = (
    "1", "-1", "NULL", "'x'", "1.5", "1e3", "x'fb'", "TRUE", "CURRENT_USER()", "DATABASE()", "CONNECTION_ID() > 0",
    "REPEAT('a', 250)", "REPEAT('a', 251)", "REPEAT('a', 65535)", "REPEAT('a', 65536)", "CAST('2024-01-01' AS DATE)",
    "SEC_TO_TIME(-3)", "UNHEX('ff')", "_utf8mb4'ä'", "'a' 'b'", "'it''s'", "CONCAT('a', NULL)", "1/0", "@undefined",
    "@@version_comment", "LAST_INSERT_ID()", "(SELECT 1)", "1 IN (1, 2)", "JSON_OBJECT('a', 1)", "SUBSTRING('abc', 2)",
)  # fmt: skip
CLAUSES = ("{}", "{} AS `a b`", "{}, {}", "{} UNION ALL SELECT {}", "{} FROM DUAL WHERE 1 = 0", "{} LIMIT 1 OFFSET 0")
PLAIN = (
    "SHOW VARIABLES LIKE 'character_set%'", "SHOW TABLES", "SHOW WARNINGS", "SHOW CREATE TABLE typed", "DESCRIBE typed",
    "EXPLAIN SELECT * FROM typed", "SELECT no_such", "SELEC", "", ";", "-- only a comment", "/* nothing */",
    "SELECT 1;",
    "USE no_such_database", "SELECT * FROM no_such_table", "BEGIN", "SAVEPOINT s", "ROLLBACK TO s", "COMMIT",
    "SET @a = 1, @b = 'two'", "SELECT @a, @b", "PREPARE p FROM 'SELECT ? + 1'", "EXECUTE p USING @a",
    "DEALLOCATE PREPARE p", "EXECUTE p", "DO SLEEP(0)", "CREATE TEMPORARY TABLE temp (a INT)",
    "INSERT INTO temp VALUES (1), (2)",
    "UPDATE temp SET a = a + 1", "DELETE FROM temp", "TRUNCATE temp", "DROP TEMPORARY TABLE temp", "KILL 999999999",
    "CREATE TABLE counted (id INT AUTO_INCREMENT PRIMARY KEY, v INT UNIQUE)", "INSERT INTO counted (v) VALUES (7)",
    "INSERT INTO counted (v) VALUES (7)",
    "INSERT IGNORE INTO counted (v) VALUES (7)", "REPLACE INTO counted (v) VALUES (7)",
    "INSERT INTO counted (v) VALUES (8) RETURNING id, v", "SELECT * FROM counted", "ANALYZE TABLE counted",
    "CREATE PROCEDURE twice() BEGIN SELECT 1 AS a; SELECT 'two' AS b, 2 AS c; END", "CALL twice()",
    "DROP PROCEDURE twice",
    "SELECT SQL_CALC_FOUND_ROWS * FROM counted LIMIT 1", "SELECT FOUND_ROWS()", "SELECT * FROM counted FOR UPDATE",
    "LOCK TABLES counted READ", "UNLOCK TABLES", "ALTER TABLE counted ADD COLUMN w TEXT", "DROP TABLE counted",
    "SELECT seq, REPEAT('r', seq) FROM seq_1_to_500", "SELECT * FROM seq_1_to_3 a, seq_1_to_3 b",
)  # fmt: skip


def statements() -> list[str]:
    """All of them, in the order in which they make sense."""
    columns = ", ".join(f"c{number} {kind}" for number, kind in enumerate(TYPES))
    made = [
        "DROP TABLE IF EXISTS typed, counted",
        "SET SESSION sql_mode = ''",
        f"CREATE TABLE typed (id INT, {columns})",
    ]
    for number, values in enumerate(TYPES.values()):
        made += [f"INSERT INTO typed (id, c{number}) VALUES ({number}, {value})" for value in values]
        made += [
            f"SELECT c{number} FROM typed WHERE id = {number}",
            f"SELECT MAX(c{number}), COUNT(c{number}) FROM typed",
        ]
    made += ["SELECT * FROM typed ORDER BY id", "SELECT t.* FROM typed t JOIN typed u USING (id) ORDER BY id LIMIT 3"]
    made += ["SELECT " + clause.format(one, one) for one, clause in product(EXPRESSIONS, CLAUSES)]
    return [*made, *PLAIN]


def asked(cursor: Any, statement: str, errors: type[Exception], parameters: tuple[object, ...] = ()) -> object:
    """All that a driver says of one statement: rows, names, types and counts of each result, or the error."""
    said: list[object] = []
    try:
        cursor.execute(statement, *([parameters] if parameters else []))
        while True:
            described = [column[:2] for column in cursor.description or ()]
            rows = list(cursor.fetchall()) if cursor.description else []
            said.append((described, rows, cursor.rowcount, cursor.lastrowid))
            if not getattr(cursor, "nextset", lambda: None)():
                return said
    except errors as error:
        return [*said, str(error)]
