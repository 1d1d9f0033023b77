"""A proxy worker: accepts, inspects, masks and forwards, without privileges (see `child.py` for how it is started)."""

from __future__ import annotations

import asyncio
import socket
import time
from typing import Any

from enforcer.child import Child, Generation, run
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.masking import language
from enforcer.masking.errors import MaskError
from enforcer.policy.compiled import PolicySet
from enforcer.proxy.environment import Environment
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.listener import listen
from enforcer.proxy.tls import Certificates, TlsSettings
from enforcer.proxy.vaults import PURGE, Store

_log = get_logger()


class Worker(Child):
    """Acts on the supervisor's control messages."""

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(control, loop)
        self._environment: Environment | None = None
        self._servers: dict[tuple[str, int], list[asyncio.Server]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def act(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        match message["op"]:
            case "listen":
                task = self._loop.create_task(self._listen(message, sockets))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "unlisten":
                self._unlisten(message["ident"], message["place"])
            case "leaf":
                self._ready().certificates.learn(message["name"], message["pem"])
            case "link":
                self._ready().names.connect(sockets[0])
            case unknown:
                raise ValueError(f"unknown control message {unknown!r}")

    def take_generation(self, generation: Generation) -> None:
        settings = generation.settings
        _load_language(generation.policies)
        before = self._environment and (self._environment.policies.generation, self._environment.table.version)
        if self._environment is None:
            self._environment = Environment(
                loop=self._loop,
                journal=self.journal,
                inbox=Inbox(self._loop, self.journal),
                policies=generation.policies,
                table=generation.table,
                generation=generation.number,
                identify_timeout=settings["identify_timeout"],
                connect_timeout=settings["connect_timeout"],
                record_masker=generation.record_masker,
                on_reload=settings["on_reload"],
                certificates=Certificates(lambda name: self.tell({"op": "leaf", "name": name})),
                vaults=Store(generation.pseudonyms, time.time),
            )
            self._loop.call_later(PURGE, self._purge)
        else:
            generation.close()
            self._environment.policies = generation.policies
            self._environment.table = generation.table
            self._environment.generation = generation.number
            self._environment.identify_timeout = settings["identify_timeout"]
            self._environment.connect_timeout = settings["connect_timeout"]
            self._environment.record_masker = generation.record_masker
            self._environment.on_reload = settings["on_reload"]
        self._environment.mask_keys = generation.mask_keys
        if self._environment.vaults is not None:
            self._environment.vaults.keys = generation.mask_keys
        self._environment.names.resolving = settings["resolving"]
        tls = settings["tls"]
        certificates = tuple((host, pem) for host, pem in tls["client_certificates"])
        self._environment.certificates.configure(
            TlsSettings(tls["intercept"], tls["authority"], tls["trust"], certificates)
        )
        # A number alone is new where an executor was added.
        if before != (generation.policies.generation, generation.table.version):
            for session in list(self._environment.sessions):
                session.reconsider()

    def _purge(self) -> None:
        """Pseudonyms whose time is over go out of the file as well."""
        self._loop.call_later(PURGE, self._purge)
        vaults = self._ready().vaults
        try:
            if vaults is not None:
                vaults.purge()
        except MaskError as error:
            _log.error("pseudonyms cannot be purged", error=str(error))

    def finish(self) -> None:
        for servers in self._servers.values():
            for server in servers:
                server.close()
        for session in list(self._ready().sessions):
            session.end("enforcer stopped")

    def _ready(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("no generation has come yet")
        return self._environment

    def _unlisten(self, ident: str, place: int | None) -> None:
        """Closes an executor's listeners at one place, or at all of them."""
        for key in [key for key in self._servers if key[0] == ident and place in (None, key[1])]:
            for server in self._servers.pop(key):
                server.close()

    async def _listen(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        executor = Executor(**message["executor"])
        servers = await listen(sockets, executor, self._ready())
        self._unlisten(executor.ident, message["place"])
        self._servers[executor.ident, message["place"]] = servers
        self.tell({"op": "listening", "ident": executor.ident})


def _load_language(policies: PolicySet) -> None:
    """Loads the language model, if a rule asks for it, before a message has to wait for that. Where it cannot be loaded
    the messages of those rules are refused one by one."""
    masks = [mask for policy in policies.policies for rule in policy.rules for mask in (rule.mask, rule.request_mask)]
    if all(language.NAMES.isdisjoint(mask.detectors) for mask in masks):
        return
    try:
        language.load()
    except MaskError as error:
        _log.error("no names can be masked", error=str(error))


if __name__ == "__main__":
    run(Worker)
