"""Small source files for the geography tests: an MMDB writer, IPFire text, operator CSV."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from ipaddress import IPv4Network, ip_network
from pathlib import Path
from typing import Any

from enforcer.geo.sources import Sources
from enforcer.geo.table import GeoTable

MMDB_MARKER = b"\xab\xcd\xefMaxMind.com"


def write_mmdb(path: Path, rows: dict[str, str], *, record_size: int = 24, ip_version: int = 6) -> Path:
    """A MaxMind DB 2.0 file with `cidr: country_code`; written from the format's specification."""
    nodes: list[list[int | str | None]] = [[None, None]]
    for cidr, code in rows.items():
        network = ip_network(cidr)
        value, length = int(network.network_address), network.prefixlen
        width = 128 if network.version == 6 else 32
        if isinstance(network, IPv4Network) and ip_version == 6:
            length, width = length + 96, 128  # ::a.b.c.d
        at = 0
        for depth in range(length):
            bit = value >> (width - 1 - depth) & 1
            if depth == length - 1:
                nodes[at][bit] = code
            else:
                if not isinstance(nodes[at][bit], int):
                    nodes.append([None, None])
                    nodes[at][bit] = len(nodes) - 1
                at = nodes[at][bit]  # type: ignore[assignment]
    data, places = b"", {}
    for code in sorted(set(rows.values())):
        places[code] = len(data)
        data += _map({"country_code": code})
    count = len(nodes)

    def record(value: int | str | None) -> int:
        if value is None:
            return count
        return count + 16 + places[value] if isinstance(value, str) else value

    tree = b"".join(_node(record(left), record(right), record_size) for left, right in nodes)
    metadata = _map(
        {
            "node_count": (6, count),
            "record_size": (5, record_size),
            "ip_version": (5, ip_version),
            "build_epoch": (9, 1781725900),  # 2026-06-17
            "binary_format_major_version": (5, 2),
            "binary_format_minor_version": (5, 0),
            "database_type": "t",
            "languages": [],
            "description": {},
        }
    )
    path.write_bytes(tree + bytes(16) + data + MMDB_MARKER + metadata)
    return path


def _node(left: int, right: int, size: int) -> bytes:
    if size == 28:
        middle = (left >> 24) << 4 | right >> 24
        return (left & 0xFFFFFF).to_bytes(3) + bytes([middle]) + (right & 0xFFFFFF).to_bytes(3)
    return left.to_bytes(size // 8) + right.to_bytes(size // 8)


def _map(values: dict[str, Any]) -> bytes:
    return bytes([7 << 5 | len(values)]) + b"".join(_text(key) + _value(value) for key, value in values.items())


def _value(value: Any) -> bytes:
    if isinstance(value, tuple):
        kind, number = value  # 5, 6, 9: unsigned integers of 16, 32, 64 bits
        packed: bytes = struct.pack({5: ">H", 6: ">I", 9: ">Q"}[kind], number)
        return (bytes([len(packed), kind - 7]) if kind > 7 else bytes([kind << 5 | len(packed)])) + packed
    if isinstance(value, str):
        return _text(value)
    return b"\x00\x04" if isinstance(value, list) else _map(value)  # an empty array: extended type 11


def _text(value: str) -> bytes:
    assert len(value) < 29
    return bytes([2 << 5 | len(value)]) + value.encode()


IPFIRE_HEADER = "# Location Database Export\n# Generated: Thu, 25 Jun 2026 04:33:59 GMT\n"


def write_ipfire(directory: Path, ipv4: Iterable[tuple[str, str]], ipv6: Iterable[tuple[str, str]] = ()) -> Path:
    """`(cidr, code)` rows in ascending order, closed by a row of the last public block as in the real files."""
    directory.mkdir(parents=True, exist_ok=True)
    four = [(ip_network(cidr), code) for cidr, code in [*ipv4, ("223.255.255.0/24", "AU")]]
    six = [(ip_network(cidr), code) for cidr, code in [*ipv6, ("2c0f:fff0::/32", "NG")]]
    lines4 = [f"{int(n.network_address)},{int(n.broadcast_address)},{code}\n" for n, code in four]
    lines6 = [f"{n.network_address},{n.broadcast_address},{code}\n" for n, code in six]
    (directory / "geoip").write_text(IPFIRE_HEADER + "".join(lines4))
    (directory / "geoip6").write_text(IPFIRE_HEADER + "".join(lines6))
    return directory


# Range files in the providers' documented forms, a few entries each.
AWS: dict[str, Any] = {
    "syncToken": "1753388594",
    "createDate": "2025-07-24-20-23-14",
    "prefixes": [
        {"ip_prefix": prefix, "region": region, "service": service, "network_border_group": group}
        for prefix, region, service, group in (
            ("3.120.0.0/14", "eu-central-1", "AMAZON", "eu-central-1"),
            ("3.120.0.0/14", "eu-central-1", "EC2", "eu-central-1"),
            ("15.220.0.0/20", "eu-central-1", "EC2", "eu-central-1-waw-1"),
            ("99.77.0.0/16", "GLOBAL", "AMAZON", "GLOBAL"),
            ("99.77.1.0/24", "us-east-1", "AMAZON", "us-east-1"),
            ("51.204.0.0/14", "me-west-1", "AMAZON", "me-west-1"),
        )
    ],
    "ipv6_prefixes": [
        {
            "ipv6_prefix": "2a05:d014::/35",
            "region": "eu-central-1",
            "service": "AMAZON",
            "network_border_group": "eu-central-1",
        }
    ],
}
GOOGLE: dict[str, Any] = {
    "syncToken": "1753409788780",
    "creationTime": "2025-07-24T19:16:28.780563",
    "prefixes": [
        {"ipv4Prefix": "34.89.128.0/17", "service": "Google Cloud", "scope": "europe-west3"},
        {"ipv6Prefix": "2600:1900:40d0::/44", "service": "Google Cloud", "scope": "europe-west3"},
        {"ipv4Prefix": "34.96.64.0/18", "service": "Google Cloud", "scope": "global"},
    ],
}


def _tag(name: str, region: str, *prefixes: str) -> dict[str, Any]:
    properties = {"changeNumber": 5, "region": region, "regionId": 0, "platform": "Azure", "systemService": ""}
    return {"name": name, "id": name, "properties": {**properties, "addressPrefixes": list(prefixes)}}


AZURE: dict[str, Any] = {
    "changeNumber": 363,
    "cloud": "Public",
    "values": [
        _tag("ActionGroup", "", "20.52.0.4/30", "13.107.6.0/24"),
        _tag("AzureFrontDoor.Frontend", "", "20.52.9.0/24"),
        _tag("AzureFrontDoor.Backend", "", "20.52.10.0/24"),
        _tag("AzureCloud.germanywc", "germanywc", "20.52.0.0/16", "20.52.0.4/30"),
        _tag("AzureCloud.westeurope", "westeurope", "2603:1020::/47"),
    ],
}
ORACLE: dict[str, Any] = {
    "last_updated_timestamp": "2025-07-21T07:13:25.4",
    "regions": [{"region": "eu-frankfurt-1", "cidrs": [{"cidr": "129.159.0.0/20", "tags": ["OCI"]}]}],
}
CLOUDFLARE = {"ips-v4": "104.16.0.0/13\n131.0.72.0/22", "ips-v6": "2606:4700::/32\n"}


def write_csv(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def table_of(sources: Sources, directory: Path) -> GeoTable:
    """Compiles in this process: quick for small sources."""
    from enforcer.geo.compiled import build_into

    return GeoTable.open(build_into(sources.read(), directory))
