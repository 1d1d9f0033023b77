"""Step 1 of 6, capture: the pinned maps of one loaded set, as typed operations for the supervisor."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path

from enforcer.capture import abi, cgroup, sysbpf
from enforcer.capture.abi import CgroupEventKind, ExecutorMode, SecuritySlot
from enforcer.capture.cgroup import Cgroups
from enforcer.capture.generation import KEY_SIZES, VERSIONS, AudienceEntry, BuiltGeneration, Tries, audience_value
from enforcer.capture.sysbpf import Map, MapType
from enforcer.flow import Endpoint

# Depth of the cgroup tree that the programs look at (bpf/consts.h).
MAX_CGROUP_LEVEL = 16
# What an older set hands on to the one that replaces it: who is governed, and where their flows go.
_CARRIED = (
    "executor_by_cgroup",
    "executor_levels",
    "listener_by_place",
    "guarded_ports",
    "executor_by_path",
    "executor_by_ipc",
)
_PER_GENERATION = ("coarse_by_region_set", "audience_by_executor", "direct_by_destination")
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")
# Map -> key and value size in bytes; per-CPU values and the rest are worked out where the map is opened.
_SIZES: dict[str, tuple[int, int]] = {
    "owner_by_socket": (4, ctypes.sizeof(abi.Owner)),
    "executor_by_cgroup": (8, ctypes.sizeof(abi.Executor)),
    "executor_levels": (4, 4),
    "listener_by_place": (ctypes.sizeof(abi.Place), ctypes.sizeof(abi.Listener)),
    "guarded_ports": (ctypes.sizeof(abi.GuardedPort), 8),
    "original_dst_by_tuple": (ctypes.sizeof(abi.Tuple), ctypes.sizeof(abi.FlowRecord)),
    "generation": (4, 4),
    "prefixes4": (4, 4),
    "prefixes6": (4, 4),
    "coarse_by_region_set": (4, 4),
    "audience_by_executor": (4, 4),
    "direct_by_destination": (4, 4),
    "heartbeat": (4, 8),
    "executor_by_path": (ctypes.sizeof(abi.PathPrefix), 8),
    "governed_tasks": (4, 8),
    "executor_by_task": (4, 8),
    "executor_by_ipc": (8, 8),
    "security": (4, 8),
    "refusals": (0, ctypes.sizeof(abi.Refusal)),
    "direct_events": (0, ctypes.sizeof(abi.DirectEvent)),
    "cgroup_events": (0, ctypes.sizeof(abi.CgroupEvent)),
}


@dataclass(frozen=True, slots=True)
class KernelRefusal:
    """One refusal made in the kernel. `time_ns` is on the monotonic clock; `destination` is None where the refused
    thing has no address; `netns` is a cookie, 0 where it is not known."""

    time_ns: int
    executor: int
    netns: int
    destination: Endpoint | None
    pid: int
    uid: int
    reason: str


@dataclass(frozen=True, slots=True)
class DirectEvent:
    """A direct flow begins, or has ended. Times are nanoseconds since boot, suspend included; bytes are TCP payload."""

    executor: int
    cookie: int
    destination: Endpoint
    region_set: int
    generation: int
    rule: int
    pid: int
    uid: int
    opened_ns: int
    time_ns: int
    ended: bool
    bytes_up: int
    bytes_down: int


@dataclass(frozen=True, slots=True)
class CgroupEvent:
    """Something happened in the cgroup tree: see `CgroupEventKind`. `pid` left `executor`, moved by process `by`, which
    was `killed` when it was of an executor itself."""

    kind: CgroupEventKind
    cgroup: int
    executor: int
    pid: int
    by: int
    killed: bool


class Tables:
    """Opens every map of the set in `directory`. Raises OSError, EINVAL when the set is of another layout."""

    def __init__(self, directory: Path) -> None:
        self._cpus = _possible_cpus()
        self._maps: dict[str, Map] = {}
        try:
            for name, (key, value) in _SIZES.items():
                self._maps[name] = Map.open(directory / f"map_{name}", key, value)
            self._maps["counters"] = Map.open(directory / "map_counters", 4, 8, values=self._cpus)
        except OSError:
            self.close()
            raise

    def close(self) -> None:
        for table in self._maps.values():
            table.close()

    # --- executors and their listeners

    def govern(self, groups: Cgroups) -> None:
        """Everything below `executors` is governed from now on, and refused until it is known as what."""
        level = cgroup.level(groups.executors)
        self.watch_level(level)
        self.watch_level(level + 1)
        self.set_executor(cgroup.cgroup_id(groups.executors), ExecutorMode.REFUSED)

    def watch_level(self, level: int) -> None:
        """Cgroups `level` below the root of the tree may be executors' from now on. OSError when that is too deep."""
        if not 1 <= level <= MAX_CGROUP_LEVEL:
            raise OSError(f"a cgroup {level} levels deep; the kernel programs look at levels 1 to {MAX_CGROUP_LEVEL}")
        levels = _U32.unpack(self._maps["executor_levels"].lookup(_U32.pack(0)) or bytes(4))[0]
        self._maps["executor_levels"].update(_U32.pack(0), _U32.pack(levels | 1 << (level - 1)))

    def set_executor(self, cgroup_id: int, mode: ExecutorMode) -> None:
        """Governs everything in the cgroup, whose level is watched. Raises OSError when full."""
        self._maps["executor_by_cgroup"].update(_U64.pack(cgroup_id), bytes(abi.Executor(mode)))

    def delete_executor(self, cgroup_id: int) -> None:
        self._maps["executor_by_cgroup"].delete(_U64.pack(cgroup_id))

    def executors(self) -> dict[int, ExecutorMode]:
        """Mode by cgroup id of all that are governed."""
        rows = self._maps["executor_by_cgroup"].items()
        return {_U64.unpack(key)[0]: ExecutorMode(abi.Executor.from_buffer_copy(value).mode) for key, value in rows}

    def set_listener(self, netns: int, executor: int, port: int, *, resolver_port: int = 0) -> None:
        """Flows of cgroup id `executor` in network namespace cookie `netns` go to `port` there; datagrams to port 53
        go to `resolver_port`, or nowhere when it is 0. Nobody else may bind either port."""
        place = bytes(abi.Place(netns, executor))
        before = self._maps["listener_by_place"].lookup(place)
        for guarded in filter(None, (port, resolver_port)):
            self._maps["guarded_ports"].update(_guarded(netns, guarded), _U64.pack(executor))
        listener = abi.Listener(socket.htons(port), socket.htons(resolver_port))
        self._maps["listener_by_place"].update(place, bytes(listener))
        if before is not None:
            left = abi.Listener.from_buffer_copy(before)
            for old in {socket.ntohs(left.port), socket.ntohs(left.resolver_port)} - {port, resolver_port}:
                self._maps["guarded_ports"].delete(_guarded(netns, old))

    def delete_listener(self, netns: int, executor: int) -> None:
        place = bytes(abi.Place(netns, executor))
        found = self._maps["listener_by_place"].lookup(place)
        self._maps["listener_by_place"].delete(place)
        if found is not None:
            listener = abi.Listener.from_buffer_copy(found)
            for port in (listener.port, listener.resolver_port):
                self._maps["guarded_ports"].delete(_guarded(netns, socket.ntohs(port)))

    @property
    def owners(self) -> Map:
        """Socket descriptor -> owner; for `takeover`."""
        return self._maps["owner_by_socket"]

    @property
    def tasks(self) -> Map:
        """Descriptor of a process -> its executor; for `takeover`."""
        return self._maps["executor_by_task"]

    def is_security_asked(self) -> bool:
        """Does the kernel ask the programs on its security hooks? One of them saw the very call that reads this."""
        return self._maps["security"].lookup(_U32.pack(SecuritySlot.ASKED)) not in (None, bytes(8))

    def set_epoch(self, epoch: int) -> None:
        """Labels OWNER_ANYONE count from now on when they were made with this number, never 0, as their `netns`."""
        self._maps["security"].update(_U32.pack(SecuritySlot.EPOCH), _U64.pack(epoch))

    def settle(self) -> None:
        """Says that whatever is older than the programs of this set has its labels: see `takeover`."""
        self._maps["security"].update(_U32.pack(SecuritySlot.SETTLED), _U64.pack(1))

    def places(self) -> list[tuple[int, int]]:
        """(network namespace cookie, executor) of every listener."""
        places = [abi.Place.from_buffer_copy(key) for key, _ in self._maps["listener_by_place"].items()]
        return [(place.netns, place.executor) for place in places]

    # --- cgroup paths and the tasks in them

    def set_path(self, path: str, executor: int) -> None:
        """Tasks moved to the cgroup at `path`, relative to the mount, or below it belong to `executor`. Raises OSError
        when it is too long, or the map is full."""
        self._maps["executor_by_path"].update(_path_key(f"/{path}/"), _U64.pack(executor))

    def delete_path(self, path: str) -> None:
        self._maps["executor_by_path"].delete(_path_key(f"/{path}/"))

    def watch_prefix(self, prefix: str) -> None:
        """Cgroups made at paths that begin so, relative to the mount, are governed from their first moment: as REFUSED,
        until they are known as what. OSError as above."""
        self._maps["executor_by_path"].update(_path_key(f"/{prefix}"), _U64.pack(0))

    def watched_prefixes(self) -> list[str]:
        rows = self._maps["executor_by_path"].items()
        keys = [abi.PathPrefix.from_buffer_copy(key) for key, value in rows if value == bytes(8)]
        return [bytes(key.path[: key.length // 8]).decode()[1:] for key in keys]

    def unwatch_prefix(self, prefix: str) -> None:
        self._maps["executor_by_path"].delete(_path_key(f"/{prefix}"))

    def track_task(self, pid: int, executor: int) -> None:
        self._maps["governed_tasks"].update(_U32.pack(pid), _U64.pack(executor))

    def untrack_tasks(self, executor: int) -> None:
        for pid, owner in self._maps["governed_tasks"].items():
            if _U64.unpack(owner)[0] == executor:
                self._maps["governed_tasks"].delete(pid)

    # --- generations

    @property
    def generation(self) -> int:
        """The number of the generation in force, 0 before the first."""
        return int(_U32.unpack(self._maps["generation"].lookup(_U32.pack(0)) or bytes(4))[0])

    def tries_in_force(self) -> Tries:
        """The tries in force, to be put in force again under a new number. Raises OSError when there are none."""
        slot = _U32.pack(self.generation & 1)
        return {version: self._inner(f"prefixes{version}", slot) for version in VERSIONS}

    def tries_named(self, name: str) -> Tries | None:
        """The tries in force, if they were built under `name` and in the form of today. Raises OSError."""
        if not name or not self.generation:
            return None
        tries = self.tries_in_force()
        for version, fd in tries.items():
            (kind, key_size, *_), _types = sysbpf.map_details(fd)
            if sysbpf.map_name(fd) != name or (kind, key_size) != (MapType.LPM_TRIE, KEY_SIZES[version]):
                for unused in tries.values():
                    os.close(unused)
                return None
        return tries

    def _inner(self, outer: str, slot: bytes) -> int:
        return sysbpf.map_by_id(_U32.unpack(self._maps[outer].lookup(slot) or bytes(4))[0])

    def swap(self, built: BuiltGeneration, *, after: int = 0) -> int:
        """Puts a built generation in force with one store, and lets go of it here.

        Its number, which is returned, follows the one in force and `after`. OSError leaves the old one in force.
        """
        number = max(self.generation, after) % 0xFFFFFFFE + 1
        slot = _U32.pack(number & 1)
        try:
            self._wait_for_programs()
            for version in VERSIONS:
                self._maps[f"prefixes{version}"].update(slot, _U32.pack(built.tries[version]))
            for name, fd in zip(_PER_GENERATION, (built.coarse, built.audiences, built.direct), strict=True):
                self._maps[name].update(slot, _U32.pack(fd))
        finally:
            built.close()
        self._maps["generation"].update(_U32.pack(0), _U32.pack(number))
        return number

    def _wait_for_programs(self) -> None:
        """Until every program that may have read the number before the present one has ended: the slot that is written
        next was theirs. The kernel waits for them at any update of a map of maps; this one changes nothing. Raises
        OSError."""
        present = _U32.pack(self.generation & 1)
        held = self._maps["prefixes4"].lookup(present)
        if held is not None:
            fd = sysbpf.map_by_id(_U32.unpack(held)[0])
            try:
                self._maps["prefixes4"].update(present, _U32.pack(fd))
            finally:
                os.close(fd)

    def set_audience(self, executor: int, entry: AudienceEntry) -> None:
        """An executor that started after the generation in force was built. Raises OSError."""
        fd = self._inner("audience_by_executor", _U32.pack(self.generation & 1))
        try:
            Map(fd, 8, ctypes.sizeof(abi.Audience)).update(_U64.pack(executor), audience_value(entry))
        finally:
            os.close(fd)

    def beat(self, limit: float) -> None:
        """Says that the supervisor lives; direct flows pass for `limit` seconds from now on."""
        self._maps["heartbeat"].update(_U32.pack(1), _U64.pack(int(limit * 1e9)))
        self._maps["heartbeat"].update(_U32.pack(0), _U64.pack(time.clock_gettime_ns(time.CLOCK_BOOTTIME)))

    # --- what the kernel tells

    def counters(self) -> dict[str, int]:
        """Every counter by its name in `bpf/abi.h`, summed over CPUs."""
        totals = {}
        for index, name in enumerate(abi.enum_names("counter")):
            raw = self._maps["counters"].lookup(_U32.pack(index)) or bytes(8 * self._cpus)
            totals[name] = sum(struct.unpack(f"={self._cpus}Q", raw))
        return totals

    def carry_over(self, older: Tables) -> None:
        """Takes over who is governed and where to from the set before this one, and goes on counting from there."""
        for name in _CARRIED:
            for key, value in older._maps[name].items():
                self._maps[name].update(key, value)
        totals = older.counters()
        for index, name in enumerate(abi.enum_names("counter")):
            raw = self._maps["counters"].lookup(_U32.pack(index)) or bytes(8 * self._cpus)
            values = list(struct.unpack(f"={self._cpus}Q", raw))
            values[0] += totals[name]
            self._maps["counters"].update(_U32.pack(index), struct.pack(f"={self._cpus}Q", *values))

    def pop_refusals(self, limit: int) -> list[KernelRefusal]:
        """Takes up to `limit` refusals, oldest first."""
        names = abi.enum_names("counter")
        taken: list[KernelRefusal] = []
        while len(taken) < limit and (raw := self._maps["refusals"].pop()) is not None:
            event = abi.Refusal.from_buffer_copy(raw)
            taken.append(
                KernelRefusal(
                    event.time,
                    event.executor,
                    event.netns,
                    _endpoint(event) if event.family else None,
                    event.pid,
                    event.uid,
                    names[event.reason],
                )
            )
        return taken

    def pop_direct_events(self, limit: int) -> list[DirectEvent]:
        """Takes up to `limit` beginnings and ends of direct flows, oldest first."""
        taken: list[DirectEvent] = []
        while len(taken) < limit and (raw := self._maps["direct_events"].pop()) is not None:
            event = abi.DirectEvent.from_buffer_copy(raw)
            flow = event.flow
            taken.append(
                DirectEvent(
                    executor=flow.executor,
                    cookie=flow.cookie,
                    destination=_endpoint(flow),
                    region_set=flow.region_set,
                    generation=flow.generation,
                    rule=flow.rule,
                    pid=flow.pid,
                    uid=flow.uid,
                    opened_ns=flow.opened,
                    time_ns=event.time,
                    ended=bool(event.ended),
                    bytes_up=event.bytes_up,
                    bytes_down=event.bytes_down,
                )
            )
        return taken

    def pop_cgroup_events(self, limit: int) -> list[CgroupEvent]:
        """Takes up to `limit` events of the cgroup tree, oldest first."""
        taken: list[CgroupEvent] = []
        while len(taken) < limit and (raw := self._maps["cgroup_events"].pop()) is not None:
            event = abi.CgroupEvent.from_buffer_copy(raw)
            taken.append(
                CgroupEvent(
                    CgroupEventKind(event.kind), event.cgroup, event.executor, event.pid, event.by, bool(event.killed)
                )
            )
        return taken

    def open_flows(self) -> int:
        """Redirected connections the kernel holds at this moment."""
        return sum(1 for _ in self._maps["original_dst_by_tuple"].keys())  # noqa: SIM118 - a map, not a mapping


def _endpoint(event: abi.Refusal | abi.FlowRecord) -> Endpoint:
    return Endpoint(abi.address_of(event.address, event.family), abi.port_of(event.port))


def _guarded(netns: int, port: int) -> bytes:
    return bytes(abi.GuardedPort(netns, socket.htons(port)))


def _path_key(path: str) -> bytes:
    raw = path.encode()
    if len(raw) > abi.PATH_BYTES:
        raise OSError(f"cgroup path {path} is longer than {abi.PATH_BYTES - 2} bytes")
    return bytes(abi.PathPrefix(len(raw) * 8, (ctypes.c_uint8 * abi.PATH_BYTES)(*raw)))


def _possible_cpus() -> int:
    """Per-CPU values come one per *possible* CPU, which may be more than are online."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return int(ranges[-1].split("-")[-1]) + 1
