"""Attached executors: process trees that policies name by their cgroup, taken over where they already run.

The hooks are on the cgroup above them, so that a tree which starts later is governed before it has a process: the
kernel refuses what is made below a named path until it is classified here. The cgroup tree is the only truth; nothing
of it is kept over a restart but what was released.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote

from enforcer.capture import cgroup, namespace, programs, takeover
from enforcer.capture.abi import CgroupEventKind, ExecutorMode
from enforcer.capture.programs import Pins
from enforcer.capture.tables import CgroupEvent, Tables
from enforcer.capture.uplinks import Uplinks
from enforcer.config import Settings
from enforcer.errors import ConfigError, EnforcerError, UsageError
from enforcer.flow import Executor
from enforcer.log import get_logger
from enforcer.policy.cgroups import cgroup_matches
from enforcer.supervisor.workers import Worker, Workers

# Events taken at one look; the kernel holds 4,096.
EVENTS_PER_LOOK = 4096
# Ports tried for a listener: trees in one namespace have one each.
PORTS = 4096

_log = get_logger()


@dataclass(slots=True)
class Place:
    """One network namespace that the tree has processes in. `netns` is our descriptor of it. `resolver_port`: 0 where
    its questions for names go to nobody."""

    cookie: int
    netns: int
    port: int
    resolver_port: int = 0


@dataclass(slots=True)
class Tree:
    """A cgroup that was taken over. `places` by the inode number of the network namespace."""

    executor: Executor
    path: Path
    places: dict[int, Place] = field(default_factory=dict)


class Attached:
    """All of them. `record` writes an event row; `on_change` is called when one came, before it is let through."""

    def __init__(
        self,
        *,
        settings: Settings,
        pins: Pins,
        tables: Tables,
        workers: Workers,
        resolvers: Workers,
        uplinks: Uplinks,
        record: Callable[..., None],
        on_change: Callable[[Executor], None],
    ) -> None:
        self._settings = settings
        self._pins = pins
        self._tables = tables
        self._workers = workers
        self._resolvers = resolvers
        self._uplinks = uplinks
        self._record = record
        self._on_change = on_change
        self._mount = cgroup.find_mount()
        self._patterns: tuple[str, ...] = ()
        self._roots: dict[str, int] = {}
        self._set = Path()
        self._trees: dict[int, Tree] = {}
        self._loop = asyncio.get_running_loop()
        self._made = cgroup.ChildWatch()
        self._loop.add_reader(self._made.fileno(), self._on_made)
        self._released = settings.run / "released"
        self._released.mkdir(mode=0o700, exist_ok=True)

    def __iter__(self) -> Iterator[Tree]:
        return iter(list(self._trees.values()))

    def close(self) -> None:
        """Lets go of our descriptors; the hooks stay."""
        self._loop.remove_reader(self._made.fileno())
        self._made.close()
        for tree in self:
            for place in tree.places.values():
                os.close(place.netns)

    def places(self) -> set[tuple[int, int]]:
        """(network namespace cookie, cgroup id) of every listener."""
        return {(place.cookie, tree.executor.cgroup_id) for tree in self for place in tree.places.values()}

    def hooks(self) -> dict[str, dict[str, int]]:
        """How many programs each hook has on each cgroup that ours are below; 1 each is right."""
        return {root: programs.attached_above(self._mount / root) for root in self._roots}

    def governs(self, relative: str) -> bool:
        """Is the cgroup at this path, relative to the mount, in a tree that was taken over?"""
        paths = (tree.executor.cgroup for tree in self)
        return any(relative == path or relative.startswith(f"{path}/") for path in paths)

    def executors(self) -> list[Executor]:
        return [tree.executor for tree in self._trees.values()]

    # --- what policies name

    def take(self, patterns: tuple[str, ...], directory: Path) -> None:
        """Governs what `patterns` name, by the programs of the set in `directory`, and gives back what they do not.

        Raises ConfigError, KernelError, HostError, OSError.
        """
        check_patterns(patterns, self._settings.instance)
        self._patterns, self._set = patterns, directory
        for tree in self:
            if not self._is_named(tree.executor.cgroup):
                self._give_back(tree, "no policy names it any more")
        self._watch()
        for path in self._named_paths():
            self._attach_one(path)
        for root in [root for root in self._roots if root not in roots_of(patterns)]:
            programs.detach(self._pins, str(self._roots.pop(root)))

    def _watch(self) -> None:
        wanted = {pattern.partition("*")[0] for pattern in self._patterns}
        for pattern in self._patterns:
            self._tables.watch_level(len(pattern.split("/")))
        for prefix in wanted:
            self._tables.watch_prefix(prefix)
        for prefix in self._tables.watched_prefixes():
            if prefix not in wanted:
                self._tables.unwatch_prefix(prefix)
        # Whatever is there already is refused from here on, before the hooks that would refuse it are attached.
        governed = self._tables.executors()
        for path in self._named_paths():
            ident = cgroup.cgroup_id(path)
            if ident not in governed and not self._is_released(path):
                self._tables.set_executor(ident, ExecutorMode.REFUSED)
        for root in roots_of(self._patterns):
            self._attach_root(root)

    def _attach_root(self, root: str) -> None:
        path = self._mount / root
        path.mkdir(parents=True, exist_ok=True)
        ident = cgroup.cgroup_id(path)
        if self._roots.get(root) not in (None, ident):
            programs.detach(self._pins, str(self._roots[root]))
        programs.attach(self._pins, self._set, str(ident), path)
        self._made.add(path)
        self._roots[root] = ident

    def _named_paths(self) -> list[Path]:
        found = []
        for pattern in self._patterns:
            depth = len(pattern.split("/"))
            for path in _directories(self._mount / _literal(pattern), depth - len(_literal(pattern).parts)):
                if cgroup_matches(pattern, str(path.relative_to(self._mount))):
                    found.append(path)
        return list(dict.fromkeys(found))

    def _is_named(self, relative: str) -> bool:
        depth = len(relative.split("/"))
        return any(depth == len(one.split("/")) and cgroup_matches(one, relative) for one in self._patterns)

    # --- one tree

    def _attach_one(self, path: Path) -> None:
        """Takes the tree over, or leaves it refused and says why."""
        try:
            ident = cgroup.cgroup_id(path)
            if ident in self._trees or self._is_released(path):
                return
            self._take_over(path, ident)
        except FileNotFoundError:
            return  # it has ended meanwhile
        except (EnforcerError, OSError) as error:
            _log.error("executor stays refused", cgroup=str(path), error=str(error))
            self._record("executor refused", cgroup=str(path.relative_to(self._mount)), error=str(error))

    def _take_over(self, path: Path, ident: int) -> None:
        relative = str(path.relative_to(self._mount))
        executor = Executor(f"{quote(path.name, safe='')}-{ident:x}", path.name, 0, "", ident, relative, "attached")
        tree = Tree(executor, path)
        self._trees[ident] = tree
        try:
            self._tables.set_path(relative, ident)
            # Most will live in the host's own namespace: there they are served from their first connection on.
            self._settle(tree, os.getpid())
            pids = cgroup.processes(path)
            for pid in pids:
                for thread in cgroup.threads(pid):
                    self._tables.track_task(thread, ident)
                self._settle(tree, pid)
            closed = takeover.take_over(pids, ident, self._tables.owners, self._tables.tasks)
            self._on_change(executor)
        except (EnforcerError, OSError):
            self._forget(tree)
            self._tables.set_executor(ident, ExecutorMode.REFUSED)
            raise
        self._tables.set_executor(ident, ExecutorMode.ATTACHED)
        self._record(
            "executor attached", ident=executor.ident, name=executor.name, cgroup=relative, connections_closed=closed
        )
        _log.info("executor attached", cgroup=relative, processes=len(pids), connections_closed=closed)

    def _settle(self, tree: Tree, pid: int) -> None:
        """Has a listener in the network namespace that the process is in. A process that has ended has none."""
        try:
            netns = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return
        inode = os.fstat(netns).st_ino
        if inode in tree.places:
            os.close(netns)
            return
        place = Place(namespace.netns_cookie(netns), netns, self._settings.listener_port)
        try:
            namespace.run_inside(netns, self._uplinks.ensure)
            self._listen(tree, place, [one for one in self._workers if one.ready])
        except (EnforcerError, OSError):
            os.close(netns)
            raise
        tree.places[inode] = place

    def _listen(self, tree: Tree, place: Place, workers: list[Worker]) -> None:
        last = min(place.port + PORTS, 65536)
        place.port, pairs = namespace.listen_inside(place.netns, range(place.port, last), len(workers))
        for worker, pair in zip(workers, pairs, strict=True):
            worker.listen(tree.executor, pair, place=place.cookie)
        self._resolve(tree, place, [one for one in self._resolvers if one.ready])

    def _resolve(self, tree: Tree, place: Place, resolvers: list[Worker]) -> None:
        """Has the place's questions for names answered, where there is a resolver, and tells the kernel its ports."""
        place.resolver_port = 0
        if resolvers:
            first = self._settings.resolver.port
            ports = (port for port in range(first, min(first + PORTS, 65536)) if port != place.port)
            place.resolver_port, pair = namespace.bind_inside(place.netns, ports)
            resolvers[0].listen(tree.executor, pair, place=place.cookie)
        self._tables.set_listener(place.cookie, tree.executor.cgroup_id, place.port, resolver_port=place.resolver_port)

    def serve_names(self, resolver: Worker) -> None:
        """Gives a new resolver its sockets for every place of every tree."""
        for tree in self:
            for place in tree.places.values():
                try:
                    self._resolve(tree, place, [resolver])
                except (EnforcerError, OSError) as error:
                    _log.error("executor has no resolver", executor=tree.executor.ident, error=str(error))

    def serve(self, worker: Worker) -> None:
        """Gives a new worker its listeners for every place of every tree."""
        for tree in self:
            for place in tree.places.values():
                try:
                    _, [pair] = namespace.listen_inside(place.netns, [place.port], 1, join=True)
                    worker.listen(tree.executor, pair, place=place.cookie)
                except (EnforcerError, OSError) as error:
                    # Others serve it still; what the kernel sends to nobody is refused.
                    _log.error("worker has no listener", executor=tree.executor.ident, error=str(error))

    def release(self, name: str) -> str:
        """Gives one back until it is taken again or its cgroup goes. Returns its cgroup. Raises UsageError."""
        found = [tree for tree in self if name in (tree.executor.name, tree.executor.ident, tree.executor.cgroup)]
        if len(found) != 1:
            known = ", ".join(tree.executor.cgroup for tree in (found or self)) or "none"
            what = "names more than one executor" if found else "is no attached executor"
            raise UsageError(f"{name!r} {what}; name one of: {known}")
        (tree,) = found
        self._mark(tree.executor.cgroup).write_text(str(tree.executor.cgroup_id))
        self._give_back(tree, "released")
        return tree.executor.cgroup

    def retake(self, name: str) -> str:
        """Undoes `release`. Returns its cgroup. Raises UsageError."""
        marks = {unquote(mark.name): mark for mark in self._released.iterdir()}
        found = [relative for relative in marks if name in (relative, relative.rpartition("/")[2])]
        if len(found) != 1:
            raise UsageError(f"{name!r} was not released; released are: {', '.join(sorted(marks)) or 'none'}")
        marks[found[0]].unlink()
        path = self._mount / found[0]
        if path.exists():
            self._tables.set_executor(cgroup.cgroup_id(path), ExecutorMode.REFUSED)
            self._attach_one(path)
        return found[0]

    def released(self) -> list[str]:
        return sorted(unquote(mark.name) for mark in self._released.iterdir())

    def _mark(self, relative: str) -> Path:
        return self._released / quote(relative, safe="")

    def _is_released(self, path: Path) -> bool:
        """A mark counts for the cgroup that was released, not for one made later at the same path."""
        mark = self._mark(str(path.relative_to(self._mount)))
        if not mark.exists():
            return False
        if mark.read_text() == str(cgroup.cgroup_id(path)):
            return True
        mark.unlink()
        return False

    def _give_back(self, tree: Tree, why: str) -> None:
        self._forget(tree)
        self._record("executor released", ident=tree.executor.ident, name=tree.executor.name, reason=why)
        _log.info("executor released", cgroup=tree.executor.cgroup, reason=why)

    def _forget(self, tree: Tree) -> None:
        ident = tree.executor.cgroup_id
        self._trees.pop(ident, None)
        self._tables.delete_path(tree.executor.cgroup)
        self._tables.untrack_tasks(ident)
        self._tables.delete_executor(ident)
        for worker in (*self._workers, *self._resolvers):
            worker.unlisten(tree.executor.ident)
        for place in tree.places.values():
            self._tables.delete_listener(place.cookie, ident)
            os.close(place.netns)

    # --- what happens

    def _on_made(self) -> None:
        """A cgroup was made below one of ours: look now, as it is refused until it is classified."""
        self._made.drain()
        self.look()

    def look(self) -> None:
        """Acts on what the kernel told since the last look."""
        for event in self._tables.pop_cgroup_events(EVENTS_PER_LOOK):
            if event.kind is CgroupEventKind.MADE:
                self._classify(event.cgroup)
            elif event.kind is CgroupEventKind.GONE:
                self._gone(event.cgroup)
            else:
                self._escaped(event)
        for root, ident in list(self._roots.items()):
            path = self._mount / root
            if not path.exists() or cgroup.cgroup_id(path) != ident:
                self._watch()  # systemd removed and made it again
                break

    def _classify(self, ident: int) -> None:
        path = next((path for path in self._named_paths() if _is(path, ident)), None)
        if path is None:
            if ident not in self._trees:
                self._tables.delete_executor(ident)
            return
        if self._is_released(path):
            self._tables.delete_executor(ident)
            return
        self._attach_one(path)

    def _gone(self, ident: int) -> None:
        tree = self._trees.get(ident)
        if tree is None:
            self._tables.delete_executor(ident)
            return
        self._forget(tree)
        self._record("executor ended", ident=tree.executor.ident, name=tree.executor.name)

    def _escaped(self, event: CgroupEvent) -> None:
        """A process left. One of its own moved it: that one was killed in the kernel, and now this one is."""
        tree = self._trees.get(event.executor)
        name = tree.executor.name if tree else ""
        if event.killed:
            _kill(event.pid)
        self._record("escape noticed", executor=name, pid=event.pid, by=event.by, killed=event.killed)
        _log.error("a process left its executor", executor=name, pid=event.pid, by=event.by, killed=event.killed)

    def need_listener(self, executor: int, pid: int) -> None:
        """The kernel refused a connection from a namespace without a listener: the next one finds one."""
        tree = self._trees.get(executor)
        if tree is None:
            return
        try:
            self._settle(tree, pid)
        except (EnforcerError, OSError) as error:
            _log.error("namespace has no listener", executor=tree.executor.ident, pid=pid, error=str(error))

    def tidy(self) -> None:
        """Tries again what could not be taken over, lets go of namespaces that no process of a tree is in any more, and
        guards interfaces that came meanwhile."""
        for path in self._named_paths():
            self._attach_one(path)
        for tree in self:
            inodes = {_netns_inode(pid) for pid in (os.getpid(), *cgroup.processes(tree.path))}
            for inode in [inode for inode in tree.places if inode not in inodes]:
                place = tree.places.pop(inode)
                self._tables.delete_listener(place.cookie, tree.executor.cgroup_id)
                for worker in (*self._workers, *self._resolvers):
                    worker.unlisten(tree.executor.ident, place=place.cookie)
                os.close(place.netns)
            for place in tree.places.values():
                namespace.run_inside(place.netns, self._uplinks.ensure)


