"""MySQL's clients and a real MariaDB, through whole sessions: greeted, judged, masked, recorded."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator

import mysql.connector
import pymysql
import pytest

from enforcer.verdict import Column, MaskSpec
from tests.databases.gateway import Gateway, rule
from tests.databases.mysql_server import DATABASE, PASSWORD, USER, MariaDb
from tests.proxy.stage import MASKED_CARD

MYSQL = frozenset({"mysql"})
Connect = Callable[..., "pymysql.connections.Connection[pymysql.cursors.Cursor]"]


def connect(port: int, **how: object) -> pymysql.connections.Connection[pymysql.cursors.Cursor]:
    options = {"user": USER, "password": PASSWORD, "database": DATABASE, "autocommit": True, **how}
    return pymysql.connect(host="127.0.0.1", port=port, read_timeout=30, **options)  # type: ignore[call-overload]


def cli(port: int, *arguments: str, program: str = "mariadb") -> subprocess.CompletedProcess[str]:
    line = [program, "--no-defaults", "-h127.0.0.1", f"-P{port}", f"-u{USER}", f"-p{PASSWORD}", *arguments]
    return subprocess.run(line, capture_output=True, text=True, check=False, timeout=60)


@pytest.fixture(scope="module")
def masked(mysql_server: MariaDb) -> Iterator[Gateway]:
    """Through which card numbers and the column `ssn` are masked."""
    spec = MaskSpec(detectors=("credit_card",), columns=(Column("*.ssn"),))
    with Gateway(mysql_server.port, rule(mask=spec, protocols=MYSQL)) as gateway:
        yield gateway


def test_a_result_is_masked_by_column_and_by_detector(masked: Gateway) -> None:
    """Text comes masked, a number or date that is to be hidden as NULL, all else as it is."""
    with connect(masked.port) as db, db.cursor() as cursor:
        cursor.execute("SELECT name, card, ssn, digits, born FROM customers ORDER BY id")
        ada, grace = cursor.fetchall()
    assert ada[:2] == ("Ada", MASKED_CARD)
    assert "1120" not in str(ada[2])
    assert ada[3] is None
    assert str(ada[4]) == "1815-12-10"
    assert grace[1:] == (None, None, None, None)


def test_each_result_is_of_its_own_statement(masked: Gateway) -> None:
    """Several statements in one text: of each the columns that it returns, whatever returns none between them; all are
    hidden where one of them may have a body."""
    flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with connect(masked.port, client_flag=flags) as db, db.cursor() as cursor:
        cursor.execute(
            "SELECT 7 AS x; SET @a = 1; SELECT name AS x FROM customers WHERE id = 1; SELECT ssn AS x FROM customers"
        )
        told = [cursor.fetchall()]
        while cursor.nextset():
            told.append(cursor.fetchall())
        assert told == [((7,),), (), (("Ada",),), (("*" * 11,), (None,))]
        cursor.execute("SELECT name FROM customers WHERE id = 1; CREATE TEMPORARY TABLE shadow (id INT)")
        assert cursor.fetchall() == (("***",),)


SSN = "078-05-1120"
TELLING = (
    "SELECT extractvalue(1, concat('!', (SELECT ssn FROM customers WHERE id = 1)))",
    "SELECT updatexml(1, concat('!', (SELECT ssn FROM customers WHERE id = 1)), 1)",
    "SELECT count(*), concat((SELECT max(ssn) FROM customers), floor(rand(0) * 2)) x FROM seq_1_to_9 GROUP BY x",
    "INSERT INTO customers (id, email) SELECT 8 + seq, (SELECT ssn FROM customers WHERE id = 1) FROM seq_1_to_2",
    "SET @a = 1; SELECT ssn INTO @a FROM customers WHERE id = 1; PREPARE p FROM @a",
    "DO last_insert_id((SELECT left(ssn, 3) + 0 FROM customers WHERE id = 1))",
)


def test_errors_quote_nothing_that_is_hidden(masked: Gateway) -> None:
    """Whatever a statement makes them say; those about the statement itself stay readable."""
    told = {
        "SELEC 'x' AND more": (1064, "use near 'SELEC 'x' AND more'"),
        "SELECT nothing FROM customers": (1054, "Unknown column 'nothing'"),
        "SELECT 1 FROM nowhere": (1146, "Table 'shop.nowhere' doesn't exist"),
    }
    flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with connect(masked.port, client_flag=flags) as db, db.cursor() as cursor:
        for statement in TELLING:
            try:
                cursor.execute(statement)
                while cursor.nextset():
                    pass
                said = f"insert id {cursor.lastrowid}"
            except pymysql.Error as error:
                said = str(error)
            assert not {part for part in (SSN, SSN[:6], "78") if part in said}, (statement, said)
        for statement, (code, words) in told.items():
            with pytest.raises(pymysql.Error) as refusal:
                cursor.execute(statement)
            assert refusal.value.args[0] == code
            assert words in refusal.value.args[1]


@pytest.fixture
def named(mysql_server: MariaDb) -> Iterator[None]:
    """A table with names beyond ASCII, and a procedure that sets a character set."""
    with connect(mysql_server.port) as direct, direct.cursor() as cursor:
        cursor.execute("CREATE TABLE лица SELECT 'zebra' AS имя")
        cursor.execute("CREATE PROCEDURE gbk() SET character_set_client = gbk")
        yield
        cursor.execute("DROP TABLE лица")
        cursor.execute("DROP PROCEDURE gbk")


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize("charset", ["utf8mb4", "cp1251", "koi8r"])
def test_names_in_another_character_set_are_hidden(mysql_server: MariaDb, charset: str) -> None:
    """A client that writes and reads names in a character set of its own sees no column that a rule hides."""
    hiding = rule(mask=MaskSpec(columns=(Column("лица.имя"),)), protocols=MYSQL)
    with (
        Gateway(mysql_server.port, hiding) as gateway,
        connect(gateway.port, charset=charset) as db,
        db.cursor() as cursor,
    ):
        for text in (
            "SELECT имя FROM лица",
            "SELECT * FROM лица",
            "SELECT имя AS x FROM лица",
            "SELECT max(имя) FROM лица",
        ):
            cursor.execute(text)
            assert cursor.fetchall() == (("*" * 5,),), text
        cursor.execute("SELECT name, 'имя' AS x FROM customers WHERE id = 1")
        assert cursor.fetchall() == (("Ada", "имя"),)


def test_a_character_set_that_cannot_be_read_is_refused_in_words(masked: Gateway) -> None:
    """A login with a collation in which a quote may be half of a character: an error that the client can read."""
    with pytest.raises(pymysql.OperationalError, match="collation 28 is not inspected; use utf8mb4") as refusal:
        connect(masked.port, charset="gbk")
    assert refusal.value.args[0] == 1045


@pytest.mark.usefixtures("named")
@pytest.mark.parametrize(
    "setting", ["EXECUTE IMMEDIATE concat('SET character_set_cli', 'ent = gb', 'k')", "SELECT 1; CALL gbk()"]
)
def test_a_character_set_that_was_set_in_the_dark_hides_nothing(masked: Gateway, setting: str) -> None:
    """In gbk a letter takes the backslash with it, and a column is read where there seems to be a literal."""
    text = b"SELECT '\xbf\\' AS a, upper(ssn) AS b, ' ' AS c FROM customers WHERE id = 1 -- ', 1, 2"
    flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with connect(masked.port, client_flag=flags) as db, db.cursor() as cursor:
        cursor.execute(setting)
        while cursor.nextset():
            pass
        cursor.execute(text)
        assert SSN not in str(cursor.fetchall())
        cursor.execute("SELECT name FROM customers WHERE id = 1")
        assert cursor.fetchall() == (("Ada",),)


def test_what_quotes_mean_to_the_server_is_what_counts(masked: Gateway) -> None:
    """A name in double quotes is no text where the session's mode says so, nor when it was prepared under that mode."""
    text = 'SELECT upper("ssn") FROM customers WHERE id = 1'
    with connect(masked.port) as db, db.cursor() as cursor:
        cursor.execute(text)
        assert cursor.fetchone() == ("SSN",)
        cursor.execute("SET sql_mode = 'ANSI_QUOTES'")
        cursor.execute(text)
        assert cursor.fetchone() == ("*" * 11,)
    login = {"host": "127.0.0.1", "port": masked.port, "user": USER, "password": PASSWORD, "database": DATABASE}
    with (
        mysql.connector.connect(**login, use_pure=True, ssl_disabled=True) as other,
        other.cursor(prepared=True) as cursor,
    ):
        cursor.execute("SET sql_mode = 'ANSI_QUOTES'")
        cursor.execute(text)
        assert cursor.fetchall() == [("*" * 11,)]
        other.cmd_query("SET sql_mode = ''")
        cursor.execute(text)
        assert cursor.fetchall() == [("*" * 11,)]


