"""Step 1 of 6, capture: tracepoints, attached through perf events whose links are pinned.

Gets a program and the name of a kernel event; hands on a pin that keeps both. See perf_event_open(2).
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
from pathlib import Path

from enforcer.capture import sysbpf
from enforcer.capture.sysbpf import AttachType
from enforcer.errors import HostError, KernelError

TRACEFS = Path("/sys/kernel/tracing")
# __NR_perf_event_open
_SYSCALL_NUMBERS = {"x86_64": 298, "aarch64": 241}
_PERF_TYPE_TRACEPOINT = 2
_PERF_FLAG_FD_CLOEXEC = 8
# struct perf_event_attr up to its first published size, which every kernel takes.
_ATTRIBUTE_SIZE = 64

_libc = ctypes.CDLL(None, use_errno=True)


def check_tracefs(mount: Path = TRACEFS) -> None:
    """Raises HostError when the trace file system is not mounted: neither compiling nor attaching works without."""
    if not (mount / "events").is_dir():
        raise HostError(f"no trace file system at {mount}; mount -t tracefs tracefs {mount}")


def attach(program: int, event: str, link_pin: Path) -> None:
    """Runs `program` at `event` (`group/name`) for as long as `link_pin` exists. Raises HostError, KernelError."""
    check_tracefs()
    try:
        ident = int((TRACEFS / "events" / event / "id").read_text())
        perf = _open(ident)
        try:
            link = sysbpf.link_create(program, perf, AttachType.PERF_EVENT)
        finally:
            os.close(perf)
        try:
            sysbpf.pin(link, link_pin)
        finally:
            os.close(link)
    except OSError as error:
        raise KernelError(f"cannot watch {event}: {error}; 'enforcer doctor' shows what this kernel takes") from error


def _open(ident: int) -> int:
    attribute = ctypes.create_string_buffer(
        struct.pack("=IIQ", _PERF_TYPE_TRACEPOINT, _ATTRIBUTE_SIZE, ident), _ATTRIBUTE_SIZE
    )
    number = _SYSCALL_NUMBERS.get(platform.machine())
    if number is None:
        raise KernelError(f"perf_event_open(2) is not known on {platform.machine()}; use x86_64 or aarch64")
    # Of all processes on one CPU: a tracepoint's program runs wherever the event happens, whichever CPU that is.
    fd = int(_libc.syscall(number, attribute, -1, 0, -1, _PERF_FLAG_FD_CLOEXEC))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"perf_event_open: {os.strerror(code)}")
    return fd
