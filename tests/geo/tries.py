"""Real tries of the kernel, asked as quickly as Python can: one buffer, one system call per address."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from enforcer.capture import sysbpf
from enforcer.capture.generation import PrefixSource, Tries, build_tries
from enforcer.capture.sysbpf import Command

_libc = ctypes.CDLL(None, use_errno=True)


class Trie:
    """`find(value)`: the set id that the kernel has for an address; 0 on a miss, as in the programs."""

    def __init__(self, fd: int, version: Literal[4, 6]) -> None:
        self._width = 4 if version == 4 else 16
        self._key = (ctypes.c_char * (4 + self._width))()
        struct.pack_into("=I", self._key, 0, 8 * self._width)
        self._value = ctypes.c_uint32()
        places = struct.pack("=IIQQ", fd, 0, ctypes.addressof(self._key), ctypes.addressof(self._value))
        self._attribute = ctypes.create_string_buffer(places, 128)
        self._number = sysbpf._SYSCALL_NUMBERS[platform.machine()]

    def find(self, value: int) -> int:
        self._key[4:] = value.to_bytes(self._width)
        self._value.value = 0
        _libc.syscall(self._number, int(Command.MAP_LOOKUP_ELEM), self._attribute, 128)
        return self._value.value


@contextmanager
def in_kernel(table: PrefixSource) -> Iterator[dict[Literal[4, 6], Trie]]:
    """The table as the product puts it into the kernel; gone afterwards."""
    tries: Tries = build_tries(table)
    try:
        yield {version: Trie(fd, version) for version, fd in tries.items()}
    finally:
        for fd in tries.values():
            os.close(fd)
