"""The control socket's end in the supervisor. Root only, one JSON message per request and answer."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from enforcer.errors import EnforcerError
from enforcer.log import get_logger
from enforcer.supervisor.client import MAX_MESSAGE

# include/uapi/linux/capability.h
_CAP_SYS_ADMIN = 21

_log = get_logger()

# Gets a request, the descriptors that came with it and a token of its connection; returns the answer.
Handler = Callable[[dict[str, Any], list[int], object], dict[str, Any]]


class ControlServer:
    """Serves `handler` on `path`. `on_closed` is called with a connection's token when its client is gone. Processes in
    cgroups that `is_governed` says so of, by their path below the mount, are not served: an attached executor may be
    root with every capability."""

    def __init__(
        self,
        path: Path,
        handler: Handler,
        on_closed: Callable[[object], None],
        is_governed: Callable[[str], bool],
    ) -> None:
        self._path = path
        self._handler = handler
        self._on_closed = on_closed
        self._is_governed = is_governed
        self._loop = asyncio.get_running_loop()
        self._connections: set[socket.socket] = set()
        path.unlink(missing_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        old = os.umask(0o177)
        try:
            self._listener.bind(str(path))
        finally:
            os.umask(old)
        self._listener.listen(64)
        self._listener.setblocking(False)
        self._loop.add_reader(self._listener, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._listener)
        self._listener.close()
        self._path.unlink(missing_ok=True)
        for connection in list(self._connections):
            self._drop(connection)

    def _accept(self) -> None:
        connection, _ = self._listener.accept()
        pid, uid, _gid = struct.unpack(
            "3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
        )
        if uid != 0 or not _is_operator(pid) or self._is_governed(_cgroup_of(pid)):
            _log.warning("control connection refused", uid=uid, pid=pid)
            connection.close()
            return
        connection.setblocking(False)
        self._connections.add(connection)
        self._loop.add_reader(connection, self._serve, connection)

    def _serve(self, connection: socket.socket) -> None:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(connection, MAX_MESSAGE, 4)
        except OSError:
            data, descriptors = b"", []
        if not data:
            self._drop(connection)
            return
        try:
            answer = self._handler(orjson.loads(data), descriptors, connection)
        except (EnforcerError, OSError) as error:
            answer = {"error": str(error), "exit_code": getattr(error, "exit_code", EnforcerError.exit_code)}
        except Exception as error:  # noqa: BLE001 - whoever asked must not wait for an answer that never comes
            _log.error("control request failed", error=repr(error), exc_info=error)
            answer = {"error": f"the supervisor failed on this request ({type(error).__name__}); see its log"}
            answer["exit_code"] = EnforcerError.exit_code
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        try:
            connection.send(orjson.dumps(answer, default=str))
        except OSError:
            self._drop(connection)

    def _drop(self, connection: socket.socket) -> None:
        if connection in self._connections:
            self._connections.discard(connection)
            self._loop.remove_reader(connection)
            connection.close()
            self._on_closed(connection)


def _is_operator(pid: int) -> bool:
    """Does the process hold CAP_SYS_ADMIN? An executor that runs as root does not: being root alone opens nothing."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    effective = next((line.split()[1] for line in status.splitlines() if line.startswith("CapEff:")), "0")
    return bool(int(effective, 16) >> _CAP_SYS_ADMIN & 1)


def _cgroup_of(pid: int) -> str:
    """Its path in the version 2 tree, without the first slash; empty when it is gone, and then it is no operator."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return ""
    return next((line[4:] for line in lines if line.startswith("0::/")), "")
