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


class FlowRecord(ctypes.Structure):
    _fields_ = (
        ("cookie", ctypes.c_uint64),
        ("executor", ctypes.c_uint64),
        ("netns", ctypes.c_uint64),
        ("address", ctypes.c_uint32 * 4),
        ("region_set", ctypes.c_uint32),
        ("generation", ctypes.c_uint32),
        ("pid", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("family", ctypes.c_uint8),
        ("redirected", ctypes.c_uint8),
        ("pad", ctypes.c_uint32),
    )


class Tuple(ctypes.Structure):
    _fields_ = (
        ("netns", ctypes.c_uint64),
        ("source", ctypes.c_uint32 * 4),
        ("target", ctypes.c_uint32 * 4),
        ("source_port", ctypes.c_uint16),
        ("target_port", ctypes.c_uint16),
        ("pad", ctypes.c_uint32),
    )


class Listener(ctypes.Structure):
    _fields_ = (("executor", ctypes.c_uint64), ("port", ctypes.c_uint16), ("pad", ctypes.c_uint16 * 3))


class Refusal(ctypes.Structure):
    _fields_ = (
        ("time", ctypes.c_uint64),
        ("executor", ctypes.c_uint64),
        ("address", ctypes.c_uint32 * 4),
        ("pid", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("port", ctypes.c_uint16),
        ("family", ctypes.c_uint8),
        ("reason", ctypes.c_uint8),
        ("pad", ctypes.c_uint32),
    )


# Every map whose key or value is a struct, and its mirror: what the loader compares.
KEY_LAYOUTS: dict[str, type[ctypes.Structure]] = {"original_dst_by_tuple": Tuple}
VALUE_LAYOUTS: dict[str, type[ctypes.Structure]] = {
    "listener_by_netns": Listener,
    "flow_by_socket": FlowRecord,
    "original_dst_by_tuple": FlowRecord,
    "refusals": Refusal,
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


def address_of(words: ctypes.Array[ctypes.c_uint32], family: int) -> Address:
    """An address from four words in network byte order; `family` is 4 or 6."""
    raw = bytes(words)
    return IPv4Address(raw[:4]) if family == 4 else IPv6Address(raw)


def port_of(port: int) -> int:
    """A port from its network byte order."""
    return socket.ntohs(port)
