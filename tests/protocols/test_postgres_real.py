"""Real clients through the inspector to a real server: sessions survive denials and read masked rows."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from select import select

import asyncpg
import psycopg
import pytest

from enforcer.flow import Side
from enforcer.protocols.base import Request
from enforcer.protocols.postgres.inspector import PostgresInspector
from tests.fixtures.postgres import running_postgres
from tests.protocols.wire_postgres import Talk

PASSWORD = "not-a-secret"
MARK = "forbidden"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A server's port; it asks for SCRAM."""
    with running_postgres(tmp_path_factory.mktemp("postgres"), password=PASSWORD) as (_, port):
        yield port


def marked(request: Request) -> bool:
    return MARK in request.text or any(MARK in (value or "") for value in request.params)


class Relay:
    """Puts an inspector between clients and the server; one thread per connection, `requests` seen by all of them."""

    def __init__(self, server_port: int, *, masked: bool) -> None:
        self.requests: list[Request] = []
        self._masked = masked
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._acceptor = threading.Thread(target=self._accept)
        self._acceptor.start()

    @property
    def url(self) -> str:
        return f"postgresql://postgres:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def _accept(self) -> None:
        while True:
            client, _ = self._listener.accept()
            hello = client.recv(1, socket.MSG_PEEK)
            if hello == b"q":  # `close` says good-bye
                client.close()
                return
            thread = threading.Thread(target=self._carry, args=(client,))
            thread.start()
            self._threads.append(thread)

    def _carry(self, client: socket.socket) -> None:
        talk = Talk(PostgresInspector(), deny=marked, masked=self._masked)
        with client, socket.create_connection(("127.0.0.1", self._server_port)) as server:
            ends = {client: Side.CLIENT, server: Side.SERVER}
            while not talk.closed:
                for end in select(list(ends), [], [])[0]:
                    data = end.recv(65536)
                    events = talk.feed(ends[end], data) if data else talk.eof(ends[end])
                    self.requests += [event for event in events if isinstance(event, Request)]
                    upstream, downstream = talk.sent()
                    server.sendall(upstream)
                    client.sendall(downstream)
                    if not data:
                        return

    def close(self) -> None:
        with socket.create_connection(("127.0.0.1", self.port)) as bye:
            bye.sendall(b"q")
        self._acceptor.join(10)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)


@contextmanager
def relay(server_port: int, *, masked: bool = False) -> Iterator[Relay]:
    made = Relay(server_port, masked=masked)
    try:
        yield made
    finally:
        made.close()


def test_psql_reads_the_denial_and_goes_on(server: int) -> None:
    """psql shows title, detail and hint, and its next statement works; its default sslmode falls back to plain."""
    with relay(server) as via:
        done = subprocess.run(
            ["psql", "-X", "-At", via.url],
            input="select 'before';\nselect 'forbidden';\nselect 'after';\n",
            capture_output=True,
            text=True,
            check=True,
            timeout=30,
        )
    assert done.stdout == "before\nafter\n"
    assert done.stderr.splitlines() == [
        "ERROR:  egress to 8.8.8.8:5432 denied: a rule matched",
        "DETAIL:  region US (8.8.8.0/24), rule eu-only/everything-else, session 0a1b",
        "HINT:  ask this host's operator; 'enforcer explain 8.8.8.8:5432' shows every rule tried",
    ]


@pytest.mark.parametrize("autocommit", [True, False])
def test_psycopg_goes_on_after_a_denial(server: int, autocommit: bool) -> None:
    """In autocommit and inside a transaction the denial is InsufficientPrivilege, and the connection stays good."""
    with relay(server) as via, psycopg.connect(via.url, autocommit=autocommit) as connection:
        connection.execute("create temp table kept (n int)")
        connection.execute("insert into kept values (1)")
        for _ in range(2):
            with pytest.raises(psycopg.errors.InsufficientPrivilege) as denial:
                connection.execute("select %s", (MARK,))
            assert denial.value.diag.message_detail is not None
            assert "session 0a1b" in denial.value.diag.message_detail
        assert connection.execute("select n from kept").fetchall() == [(1,)]


def insert_in_pipeline(connection: psycopg.Connection, *numbers: str) -> None:
    with connection.pipeline():
        for number in numbers:
            connection.execute(f"insert into kept values ({number})")


