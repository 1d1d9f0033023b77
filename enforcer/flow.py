"""Who talks to whom: the values that travel the whole path. Imports nothing of this package."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Address, IPv6Address
from typing import Literal

Address = IPv4Address | IPv6Address
Mode = Literal["isolated", "attached"]


class Side(Enum):
    """The two ends of a flow: the executor's process, and the server it asked for."""

    CLIENT = "client"
    SERVER = "server"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An IP address and TCP port. IPv4-mapped IPv6 addresses are unmapped before they get here."""

    address: Address
    port: int

    def __str__(self) -> str:
        host = f"[{self.address}]" if self.address.version == 6 else str(self.address)
        return f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Executor:
    """A governed process tree: one cgroup subtree.

    `ident` is unique per start (also the cgroup's directory name); `name` is what policies match.
    `uid`/`user` are the ones the tree was started as; `cgroup_id` is the kernel's id of its cgroup. `mode`: `isolated`
    in a network namespace without a route, or `attached` where it already ran. `cgroup`: an attached tree's path
    relative to the cgroup v2 mount, `system.slice/agent.service`; empty for an isolated one, whose cgroup is ours.
    """

    ident: str
    name: str
    uid: int
    user: str
    cgroup_id: int
    cgroup: str = ""
    mode: Mode = "isolated"


@dataclass(frozen=True, slots=True)
class Region:
    """What the geography tables say of one address, and which row said it.

    `regions`: the set of regions the prefix may be in (ISO 3166-1 alpha-2, upper case, or a cloud region such as
    `aws/eu-central-1`). Usually one; two or more where tables disagree; `?` among them where it may be elsewhere as
    well; empty where unknown. A rule that allows must cover the whole set.
    `kind`: `country`, `provider`, `operator`, `anycast`, `unknown`, or a special-purpose class (`private`, `loopback`,
    `link-local`, `metadata`, `multicast`, `reserved`, `shared`, `documentation`, `embedded`).
    `prefix`: the matched CIDR. `source`: the table row's origin with its version, for the record. `words`: the set for
    people, `DE aws/eu-central-1`, where the codes alone do not say it.
    """

    regions: frozenset[str]
    kind: str
    prefix: str
    source: str
    words: str = ""

    def __str__(self) -> str:
        return self.names or self.kind

    @property
    def names(self) -> str:
        """The set in one text, `DE`, `DE/FR`, `DE aws/eu-central-1`; empty where it has no region."""
        return self.words or "/".join(sorted(self.regions))


@dataclass(frozen=True, slots=True)
class Flow:
    """One captured TCP connection of an executor, as the kernel and the tables know it.

    `cookie` is the kernel's socket cookie, `pid`/`uid` those of the connecting task,
    `opened_ns` the wall clock (Unix, nanoseconds) at accept.
    """

    executor: Executor
    destination: Endpoint
    region: Region
    cookie: int
    pid: int
    uid: int
    opened_ns: int
