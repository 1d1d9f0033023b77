"""The resolver as the supervisor sees it: whom it asks, whether that is where the operator wants to be, and the pairs
of sockets between it and the proxy workers."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Any

from enforcer.config import Settings
from enforcer.errors import ConfigError
from enforcer.flow import Address
from enforcer.geo.groups import Groups
from enforcer.geo.table import GeoTable
from enforcer.resolver.upstreams import Server

if TYPE_CHECKING:
    from enforcer.supervisor.workers import Worker, Workers

RESOLV_CONF = Path("/etc/resolv.conf")
PORT_DNS, PORT_TLS = 53, 853
# What resolv.conf(5) says where it names nobody.
_DEFAULT = "127.0.0.1"
# As many as other resolvers take from that file.
_MAX_SERVERS = 3


def servers(settings: Settings, resolv_conf: Path | None = None) -> list[tuple[str, int, str]]:
    """Whom to ask: (address, port, name in its certificate). From the configuration, or from the host's file."""
    if settings.resolver.upstreams:
        return [
            (str(one.address), one.port or (PORT_TLS if one.tls else PORT_DNS), one.tls or "")
            for one in settings.resolver.upstreams
        ]
    try:
        lines = (resolv_conf or RESOLV_CONF).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = [words[1] for line in lines if len(words := line.split()) > 1 and words[0] == "nameserver"]
    found = [address for address in named if _address(address) is not None]
    return [(address, PORT_DNS, "") for address in (found or [_DEFAULT])[:_MAX_SERVERS]]


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def for_process(settings: Settings) -> Mapping[str, Any]:
    """The settings that travel to the resolver with each generation."""
    chosen = settings.resolver
    return {
        "types": chosen.types,
        "steer": chosen.steer,
        "cache_bytes": chosen.cache_bytes,
        "names_per_minute": chosen.names_per_minute,
        "upstreams": servers(settings),
    }


def check_upstreams(settings: Settings, table: GeoTable) -> None:
    """Questions for names leave the host as surely as anything else: where `home.regions` is set, upstreams have to be
    there. Those of this host and its link are. Raises ConfigError, TableError."""
    if not (settings.resolver.enabled and settings.home.regions):
        return
    groups = Groups.load(settings.groups, settings.geo.cloud_regions)
    try:
        home = frozenset[str]().union(*(groups.expand(word) for word in settings.home.regions))
    except ValueError as error:
        raise ConfigError(f"home.regions: {error}") from error
    for text, _port, _tls in servers(settings):
        address = ip_address(text)
        region = table.lookup(address)
        if address.is_loopback or address.is_link_local or region.kind == "metadata":
            continue
        if not region.regions or not region.regions <= home:
            wanted = ", ".join(settings.home.regions)
            raise ConfigError(
                f"resolver: upstream {text} is in {region}, outside home.regions ({wanted});"
                " name one under resolver.upstreams that is inside, or place its address in a table of your own"
            )


def connect(workers: Iterable[Worker], resolvers: Iterable[Worker]) -> None:
    """Gives each worker a pair to the resolver: names one way, connections to port 53 the other. One that is still
    starting gets its pair when it is ready."""
    for worker in (one for one in workers if one.ready):
        for resolver in (one for one in resolvers if one.ready):
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            worker.link(ours)
            resolver.link(theirs)


def status(settings: Settings, resolvers: Workers) -> dict[str, Any]:
    """For `enforcer status`."""
    return {
        "processes": [{"pid": one.pid, "resident_bytes": one.resident_bytes()} for one in resolvers],
        "restarts": resolvers.restarts,
        "upstreams": [str(Server(*server)) for server in servers(settings)] if settings.resolver.enabled else [],
        "counters": resolvers.counters(),
    }
