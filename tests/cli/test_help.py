"""`enforcer --help`: at once, and a line for every command."""

from __future__ import annotations

import subprocess
import sys

import click
from click.testing import CliRunner

from enforcer.cli import cli

LOADED = """
import sys
from enforcer.cli import cli
try:
    cli(["--help"])
finally:
    print(*sorted(name for name in sys.modules if name.startswith("enforcer.")), file=sys.stderr)
"""


def test_the_list_of_commands_loads_no_command() -> None:
    """Help comes from the command line's own module: what commands need is not read for it."""
    done = subprocess.run([sys.executable, "-P", "-c", LOADED], capture_output=True, text=True, check=True)
    assert done.stderr.split() == ["enforcer.cli", "enforcer.errors", "enforcer.flow"]


def test_every_command_says_in_one_line_what_it_does() -> None:
    """Each command, also of a group, is in its list with a sentence that is not cut off."""
    root = click.Context(cli)
    commands = [([name], cli.get_command(root, name)) for name in cli.list_commands(root)]
    for path, group in [([], cli), *((path, one) for path, one in commands if isinstance(one, click.Group))]:
        lines = CliRunner().invoke(cli, [*path, "--help"]).stdout.partition("Commands:\n")[2].splitlines()
        said = {name: text for name, _, text in (line.strip().partition(" ") for line in lines)}
        assert list(said) == group.list_commands(root)
        assert all(text.strip()[0].isupper() and text.endswith(".") and "..." not in text for text in said.values())
