"""The throw-away place: an instance with cgroups and pins of its own, and two network namespaces joined by a cable.

`near` holds executors that can physically reach `far`, as attached ones can reach the world; `far` is watched frame by
frame, so that what a program stopped is told from what merely failed. Nothing here belongs to the machine: namespaces
have no name and go with their descriptors, and what a killed doctor left behind the next one removes.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import threading
import time
from contextlib import ExitStack, suppress
from functools import cached_property
from pathlib import Path
from typing import Self

from pyroute2 import IPRoute

from enforcer.capture import cgroup, programs
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.cgroup import Cgroups
from enforcer.capture.namespace import run_inside
from enforcer.capture.programs import BPF_MOUNT, Pins
from enforcer.capture.tables import Tables
from enforcer.capture.uplinks import Uplinks
from enforcer.doctor.checks import CannotTell
from enforcer.doctor.children import CLONE_NEWNET, libc, system
from enforcer.errors import EnforcerError, HostError

PREFIX = "enforcer-doctor-"
# RFC 2544 and RFC 3849: addresses that are nobody's.
NEAR4, FAR4 = "198.18.0.1", "198.18.0.2"
NEAR6, FAR6 = "2001:db8::1", "2001:db8::2"
# A directory younger than this may belong to a doctor that has not locked it yet.
_SETTLED_SECONDS = 60.0
_ETH_P_ALL = 3
_WAIT_SECONDS, _POLL_SECONDS = 10.0, 0.02
_NODAD = 0x02  # IFA_F_NODAD: usable at once


def new_namespace() -> int:
    """A descriptor of a new, empty network namespace with `lo` up."""
    made: list[int] = []
    failed: list[OSError] = []

    def make() -> None:
        try:
            system(libc.unshare(CLONE_NEWNET))
            made.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=make, name="new netns")
    thread.start()
    thread.join()
    if failed:
        raise HostError(
            f"no new network namespace: {failed[0].strerror}; run as root, with CONFIG_NET_NS in the kernel"
        ) from failed[0]
    run_inside(made[0], _loopback_up)
    return made[0]


def _loopback_up() -> None:
    with IPRoute() as links:
        links.link("set", index=1, state="up")


class Stage:
    """Use as a context manager. `executors` and `outside` are cgroups for children: governed and not."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self.name = f"{PREFIX}{secrets.token_hex(4)}"
        self.pins = Pins(self.name)

    def __enter__(self) -> Self:
        mount = cgroup.find_mount()
        _sweep(mount)
        try:
            self._stack.callback(self.pins.remove)
            self._stack.callback(cgroup.remove, mount / self.name)
            self.groups = Cgroups.create(self.name)
            self._stack.callback(os.close, _lock(self.groups.top))
            self.executor = self.groups.create_executor("probe")
            self.outside = self.groups.top / "outside"
            self.outside.mkdir()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def executor_id(self) -> int:
        return cgroup.cgroup_id(self.executor)

    # --- programs

    def load(self) -> Path:
        """Compiles and loads the product's programs. Raises KernelError, HostError."""
        self._loaded = programs.load(self.pins, self._open_tables)
        return self._loaded

    def _open_tables(self, directory: Path) -> None:
        self._tables = Tables(directory)
        self._stack.callback(self._tables.close)
        self._tables.govern(self.groups)
        self._tables.set_executor(self.executor_id, ExecutorMode.ATTACHED)

    def attach(self) -> dict[str, int]:
        """Attaches them to the throw-away cgroups, as a start does; programs per hook. Raises KernelError."""
        if not hasattr(self, "_loaded"):
            raise CannotTell("the programs did not load")
        programs.switch(self.pins, self.groups, self._loaded)
        self._tables.settle()
        self._attached = programs.attached(self.pins, self.groups)
        return self._attached

    @property
    def tables(self) -> Tables:
        """The maps of the attached programs. They know the throw-away executor, no listener and no generation: what a
        supervisor leaves that died before it was ready."""
        if not hasattr(self, "_attached"):
            raise CannotTell("the programs are not attached")
        return self._tables

    def guard(self) -> None:
        """Puts the last line on the near end of the cable, as on an uplink. Raises KernelError."""
        _ = self.tables
        run_inside(self.near, Uplinks(self.name, self._loaded / "prog_uplink").ensure)

    # --- namespaces

    @cached_property
    def near(self) -> int:
        self._wire()
        return self._near

    @cached_property
    def far(self) -> Far:
        self._wire()
        far = run_inside(self._far, Far)
        self._stack.callback(far.close)
        # IPv6 is ready a moment after the interface is.
        run_inside(self.near, far.wait_for_link)
        return far

    def _wire(self) -> None:
        if hasattr(self, "_near"):
            return
        self._near, self._far = new_namespace(), new_namespace()
        for fd in (self._near, self._far):
            self._stack.callback(os.close, fd)

        def cable() -> None:
            with IPRoute() as links:
                links.link("add", ifname="near", kind="veth", peer={"ifname": "far", "net_ns_fd": self._far})

        try:
            run_inside(self._near, cable)
            run_inside(self._far, lambda: _address("far", FAR4, FAR6))
            run_inside(self._near, lambda: _address("near", NEAR4, NEAR6))
        except Exception as error:
            raise CannotTell(f"no pair of throw-away interfaces (veth): {error}") from error


