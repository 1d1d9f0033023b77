"""Unix sockets behind which a service would start a process or open a connection on an executor's behalf."""

from __future__ import annotations

import errno
import os
import pwd
import socket
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from enforcer.doctor.children import within

# /proc/net/unix: SO_ACCEPTCON in the flags, SOCK_STREAM and SOCK_SEQPACKET as the type.
_ACCEPTS = 0x10000
_KINDS = {1: socket.SOCK_STREAM, 5: socket.SOCK_SEQPACKET}
_CONNECT_SECONDS = 2.0
_RUN = Path("/run")


@dataclass(frozen=True, slots=True)
class Service:
    """A kind of service, and shell patterns of the names that its sockets have. `starts`: whoever connects may have
    processes started outside; the others resolve, forward or configure, or want more than a connection for it."""

    name: str
    patterns: tuple[str, ...]
    mend: str
    starts: bool = True


SERVICES = (
    Service("Docker", ("docker.sock", "docker.raw.sock"), "take the user out of group docker; chmod 660 the socket"),
    Service(
        "containerd",
        ("containerd.sock", "containerd.sock.ttrpc", "containerd-shim/*", "containerd-shim/*/*/shim.sock"),
        "chmod 600 the socket; upgrade a containerd that still has abstract ones",
    ),
    Service("Podman", ("podman.sock",), "systemctl disable --now podman.socket, for the user too (--user)"),
    Service("CRI-O", ("crio.sock",), "chmod 600 the socket"),
    Service("libvirt", ("libvirt-sock", "virtqemud-sock"), "take the user out of group libvirt"),
    Service("LXD or Incus", ("lxd/unix.socket", "incus/unix.socket"), "take the user out of groups lxd, incus"),
    Service("snapd", ("snapd.socket", "snapd-snap.socket"), "chmod 600 the socket, or remove snapd", starts=False),
    Service(
        "the system bus",
        ("dbus/system_bus_socket",),
        "run the executor isolated, which hides it; or allow it nothing",
        starts=False,
    ),
    Service(
        "systemd",
        ("systemd/private", "systemd/io.systemd.*"),
        "run the executor isolated, which hides it",
        starts=False,
    ),
    Service(
        "a user's session bus",
        ("user/*/bus", "user/*/systemd/private"),
        "give executors a user of their own, without lingering sessions",
    ),
    Service("the name service cache", ("nscd/socket",), "systemctl disable --now nscd", starts=False),
    Service(
        "systemd-resolved",
        ("systemd/resolve/io.systemd.*",),
        "run the executor isolated, which hides it; or stop it",
        starts=False,
    ),
)


@dataclass(frozen=True, slots=True)
class Reachable:
    service: Service
    path: str


def reachable(user: pwd.struct_passwd | None) -> list[Reachable]:
    """Every socket of a known service to which `user` (None: root) really can connect."""
    kinds = {**_in_files(), **_listening()}
    known = {path: service for path in kinds if (service := _service_of(path))}
    return [Reachable(known[path], path) for path in sorted(known) if _connects(path, kinds[path], user)]


def _in_files() -> dict[str, int]:
    """Sockets where services are used to put them: the listener may be of another network namespace."""
    patterns = [pattern for service in SERVICES for pattern in service.patterns]
    found = [path for pattern in patterns for depth in ("", "*/") for path in _RUN.glob(depth + pattern)]
    return {str(path): socket.SOCK_STREAM for path in found if path.is_socket()}


def _listening() -> dict[str, int]:
    """Path (abstract ones begin with @) and kind of each listening Unix socket of this network namespace."""
    sockets = {}
    for line in Path("/proc/net/unix").read_text(errors="surrogateescape").splitlines()[1:]:
        fields = line.split(maxsplit=7)
        if len(fields) == 8:
            flags, kind = int(fields[3], 16), int(fields[4], 16)
            if flags & _ACCEPTS and kind in _KINDS:
                sockets[fields[7]] = kind
    return sockets


def _service_of(path: str) -> Service | None:
    name = PurePosixPath(path.removeprefix("@"))
    return next((one for one in SERVICES if any(name.match(pattern) for pattern in one.patterns)), None)


def _connects(path: str, kind: int, user: pwd.struct_passwd | None) -> bool:
    """The connection is closed again at once, without a byte."""
    address = "\0" + path[1:] if path.startswith("@") else path

    def connect() -> None:
        with socket.socket(socket.AF_UNIX, _KINDS[kind]) as sock:
            sock.settimeout(_CONNECT_SECONDS)
            sock.connect(os.fsencode(address))

    try:
        within(connect, user=user)
    except OSError as error:
        # A full queue is a door as well; what is refused, gone or forbidden is none.
        return error.errno in (errno.EAGAIN, errno.EWOULDBLOCK)
    return True
