"""Step 1 of 6, capture: the bpf(2) system call over ctypes, no more of it than we use.

BCC's own attach is the legacy one, which stacks a copy of the program at each restart and cannot be updated. Links can
be pinned and swapped atomically, and the supervisor that does so must not carry a compiler. See bpf(2),
include/uapi/linux/bpf.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator
from enum import IntEnum
from pathlib import Path

from enforcer.errors import KernelError

# __NR_bpf: arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h.
_SYSCALL_NUMBERS = {"x86_64": 321, "aarch64": 280}
# Large enough for every attribute below; the kernel refuses trailing bytes only when they are not zero.
_ATTRIBUTE_SIZE = 128

_libc = ctypes.CDLL(None, use_errno=True)


class Command(IntEnum):
    MAP_CREATE = 0
    MAP_LOOKUP_ELEM = 1
    MAP_UPDATE_ELEM = 2
    MAP_DELETE_ELEM = 3
    MAP_GET_NEXT_KEY = 4
    PROG_LOAD = 5
    OBJ_PIN = 6
    OBJ_GET = 7
    OBJ_GET_INFO_BY_FD = 15
    MAP_GET_FD_BY_ID = 14
    PROG_QUERY = 16
    BTF_LOAD = 18
    BTF_GET_FD_BY_ID = 19
    MAP_LOOKUP_AND_DELETE_ELEM = 21
    MAP_UPDATE_BATCH = 26
    LINK_CREATE = 28
    LINK_UPDATE = 29


class MapType(IntEnum):
    HASH = 1
    ARRAY = 2
    LPM_TRIE = 11
    ARRAY_OF_MAPS = 12


class ProgramType(IntEnum):
    """enum bpf_prog_type, those we use."""

    SCHED_CLS = 3
    TRACEPOINT = 5
    CGROUP_SKB = 8
    CGROUP_SOCK = 9
    SOCK_OPS = 13
    CGROUP_SOCK_ADDR = 18
    CGROUP_SOCKOPT = 25
    LSM = 29


class AttachType(IntEnum):
    """enum bpf_attach_type, those we use."""

    CGROUP_INET_EGRESS = 1
    CGROUP_INET_SOCK_CREATE = 2
    CGROUP_SOCK_OPS = 3
    CGROUP_INET4_BIND = 8
    CGROUP_INET6_BIND = 9
    CGROUP_INET4_CONNECT = 10
    CGROUP_INET6_CONNECT = 11
    CGROUP_INET4_POST_BIND = 12
    CGROUP_INET6_POST_BIND = 13
    CGROUP_UDP4_SENDMSG = 14
    CGROUP_UDP6_SENDMSG = 15
    CGROUP_UDP4_RECVMSG = 19
    CGROUP_UDP6_RECVMSG = 20
    CGROUP_GETSOCKOPT = 21
    CGROUP_SETSOCKOPT = 22
    LSM_MAC = 27
    CGROUP_INET4_GETPEERNAME = 29
    CGROUP_INET6_GETPEERNAME = 30
    PERF_EVENT = 41


BPF_F_NO_PREALLOC = 1
_BPF_NOEXIST = 1
# The beginnings of bpf_link_info, bpf_prog_info and bpf_map_info that are read here; the kernel fills in no more.
INFO_SIZE = 80
# Of an object's name, with its closing zero (BPF_OBJ_NAME_LEN).
_NAME_SIZE = 16
# Of what the verifier says of a program that it refuses.
_LOG_SIZE = 1 << 20


def bpf(command: Command, attribute: bytes) -> int:
    """Issues the call. Returns its result; raises OSError with the kernel's errno."""
    result, _ = _bpf(command, attribute)
    return result


def _bpf(command: Command, attribute: bytes) -> tuple[int, bytes]:
    """The result, and the attribute as the kernel left it."""
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(f"bpf(2) is not known on {platform.machine()}; use x86_64 or aarch64")
    buffer = ctypes.create_string_buffer(attribute.ljust(_ATTRIBUTE_SIZE, b"\0"), _ATTRIBUTE_SIZE)
    result = _libc.syscall(number, int(command), buffer, _ATTRIBUTE_SIZE)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"bpf({command.name}): {os.strerror(code)}")
    return result, buffer.raw


def _pathname(path: Path) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(bytes(path))


def pin(fd: int, path: Path) -> None:
    """Makes the object outlive this process under `path` on a BPF file system."""
    name = _pathname(path)
    bpf(Command.OBJ_PIN, struct.pack("=QII", ctypes.addressof(name), fd, 0))


def get_pinned(path: Path) -> int:
    """A new descriptor of the object pinned at `path`."""
    name = _pathname(path)
    return bpf(Command.OBJ_GET, struct.pack("=QII", ctypes.addressof(name), 0, 0))


def link_create(program: int, target: int, attach_type: AttachType) -> int:
    """Attaches to a cgroup or a perf event by its descriptor (0 for LSM); the program stays until the link goes."""
    return bpf(Command.LINK_CREATE, struct.pack("=IIII", program, target, attach_type, 0))


