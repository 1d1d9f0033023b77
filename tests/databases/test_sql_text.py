"""Where literals and comments end, against real servers: a change that a server carries out is never taken for text."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any

import psycopg
import pymysql
import pytest
from pymysql.constants import CLIENT

from enforcer.protocols.statement_facts import OPERATION, facts_of
from tests.databases.conftest import PostgresServer
from tests.databases.mysql_server import PASSWORD, USER, MariaDb

# What may begin or end a literal, a name or a comment, or look like it.
IN_BOTH = [
    *("'", "''", "'a'", "\\", "\\'", "'a\\'", '"', '"a"', "`", "--", "-- ", "/*", "*/", "\n", "\r", "\t", "\v", " "),
    *("1", "1$$", "a", ";", "(", ")", ",", "'--", "$$", "-", "/", "*", "@", "\u00a0", "select 1", "X'", "B'", "N'"),
]
IN_POSTGRES = [
    *(
        "E'",
        "e'",
        "E'\\'",
        "tableE'",
        "U&'",
        'U&"',
        "$a$",
        "$1",
        "a$$",
        "1e",
        "||",
        "/* /*",
        "*/ /*",
        "/*'*/",
        "{#",
        "#}",
    ),
]
IN_MYSQL = [
    *(
        "--\n",
        "--\t",
        "#",
        "# ",
        '"\\"',
        "/*!",
        "/*!40000",
        "/*!50701",
        "/*!99999",
        "/*M!",
        "/*+",
        "_utf8'",
        "@'",
        "1-",
    ),
    *("`a`", "{", "}", "\x01", "- -"),
]


def text(seed: int, more: list[str]) -> str:
    """Statements among which one deletes, if the server sees it."""
    random = Random(seed)

    def some(most: int) -> str:
        return "".join(random.choice(IN_BOTH + more) for _ in range(random.randint(0, most)))

    between = random.choice([";", " ; ", "\n;", "; "])
    return random.choice(
        [
            f"SELECT {some(5)}{between}DELETE FROM gone{between}{some(4)}",
            f"SELECT 1 {some(4)}; DELETE FROM gone {some(3)}",
            f"SELECT {some(3)} 'x{some(3)}' {some(3)}; DELETE FROM gone; -- {some(4)}",
        ]
    )


def missed(deletes: Callable[[str], bool], seeds: range, more: list[str], dialect: str) -> tuple[list[str], int]:
    """Texts by which the server deletes something and of which it is not told; and how many deleted something."""
    found, deleted = [], 0
    for seed in seeds:
        sent = text(seed, more)
        if deletes(sent):
            deleted += 1
            if not {"write", "unknown"} & set(facts_of(sent, dialect)[OPERATION].split(", ")):
                found.append(sent)
    return found, deleted


SEEDS = [range(600), pytest.param(range(600, 30_000), marks=pytest.mark.full)]


@pytest.fixture(scope="module")
def postgres(postgres_server: PostgresServer) -> Iterator[Callable[[str], bool]]:
    where = f"host=127.0.0.1 port={postgres_server.port} user=postgres dbname=postgres sslmode=disable"
    with psycopg.connect(where, autocommit=True) as connection:
        connection.execute("CREATE TEMP TABLE gone AS SELECT 1")

        def deletes(sent: str) -> bool:
            try:
                connection.execute(sent.encode())
            except psycopg.Error:
                return False  # all of the text is taken back
            finally:
                connection.execute("ROLLBACK")
            deleted: bool = connection.execute("SELECT count(*) = 0 FROM gone").fetchone() == (True,)
            if deleted:
                connection.execute("INSERT INTO gone VALUES (1)")
            return deleted

        yield deletes


@pytest.fixture(scope="module")
def mysql(mysql_server: MariaDb) -> Iterator[Callable[[str], bool]]:
    connection = pymysql.connect(
        unix_socket=str(mysql_server.socket),
        user=USER,
        password=PASSWORD,
        autocommit=True,
        client_flag=CLIENT.MULTI_STATEMENTS,
        charset="utf8mb4",
    )
    with connection, connection.cursor() as cursor:
        for statement in (
            "CREATE DATABASE texts",
            "USE texts",
            "CREATE TABLE gone (a int)",
            "INSERT INTO gone VALUES (1)",
        ):
            cursor.execute(statement)
        yield lambda sent: deletes_in_mysql(cursor, sent)


def deletes_in_mysql(cursor: Any, sent: str) -> bool:
    """Statements before one that is wrong have been carried out."""
    try:
        cursor.execute(sent)
        while cursor.nextset():
            pass
    except pymysql.Error:
        pass
    cursor.execute("SELECT count(*) FROM gone")
    deleted: bool = cursor.fetchone() == (0,)
    if deleted:
        cursor.execute("INSERT INTO gone VALUES (1)")
    return deleted


@pytest.mark.parametrize("seeds", SEEDS)
def test_postgres_deletes_nothing_that_is_not_told(postgres: Callable[[str], bool], seeds: range) -> None:
    """Whatever stands around the statement that deletes."""
    found, deleted = missed(postgres, seeds, IN_POSTGRES, "postgres")
    assert found == []
    assert deleted > len(seeds) / 50


@pytest.mark.parametrize("seeds", SEEDS)
def test_mysql_deletes_nothing_that_is_not_told(mysql: Callable[[str], bool], seeds: range) -> None:
    """With comments that it executes, and those that it does not."""
    found, deleted = missed(mysql, seeds, IN_MYSQL, "mysql")
    assert found == []
    assert deleted > len(seeds) / 50
