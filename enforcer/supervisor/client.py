"""The control socket's end in the CLI. Imports little: `enforcer exec` should cost a moment."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import orjson

from enforcer.errors import EnforcerError, NotRunning

MAX_MESSAGE = 128 * 1024
# Seconds to wait for an answer.
TIMEOUT = 30.0


class ControlClient:
    """One connection to a running supervisor. Raises NotRunning when there is none."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(TIMEOUT)
        try:
            self._socket.connect(str(path))
        except PermissionError:
            self._socket.close()
            raise NotRunning(f"{path} is for root only; run this command as root") from None
        except OSError:
            self._socket.close()
            raise NotRunning(f"no supervisor answers at {path}; start one with 'enforcer run'") from None

    def __enter__(self) -> ControlClient:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fileno(self) -> int:
        return self._socket.fileno()

    def request(self, message: dict[str, Any], descriptors: list[int] | None = None) -> dict[str, Any]:
        """Sends one request and returns its answer. Raises the supervisor's error with its exit code, or NotRunning."""
        try:
            socket.send_fds(self._socket, [orjson.dumps(message)], descriptors or [])
            data = self._socket.recv(MAX_MESSAGE)
        except OSError as error:
            raise NotRunning(f"the supervisor did not answer: {error}; see its log") from error
        if not data:
            raise NotRunning("the supervisor closed the connection; see its log")
        answer: dict[str, Any] = orjson.loads(data)
        if "error" in answer:
            failure = EnforcerError(answer["error"])
            failure.exit_code = answer["exit_code"]
            raise failure
        return answer
