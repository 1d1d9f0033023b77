"""Step 1 of 6, capture: what the running kernel says of its own types, where it cannot be known before.

Gets the bytes of BTF (Documentation/bpf/btf.rst of the kernel); answers with ids and places. Raises OSError where the
kernel has no such thing.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

BTF = Path("/sys/kernel/btf/vmlinux")
_STRUCT, _FUNC = 4, 12  # enum BTF_KIND
# Bytes after struct btf_type, fixed and per member, by kind.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def function_id(btf: bytes, name: bytes) -> int:
    """The type id of a function."""
    found = function_ids(btf, [name])
    if name not in found:
        raise OSError(errno.ENOENT, f"the kernel has no {name.decode()}; CONFIG_BPF_LSM is off")
    return found[name]


def function_ids(btf: bytes, names: Iterable[bytes]) -> dict[bytes, int]:
    """The type ids of those functions that the kernel has."""
    wanted = {_name(btf, name): name for name in names}
    return {
        wanted[offset]: ident
        for ident, (kind, offset, _position) in enumerate(_types(btf), start=1)
        if kind == _FUNC and offset in wanted
    }


def member_offset(btf: bytes, structure: bytes, member: bytes) -> int:
    """Where in a structure a member begins, in bytes."""
    wanted, inside = _name(btf, structure), _name(btf, member)
    for kind, offset, position in _types(btf):
        if kind != _STRUCT or offset != wanted:
            continue
        (info,) = struct.unpack_from("=I", btf, position + 4)
        for at in range(position + 12, position + 12 + 12 * (info & 0xFFFF), 12):
            name, _type, place = struct.unpack_from("=III", btf, at)
            if name == inside:
                # With the flag, the upper byte is the size of a bit field.
                bits: int = place & 0xFFFFFF if info >> 31 else place
                return bits // 8
    raise OSError(errno.ENOENT, f"the kernel has no {structure.decode()}.{member.decode()}")


def _name(btf: bytes, name: bytes) -> int:
    """Where the name is among the strings; -1 when it is not."""
    header, _type_start, _type_length, start, length = struct.unpack_from("=4xIIIII", btf)
    names = btf[header + start : header + start + length]
    return names.find(b"\0" + name + b"\0") + 1 or -1


def _types(btf: bytes) -> Iterator[tuple[int, int, int]]:
    """Kind, offset of the name, and position of each type, in the order of their ids from 1 on."""
    header, types, length, _strings, _strings_length = struct.unpack_from("=4xIIIII", btf)
    position, end = header + types, header + types + length
    unpack = struct.Struct("=II").unpack_from
    while position < end:
        offset, info = unpack(btf, position)
        kind = info >> 24 & 31
        yield kind, offset, position
        position += 12 + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * (info & 0xFFFF)
