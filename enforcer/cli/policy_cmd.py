"""`enforcer policy`: check policy files before they are used, and list what is there."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.errors import PolicyError
from enforcer.policy.expectations import run_expectations
from enforcer.policy.loader import PolicySource, duplicate_faults, read_policy
from enforcer.supervisor.generation import policy_paths

if TYPE_CHECKING:
    from enforcer.cli.context import Context

SUFFIX = ".yaml"


@dataclass(frozen=True)
class Checked:
    """The result of one file: `faults` is empty when it is valid and all its expectations hold."""

    file: str
    policy: str
    rules: int
    expectations: int
    faults: list[str]


@dataclass(frozen=True)
class Listed:
    """One file of the policy directory, or one enabled name without a file."""

    name: str
    enabled: bool
    mode: str
    rules: int
    description: str
    faults: list[str]


@click.group()
def policy() -> None:
    """Check and list policy files."""


@policy.command(short_help="Validate policy files and run their expectations.")
@click.argument("files", nargs=-1, type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_obj
def check(context: Context, files: tuple[Path, ...], as_json: bool) -> None:
    """Validate FILES and run their expectations; without FILES, the enabled policies.

    Names every fault of every file, and ends with exit code 4 if there is one.
    """
    paths = files or tuple(policy_paths(context.settings()))
    sources: list[PolicySource] = []
    results = [_check(context, path, sources) for path in paths]
    # Files named on the command line may be two versions of one policy; enabled ones may not.
    shared = [] if files else duplicate_faults(sources)
    faults = [*(fault for result in results for fault in result.faults), *shared]
    if as_json:
        click.echo(json.dumps({"ok": not faults, "files": [asdict(result) for result in results], "faults": faults}))
        if faults:
            raise click.exceptions.Exit(PolicyError.exit_code)
        return
    for result in results:
        if not result.faults:
            click.echo(
                f"ok  {result.policy}  {_count(result.rules, 'rule')}, {_count(result.expectations, 'expectation')}"
            )
    if not paths:
        click.echo("no policy is enabled: every flow is denied")
    if faults:
        raise PolicyError(faults)


@policy.command(name="list", short_help="List the policies that this host has.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.pass_obj
def list_policies(context: Context, as_json: bool) -> None:
    """List the policies that this host has, enabled ones first and in their order."""
    listed = [_listed(context, path) for path in _known_paths(context)]
    if as_json:
        click.echo(json.dumps([asdict(entry) for entry in listed]))
        return
    if not listed:
        click.echo(f"no policies in {context.settings().policy_dir}")
        return
    width = max(len(entry.name) for entry in listed)
    for entry in listed:
        state = "enabled " if entry.enabled else "disabled"
        if entry.faults:
            text = f"{_count(len(entry.faults), 'fault')}; 'enforcer policy check' names them"
            click.echo(f"{state}  {entry.name:{width}}  INVALID  {text}")
        else:
            click.echo(
                f"{state}  {entry.name:{width}}  {entry.mode:7}  {_count(entry.rules, 'rule'):8}  {entry.description}"
            )


def _check(context: Context, path: Path, sources: list[PolicySource]) -> Checked:
    try:
        source = read_policy(path, context.vocabulary())
    except PolicyError as error:
        return Checked(str(path), path.stem, 0, 0, error.faults)
    sources.append(source)
    # The tables are opened only where an expectation needs them: a file without any is checked without tables.
    failures = run_expectations(source, context.geo().lookup) if source.file.expect else []
    return Checked(str(path), source.file.policy, len(source.file.rules), len(source.file.expect), failures)


def _listed(context: Context, path: Path) -> Listed:
    enabled = path.stem in context.settings().policies
    try:
        file = read_policy(path, context.vocabulary()).file
    except PolicyError as error:
        return Listed(path.stem, enabled, "", 0, "", error.faults)
    return Listed(path.stem, enabled, file.mode, len(file.rules), " ".join(file.description.split()), [])


def _known_paths(context: Context) -> list[Path]:
    found = sorted(context.settings().policy_dir.glob(f"*{SUFFIX}"))
    return list(dict.fromkeys([*policy_paths(context.settings()), *found]))


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
