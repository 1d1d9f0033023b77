"""Step 1 of 6, capture: special-purpose addresses, which no country table may place.

From the IANA special-purpose registries (RFC 6890 and its updates) and the cloud providers' own documentation of
their metadata services. Rows carry no region, so a rule that allows a region never covers them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import NamedTuple

from enforcer.geo.address import Version
from enforcer.geo.rows import Origin


class Special(NamedTuple):
    cidr: str
    kind: str
    why: str


SPECIAL: tuple[Special, ...] = (
    Special("0.0.0.0/8", "reserved", "RFC 791 this network"),
    Special("10.0.0.0/8", "private", "RFC 1918 private use"),
    Special("100.64.0.0/10", "shared", "RFC 6598 shared address space"),
    Special("100.100.100.200/32", "metadata", "Alibaba Cloud instance metadata"),
    Special("127.0.0.0/8", "loopback", "RFC 1122 loopback"),
    Special("168.63.129.16/32", "metadata", "Azure host services"),
    Special("169.254.0.0/16", "link-local", "RFC 3927 link-local"),
    Special("169.254.169.254/32", "metadata", "cloud instance metadata"),
    Special("169.254.170.2/32", "metadata", "AWS container credentials"),
    Special("169.254.170.23/32", "metadata", "AWS pod identity"),
    Special("172.16.0.0/12", "private", "RFC 1918 private use"),
    Special("192.0.0.0/24", "reserved", "RFC 6890 IETF protocol assignments"),
    Special("192.0.2.0/24", "documentation", "RFC 5737 documentation"),
    Special("192.88.99.0/24", "reserved", "RFC 7526 deprecated 6to4 relay anycast"),
    Special("192.168.0.0/16", "private", "RFC 1918 private use"),
    Special("198.18.0.0/15", "reserved", "RFC 2544 benchmarking"),
    Special("198.51.100.0/24", "documentation", "RFC 5737 documentation"),
    Special("203.0.113.0/24", "documentation", "RFC 5737 documentation"),
    Special("224.0.0.0/4", "multicast", "RFC 5771 multicast"),
    Special("240.0.0.0/4", "reserved", "RFC 1112 reserved, and limited broadcast"),
    Special("::/8", "reserved", "RFC 4291 reserved by the IETF"),
    Special("::/96", "embedded", "RFC 4291 IPv4-compatible"),
    Special("::/128", "reserved", "RFC 4291 unspecified"),
    Special("::1/128", "loopback", "RFC 4291 loopback"),
    Special("::ffff:0:0/96", "embedded", "RFC 4291 IPv4-mapped"),
    Special("64:ff9b::/96", "embedded", "RFC 6052 NAT64"),
    Special("64:ff9b:1::/48", "embedded", "RFC 8215 local-use NAT64"),
    Special("100::/8", "reserved", "RFC 4291 reserved by the IETF, and RFC 6666 discard-only"),
    Special("2001::/23", "reserved", "RFC 2928 IETF protocol assignments"),
    Special("2001::/32", "embedded", "RFC 4380 Teredo"),
    Special("2001:db8::/32", "documentation", "RFC 3849 documentation"),
    Special("2002::/16", "embedded", "RFC 3056 6to4"),
    Special("3fff::/20", "documentation", "RFC 9637 documentation"),
    Special("5f00::/16", "reserved", "RFC 9602 segment routing SIDs"),
    Special("fc00::/7", "private", "RFC 4193 unique local"),
    Special("fd00:ec2::23/128", "metadata", "AWS pod identity"),
    Special("fd00:ec2::254/128", "metadata", "AWS instance metadata"),
    Special("fd20:ce::254/128", "metadata", "Google Cloud instance metadata"),
    Special("fe80::/10", "link-local", "RFC 4291 link-local"),
    Special("fec0::/10", "reserved", "RFC 3879 deprecated site-local"),
    Special("ff00::/8", "multicast", "RFC 4291 multicast"),
)

HARD_KINDS = frozenset({"metadata", "link-local", "multicast", "loopback"})
"""Kinds that not even an operator's table gives a region: they mean this host, its link or its cloud's control plane,
so "which country" has no answer, and a wide row such as 0.0.0.0/0 must not open them by accident."""

# Where a gateway may turn an IPv6 destination into the IPv4 one inside it: (prefix, bits below the IPv4 address). The
# local-use prefix counts as the /96 at its beginning, and below as the /48 that it is.
_TRANSLATED = ((IPv6Network("64:ff9b::/96"), 0), (IPv6Network("64:ff9b:1::/96"), 0), (IPv6Network("2002::/16"), 80))
# RFC 6052 section 2.2: behind a /48 the IPv4 address is cut in two by eight bits that are zero.
_SPLIT = IPv6Network("64:ff9b:1::/48")


class SpecialRow(NamedTuple):
    version: Version
    first: int
    last: int
    kind: str
    why: str


def special_rows() -> Iterator[SpecialRow]:
    """Every special range, and the hard IPv4 ones once more in the forms that NAT64 and 6to4 would translate."""
    for text, kind, why in SPECIAL:
        network = ip_network(text)
        yield SpecialRow(_version(network), int(network.network_address), int(network.broadcast_address), kind, why)
        if isinstance(network, IPv4Network) and kind in HARD_KINDS:
            for prefix, shift in _TRANSLATED:
                base = int(prefix.network_address)
                first = base + (int(network.network_address) << shift)
                last = base + ((int(network.broadcast_address) + 1) << shift) - 1
                yield SpecialRow(6, first, last, kind, f"{why}, inside {prefix}")
            yield SpecialRow(6, *_split(network), kind, f"{why}, inside {_SPLIT}")


def _split(network: IPv4Network) -> tuple[int, int]:
    """First and last address of the IPv6 range that holds an IPv4 network inside `_SPLIT`."""
    value, length = int(network.network_address), network.prefixlen
    first = int(_SPLIT.network_address) | (value >> 16) << 64 | (value & 0xFFFF) << 40
    below = 80 - length if length <= 16 else 72 - length
    return first, first | (1 << below) - 1


def _version(network: IPv4Network | IPv6Network) -> Version:
    return 4 if isinstance(network, IPv4Network) else 6


def hard_kind(version: Version, first: int, last: int) -> str:
    """The kind of the narrowest hard range that holds all of `first` to `last`, or an empty text."""
    around = [
        row
        for row in special_rows()
        if row.kind in HARD_KINDS and row.version == version and row.first <= first and last <= row.last
    ]
    return min(around, key=lambda row: row.last - row.first).kind if around else ""


def special_origin() -> Origin:
    """The list above as a source: its hash makes tables compiled with another list unequal."""
    digest = hashlib.sha256(repr(list(special_rows())).encode()).hexdigest()
    return Origin("special-purpose addresses", "RFC 6890", "", digest)