def link_update(link: int, program: int) -> None:
    """Swaps the link's program atomically. OSError(ENOLINK) when its cgroup is gone."""
    bpf(Command.LINK_UPDATE, struct.pack("=IIII", link, program, 0, 0))


def _info(fd: int) -> bytes:
    info = ctypes.create_string_buffer(INFO_SIZE)
    bpf(Command.OBJ_GET_INFO_BY_FD, struct.pack("=IIQ", fd, INFO_SIZE, ctypes.addressof(info)))
    return info.raw


def link_program(link: int) -> int:
    """The id of the program a link runs (struct bpf_link_info.prog_id)."""
    return int(struct.unpack_from("=I", _info(link), 8)[0])


def link_cgroup(link: int) -> int:
    """The cgroup id a link is attached to, 0 once that cgroup is gone (struct bpf_link_info.cgroup)."""
    return int(struct.unpack_from("=Q", _info(link), 16)[0])


def program_id(program: int) -> int:
    """struct bpf_prog_info.id."""
    return int(struct.unpack_from("=I", _info(program), 4)[0])


def program_tag(program: int) -> bytes:
    """A digest of its instructions, whatever maps they work on (struct bpf_prog_info.tag)."""
    return _info(program)[8:16]


def attached_programs(cgroup: int, attach_type: AttachType) -> tuple[int, ...]:
    """Ids of the programs attached to this cgroup itself for one hook."""
    ids = (ctypes.c_uint32 * 64)()
    attribute = struct.pack("=IIIIQI", cgroup, attach_type, 0, 0, ctypes.addressof(ids), len(ids))
    _, after = _bpf(Command.PROG_QUERY, attribute)
    (count,) = struct.unpack_from("=I", after, 24)
    return tuple(ids[:count])


def map_by_id(ident: int) -> int:
    """A new descriptor of the map with that id, as a map of maps names it to user space."""
    return bpf(Command.MAP_GET_FD_BY_ID, struct.pack("=III", ident, 0, 0))


def map_create(
    kind: int,
    *,
    key_size: int,
    value_size: int,
    max_entries: int,
    flags: int = 0,
    inner: int = 0,
    name: str = "",
    types: tuple[int, int, int] = (0, 0, 0),
) -> int:
    """`inner`: of a map of maps, one like those that it will hold; `types`: loaded types, the key's and the value's."""
    sizes = struct.pack("=7I", kind, key_size, value_size, max_entries, flags, inner, 0)
    return bpf(Command.MAP_CREATE, sizes + _short(name) + struct.pack("=4I", 0, *types))


def map_details(fd: int) -> tuple[tuple[int, int, int, int, int], tuple[int, int, int]]:
    """What `map_create` takes of a map: kind, sizes of key and value, entries, flags; id of its types, the key's and
    the value's (struct bpf_map_info)."""
    kind, _ident, key_size, value_size, max_entries, flags = struct.unpack_from("=6I", _info(fd))
    types, key_type, value_type = struct.unpack_from("=3I", _info(fd), 64)
    return (kind, key_size, value_size, max_entries, flags), (types, key_type, value_type)


def map_name(fd: int) -> str:
    """The name it was created with."""
    return _info(fd)[24:40].rstrip(b"\0").decode()


def types_load(types: bytes) -> int:
    """The descriptor of BTF that this kernel holds from now on."""
    buffer = ctypes.create_string_buffer(types, len(types))
    return bpf(Command.BTF_LOAD, struct.pack("=QQI", ctypes.addressof(buffer), 0, len(types)))


def types_by_id(ident: int) -> bytes:
    """BTF that the kernel holds (struct bpf_btf_info)."""
    fd = bpf(Command.BTF_GET_FD_BY_ID, struct.pack("=I", ident))
    try:
        info = ctypes.create_string_buffer(16)
        asked = struct.pack("=IIQ", fd, len(info), ctypes.addressof(info))
        bpf(Command.OBJ_GET_INFO_BY_FD, asked)
        (size,) = struct.unpack_from("=I", info.raw, 8)
        types = ctypes.create_string_buffer(size)
        info.raw = struct.pack("=QII", ctypes.addressof(types), size, 0)
        bpf(Command.OBJ_GET_INFO_BY_FD, asked)
        return types.raw
    finally:
        os.close(fd)


