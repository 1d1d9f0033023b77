"""Step 1 of 6, capture: what Python and the kernel side share, mirrored from `bpf/abi.h` and checked when loading.

Structs are mirrored here by hand and compared, field by field, with what the compiler made of the header; enum names
are read from the header itself, so that they are written once.
"""

from __future__ import annotations

import ctypes
import re
import socket
from enum import IntEnum
from functools import cache
from ipaddress import IPv4Address, IPv6Address

from enforcer.capture.source import source_directory
from enforcer.errors import KernelError
from enforcer.flow import Address

OPTION_FLOW_RECORD = 17734  # bpf/consts.h
OWNER_ANYONE = 2**64 - 1  # bpf/abi.h


_u8, _u16, _u32, _u64 = ctypes.c_uint8, ctypes.c_uint16, ctypes.c_uint32, ctypes.c_uint64


class Executor(ctypes.Structure):
    _fields_ = (("mode", _u32), ("pad", _u32))


class FlowRecord(ctypes.Structure):
    _fields_ = (
        ("cookie", _u64),
        ("executor", _u64),
        ("netns", _u64),
        ("opened", _u64),
        ("address", _u32 * 4),
        ("region_set", _u32),
        ("generation", _u32),
        ("pid", _u32),
        ("uid", _u32),
        ("port", _u16),
        ("family", _u8),
        ("path", _u8),
        ("rule", _u32),
    )


class Owner(ctypes.Structure):
    _fields_ = (
        ("executor", _u64),
        ("netns", _u64),
        ("asked", _u32 * 4),
        ("asked_port", _u16),
        ("asked_family", _u8),
        ("pad", _u8 * 5),
        ("flow", FlowRecord),
        ("received_before_fin", _u64),
    )


class Tuple(ctypes.Structure):
    _fields_ = (
        ("netns", _u64),
        ("source", _u32 * 4),
        ("target", _u32 * 4),
        ("source_port", _u16),
        ("target_port", _u16),
        ("pad", _u32),
    )


class Place(ctypes.Structure):
    _fields_ = (("netns", _u64), ("executor", _u64))


class Listener(ctypes.Structure):
    _fields_ = (("port", _u16), ("resolver_port", _u16), ("pad", _u32))


class GuardedPort(ctypes.Structure):
    _fields_ = (("netns", _u64), ("port", _u16), ("pad", _u16 * 3))


class PortRange(ctypes.Structure):
    _fields_ = (("low", _u16), ("high", _u16))


MAX_HOST_RANGES, MAX_DIRECT_RANGES = 8, 4  # bpf/abi.h


class Audience(ctypes.Structure):
    _fields_ = (("number", _u32), ("host_count", _u32), ("host", PortRange * MAX_HOST_RANGES))


class DirectKey(ctypes.Structure):
    _fields_ = (("audience", _u32), ("region_set", _u32))


class DirectRange(ctypes.Structure):
    _fields_ = (("low", _u16), ("high", _u16), ("rule", _u32))


class DirectPorts(ctypes.Structure):
    _fields_ = (("count", _u32), ("ranges", DirectRange * MAX_DIRECT_RANGES))


class Refusal(ctypes.Structure):
    _fields_ = (
        ("time", _u64),
        ("executor", _u64),
        ("netns", _u64),
        ("address", _u32 * 4),
        ("pid", _u32),
        ("uid", _u32),
        ("port", _u16),
        ("family", _u8),
        ("reason", _u8),
        ("pad", _u32),
    )


class DirectEvent(ctypes.Structure):
    _fields_ = (("flow", FlowRecord), ("time", _u64), ("bytes_up", _u64), ("bytes_down", _u64), ("ended", _u64))


class CgroupEvent(ctypes.Structure):
    _fields_ = (
        ("time", _u64),
        ("cgroup", _u64),
        ("executor", _u64),
        ("kind", _u32),
        ("pid", _u32),
        ("by", _u32),
        ("killed", _u32),
    )


PATH_BYTES = 248  # bpf/abi.h


class PathPrefix(ctypes.Structure):
    _fields_ = (("length", _u32), ("path", _u8 * PATH_BYTES))


# Every map whose key or value is a struct, and its mirror: what the loader compares.
KEY_LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "listener_by_place": Place,
    "guarded_ports": GuardedPort,
    "original_dst_by_tuple": Tuple,
    "closed_dst_by_tuple": Tuple,
    "direct_shape": DirectKey,
    "executor_by_path": PathPrefix,
}
VALUE_LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "executor_by_cgroup": Executor,
    "owner_by_socket": Owner,
    "listener_by_place": Listener,
    "original_dst_by_tuple": FlowRecord,
    "closed_dst_by_tuple": FlowRecord,
    "refusals": Refusal,
    "direct_events": DirectEvent,
    "cgroup_events": CgroupEvent,
}


def layout(struct: type[ctypes.Structure]) -> list[tuple[str, int, int]]:
    """(field, offset, size) of each field, in order."""
    fields = [str(field[0]) for field in struct._fields_]
    return [(name, getattr(struct, name).offset, getattr(struct, name).size) for name in fields]


def check_layout(what: str, mirror: type[ctypes.Structure], compiled: type[ctypes.Structure]) -> None:
    """Raises KernelError naming the first difference between our mirror and the compiler's layout."""
    ours, theirs = layout(mirror), layout(compiled)
    for mine, actual in zip(ours, theirs, strict=False):
        if mine != actual:
            raise KernelError(
                f"ABI drift in {what}: {mine} here, {actual} in the kernel program; reinstall the package"
            )
    if len(ours) != len(theirs) or ctypes.sizeof(mirror) != ctypes.sizeof(compiled):
        raise KernelError(f"ABI drift in {what}: sizes differ; reinstall the package")


@cache
def enum_names(enum: str) -> tuple[str, ...]:
    """The names of one enum of `bpf/abi.h`, in order; a final `*_COUNT` is left out."""
    text = (source_directory() / "abi.h").read_text()
    body = re.search(rf"enum {enum} \{{(.*?)\}};", text, re.DOTALL)
    if body is None:
        raise KernelError(f"bpf/abi.h has no enum {enum}; reinstall the package")
    code = re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL)
    names = [name.strip() for name in code.split(",") if name.strip()]
    return tuple(name for name in names if not name.endswith("_COUNT"))


class CoarseVerdict(IntEnum):
    REFUSE = 0
    REDIRECT = 1
    MAYBE_DIRECT = 2


class ExecutorMode(IntEnum):
    """`REFUSED`: known to be governed, nothing let through yet."""

    REFUSED = 0
    ISOLATED = 1
    ATTACHED = 2


class FlowPath(IntEnum):
    NONE = 0
    PROXY = 1
    LOOPBACK = 2
    DIRECT = 3
    RESOLVER = 4


class SecuritySlot(IntEnum):
    """Index into `security`."""

    ASKED = 0
    EPOCH = 1
    SETTLED = 2


class CgroupEventKind(IntEnum):
    MADE = 0
    GONE = 1
    ESCAPE = 2


def address_of(words: ctypes.Array[ctypes.c_uint32], family: int) -> Address:
    """An address from four words in network byte order; `family` is 4 or 6."""
    raw = bytes(words)
    return IPv4Address(raw[:4]) if family == 4 else IPv6Address(raw)


def port_of(port: int) -> int:
    """A port from its network byte order."""
    return socket.ntohs(port)
