"""Starts the helper outside for one user, and tells techniques where it can be reached."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import secrets
import select
import shutil
import subprocess
import threading
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from enforcer.errors import HostError
from enforcer.probe.ground import OUTSIDE, PEER, PYTHON, RELAY_PORT, Ground, outside

# Where a host keeps sockets: for everybody, for services, for users.
_PLACES = {"tmp": Path("/tmp"), "run": Path("/run"), "home": Path("/home"), "state": Path("/var/lib")}  # noqa: S108
_ELSEWHERE = Path("/var/tmp")  # noqa: S108 - where a host has no such place
# Which service listens where, and under which name. None has the name of the real one: it must not be the path that is
# checked.
_SOCKETS = {
    "plain": ("tmp", "relay.sock"),
    "datagram": ("tmp", "relay-dgram.sock"),
    "tmux": ("tmp", "default"),
    "run": ("run", "relay.sock"),
    "bus": ("run", "messages"),
    "home": ("home", "relay.sock"),
    "docker": ("state", "engine.sock"),
    "descriptors": ("tmp", "descriptors.sock"),
}
_START = 300.0
_IPC_RMID = 0
_libc = ctypes.CDLL(None, use_errno=True)


class Neighbour:
    """The running helper. `values` is what a technique that wants to reach it must know."""

    def __init__(self, ground: Ground, user: str) -> None:
        self._ground = ground
        self._user = user
        self._stack = ExitStack()
        self._lock = threading.Lock()
        self._name = f"{ground.mark}-{user}"
        # Of its own per user, so that both can be there at once.
        self._port = RELAY_PORT - 1 - (user == "root")
        self.values: dict[str, Any] = {}

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def relay(self, token: str) -> None:
        """Has the token sent to the far side: something outside was reached in a way that only we can see."""
        self._order(f"relay {token}")

    def arm(self, token: str) -> None:
        """Tells the helper what to send when it gets SIGUSR1."""
        self._order(f"arm {token}")

    def _start(self) -> None:
        account = pwd.getpwnam(self._user)
        directories = {}
        for place, parent in _PLACES.items():
            directories[place] = (parent if parent.is_dir() else _ELSEWHERE) / f".{self._name}"
            directories[place].mkdir(mode=0o755, exist_ok=True)
            self._stack.callback(shutil.rmtree, directories[place], ignore_errors=True)
            os.chown(directories[place], account.pw_uid, account.pw_gid)
        sockets = {service: str(directories[place] / name) for service, (place, name) in _SOCKETS.items()}
        queue_key = secrets.randbits(30) | 1
        self._stack.callback(_remove_queue, queue_key)
        config = {
            "peer": PEER.address,
            "relay_port": RELAY_PORT,
            "port": self._port,
            "name": self._name,
            "sockets": sockets,
            "queue_key": queue_key,
        }
        about = self._spawn(config)
        self.values = {
            "relay_port": self._port,
            "host4": self._ground.link.host4,
            "host6": self._ground.link.host6,
            "name": self._name,
            "sockets": sockets,
            "queue_key": queue_key,
            "neighbour": about,
            "interface": self._ground.link.interface,
            "far_port": RELAY_PORT,
        }

    def _spawn(self, config: dict[str, Any]) -> dict[str, Any]:
        program = (OUTSIDE / "neighbour.py").read_text()
        process = subprocess.Popen(
            outside(self._ground.world, self._user, PYTHON, "-I", "-c", program, json.dumps(config)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        self._process = process
        self._stack.callback(self._stop)
        if process.stdout is None or not select.select([process.stdout], [], [], _START)[0]:
            raise HostError("the helper outside did not start in time; is the host overloaded?")
        line = process.stdout.readline()
        if not line:
            words = process.stderr.read().strip().splitlines() if process.stderr else []
            raise HostError(f"the helper outside did not start: {words[-1] if words else 'no output'}")
        about: dict[str, Any] = json.loads(line)
        return about

    def _order(self, line: str) -> None:
        """Has it done before we go on. Raises HostError when the helper is gone."""
        process = self._process
        with self._lock:
            if process.stdin is None or process.stdout is None or process.poll() is not None:
                raise HostError("the helper outside is gone; a technique ended it")
            process.stdin.write(f"{line}\n")
            process.stdin.flush()
            if not select.select([process.stdout], [], [], _START)[0] or not process.stdout.readline():
                raise HostError("the helper outside does not answer; a technique stopped it")

    def _stop(self) -> None:
        self._process.kill()
        self._process.communicate()


def _remove_queue(key: int) -> None:
    number = _libc.msgget(key, 0)
    if number >= 0:
        _libc.msgctl(number, _IPC_RMID, None)
