"""What commands share: the instance's settings and, built only when asked for, its policies and tables."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from enforcer.config import Settings, load_settings
from enforcer.geo.table import GeoTable
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.vocabulary import Vocabulary
from enforcer.supervisor.generation import policy_paths, table_path, vocabulary


@dataclass
class Context:
    """click's object: everything is read from files, so that commands work without a supervisor."""

    root: Path

    @cached_property
    def _settings(self) -> Settings:
        return load_settings(self.root)

    def settings(self) -> Settings:
        return self._settings

    def vocabulary(self) -> Vocabulary:
        return vocabulary(self._settings)

    def geo(self) -> GeoTable:
        return GeoTable.open(table_path(self._settings))

    def policies(self) -> PolicySet:
        return load_policies(policy_paths(self._settings), self.vocabulary())
