"""Step 1 of 6, capture: the pinned maps of one loaded set, as typed operations for the supervisor."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from enforcer.capture import abi, sysbpf
from enforcer.capture.abi import CoarseVerdict
from enforcer.capture.sysbpf import Map, MapType
from enforcer.flow import Endpoint

MAX_REGION_SETS = 65536  # bpf/consts.h
_U32 = struct.Struct("=I")
_VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)


class PrefixSource(Protocol):
    """What a generation is built from; `enforcer.geo`'s table is one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of prefixes, as `v4` and `v6`."""

    def kernel_entries(self, version: Literal[4, 6]) -> Iterator[tuple[int, bytes, bytes]]:
        """(count, packed keys, packed values) in chunks."""


@dataclass(frozen=True, slots=True)
class KernelRefusal:
    """One refusal made at connect(). `time_ns` is on the monotonic clock."""

    time_ns: int
    executor: int
    destination: Endpoint
    pid: int
    uid: int
    reason: str


@dataclass(frozen=True, slots=True)
class BuiltGeneration:
    """Descriptors of the inner maps of a generation not in force yet: it can be built before its set is loaded."""

    tries: Mapping[Literal[4, 6], int]
    coarse: int

    def close(self) -> None:
        for fd in (*self.tries.values(), self.coarse):
            os.close(fd)


def build_generation(source: PrefixSource, coarse: Mapping[int, CoarseVerdict]) -> BuiltGeneration:
    """Both tries, counted, and the coarse verdicts; region sets missing from `coarse` are refused. Raises OSError."""
    fds: list[int] = []
    try:
        for version in _VERSIONS:
            fds.append(_build_trie(source, version))
        fds.append(_build_coarse(coarse))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return BuiltGeneration(dict(zip(_VERSIONS, fds, strict=False)), fds[-1])


