"""Sessions between real clients and a real server of this host: everything of the proxy but the kernel's part.

    with Gateway(server_port, allow("credit_card")) as gateway:
        psycopg.connect(f"postgresql://postgres@127.0.0.1:{gateway.port}/postgres")

Clients connect to `port`; their flows go to `server_port` of the loopback, which the rules of `tests.proxy.stage` with
region HOST are for. `rows` holds what was recorded. Sessions run in a thread of their own, with the worker's loop.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import uvloop

from enforcer.flow import Endpoint, Executor, Flow, Region
from enforcer.masking.masker import masker_for
from enforcer.policy.compiled import Rule
from enforcer.proxy.environment import Environment
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.journal import Journal
from enforcer.proxy.listener import Client
from enforcer.proxy.tls import Certificates, TlsSettings
from enforcer.tls.authority import Authority
from enforcer.verdict import MaskSpec
from tests.proxy import stage
from tests.proxy.stage import RecordWire, policies

HOST = "HOST"
LOOPBACK = Region(frozenset(), "loopback", "127.0.0.0/8", "test table 1")
PATIENCE = 30.0
"""Seconds any condition may take; generous, for busy machines."""


def rule(action: str = "allow", **changes: Any) -> Rule:
    """`action` for this host's own servers; `changes` are fields of Rule."""
    return stage.rule(action, region=HOST, **changes)


def allow(*detectors: str, **changes: Any) -> Rule:
    """Allows them, masking what `detectors` find in answers."""
    return rule(mask=MaskSpec(detectors=detectors), **changes)


class _Table:
    version = "table-1"

    def lookup(self, _address: object) -> Region:
        return LOOPBACK


class _Client(Client):
    """An accepted connection whose destination is known without a kernel."""

    def __init__(self, executor: Executor, environment: Environment, port: int) -> None:
        super().__init__(executor, environment)
        self._port = port

    def _flow(self, client: asyncio.Transport) -> Flow:
        address = ip_address("127.0.0.1")
        return Flow(self._executor, Endpoint(address, self._port), LOOPBACK, 5, 4242, 1000, time.time_ns())


class Gateway:
    """See above. `authority`: TLS ends here, with its certificates; `trust`: PEM text of what servers are proven by.
    `told`: the name under which the executor was told the server's address."""

    def __init__(
        self,
        server_port: int,
        *rules: Rule,
        authority: Authority | None = None,
        trust: str = "",
        told: str = "",
        record: tuple[str, ...] = ("credit_card", "email"),
    ) -> None:
        self._server_port = server_port
        self._rules = rules
        self._authority = authority
        self._trust = trust
        self._told = told
        self._record = record
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._ready = threading.Event()
        self._records = RecordWire()
        self.faults: list[dict[str, Any]] = []
        self.port = 0

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(PATIENCE), "the gateway did not start"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(PATIENCE)
        if kind is None:
            assert not self.faults, f"errors that nobody handled: {self.faults}"

    def _run(self) -> None:
        self._loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self._loop.run_until_complete(self._open())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(self._shut())
        self._loop.close()

    async def _open(self) -> None:
        self._environment = environment = self._environment_of()
        executor = Executor("agent-1", "agent", 1000, "runner", 7)
        self._server = await self._loop.create_server(
            lambda: _Client(executor, environment, self._server_port), "127.0.0.1", 0
        )
        self.port = self._server.sockets[0].getsockname()[1]

    def _environment_of(self) -> Environment:
        journal = Journal(lambda: None)
        journal.connection_made(self._records)
        certificates = Certificates(self._leaf)
        self._certificates = certificates
        if self._authority is not None:
            certificates.configure(TlsSettings(True, self._authority.fingerprint, self._trust))
        environment = Environment(
            loop=self._loop,
            journal=journal,
            inbox=Inbox(self._loop, journal),
            policies=policies(*self._rules),
            table=_Table(),  # type: ignore[arg-type]
            generation=1,
            identify_timeout=PATIENCE,
            connect_timeout=PATIENCE,
            record_masker=masker_for(MaskSpec(detectors=self._record)),
            on_reload="recheck",
            certificates=certificates,
        )
        if self._told:
            environment.names._told.learn(7, "127.0.0.1", self._told, time.monotonic() + 3600)
        return environment

    def _leaf(self, name: str) -> None:
        assert self._authority is not None
        pem = self._authority.leaf(name).pem
        self._loop.call_soon(lambda: self._certificates.learn(name, pem))

    async def _shut(self) -> None:
        self._server.close()
        for session in list(self._environment.sessions):
            session.end("stopped")
        for _ in range(20):  # transports and tasks get to their ends
            await asyncio.sleep(0)

    # --- what was recorded

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one table so far, as the supervisor reads them."""
        return [line for line in list(self._records.lines) if line.get("table") == table]

    def exchanges(self, operation: str = "") -> list[dict[str, Any]]:
        """Requests of every session, with their outcomes joined to them, in order; of one `operation`, or all."""
        ends = {(row["session"], row["exchange"]): row for row in self.rows("outcomes")}
        rows = [{**ends.get((row["session"], row["exchange"]), {}), **row} for row in self.rows("exchanges")]
        return [row for row in rows if not operation or row["operation"] == operation]

    def until(self, condition: Callable[[], Any]) -> Any:
        """Waits until `condition` holds, and returns what it says."""
        deadline = time.monotonic() + PATIENCE
        while not (said := condition()):
            assert time.monotonic() < deadline, f"it never came to that; recorded: {self._records.lines}"
            time.sleep(0.01)
        return said

    def ended(self, count: int = 1) -> list[dict[str, Any]]:
        """The ends of sessions, once there are so many."""
        self.until(lambda: len(self.rows("session_ends")) >= count)
        return self.rows("session_ends")


def authority(directory: Path) -> Authority:
    """A certificate authority of its own."""
    return Authority.create(directory)
