"""What `policy` and `explain` get from the command line's root, with the policy tests' small world behind it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import click
from click.testing import CliRunner, Result

from enforcer.config import Settings
from enforcer.policy.compiled import PolicySet
from enforcer.policy.loader import load_policies
from enforcer.policy.vocabulary import Vocabulary
from tests.policy.policy_world import VOCABULARY, lookup

PACKS = Path(__file__).parents[2] / "policies"


@dataclass
class SmallContext:
    """An instance below `root` with `policies` enabled."""

    root: Path
    policies_enabled: tuple[str, ...] = ()

    def settings(self) -> Settings:
        return Settings(root=self.root, policies=self.policies_enabled)

    def paths(self) -> Settings:
        return self.settings()

    def vocabulary(self) -> Vocabulary:
        return VOCABULARY

    def geo(self) -> SimpleNamespace:
        return SimpleNamespace(lookup=lookup)

    def policies(self) -> PolicySet:
        settings = self.settings()
        return load_policies([settings.policy_dir / f"{name}.yaml" for name in settings.policies], VOCABULARY)

    def install(self, name: str, text: str | None = None) -> Path:
        """Puts the pack `name`, or `text` under its name, into the policy directory."""
        folder = self.settings().policy_dir
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.yaml"
        path.write_text((PACKS / path.name).read_text() if text is None else text)
        return path


def run(command: click.Command, context: SmallContext, *arguments: str | Path) -> Result:
    return CliRunner().invoke(command, [str(argument) for argument in arguments], obj=context)


def run_json(command: click.Command, context: SmallContext, *arguments: str | Path) -> object:
    return json.loads(run(command, context, *arguments, "--json").stdout)


def columns(text: str) -> Sequence[list[str]]:
    """The lines of a table, split where two or more blanks stand."""
    return [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in text.splitlines()]