class Tables:
    """Opens every map of the set in `directory`."""

    def __init__(self, directory: Path) -> None:
        def opened(name: str, key: int, value: int) -> Map:
            return Map(sysbpf.get_pinned(directory / f"map_{name}"), key, value)

        self._cpus = _possible_cpus()
        self._listeners = opened("listener_by_netns", 8, ctypes.sizeof(abi.Listener))
        self._flows = opened("original_dst_by_tuple", ctypes.sizeof(abi.Tuple), ctypes.sizeof(abi.FlowRecord))
        self._generation = opened("generation", 4, 4)
        self._prefixes: dict[Literal[4, 6], Map] = {4: opened("prefixes4", 4, 4), 6: opened("prefixes6", 4, 4)}
        self._coarse = opened("coarse_by_region_set", 4, 4)
        self._counters = opened("counters", 4, 8 * self._cpus)
        self._refusals = opened("refusals", 0, ctypes.sizeof(abi.Refusal))

    def close(self) -> None:
        for table in (
            self._listeners,
            self._flows,
            self._generation,
            *self._prefixes.values(),
            self._coarse,
            self._counters,
            self._refusals,
        ):
            table.close()

    def set_listener(self, netns: int, executor: int, port: int) -> None:
        """Flows of network namespace cookie `netns` go to `port` there and belong to cgroup id `executor`."""
        self._listeners.update(_u64(netns), struct.pack("=Q2s6x", executor, struct.pack("!H", port)))

    def delete_listener(self, netns: int) -> None:
        self._listeners.delete(_u64(netns))

    @property
    def generation(self) -> int:
        """The number of the generation in force, 0 before the first."""
        return int(_U32.unpack(self._generation.lookup(_U32.pack(0)) or bytes(4))[0])

    def in_force(self) -> BuiltGeneration:
        """The generation in force, to be put in force again under a new number. Raises OSError when there is none."""
        slot = _U32.pack(self.generation & 1)
        outers = (*(self._prefixes[version] for version in _VERSIONS), self._coarse)
        idents = [outer.lookup(slot) for outer in outers]
        fds = [sysbpf.map_by_id(_U32.unpack(ident or bytes(4))[0]) for ident in idents]
        return BuiltGeneration(dict(zip(_VERSIONS, fds, strict=False)), fds[-1])

    def swap(self, built: BuiltGeneration, *, after: int = 0) -> int:
        """Puts a built generation in force with one store, and lets go of it here.

        Its number, which is returned, follows the one in force and `after`. OSError leaves the old one in force.
        """
        number = max(self.generation, after) % 0xFFFFFFFE + 1
        slot = _U32.pack(number & 1)
        try:
            for version, outer in self._prefixes.items():
                outer.update(slot, _U32.pack(built.tries[version]))
            self._coarse.update(slot, _U32.pack(built.coarse))
        finally:
            built.close()
        self._generation.update(_U32.pack(0), _U32.pack(number))
        return number

    def counters(self) -> dict[str, int]:
        """Every counter by its name in `bpf/abi.h`, summed over CPUs."""
        totals = {}
        for index, name in enumerate(abi.enum_names("counter")):
            raw = self._counters.lookup(_U32.pack(index)) or bytes(8 * self._cpus)
            totals[name] = sum(struct.unpack(f"={self._cpus}Q", raw))
        return totals

    def carry_counters(self, totals: Mapping[str, int]) -> None:
        """Adds an older set's totals, so that counters go on over a restart."""
        for index, name in enumerate(abi.enum_names("counter")):
            raw = self._counters.lookup(_U32.pack(index)) or bytes(8 * self._cpus)
            values = list(struct.unpack(f"={self._cpus}Q", raw))
            values[0] += totals.get(name, 0)
            self._counters.update(_U32.pack(index), struct.pack(f"={self._cpus}Q", *values))

    def pop_refusals(self, limit: int) -> list[KernelRefusal]:
        """Takes up to `limit` refusals, oldest first."""
        names = abi.enum_names("counter")
        taken: list[KernelRefusal] = []
        while len(taken) < limit and (raw := self._refusals.pop()) is not None:
            event = abi.Refusal.from_buffer_copy(raw)
            destination = Endpoint(abi.address_of(event.address, event.family), abi.port_of(event.port))
            taken.append(
                KernelRefusal(event.time, event.executor, destination, event.pid, event.uid, names[event.reason])
            )
        return taken

    def open_flows(self) -> int:
        """Redirected connections the kernel holds at this moment."""
        return sum(1 for _ in self._flows.keys())  # noqa: SIM118 - a map, not a mapping


def _build_trie(source: PrefixSource, version: Literal[4, 6]) -> int:
    key_size = 8 if version == 4 else 20
    promised = source.counts[f"v{version}"]
    fd = sysbpf.map_create(
        MapType.LPM_TRIE, key_size=key_size, value_size=4, max_entries=max(promised, 1), flags=sysbpf.BPF_F_NO_PREALLOC
    )
    try:
        inserted = 0
        trie = Map(fd, key_size, 4)
        for count, keys, values in source.kernel_entries(version):
            trie.update_batch(keys, values, count)
            inserted += count
        if inserted != promised:
            raise OSError(f"the IPv{version} table promises {promised} prefixes and holds {inserted}")
    except OSError:
        os.close(fd)
        raise
    return fd


def _build_coarse(coarse: Mapping[int, CoarseVerdict]) -> int:
    fd = sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=MAX_REGION_SETS)
    table = Map(fd, 4, 4)
    try:
        for region_set, verdict in coarse.items():
            table.update(_U32.pack(region_set), _U32.pack(verdict))
    except OSError:
        os.close(fd)
        raise
    return fd


def _u64(value: int) -> bytes:
    return struct.pack("=Q", value)


def _possible_cpus() -> int:
    """Per-CPU values come one per *possible* CPU, which may be more than are online."""
    ranges = Path("/sys/devices/system/cpu/possible").read_text().strip().split(",")
    return int(ranges[-1].split("-")[-1]) + 1
