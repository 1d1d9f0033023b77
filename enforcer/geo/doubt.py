"""Step 1 of 6, capture: where country tables are not to be taken at their word. Gets nothing, hands on one step
function per address family.

A block that IANA gave to the registry of another continent, and that a table places in North America, is mostly held
by an American company and used wherever that company has machines: what the table knows is the holder's address. The
reverse does not hold: in ARIN's space a foreign answer can only come from somebody who looked.
"""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from ipaddress import ip_network
from typing import Any

import yaml

from enforcer.geo.address import BITS, Version
from enforcer.geo.ranges import Steps, flatten


def abroad(version: Version) -> Steps:
    """1 where a registry other than ARIN handed out the addresses, 0 elsewhere."""
    return flatten([(first, last, 1) for first, last in _blocks(version)], BITS[version])


def north_america() -> frozenset[str]:
    """Countries whose companies hold most of what is held from abroad."""
    return frozenset(_data()["north_america"])


def registries_sha256() -> str:
    return hashlib.sha256(repr(sorted(_data().items(), key=str)).encode()).hexdigest()


def _blocks(version: Version) -> list[tuple[int, int]]:
    if version == 6:
        networks = [ip_network(text) for block in _data()["ipv6"].values() for text in block]
        return [(int(network.network_address), int(network.broadcast_address)) for network in networks]
    octets = [str(entry).partition("-") for block in _data()["ipv4"].values() for entry in block]
    return [(int(low) << 24, (int(high or low) + 1 << 24) - 1) for low, _, high in octets]


@cache
def _data() -> dict[str, Any]:
    text = resources.files("enforcer.geo").joinpath("data/registries.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    return data
