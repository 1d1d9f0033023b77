"""What MySQL's drivers and tools get through the enforcer is what they get without it."""

from __future__ import annotations

import datetime
import subprocess
from collections.abc import Iterator
from decimal import Decimal
from typing import Any, NamedTuple

import mysql.connector
import pymysql
import pytest

from enforcer.protocols.mysql import PROTOCOL
from enforcer.verdict import MaskSpec
from tests.databases.gateway import Gateway, rule
from tests.databases.inspected import relay
from tests.databases.mysql_battery import asked, statements
from tests.databases.mysql_server import DATABASE, PASSWORD, USER, MariaDb

MYSQL = frozenset({"mysql"})


class Port(NamedTuple):
    """Where a way to the server is."""

    port: int


@pytest.fixture(scope="module", params=["unmasked", pytest.param("masked", marks=pytest.mark.full), "rebuilt"])
def gateway(mysql_server: MariaDb, request: pytest.FixtureRequest) -> Iterator[Port]:
    """`masked`: by a detector that finds nothing; `rebuilt`: every row and text is put together anew."""
    if request.param == "rebuilt":
        how = {"mask_rows": lambda rows: list(rows.values), "mask_text": lambda text: text.data}
        with relay(PROTOCOL.inspector, mysql_server.port, **how) as rebuilding:
            yield Port(rebuilding.port)
        return
    spec = MaskSpec(("iban",)) if request.param == "masked" else MaskSpec()
    with Gateway(mysql_server.port, rule(mask=spec, protocols=MYSQL)) as running:
        yield Port(running.port)


def login(port: int, **how: Any) -> dict[str, Any]:
    return {"host": "127.0.0.1", "port": port, "user": USER, "password": PASSWORD, "database": DATABASE, **how}


def told_in_text(port: int) -> list[object]:
    flags = pymysql.constants.CLIENT.MULTI_STATEMENTS
    with pymysql.connect(**login(port, client_flag=flags, autocommit=True)) as db, db.cursor() as cursor:
        return [asked(cursor, statement, pymysql.Error) for statement in statements()]


def test_hundreds_of_statements_say_the_same(mysql_server: MariaDb, gateway: Port) -> None:
    """Rows, names, types, counts, insert ids and errors, of every type and of many results."""
    direct, through = told_in_text(mysql_server.port), told_in_text(gateway.port)
    assert len(direct) > 250
    differing = [
        (statement, one, other)
        for statement, one, other in zip(statements(), direct, through, strict=True)
        if one != other and "SHOW" not in statement
    ]
    assert differing == []


PARAMETERS: tuple[tuple[object, ...], ...] = (
    (1, "x", None),
    (-(2**63), 2**63 - 1, 2**64 - 1),
    (1.5, Decimal("-12345.678"), b"\x00\xff"),
    (datetime.date(2024, 2, 29), datetime.datetime(2024, 2, 29, 1, 2, 3, 456), datetime.timedelta(days=-3, seconds=5)),
    ("ä" * 300, "", "a" * 70_000),
)


def told_in_binary(port: int) -> list[object]:
    db = mysql.connector.connect(
        **login(port, use_pure=True, autocommit=True, charset="utf8mb4", collation="utf8mb4_general_ci")
    )
    said: list[object] = []
    try:
        cursor = db.cursor(prepared=True)
        for parameters in PARAMETERS:
            said += [asked(cursor, "SELECT ?, ?, ?", mysql.connector.Error, parameters) for _ in range(2)]
        said.append(asked(cursor, "SELECT * FROM typed WHERE id >= ? ORDER BY id", mysql.connector.Error, (0,)))
        said.append(asked(cursor, "SELECT * FROM no_such WHERE id = ?", mysql.connector.Error, (0,)))
        cursor.close()
        said += [db.cmd_ping() is not None, "Uptime" in db.cmd_statistics()]
        db.cmd_change_user(USER, PASSWORD, DATABASE)
        db.cmd_reset_connection()
        with db.cursor() as plain:
            said += [asked(plain, "SELECT DATABASE(), CURRENT_USER()", mysql.connector.Error)]
    finally:
        db.close()
    return said


def test_prepared_statements_say_the_same(mysql_server: MariaDb, gateway: Port) -> None:
    """Parameters and results in the binary protocol, executed again, after a change of user and a reset."""
    assert told_in_binary(gateway.port) == told_in_binary(mysql_server.port)


def dump(port: int) -> str:
    line = ["mysqldump", "--no-defaults", "-h127.0.0.1", f"-P{port}", f"-u{USER}", f"-p{PASSWORD}"]
    line += ["--skip-dump-date", "--routines", "--hex-blob", DATABASE]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_dump_goes_out_and_in_again(mysql_server: MariaDb, gateway: Port) -> None:
    """mysqldump writes the same through the enforcer, and what it wrote is restored through it."""
    direct = dump(mysql_server.port)
    assert dump(gateway.port) == direct
    with pymysql.connect(**login(gateway.port)) as db, db.cursor() as cursor:
        cursor.execute("CREATE DATABASE IF NOT EXISTS again")
    line = ["mariadb", "--no-defaults", "-h127.0.0.1", f"-P{gateway.port}", f"-u{USER}", f"-p{PASSWORD}", "again"]
    done = subprocess.run(line, input=direct, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    with pymysql.connect(**login(mysql_server.port)) as db, db.cursor() as cursor:
        cursor.execute(f"CHECKSUM TABLE again.customers, {DATABASE}.customers")
        (_, restored), (_, original) = cursor.fetchall()
        cursor.execute("DROP DATABASE again")
    assert restored == original


@pytest.mark.full
def test_a_row_of_over_sixteen_megabytes(mysql_server: MariaDb, gateway: Port) -> None:
    """Messages of several packets, both ways: a statement of 17 MiB, and its value back."""
    value = "v" * (17 << 20)
    with pymysql.connect(**login(gateway.port, max_allowed_packet=64 << 20)) as db, db.cursor() as cursor:
        cursor.execute(f"SELECT '{value}', 1")
        assert cursor.fetchone() == (value, 1)
        cursor.execute("SELECT 'and more'")
        assert cursor.fetchone() == ("and more",)
