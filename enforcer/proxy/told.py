"""Steps 2 and 3 of 6, from the worker's side: for which names an executor was told the address that it now dials.

Gets from the resolver, over a socket pair, each name and address before the executor gets its answer: so whoever dials
finds the name here. Hands connections to port 53 on to the resolver. Names are a help to `host` rules where the client
names no host; they open nothing by themselves (`policy.names.decide_told`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections import OrderedDict
from typing import Any

import orjson

from enforcer.flow import Flow
from enforcer.log import get_logger

PORT_DNS = 53
# Addresses (and names) remembered for all executors, and names for one address (addresses for one name): beyond that
# the address (the name) is forgotten.
MAX_ADDRESSES, MAX_NAMES = 65_536, 64
MAX_MESSAGE = 64 * 1024
# Bytes of one datagram with a connection on it.
_HANDED = 4096

_log = get_logger()


class Told:
    """Names by executor (cgroup id) and address, and addresses by name, each until a monotonic second. Bounded; the
    oldest goes."""

    def __init__(self) -> None:
        self._names: OrderedDict[tuple[int, str], dict[str, float]] = OrderedDict()
        self._addresses: OrderedDict[tuple[int, str], dict[str, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._names)

    def learn(self, executor: int, address: str, name: str, until: float) -> None:
        _remember(self._names, (executor, address), name, until)
        _remember(self._addresses, (executor, name), address, until)

    def forget(self, executor: int) -> None:
        for told in (self._names, self._addresses):
            for key in [key for key in told if key[0] == executor]:
                del told[key]

    def until(self, executor: int, address: str, name: str) -> float:
        return self._names.get((executor, address), {}).get(name, 0.0)

    def names(self, executor: int, address: str) -> tuple[str, ...]:
        now = time.monotonic()
        return tuple(name for name, until in self._names.get((executor, address), {}).items() if until > now)

    def addresses(self, executor: int, name: str) -> tuple[str, ...]:
        now = time.monotonic()
        return tuple(address for address, until in self._addresses.get((executor, name), {}).items() if until > now)

    def rows(self) -> list[tuple[int, str, str, float]]:
        """All that is remembered: executor, address, name, seconds left."""
        now = time.monotonic()
        return [
            (executor, address, name, until - now)
            for (executor, address), names in self._names.items()
            for name, until in names.items()
            if until > now
        ]


def _remember(
    told: OrderedDict[tuple[int, str], dict[str, float]], key: tuple[int, str], value: str, until: float
) -> None:
    values = told.setdefault(key, {})
    values[value] = max(until, values.get(value, 0.0))
    told.move_to_end(key)
    if len(values) > MAX_NAMES:
        now = time.monotonic()
        for old in [one for one, end in values.items() if end <= now]:
            del values[old]
        if len(values) > MAX_NAMES:
            del told[key]
    while len(told) > MAX_ADDRESSES:
        told.popitem(last=False)


class Names:
    """A worker's end of the pair. Without a resolver there are no names, and no connection is handed over."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._told = Told()
        self._link: socket.socket | None = None
        self.resolving = False

    def connect(self, link: socket.socket) -> None:
        """A resolver is there; the one before it is gone. What was told stays true."""
        self.disconnect()
        self._link = link
        self.resolving = True
        link.setblocking(False)
        self._loop.add_reader(link, self._drain)

    def disconnect(self) -> None:
        if self._link is not None:
            self._loop.remove_reader(self._link)
            self._link.close()
            self._link = None

    def of(self, executor: int, address: str) -> tuple[str, ...]:
        """The names that `executor` was told `address` for. What the resolver has sent is read first: it sends before
        it answers."""
        self._drain()
        return self._told.names(executor, address)

    def addresses(self, executor: int, name: str) -> tuple[str, ...]:
        """The addresses that `executor` was told for `name` (lower case, no dot at the end)."""
        self._drain()
        return self._told.addresses(executor, name)

    def _drain(self) -> None:
        while self._link is not None:
            try:
                data = self._link.recv(MAX_MESSAGE)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.disconnect()
                return
            now = time.monotonic()
            for executor, address, name, seconds in orjson.loads(data):
                self._told.learn(executor, address, name, now + seconds)

    def takes(self, flow: Flow) -> bool:
        """Is the connection the resolver's? Port 53 of every address is, where there is one."""
        return self.resolving and flow.destination.port == PORT_DNS

    def hand_over(self, flow: Flow, descriptor: int) -> None:
        """Gives the resolver the connection behind `descriptor`, which stays the caller's to close."""
        message = orjson.dumps(describe(flow))
        try:
            if self._link is None:
                raise ConnectionError("no resolver runs")
            socket.send_fds(self._link, [message], [descriptor])
        except OSError as error:
            _log.warning("question over TCP refused", executor=flow.executor.name, error=str(error))


def describe(flow: Flow) -> dict[str, Any]:
    return {
        "executor": flow.executor.cgroup_id,
        "destination": str(flow.destination.address),
        "pid": flow.pid,
        "uid": flow.uid,
        "opened_ns": flow.opened_ns,
    }


def receive_handed(link: socket.socket) -> tuple[dict[str, Any], socket.socket] | None:
    """The resolver's end: one connection and whose it is, None at the worker's end. Raises BlockingIOError."""
    data, descriptors, _flags, _address = socket.recv_fds(link, _HANDED, 1)
    if not data or not descriptors:
        for descriptor in descriptors:
            os.close(descriptor)
        return None
    return orjson.loads(data), socket.socket(fileno=descriptors[0])
