"""Steps 1 and 2 of 6, from the worker's side: accept a captured connection and learn whose it is and where it was
going.

Gets accepted sockets of one executor's namespace; hands a `Flow` to a new session, or a connection to port 53 on to the
resolver. A connection the kernel knows nothing about, or whose record does not fit its listener or the tables, is
closed unread.
"""

from __future__ import annotations

import asyncio
import socket
import time

from enforcer.capture import abi
from enforcer.capture.original_dst import flow_record
from enforcer.flow import Endpoint, Executor, Flow
from enforcer.log import get_logger
from enforcer.proxy.environment import Environment
from enforcer.proxy.session import Session

_log = get_logger()


class Client(asyncio.Protocol):
    """One accepted connection of `executor`."""

    def __init__(self, executor: Executor, environment: Environment) -> None:
        self._executor = executor
        self._environment = environment
        self._session: Session | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        client: asyncio.Transport = transport  # type: ignore[assignment]
        flow = self._flow(client)
        if flow is None:
            client.abort()
            return
        if self._environment.names.takes(flow):
            self._environment.names.hand_over(flow, client.get_extra_info("socket").fileno())
            client.abort()  # our copy: the connection goes on with the resolver's, or not at all
            return
        self._session = Session(flow, self._environment, client)
        self._environment.sessions.add(self._session)

    def _flow(self, client: asyncio.Transport) -> Flow | None:
        with socket.socket(fileno=socket.dup(client.get_extra_info("socket").fileno())) as accepted:
            record = flow_record(accepted)
        if record is None:
            _log.warning("connection without an original destination closed", executor=self._executor.name)
            return None
        if record.executor != self._executor.cgroup_id:
            _log.warning("connection of another executor closed", executor=self._executor.name)
            return None
        address = abi.address_of(record.address, record.family)
        table = self._environment.table
        if record.generation == self._environment.generation and record.region_set != table.set_id(address):
            _log.error("kernel and proxy tables disagree: connection closed", address=str(address))
            return None
        return Flow(
            executor=self._executor,
            destination=Endpoint(address, abi.port_of(record.port)),
            region=table.lookup(address),
            cookie=record.cookie,
            pid=record.pid,
            uid=record.uid,
            opened_ns=time.time_ns(),
        )

    def data_received(self, data: bytes) -> None:
        if self._session is not None:
            self._environment.inbox.receive(self._session.client_data, data)

    def eof_received(self) -> bool:
        if self._session is not None:
            self._environment.inbox.judge()
            self._session.client_eof()
        return True

    def connection_lost(self, _error: Exception | None) -> None:
        if self._session is not None:
            self._environment.inbox.judge()
            self._session.client_lost()

    def pause_writing(self) -> None:
        if self._session is not None:
            self._session.client_full(True)

    def resume_writing(self) -> None:
        if self._session is not None:
            self._session.client_full(False)


async def listen(sockets: list[socket.socket], executor: Executor, environment: Environment) -> list[asyncio.Server]:
    """Accepts on every socket until the returned servers are closed."""
    loop = asyncio.get_running_loop()
    return [await loop.create_server(lambda: Client(executor, environment), sock=sock) for sock in sockets]
