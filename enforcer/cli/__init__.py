"""The `enforcer` command: one file per verb, one exit code per class of error, errors as one line on standard error."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import click

from enforcer.errors import EnforcerError

# Verb -> module and object. Imported when used: `enforcer exec` must not wait for what `policy check` needs.
_COMMANDS = {
    "ca": "ca_cmd:ca",
    "demo": "demo_cmd:demo",
    "doctor": "doctor_cmd:doctor",
    "exec": "exec_cmd:execute",
    "explain": "explain_cmd:explain",
    "geo": "geo_cmd:geo",
    "policy": "policy_cmd:policy",
    "probe": "probe_cmd:probe",
    "release": "release_cmd:release",
    "run": "run_cmd:run",
    "sessions": "sessions_cmd:sessions",
    "status": "status_cmd:status",
    "uninstall": "uninstall_cmd:uninstall",
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name].split(":")
        command: click.Command = getattr(importlib.import_module(f"enforcer.cli.{module}"), attribute)
        return command


@click.command(cls=LazyGroup)
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False),
    default="/",
    help="Keep configuration, records, sockets and pins of this instance below DIR.",
    metavar="DIR",
)
@click.version_option(package_name="enforcer")
@click.pass_context
def cli(ctx: click.Context, root: Path) -> None:
    """Judges, masks and records the egress of executors by the region it goes to."""
    from enforcer.cli.context import Context  # noqa: PLC0415 - keeps --help and exec quick

    ctx.obj = Context(root)


def main() -> None:
    """Runs the command line and ends the process with the error's exit code."""
    try:
        cli()
    except EnforcerError as error:
        for line in str(error).splitlines():
            click.echo(f"enforcer: {line}", err=True)
        sys.exit(error.exit_code)
