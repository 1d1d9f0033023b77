"""Step 3 of 6, decide: is this host where its configuration says, and do its records lie there?

Gets the addresses of this host's interfaces, those that the configuration adds, and the mounts; hands on what is not at
home, a line each. A host that is elsewhere judges by the law of another place: its policies give way to one that denies
everything. Reads addresses and mounts only; nobody is asked.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import psutil

from enforcer.config import Settings
from enforcer.errors import ConfigError, HostError
from enforcer.flow import Address
from enforcer.geo.table import GeoTable
from enforcer.policy.compiled import ANY_REGION, Policy, PolicySet, Rule
from enforcer.policy.engine import PLACED
from enforcer.verdict import Action

# Seconds between two looks while the supervisor runs: an address or a mount may change.
INTERVAL = 3600.0
# What stands in place of the enabled policies, in denials and records.
POLICY, RULE = "home", "host-is-elsewhere"

# Types of mount(8) whose files are on this machine, or as near to it as its own disk (a hypervisor's share).
_LOCAL = frozenset(
    ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "zfs", "bcachefs", "jfs", "tmpfs", "ramfs", "overlay", "squashfs",
     "erofs", "vfat", "exfat", "ntfs3", "virtiofs", "9p", "fuseblk", "rootfs"]
)  # fmt: skip
# Drivers whose disks are on another machine, by the path of the device in sysfs.
_REMOTE_DISKS = ("/nbd", "/rbd", "/drbd", "/session", "/fc_host", "/nvme-fabrics")


@dataclass(frozen=True, slots=True)
class Mount:
    """One line of /proc/self/mountinfo. `device`: `major:minor`. `address`: of its server, where an option names it."""

    point: Path
    device: str
    kind: str
    source: str
    address: str


def faults(settings: Settings, table: GeoTable, expand: Callable[[str], frozenset[str]]) -> tuple[str, ...]:
    """What is not in the regions of `home`, a line each; none where the configuration names no home.

    `expand` gives the places of one word of policies. Raises ConfigError for a word that is none.
    """
    if not settings.home.regions:
        return ()
    home: set[str] = set()
    for word in settings.home.regions:
        try:
            home |= expand(word)
        except ValueError as error:
            raise ConfigError(f"home.regions: {error}") from error
    return (*misplaced(settings.home.addresses, interface_addresses(), home, table), *_stores(settings, home, table))


def admit(settings: Settings, away: tuple[str, ...]) -> None:
    """Raises HostError where no executor may start here."""
    if away and settings.home.elsewhere == "refuse":
        raise HostError(f"no executor runs here: {away[0]}; correct home, or the tables, or set home.elsewhere: warn")


def misplaced(named: Iterable[Address], found: Iterable[Address], home: set[str], table: GeoTable) -> list[str]:
    """Faults of addresses: all that are `named`, and all that were `found` and lie somewhere."""
    known = [address for address in found if table.lookup(address).kind in PLACED]
    addresses = list(dict.fromkeys([*named, *known]))
    if not addresses:
        return ["no public address shows where this host is; name those it goes out from as home.addresses"]
    return [fault for address in addresses for fault in _outside(f"address {address}", address, home, table)]


def _outside(what: str, address: Address, home: set[str], table: GeoTable) -> list[str]:
    region = table.lookup(address)
    if region.regions and region.regions <= home:
        return []
    return [f"{what} is in {region} ({region.prefix}, {region.source or 'no table'}), not wholly in home.regions"]


def interface_addresses() -> list[Address]:
    """Those of this network namespace."""
    return [
        ip_address(one.address.partition("%")[0])
        for addresses in psutil.net_if_addrs().values()
        for one in addresses
        if one.family in (socket.AF_INET, socket.AF_INET6)
    ]


def _stores(settings: Settings, home: set[str], table: GeoTable) -> list[str]:
    try:
        mounts = read_mounts(Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape"))
        return store_faults(settings.state.resolve(), mounts, home, table)
    except OSError as error:
        return [f"cannot tell where {settings.state} lies ({error.strerror}); mount /proc and /sys"]


def store_faults(store: Path, mounts: Iterable[Mount], home: set[str], table: GeoTable) -> list[str]:
    """Faults of the place where `store`, a resolved path, lies."""
    around = [mount for mount in mounts if store.is_relative_to(mount.point)]
    if not around:
        return [f"{store} is below no mount; mount /proc"]
    # Of several at one point the last is the one that is seen.
    mount = max(enumerate(around), key=lambda item: (len(item[1].point.parts), item[0]))[1]
    if mount.kind in _LOCAL:
        if is_remote_disk(mount.device):
            return [f"{store} is on a disk over the network ({mount.source}), and nothing says where that is"]
        return []
    try:
        address = ip_address(mount.address)
    except ValueError:
        return [
            f"{store} is on {mount.kind} from {mount.source}, and nothing says where that is; keep it on a disk here"
        ]
    return _outside(f"{store}, on {mount.kind} from {mount.source} at {address},", address, home, table)


def read_mounts(text: str) -> list[Mount]:
    """The lines of mountinfo (proc(5)): ID PARENT MAJOR:MINOR ROOT POINT OPTIONS [TAGS] - TYPE SOURCE OPTIONS."""
    mounts = []
    for line in text.splitlines():
        front, _, back = line.partition(" - ")
        fields, (kind, source, options) = front.split(" "), back.split(" ", 2)
        named = dict(option.partition("=")[::2] for option in options.split(","))
        point = fields[4].encode("latin-1", "surrogateescape").decode("unicode_escape")
        mounts.append(Mount(Path(point), fields[2], kind, source, named.get("addr", "")))
    return mounts


def is_remote_disk(device: str, sysfs: Path = Path("/sys/dev/block")) -> bool:
    """Is a block device `major:minor`, or one that it is made of, on another machine? False for what is no block
    device, such as a subvolume's number."""
    place = sysfs / device
    if not place.exists():
        return False
    pending = [place.resolve()]
    while pending:
        disk = pending.pop()
        if any(word in str(disk) for word in _REMOTE_DISKS):
            return True
        slaves = disk / "slaves"
        if slaves.is_dir():
            pending += [entry.resolve() for entry in slaves.iterdir()]
    return False


def closed(policies: PolicySet) -> PolicySet:
    """What is in force while the host is elsewhere: everything that `policies` govern stays so, and is denied."""
    rule = Rule(RULE, Action.DENY, (ANY_REGION,))
    return PolicySet.of((Policy(POLICY, False, ("*",), frozenset(), (rule,), policies.cgroup_patterns()),))
