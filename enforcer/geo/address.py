"""Step 1 of 6, capture: addresses as the tables know them. Gets what a peer or a person wrote, hands on one form of it.

An address is looked up in one form only: the kernel hooks, the proxy and the command line all pass through
`normalise`, so `::ffff:8.8.8.8` can never be judged differently from `8.8.8.8`.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Literal

from enforcer.flow import Address

Version = Literal[4, 6]

BITS: dict[Version, int] = {4: 32, 6: 128}
"""Width of an address, in bits."""

VERSIONS: tuple[Version, Version] = (4, 6)


def normalise(address: Address | str) -> Address:
    """The one form of `address`: IPv4-mapped IPv6 (RFC 4291 section 2.5.5.2) becomes IPv4, a zone id is dropped.

    Other embeddings (NAT64, 6to4, Teredo) stay IPv6: their rows are of kind `embedded` and carry no region.
    Raises ValueError where a text is no address.
    """
    if isinstance(address, str):
        address = ip_address(address)
    if isinstance(address, IPv4Address):
        return address
    return address.ipv4_mapped or (IPv6Address(int(address)) if address.scope_id else address)


def to_address(version: Version, value: int) -> Address:
    """The address whose integer is `value`. Unlike `ip_address`, a small IPv6 integer stays IPv6."""
    return IPv4Address(value) if version == 4 else IPv6Address(value)


def cidr(version: Version, first: int, length: int) -> str:
    """`8.8.8.0/24`, from the integer of its first address and its prefix length."""
    return f"{to_address(version, first)}/{length}"
