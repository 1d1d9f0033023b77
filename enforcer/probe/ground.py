"""Where the probe is played: an agent host, a far side that policy denies, a home that it allows, and an enforcer.

All of it in network namespaces with no route to the outside, and below a directory that goes with it. Nothing here
touches an installed enforcer, but kernel, tools and limits are this host's own: that is what is probed.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_interface
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import psutil
from pyroute2 import NetNS

from enforcer.capture import cgroup
from enforcer.capture.namespace import run_inside
from enforcer.config import Settings
from enforcer.demo.instance import Instance
from enforcer.demo.witness import Witness
from enforcer.demo.world import FRANKFURT, START_TIMEOUT, VIRGINIA, World
from enforcer.errors import HostError, NotRunning

T = TypeVar("T")
HOME, PEER = FRANKFURT, VIRGINIA
# Debian's own interpreter, which every user can read, wherever this checkout lies.
PYTHON = "/usr/bin/python3"
OUTSIDE = Path(__file__).parent / "outside"
# First of the ports that attempts get, one each: below the range the kernel takes source ports from.
FIRST_PORT = 20000
# What the far side serves besides, and where the helper outside forwards to.
FIXED_PORTS = (22, 53, 80, 443, 853)
RELAY_PORT = 19999
POLICY = f"""
policy: probe
description: One site is allowed, the far side is not.
applies_to: [APPLIES_TO]
rules:
  - name: names
    to: {{host: ["*.example"]}}
    action: deny
  - name: home
    to: {{address: ["{HOME.address}/32", "{HOME.address6}/128"], protocol: [http, opaque]}}
    action: allow
  - name: everything-else
    to: {{region: ["*"]}}
    action: deny
