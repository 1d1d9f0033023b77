"""The resolver's process: answers executors' questions for names, without privileges (see `child.py` for how it is
started)."""

from __future__ import annotations

import asyncio
import socket
from collections import Counter
from functools import partial
from ipaddress import ip_address
from typing import Any

from enforcer.child import Child, Generation, run
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.resolver.answerer import Answerer
from enforcer.resolver.records import Origin, Sessions
from enforcer.resolver.serve import MAX_CONNECTIONS, Datagrams, Stream

# Seconds between two reports of the counters, while they change.
REPORT = 0.25

_log = get_logger()


class Resolver(Child):
    """Acts on the supervisor's control messages. `places`: by executor and network namespace."""

    def __init__(self, control: socket.socket, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(control, loop)
        self._counters: Counter[str] = Counter()
        self._reported: dict[str, int] = {}
        self._answerer: Answerer | None = None
        self._places: dict[tuple[str, int], Datagrams] = {}
        self._executors: dict[int, Executor] = {}
        self._streams: dict[int, set[Stream]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

    def take_generation(self, generation: Generation) -> None:
        if self._answerer is None:
            self._answerer = Answerer(self._loop, self.journal, self._counters)
            self._answerer.links.on_connection = self._take_connection
            self._loop.call_later(REPORT, self._report)
        self._answerer.take_generation(generation)
        generation.close()

    def act(self, message: dict[str, Any], sockets: list[socket.socket]) -> None:
        match message["op"]:
            case "listen":
                self._listen(Executor(**message["executor"]), message["place"], sockets)
            case "unlisten":
                self._unlisten(message["ident"], message["place"])
            case "link":
                self._ready().links.add(sockets[0])
            case unknown:
                raise ValueError(f"unknown control message {unknown!r}")

    def finish(self) -> None:
        for place in self._places.values():
            place.close("enforcer stopped")
        for streams in self._streams.values():
            for stream in list(streams):
                stream.close()

    def _ready(self) -> Answerer:
        if self._answerer is None:
            raise RuntimeError("no generation has come yet")
        return self._answerer

    def _listen(self, executor: Executor, place: int, sockets: list[socket.socket]) -> None:
        self._close_place((executor.ident, place))
        answerer = self._ready()
        self._executors[executor.cgroup_id] = executor
        sessions = Sessions(Origin(executor, uid=executor.uid), self.journal)
        self._places[executor.ident, place] = Datagrams(
            sockets, answerer.asker(executor), sessions, answerer, self.journal
        )

    def _unlisten(self, ident: str, place: int | None) -> None:
        """Closes an executor's sockets at one place; or at all of them, and forgets it."""
        for key in [key for key in self._places if key[0] == ident and place in (None, key[1])]:
            self._close_place(key)
        if place is not None:
            return
        for executor in [one for one in self._executors.values() if one.ident == ident]:
            del self._executors[executor.cgroup_id]
            for stream in list(self._streams.pop(executor.cgroup_id, ())):
                stream.close()
            self._ready().forget(executor)

    def _close_place(self, key: tuple[str, int]) -> None:
        datagrams = self._places.pop(key, None)
        if datagrams is not None:
            datagrams.close("executor ended")

    def _take_connection(self, whose: dict[str, Any], sock: socket.socket) -> None:
        """A worker hands over what an executor dialled at port 53. Only of an executor that is resolved for."""
        executor = self._executors.get(whose["executor"])
        streams = self._streams.setdefault(whose["executor"], set()) if executor else set()
        if executor is None or len(streams) >= MAX_CONNECTIONS:
            self._counters["CONNECTION_REFUSED"] += 1
            sock.close()
            return
        answerer = self._ready()
        region = answerer.generation.table.lookup(ip_address(whose["destination"]))
        origin = Origin(executor, whose["destination"], region, whose["pid"], whose["uid"])
        make = partial(Stream, answerer.asker(executor), Sessions(origin, self.journal), answerer, streams)
        task = self._loop.create_task(self._adopt(make, sock))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _adopt(self, make: partial[Stream], sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(make, sock)
        except OSError as error:  # it ended on the way
            _log.info("a question over TCP was given up", error=str(error))
            sock.close()

    def _report(self) -> None:
        """Tells the supervisor what was counted, for `enforcer status`."""
        counted = dict(self._counters)
        if counted != self._reported:
            self._reported = counted
            self.tell({"op": "counters", "counters": counted})
        self._loop.call_later(REPORT, self._report)


if __name__ == "__main__":
    run(Resolver)
