"""A proxy worker: accepts, inspects, masks and forwards, without privileges. `python -m enforcer.worker CONTROL
RECORDS`.

Starts as root only to have its modules read, drops everything, and learns from the supervisor over two socket pairs:
`CONTROL`
(listeners, generations; descriptors travel with the messages) and `RECORDS` (rows up, acknowledgements down). When
either closes, the supervisor is gone: the worker ends at once and its listeners with it, so that executors get an
error.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from typing import Any

import orjson
import structlog
import uvloop

from enforcer import log
from enforcer.flow import Executor
from enforcer.geo.table import GeoTable
from enforcer.masking.masker import masker_for
from enforcer.policy.compiled import PolicySet
from enforcer.privileges import die_with_parent, drop_privileges
from enforcer.proxy.environment import Environment
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.journal import Journal
from enforcer.proxy.listener import listen
from enforcer.verdict import MaskSpec

# One control message: descriptors carry what is large.
MAX_MESSAGE = 64 * 1024
MAX_DESCRIPTORS = 4
# A flow takes two; the common default of 1,024 would end at 500 flows.
OPEN_FILES = 262_144

_log = structlog.get_logger()


class Worker:
    """Acts on the supervisor's control messages."""

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._environment: Environment | None = None
        self._journal: Journal | None = None
        self._servers: dict[tuple[str, int], list[asyncio.Server]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self, records: socket.socket) -> None:
        _, self._journal = await self._loop.create_unix_connection(lambda: Journal(supervisor_gone), sock=records)
        self._loop.add_reader(self._control, self._on_message)

    def _on_message(self) -> None:
        data, descriptors, _flags, _address = socket.recv_fds(self._control, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not data:
            supervisor_gone()
        message = orjson.loads(data)
        match message["op"]:
            case "generation":
                self._take_generation(message, descriptors)
            case "listen":
                task = self._loop.create_task(self._listen(message, descriptors))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "unlisten":
                self._unlisten(message["ident"], message["place"])
            case "stop":
                self._stop()
            case unknown:
                raise ValueError(f"unknown control message {unknown!r}")

    def _take_generation(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """Policy comes as text in a memory file, the table as the file itself."""
        table_fd, policy_fd = descriptors
        with open(policy_fd, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
            policies = PolicySet.from_json(stream.read().decode())
        table = GeoTable.open(table_fd)
        os.close(table_fd)
        record_masker = masker_for(MaskSpec(detectors=tuple(message["record_mask"])))
        if self._environment is None:
            if self._journal is None:
                raise RuntimeError("generation before the record stream")
            self._environment = Environment(
                loop=self._loop,
                journal=self._journal,
                inbox=Inbox(self._loop, self._journal),
                policies=policies,
                table=table,
                generation=message["generation"],
                identify_timeout=message["identify_timeout"],
                connect_timeout=message["connect_timeout"],
                record_masker=record_masker,
            )
        else:
            self._environment.policies = policies
            self._environment.table = table
            self._environment.generation = message["generation"]
            self._environment.identify_timeout = message["identify_timeout"]
            self._environment.connect_timeout = message["connect_timeout"]
            self._environment.record_masker = record_masker
        self._control.send(orjson.dumps({"op": "ready", "generation": message["generation"]}))

    def _stop(self) -> None:
        """An orderly end: no new connections, every session ended and on record, then this process."""
        if self._environment is None or self._journal is None:
            supervisor_gone()
            return
        for servers in self._servers.values():
            for server in servers:
                server.close()
        for session in list(self._environment.sessions):
            session.end("enforcer stopped")
        self._journal.commit(lambda _error: supervisor_gone())

    def _unlisten(self, ident: str, place: int | None) -> None:
        """Closes an executor's listeners at one place, or at all of them."""
        for key in [key for key in self._servers if key[0] == ident and place in (None, key[1])]:
            for server in self._servers.pop(key):
                server.close()

    async def _listen(self, message: dict[str, Any], descriptors: list[int]) -> None:
        if self._environment is None:
            raise RuntimeError("listener before the first generation")
        executor = Executor(**message["executor"])
        sockets = [socket.socket(fileno=descriptor) for descriptor in descriptors]
        servers = await listen(sockets, executor, self._environment)
        self._unlisten(executor.ident, message["place"])
        self._servers[executor.ident, message["place"]] = servers
        self._control.send(orjson.dumps({"op": "listening", "ident": executor.ident}))


def supervisor_gone() -> None:
    """Ends the process without ceremony: whatever is in flight must not go on unrecorded."""
    os._exit(0)


async def _main(control: socket.socket, records: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGINT"):
        loop.add_signal_handler(getattr(signal, name), supervisor_gone)
    # An unforeseen error in a callback must not leave a half-working worker: the supervisor starts another.
    loop.set_exception_handler(_end_on_error)
    await Worker(control, loop).start(records)
    await asyncio.Event().wait()


def _end_on_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("worker ends", message=context["message"], error=repr(context.get("exception")))
    os._exit(1)


def _raise_open_files() -> None:
    """As far as this host lets us: raising the hard limit needs CAP_SYS_RESOURCE, which containers take from root."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    except (ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    records = socket.socket(fileno=int(sys.argv[2]))
    user = sys.argv[3]
    log.configure()
    _raise_open_files()
    drop_privileges(user)
    die_with_parent()
    # Exchanges make and drop many small objects in cycles of their own making; collect them in larger lots.
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)
    uvloop.run(_main(control, records))


if __name__ == "__main__":
    main()
