"""One session on a stage: real inspectors, policy engine, masker, ledger and journal; transports in memory.

    with Stage(allow()) as stage:
        stage.client_sends(GET)
        stage.connects()
        assert stage.to_server == GET

Everything that leaves the session is in `log`, in order: a row made, a dial, bytes to either end. Steps run inside an
event loop that the stage owns and spins until nothing is left to do; timers are real.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, ip_address
from types import TracebackType
from typing import Any, Self

import orjson

from enforcer.config import OnReload
from enforcer.flow import Address, Endpoint, Executor, Flow, Region
from enforcer.masking.masker import masker_for
from enforcer.policy.compiled import Policy, PolicySet, Rule
from enforcer.proxy import environment as environment_module
from enforcer.proxy import session as session_module
from enforcer.proxy.environment import Environment
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.journal import Journal
from enforcer.proxy.session import Session
from enforcer.proxy.tls import Certificates
from enforcer.verdict import Action, MaskSpec

CARD = "4111111111111111"
"""Visa's published test number: passes Luhn, belongs to nobody."""
MASKED_CARD = "************1111"

DE, US = "3.120.0.10", "8.8.8.8"
REGIONS = {
    DE: Region(frozenset({"DE"}), "country", "3.120.0.0/14", "test table 1"),
    US: Region(frozenset({"US"}), "country", "8.8.8.0/24", "test table 1"),
}
PATIENCE = 10.0
"""Seconds any condition may take; generous, for busy machines."""


class Wire(asyncio.Transport):
    """One end of a connection. `reading`: whether its bytes are wanted at this moment."""

    def __init__(self, name: str, log: list[tuple[str, Any]]) -> None:
        super().__init__()
        self._name = name
        self._log = log
        self.reading = True
        self.ended = ""  # "closed" or "reset"
        self.eof_sent = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended, f"write to a {self.ended} {self._name}"
        assert not self.eof_sent, f"write to {self._name} after its end of file"
        self._log.append((self._name, bytes(data)))

    def write_eof(self) -> None:
        self.eof_sent = True

    def can_write_eof(self) -> bool:
        return True

    def is_closing(self) -> bool:
        return bool(self.ended)

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "reset"

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class RecordWire(Wire):
    """The worker's end of the record stream: `lines` are what the supervisor would read."""

    def __init__(self) -> None:
        super().__init__("records", [])
        self.lines: list[dict[str, Any]] = []
        self.writes = 0
        self.limit = 0
        self.on_commit: Callable[[int], object] = lambda _number: None

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limit = high or 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        lines = [orjson.loads(line) for line in bytes(data).splitlines()]
        self.lines += lines
        for line in lines:
            if line.keys() == {"commit"}:
                self.on_commit(line["commit"])


class LoggedJournal(Journal):
    """The real journal, whose rows also appear in the stage's log in the moment they are made."""

    def __init__(self, log: list[tuple[str, Any]]) -> None:
        super().__init__(lambda: None)
        self._stage_log = log

    def row(self, row: Any) -> None:
        self._stage_log.append(("row", row))
        super().row(row)


class Table:
    """A geography table of two prefixes."""

    version = "table-1"

    def __init__(self) -> None:
        self.regions = dict(REGIONS)

    def lookup(self, address: Address) -> Region:
        unknown = Region(frozenset(), "unknown", "0.0.0.0/0", "")
        return self.regions.get(str(address), unknown)

    def set_id(self, address: Address) -> int:
        return 1 + list(self.regions).index(str(address)) if str(address) in self.regions else 0


def rule(action: str = "allow", region: str = "DE", **changes: Any) -> Rule:
    """`action` for `region` and every protocol but opaque; `changes` are fields of Rule."""
    fields: dict[str, Any] = {
        "name": f"{action}-{region.lower()}",
        "action": Action(action),
        "region_words": (region,),
        "regions": frozenset({region}),
        **changes,
    }
    return Rule(**fields)


def allow(*detectors: str, **changes: Any) -> Rule:
    """Allows Germany, masking what `detectors` find."""
    return rule(mask=MaskSpec(detectors=detectors), **changes)


def policies(*rules: Rule, observe: bool = False) -> PolicySet:
    return PolicySet.of((Policy("test", observe, ("*",), frozenset(), rules),))


@dataclass
class Dial:
    """One attempt to reach a server, which the stage completes or fails."""

    destination: str
    outcome: asyncio.Future[Wire]


