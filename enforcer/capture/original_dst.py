"""Step 1 of 6, capture: what an accepted connection was meant for, asked of the kernel.

Gets an accepted socket; hands on its `FlowRecord`. Never falls back to the socket's own address or to conntrack: a
connection without a mapping is nobody's, and is closed.
"""

from __future__ import annotations

import ctypes
import socket

from enforcer.capture.abi import OPTION_FLOW_RECORD, FlowRecord

_SIZE = ctypes.sizeof(FlowRecord)


def flow_record(accepted: socket.socket) -> FlowRecord | None:
    """The kernel's record of the connection, None when it was never captured."""
    try:
        raw = accepted.getsockopt(socket.SOL_IP, OPTION_FLOW_RECORD, _SIZE)
    except OSError:
        return None
    return FlowRecord.from_buffer_copy(raw) if len(raw) == _SIZE else None
