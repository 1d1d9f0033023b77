"""`enforcer uninstall`: the only way to take the enforcer off."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from enforcer.cli.context import Context


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def uninstall(context: Context, yes: bool) -> None:
    """End all executors, detach every kernel program and remove maps and cgroups.

    Records and configuration stay. Refused while a supervisor runs.
    """
    from enforcer.capture.cgroup import find_mount  # noqa: PLC0415 - the kernel's tools
    from enforcer.capture.programs import Pins  # noqa: PLC0415
    from enforcer.supervisor.uninstall import uninstall as take_off  # noqa: PLC0415

    settings = context.paths()
    if not yes:
        click.confirm(f"Kill all executors of '{settings.instance}' and detach its kernel programs?", abort=True)
    places = (Pins(settings.instance).directory, find_mount() / settings.instance)
    there = os.geteuid() == 0 and any(place.exists() for place in places)  # nobody else may look
    take_off(settings)
    done = "removed: programs, maps and cgroups of" if there else "nothing is there of"
    click.echo(f"{done} '{settings.instance}'; records stay in {settings.state}")
