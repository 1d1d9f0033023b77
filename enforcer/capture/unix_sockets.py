"""Step 1 of 6, capture: the host's Unix sockets that every executor may speak to, where the kernel takes LSM programs.

Gets paths from the configuration; finds the socket that is bound to each and labels it in `owner_by_socket`. The socket
itself is labelled, not its name: another name for it, or for a socket that is not allowed, changes nothing.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import stat
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path

from enforcer.capture import abi, takeover
from enforcer.capture.sysbpf import Map
from enforcer.capture.tables import Tables

_SIOCUNIXFILE = 0x89E0  # linux/un.h: opens what a Unix socket is bound to
_FIRST_PROCESS = 1  # holds what systemd listens on for others

# Device, inode and time of making: another socket at the same path differs in one of them.
Identity = tuple[int, int, int]


class AllowedSockets:
    """Keeps the sockets at `paths` labelled, from the first look on. With another configuration make another one: its
    first look voids the labels of this."""

    def __init__(self, paths: Iterable[Path], tables: Tables) -> None:
        self._paths = tuple(paths)
        self._tables = tables
        # Never 0; sockets keep the labels of supervisors before us, which must not count.
        self._epoch = secrets.randbits(63) + 1
        self._is_in_force = False
        self._known: dict[Path, Identity] = {}

    def labelled(self) -> list[str]:
        return sorted(map(str, self._known))

    def look(self) -> None:
        """Labels what was bound since the last look. A path that is not there yet, or that nobody listens at, is tried
        again at the next. Raises KernelError, OSError."""
        try:
            self._find()
        finally:
            if not self._is_in_force:
                self._tables.set_epoch(self._epoch)
                self._is_in_force = True

    def _find(self) -> None:
        wanted: dict[Identity, list[Path]] = {}
        for path in self._paths:
            identity = _identity(path)
            if identity is None:
                self._known.pop(path, None)
            elif self._known.get(path) != identity:
                wanted.setdefault(identity, []).append(path)
        names = {path.resolve().name for paths in wanted.values() for path in paths}
        for sock, identity in _bound(names) if wanted else ():
            with sock:
                if identity in wanted:
                    _label(sock, self._epoch, self._tables.owners)
                    self._known.update(dict.fromkeys(wanted.pop(identity), identity))
            if not wanted:
                return


def _identity(path: Path) -> Identity | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino, found.st_mtime_ns) if stat.S_ISSOCK(found.st_mode) else None


def _label(sock: socket.socket, epoch: int, owners: Map) -> None:
    """A socket that an executor put there stays the executor's."""
    key = struct.pack("=i", sock.fileno())
    known = owners.lookup(key)
    if known is None or abi.Owner.from_buffer_copy(known).executor == abi.OWNER_ANYONE:
        owners.update(key, bytes(abi.Owner(executor=abi.OWNER_ANYONE, netns=epoch)))


def _bound(names: set[str]) -> Iterator[tuple[socket.socket, Identity]]:
    """Duplicates of the Unix sockets that were bound under one of these last components, each with what it is bound to.

    The kernel's list has names as they were given, relative ones too: whether it is the one is seen by the file.
    """
    inodes = set()
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8 and fields[7].rpartition("/")[2] in names:
            inodes.add(int(fields[6]))
    for pid in (_FIRST_PROCESS, *_others()) if inodes else ():
        for sock in takeover.sockets_of(pid, inodes):
            identity = _bound_to(sock)
            if identity is None:
                sock.close()
            else:
                yield sock, identity


def _others() -> Iterator[int]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != _FIRST_PROCESS:
            yield int(entry.name)


def _bound_to(sock: socket.socket) -> Identity | None:
    try:
        fd = fcntl.ioctl(sock, _SIOCUNIXFILE)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
    finally:
        os.close(fd)
    return found.st_dev, found.st_ino, found.st_mtime_ns
