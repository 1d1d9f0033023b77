"""Accepting: a connection that the kernel does not vouch for is closed unread; the others become flows."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Any

import pytest

from enforcer.capture.abi import FlowRecord
from enforcer.flow import Executor, Flow
from enforcer.proxy import listener
from enforcer.proxy.environment import Environment
from tests.proxy.stage import DE, PATIENCE, Table
from tests.proxy.test_upstream import AtOnce

EXECUTOR = Executor("agent-1", "agent", 1000, "runner", cgroup_id=77)


def record(address: str = DE, port: int = 5432, **changes: int) -> FlowRecord:
    """What the kernel says of a captured connection: addresses and ports in network order."""
    parsed = ip_address(address)
    words = struct.unpack("=4I", parsed.packed.ljust(16, b"\0"))
    fields = {
        "cookie": 99,
        "executor": EXECUTOR.cgroup_id,
        "generation": 1,
        "region_set": Table().set_id(parsed),
        "pid": 4242,
        "uid": 1000,
        "port": socket.htons(port),
        "family": parsed.version,
        "redirected": 1,
    }
    answer = FlowRecord(**fields | changes)
    answer.address = type(answer.address)(*words)
    return answer


class FakeSession:
    """Stands in for the session: keeps what it is told."""

    def __init__(self, flow: Flow, environment: Environment, client: asyncio.Transport) -> None:
        self.flow = flow
        self.client = client
        self.heard: list[object] = []

    def client_data(self, data: bytes) -> None:
        self.heard.append(data)

    def client_eof(self) -> None:
        self.heard.append("eof")
        self.client.close()

    def client_lost(self) -> None:
        self.heard.append("lost")

    def client_full(self, full: bool) -> None:
        self.heard.append(full)


class Place:
    """A listener on 127.0.0.1, and clients that connect to it."""

    def __init__(self, environment: Any, port: int) -> None:
        self.environment = environment
        self.port = port

    async def client(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def until(self, condition: Callable[[], object]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
                await asyncio.sleep(0.005)

    @property
    def sessions(self) -> list[FakeSession]:
        return list(self.environment.sessions)


class FakeNames:
    """The link to a resolver, where `resolving` is set; keeps what is handed over."""

    def __init__(self) -> None:
        self.resolving = False
        self.handed: list[socket.socket] = []

    def takes(self, flow: Flow) -> bool:
        return self.resolving and flow.destination.port == 53

    def hand_over(self, _flow: Flow, descriptor: int) -> None:
        self.handed.append(socket.socket(fileno=socket.dup(descriptor)))


class FakeEnvironment:
    def __init__(self) -> None:
        self.table = Table()
        self.generation = 1
        self.sessions: set[object] = set()
        self.inbox = AtOnce()
        self.names = FakeNames()


def play(
    monkeypatch: pytest.MonkeyPatch, answer: FlowRecord | None, act: Callable[[Place], Awaitable[None]]
) -> FakeEnvironment:
    """Runs `act` beside a listener for which the kernel answers `answer`."""
    monkeypatch.setattr(listener, "Session", FakeSession)
    monkeypatch.setattr(listener, "flow_record", lambda _socket: answer)
    environment = FakeEnvironment()

    async def run() -> None:
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        servers = await listener.listen([sock], EXECUTOR, environment)  # type: ignore[arg-type]
        try:
            await act(Place(environment, sock.getsockname()[1]))
        finally:
            for server in servers:
                server.close()

    asyncio.run(run())
    return environment


@pytest.mark.parametrize(
    "answer",
    [None, record(executor=78), record(region_set=2), record("192.0.2.7", region_set=1)],
    ids=["no mapping", "another executor's", "kernel says US, table says DE", "kernel knows it, table does not"],
)
def test_a_connection_that_does_not_fit_is_closed_unread(
    monkeypatch: pytest.MonkeyPatch, answer: FlowRecord | None
) -> None:
    """No session is made, and the client gets the end without a byte, whatever it sent."""

    async def act(place: Place) -> None:
        reader, writer = await place.client()
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        with suppress(ConnectionError):  # closed unread is a reset
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
        writer.close()

    assert play(monkeypatch, answer, act).sessions == set()


@pytest.mark.parametrize(("address", "family"), [(DE, IPv4Address), ("2a05:d014::1", IPv6Address)])
def test_a_captured_connection_becomes_a_flow(
    monkeypatch: pytest.MonkeyPatch, address: str, family: type[IPv4Address | IPv6Address]
) -> None:
    """Destination, executor, process and region are what kernel and table say."""

    async def act(place: Place) -> None:
        _, writer = await place.client()
        await place.until(lambda: place.sessions)
        flow = place.sessions[0].flow
        assert isinstance(flow.destination.address, family)
        assert (str(flow.destination.address), flow.destination.port) == (address, 5432)
        assert (flow.executor, flow.cookie, flow.pid, flow.uid) == (EXECUTOR, 99, 4242, 1000)
        assert flow.region == place.environment.table.lookup(ip_address(address))
        writer.close()

    play(monkeypatch, record(address), act)


def test_a_record_of_an_older_generation_is_judged_by_the_present_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set ids belong to their generation: across a reload they are not compared, the address is looked up again."""

    async def act(place: Place) -> None:
        _, writer = await place.client()
        await place.until(lambda: place.sessions)
        assert place.sessions[0].flow.region.regions == {"DE"}
        writer.close()

    play(monkeypatch, record(generation=0, region_set=55), act)


def test_bytes_end_and_loss_of_a_client_reach_its_session(monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order in which they happen; a half-close does not close the connection by itself."""

    async def act(place: Place) -> None:
        _, writer = await place.client()
        writer.write(b"hello")
        writer.write_eof()
        await place.until(lambda: place.sessions and "lost" in place.sessions[0].heard)
        assert place.sessions[0].heard == [b"hello", "eof", "lost"]
        writer.close()

    play(monkeypatch, record(), act)


@pytest.mark.parametrize("resolving", [True, False])
def test_a_connection_to_port_53_is_the_resolvers(monkeypatch: pytest.MonkeyPatch, resolving: bool) -> None:
    """With a resolver it gets the connection unread, and no session is made; without one it is a flow like others."""
    received = []

    async def act(place: Place) -> None:
        place.environment.names.resolving = resolving
        _reader, writer = await place.client()
        writer.write(b"question")
        if resolving:
            await place.until(lambda: place.environment.names.handed)
            (handed,) = place.environment.names.handed
            with handed:
                handed.setblocking(False)
                received.append(await asyncio.get_running_loop().sock_recv(handed, 100))
        else:
            await place.until(lambda: any(one.heard for one in place.environment.sessions))
        writer.close()

    environment = play(monkeypatch, record(port=53), act)
    assert received == ([b"question"] if resolving else [])
    assert len(environment.sessions) == (0 if resolving else 1)
