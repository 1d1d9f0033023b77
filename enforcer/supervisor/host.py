"""What the supervisor's process asks of the system it runs on: directories, to be the only one, to be told apart when
ready, and its memory back."""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcer.config import Settings
from enforcer.errors import HostError, UsageError

# malloc.h
_M_ARENA_MAX, _M_MMAP_THRESHOLD = -8, -3
# Bytes from which on an allocation goes back to the system when it is freed.
_LARGE_ALLOCATION = 1 << 20


def make_directories(settings: Settings) -> None:
    """Those of the instance, for root alone. Raises HostError."""
    for directory in (settings.state, settings.run):
        try:
            directory.mkdir(parents=True, exist_ok=True)
            directory.chmod(0o700)
        except OSError as error:
            raise HostError(f"cannot make {directory}: {error.strerror}; check the path") from error


@contextmanager
def only_one(directory: Path) -> Iterator[None]:
    """Holds the instance's lock, with our pid in it. Raises UsageError where another supervisor does."""
    with (directory / "supervisor.lock").open("a+") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            stream.seek(0)
            pid = stream.read().strip() or "unknown"
            raise UsageError(f"a supervisor already runs here (pid {pid}); stop it first") from None
        stream.truncate(0)
        stream.write(str(os.getpid()))
        stream.flush()
        yield


def notify(state: str) -> None:
    """Tells systemd, when it asked to be told (sdnotify(3))."""
    path = os.environ.get("NOTIFY_SOCKET")
    if not path:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.connect("\0" + path[1:] if path.startswith("@") else path)
        sock.send(state.encode())


def tame_malloc() -> None:
    """Reading tables takes 25 MB for a moment, on a thread: by default glibc would keep it, per thread (mallopt(3))."""
    libc = ctypes.CDLL(None)
    libc.mallopt(_M_ARENA_MAX, 1)
    libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_ALLOCATION)
