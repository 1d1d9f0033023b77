"""`enforcer demo`: the product in one minute, on this machine, with real servers."""

from __future__ import annotations

import sys
import time

import click


@click.command()
def demo() -> None:
    """Build a small world in network namespaces, run an executor through the enforcer, show what happened.

    Exits with 1 if anything differed from what is promised. Leaves nothing behind, also on Ctrl-C.
    """
    from enforcer.demo.story import tell  # noqa: PLC0415 - the whole world

    begun = time.monotonic()
    held = tell(click.echo)
    click.echo(
        f"\n{'every promise held' if held else 'SOMETHING DIFFERED, see FAIL above'} ({time.monotonic() - begun:.0f} s)"
    )
    sys.exit(0 if held else 1)
