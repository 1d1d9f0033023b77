"""Records real PostgreSQL sessions for the tests: `.venv/bin/python -m tests.corpora.postgres.capture`, as root.

Relays each client of `SESSIONS` to a real server and writes what crossed the wire as JSON lines,
`{"side": "client"|"server", "hex": "..."}`, in order. See README.md beside this file.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from select import select

import asyncpg
import psycopg

from tests.fixtures.postgres import running_postgres

HERE = Path(__file__).parent
PASSWORD = "not-a-secret"

SQL = """
create table people (id int primary key, name text, card text);
insert into people values (1, 'Ana', '4111 1111 1111 1111'), (2, null, '5500-0000-0000-0004');
select * from people order by id; select count(*) from people;
insert into people values (1, 'again', 'x');
copy people to stdout;
begin; select nonsense; rollback;
drop table people;
"""
# What Jdbc.java asks for.
CUSTOMERS = """
create table customers (id int primary key, name text, card text, digits bigint, born date);
insert into customers select n, 'name ' || n, 'card ' || n, n, date '1990-01-01' + n from generate_series(1, 5) n;
"""


def psql(port: int) -> None:
    command = ["psql", "-X", "-q", f"postgresql://postgres@127.0.0.1:{port}/postgres?sslmode=disable"]
    subprocess.run(
        command, input=SQL.encode(), check=True, capture_output=True, env=os.environ | {"PGPASSWORD": PASSWORD}
    )


def psycopg_pipeline(port: int) -> None:
    url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable"
    with psycopg.connect(url, prepare_threshold=0) as connection:
        connection.execute("create temp table t (i int, s text)")
        with connection.pipeline(), connection.cursor() as cursor:
            cursor.executemany("insert into t values (%s, %b)", [(i, f"row {i}") for i in range(5)])
        for _ in range(3):
            connection.execute("select * from t where i > %s order by i", (2,)).fetchall()
        with connection.cursor().copy("copy t from stdin") as copy:
            copy.write_row((9, "copied"))
        with connection.cursor(binary=True) as binary:
            binary.execute("select i, s from t", ()).fetchall()
        try:
            connection.execute("select 1/0")
        except psycopg.errors.DivisionByZero:
            connection.rollback()


def asyncpg_prepared(port: int) -> None:
    async def session() -> None:
        url = f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres?sslmode=disable"
        connection = await asyncpg.connect(url)
        statement = await connection.prepare("select $1::int as i, $2::text as s from generate_series(1, 3)")
        for i in range(3):
            await statement.fetch(i, f"value {i}")
        await connection.fetchrow("select generate_series(1, 9) as n")
        async with connection.transaction():
            async for _ in connection.cursor("select generate_series(1, 9) as n", prefetch=4):
                pass
        await connection.close()

    asyncio.run(session())


def pgjdbc(port: int) -> None:
    url = f"jdbc:postgresql://127.0.0.1:{port}/postgres?user=postgres&password={PASSWORD}&sslmode=disable"
    program = Path(__file__).parents[2] / "clients/Jdbc.java"
    subprocess.run(["java", "-cp", "/usr/share/java/postgresql.jar", program, url], check=True, capture_output=True)


SESSIONS: dict[str, Callable[[int], None]] = {
    "psql": psql,
    "psycopg-pipeline": psycopg_pipeline,
    "asyncpg-prepared": asyncpg_prepared,
    "pgjdbc": pgjdbc,
}


def relay(listener: socket.socket, server_port: int, lines: list[str]) -> None:
    """Relays one connection and notes every piece."""
    client = listener.accept()[0]
    with client, socket.create_connection(("127.0.0.1", server_port)) as server:
        while True:
            for end in select([client, server], [], [])[0]:
                data = end.recv(65536)
                if not data:
                    return
                (server if end is client else client).sendall(data)
                lines.append(json.dumps({"side": "client" if end is client else "server", "hex": data.hex()}))


def main() -> None:
    """Writes every capture anew."""
    with tempfile.TemporaryDirectory() as tmp, running_postgres(Path(tmp), password=PASSWORD) as (_, port):
        with psycopg.connect(f"postgresql://postgres:{PASSWORD}@127.0.0.1:{port}/postgres") as connection:
            connection.execute(CUSTOMERS)
        for name, run in SESSIONS.items():
            with socket.create_server(("127.0.0.1", 0)) as listener:
                lines: list[str] = []
                thread = threading.Thread(target=relay, args=(listener, port, lines))
                thread.start()
                run(listener.getsockname()[1])
                thread.join()
            (HERE / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
