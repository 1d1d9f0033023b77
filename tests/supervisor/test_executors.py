"""The registry of executors: on disk first, taken over by the next supervisor, gone without a trace."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from enforcer.capture import cgroup, namespace
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.cgroup import Cgroups
from enforcer.config import Settings
from enforcer.errors import HostError, UsageError
from enforcer.flow import Executor
from enforcer.supervisor.executors import Active, Executors
from tests.supervisor.loops import Loop, driven

FIRST_PORT, FIRST_RESOLVER_PORT = 15001, 15053


class FakeWorker:
    ready = True

    def __init__(self) -> None:
        self.listening: dict[str, object] = {}

    def listen(self, executor: Executor, pair: object) -> None:
        self.listening[executor.ident] = pair

    def unlisten(self, ident: str) -> None:
        self.listening.pop(ident, None)


class FakeTables:
    def __init__(self) -> None:
        self.modes: dict[int, ExecutorMode] = {}
        self.listeners: dict[int, tuple[int, int]] = {}
        self.resolvers: dict[int, int] = {}

    def set_executor(self, cgroup_id: int, mode: ExecutorMode) -> None:
        self.modes[cgroup_id] = mode

    def delete_executor(self, cgroup_id: int) -> None:
        self.modes.pop(cgroup_id, None)

    def executors(self) -> dict[int, ExecutorMode]:
        return dict(self.modes)

    def set_listener(self, netns: int, executor: int, port: int, *, resolver_port: int = 0) -> None:
        assert executor in self.modes
        self.listeners[netns] = (executor, port)
        self.resolvers[netns] = resolver_port

    def delete_listener(self, netns: int, executor: int) -> None:
        if self.listeners.get(netns, (executor,))[0] == executor:
            self.listeners.pop(netns, None)


class Host:
    """A host in a directory: cgroups are directories, namespaces are cookies, `taken` ports belong to somebody else."""

    def __init__(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loop: Loop) -> None:
        self.loop = loop
        self.settings = Settings(root=tmp_path, listener_port=FIRST_PORT)
        self.settings.run.mkdir(parents=True)
        self.groups = Cgroups(tmp_path / "cgroup")
        self.groups.executors.mkdir(parents=True)
        self.tables = FakeTables()
        self.workers = [FakeWorker(), FakeWorker()]
        self.resolvers: list[FakeWorker] = []
        self.taken: set[int] = set()
        self.ended: set[str] = set()
        self.cookie = 100
        monkeypatch.setattr(namespace, "netns_cookie", lambda _netns: self.cookie)
        monkeypatch.setattr(namespace, "keep", lambda _netns, path: path.touch())
        monkeypatch.setattr(namespace, "release", lambda path: path.unlink(missing_ok=True))
        monkeypatch.setattr(namespace, "listen_inside", self._listen_inside)
        monkeypatch.setattr(namespace, "bind_inside", self._bind_inside)
        monkeypatch.setattr(cgroup, "is_populated", lambda path: path.exists() and path.name not in self.ended)
        monkeypatch.setattr(cgroup, "remove", lambda path: path.rmdir() if path.exists() else None)

    def _listen_inside(
        self, _netns: int, ports: Iterable[int], count: int, *, join: bool = False
    ) -> tuple[int, list[Any]]:
        for port in ports:
            if port not in self.taken:
                return port, [(port, f"pair {number}") for number in range(count)]
        raise HostError("every port for the listener is taken in the executor; free one from listener_port on")

    def _bind_inside(self, _netns: int, ports: Iterable[int]) -> tuple[int, Any]:
        port = next(port for port in ports if port not in self.taken)
        return port, (port, "sockets")

    def executors(self) -> Executors:
        """As a supervisor that starts makes it."""
        made: Executors = self.loop.make(
            lambda: Executors(self.settings, self.groups, self.tables, self.workers, self.resolvers)  # type: ignore[arg-type]
        )
        return made

    def traces(self) -> list[str]:
        """What exists of executors: state files, kept namespaces, cgroups."""
        self.loop.loop.run_until_complete(self.loop.loop.shutdown_default_executor())
        self.loop.loop._default_executor = None  # type: ignore[attr-defined]
        self.loop.loop._executor_shutdown_called = False  # type: ignore[attr-defined]
        places = (self.settings.run / "executors", self.settings.run / "netns", self.groups.executors)
        return sorted(path.name for place in places for path in place.iterdir())


def started(executors: Executors, name: str = "agent", uid: int = 0) -> Active:
    """Created, and listened for in its network namespace."""
    active = executors.create(name, uid)
    executors.listen(active.executor.ident, 3)
    return active


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    with driven() as loop:
        yield Host(tmp_path, monkeypatch, loop)


def test_a_started_executor_is_listened_for_by_every_worker_and_known_to_the_kernel(host: Host) -> None:
    """Its flows go to the port that all workers share, and belong to its cgroup."""
    executors = host.executors()
    active = started(executors)
    ident = active.executor.ident
    assert ident.startswith("agent-")
    assert active.executor.user == "root"
    assert active.executor.cgroup_id == cgroup.cgroup_id(executors.cgroup_of(ident))
    assert host.tables.listeners == {100: (active.executor.cgroup_id, FIRST_PORT)}
    assert [worker.listening[ident] for worker in host.workers] == [(FIRST_PORT, "pair 0"), (FIRST_PORT, "pair 1")]
    assert host.traces() == [ident] * 3


def test_a_created_executor_is_governed_before_it_has_a_network(host: Host) -> None:
    """The kernel knows its cgroup, so whatever is born there is refused; nobody listens yet, and a new worker copes."""
    executors = host.executors()
    active = executors.create("agent", 0)
    assert host.tables.modes == {active.executor.cgroup_id: ExecutorMode.ISOLATED}
    assert host.tables.listeners == {}
    executors.serve(host.workers[0])  # type: ignore[arg-type]
    assert host.workers[0].listening == {}


def test_an_executor_has_one_network_namespace(host: Host) -> None:
    """A second one, or one for an executor that has ended, is refused, and the first goes on."""
    executors = host.executors()
    active = started(executors)
    host.cookie = 101
    with pytest.raises(UsageError, match="has its network namespace"):
        executors.listen(active.executor.ident, 3)
    with pytest.raises(UsageError, match="has ended"):
        executors.listen("agent-000000", 3)
    assert host.tables.listeners == {100: (active.executor.cgroup_id, FIRST_PORT)}


def test_a_kernel_that_takes_no_executor_gets_none(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """The map is full: one error, and nothing remains."""

    def refuse(_cgroup_id: int, _mode: ExecutorMode) -> None:
        raise OSError("Argument list too long")

    monkeypatch.setattr(host.tables, "set_executor", refuse)
    executors = host.executors()
    with pytest.raises(OSError, match="too long"):
        host.loop.make(lambda: executors.create("agent", 0))
    assert host.traces() == []
    assert list(executors) == []


def test_two_executors_of_one_name_are_two(host: Host) -> None:
    """The ident is unique per start; the name is what policies match."""
    executors = host.executors()
    first = started(executors)
    host.cookie = 101
    second = started(executors)
    assert first.executor.ident != second.executor.ident
    assert first.executor.name == second.executor.name
    assert len(list(executors)) == 2


def test_a_user_without_an_account_is_named_by_number(host: Host) -> None:
    """Containers have user ids that this host knows nothing of."""
    assert started(host.executors(), "agent", 987654).executor.user == "987654"


def test_an_ended_executor_leaves_no_trace(host: Host) -> None:
    """No state, no kept namespace, no cgroup, no listener, no map entry; ending it again is fine."""
    executors = host.executors()
    ident = started(executors).executor.ident
    host.ended.add(ident)
    assert executors.ended() == [ident]
    ended: list[Active | None] = []
    host.loop.call(lambda: ended.append(executors.end(ident)))
    host.loop.call(lambda: ended.append(executors.end(ident)))
    assert [one is not None for one in ended] == [True, False]
    assert host.traces() == []
    assert (host.tables.listeners, host.tables.modes) == ({}, {})
    assert host.workers[0].listening == {}
    assert list(executors) == []


def test_a_port_that_is_taken_moves_the_listener(host: Host) -> None:
    """The executor's own server may have it; kernel and state file say the port that was found."""
    host.taken = {FIRST_PORT, FIRST_PORT + 1}
    active = started(host.executors())
    assert active.port == FIRST_PORT + 2
    assert host.tables.listeners[100][1] == FIRST_PORT + 2
    state = orjson.loads((host.settings.run / "executors" / active.executor.ident).read_bytes())
    assert state["port"] == FIRST_PORT + 2


