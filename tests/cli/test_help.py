"""`enforcer --help`: at once, and a line for every command."""

from __future__ import annotations

import subprocess
import sys

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
    """Each command is in the list with a sentence that is not cut off."""
    lines = CliRunner().invoke(cli, ["--help"]).stdout.partition("Commands:\n")[2].splitlines()
    said = {name: text for name, _, text in (line.strip().partition(" ") for line in lines)}
    assert list(said) == cli.list_commands(cli.make_context("enforcer", [], resilient_parsing=True))
    assert all(text.strip()[0].isupper() and text.endswith(".") and "..." not in text for text in said.values())
