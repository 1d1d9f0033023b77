"""What every technique is written with. Sent to executors as text, so: standard library only, and nothing of ours.

A technique is a function of a `Case`. It returns when it believes that the token went out, raises OSError when the
kernel or the enforcer refused, and any other exception is a fault of the technique itself. What it says never decides
whether it got out: that is for the far side to tell.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Seconds for an answer of the far side, which is a cable's length away.
PATIENCE = 1.0
# The far side's answer to whatever it hears over TCP.
HEARD = b"heard"

# System calls that Python has no name for: x86_64, and the generic table that arm64 and riscv64 use.
_SYSCALLS = {
    "ptrace": (101, 117),
    "add_key": (248, 217),
    "keyctl": (250, 219),
    "init_module": (175, 105),
    "process_vm_writev": (311, 271),
    "bpf": (321, 280),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "pidfd_send_signal": (424, 424),
    "pidfd_open": (434, 434),
    "clone3": (435, 435),
    "pidfd_getfd": (438, 438),
}
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long


class Missing(Exception):
    """Something the technique needs is not there, so that it proves nothing."""


class Refused(OSError):
    """The other side answered, but it was not the far side."""


@dataclass(frozen=True)
class Case:
    """One attempt: where the far side is, the token that must not get there, and what its stage prepared.

    `peer4`, `peer6`: the denied far side. `home4`, `home6`: a server that policy allows. `port`: on both, this
    attempt's own. `values`: paths, numbers and packets, by the names the stage gave them.
    """

    peer4: str
    peer6: str
    home4: str
    home6: str
    port: int
    token: str
    inside: bool
    values: dict[str, Any] = field(default_factory=dict)

    @property
    def payload(self) -> bytes:
        return self.token.encode()

    def tcp(self, address: str, port: int | None = None) -> None:
        """Connects and says the token."""
        with stream(address) as sock:
            sock.connect((address, port or self.port))
            self.talk(sock)

    def talk(self, sock: socket.socket, message: bytes | None = None) -> None:
        """Says the token on a connected stream. Raises Refused when the answer is not the far side's."""
        sock.sendall(self.payload if message is None else message)
        self.listen(sock)

    def listen(self, sock: socket.socket) -> None:
        sock.settimeout(PATIENCE)
        answer = sock.recv(4096)
        if HEARD not in answer:
            raise Refused(f"answered with {answer[:60]!r}")

    def udp(self, address: str, port: int | None = None) -> None:
        with datagram(address) as sock:
            sock.sendto(self.payload, (address, port or self.port))

    def step(self, attempt: Callable[[], object]) -> None:
        """Does something that should open a way, then goes that way whatever came of it inside."""
        try:
            attempt()
        except OSError:
            self.tcp_quietly()
            raise
        self.tcp(self.peer4)

    def tcp_quietly(self) -> None:
        """Tries the plain way after a step that failed: only inside, where the step should not have mattered."""
        if self.inside:
            try:
                self.tcp(self.peer4)
            except OSError:
                return


def stream(address: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_STREAM)
    sock.settimeout(PATIENCE)
    return sock


def datagram(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


def sockaddr(address: str, port: int, family: int | None = None) -> bytes:
    """struct sockaddr_in or sockaddr_in6, with another family in it if wanted."""
    if ":" in address:
        packed = socket.inet_pton(socket.AF_INET6, address)
        return struct.pack("=HHI16sI", family or socket.AF_INET6, socket.htons(port), 0, packed, 0)
    number = socket.AF_INET if family is None else family
    return struct.pack("=HH4s8x", number, socket.htons(port), socket.inet_aton(address))


def check(result: int, what: str) -> int:
    """The result of a C function that reports failure with -1 and errno."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return int(result)


def connect(sock: socket.socket, address: bytes) -> None:
    """connect(2) with an address that Python would not build."""
    check(libc.connect(sock.fileno(), address, len(address)), "connect")


def send_to(sock: socket.socket, data: bytes, flags: int, address: bytes) -> None:
    check(libc.sendto(sock.fileno(), data, ctypes.c_size_t(len(data)), flags, address, len(address)), "sendto")


def syscall(name: str, *arguments: Any) -> int:
    if name not in _SYSCALLS or platform.machine() not in ("x86_64", "aarch64", "riscv64"):
        raise Missing(f"the number of {name}(2) on {platform.machine()}")
    number = _SYSCALLS[name][0 if platform.machine() == "x86_64" else 1]
    wide = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    return check(libc.syscall(ctypes.c_long(number), *wide), name)


def each_interface(send: Callable[[int, str], object]) -> None:
    """Sends on every interface, as which of them leads to the far side is not known here. Raises if none took it."""
    taken, failure = 0, OSError("no interface")
    for index, name in socket.if_nameindex():
        try:
            send(index, name)
            taken += 1
        except OSError as error:
            failure = error  # an interface that is down, or that takes no such frame
    if not taken:
        raise failure


def tool(name: str) -> str:
    """The path of a program that the technique uses."""
    found = shutil.which(name, path="/usr/sbin:/usr/bin:/sbin:/bin")
    if found is None:
        raise Missing(f"no program {name!r}")
    return found


@dataclass(frozen=True)
class Technique:
    """One entry of the catalogue.

    `users`: who tries it: "both", or only "root" where every kernel refuses an ordinary user. `stage`: what is prepared
    for it outside, and `start`: how its executor is started; see `enforcer/probe/stages.py`. `token_only`: a frame
    without the token proves nothing, as the far side is spoken to from outside as well. `last`: it takes the
    enforcer's programs away, so its control comes after everything else. `limit`: seconds after which it is ended, far
    more than it takes.
    """

    name: str
    group: str
    stopped_by: str
    run: Callable[[Case], None]
    users: str = "both"
    stage: str = ""
    start: str = ""
    token_only: bool = False
    last: bool = False
    limit: float = 120.0

    @property
    def tries(self) -> str:
        """What it does, in one line."""
        return " ".join((self.run.__doc__ or "").split())


TECHNIQUES: dict[str, Technique] = {}


def technique(name: str, group: str, stopped_by: str, **options: Any) -> Callable[[Callable[[Case], None]], Technique]:
    """Enters the function below into the catalogue."""

    def enter(function: Callable[[Case], None]) -> Technique:
        if name in TECHNIQUES:
            raise ValueError(f"two techniques are called {name}")
        TECHNIQUES[name] = Technique(name, group, stopped_by, function, **options)
        return TECHNIQUES[name]

    return enter