def check_patterns(patterns: Iterable[str], instance: str) -> None:
    """Raises ConfigError for a pattern whose hooks would be on the root of the tree, or on the enforcer's own part."""
    for pattern in patterns:
        first = pattern.split("/")[0]
        if "*" in first:
            raise ConfigError(f"cgroup {pattern!r} begins with '*'; name its first component")
        if first == instance:
            raise ConfigError(f"cgroup {pattern!r} is the enforcer's own; name another")


def roots_of(patterns: Iterable[str]) -> list[str]:
    """Where the hooks go: the cgroups above all that is named, none above another (a hook must not run twice)."""
    wanted = sorted({_root(pattern) for pattern in patterns}, key=lambda root: root.count("/"))
    roots: list[str] = []
    for root in wanted:
        if not any(root == above or root.startswith(f"{above}/") for above in roots):
            roots.append(root)
    return roots


def _root(pattern: str) -> str:
    """The literal beginning; of a wholly literal path its parent, so that the hooks are there before it is."""
    parts = pattern.split("/")
    literal = list(_literal(pattern).parts)
    return "/".join(literal[:-1] if len(literal) == len(parts) > 1 else literal)


def _literal(pattern: str) -> Path:
    parts = pattern.split("/")
    count = next((index for index, part in enumerate(parts) if "*" in part), len(parts))
    return Path(*parts[:count])


def _directories(start: Path, depth: int) -> list[Path]:
    """Cgroups exactly `depth` below `start`."""
    found = [start] if start.is_dir() else []
    for _ in range(depth):
        found = [child for path in found for child in _children(path)]
    return found


def _children(path: Path) -> list[Path]:
    try:
        return [child for child in path.iterdir() if child.is_dir()]
    except OSError:
        return []  # removed meanwhile


def _is(path: Path, ident: int) -> bool:
    try:
        return cgroup.cgroup_id(path) == ident
    except OSError:
        return False


def _netns_inode(pid: int) -> int:
    try:
        return Path(f"/proc/{pid}/ns/net").stat().st_ino
    except OSError:
        return 0


def _kill(pid: int) -> None:
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        os.close(descriptor)
