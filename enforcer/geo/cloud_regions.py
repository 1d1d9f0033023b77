"""Step 1 of 6, capture: cloud regions as places: `aws/eu-central-1` is in DE. Gets a name, hands on its country.

Names are `provider/region`, the region as the provider's own range file spells it. Shipped as data
(`data/cloud_regions.yaml`), each provider with a source and a date; an operator adds regions, and never moves one.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from functools import cache
from importlib import resources
from typing import Any

import yaml

from enforcer.errors import TableError
from enforcer.geo.iso import countries

DOUBT = "?"
"""Member of a set of regions that stands for "and perhaps elsewhere". No name in a policy covers it, so that only a
rule for every region allows such an address."""

_NAME = re.compile(r"(aws|google|azure|oracle)/[a-z0-9]([a-z0-9-]{0,62}[a-z0-9])?")


class CloudRegions:
    """Which country each region is in. Immutable."""

    def __init__(self, country_by_region: Mapping[str, str]) -> None:
        self._countries = dict(country_by_region)

    @classmethod
    def load(cls, extra: Mapping[str, str] | None = None) -> CloudRegions:
        """The shipped regions and the operator's `extra` ones, `{aws/eu-new-1: DE}`.

        Raises TableError with a line per fault: a name or country that is none, a region that is elsewhere already.
        """
        known = dict(_shipped())
        faults: list[str] = []
        for name, country in (extra or {}).items():
            if not _NAME.fullmatch(name):
                faults.append(f"cloud region {name!r}: no such name; write it as aws/eu-central-1")
            elif country not in countries():
                faults.append(f"cloud region {name!r}: {country!r} is no ISO 3166-1 alpha-2 country code; write DE")
            elif known.get(name, country) != country:
                faults.append(f"cloud region {name!r}: it is in {known[name]}; remove the entry")
            else:
                known[name] = country
        if faults:
            raise TableError("\n".join(faults))
        return cls(known)

    @property
    def names(self) -> Iterable[str]:
        return self._countries.keys()

    @property
    def sha256(self) -> str:
        rows = sorted(self._countries.items())
        return hashlib.sha256(repr(rows).encode()).hexdigest()

    def country(self, name: str) -> str | None:
        return self._countries.get(name)

    def inside(self, places: frozenset[str]) -> frozenset[str]:
        """The regions that are in one of these countries."""
        return frozenset(name for name, country in self._countries.items() if country in places)

    def words(self, regions: frozenset[str]) -> str:
        """A set of regions for people: `DE aws/eu-central-1`, `DE/FR`, `US/?`."""
        ordered = sorted(regions, key=lambda name: (name == DOUBT, self.country(name) or name, name))
        return "/".join(f"{self.country(name)} {name}" if self.country(name) else name for name in ordered)


@cache
def _shipped() -> Mapping[str, str]:
    text = resources.files("enforcer.geo").joinpath("data/cloud_regions.yaml").read_text(encoding="utf-8")
    data: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        f"{provider}/{region}": country
        for provider, entry in data.items()
        for country, regions in entry["regions"].items()
        for region in regions
    }
