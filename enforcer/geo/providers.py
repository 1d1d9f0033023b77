"""Step 1 of 6, capture: cloud providers' own lists of their ranges, in the forms that they publish them.

Gets the files' bytes, hands on rows of one cloud region each. Ranges that belong to no region, such as those of edge
services, are `anycast`; a region whose country is not known makes its ranges `unknown`. Nothing is skipped or repaired:
one prefix that cannot be read, or that two regions claim, refuses the whole file.

    aws         ip-ranges.json: https://docs.aws.amazon.com/vpc/latest/userguide/aws-ip-syntax.html
    google      cloud.json: https://support.google.com/a/answer/10026322
    azure       Service Tags: https://learn.microsoft.com/azure/virtual-network/service-tags-overview
    oracle      public_ip_ranges.json: https://docs.oracle.com/iaas/Content/General/Concepts/addressranges.htm
    cloudflare  ips-v4 and ips-v6, one prefix per line: https://www.cloudflare.com/ips/
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_network
from typing import Any, NamedTuple

from enforcer.errors import TableError
from enforcer.geo.address import VERSIONS, Version
from enforcer.geo.anycast import ANYCAST
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.rows import Input, Origin, Row
from enforcer.geo.special import special_rows

FAULTS_SHOWN = 10
"""A damaged file has thousands of bad entries; the first ten say what is wrong."""

MEND = "fetch it again"

WIDEST: dict[Version, int] = {4: 8, 6: 16}
"""No provider holds more than a /8 or a /16 in one piece; a wider prefix is a mistake, and would place a continent."""

_SPECIAL = tuple(special_rows())
_DATE = re.compile(r"(\d{4}-\d{2}-\d{2})")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,62}[a-z0-9]")
# Azure's tags of services that answer at its edge, from everywhere, although some lie inside ranges of a region.
_AZURE_EDGE = re.compile(r"AzureFrontDoor\.(?!Backend)")


class Claim(NamedTuple):
    """One entry of a file. `region`: as spelt there, empty where it names none. `edge`: of a service that answers from
    everywhere, whatever holds the prefix."""

    prefix: str
    region: str
    edge: bool = False


class Published(NamedTuple):
    """A file as read: the publisher's version and day of it (ISO 8601; either may be empty), and its entries."""

    version: str
    date: str
    claims: list[Claim]


class ProviderTable:
    """One provider's file or files. Raises TableError, with a line per fault, where they cannot be believed."""

    def __init__(self, name: str, form: str, inputs: Sequence[Input], cloud: CloudRegions) -> None:
        self._path = inputs[0].path
        self._form = form
        self._cloud = cloud
        try:
            published = _READERS[form](inputs)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            what = " ".join(str(error).split())[:120]
            raise TableError(f"{self._path}: not a whole {form} range file ({what}); {MEND}") from error
        digest = inputs[0].sha256 if len(inputs) == 1 else _digest(inputs)
        version = published.version or published.date or digest[:12]
        self._origin = Origin(name, version, published.date, digest)
        self._rows, self.unplaced = self._check(published.claims)

    @property
    def origin(self) -> Origin:
        return self._origin

    def rows(self) -> Iterator[Row]:
        return iter(self._rows)

    def _check(self, claims: list[Claim]) -> tuple[list[Row], frozenset[str]]:
        """The rows, and the regions whose country is not known."""
        faults: list[str] = []
        regions: dict[tuple[Version, int, int], Claim] = {}
        for claim in claims:
            try:
                place = _network(claim.prefix)
                _check_region(claim)
                earlier = regions.setdefault(place, claim)
                if earlier.edge < claim.edge or (not earlier.edge and not earlier.region):
                    regions[place] = claim
                elif claim.region and not claim.edge and not earlier.edge and earlier.region != claim.region:
                    raise ValueError(f"{claim.prefix} is in {earlier.region} and in {claim.region}")
            except ValueError as fault:
                faults.append(f"{self._path}: {fault}; {MEND}")
            if len(faults) == FAULTS_SHOWN:
                break
        if not regions and not faults:
            faults.append(f"{self._path}: no range in it; {MEND}")
        if faults:
            raise TableError("\n".join(faults))
        rows = list(self._place(regions))
        unplaced = {f"{self._form}/{claim.region}" for claim in regions.values() if claim.region and not claim.edge}
        return rows, frozenset(name for name in unplaced if self._cloud.country(name) is None)

    def _place(self, claims: dict[tuple[Version, int, int], Claim]) -> Iterator[Row]:
        regional = _Holding(place for place, claim in claims.items() if claim.region and not claim.edge)
        for place, claim in claims.items():
            if claim.edge or not claim.region:
                if claim.edge or not regional.holds(place):
                    yield Row(*place, frozenset(), "edge" if claim.edge else "no region", ANYCAST)
                continue
            name = f"{self._form}/{claim.region}"
            if self._cloud.country(name) is None:
                yield Row(*place, frozenset(), f"{name}, whose country is not known", "unknown")
            else:
                yield Row(*place, frozenset({name}), "", "provider")


