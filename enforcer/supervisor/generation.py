"""Reads a generation: the enabled policies and the geography table, whole and valid or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from enforcer.capture.abi import CoarseVerdict
from enforcer.config import Settings
from enforcer.errors import ConfigError
from enforcer.geo.compiled import compiled
from enforcer.geo.groups import Groups
from enforcer.geo.sources import Sources
from enforcer.geo.table import GeoTable
from enforcer.masking import detectors, jsonpath
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.vocabulary import Vocabulary
from enforcer.protocols import registry

# Kinds of address that no rule can allow; refused at connect(), where that is the clearest answer.
_NEVER_PROXIED = frozenset({"multicast"})


@dataclass(frozen=True, slots=True)
class Content:
    """What one generation is made of, before it has a number."""

    policies: PolicySet
    table: GeoTable
    table_path: Path


def vocabulary(settings: Settings) -> Vocabulary:
    """The words policies may use on this instance. Raises TableError for a bad operator-defined group."""
    groups = Groups.load(settings.groups)
    return Vocabulary(
        regions=groups.expand,
        protocols=frozenset(registry.NAMES),
        detectors=frozenset(detectors.NAMES),
        check_json_path=jsonpath.parse,
    )


def policy_paths(settings: Settings) -> list[Path]:
    return [settings.policy_dir / f"{name}.yaml" for name in settings.policies]


def table_path(settings: Settings) -> Path:
    """The compiled table, built first when no cache holds it. Raises TableError."""
    found = [Sources.discover(settings.etc, cache.parent) for cache in settings.geo_caches]
    sources = next((sources for sources in found if sources.ipfire is not None), found[0])
    return compiled(sources, settings.geo_caches)


def read_content(settings: Settings, previous: Content | None = None) -> Content:
    """Keeps the table of `previous` where it is still the one. Raises PolicyError with all faults of all files,
    ConfigError or TableError."""
    unknown = sorted(set(settings.record_mask) - detectors.NAMES)
    if unknown:
        known = ", ".join(sorted(detectors.NAMES))
        raise ConfigError(f"record_mask: unknown detector {unknown[0]!r}; known are {known}")
    policies = load_policies(policy_paths(settings), vocabulary(settings))
    path = table_path(settings)
    same = previous is not None and previous.table_path == path
    return Content(policies, previous.table if previous is not None and same else GeoTable.open(path), path)


def coarse_verdicts(table: GeoTable) -> Mapping[int, CoarseVerdict]:
    """What each region set gets at connect(). Everything that a rule might allow goes to the proxy, as do denials that
    it can explain in the protocol's own words."""
    return {
        ident: CoarseVerdict.REFUSE if region_set.kind in _NEVER_PROXIED else CoarseVerdict.REDIRECT
        for ident, region_set in enumerate(table.sets)
    }
