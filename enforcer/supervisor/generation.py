"""Reads a generation: the enabled policies and the geography table, whole and valid or not at all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from enforcer.capture.abi import CoarseVerdict
from enforcer.config import Settings
from enforcer.errors import ConfigError
from enforcer.geo.compiled import compiled
from enforcer.geo.groups import Groups
from enforcer.geo.imports import Store
from enforcer.geo.sources import Sources, Table
from enforcer.geo.table import GeoTable
from enforcer.masking import detectors, jsonpath, language
from enforcer.masking.keys import Keys
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.vocabulary import Vocabulary
from enforcer.protocols import registry
from enforcer.supervisor import home, mask_keys, trust
from enforcer.supervisor.trust import Trust

# Kinds of address that no rule can allow; refused at connect(), where that is the clearest answer.
_NEVER_PROXIED = frozenset({"multicast"})


@dataclass(frozen=True, slots=True)
class Content:
    """What one generation is made of, before it has a number. `away`: why this host is not at home, a line each; where
    the configuration then refuses executors, `policies` deny everything."""

    policies: PolicySet
    table: GeoTable
    table_path: Path
    away: tuple[str, ...] = ()
    trust: Trust = field(default_factory=lambda: Trust(None))
    mask_keys: Keys = field(default_factory=Keys)

    @property
    def is_closed(self) -> bool:
        """Does nothing pass because the host is not at home?"""
        return bool(self.away) and [policy.name for policy in self.policies.policies] == [home.POLICY]


def vocabulary(settings: Settings) -> Vocabulary:
    """The words policies may use on this instance. Raises TableError for a bad operator-defined group."""
    groups = Groups.load(settings.groups, settings.geo.cloud_regions)
    missing = language.missing(settings.language_model, Path(settings.language_model).is_dir())
    return Vocabulary(
        regions=groups.expand,
        protocols=frozenset(registry.NAMES),
        detectors=frozenset(detectors.NAMES) | (language.NAMES if not missing else frozenset()),
        check_json_path=jsonpath.parse,
        withheld=dict.fromkeys(language.NAMES, missing) if missing else {},
    )


def policy_paths(settings: Settings) -> list[Path]:
    return [settings.policy_dir / f"{name}.yaml" for name in settings.policies]


def table_path(settings: Settings) -> Path:
    """The compiled table, built first when no cache holds it. Raises TableError."""
    return compiled(geo_sources(settings), settings.geo_caches)


def geo_sources(settings: Settings, imported: tuple[Table, ...] | None = None) -> Sources:
    """Every table of this instance. `imported`: instead of the imported ones in force. Raises TableError where one of
    those is damaged."""
    if imported is None:
        imported = geo_store(settings).tables(settings.geo.sources)
    regions = tuple(settings.geo.cloud_regions.items())
    found = [Sources.discover(settings.etc, cache.parent, imported, regions) for cache in settings.geo_caches]
    return next((sources for sources in found if sources.ipfire is not None), found[0])


def geo_store(settings: Settings) -> Store:
    """Where this instance keeps what it has imported."""
    return Store(settings.state / "geo")


def read_content(settings: Settings, previous: Content | None = None) -> Content:
    """Keeps the table of `previous` where it is still the one. Raises PolicyError with all faults of all files,
    ConfigError or TableError."""
    unknown = sorted(set(settings.record_mask) - detectors.NAMES)
    if unknown:
        raise ConfigError(f"record_mask: {detectors.unknown(unknown[0])}")
    words = vocabulary(settings)
    trusted = trust.read(settings)
    keys = mask_keys.read(settings.state)
    policies = load_policies(policy_paths(settings), words)
    path = table_path(settings)
    same = previous is not None and previous.table_path == path
    table = previous.table if previous is not None and same else GeoTable.open(path)
    away = home.faults(settings, table, words.regions)
    refused = away and settings.home.elsewhere == "refuse"
    return Content(home.closed(policies) if refused else policies, table, path, away, trusted, keys)


def has_moved(settings: Settings, content: Content) -> bool:
    """Is this host no longer, or again, where `content` found it? Raises TableError, ConfigError."""
    return home.faults(settings, content.table, vocabulary(settings).regions) != content.away


def coarse_verdicts(table: GeoTable) -> Mapping[int, CoarseVerdict]:
    """What each region set gets at connect(). Everything that a rule might allow goes to the proxy, as do denials that
    it can explain in the protocol's own words."""
    return {
        ident: CoarseVerdict.REFUSE if region_set.kind in _NEVER_PROXIED else CoarseVerdict.REDIRECT
        for ident, region_set in enumerate(table.sets)
    }