class Stage:
    """A flow to `address`:`port`, judged by `rules`.

    `hold`: seconds that a batched row waits for its outcome; the default is longer than any test, 0 is not at all.
    `durable`: all rules are, and the supervisor says of each row at once that it is on disk."""

    def __init__(
        self,
        *rules: Rule,
        address: str = DE,
        port: int = 80,
        observe: bool = False,
        identify_timeout: float = PATIENCE,
        linger: float = 0.0,
        hold: float = PATIENCE,
        durable: bool = False,
        on_reload: OnReload = "recheck",
    ) -> None:
        self._on_reload: OnReload = on_reload
        self.loop = asyncio.new_event_loop()
        self.faults: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda _loop, context: self.faults.append(context))
        self.log: list[tuple[str, Any]] = []
        self.dials: list[Dial] = []
        self.server: Wire | None = None
        self.client = Wire("client", self.log)
        self.records = RecordWire()
        self._kept = session_module.dial, session_module.LINGER, environment_module.HOLD
        session_module.dial = self._dial  # type: ignore[assignment]
        session_module.LINGER = linger
        environment_module.HOLD = hold
        if durable:
            rules = tuple(replace(one, durable=True) for one in rules)
            self.records.on_commit = lambda number: self.loop.call_soon(
                self.journal.data_received, orjson.dumps({"commit": number, "error": ""}) + b"\n"
            )
        executor = Executor("agent-1", "agent", 1000, "runner", 7)
        endpoint = Endpoint(ip_address(address), port)
        self.flow = Flow(executor, endpoint, Table().lookup(endpoint.address), 5, 4242, 1000, 1_763_791_200_000_000_000)
        self.loop.run_until_complete(self._open(policies(*rules, observe=observe), identify_timeout))

    async def _open(self, chosen: PolicySet, identify_timeout: float) -> None:
        self.journal = LoggedJournal(self.log)
        self.journal.connection_made(self.records)
        self.environment = Environment(
            loop=self.loop,
            journal=self.journal,
            inbox=Inbox(self.loop, self.journal),
            policies=chosen,
            table=Table(),  # type: ignore[arg-type]
            generation=1,
            identify_timeout=identify_timeout,
            connect_timeout=PATIENCE,
            record_masker=masker_for(MaskSpec(detectors=("credit_card", "email"))),
            on_reload=self._on_reload,
            certificates=Certificates(lambda _name: None),
        )
        self.session = Session(self.flow, self.environment, self.client)
        self.environment.sessions.add(self.session)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        session_module.dial, session_module.LINGER, environment_module.HOLD = self._kept
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        self.settle()
        self.loop.close()
        if kind is None:
            assert not self.faults, f"errors that nobody handled: {self.faults}"

    async def _dial(
        self, _session: object, _inbox: object, destination: Endpoint, _patience: float, _tls: object = None
    ) -> Wire:
        self.log.append(("dial", str(destination)))
        attempt = Dial(str(destination), self.loop.create_future())
        self.dials.append(attempt)
        return await attempt.outcome

    # --- time

    def settle(self) -> None:
        """Runs everything that is ready to run."""

        async def turns() -> None:
            for _ in range(10):
                await asyncio.sleep(0)

        self.loop.run_until_complete(turns())

    def until(self, condition: Callable[[], object]) -> None:
        """Lets time pass until `condition` holds."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it never came to that"
            self.loop.run_until_complete(asyncio.sleep(0.005))

    def _step(self, act: Callable[..., object], *arguments: object) -> None:
        self.loop.call_soon(act, *arguments)
        self.settle()

    # --- what happens

    def client_sends(self, data: bytes) -> None:
        self._step(self.session.client_data, data)

    def client_ends(self) -> None:
        self._step(self.session.client_eof)

    def client_lost(self) -> None:
        self._step(self.session.client_lost)

    def client_full(self, full: bool) -> None:
        self._step(self.session.client_full, full)

    def server_sends(self, data: bytes) -> None:
        self._step(self.session.server_data, data)

    def server_ends(self) -> None:
        self._step(self.session.server_eof)

    def server_lost(self, error: Exception | None = None) -> None:
        self._step(self.session.server_lost, error)

    def server_full(self, full: bool) -> None:
        self._step(self.session.server_full, full)

    def connects(self) -> Wire:
        """The server accepts the connection that is being dialled."""
        self.server = Wire("server", self.log)
        self.dials[-1].outcome.set_result(self.server)
        self.settle()
        return self.server

    def cannot_connect(self, error: BaseException) -> None:
        self.dials[-1].outcome.set_exception(error)
        self.settle()

    def supervisor_says(self, **answer: object) -> None:
        self._step(self.journal.data_received, orjson.dumps(answer) + b"\n")

    def new_generation(self, *rules: Rule) -> None:
        self.environment.policies = policies(*rules)
        self.environment.generation += 1
        self._step(self.session.reconsider)

    # --- what came of it

    def sent(self, to: str) -> bytes:
        return b"".join(data for name, data in self.log if name == to)

    @property
    def to_client(self) -> bytes:
        return self.sent("client")

    @property
    def to_server(self) -> bytes:
        return self.sent("server")

    def take(self, to: str) -> bytes:
        """What went to that end since the last time."""
        data = self.sent(to)
        self.log[:] = [entry for entry in self.log if entry[0] != to]
        return data

    @property
    def order(self) -> list[str]:
        """The log in a word per entry: a row's table, `commit` for a request to commit, `dial`, `server`, `client`."""
        words = (data.get("table", "commit") if name == "row" else name for name, data in self.log)
        return list(words)

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of one table, as the supervisor reads them."""
        return [line for line in self.records.lines if line.get("table") == table]

    def row(self, table: str) -> dict[str, Any]:
        found = self.rows(table)
        assert len(found) == 1, f"{len(found)} rows in {table}: {found}"
        return found[0]

    @property
    def commits(self) -> list[int]:
        """Numbers of the commits that were asked for."""
        return [line["commit"] for line in self.records.lines if line.keys() == {"commit"}]


UNKNOWN = str(IPv4Address("192.0.2.7"))
"""An address that no table of these tests holds."""
