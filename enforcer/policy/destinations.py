"""Step 3 of 6, decide: the words a policy names destinations with, read and checked.

Gets one word (a network, a port range, a host name, an `ADDR:PORT`); hands on a value that compares fast. Every
function raises ValueError with one line, `what is wrong; what mends it`. Never resolves a name, never imports YAML.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import idna

from enforcer.flow import Address, Endpoint

# RFC 1035 section 2.3.4: 255 octets on the wire leave 253 characters of text; a label has at most 63.
MAX_HOST = 253
# Underscores are not host name characters (RFC 952), but names with them are served and asked for.
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_BRACKETED = re.compile(r"\[([^\]]*)\](?::(.*))?", re.DOTALL)
_PORT_SUFFIX = re.compile(r":[0-9]*\Z")
# Only ASCII is folded: str.lower() would turn U+212A (Kelvin sign) into a "k" and so match a name it is not.
_ASCII_LOWER = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


@dataclass(frozen=True, slots=True)
class Network:
    """A CIDR as integers: `value & mask == base` for the addresses of IP version `version` inside it."""

    text: str
    version: int
    base: int
    mask: int

    @property
    def single(self) -> bool:
        """True for a /32 or /128: the rule names the address itself."""
        return self.mask == (1 << (32 if self.version == 4 else 128)) - 1

    @property
    def everything(self) -> bool:
        """True for 0.0.0.0/0 and ::/0."""
        return self.mask == 0

    def holds(self, version: int, value: int) -> bool:
        return version == self.version and value & self.mask == self.base


def parse_network(text: str) -> Network:
    """`10.0.0.0/8`, `2001:db8::/32`, or one address, which is read as its own /32 or /128."""
    address, slash, length = text.partition("/")
    if "%" in text or (slash and not (length.isascii() and length.isdigit())):
        raise ValueError(f"{text!r} is not a network; write ADDRESS/LENGTH such as 10.0.0.0/8")
    try:
        network: IPv4Network | IPv6Network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is not a network; write ADDRESS/LENGTH such as 10.0.0.0/8") from None
    if ip_address(address) != network.network_address:
        raise ValueError(
            f"{text!r} has host bits set; write {network} for the network"
            f" or {address}/{network.max_prefixlen} for the one address"
        )
    if isinstance(network, IPv6Network) and network.prefixlen >= 96 and network.network_address.ipv4_mapped:
        mapped = f"{network.network_address.ipv4_mapped}/{network.prefixlen - 96}"
        raise ValueError(f"{text!r} is IPv4-mapped and would never match; write {mapped}")
    return Network(str(network), network.version, int(network.network_address), int(network.netmask))


def parse_ports(text: str) -> tuple[int, int]:
    """`443` or `8000-8100`, as an inclusive range."""
    match = _PORTS.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a port; write a number from 1 to 65535, or a range such as 8000-8100")
    low, high = int(match[1]), int(match[2] or match[1])
    if low < 1 or high > 65535:
        raise ValueError(f"{text!r} is out of range; ports go from 1 to 65535")
    if low > high:
        raise ValueError(f"{text!r} runs backwards; write {high}-{low}")
    return low, high


def parse_host(text: str) -> str:
    """An exact name, or `*.suffix` (any depth below the suffix, not the suffix itself); lower-case A-labels out."""
    wildcard, name = ("*.", text[2:]) if text.startswith("*.") else ("", text)
    if len(name) > MAX_HOST:
        raise ValueError(f"a host name of {len(name)} characters cannot exist; the limit is {MAX_HOST}")
    if any(sign in name for sign in "/:@[]"):
        raise ValueError(f"{text!r} is more than a host name; write the name alone, without scheme, port or path")
    try:
        ip_address(name)
    except ValueError:
        pass
    else:
        raise ValueError(f"{text!r} is an address; put it under 'address'")
    encoded = name.removesuffix(".").translate(_ASCII_LOWER)
    if not encoded.isascii():
        encoded = _a_labels(encoded)
    if len(encoded) > MAX_HOST or not all(_LABEL.fullmatch(label) for label in encoded.split(".")):
        raise ValueError(f"{text!r} is not a host name; write an exact name, or *.suffix for every name below it")
    return wildcard + encoded


def _a_labels(name: str) -> str:
    """The one place where letters beyond ASCII become A-labels. Clients follow two standards, IDNA 2008 (UTS 46) and
    2003; a name for which they differ would be two names."""
    try:
        new, old = idna.encode(name, uts46=True).decode("ascii"), name.encode("idna").decode("ascii")
    except (UnicodeError, idna.IDNAError):
        raise ValueError(f"{name!r} is not a name for every client; write it as A-labels (xn--...)") from None
    if new != old:
        raise ValueError(f"{name!r} is {new} to some clients and {old} to others; write the one you mean")
    return new


def canonical_host(text: str) -> str:
    """The host a client named, in the form rules are written in: ASCII lower-case, no port, no trailing dot."""
    return _PORT_SUFFIX.sub("", text.translate(_ASCII_LOWER)).rstrip(".")


def parse_endpoint(text: str) -> Endpoint:
    """`3.120.0.1:5432` or `[2a05:d014::1]:5432`."""
    address, port = parse_destination(text)
    if port is None:
        raise ValueError(f"{text!r} has no port; write ADDR:PORT, or [ADDR]:PORT for IPv6")
    return Endpoint(address, port)


def parse_destination(text: str) -> tuple[Address, int | None]:
    """An endpoint, or an address alone (port None).

    An IPv4-mapped IPv6 address is unmapped, as it is for flows. Names are refused: nothing is resolved here.
    """
    host, port = _split(text)
    address = _address(host, text)
    if port is None:
        return address, None
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and 1 <= int(port) <= 65535):
        raise ValueError(f"{text!r} has no valid port; ports go from 1 to 65535")
    return address, int(port)


def _split(text: str) -> tuple[str, str | None]:
    bracketed = _BRACKETED.fullmatch(text)
    if bracketed:
        return bracketed[1], bracketed[2]
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, None


def _address(host: str, text: str) -> Address:
    try:
        address = ip_address(host)
    except ValueError:
        raise ValueError(
            f"{text!r} is not an address; write ADDR:PORT, or [ADDR]:PORT for IPv6 (names are not resolved here)"
        ) from None
    if isinstance(address, IPv6Address):
        if address.scope_id is not None:
            raise ValueError(f"{text!r} has a zone; write the address without '%{address.scope_id}'")
        return address.ipv4_mapped or address
    return address
