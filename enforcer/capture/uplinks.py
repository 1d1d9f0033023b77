"""Step 1 of 6, capture: the last line at the interfaces that lead out of a network namespace.

What the cgroup hooks never see (AF_PACKET, above all) still leaves through an interface, and its socket has a cgroup.
One tc filter per interface but the loopback, in front of others; nothing of it depends on our living on.
"""

from __future__ import annotations

import errno
import hashlib
import os
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from enforcer.capture import sysbpf
from enforcer.errors import KernelError

# pkt_sched.h: TC_H_CLSACT with TC_H_MIN_EGRESS.
_EGRESS = 0xFFFFFFF3
# Preference 1, before everybody's; ETH_P_ALL.
_FIRST_ALL_PROTOCOLS = 1 << 16 | socket.htons(0x0003)
_IFF_LOOPBACK = 8
# linux/rtnetlink.h: RTMGRP_LINK
_LINK_GROUP = 1

T = TypeVar("T")


class Uplinks:
    """The filter of one instance, for the namespace that its methods are called in."""

    def __init__(self, instance: str, program_pin: Path) -> None:
        self._program_pin = program_pin
        self._name = f"{instance}-uplink"
        # Two instances may share an interface: each has a handle of its own, so that replacing replaces its own.
        self._handle = int.from_bytes(hashlib.sha256(instance.encode()).digest()[:4], "big") & 0x7FFFFFFF | 1

    def ensure(self) -> list[str]:
        """Has the filter, of the set in force, on every interface; atomically where it is there. Returns their names.

        Raises KernelError when the kernel refuses one.
        """
        program = sysbpf.get_pinned(self._program_pin)

        def attach(route: IPRoute) -> list[str]:
            return [name for index, name in _interfaces(route) if self._attach(route, index, name, program)]

        try:
            return _with_route(attach)
        finally:
            os.close(program)

    def _attach(self, route: IPRoute, index: int, name: str, program: int) -> bool:
        """False when the interface has gone meanwhile: others come and go as containers do."""
        try:
            try:
                route.tc("add", "clsact", index)
            except NetlinkError as error:
                if error.code != errno.EEXIST:  # ours of before, or somebody else's
                    raise
            route.tc(
                "replace-filter",
                "bpf",
                index,
                handle=self._handle,
                parent=_EGRESS,
                info=_FIRST_ALL_PROTOCOLS,
                fd=program,
                name=self._name,
                direct_action=True,
            )
        except NetlinkError as error:
            if _is_gone(route, index, error):
                return False
            raise KernelError(f"cannot guard interface {name}: {error}; is the kernel built with cls_bpf?") from error
        return True

    def guarded(self) -> dict[str, int]:
        """How many filters of ours each interface has; 1 each is right."""
        return _with_route(lambda route: {name: len(self._filters(route, index)) for index, name in _interfaces(route)})

    def remove(self) -> None:
        """Takes the filters off this namespace's interfaces; the clsact hook stays, others may use it."""

        def detach(route: IPRoute) -> None:
            for index, _name in _interfaces(route):
                for handle, info in self._filters(route, index):
                    try:
                        route.tc("del-filter", "bpf", index, handle=handle, parent=_EGRESS, info=info)
                    except NetlinkError as error:
                        if not _is_gone(route, index, error):
                            raise

        _with_route(detach)

    def _filters(self, route: IPRoute, index: int) -> list[tuple[int, int]]:
        found = []
        for one in route.get_filters(index=index, parent=_EGRESS):
            options = one.get_attr("TCA_OPTIONS")
            if one["handle"] == self._handle and options and options.get_attr("TCA_BPF_NAME") == self._name:
                found.append((one["handle"], one["info"]))
        return found


def _with_route(action: Callable[[IPRoute], T]) -> T:
    """On a thread of its own: pyroute2 runs an event loop, and the caller's thread has one. The new thread is in the
    caller's network namespace."""

    def run() -> T:
        with IPRoute() as route:
            return action(route)

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result()


def watch_interfaces() -> socket.socket:
    """A socket of this namespace that becomes readable when an interface appears or changes."""
    watcher = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
    watcher.bind((0, _LINK_GROUP))
    return watcher


def _is_gone(route: IPRoute, index: int, error: NetlinkError) -> bool:
    return error.code == errno.ENODEV and index not in dict(_interfaces(route))


def _interfaces(route: IPRoute) -> list[tuple[int, str]]:
    return [
        (link["index"], link.get_attr("IFLA_IFNAME")) for link in route.get_links() if not link["flags"] & _IFF_LOOPBACK
    ]
