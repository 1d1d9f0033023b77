"""The unprivileged processes, proxy workers and the resolver: started, handed generations and listeners, restarted when
they die."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import orjson
import psutil

from enforcer.config import Settings
from enforcer.errors import HostError
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.masking.masker import masker_for
from enforcer.recording.writer import Writer
from enforcer.supervisor import mask_keys, resolver
from enforcer.supervisor.generation import Content
from enforcer.supervisor.records import RecordStream
from enforcer.tls.authority import Authority
from enforcer.verdict import MaskSpec

# The modules of the two kinds.
WORKER, RESOLVER = "enforcer.worker", "enforcer.resolver.process"
# Seconds a worker may take from start to having its first generation: one, but on a starved or emulated machine.
READY_TIMEOUT = 300.0
# Seconds workers get to record the ends of their sessions when the supervisor stops.
STOP_TIMEOUT = 3.0
# Seconds before a worker that died is replaced; longer when it died young.
RESTART_DELAY, YOUNG_RESTART_DELAY, YOUNG = 0.05, 1.0, 2.0
_MAX_MESSAGE = 64 * 1024

_log = get_logger()


class Worker:
    """One process, which runs `module`, and the two socket pairs to it. `on_end` is called once, when it is gone.
    `resolving`: there is a resolver. `counters`: what it last said that it counted."""

    def __init__(
        self, settings: Settings, writer: Writer, module: str, resolving: bool, on_end: Callable[[Worker], None]
    ) -> None:
        self.counters: dict[str, int] = {}
        self._resolving = resolving
        self._authority: Authority | None = None
        self._settings = settings
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self.started = self._loop.time()
        self._ready: asyncio.Future[None] = self._loop.create_future()
        self._control, control = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._records, records = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with control, records:
            numbers = (control.fileno(), records.fileno())
            # -P: the working directory must not come before the installed package on a root process's import path.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, *map(str, numbers), settings.user],
                pass_fds=numbers,
                stdin=subprocess.DEVNULL,
            )
        self._control.setblocking(False)
        masker = masker_for(MaskSpec(detectors=settings.record_mask))
        self.stream = RecordStream(writer, masker, self.kill)
        self._pidfd = os.pidfd_open(self._process.pid)
        self._loop.add_reader(self._pidfd, self._ended)
        self._loop.add_reader(self._control, self._on_message)

    @property
    def ready(self) -> bool:
        """It has a generation, and takes listeners and links."""
        return self._ready.done() and self._ready.exception() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def resident_bytes(self) -> int:
        """Its memory; 0 for one that has just ended."""
        try:
            return int(psutil.Process(self.pid).memory_info().rss)
        except psutil.NoSuchProcess:
            return 0

    async def begin(self, content: Content, number: int) -> None:
        """Hands over the first generation and waits until the worker has it. Raises HostError."""
        await self._loop.create_unix_connection(lambda: self.stream, sock=self._records)
        self.send_generation(self._settings, content, number)
        try:
            async with asyncio.timeout(READY_TIMEOUT):
                await self._ready
        except TimeoutError as error:
            raise HostError(f"worker {self.pid} is not ready after {READY_TIMEOUT:.0f} s; see its log lines") from error

    def send_generation(self, settings: Settings, content: Content, number: int) -> None:
        self._authority = content.trust.authority
        table = os.open(content.table_path, os.O_RDONLY | os.O_CLOEXEC)
        policy = os.memfd_create("policies")
        pseudonyms = mask_keys.open_pseudonyms(settings.state)
        try:
            os.write(policy, content.policies.to_json().encode())
            os.lseek(policy, 0, os.SEEK_SET)
            self._send(
                {
                    "op": "generation",
                    "generation": number,
                    "identify_timeout": settings.identify_timeout,
                    "connect_timeout": settings.connect_timeout,
                    # A host that is elsewhere lets nothing go on that was allowed at home.
                    "on_reload": "close" if content.is_closed else settings.on_reload,
                    "record_mask": settings.record_mask,
                    "language_model": settings.language_model,
                    "mask_keys": content.mask_keys.lines(),
                    "resolving": self._resolving,
                    "resolver": resolver.for_process(settings),
                    "tls": content.trust.for_process(),
                },
                [table, policy, pseudonyms],
            )
        finally:
            for descriptor in (table, policy, pseudonyms):
                os.close(descriptor)

    def listen(self, executor: Executor, listeners: tuple[socket.socket, socket.socket], *, place: int = 0) -> None:
        """Hands over a pair of listeners, or of the resolver's sockets, and closes our copies. `place`: which of the
        executor's network namespaces they are in, where it may have more than one."""
        try:
            message = {"op": "listen", "executor": asdict(executor), "place": place}
            self._send(message, [sock.fileno() for sock in listeners])
        finally:
            for sock in listeners:
                sock.close()

    def unlisten(self, ident: str, *, place: int | None = None) -> None:
        """Closes the executor's listeners: at one place, or all."""
        self._send({"op": "unlisten", "ident": ident, "place": place}, [])

    def link(self, pair: socket.socket) -> None:
        """Hands over an end of a pair between a worker and the resolver, and closes our copy."""
        with pair:
            self._send({"op": "link"}, [pair.fileno()])

    def stop(self) -> None:
        """Asks it to end its sessions, have them recorded, and end."""
        self._send({"op": "stop"}, [])

    def kill(self) -> None:
        self._process.kill()

    def _send(self, message: dict[str, Any], descriptors: list[int]) -> None:
        """A worker that does not take its messages is stuck or gone; either way another one takes its place."""
        try:
            socket.send_fds(self._control, [orjson.dumps(message)], descriptors)
        except OSError as error:
            _log.error("worker does not take messages", pid=self.pid, error=str(error))
            self.kill()

    def _on_message(self) -> None:
        try:
            data = self._control.recv(_MAX_MESSAGE)
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(self._control)
            return
        message = orjson.loads(data)
        if message["op"] == "ready" and not self._ready.done():
            self._ready.set_result(None)
        elif message["op"] == "counters":
            self.counters = message["counters"]
        elif message["op"] == "leaf":
            self._send({"op": "leaf", "name": message["name"], "pem": self._leaf(message["name"])}, [])

    def _leaf(self, name: str) -> str:
        """A certificate for `name`; an empty text where there is none, and the worker's client is refused."""
        if self._authority is None:
            return ""
        try:
            return self._authority.leaf(name).pem
        except ValueError as error:
            _log.error("no certificate", name=name, error=str(error))
            return ""

    def _ended(self) -> None:
        self._loop.remove_reader(self._pidfd)
        self._loop.remove_reader(self._control)
        os.close(self._pidfd)
        self._control.close()
        code = self._process.wait()
        if not self._ready.done():
            self._ready.set_exception(HostError(f"worker {self.pid} ended with {code} before it was ready; see above"))
        self._on_end(self)