class _Holding:
    """Which ranges lie inside one of these."""

    def __init__(self, places: Iterator[tuple[Version, int, int]]) -> None:
        self._ends: dict[Version, tuple[list[int], list[int]]] = {version: ([], []) for version in VERSIONS}
        for version, first, last in sorted(places, key=lambda place: (place[1], -place[2])):
            firsts, lasts = self._ends[version]
            if not lasts or last > lasts[-1]:  # CIDRs nest: what ends no later is inside the one before
                firsts.append(first)
                lasts.append(last)

    def holds(self, place: tuple[Version, int, int]) -> bool:
        firsts, lasts = self._ends[place[0]]
        at = bisect_right(firsts, place[1]) - 1
        return at >= 0 and place[2] <= lasts[at]


def _network(text: Any) -> tuple[Version, int, int]:
    if not isinstance(text, str) or "/" not in text:
        raise ValueError(f"{text!r} is no prefix")
    try:
        network = ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{text!r} is no prefix") from None
    if str(network.network_address) != str(type(network.network_address)(text.partition("/")[0])):
        raise ValueError(f"{text} has host bits set")
    version: Version = 4 if network.version == 4 else 6
    if network.prefixlen < WIDEST[version]:
        raise ValueError(f"{text} is wider than any provider's range")
    first, last = int(network.network_address), int(network.broadcast_address)
    for row in _SPECIAL:
        if row.version == version and first <= row.last and row.first <= last:
            raise ValueError(f"{text} holds addresses that are {row.kind}")
    return version, first, last


def _check_region(claim: Claim) -> None:
    if claim.region and not _REGION.fullmatch(claim.region):
        raise ValueError(f"{claim.prefix} is in {claim.region!r}, which is no name of a region")


def _digest(inputs: Sequence[Input]) -> str:
    return Origin.combined(*(part.sha256 for part in inputs))


def _json(inputs: Sequence[Input]) -> Any:
    return json.loads(inputs[0].data)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not text")
    return value


def _day(text: Any) -> str:
    found = _DATE.match(text) if isinstance(text, str) else None
    return found[1] if found else ""


def _aws(inputs: Sequence[Input]) -> Published:
    """A network border group is where the addresses are; it may be in another country than its region."""
    document = _json(inputs)
    claims = []
    for block, field in (("prefixes", "ip_prefix"), ("ipv6_prefixes", "ipv6_prefix")):
        for entry in document[block]:
            region = _text(entry.get("network_border_group") or entry["region"])
            claims.append(Claim(entry[field], "" if region == "GLOBAL" else region))
    return Published(_text(document["syncToken"]), _day(document["createDate"]), claims)


def _google(inputs: Sequence[Input]) -> Published:
    document = _json(inputs)
    claims = []
    for entry in document["prefixes"]:
        scope = _text(entry["scope"])
        prefix = entry.get("ipv4Prefix") or entry["ipv6Prefix"]
        claims.append(Claim(prefix, "" if scope == "global" else scope))
    return Published(_text(document["syncToken"]), _day(document["creationTime"]), claims)


def _azure(inputs: Sequence[Input]) -> Published:
    document = _json(inputs)
    claims = []
    for tag in document["values"]:
        properties = tag["properties"]
        edge = bool(_AZURE_EDGE.match(_text(tag["name"])))
        region = _text(properties["region"])
        claims += [Claim(prefix, region, edge) for prefix in properties["addressPrefixes"]]
    return Published(str(document["changeNumber"]), "", claims)


def _oracle(inputs: Sequence[Input]) -> Published:
    document = _json(inputs)
    claims = [Claim(cidr["cidr"], _text(entry["region"])) for entry in document["regions"] for cidr in entry["cidrs"]]
    updated = _text(document["last_updated_timestamp"])
    return Published(updated, _day(updated), claims)


def _cloudflare(inputs: Sequence[Input]) -> Published:
    lines = [line.strip() for part in inputs for line in part.data.decode("ascii").splitlines()]
    return Published("", "", [Claim(line, "") for line in lines if line])


_READERS: dict[str, Callable[[Sequence[Input]], Published]] = {
    "aws": _aws,
    "google": _google,
    "azure": _azure,
    "oracle": _oracle,
    "cloudflare": _cloudflare,
}
PROVIDERS = frozenset(_READERS)
