"""Servers that the tests of databases share, started once where they are first asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from enforcer.tls.authority import Authority
from tests.databases.mysql_server import MariaDb, running_mariadb
from tests.fixtures.postgres import running_postgres

SERVER_NAME = "db.example"


@dataclass(frozen=True)
class PostgresServer:
    """`port`: where PostgreSQL is, without a password and with TLS. `public`: the authority its certificate, for
    `db.example`, is signed by."""

    port: int
    public: Authority


@pytest.fixture(scope="session")
def postgres_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    directory: Path = tmp_path_factory.mktemp("postgres-server")
    public = Authority.create(directory / "public")
    with running_postgres(directory, pem=public.leaf(SERVER_NAME).pem) as (_, port):
        yield PostgresServer(port, public)


@pytest.fixture(scope="session")
def mysql_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Who signed the certificate of `mysql_server`, for `db.example`."""
    return Authority.create(tmp_path_factory.mktemp("mysql-authority"))


@pytest.fixture(scope="session")
def mysql_server(tmp_path_factory: pytest.TempPathFactory, mysql_authority: Authority) -> Iterator[MariaDb]:
    """MariaDB, with passwords and with TLS."""
    directory = tmp_path_factory.mktemp("mariadb")
    with running_mariadb(directory, pem=mysql_authority.leaf(SERVER_NAME).pem) as server:
        yield server