def test_an_executor_that_cannot_be_listened_for_is_not_started(host: Host) -> None:
    """One clear error, and nothing of it remains."""
    host.taken = set(range(1, 65536))
    executors = host.executors()
    with pytest.raises(HostError, match="every port"):
        host.loop.make(lambda: started(executors))
    assert host.traces() == []
    assert list(executors) == []
    assert (host.tables.listeners, host.tables.modes) == ({}, {})


def test_ports_end_at_65535(host: Host, tmp_path: Path) -> None:
    """A listener_port near the end is not counted beyond it."""
    host.settings = Settings(root=tmp_path, listener_port=65530)
    host.taken = set(range(65530, 65536))
    executors = host.executors()
    with pytest.raises(HostError, match="every port"):
        host.loop.make(lambda: started(executors))


def test_what_is_no_network_namespace_ends_the_executor(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """It could never reach anything; the cgroup that was made for it goes too."""

    def refuse(_netns: int) -> int:
        raise HostError("cannot enter the executor's network namespace: Invalid argument; run as root on the host")

    monkeypatch.setattr(namespace, "netns_cookie", refuse)
    executors = host.executors()
    with pytest.raises(HostError, match="cannot enter"):
        host.loop.make(lambda: started(executors))
    assert host.traces() == []
    assert host.tables.modes == {}


def test_a_namespace_belongs_to_one_executor(host: Host) -> None:
    """The second one would get the first one's flows; it is refused and the first one lives on."""
    executors = host.executors()
    first = started(executors)
    with pytest.raises(HostError, match="already belongs"):
        host.loop.make(lambda: started(executors, "other"))
    assert host.traces() == [first.executor.ident] * 3
    assert host.tables.listeners == {100: (first.executor.cgroup_id, FIRST_PORT)}


@pytest.mark.parametrize("name", ["", "a/b", "../x", "a\nb", "x" * 101, " ", ".hidden", "a\0b", "\x1b[31m"])
def test_a_name_that_cannot_be_a_directory_is_refused_in_one_line(host: Host, name: str) -> None:
    """It names a cgroup, and appears in every record and listing."""
    with pytest.raises(UsageError) as caught:
        started(host.executors(), name)
    assert "\n" not in str(caught.value)
    assert host.traces() == []


@pytest.mark.parametrize("name", ["a", "Agent_1.x-y", "größe", "x" * 100])
def test_ordinary_names_are_taken(host: Host, name: str) -> None:
    """Letters of any script, digits, dots, dashes and underscores."""
    assert started(host.executors(), name).executor.name == name


def test_state_survives_a_restart_of_the_supervisor(host: Host) -> None:
    """The next one finds the same executor and port, listens again, and tells the kernel."""
    before = started(host.executors())
    host.tables.listeners.clear()
    host.tables.modes.clear()
    for worker in host.workers:
        worker.listening.clear()
    following = host.executors()
    assert host.loop.make(following.recover) == 1
    (after,) = following
    assert after == before
    assert host.tables.modes == {before.executor.cgroup_id: ExecutorMode.ISOLATED}
    assert host.tables.listeners == {100: (before.executor.cgroup_id, before.port)}
    assert all(worker.listening.keys() == {before.executor.ident} for worker in host.workers)


def test_a_restart_drops_executors_that_ended_meanwhile(host: Host) -> None:
    """Nobody ended them while no supervisor ran: the next one does, and keeps the others."""
    executors = host.executors()
    gone = started(executors, "gone")
    host.cookie = 101
    alive = started(executors, "alive")
    host.ended.add(gone.executor.ident)
    following = host.executors()
    assert host.loop.make(following.recover) == 1
    assert [one.executor.name for one in following] == ["alive"]
    assert host.traces() == [alive.executor.ident] * 3
    assert host.tables.modes.keys() == {alive.executor.cgroup_id}
    assert host.tables.listeners.keys() == {101}


def test_a_restart_drops_an_executor_that_had_not_begun(host: Host) -> None:
    """The supervisor was killed between the two steps: whoever asked gets no answer and gives up."""
    host.executors().create("agent", 0)
    following = host.executors()
    assert host.loop.make(following.recover) == 0
    assert host.traces() == []
    assert host.tables.modes == {}


@pytest.mark.parametrize("state", [b"", b"{", b"[]", b"{}", b'{"executor": {"ident": "x"}}', b"\xff"])
def test_a_damaged_state_file_costs_its_executor_not_the_start(host: Host, state: bytes) -> None:
    """Cut short or of another version: that executor is ended, and the supervisor starts."""
    ident = started(host.executors()).executor.ident
    (host.settings.run / "executors" / ident).write_bytes(state)
    host.tables.modes[4711] = ExecutorMode.ATTACHED  # somebody else's
    following = host.executors()
    assert host.loop.make(following.recover) == 0
    assert host.traces() == []
    assert host.tables.modes == {4711: ExecutorMode.ATTACHED}


def test_a_cgroup_without_a_state_is_removed_at_start(host: Host) -> None:
    """A supervisor that was killed between making the cgroup and writing the state."""
    host.groups.create_executor("agent-abcdef")
    executors = host.executors()
    assert host.loop.make(executors.recover) == 0
    assert host.traces() == []


def test_a_new_worker_gets_the_listeners_of_every_executor(host: Host) -> None:
    """At the port that the others have."""
    executors = host.executors()
    ident = started(executors).executor.ident
    fresh = FakeWorker()
    host.workers.append(fresh)
    executors.serve(fresh)  # type: ignore[arg-type]
    assert fresh.listening[ident] == (FIRST_PORT, "pair 0")


def test_an_executor_that_took_the_port_from_dead_workers_moves_them_all(host: Host) -> None:
    """All workers, the new one too, listen at the next port, and the kernel sends its flows there."""
    executors = host.executors()
    active = started(executors)
    host.workers[:] = [FakeWorker()]
    host.taken.add(FIRST_PORT)
    executors.serve(host.workers[0])  # type: ignore[arg-type]
    assert active.port == FIRST_PORT + 1
    assert host.tables.listeners[100][1] == FIRST_PORT + 1
    assert host.workers[0].listening[active.executor.ident] == (FIRST_PORT + 1, "pair 0")


def test_questions_go_to_the_resolver_at_a_port_of_its_own(host: Host) -> None:
    """The first free one from its setting on, remembered over a restart; a resolver that takes a dead one's place gets
    the same one, or the next where somebody has it."""
    host.resolvers.append(FakeWorker())
    host.taken.add(FIRST_RESOLVER_PORT)
    executors = host.executors()
    active = started(executors)
    ident, port = active.executor.ident, FIRST_RESOLVER_PORT + 1
    assert host.resolvers[0].listening[ident] == (port, "sockets")
    assert host.tables.resolvers == {100: port}
    fresh = FakeWorker()
    executors.serve_names(fresh)  # type: ignore[arg-type]
    assert fresh.listening[ident] == (port, "sockets")
    host.taken.add(port)
    executors.serve_names(fresh)  # type: ignore[arg-type]
    assert fresh.listening[ident] == (port + 1, "sockets")
    assert host.tables.resolvers == {100: port + 1}
    following = host.executors()
    assert host.loop.make(following.recover) == 1
    assert host.tables.resolvers == {100: port + 1}


def test_without_a_resolver_questions_go_nowhere(host: Host) -> None:
    """The kernel is told no port for them, and refuses them."""
    started(host.executors())
    assert host.tables.resolvers == {100: 0}
