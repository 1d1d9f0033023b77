"""A throw-away server that speaks MongoDB's wire protocol: SecantusDB of PyPI, which keeps data in MongoDB's storage
engine and says that it is an 8.2. MongoDB's own server is in no archive that these tests may install from."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.databases.inspected import free_port
from tests.databases.redis_server import wait_for

SERVER = Path(sys.executable).parent / "secantusd-py"


@contextmanager
def running_mongo(directory: Path, *options: str) -> Iterator[int]:
    """Runs a server in memory; yields its port, and ends it by pid."""
    port = free_port()
    command = [str(SERVER), "--host", "127.0.0.1", "--port", str(port), "--storage-path", ":memory:", "--standalone"]
    with ExitStack() as stack:
        log = stack.enter_context((directory / f"mongo-{port}.log").open("wb"))
        server = subprocess.Popen(
            [*command, "--cache-size", "64M", *options],
            stdout=log,
            stderr=log,
            cwd=directory,
            env={**os.environ, "TMPDIR": str(directory)},
        )
        stack.callback(_end, server)
        yield port


def _end(server: subprocess.Popen[bytes]) -> None:
    """At once: closing its files in an orderly way takes seconds, and they are thrown away."""
    server.kill()
    server.wait()


def ready(port: int) -> int:
    wait_for(port, "SecantusDB")
    return port
