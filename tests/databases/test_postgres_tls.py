"""PostgreSQL's TLS, which is asked for in the protocol's own words, ended here and read: real clients and servers."""

from __future__ import annotations

import select
import socket
import ssl
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from enforcer.tls.authority import Authority
from tests.databases.conftest import SERVER_NAME, PostgresServer
from tests.databases.gateway import Gateway, allow, rule
from tests.fixtures.postgres import ASKED
from tests.fixtures.world import eventually

SSL_REQUEST = struct.pack(">ii", 8, 80877103)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> tuple[Authority, Path]:
    directory = tmp_path_factory.mktemp("authority")
    return Authority.create(directory), directory / "ca.pem"


def url(gateway: Gateway, user: str = "postgres", **options: str) -> str:
    words = " ".join(f"{name}={value}" for name, value in options.items())
    return f"host={SERVER_NAME} hostaddr=127.0.0.1 port={gateway.port} user={user} dbname=postgres {words}"


def without_tls(server: PostgresServer, statement: str) -> object:
    """What the server itself says."""
    where = f"host=127.0.0.1 port={server.port} user=postgres sslmode=disable"
    with psycopg.connect(where, autocommit=True) as connection:
        cursor = connection.execute(statement)
        return cursor.fetchone() if cursor.description else None


def test_tls_ends_here_and_both_ends_are_proven(postgres_server: PostgresServer, ours: tuple[Authority, Path]) -> None:
    """psycopg verifies our certificate for the server's name, the server's is verified by us, and rows are masked."""
    authority, path = ours
    with Gateway(
        postgres_server.port, allow("credit_card"), authority=authority, trust=postgres_server.public.certificate
    ) as gateway:
        with psycopg.connect(url(gateway, sslmode="verify-full", sslrootcert=str(path))) as connection:
            assert connection.execute("select '4111111111111111'").fetchone() == ("************1111",)
            assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (True,)
        gateway.ended()
        startup = gateway.exchanges("Startup")[0]
    assert (startup["facts"]["host"], startup["status"]) == (SERVER_NAME, "AuthenticationOk")
    assert startup["facts"]["tls"].startswith("TLSv1.")


def test_a_server_that_is_not_proven_is_not_spoken_to(
    postgres_server: PostgresServer, ours: tuple[Authority, Path]
) -> None:
    """The client reads why, inside TLS: 08001 with the reason of the verification."""
    with (
        Gateway(postgres_server.port, allow(), authority=ours[0]) as gateway,
        pytest.raises(psycopg.OperationalError, match=r"certificate|issuer"),
    ):
        psycopg.connect(url(gateway, sslmode="require"))


def test_without_interception_the_client_goes_on_in_clear(postgres_server: PostgresServer) -> None:
    """SSLRequest is declined; a client that prefers TLS speaks clear, and one that requires it says so."""
    with Gateway(postgres_server.port, allow()) as gateway:
        with psycopg.connect(url(gateway, sslmode="prefer")) as connection:
            assert connection.execute("select ssl from pg_stat_ssl where pid = pg_backend_pid()").fetchone() == (False,)
        with pytest.raises(psycopg.OperationalError, match="does not support SSL"):
            psycopg.connect(url(gateway, sslmode="require"))


def test_a_rule_for_tls_passes_it_unread(postgres_server: PostgresServer) -> None:
    """The server's own certificate reaches the client, and only the ClientHello is recorded."""
    passed = rule(protocols=frozenset({"tls"}))
    trusted = postgres_server.public
    with Gateway(postgres_server.port, passed) as gateway:
        path = Path(f"/tmp/enforcer-test-{gateway.port}.pem")
        path.write_text(trusted.certificate)
        try:
            with psycopg.connect(url(gateway, sslmode="verify-full", sslrootcert=str(path))) as connection:
                assert connection.execute("select '4111111111111111'").fetchone() == ("4111111111111111",)
        finally:
            path.unlink()
        gateway.ended()
        assert [row["operation"] for row in gateway.exchanges()] == ["ClientHello"]


def test_bytes_stuffed_before_the_handshake_end_the_flow(
    postgres_server: PostgresServer, ours: tuple[Authority, Path]
) -> None:
    """CVE-2021-23222 and its sister: what follows SSLRequest in clear is nobody's first bytes inside TLS."""
    with Gateway(postgres_server.port, allow(), authority=ours[0]) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.sendall(SSL_REQUEST + struct.pack(">ii", 22, 196608) + b"user\0postgres\0\0")
            client.settimeout(30)
            assert b"42501" in client.recv(4096)
        gateway.ended()
        assert "bytes follow a request for encryption" in gateway.rows("sessions")[0]["detail"]