def program_load(
    kind: ProgramType, code: bytes, *, name: str, attach_type: AttachType | None = None, hook: int = 0
) -> int:
    """The descriptor of a verified program. `hook`: type id of the kernel's function that an LSM program is asked at.
    Raises OSError with the last word of the verifier, where it has one."""
    instructions, licence = ctypes.create_string_buffer(code, len(code)), ctypes.create_string_buffer(b"GPL")
    log = ctypes.create_string_buffer(_LOG_SIZE)
    first = struct.pack("=IIQQ", kind, len(code) // 8, ctypes.addressof(instructions), ctypes.addressof(licence))
    last = bytes(8) + _short(name) + struct.pack("=II36xI", 0, attach_type or 0, hook)
    try:
        return bpf(Command.PROG_LOAD, first + bytes(16) + last)
    except OSError as refused:
        if refused.errno == errno.EPERM:
            raise  # before the verifier was asked
        try:
            # Once more, to be told why: a log takes long, so that it is not asked for before.
            return bpf(Command.PROG_LOAD, first + struct.pack("=IIQ", 1, len(log), ctypes.addressof(log)) + last)
        except OSError as error:
            if error.errno != refused.errno:
                raise refused from error
        said = [line for line in log.value.decode(errors="replace").splitlines() if not line.startswith("processed ")]
        raise OSError(refused.errno, " ".join([os.strerror(refused.errno or 0), *said[-1:]])) from refused


def _short(name: str) -> bytes:
    return name.encode()[: _NAME_SIZE - 1].ljust(_NAME_SIZE, b"\0")


class Map:
    """A map by descriptor. Keys and values are bytes exactly as the kernel holds them."""

    def __init__(self, fd: int, key_size: int, value_size: int) -> None:
        self.fd = fd
        self._key_size = key_size
        self._value_size = value_size

    def _element(self, key: bytes | None, value: object, flags: int = 0) -> tuple[bytes, object]:
        buffer = ctypes.create_string_buffer(key, self._key_size) if key is not None else None
        address = ctypes.addressof(buffer) if buffer is not None else 0
        attribute = struct.pack("=IIQQQ", self.fd, 0, address, ctypes.addressof(value), flags)  # type: ignore[arg-type]
        return attribute, buffer

    def update(self, key: bytes, value: bytes) -> None:
        """Raises OSError, E2BIG when full."""
        buffer = ctypes.create_string_buffer(value, self._value_size)
        attribute, _keep = self._element(key, buffer)
        bpf(Command.MAP_UPDATE_ELEM, attribute)

    def add(self, key: bytes, value: bytes) -> None:
        """The same, unless the key has a value already."""
        buffer = ctypes.create_string_buffer(value, self._value_size)
        attribute, _keep = self._element(key, buffer, _BPF_NOEXIST)
        try:
            bpf(Command.MAP_UPDATE_ELEM, attribute)
        except FileExistsError:
            return

    def lookup(self, key: bytes) -> bytes | None:
        buffer = ctypes.create_string_buffer(self._value_size)
        attribute, _keep = self._element(key, buffer)
        try:
            bpf(Command.MAP_LOOKUP_ELEM, attribute)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return buffer.raw

    def delete(self, key: bytes) -> None:
        """Deleting an absent key is fine."""
        buffer = ctypes.create_string_buffer(key, self._key_size)
        try:
            bpf(Command.MAP_DELETE_ELEM, struct.pack("=IIQ", self.fd, 0, ctypes.addressof(buffer)))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def keys(self) -> Iterator[bytes]:
        current: bytes | None = None
        while True:
            following = ctypes.create_string_buffer(self._key_size)
            attribute, _keep = self._element(current, following)
            try:
                bpf(Command.MAP_GET_NEXT_KEY, attribute)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            current = following.raw
            yield current

    def pop(self) -> bytes | None:
        """Takes the oldest value of a queue, None when it is empty."""
        buffer = ctypes.create_string_buffer(self._value_size)
        attribute, _keep = self._element(None, buffer)
        try:
            bpf(Command.MAP_LOOKUP_AND_DELETE_ELEM, attribute)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return None
            raise
        return buffer.raw

    def update_batch(self, keys: bytes, values: bytes, count: int) -> None:
        """Inserts `count` packed keys and values in one call. Raises OSError when not all went in."""
        key_buffer = ctypes.create_string_buffer(keys, len(keys))
        value_buffer = ctypes.create_string_buffer(values, len(values))
        attribute = struct.pack(
            "=QQQQIIQQ", 0, 0, ctypes.addressof(key_buffer), ctypes.addressof(value_buffer), count, self.fd, 0, 0
        )
        _, after = _bpf(Command.MAP_UPDATE_BATCH, attribute)
        (done,) = struct.unpack_from("=I", after, 32)
        if done != count:
            raise OSError(errno.EIO, f"only {done} of {count} entries were inserted")

    @classmethod
    def open(cls, path: Path, key_size: int, value_size: int, *, values: int = 1) -> Map:
        """The map pinned at `path`; a per-CPU one has `values` values per key.

        OSError(EINVAL) when its sizes are others: it is of another version of ours.
        """
        fd = get_pinned(path)
        found = struct.unpack_from("=II", _info(fd), 8)  # struct bpf_map_info.key_size, value_size
        if found != (key_size, value_size):
            os.close(fd)
            raise OSError(errno.EINVAL, f"{path.name} holds {found}, not {(key_size, value_size)} bytes")
        return cls(fd, key_size, value_size * values)

    def items(self) -> list[tuple[bytes, bytes]]:
        """All of a map that may change meanwhile: what goes as it is read is left out."""
        found = [(key, self.lookup(key)) for key in list(self.keys())]
        return [(key, value) for key, value in found if value is not None]

    def close(self) -> None:
        os.close(self.fd)