"""


def embedded_addresses(address: str) -> dict[str, str]:
    """IPv6 addresses that carry an IPv4 address (RFC 6052, 3056, 4380, 4291)."""
    number = int(IPv4Address(address))
    return {
        "nat64": str(IPv6Address((0x0064FF9B << 96) | number)),
        "6to4": str(IPv6Address((0x2002 << 112) | (number << 80) | 1)),
        "teredo": str(IPv6Address((0x20010000 << 96) | (number << 64) | (0x63BF << 32) | (number ^ 0xFFFFFFFF))),
        "compatible": str(IPv6Address(number)),
    }


EMBEDDED = embedded_addresses(PEER.address)
METADATA = ("169.254.169.254", "168.63.129.16", "100.100.100.200", "fd00:ec2::254")


@dataclass(frozen=True, slots=True)
class Link:
    """The cable between agent host and far side, as the agent host names it."""

    interface: str
    index: int
    mac: str
    peer_mac: str
    host4: str
    host6: str
    peer_link_local: str


class Ground:
    """Built on entry, gone on exit. `attempts`: for how many there must be a port. `attached`: policy also takes over a
    cgroup, which is then at the path of this name."""

    def __init__(self, policies: Path, attempts: int, *, attached: bool = False) -> None:
        self._policies = policies
        self._takes_over = attached
        self._ports = range(FIRST_PORT, FIRST_PORT + attempts)
        self._stack = ExitStack()
        self.world = World(HOME, PEER)
        self.mark = f"ep{secrets.token_hex(3)}"
        self.proxy_port = Settings().listener_port
        # The enforcer's processes when all was well last, as descriptors.
        self._seen_well: list[int] = []

    def __enter__(self) -> Self:
        try:
            self._stack.enter_context(self.world)
            self._far: int = os.open(self.world.path(PEER.name), os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(os.close, self._far)
            self._near: int = os.open(self.world.path(), os.O_RDONLY | os.O_CLOEXEC)
            self._stack.callback(os.close, self._near)
            self.link = self._lay_out()
            for site in (HOME, PEER):
                ports = map(str, [*FIXED_PORTS, *self._ports])
                self.world.spawn(site.name, PYTHON, str(OUTSIDE / "far_side.py"), *ports, log=f"{site.name}.log")
                self.world.wait_for(site, self._ports[-1])
            self.attached = cgroup.find_mount() / f"{self.mark}-attached"
            if self._takes_over:
                self.attached.mkdir()
                self._stack.callback(cgroup.remove, self.attached)
            self.witness: Witness = self.world.witness(PEER)
            self._stack.callback(self._forget)
            self.instance = self._instance()
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stack.close()

    def at_far_side(self, function: Callable[[], T]) -> T:
        """Calls `function` inside the far side's namespace."""
        return run_inside(self._far, function)

    def at_host(self, function: Callable[[], T]) -> T:
        """Calls `function` inside the agent host's namespace."""
        return run_inside(self._near, function)

    def heal(self) -> None:
        """Restarts the supervisor if a technique ended it, and waits for the proxy of attached executors, which is on
        the host's own loopback: who takes its port while it is gone is taken for it. Raises HostError when it does
        not come back."""
        if self._seen_well and not select.select(self._seen_well, [], [], 0)[0]:
            return  # none of them has ended
        deadline = time.monotonic() + START_TIMEOUT
        while time.monotonic() < deadline:
            if not self.instance.alive():
                self.instance.start()
                deadline = time.monotonic() + START_TIMEOUT
            if not self._takes_over or self._has_proxy():
                self._see_well()
                return
            time.sleep(0.02)
        raise HostError(
            "the enforcer under test does not recover; see what was tried before with --only. Its last line:"
            f" {self.instance.last_line()}"
        )

    def _see_well(self) -> None:
        """Remembers who is to live for as long as nothing is to be healed."""
        self._forget()
        with suppress(ProcessLookupError, psutil.NoSuchProcess):
            supervisor = psutil.Process(self.instance.pid)
            for process in (supervisor, *supervisor.children()):
                self._seen_well.append(os.pidfd_open(process.pid))
            return
        self._forget()

    def _forget(self) -> None:
        for descriptor in self._seen_well:
            os.close(descriptor)
        self._seen_well.clear()

    def _has_proxy(self) -> bool:
        """Does the proxy of attached executors accept? A restart may find its port still held by those who are about
        to end, and take another."""
        try:
            for tree in self.instance.status()["attached"]:
                self.proxy_port = tree["ports"][0]
                self.at_host(lambda: socket.create_connection(("127.0.0.1", self.proxy_port), 1).close())
                return True
        except (NotRunning, OSError):
            pass  # it is about to end, or has not come back
        return False

    def renew(self) -> None:
        """A new enforcer in place of one whose programs a technique took away."""
        self.instance.close()
        self.instance.start()

    def _instance(self) -> Instance:
        instance = Instance(
            self.world,
            policies=["probe"],
            packs=self._policies,
            settings={
                "identify_timeout": 0.3,
                "connect_timeout": 3,
                "workers": 1,
                # The worst case: whoever answers for names is the far side itself.
                "resolver": {"upstreams": [{"address": PEER.address}], "types": ["A", "AAAA", "TXT"]},
            },
        )
        (instance.root / "etc/enforcer/policies/probe.yaml").write_text(self._policy())
        return self._stack.enter_context(instance)

    def _policy(self) -> str:
        entries = ['{executor: "*"}']
        if self._takes_over:
            entries.append(f"{{cgroup: {self.attached.name}}}")
        return POLICY.replace("APPLIES_TO", ", ".join(entries))

    def _lay_out(self) -> Link:
        """Gives the far side every address that a technique uses for it, and the agent host the routes there."""
        with NetNS(Path(self.world.path(PEER.name)).name) as far:
            index = _link_of(far, PEER.address)
            attributes = dict(far.get_links(index)[0]["attrs"])
            peer_mac = attributes["IFLA_ADDRESS"]
            local = _link_local(far, index)
            for address in (*EMBEDDED.values(), *METADATA):
                version6 = ":" in address
                flags = {"flags": 0x02} if version6 else {}
                far.addr("add", index=index, address=address, prefixlen=128 if version6 else 32, **flags)
        with NetNS(Path(self.world.path()).name) as host:
            host4 = str(next(iter(ip_interface(PEER.ipv4).network.hosts())))
            index = _link_of(host, host4)
            attributes = dict(host.get_links(index)[0]["attrs"])
            for address in (*EMBEDDED.values(), *METADATA):
                host.route("add", dst=f"{address}/{128 if ':' in address else 32}", oif=index)
            # Groups are sent by a route, and this host has no default one.
            host.route("add", dst="224.0.0.0/4", oif=index)
            host.route("add", dst="255.255.255.255/32", oif=index)
        self.at_host(_open_host)
        host6 = str(ip_interface(PEER.ipv6).network[1])
        return Link(attributes["IFLA_IFNAME"], index, attributes["IFLA_ADDRESS"], peer_mac, host4, host6, local)


def _open_host() -> None:
    """An agent host as permissive as any: it forwards, takes loopback sources, and lets everyone send pings."""
    settings = {
        "net/ipv4/ip_forward": "1",
        "net/ipv4/ping_group_range": "0 2147483647",
        "net/ipv4/conf/all/accept_source_route": "1",
        "net/ipv4/conf/all/rp_filter": "0",
        "net/ipv6/conf/all/forwarding": "1",
        "net/ipv4/tcp_fastopen": "1",
    }
    for name, value in settings.items():
        Path("/proc/sys", name).write_text(value)


def _link_of(namespace: Any, address: str) -> int:
    return int(next(one["index"] for one in namespace.get_addr() if dict(one["attrs"]).get("IFA_ADDRESS") == address))


def _link_local(namespace: Any, index: int) -> str:
    for one in namespace.get_addr(family=socket.AF_INET6, index=index):
        address = str(dict(one["attrs"])["IFA_ADDRESS"])
        if address.startswith("fe80"):
            return address
    raise HostError("the far side's link has no link-local address; is IPv6 disabled on this host?")


def outside(world: World, user: str, *command: str) -> list[str]:
    """A command of `user` on the agent host, governed by nobody."""
    if user == "root":
        return world.command("host", *command)
    return world.command("host", "setpriv", f"--reuid={user}", f"--regid={_group(user)}", "--init-groups", *command)


def _group(user: str) -> str:
    done = subprocess.run(["id", "-g", user], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise HostError(f"user {user!r} does not exist; name another one with --user")
    return done.stdout.strip()