def _address(name: str, ipv4: str, ipv6: str) -> None:
    with IPRoute() as links:
        index = links.link_lookup(ifname=name)[0]
        links.addr("add", index=index, address=ipv4, prefixlen=24)
        links.addr("add", index=index, address=ipv6, prefixlen=64, flags=_NODAD)
        links.link("set", index=index, state="up")


class Far:
    """Every frame that reaches the far namespace. Created inside it, read from anywhere."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._socket.settimeout(_WAIT_SECONDS)

    def frames_until(self, marker: bytes) -> list[bytes]:
        """What arrived before the frame that holds `marker`, which an ungoverned process sent last. Raises CannotTell
        when it does not come: then nothing else that did not come proves anything."""
        frames: list[bytes] = []
        deadline = time.monotonic() + _WAIT_SECONDS
        while time.monotonic() < deadline:
            try:
                frame, (_, _, kind, *_) = self._socket.recvfrom(65535)
            except TimeoutError:
                break
            if kind == socket.PACKET_OUTGOING:
                continue
            if marker in frame:
                return frames
            frames.append(frame)
        raise CannotTell("nothing arrives at the far side of the throw-away cable, also from ungoverned processes")

    def wait_for_link(self) -> None:
        """Called in the near namespace: returns once IPv6 passes. Raises CannotTell when it does not."""
        text = b"link " + secrets.token_hex(8).encode()
        self._socket.settimeout(_POLL_SECONDS)
        deadline = time.monotonic() + _WAIT_SECONDS
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
            while time.monotonic() < deadline:
                with suppress(OSError):
                    sock.sendto(text, (FAR6, 9))
                with suppress(TimeoutError):
                    while text not in self._socket.recv(65535):
                        pass
                    self._socket.settimeout(_WAIT_SECONDS)
                    return
        raise CannotTell("IPv6 does not pass over a throw-away cable")

    def close(self) -> None:
        self._socket.close()


def _lock(directory: Path) -> int:
    """Marks the cgroup as in use until this process ends, however it ends."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return fd


def _sweep(mount: Path) -> None:
    """Removes what a killed doctor left: its cgroup is not locked any more, or is gone before its pins."""
    for left in (*mount.glob(f"{PREFIX}*"), *BPF_MOUNT.glob(f"{PREFIX}*")):
        group = mount / left.name
        try:
            if time.time() - left.stat().st_mtime < _SETTLED_SECONDS:
                continue
            if group.exists():
                os.close(_lock(group))
                cgroup.remove(group)
            Pins(left.name).remove()
        except (OSError, EnforcerError):
            continue  # in use, or somebody else removes it
