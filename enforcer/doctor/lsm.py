"""Whether the kernel takes BPF programs on security hooks: one that permits everything, on a hook that is seldom asked,
attached for a moment. See bpf(2) and Documentation/bpf/prog_lsm.rst of the kernel."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

from enforcer.capture.btf import BTF, function_id
from enforcer.doctor.children import libc, system

# Disk quotas: asked by quotactl(2) and by nothing on the path of a packet.
_HOOK = b"bpf_lsm_quotactl"
_BPF = {"x86_64": 321, "aarch64": 280}
_PROG_LOAD, _RAW_TRACEPOINT_OPEN = 5, 17
_PROG_TYPE_LSM, _LSM_MAC = 29, 27
_RETURN_ZERO = bytes.fromhex("b7000000000000009500000000000000")
_ATTRIBUTE_SIZE = 128


def attach_and_detach() -> None:
    """Raises OSError with what the kernel answered."""
    program = _load(function_id(BTF.read_bytes(), _HOOK))
    try:
        # Closing the link detaches.
        os.close(_call(_RAW_TRACEPOINT_OPEN, struct.pack("=QI", 0, program)))
    finally:
        os.close(program)


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
