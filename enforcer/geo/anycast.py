"""Step 1 of 6, capture: public services that answer from many countries under one address (`data/anycast.yaml`).

Gets the shipped list, hands on rows without a region. They lie above providers' ranges and country tables, which can
only say where such a prefix is registered, and below the operator's own tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from ipaddress import ip_network
from typing import Any

import yaml

from enforcer.geo.rows import Origin, Row

ANYCAST = "anycast"
"""Kind of an address that is in many places at once."""


class AnycastList:
    """The shipped list as a source; a row's label names the service."""

    def __init__(self) -> None:
        data = resources.files("enforcer.geo").joinpath("data/anycast.yaml").read_bytes()
        self._services: list[dict[str, Any]] = yaml.safe_load(data)
        date = max(str(service["date"]) for service in self._services)
        self._origin = Origin("anycast services", date, date, hashlib.sha256(data).hexdigest())

    @property
    def origin(self) -> Origin:
        return self._origin

    def rows(self) -> Iterator[Row]:
        for service in self._services:
            for prefix in service["prefixes"]:
                network = ip_network(prefix)
                first, last = int(network.network_address), int(network.broadcast_address)
                yield Row(4 if network.version == 4 else 6, first, last, frozenset(), service["service"], ANYCAST)
