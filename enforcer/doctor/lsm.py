"""Whether the kernel takes BPF programs on security hooks: one that permits everything, on a hook that is seldom asked,
attached for a moment. See bpf(2) and Documentation/bpf/{prog_lsm,btf}.rst of the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from pathlib import Path

from enforcer.doctor.children import libc, system

BTF = Path("/sys/kernel/btf/vmlinux")
# Disk quotas: asked by quotactl(2) and by nothing on the path of a packet.
_HOOK = b"bpf_lsm_quotactl"
_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17
_PROG_TYPE_LSM, _LSM_MAC = 29, 27
_RETURN_ZERO = bytes.fromhex("b7000000000000009500000000000000")
_ATTRIBUTE_SIZE = 128
_FUNC = 12  # enum BTF_KIND
# Bytes after struct btf_type, fixed and per member, by kind.
_FIXED = {1: 4, 3: 12, 14: 4, 17: 4}
_PER_MEMBER = {4: 12, 5: 12, 6: 8, 13: 8, 15: 12, 19: 12}


def attach_and_detach() -> None:
    """Raises OSError with what the kernel answered."""
    program = _load(function_id(BTF.read_bytes(), _HOOK))
    try:
        # Closing the link detaches.
        os.close(_call(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program)))
    finally:
        os.close(program)


def function_id(btf: bytes, name: bytes) -> int:
    """The type id of a function in BTF. Raises OSError when the kernel has no such function."""
    header, types, types_length, strings, strings_length = struct.unpack_from("=4xIIIII", btf)
    names = btf[header + strings : header + strings + strings_length]
    wanted = names.find(b"\0" + name + b"\0") + 1
    position, end, ident = header + types, header + types + types_length, 1
    unpack = struct.Struct("=II").unpack_from
    while wanted and position < end:
        offset, info = unpack(btf, position)
        kind = info >> 24 & 31
        if kind == _FUNC and offset == wanted:
            return ident
        position += 12 + _FIXED.get(kind, 0) + _PER_MEMBER.get(kind, 0) * (info & 0xFFFF)
        ident += 1
    raise OSError(errno.ENOENT, f"the kernel has no {name.decode()}; CONFIG_BPF_LSM is off")


def _load(hook: int) -> int:
    code, licence = ctypes.create_string_buffer(_RETURN_ZERO), ctypes.create_string_buffer(b"GPL")
    attribute = struct.pack(
        "=IIQQ", _PROG_TYPE_LSM, len(_RETURN_ZERO) // 8, ctypes.addressof(code), ctypes.addressof(licence)
    )
    attribute = attribute.ljust(68, b"\0") + struct.pack("=I", _LSM_MAC)
    return _call(_PROG_LOAD, attribute.ljust(108, b"\0") + struct.pack("=I", hook))


def _call(command: int, attribute: bytes) -> int:
    buffer = ctypes.create_string_buffer(attribute.ljust(_ATTRIBUTE_SIZE, b"\0"), _ATTRIBUTE_SIZE)
    number = _BPF.get(platform.machine())
    if number is None:
        raise OSError(errno.ENOSYS, f"bpf(2) is not known on {platform.machine()}")
    return system(int(libc.syscall(number, command, buffer, _ATTRIBUTE_SIZE)))
