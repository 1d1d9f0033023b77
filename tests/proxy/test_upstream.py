"""Dialling: the very address that was asked for, both directions, and an error with words."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address

import pytest

from enforcer.flow import Endpoint
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.upstream import dial
from tests.proxy.stage import PATIENCE


class Heard:
    """A session that keeps what its server does."""

    def __init__(self) -> None:
        self.events: list[object] = []

    async def hears(self, event: object) -> None:
        while event not in self.events:  # noqa: ASYNC110 - the one who tells is what is tested
            await asyncio.sleep(0.005)

    def server_data(self, data: bytes) -> None:
        self.events.append(data)

    def server_eof(self) -> None:
        self.events.append("eof")

    def server_lost(self, error: Exception | None) -> None:
        self.events.append("lost")

    def server_full(self, full: bool) -> None:
        self.events.append(full)


class AtOnce(Inbox):
    """No turns: what arrives is judged as it arrives."""

    def __init__(self) -> None:
        pass

    def receive(self, judge: Callable[[bytes], None], data: bytes) -> None:
        judge(data)

    def judge(self) -> None:
        pass


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1"])
def test_a_server_is_reached_at_its_own_address_and_heard(address: str) -> None:
    """Greeting, half-close and loss arrive in order; after the half-close we can still send."""

    async def talk() -> tuple[list[object], bytes]:
        got: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"hello")
            writer.write_eof()
            got.set_result(await reader.readexactly(4))
            writer.close()

        server = await asyncio.start_server(serve, address, 0)
        heard = Heard()
        endpoint = Endpoint(ip_address(address), server.sockets[0].getsockname()[1])
        async with asyncio.timeout(PATIENCE):
            transport = await dial(heard, AtOnce(), endpoint, PATIENCE)
            await heard.hears("eof")
            transport.write(b"late")
            received = await got
            transport.close()
            await heard.hears("lost")
        server.close()
        return heard.events, received

    events, received = asyncio.run(talk())
    assert events == [b"hello", "eof", "lost"]
    assert received == b"late"


def test_a_refused_connection_says_so() -> None:
    """The kernel's own error, for the refusal that the client will read."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound but not listening
        endpoint = Endpoint(ip_address("127.0.0.1"), closed.getsockname()[1])
        with pytest.raises(ConnectionRefusedError):
            asyncio.run(dial(Heard(), AtOnce(), endpoint, PATIENCE))


def test_a_server_that_does_not_answer_is_given_up_after_the_patience() -> None:
    """A full accept queue drops SYNs: TimeoutError, which is an OSError, and not a wait of minutes."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        endpoint = Endpoint(ip_address("127.0.0.1"), full.getsockname()[1])
        waiting = [socket.socket() for _ in range(3)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(full.getsockname())
            with pytest.raises(TimeoutError):
                asyncio.run(dial(Heard(), AtOnce(), endpoint, 0.2))
        finally:
            for sock in waiting:
                sock.close()
