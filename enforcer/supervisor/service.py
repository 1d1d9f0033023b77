"""The supervisor: the root process that owns policy, kernel maps, listeners, workers and the one SQLite writer.

It puts the pieces together in the order of a connection's path, and fails before anything is attached or opened if one
is missing.
Stopping it detaches nothing: executors then get an error, and only `enforcer uninstall` takes the enforcer off.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil

from enforcer import privileges
from enforcer.capture import cgroup, programs
from enforcer.capture.generation import Tries, build_generation, build_tries
from enforcer.capture.programs import Pins
from enforcer.capture.tables import Tables
from enforcer.capture.uplinks import Uplinks, watch_interfaces
from enforcer.config import Settings, load_settings
from enforcer.errors import EnforcerError, HostError, KernelError, UsageError
from enforcer.flow import Executor
from enforcer.geo.table import GeoTable
from enforcer.log import get_logger
from enforcer.masking.masker import masker_for
from enforcer.recording.rows import EventRow
from enforcer.recording.writer import Writer
from enforcer.supervisor import home, resolver
from enforcer.supervisor.attached import Attached, check_patterns
from enforcer.supervisor.control import ControlServer
from enforcer.supervisor.executors import Executors
from enforcer.supervisor.generation import Content, coarse_verdicts, has_moved, read_content
from enforcer.supervisor.host import make_directories, notify, only_one, tame_malloc
from enforcer.supervisor.kernel_events import KernelEvents
from enforcer.supervisor.plan import EMPTY, plan_for
from enforcer.supervisor.reload import end_direct_flows
from enforcer.supervisor.security import Security
from enforcer.supervisor.trust import write_bundle
from enforcer.supervisor.workers import RESOLVER, Worker, Workers
from enforcer.verdict import MaskSpec

# Seconds between looks at what sends no event: kernel refusals, ended executors, the recorder's health.
TICK = 0.25
# Seconds between looks at what processes of attached executors made for themselves: namespaces, interfaces in them.
TIDY = 2.0
# Seconds of silence after which the kernel refuses direct flows: longer than any restart takes (3 s), short enough that
# a supervisor that hangs does not leave them unwatched.
HEARTBEAT_LIMIT = 10.0

_log = get_logger()


class Supervisor:
    """One running instance. `run()` returns when it was told to stop."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._pins = Pins(settings.instance)
        self._holders: dict[object, str] = {}
        self._failing = ""
        self._started = time.time()
        self._tidied = self._located = time.monotonic()
        self._stop = asyncio.Event()
        self._reloading: asyncio.Task[None] | None = None
        self._reload_again = False
        self._reload_fault = ""

    async def run(self) -> None:
        """Starts everything, serves until SIGTERM or SIGINT, stops everything. Raises EnforcerError from starting."""
        settings = self._settings
        if os.geteuid() != 0:
            raise HostError("the supervisor must be root; use sudo")
        tame_malloc()
        privileges.find_user(settings.user)
        groups_mount = cgroup.find_mount()
        self._content = read_content(settings)
        resolver.check_upstreams(settings, self._content.table)
        with ExitStack() as stack:
            make_directories(settings)
            stack.enter_context(only_one(settings.run))
            self._writer = Writer(settings.database)
            stack.callback(self._writer.close)
            self._groups = cgroup.Cgroups.create(settings.instance)
            cgroup.join(self._groups.own, os.getpid())
            await self._capture(stack)
            self._executors = Executors(settings, self._groups, self._tables, self._workers, self._resolvers)
            self._events = KernelEvents(self._tables, self._executor_of)
            taken_over = self._executors.recover()
            self._attach(stack)
            control = ControlServer(settings.control_socket, self._handle, self._released, self._attached.governs)
            stack.callback(control.close)
            self._record("started", cgroup=str(groups_mount / settings.instance), executors=taken_over)
            self._record_generation()
            _log.info(
                "ready",
                executors=taken_over,
                generation=self._number,
                policies=list(settings.policies),
                seconds=round(time.time() - self._started, 2),
                workers=len(self._workers),
            )
            notify("READY=1")
            await self._serve()
            notify("STOPPING=1")
            await asyncio.gather(self._workers.finish(), self._resolvers.finish())
            self._record("stopped")

    # --- starting

    async def _capture(self, stack: ExitStack) -> None:
        """Compiles the kernel programs, builds the tables and starts the workers side by side; switches the links once
        all are ready. Until then nothing is attached, or the set before this one stays in force."""
        previous = self._previous_generation()
        self._number = previous + 1
        self._workers = Workers(self._settings, self._writer, self._serve_worker)
        self._resolvers = Workers(
            self._settings,
            self._writer,
            self._serve_names,
            module=RESOLVER,
            count=int(self._settings.resolver.enabled),
        )
        stack.callback(self._workers.stop)
        stack.callback(self._resolvers.stop)
        building = asyncio.to_thread(self._tries_of, self._content.table)
        loading = asyncio.to_thread(programs.load, self._pins, self._open_tables)
        starting = asyncio.gather(
            self._workers.start(self._content, self._number), self._resolvers.start(self._content, self._number)
        )
        try:
            tries, directory, _ = await asyncio.gather(building, loading, starting)
        except OSError as error:
            raise KernelError(
                f"the kernel refused the tables: {error}; bpf(2) needs root with CAP_BPF and CAP_SYS_ADMIN"
            ) from error
        stack.callback(self._tables.close)
        resolver.connect(self._workers, self._resolvers)
        self._content.table.forget_pages()
        self._plan = EMPTY
        built = build_generation(tries, coarse_verdicts(self._content.table), self._plan.kernel)
        self._number = self._tables.swap(built, after=previous)
        for older in self._older_tables(directory):
            self._tables.carry_over(older)
            older.close()
        self._tables.govern(self._groups)
        self._tables.beat(HEARTBEAT_LIMIT)
        programs.switch(self._pins, self._groups, directory)
        self._directory = directory
        self._security = Security(self._pins, self._tables)

    def _attach(self, stack: ExitStack) -> None:
        """Guards the uplinks, takes over what policies name, and drops what the supervisor before us left behind."""
        self._uplinks = Uplinks(self._settings.instance, self._directory / "prog_uplink")
        watcher = watch_interfaces()
        stack.callback(watcher.close)
        asyncio.get_running_loop().add_reader(watcher, self._interface_changed, watcher)
        self._uplinks.ensure()
        self._attached = Attached(
            settings=self._settings,
            pins=self._pins,
            tables=self._tables,
            workers=self._workers,
            resolvers=self._resolvers,
            uplinks=self._uplinks,
            record=self._record,
            on_change=self._admit,
        )
        stack.callback(self._attached.close)
        self._attached.take(self._content.policies.cgroup_patterns(), self._directory)
        for one in self._executors:
            self._admit(one.executor)
            self._security.recognise(self._executors.cgroup_of(one.executor.ident))
        self._security.allow(self._settings.unix_allow)
        self._security.settle(self._directory)
        known = self._attached.places() | self._executors.places()
        for netns, executor in self._tables.places():
            if (netns, executor) not in known:
                self._tables.delete_listener(netns, executor)

    def _interface_changed(self, watcher: socket.socket) -> None:
        while True:
            try:
                watcher.recv(65536)
            except BlockingIOError:
                break
            except OSError:
                continue  # messages were lost: there is all the more to look at
        try:
            self._uplinks.ensure()
        except EnforcerError as error:
            _log.error("an interface is not guarded", error=str(error))

    def _executor_of(self, cgroup_id: int) -> Executor | None:
        return next((one for one in self._all_executors() if one.cgroup_id == cgroup_id), None)

    def _all_executors(self) -> list[Executor]:
        return [one.executor for one in self._executors] + self._attached.executors()

    def _admit(self, executor: Executor) -> None:
        """Tells the kernel what the generation in force says of a new executor, before it lets anything through."""
        entry = self._plan.entry_for(self._content.policies, executor)
        if entry is not None:
            self._tables.set_audience(executor.cgroup_id, entry)
            return
        number = self._swap(self._tables.tries_in_force(), self._content)
        self._take(self._settings, self._content, number)

    def _swap(self, tries: Tries, content: Content, *, after: int = 0) -> int:
        """Puts a generation in force: the tables, and the plan of the policies for the executors. Raises OSError."""
        plan = plan_for(content.policies, self._all_executors(), content.table.sets)
        built = build_generation(tries, coarse_verdicts(content.table), plan.kernel)
        number = self._tables.swap(built, after=after)
        self._plan = plan
        self._events.rules_of(number, plan.rules)
        return number

    def _tries_of(self, table: GeoTable) -> Tries:
        """Those that are in force already, where they are of this very table: filling them takes half of a restart."""
        for older in self._older_tables(None):
            kept = older.tries_named(table.version)
            older.close()
            if kept is not None:
                return kept
        return build_tries(table, table.version)

    def _open_tables(self, directory: Path) -> None:
        self._tables = Tables(directory)

    def _previous_generation(self) -> int:
        """The number that the sets before this one had come to, so that numbers are never used twice."""
        numbers = [0]
        for older in self._older_tables(None):
            numbers.append(older.generation)
            older.close()
        return max(numbers)

    def _older_tables(self, directory: Path | None) -> Iterator[Tables]:
        for older in self._pins.sets():
            if older != directory:
                try:
                    yield Tables(older)
                except OSError:  # a set that was never finished
                    continue

    # --- serving

    async def _serve(self) -> None:
        loop = asyncio.get_running_loop()
        for name in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(name, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_soon)
        while not self._stop.is_set():
            self._tick()
            try:
                async with asyncio.timeout(TICK):
                    await self._stop.wait()
            except TimeoutError:
                continue

    def _tick(self) -> None:
        self._tables.beat(HEARTBEAT_LIMIT)
        self._look()
        if time.monotonic() - self._tidied > TIDY:
            self._tidied = time.monotonic()
            self._attached.tidy()
            self._security.look()
        if time.monotonic() - self._located > home.INTERVAL:
            self._located = time.monotonic()
            if has_moved(self._settings, self._content):
                self._reload_soon()
        held = set(self._holders.values())
        for ident in self._executors.ended():
            if ident not in held:
                self._end_executor(ident)
        failing = self._writer.failing or ""
        if failing != self._failing:
            self._failing = failing
            _log.error("recorder", failing=failing or "no longer")
            for worker in (*self._workers, *self._resolvers):
                worker.stream.tell_failing(failing)

    def _look(self) -> None:
        """Reads what the kernel tells: refusals, direct flows, what happened in the cgroup tree."""
        rows, refusals = self._events.refusals()
        self._submit(rows)
        for refusal in refusals:
            if refusal.reason == "REFUSED_NO_LISTENER":
                self._attached.need_listener(refusal.executor, refusal.pid)
        self._submit(self._events.direct_flows(self._settings, self._content))
        self._attached.look()

    def _record(self, kind: str, **detail: object) -> None:
        row: EventRow = {"table": "events", "time_ns": time.time_ns(), "kind": kind, "detail": detail}
        self._submit([row])

    def _submit(self, rows: list[Any]) -> None:
        """The enforcer's own rows. What cannot be queued is logged: these rows announce nothing to deny."""
        if not rows:
            return
        try:
            self._writer.submit(rows)
        except EnforcerError as error:
            _log.error("not recorded", error=str(error), rows=rows)

    def _record_generation(self) -> None:
        if self._content.trust.authority is not None:
            write_bundle(self._settings, self._content.trust.authority)
        self._record(
            "generation",
            number=self._number,
            policies=list(self._settings.policies),
            policy_hash=self._content.policies.generation,
            table_version=self._content.table.version,
            away=list(self._content.away),
        )
        for fault in self._content.away:
            _log.error("this host is not at home", fault=fault, then=self._settings.home.elsewhere)

    # --- reloading

    def _reload_soon(self) -> None:
        """One reload at a time; signals that come meanwhile are one more reload after it."""
        self._reload_again = True
        if self._reloading is None or self._reloading.done():
            self._reloading = asyncio.get_running_loop().create_task(self._reload())

    async def _reload(self) -> None:
        """Reads configuration, policies and tables again and swaps them in, or leaves everything and says why."""
        while self._reload_again:
            self._reload_again = False
            try:
                settings = load_settings(self._settings.root)
                content = await asyncio.to_thread(read_content, settings, self._content)
                check_patterns(content.policies.cgroup_patterns(), settings.instance)
                resolver.check_upstreams(settings, content.table)
                tries = await self._tries(content)
                content.table.forget_pages()
                number = self._swap(tries, content)
            except (EnforcerError, OSError) as error:
                self._reload_fault = f"refused, the generation above stays: {error}"
                self._record("reload refused", error=str(error))
                _log.error("reload refused; the old generation stays", error=str(error))
            else:
                self._take(settings, content, number)
                self._take_trees()
                if settings.on_reload != "keep" or content.is_closed:
                    mode = "close" if content.is_closed else settings.on_reload
                    await asyncio.to_thread(end_direct_flows, list(self._attached), self._plan, content.table, mode)

    def _take_trees(self) -> None:
        """Governs what the new policies name. What fails stays refused; the rest of the generation is in force."""
        try:
            self._attached.take(self._content.policies.cgroup_patterns(), self._directory)
        except (EnforcerError, OSError) as error:
            self._reload_fault = f"in force, but for cgroups that stay refused: {error}"
            self._record("reload refused", error=str(error))
            _log.error("cgroups not taken over", error=str(error))

    async def _tries(self, content: Content) -> Tries:
        """The kernel's tries for `content`: those in force, unless the table itself is another."""
        if content.table is self._content.table:
            return self._tables.tries_in_force()
        return await asyncio.to_thread(build_tries, content.table, content.table.version)

    def _take(self, settings: Settings, content: Content, number: int) -> None:
        self._settings, self._content, self._number = settings, content, number
        self._reload_fault = ""
        self._security.allow(settings.unix_allow)
        self._workers.reload(settings, content, number)
        self._resolvers.reload(settings, content, number)
        self._record_generation()
        _log.info("reloaded", generation=number, policies=list(settings.policies))

    # --- control

    def _serve_worker(self, worker: Worker) -> None:
        resolver.connect([worker], self._resolvers)
        self._executors.serve(worker)
        self._attached.serve(worker)

    def _serve_names(self, process: Worker) -> None:
        resolver.connect(self._workers, [process])
        self._executors.serve_names(process)
        self._attached.serve_names(process)

    def _handle(self, request: dict[str, Any], descriptors: list[int], connection: object) -> dict[str, Any]:
        match request["op"]:
            case "status":
                return self._status()
            case "create executor":
                return self._create_executor(request, connection)
            case "listen":
                return self._listen(descriptors, connection)
            case "release":
                return {"cgroup": self._attached.release(request["name"])}
            case "retake":
                return {"cgroup": self._attached.retake(request["name"])}
            case unknown:
                raise UsageError(f"unknown request {unknown!r}; command and supervisor differ in version")

    def _create_executor(self, request: dict[str, Any], connection: object) -> dict[str, Any]:
        """The executor lives as long as the connection, or as long as its last process if we restart meanwhile."""
        home.admit(self._settings, self._content.away)
        if connection in self._holders:
            raise UsageError("an executor is created once per connection; open another one")
        executor = self._executors.create(request["name"], request["uid"]).executor
        self._holders[connection] = executor.ident
        self._admit(executor)
        self._record(
            "executor started",
            ident=executor.ident,
            name=executor.name,
            user=executor.user,
            argv=self._masked(request["argv"]),
        )
        return {"ident": executor.ident, "cgroup": str(self._executors.cgroup_of(executor.ident))}

    def _listen(self, descriptors: list[int], connection: object) -> dict[str, Any]:
        if len(descriptors) != 1 or connection not in self._holders:
            raise UsageError("listening needs an executor created on this connection, and its network namespace")
        self._executors.listen(self._holders[connection], descriptors[0])
        return {}

    def _masked(self, arguments: list[str]) -> list[str]:
        masker = masker_for(MaskSpec(detectors=self._settings.record_mask))
        return [masker.mask_text(argument) for argument in arguments]

    def _released(self, connection: object) -> None:
        """The command that started an executor has ended: so does what is left of it."""
        ident = self._holders.pop(connection, None)
        if ident is not None and not self._stop.is_set():
            self._end_executor(ident)

    def _end_executor(self, ident: str) -> None:
        # What the kernel has refused to it bears its name in the record, which is known until it is forgotten.
        self._look()
        active = self._executors.end(ident)
        if active is not None:
            self._record("executor ended", ident=ident, name=active.executor.name)

    def _status(self) -> dict[str, Any]:
        me = psutil.Process()
        return {
            "pid": me.pid,
            "uptime_seconds": round(time.time() - self._started, 1),
            "resident_bytes": me.memory_info().rss,
            "generation": self._number,
            "policies": list(self._settings.policies),
            "policy_hash": self._content.policies.generation,
            "reload_fault": self._reload_fault,
            "away": list(self._content.away),
            "observing": [policy.name for policy in self._content.policies.policies if policy.observe],
            "table": {
                "version": self._content.table.version,
                "sources": [str(origin) for origin in self._content.table.origins],
                "prefixes": dict(self._content.table.counts),
            },
            "workers": [{"pid": worker.pid, "resident_bytes": worker.resident_bytes()} for worker in self._workers],
            "worker_restarts": self._workers.restarts,
            "resolver": resolver.status(self._settings, self._resolvers),
            "executors": [
                {"ident": one.executor.ident, "name": one.executor.name, "user": one.executor.user, "port": one.port}
                for one in self._executors
            ],
            "attached": [
                {
                    "ident": tree.executor.ident,
                    "name": tree.executor.name,
                    "cgroup": tree.executor.cgroup,
                    "ports": [place.port for place in tree.places.values()],
                }
                for tree in self._attached
            ],
            "released": self._attached.released(),
            "hooks": self._attached.hooks(),
            "uplinks": self._uplinks.guarded(),
            "programs": programs.attached(self._pins, self._groups),
            "lsm": self._security.status(),
            "open_flows": self._tables.open_flows(),
            "counters": self._tables.counters(),
            "recorder": {
                "database": str(self._settings.database),
                "failing": self._failing,
                "head": self._writer.head.seq,
            },
        }


async def supervise(settings: Settings) -> None:
    await Supervisor(settings).run()
