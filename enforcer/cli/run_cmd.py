"""`enforcer run`: the supervisor in the foreground, as systemd and containers want it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from enforcer import compiled, log

if TYPE_CHECKING:
    from enforcer.cli.context import Context


@click.command()
@click.pass_obj
def run(context: Context) -> None:
    """Run the supervisor until SIGTERM or SIGINT; SIGHUP reloads policies, tables and configuration.

    Stopping it opens nothing: running executors get an error on every connection until it runs again.
    """
    settings = context.settings()
    log.configure()
    tree = compiled.find_tree()
    if tree is not None and compiled.running_from() != tree:
        compiled.run_from(tree)
    # Not sooner: a second's work, which neither a wrong setting nor the tree that is left needs.
    from enforcer.supervisor.service import supervise  # noqa: PLC0415

    asyncio.run(supervise(settings))