def test_after_agreeing_only_tls_may_come(postgres_server: PostgresServer, ours: tuple[Authority, Path]) -> None:
    """A startup packet in clear after our `S` ends the flow; the server has seen nothing of it."""
    with Gateway(postgres_server.port, allow(), authority=ours[0]) as gateway:
        with socket.create_connection(("127.0.0.1", gateway.port)) as client:
            client.settimeout(30)
            client.sendall(SSL_REQUEST)
            assert client.recv(1) == b"S"
            client.sendall(struct.pack(">ii", 23, 196608) + b"user\0postgres\0\0")
            assert client.recv(1) == b""
        gateway.ended()
        assert gateway.rows("sessions")[0]["reason"] == "protocol error"


@pytest.fixture
def plain(postgres_server: PostgresServer) -> Iterator[PostgresServer]:
    """A server without TLS."""
    for state in ("off", "on"):
        without_tls(postgres_server, f"alter system set ssl = {state}")
        without_tls(postgres_server, "select pg_reload_conf()")
        eventually(lambda now=state: without_tls(postgres_server, "show ssl") == (now,), f"TLS is not {state}")
        if state == "off":
            yield postgres_server


def test_a_server_without_tls_is_said_to_have_none(plain: PostgresServer, ours: tuple[Authority, Path]) -> None:
    """The server is asked before the client is answered, so that psql's default goes on in clear and is read."""
    with Gateway(plain.port, allow("credit_card"), authority=ours[0]) as gateway:
        command = ["psql", "-X", "-At", "-c", "select '4111111111111111'", url(gateway)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout == "************1111\n", done.stderr


@pytest.fixture(scope="module")
def scram(postgres_server: PostgresServer) -> PostgresServer:
    """With a user who is asked for a password."""
    without_tls(postgres_server, f"create role {ASKED} login password 'not-a-secret'")
    return postgres_server


@pytest.mark.parametrize("mode", ["disable", "require"])
def test_passwords_pass_where_they_are_bound_to_no_tls_connection(
    scram: PostgresServer, ours: tuple[Authority, Path], mode: str
) -> None:
    """SCRAM-SHA-256 from a client in clear, and from one in TLS that was told not to bind."""
    with Gateway(scram.port, allow(), authority=ours[0], trust=scram.public.certificate) as gateway:
        settings = url(gateway, ASKED, sslmode=mode, password="not-a-secret", channel_binding="disable")
        with psycopg.connect(settings) as connection:
            assert connection.execute("select 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            psycopg.connect(url(gateway, ASKED, sslmode=mode, password="wrong", channel_binding="disable"))


def test_a_password_that_would_be_bound_to_tls_is_refused_with_what_to_set(
    scram: PostgresServer, ours: tuple[Authority, Path]
) -> None:
    """libpq's default inside TLS: the server would take us for an attacker; we say how it works."""
    with (
        Gateway(scram.port, allow(), authority=ours[0], trust=scram.public.certificate) as gateway,
        pytest.raises(psycopg.OperationalError, match="set channel_binding=disable"),
    ):
        psycopg.connect(url(gateway, ASKED, sslmode="require", password="not-a-secret"))


@contextmanager
def direct_tls(server_port: int, pem: Path) -> Iterator[int]:
    """The port of a server of PostgreSQL 17's kind: TLS from the first byte, agreed on by ALPN; for one connection."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    context.set_alpn_protocols(["postgresql"])
    listener = socket.create_server(("127.0.0.1", 0))

    def carry() -> None:
        accepted, _ = listener.accept()
        with context.wrap_socket(accepted, server_side=True) as client:
            assert client.selected_alpn_protocol() == "postgresql"
            with socket.create_connection(("127.0.0.1", server_port)) as server:
                while True:
                    ready = [client] if client.pending() else select.select([client, server], [], [], 30)[0]
                    for end in ready:
                        data = end.recv(65536)
                        if not data:
                            return
                        (server if end is client else client).sendall(data)

    thread = threading.Thread(target=carry, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join(30)


@pytest.mark.skipif(psycopg.pq.version() < 170000, reason="its libpq asks for TLS in the old way only")
def test_tls_from_the_first_byte_is_read_too(
    postgres_server: PostgresServer, ours: tuple[Authority, Path], tmp_path: Path
) -> None:
    """libpq's `sslnegotiation=direct`: ALPN says what is inside, at both ends, and rows are masked."""
    public = Authority.create(tmp_path / "public")
    pem = tmp_path / "server.pem"
    pem.write_text(public.leaf(SERVER_NAME).pem)
    with (
        direct_tls(postgres_server.port, pem) as port,
        Gateway(port, allow("credit_card"), authority=ours[0], trust=public.certificate) as gateway,
        psycopg.connect(
            url(gateway, sslmode="verify-full", sslrootcert=str(ours[1]), sslnegotiation="direct")
        ) as connection,
    ):
        assert connection.execute("select '4111111111111111'").fetchone() == ("************1111",)
