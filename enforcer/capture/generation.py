"""Step 1 of 6, capture: one generation of kernel tables, built aside: what a destination is, and what goes past the
proxy.

Gets a geography table and the plan of the enabled policies; hands on descriptors of maps that nothing uses yet.
`Tables.swap` puts them in force with one store.
"""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from enforcer.capture import abi, sysbpf
from enforcer.capture.abi import CoarseVerdict
from enforcer.capture.sysbpf import Map, MapType

MAX_REGION_SETS = 65536  # bpf/consts.h
MAX_EXECUTORS = 4096  # bpf/consts.h
VERSIONS: tuple[Literal[4, 6], ...] = (4, 6)
# Bytes of a key of the tries, struct prefix4 and prefix6.
KEY_SIZES: Mapping[Literal[4, 6], int] = {4: 8, 6: 20}
# Descriptors of the two longest-prefix tries, by IP version.
Tries = Mapping[Literal[4, 6], int]
_U32 = struct.Struct("=I")
_U64 = struct.Struct("=Q")


class PrefixSource(Protocol):
    """What a generation is built from; `enforcer.geo`'s table is one."""

    @property
    def counts(self) -> Mapping[str, int]:
        """Number of prefixes, as `v4` and `v6`."""

    def kernel_entries(self, version: Literal[4, 6]) -> Iterator[tuple[int, bytes, bytes]]:
        """(count, packed keys, packed values) in chunks."""


@dataclass(frozen=True, slots=True)
class AudienceEntry:
    """What a generation says of one executor: the number it shares with those that have the same policies, and which
    ports of the host's loopback some rule may allow it (inclusive ranges)."""

    number: int
    host_ports: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class DirectPlan:
    """`audiences`: executor's cgroup id -> entry. `direct`: (audience, region set id) -> up to four inclusive
    (low, high, rule number); what is not there goes through the proxy."""

    audiences: Mapping[int, AudienceEntry] = field(default_factory=dict)
    direct: Mapping[tuple[int, int], Sequence[tuple[int, int, int]]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class BuiltGeneration:
    """Descriptors of the inner maps of a generation not in force yet: it can be built before its set is loaded."""

    tries: Tries
    coarse: int
    audiences: int
    direct: int

    def close(self) -> None:
        for fd in (*self.tries.values(), self.coarse, self.audiences, self.direct):
            os.close(fd)


def build_tries(source: PrefixSource, name: str = "") -> Tries:
    """Both tries, counted; their descriptors are the caller's. `name`: by which `Tables.tries_named` finds them again.
    Raises OSError."""
    tries: dict[Literal[4, 6], int] = {}
    try:
        for version in VERSIONS:
            tries[version] = _build_trie(source, version, name)
    except OSError:
        for fd in tries.values():
            os.close(fd)
        raise
    return tries


def build_generation(tries: Tries, coarse: Mapping[int, CoarseVerdict], plan: DirectPlan) -> BuiltGeneration:
    """Takes over `tries`; region sets missing from `coarse` are refused. Raises OSError, with `tries` closed."""
    fds = list(tries.values())
    try:
        fds.append(_build_coarse(coarse, {region_set for _, region_set in plan.direct}))
        fds.append(_build_audiences(plan.audiences))
        fds.append(_build_direct(plan.direct))
    except OSError:
        for fd in fds:
            os.close(fd)
        raise
    return BuiltGeneration(tries, *fds[len(tries) :])


def audience_value(entry: AudienceEntry) -> bytes:
    """The kernel's form. OSError when it names more ranges than the kernel holds: the plan is to leave those out."""
    if len(entry.host_ports) > abi.MAX_HOST_RANGES:
        raise OSError(f"{len(entry.host_ports)} ranges of host ports, the kernel holds {abi.MAX_HOST_RANGES}")
    ranges = (abi.PortRange * abi.MAX_HOST_RANGES)(*[abi.PortRange(*ports) for ports in entry.host_ports])
    return bytes(abi.Audience(entry.number, len(entry.host_ports), ranges))


def _build_trie(source: PrefixSource, version: Literal[4, 6], name: str) -> int:
    key_size = KEY_SIZES[version]
    promised = source.counts[f"v{version}"]
    fd = sysbpf.map_create(
        MapType.LPM_TRIE,
        key_size=key_size,
        value_size=4,
        max_entries=max(promised, 1),
        flags=sysbpf.BPF_F_NO_PREALLOC,
        name=name,
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


def _build_coarse(coarse: Mapping[int, CoarseVerdict], maybe_direct: set[int]) -> int:
    """A region set that goes direct for somebody is marked, so that all others are spared the second look."""
    fd = sysbpf.map_create(MapType.ARRAY, key_size=4, value_size=4, max_entries=MAX_REGION_SETS)
    table = Map(fd, 4, 4)
    try:
        for region_set, verdict in coarse.items():
            marked = verdict == CoarseVerdict.REDIRECT and region_set in maybe_direct
            table.update(_U32.pack(region_set), _U32.pack(CoarseVerdict.MAYBE_DIRECT if marked else verdict))
    except OSError:
        os.close(fd)
        raise
    return fd


def _build_audiences(audiences: Mapping[int, AudienceEntry]) -> int:
    rows = ((_U64.pack(executor), audience_value(entry)) for executor, entry in audiences.items())
    return _build_hash(rows, key_size=8, value_size=ctypes.sizeof(abi.Audience), max_entries=MAX_EXECUTORS)


def _build_direct(direct: Mapping[tuple[int, int], Sequence[tuple[int, int, int]]]) -> int:
    def row(key: tuple[int, int], ports: Sequence[tuple[int, int, int]]) -> tuple[bytes, bytes]:
        if len(ports) > abi.MAX_DIRECT_RANGES:
            raise OSError(f"{len(ports)} direct port ranges, the kernel holds {abi.MAX_DIRECT_RANGES}")
        ranges = (abi.DirectRange * abi.MAX_DIRECT_RANGES)(*[abi.DirectRange(*one) for one in ports])
        return bytes(abi.DirectKey(*key)), bytes(abi.DirectPorts(len(ports), ranges))

    rows = (row(key, ports) for key, ports in direct.items())
    sizes = {"key_size": ctypes.sizeof(abi.DirectKey), "value_size": ctypes.sizeof(abi.DirectPorts)}
    return _build_hash(rows, max_entries=max(len(direct), 1), **sizes)


def _build_hash(rows: Iterable[tuple[bytes, bytes]], *, key_size: int, value_size: int, max_entries: int) -> int:
    fd = sysbpf.map_create(MapType.HASH, key_size=key_size, value_size=value_size, max_entries=max_entries)
    table = Map(fd, key_size, value_size)
    try:
        for key, value in rows:
            table.update(key, value)
    except OSError:
        os.close(fd)
        raise
    return fd