def test_what_is_recorded_of_a_connection(mysql_server: MariaDb) -> None:
    """The greeting, the login with user and database, and each statement with what it did and how it ended."""
    with Gateway(mysql_server.port, rule(protocols=MYSQL)) as gateway:
        with connect(gateway.port) as db, db.cursor() as cursor:
            cursor.execute("SELECT name FROM customers WHERE card = '4111111111111111'")
            with pytest.raises(pymysql.IntegrityError):
                cursor.execute("INSERT INTO customers (id) VALUES (1)")
        (end,) = gateway.ended()
        assert end["cause"] in ("client closed", "server closed")  # after COM_QUIT both do
        greeted, login, select, insert = gateway.exchanges()
        assert (greeted["operation"], "MariaDB" in greeted["status"]) == ("Connect", True)
        assert login["facts"] == {"user": USER, "database": DATABASE}
        assert PASSWORD not in str(gateway.rows("exchanges"))
        assert select["text"] == f"SELECT name FROM customers WHERE card = '{MASKED_CARD}'"
        assert (select["status"], select["rows"], select["failed"]) == ("OK", 1, False)
        assert (insert["status"], insert["failed"], insert["facts"]["operation"]) == ("1062", True, "write")


def test_the_command_line_client(masked: Gateway) -> None:
    """`mariadb` prints what is left."""
    done = cli(masked.port, DATABASE, "-Ne", "SELECT card, ssn FROM customers WHERE id = 1; SELECT 'and more'")
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.split("\t")[0] == MASKED_CARD
    assert "078-05" not in first
    assert second == "and more"
