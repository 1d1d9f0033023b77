"""The executors of this host: started, remembered over a restart of the supervisor, ended without a trace."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import secrets
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from enforcer.capture import cgroup, namespace
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.cgroup import Cgroups
from enforcer.capture.tables import Tables
from enforcer.config import Settings
from enforcer.errors import EnforcerError, HostError, UsageError
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.supervisor.workers import Worker, Workers

_log = get_logger()

# It becomes a directory's name in the cgroup tree; letters are those of any script.
_NAME = re.compile(r"\w[\w.-]{0,99}")


@dataclass(slots=True)
class Active:
    """A running executor: its namespace (kept alive under `run/netns`), and where its flows are listened for.

    `netns_cookie` is 0 while it has no namespace yet, `resolver_port` where its questions for names go to nobody.
    """

    executor: Executor
    netns_cookie: int
    port: int
    started_ns: int
    resolver_port: int = 0


class Executors:
    """Registry of the running executors. Every change is on disk before it has an effect."""

    def __init__(
        self, settings: Settings, groups: Cgroups, tables: Tables, workers: Workers, resolvers: Iterable[Worker] = ()
    ) -> None:
        self._resolvers = resolvers
        self._first_resolver_port = settings.resolver.port
        self._loop = asyncio.get_running_loop()
        self._groups = groups
        self._tables = tables
        self._workers = workers
        self._first_port = settings.listener_port
        self._states = settings.run / "executors"
        self._namespaces = settings.run / "netns"
        self._active: dict[str, Active] = {}
        for directory in (self._states, self._namespaces):
            directory.mkdir(mode=0o700, exist_ok=True)

    def __iter__(self) -> Any:
        return iter(list(self._active.values()))

    def places(self) -> set[tuple[int, int]]:
        """(network namespace cookie, cgroup id) of every listener."""
        return {(one.netns_cookie, one.executor.cgroup_id) for one in self._active.values()}

    def cgroup_of(self, ident: str) -> Path:
        return self._groups.executors / ident

    def create(self, name: str, uid: int) -> Active:
        """Makes a cgroup that is governed before anything runs in it; it reaches nothing until `listen`. Raises
        UsageError for a bad name, HostError, OSError; then nothing of it remains."""
        if not _NAME.fullmatch(name):
            raise UsageError(f"{name[:80]!r} is no name for an executor; use up to 100 letters, digits, '.', '_', '-'")
        ident = f"{name}-{secrets.token_hex(3)}"
        path = self._groups.create_executor(ident)
        executor = Executor(ident, name, uid, _user_name(uid), cgroup.cgroup_id(path))
        active = self._active[ident] = Active(executor, 0, self._first_port, time.time_ns())
        try:
            self._write_state(active)
            self._tables.set_executor(executor.cgroup_id, ExecutorMode.ISOLATED)
        except OSError:
            self.end(ident)
            raise
        return active

    def listen(self, ident: str, netns: int) -> None:
        """Makes listeners in the executor's network namespace, behind `netns`. Raises UsageError when it has one,
        HostError, OSError; then the executor is ended."""
        active = self._active.get(ident)
        if active is None or active.netns_cookie:
            raise UsageError("that executor has its network namespace, or has ended; start another one")
        try:
            cookie = namespace.netns_cookie(netns)
            if any(one.netns_cookie == cookie for one in self._active.values()):
                raise HostError("that network namespace already belongs to an executor; start with a new one")
            namespace.keep(netns, self._namespaces / ident)
            active.netns_cookie = cookie
            self._listen(active, [one for one in self._workers if one.ready])
        except (EnforcerError, OSError):
            self.end(ident)
            raise

    def end(self, ident: str) -> Active | None:
        """Kills what is left of the executor and forgets it. Safe to repeat."""
        active = self._active.pop(ident, None)
        if active is not None:
            # What still lives in the cgroup then belongs to nobody known, and is refused.
            self._tables.delete_executor(active.executor.cgroup_id)
            self._tables.delete_listener(active.netns_cookie, active.executor.cgroup_id)
            for worker in (*self._workers, *self._resolvers):
                worker.unlisten(ident)
        # On a thread: processes may take seconds to die, and nothing else may wait for that.
        self._loop.run_in_executor(None, _remove_cgroup, self.cgroup_of(ident))
        namespace.release(self._namespaces / ident)
        (self._states / ident).unlink(missing_ok=True)
        return active

    def ended(self) -> list[str]:
        """Idents of executors whose last process is gone and whose starter no longer holds them."""
        return [ident for ident in self._active if not cgroup.is_populated(self.cgroup_of(ident))]

    def recover(self) -> int:
        """Takes over the executors of the supervisor before us, removes those that ended. Returns how many live."""
        for state in sorted(self._states.iterdir()):
            ident = state.name
            try:
                active = self._active[ident] = _read_state(state)
                if not active.netns_cookie or not cgroup.is_populated(self.cgroup_of(ident)):
                    raise HostError("it has ended, or had not begun")
                self._tables.set_executor(active.executor.cgroup_id, ExecutorMode.ISOLATED)
                self._listen(active, [one for one in self._workers if one.ready])
            except (EnforcerError, OSError, ValueError, TypeError, KeyError) as error:
                _log.warning("executor not taken over", ident=ident, reason=str(error))
                self.end(ident)
        for directory in self._groups.executors.iterdir():
            if directory.is_dir() and directory.name not in self._active:
                self.end(directory.name)
        known = {active.executor.cgroup_id for active in self._active.values()}
        for cgroup_id, mode in self._tables.executors().items():
            if mode is ExecutorMode.ISOLATED and cgroup_id not in known:
                self._tables.delete_executor(cgroup_id)
        return len(self._active)

    def serve(self, worker: Worker) -> None:
        """Gives a new worker its listeners for every executor."""
        for active in list(self._active.values()):
            if not active.netns_cookie:
                continue
            try:
                self._listen_at(active, [active.port], [worker], join=True)
            except (EnforcerError, OSError):
                # The executor took the port while no worker held it: move all workers to another one.
                for other in self._workers:
                    other.unlisten(active.executor.ident)
                try:
                    self._listen(active, [one for one in self._workers if one.ready])
                except (EnforcerError, OSError) as error:
                    _log.error("executor has no listener", ident=active.executor.ident, error=str(error))

    def serve_names(self, resolver: Worker) -> None:
        """Gives a new resolver its sockets for every executor."""
        for active in list(self._active.values()):
            if not active.netns_cookie:
                continue
            try:
                self._resolve(active, [resolver])
                self._settle(active)
            except (EnforcerError, OSError) as error:
                _log.error("executor has no resolver", ident=active.executor.ident, error=str(error))

    def _listen(self, active: Active, workers: list[Worker]) -> None:
        last = min(active.port + namespace.PORT_ATTEMPTS, 65536)
        self._listen_at(active, range(active.port, last), workers)
        self._resolve(active, [one for one in self._resolvers if one.ready])
        self._settle(active)

    def _settle(self, active: Active) -> None:
        """Remembers the ports, then tells the kernel."""
        self._write_state(active)
        self._tables.set_listener(
            active.netns_cookie, active.executor.cgroup_id, active.port, resolver_port=active.resolver_port
        )

    def _resolve(self, active: Active, resolvers: list[Worker]) -> None:
        """Without a resolver, questions for names are refused in the kernel."""
        if not resolvers:
            active.resolver_port = 0
            return
        first = active.resolver_port or self._first_resolver_port
        ports = (port for port in range(first, min(first + namespace.PORT_ATTEMPTS, 65536)) if port != active.port)
        with self._netns(active) as netns:
            active.resolver_port, pair = namespace.bind_inside(netns, ports)
        resolvers[0].listen(active.executor, pair)

    def _listen_at(self, active: Active, ports: Iterable[int], workers: list[Worker], *, join: bool = False) -> None:
        with self._netns(active) as netns:
            active.port, pairs = namespace.listen_inside(netns, ports, len(workers), join=join)
        for worker, pair in zip(workers, pairs, strict=True):
            worker.listen(active.executor, pair)

    @contextmanager
    def _netns(self, active: Active) -> Iterator[int]:
        netns = os.open(self._namespaces / active.executor.ident, os.O_RDONLY | os.O_CLOEXEC)
        try:
            yield netns
        finally:
            os.close(netns)

    def _write_state(self, active: Active) -> None:
        path = self._states / active.executor.ident
        temporary = path.with_name(f".{path.name}")
        temporary.write_bytes(orjson.dumps(asdict(active)))
        temporary.rename(path)


def _remove_cgroup(path: Path) -> None:
    try:
        cgroup.remove(path)
    except (EnforcerError, OSError) as error:
        _log.error("executor's cgroup stays", path=str(path), error=str(error))


def _read_state(path: Path) -> Active:
    state = orjson.loads(path.read_bytes())
    return Active(
        Executor(**state["executor"]),
        state["netns_cookie"],
        state["port"],
        state["started_ns"],
        state.get("resolver_port", 0),
    )


def _user_name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)
