"""Databases through JDBC, unchanged in an executor: allowed, masked and denied."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.world import FRANKFURT, VIRGINIA, Site
from tests.clients.client import Client
from tests.clients.place import Place
from tests.databases.mysql_server import DATABASE, PASSWORD, USER, running_mariadb
from tests.fixtures.world import CARD, Watch

pytestmark = [pytest.mark.world, pytest.mark.clients]

# Debian's drivers.
DRIVERS = "/usr/share/java/postgresql.jar:/usr/share/java/mariadb-java-client.jar"
PROGRAM = str(Path(__file__).parent / "Jdbc.java")
ROWS = [(number, f"name {number}", f"card {CARD}", int(CARD), f"1990-01-0{number}") for number in range(1, 6)]
TABLE = "CREATE TABLE customers (id int PRIMARY KEY, name text, card text, digits bigint, born date);"
TABLES = f"{TABLE}\nINSERT INTO customers VALUES {', '.join(map(str, ROWS))};"
# By name: what the driver is told besides where the database is.
POSTGRES = {
    "extended": "",
    "extended, always in binary": "&prepareThreshold=-1",
    "simple": "&preferQueryMode=simple",
}
MYSQL = {"text": "", "prepared": "&useServerPrepStmts=true"}


@pytest.fixture(scope="module")
def databases(place: Place, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """PostgreSQL at both places, MariaDB at one of them."""
    world = place.world
    for site in (FRANKFURT, VIRGINIA):
        world.postgres(site, TABLES)
        world.wait_for(site, 5432)
    directory = tmp_path_factory.mktemp("mariadb")
    within = lambda *command: world.command(FRANKFURT.name, *command)  # noqa: E731
    tables = f"DROP TABLE customers;\n{TABLES}"
    with running_mariadb(directory, address=FRANKFURT.address, port=3306, within=within, statements=tables):
        world.wait_for(FRANKFURT, 3306)
        yield


def asked(client: Client, url: str) -> list[str]:
    """What the program says line by line."""
    return client.must("java", "-cp", DRIVERS, PROGRAM, url).splitlines()


def postgres(site: Site, more: str = "") -> str:
    return f"jdbc:postgresql://{site.address}/postgres?user=postgres{more}"


def shown(word: str, count: int, card: str) -> str:
    return " ".join((word, *(f"{id}|{name}|{card}|null|{born}" for id, name, _, _, born in ROWS[:count])))


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("mode", POSTGRES)
def test_postgresql_is_masked_however_often_and_in_whatever_pieces(client: Client, mode: str) -> None:
    """First and prepared again, in text and in binary, whole and by cursor: the column is hidden, the rest is there; a
    refused statement leaves the transaction as it is."""
    assert asked(client, postgres(FRANKFURT, POSTGRES[mode])) == [
        *[shown("prepared", 2, "*" * 16)] * 9,
        *[shown("fetched", 5, "*" * 16)] * 7,
        "several name 1",
        "several " + "*" * 16,
        "refused 42501",
        "after 5",
    ]


@pytest.mark.usefixtures("databases")
@pytest.mark.parametrize("mode", MYSQL)
def test_mariadb_is_masked_however_often_and_in_whatever_pieces(client: Client, mode: str) -> None:
    """As above, in text and with statements that the server prepares."""
    where = f"jdbc:mariadb://{FRANKFURT.address}/{DATABASE}?user={USER}&password={PASSWORD}&allowMultiQueries=true"
    where += "&usePipelineAuth=false"  # which gives a server half a second for its first answer
    assert asked(client, where + MYSQL[mode]) == [
        *[shown("prepared", 2, "*" * 16)] * 9,
        *[shown("fetched", 5, "*" * 16)] * 7,
        "several name 1",
        "several " + "*" * 16,
        "refused 42000",
        "after 5",
    ]


@pytest.mark.usefixtures("databases")
def test_a_database_elsewhere_is_denied(client: Client, virginia: Watch) -> None:
    """In words that the driver shows; not even a SYN reaches the other region."""
    virginia.arrived()
    (told,) = asked(client, postgres(VIRGINIA))
    assert told.startswith(f"refused 42501 FATAL: egress to {VIRGINIA.address}:5432 denied")
    assert virginia.arrived() == []
