"""What the unprivileged processes have in common: proxy workers and the resolver.

One starts as root only to have its modules read, drops everything, and learns from the supervisor over two socket
pairs: `CONTROL` (listeners, generations; descriptors travel with the messages) and `RECORDS` (rows up, acknowledgements
down). When either closes, the supervisor is gone: the process ends at once and its sockets with it, so that executors
get an error.
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import signal
import socket
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

from enforcer import log
from enforcer.geo.table import GeoTable
from enforcer.log import get_logger
from enforcer.masking import language
from enforcer.masking.keys import Keys
from enforcer.masking.masker import Masker, masker_for
from enforcer.policy.compiled import PolicySet
from enforcer.privileges import die_with_parent, drop_privileges
from enforcer.proxy.journal import Journal
from enforcer.verdict import MaskSpec

# One control message: descriptors carry what is large.
MAX_MESSAGE = 64 * 1024
MAX_DESCRIPTORS = 4
# A flow takes two; the common default of 1,024 would end at 500 flows.
OPEN_FILES = 262_144

_log = get_logger()


@dataclass(frozen=True, slots=True)
class Generation:
    """What the supervisor hands down: policies, table, the masker of records, their number, settings, the keys of
    masks, and the file of pseudonyms as a descriptor."""

    policies: PolicySet
    table: GeoTable
    record_masker: Masker
    number: int
    settings: dict[str, Any]
    mask_keys: Keys = field(default_factory=Keys)
    pseudonyms: int = -1

    def close(self) -> None:
        """Forgets the file of pseudonyms, where it is not needed."""
        os.close(self.pseudonyms)


class Child(ABC):
    """Acts on the supervisor's control messages."""

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        self._control = control
        self._loop = loop
        self._begun: Journal | None = None

    @property
    def journal(self) -> Journal:
        if self._begun is None:
            raise RuntimeError("the record stream has not begun")
        return self._begun

    async def start(self, records: socket.socket) -> None:
        _, self._begun = await self._loop.create_unix_connection(lambda: Journal(supervisor_gone), sock=records)
        self._loop.add_reader(self._control, self._on_message)

    def _on_message(self) -> None:
        data, descriptors, _flags, _address = socket.recv_fds(self._control, MAX_MESSAGE, MAX_DESCRIPTORS)
        if not data:
            supervisor_gone()
        message = orjson.loads(data)
        if message["op"] == "generation":
            self.take_generation(_read_generation(message, descriptors))
            self.tell({"op": "ready", "generation": message["generation"]})
        elif message["op"] == "stop":
            self.finish()
            self.journal.commit(lambda _error: supervisor_gone())
        else:
            self.act(message, [socket.socket(fileno=descriptor) for descriptor in descriptors])

    def tell(self, message: dict[str, Any]) -> None:
        self._control.send(orjson.dumps(message))

    @abstractmethod
    def take_generation(self, generation: Generation) -> None:
        """Policies and tables that are in force from now on."""

    @abstractmethod
    def act(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        """Any other message. Raises ValueError for an unknown one."""

    @abstractmethod
    def finish(self) -> None:
        """An orderly end: nothing new is taken, and what is open ends and is recorded."""


def _read_generation(message: dict[str, Any], descriptors: list[int]) -> Generation:
    """Policy comes as text in a memory file, the table as the file itself."""
    table_fd, policy_fd, pseudonyms_fd = descriptors
    with open(policy_fd, "rb") as stream:  # noqa: PTH123 - a descriptor, not a path
        policies = PolicySet.from_json(stream.read().decode())
    table = GeoTable.open(table_fd)
    os.close(table_fd)
    language.use(message["language_model"])
    masker = masker_for(MaskSpec(detectors=tuple(message["record_mask"])))
    keys = Keys.parse(message["mask_keys"])
    return Generation(policies, table, masker, message["generation"], message, keys, pseudonyms_fd)


def supervisor_gone() -> None:
    """Ends the process without ceremony: whatever is in flight must not go on unrecorded."""
    os._exit(0)


async def _serve(kind: type[Child], control: socket.socket, records: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    for name in ("SIGTERM", "SIGINT"):
        loop.add_signal_handler(getattr(signal, name), supervisor_gone)
    # An unforeseen error in a callback must not leave a half-working process: the supervisor starts another.
    loop.set_exception_handler(_end_on_error)
    await kind(control, loop).start(records)
    await asyncio.Event().wait()


def _end_on_error(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    _log.error("process ends", message=context["message"], error=repr(context.get("exception")))
    os._exit(1)


def _raise_open_files() -> None:
    """As far as this host lets us: raising the hard limit needs CAP_SYS_RESOURCE, which containers take from root."""
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (OPEN_FILES, OPEN_FILES))
    except (ValueError, OSError):
        _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run(kind: type[Child]) -> None:
    """The process: `python -m MODULE CONTROL RECORDS USER`."""
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
    uvloop.run(_serve(kind, control, records))
