"""`enforcer release`: gives an attached executor back to the host, or takes it again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from enforcer.supervisor.client import ControlClient

if TYPE_CHECKING:
    from enforcer.cli.context import Context


@click.command()
@click.argument("name")
@click.option("--undo", is_flag=True, help="Take it again: its connections are closed and it is governed as before.")
@click.pass_obj
def release(context: Context, name: str, undo: bool) -> None:
    """Let the attached executor NAME go: from now on it is not governed, redirected or recorded.

    NAME is its name, its ident or its cgroup, as 'enforcer status' shows them. It stays released, also over a restart
    of the supervisor, until its cgroup ends or '--undo'. Isolated executors end with their command and cannot be
    released.
    """
    with ControlClient(context.paths().control_socket) as client:
        answer = client.request({"op": "retake" if undo else "release", "name": name})
    click.echo(f"{answer['cgroup']} is {'governed again' if undo else 'no longer governed'}")