def test_a_denial_in_a_pipeline_rolls_its_batch_back(server: int) -> None:
    """psycopg's pipeline: what went before the refused statement in its batch is not committed behind the
    client's back, what follows is aborted, and the next pipeline works."""
    with relay(server) as via, psycopg.connect(via.url, autocommit=True) as connection:
        connection.execute("create temp table kept (n int)")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            insert_in_pipeline(connection, "1", "length('forbidden')", "3")
        assert connection.execute("select count(*) from kept").fetchone() == (0,)
        with connection.pipeline():
            connection.execute("insert into kept values (4)")
            found = connection.execute("select n from kept")
        assert found.fetchall() == [(4,)]


def test_asyncpg_prepared_executions_are_judged_and_masked(server: int) -> None:
    """A prepared statement is refused for one parameter only, and every re-execution in binary is masked."""

    async def session(url: str) -> list[list[tuple[int, str]]]:
        connection = await asyncpg.connect(url)
        statement = await connection.prepare("select 7 as n, $1::text as s")
        seen = []
        for word in ("one", MARK, "two"):
            try:
                seen.append([tuple(record) for record in await statement.fetch(word)])
            except asyncpg.InsufficientPrivilegeError as denial:
                seen.append([(0, denial.hint[:3])])
        async with connection.transaction():
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await statement.fetch(MARK)
            seen.append(
                [
                    tuple(record)
                    async for record in connection.cursor("select 1, 'x' || g from generate_series(1, 3) g", prefetch=2)
                ]
            )
        await connection.close()
        return seen

    with relay(server, masked=True) as via:
        seen = asyncio.run(session(via.url))
    assert seen == [[(7, "ONE")], [(0, "ask")], [(7, "TWO")], [(1, "X1"), (1, "X2"), (1, "X3")]]
    assert [request.params for request in via.requests if request.params] == [("one",), (MARK,), ("two",), (MARK,)]


def test_masked_cells_errors_and_copies_reach_psycopg(server: int) -> None:
    """Text cells, NULL, an error's detail, and COPY TO STDOUT arrive masked; binary integers arrive untouched."""
    with relay(server, masked=True) as via, psycopg.connect(via.url, autocommit=True) as connection:
        connection.execute("create temp table people (id int primary key, name text)")
        connection.execute("insert into people values (1, 'ana'), (2, null)")
        query = "select id, name from people order by id"
        assert connection.execute(query).fetchall() == [(1, "ANA"), (2, None)]
        assert connection.execute(query, binary=True).fetchall() == [(1, "ANA"), (2, None)]
        with pytest.raises(psycopg.errors.UniqueViolation, match=r"KEY \(ID\)=\(1\) ALREADY EXISTS"):
            connection.execute("insert into people values (1, 'again')")
        with connection.cursor().copy("copy (select 'row ' || g from generate_series(1, 3000) g) to stdout") as copy:
            assert b"".join(copy) == b"".join(b"ROW %d\n" % n for n in range(1, 3001))
        with connection.cursor().copy("copy people from stdin") as copy:
            copy.write_row((3, "zoe"))
        assert connection.execute("select count(*) from people").fetchone() == (3,)


def test_long_rows_and_many_rows_pass_unmasked(server: int) -> None:
    """A row far over the buffer limits and a large result arrive whole."""
    with relay(server) as via, psycopg.connect(via.url, autocommit=True) as connection:
        assert connection.execute("select repeat('x', 3000000)").fetchone() == ("x" * 3_000_000,)
        assert len(connection.execute("select g from generate_series(1, 100000) g").fetchall()) == 100_000


def test_a_cancel_request_passes(server: int) -> None:
    """psycopg opens a connection of its own for it, through the relay, and the statement stops."""
    with relay(server) as via, psycopg.connect(via.url, autocommit=True) as connection:
        timer = threading.Timer(0.3, connection.cancel_safe)
        timer.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            connection.execute("select pg_sleep(20)")
        timer.join()
    assert "CancelRequest" in [request.operation for request in via.requests]


def test_a_refused_startup_reaches_the_user(server: int) -> None:
    """A denied connection prints the denial, not a reset."""
    with relay(server) as via:
        done = subprocess.run(
            ["psql", "-X", f"{via.url}?application_name={MARK}"],
            input="",
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert "FATAL:  egress to 8.8.8.8:5432 denied: a rule matched" in done.stderr
