"""A site of the world as the far side of kernel tests: real sockets of ours there, and a witness of every frame."""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Self, TypeVar

from enforcer.capture.namespace import run_inside
from enforcer.demo.world import Site, World
from tests.fixtures.kernel import PATIENCE

T = TypeVar("T")


# Nobody else uses this port: its datagram says that everything sent before it has been seen.
FENCE = 9


class Far:
    """One site. What it opens is closed with it."""

    def __init__(self, world: World, site: Site, host: int) -> None:
        self.address, self.address6 = site.address, site.address6
        self._host = host
        self._stack = ExitStack()
        self._netns = os.open(world.path(site.name), os.O_RDONLY | os.O_CLOEXEC)
        self._stack.callback(os.close, self._netns)
        self._witnesses = {address: world.witness(site) for address in (self.address, self.address6)}

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def inside(self, function: Callable[[], T]) -> T:
        return run_inside(self._netns, function)

    def listen(self, port: int) -> socket.socket:
        """A TCP server on both families."""
        server = self.inside(
            lambda: socket.create_server(("::", port), family=socket.AF_INET6, dualstack_ipv6=True, backlog=1024)
        )
        server.settimeout(PATIENCE)
        return self._stack.enter_context(server)

    def bind(self, port: int) -> socket.socket:
        """A UDP socket on both families."""

        def bind() -> socket.socket:
            sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            sock.bind(("::", port))
            return sock

        sock = self._stack.enter_context(self.inside(bind))
        sock.settimeout(PATIENCE)
        return sock

    def arrived(self) -> list[str]:
        """What was sent to the site since the last look, over both families, as the witness puts it."""
        return [line for address in self._witnesses for line in self._arrived(address)]

    def carried(self, data: bytes) -> int:
        """How many frames since the last look hold `data`, whatever they are."""
        mark = secrets.token_bytes(16)
        deadline = time.monotonic() + PATIENCE
        count = 0
        while True:
            run_inside(self._host, lambda: _send(self.address, mark))
            frames = self._witnesses[self.address].frames()
            count += sum(data in frame for frame in frames)
            if any(mark in frame for frame in frames):
                return count
            assert time.monotonic() < deadline, "the witness sees nothing"

    def _arrived(self, address: str) -> list[str]:
        """Neighbour discovery is not the executor's: the kernel does it, and only for what something may be sent to."""
        lines: list[str] = []
        deadline = time.monotonic() + PATIENCE
        while f"UDP {FENCE}" not in lines:
            assert time.monotonic() < deadline, f"the witness at {address} sees nothing"
            # Again, as a witness that was not asked for long may have no room left for it.
            run_inside(self._host, lambda: _send(address, b""))
            lines += self._witnesses[address].arrived(address)
        return [line for line in lines if line not in (f"UDP {FENCE}", "protocol 58")]


def _send(address: str, data: bytes) -> None:
    with socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(data, (address, FENCE))
