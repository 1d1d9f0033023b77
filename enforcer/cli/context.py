"""What commands share: the instance's settings and, built only when asked for, its policies and tables.

What a command does not use is not imported: `enforcer exec` should cost a moment, not a second.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from enforcer.config import Settings
    from enforcer.geo.table import GeoTable
    from enforcer.policy.compiled import PolicySet
    from enforcer.policy.vocabulary import Vocabulary


def reload_command(settings: Settings) -> str:
    """What makes the supervisor of this instance read everything anew, for a shell."""
    return f"sudo kill -HUP $(sudo cat {settings.run}/supervisor.lock)"


@dataclass
class Context:
    """click's object: everything is read from files, so that commands work without a supervisor."""

    root: Path

    @cached_property
    def _settings(self) -> Settings:
        from enforcer.config import load_settings  # noqa: PLC0415

        return load_settings(self.root)

    def settings(self) -> Settings:
        return self._settings

    def paths(self) -> Settings:
        """Where this instance has its things, all else by default. For commands that look, give back and take off:
        they have to work whatever enforcer.yaml says, for after a slip in it they are what is needed."""
        from enforcer.config import Settings  # noqa: PLC0415

        return Settings(root=self.root.resolve())

    def vocabulary(self) -> Vocabulary:
        from enforcer.supervisor.generation import vocabulary  # noqa: PLC0415

        return vocabulary(self._settings)

    def geo(self) -> GeoTable:
        from enforcer.geo.table import GeoTable  # noqa: PLC0415
        from enforcer.supervisor.generation import table_path  # noqa: PLC0415

        return GeoTable.open(table_path(self._settings))

    def policies(self) -> PolicySet:
        from enforcer.policy.loader import load_policies  # noqa: PLC0415
        from enforcer.supervisor.generation import policy_paths  # noqa: PLC0415

        return load_policies(policy_paths(self._settings), self.vocabulary())
