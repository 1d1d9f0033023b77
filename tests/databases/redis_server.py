"""A throw-away Redis server of Debian's own package."""

from __future__ import annotations

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.databases.inspected import free_port

START_SECONDS = 20.0


def wait_for(port: int, what: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what} did not start within {START_SECONDS} s") from None
            time.sleep(0.02)


@contextmanager
def running_redis(directory: Path, *options: str) -> Iterator[int]:
    """Runs a server that keeps nothing; yields its port, and ends it by pid."""
    port = free_port()
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(directory)]
    with (directory / "redis.log").open("wb") as log:
        server = subprocess.Popen([*command, *options], stdout=log, stderr=log)
        try:
            wait_for(port, "Redis")
            yield port
        finally:
            server.terminate()
            try:
                server.wait(10)
            except subprocess.TimeoutExpired:
                server.kill()
                server.wait()
