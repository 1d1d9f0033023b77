"""What an executor inherits from its caller: standard input, output and error, and only what is no way out."""

from __future__ import annotations

import errno
import os
import socket
import stat
import subprocess
from types import TracebackType
from typing import Self

from enforcer.errors import UsageError

_NAMES = ("input", "output", "error")
# Documentation/admin-guide/devices.txt: null, zero, full, random, urandom.
_PLAIN_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))
# Copies bytes and drops whatever else comes with them.
_COPY = ("/usr/bin/cat",)
# Seconds that the command's last output may take to reach a peer that does not read.
_DRAIN = 5.0
_MEND = "give a pipe or a file, such as '| cat' or '< /dev/null'"


def check_standard() -> None:
    """Raises UsageError for one through which more could be reached than its own bytes.

    A socket leads into the host's network. A directory leads past the mounts that hide files. A Unix socket that takes
    datagrams, or is not connected, can be connected to any service. Devices are the host's own.
    """
    for number, name in enumerate(_NAMES):
        try:
            status = os.fstat(number)
        except OSError as error:
            if error.errno != errno.EBADF:
                raise
            _fill(number)
            continue
        if fault := _fault(number, status):
            raise UsageError(f"standard {name} is {fault}, which an executor could get out by; {_MEND}")


def _fill(number: int) -> None:
    """A file that somebody opens later would become standard input or output."""
    opened = os.open(os.devnull, os.O_RDWR)
    if opened == number:
        os.set_inheritable(opened, True)
    else:
        os.dup2(opened, number)
        os.close(opened)


def _fault(number: int, status: os.stat_result) -> str:
    mode = status.st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISREG(mode):
        return ""
    if stat.S_ISCHR(mode):
        return "" if status.st_rdev in _PLAIN_DEVICES or os.isatty(number) else "a device of the host"
    if stat.S_ISSOCK(mode):
        return _socket_fault(number)
    return "a directory" if stat.S_ISDIR(mode) else "neither file, pipe nor terminal"


def _socket_fault(number: int) -> str:
    with socket.socket(fileno=os.dup(number)) as sock:
        if sock.family != socket.AF_UNIX:
            return "a socket of the host's network"
        if sock.type not in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
            return "a Unix socket that can be sent elsewhere"
        try:
            sock.getpeername()
        except OSError:
            return "a Unix socket without a peer"
    return ""


class Relayed:
    """Pipes in place of standard descriptors that are connected Unix sockets: through one of those, whoever holds the
    other end could hand in sockets of the host's network (SCM_RIGHTS). Leaving the context passes on what is left of
    the output and puts the sockets back."""

    def __init__(self) -> None:
        self._kept: dict[int, int] = {}
        self._output: list[subprocess.Popen[bytes]] = []
        self._input: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        sockets = [number for number in range(3) if stat.S_ISSOCK(os.fstat(number).st_mode)]
        self._kept = {number: os.dup(number) for number in sockets}
        pipes: dict[int, int] = {}
        for number in sockets:
            inode = os.fstat(number).st_ino
            if number == 0:
                reading, writing = os.pipe()
                self._input = subprocess.Popen(_COPY, stdin=self._kept[0], stdout=writing, stderr=subprocess.DEVNULL)
                os.close(writing)
                os.dup2(reading, 0)
                os.close(reading)
            elif inode in pipes:
                os.dup2(pipes[inode], number)  # standard error is standard output: one pipe keeps their order
            else:
                pipes[inode] = number
                reading, writing = os.pipe()
                self._output.append(
                    subprocess.Popen(_COPY, stdin=reading, stdout=self._kept[number], stderr=subprocess.DEVNULL)
                )
                os.close(reading)
                os.dup2(writing, number)
                os.close(writing)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, kept in self._kept.items():
            os.dup2(kept, number)
            os.close(kept)
        for process in self._output:
            try:
                process.wait(_DRAIN)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self._input is not None:
            self._input.kill()
            self._input.wait()
