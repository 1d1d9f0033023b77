"""The `enforcer` command: one file per verb, one exit code per class of error, errors as one line on standard error."""

from __future__ import annotations

import importlib
import io
import os
import sys
from pathlib import Path

import click

from enforcer.errors import EnforcerError

# Verb -> module and object, and what the list of commands says. Imported when used: `enforcer exec` must not wait for
# what `policy check` needs, nor `enforcer --help` for all of them.
_COMMANDS = {
    "ca": ("ca_cmd:ca", "Show, export and rotate the authority that executors trust."),
    "demo": ("demo_cmd:demo", "Run an executor through the enforcer in a small world."),
    "doctor": ("doctor_cmd:doctor", "Try what this host guarantees, promise by promise."),
    "exec": ("exec_cmd:execute", "Run a command as an executor."),
    "explain": ("explain_cmd:explain", "Show how a destination would be judged, and why."),
    "geo": ("geo_cmd:geo", "Show where addresses are; list and renew the tables."),
    "mask": ("mask_cmd:mask", "Try out masks."),
    "policy": ("policy_cmd:policy", "Check and list policy files."),
    "probe": ("probe_cmd:probe", "Try every known way out of an executor on this host."),
    "release": ("release_cmd:release", "Let an attached executor go."),
    "run": ("run_cmd:run", "Run the supervisor."),
    "sessions": ("sessions_cmd:sessions", "Show and verify what executors sent."),
    "status": ("status_cmd:status", "Show the running supervisor and what is attached."),
    "uninstall": ("uninstall_cmd:uninstall", "Take the enforcer off this host."),
}


class LazyGroup(click.Group):
    """Loads a command's module when the command is asked for."""

    def list_commands(self, _ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    def get_command(self, _ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        module, attribute = _COMMANDS[name][0].split(":")
        command: click.Command = getattr(importlib.import_module(f"enforcer.cli.{module}"), attribute)
        return command

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, said) for name, (_, said) in sorted(_COMMANDS.items())])


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

    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        ctx.color = False
    ctx.obj = Context(root)


def main() -> None:
    """Runs the command line and ends the process with the error's exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        # What the terminal's encoding lacks is spelt out, rather than ending the command in the midst of its answer.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        cli()
    except OSError:
        _end_without_output()
        raise
    except EnforcerError as error:
        for line in str(error).splitlines():
            click.echo(f"enforcer: {line}", err=True)
        sys.exit(error.exit_code)


def _end_without_output() -> None:
    """Ends the process where standard output takes nothing more: a full disk, a terminal that is gone. (A pipe that is
    closed is click's to end quietly.) Returns where it is not to blame."""
    try:
        click.echo()
    except OSError as error:
        click.echo(f"enforcer: the output cannot be written: {error.strerror}; write it elsewhere", err=True)
        os._exit(EnforcerError.exit_code)  # leaving otherwise would try to write the rest
