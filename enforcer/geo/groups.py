"""Step 3 of 6, decide: names of regions in a policy become sets of places. Gets a name, hands on ISO codes and the
cloud regions that lie there.

Groups are data (`data/groups.yaml`), each with a source and a date; an operator adds groups in the configuration
but never changes a shipped one. `*` is not a name: policies give it its meaning.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from enforcer.errors import TableError
from enforcer.geo.cloud_regions import CloudRegions
from enforcer.geo.iso import countries

# Words of policies that mean no place: the host itself, and everywhere.
_RESERVED = frozenset({"HOST", "*"})


@dataclass(frozen=True, slots=True)
class Group:
    """`source` and `date` (ISO 8601) say what the membership rests on; the operator's groups have neither. `members`:
    ISO codes; an operator's may also name single cloud regions."""

    name: str
    title: str
    source: str
    date: str
    members: frozenset[str]


class Groups:
    """All names a policy may use. Immutable."""

    def __init__(self, groups: Mapping[str, Group], cloud: CloudRegions) -> None:
        self._groups = dict(groups)
        self._cloud = cloud

    @classmethod
    def load(
        cls, extra: Mapping[str, Iterable[str]] | None = None, cloud_regions: Mapping[str, str] | None = None
    ) -> Groups:
        """The shipped groups and the operator's `extra` ones: name to codes, cloud regions, or names of shipped groups.
        `cloud_regions`: the operator's, with their countries.

        Raises TableError with one line per fault: a name that is taken, an unknown member, an empty group.
        """
        shipped = cls(_shipped(), CloudRegions.load(cloud_regions))
        own: dict[str, Group] = {}
        faults: list[str] = []
        for name, members in (extra or {}).items():
            if name in shipped.names or name in countries() or name in _RESERVED:
                faults.append(f"region group {name!r}: the name is taken; choose another")
                continue
            if isinstance(members, str) or not (listed := list(members)):
                faults.append(f"region group {name!r}: no list of members; write [DE, FR]")
                continue
            try:
                codes = frozenset[str]().union(*(shipped._members(member) for member in listed))
                own[name] = Group(name, "", "", "", codes)
            except ValueError as error:
                faults.append(f"region group {name!r}: {error}")
        if faults:
            raise TableError("\n".join(faults))
        return cls({**shipped._groups, **own}, shipped._cloud)

    @property
    def names(self) -> frozenset[str]:
        return frozenset(self._groups)

    def group(self, name: str) -> Group | None:
        return self._groups.get(name)

    def expand(self, name: str) -> frozenset[str]:
        """A country is its code and the cloud regions in it, a group that of its members, a cloud region only itself.
        Others raise ValueError with the nearest name."""
        members = self._members(name)
        return members | self._cloud.inside(members)

    def _members(self, name: str) -> frozenset[str]:
        if name in self._groups:
            return self._groups[name].members
        if name in countries() or self._cloud.country(name):
            return frozenset({name})
        what = "is no known cloud region" if "/" in name else "is neither a country code nor a region group"
        raise ValueError(f"{name!r} {what}; {self._suggestion(name)}")

    def _suggestion(self, name: str) -> str:
        if "/" in name:
            close = difflib.get_close_matches(name.lower(), self._cloud.names, 1, 0.6)
            hint = f"did you mean {close[0]}? else " if close else ""
            return f"{hint}name its country in geo.cloud_regions of enforcer.yaml"
        by_title = {title.upper(): code for code, title in countries().items()}
        if name.upper() in by_title:
            return f"did you mean {by_title[name.upper()]}?"
        known = [*self._groups, *countries()]
        close = difflib.get_close_matches(name.upper(), known, 1, 0.5)
        return f"did you mean {close[0]}?" if close else f"groups are {', '.join(sorted(self._groups))}"


def _shipped() -> dict[str, Group]:
    text = resources.files("enforcer.geo").joinpath("data/groups.yaml").read_text(encoding="utf-8")
    data: dict[str, dict[str, Any]] = yaml.safe_load(text)
    return {
        name: Group(name, entry["title"], entry["source"], str(entry["date"]), frozenset(entry["members"]))
        for name, entry in data.items()
    }