class Workers:
    """`count` processes that run `module`. `on_replaced` is called with each one that took a dead one's place, to give
    it its listeners."""

    def __init__(
        self,
        settings: Settings,
        writer: Writer,
        on_replaced: Callable[[Worker], None],
        *,
        module: str = WORKER,
        count: int | None = None,
    ) -> None:
        self._module = module
        self._count = settings.worker_count if count is None else count
        self._past: Counter[str] = Counter()
        # As at the start, whatever a reload says: that starts and ends no process.
        self._resolving = settings.resolver.enabled
        self._settings = settings
        self._writer = writer
        self._on_replaced = on_replaced
        self._content: tuple[Content, int] | None = None
        self._alive: list[Worker] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._empty = asyncio.Event()
        self.restarts = 0

    def __iter__(self) -> Any:
        return iter(self._alive)

    def __len__(self) -> int:
        return len(self._alive)

    def counters(self) -> dict[str, int]:
        """What they have counted, those that have ended included."""
        return dict(sum((Counter(worker.counters) for worker in self._alive), self._past.copy()))

    async def start(self, content: Content, number: int) -> None:
        self._content = (content, number)
        await asyncio.gather(*(self._start_one() for _ in range(self._count)))

    def reload(self, settings: Settings, content: Content, number: int) -> None:
        """Hands a new generation to every worker. The number of workers and their user stay until a restart."""
        self._settings, self._content = settings, (content, number)
        for worker in self._alive:
            worker.send_generation(settings, content, number)

    async def finish(self) -> None:
        """Lets every worker end in order, for as long as STOP_TIMEOUT."""
        self._stopping = True
        for worker in self._alive:
            worker.stop()
        if not self._alive:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT):
                await self._empty.wait()
        except TimeoutError:
            _log.error("workers did not end in order", pids=[worker.pid for worker in self._alive])

    def stop(self) -> None:
        """Ends what is left of them at once."""
        self._stopping = True
        for task in self._starting:
            task.cancel()
        for worker in self._alive:
            worker.kill()

    async def _start_one(self) -> Worker:
        if self._content is None:
            raise RuntimeError("workers are started with a generation")
        content, number = self._content
        worker = Worker(self._settings, self._writer, self._module, self._resolving, self._on_end)
        self._alive.append(worker)
        await worker.begin(content, number)
        if self._content != (content, number):
            worker.send_generation(self._settings, *self._content)
        return worker

    def _on_end(self, worker: Worker) -> None:
        self._alive.remove(worker)
        self._past.update(worker.counters)
        if self._stopping:
            if not self._alive:
                self._empty.set()
            return
        self.restarts += 1
        loop = asyncio.get_running_loop()
        age = loop.time() - worker.started
        _log.error("process ended; starting another", module=self._module, pid=worker.pid, age_seconds=round(age, 1))
        task = loop.create_task(self._replace(YOUNG_RESTART_DELAY if age < YOUNG else RESTART_DELAY))
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)

    async def _replace(self, delay: float) -> None:
        await asyncio.sleep(delay)
        try:
            worker = await self._start_one()
        except HostError as error:
            _log.error(
                "process did not start", module=self._module, error=str(error)
            )  # its own end starts the next attempt
            return
        self._on_replaced(worker)
