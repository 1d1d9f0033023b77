"""`enforcer ca`: the local certificate authority that executors trust."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from enforcer.cli.context import reload_command
from enforcer.errors import HostError, UsageError
from enforcer.tls.authority import CERTIFICATE_FILE, KEY_FILE, PREVIOUS_FILE, Authority

if TYPE_CHECKING:
    from enforcer.cli.context import Context


@click.group()
def ca() -> None:
    """The authority in whose name TLS of executors ends here."""


@ca.command(short_help="Show its name, fingerprint and files.")
@click.option("--json", "as_json", is_flag=True, help="As JSON.")
@click.pass_obj
def show(context: Context, as_json: bool) -> None:
    """Show its name, fingerprint and end, and where its files are."""
    settings = context.settings()
    authority = _existing(settings.authority)
    plain = {
        "name": authority.name,
        "sha256": authority.fingerprint,
        "not_after": authority.not_after.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "certificate": str(settings.authority / CERTIFICATE_FILE),
        "key": str(settings.authority / KEY_FILE),
        "bundle": str(settings.trust_bundle),
        "in_use": settings.tls.intercept,
    }
    if as_json:
        click.echo(json.dumps(plain, indent=2))
        return
    click.echo(f"name         {plain['name']}")
    click.echo(f"sha256       {plain['sha256']}")
    click.echo(f"ends         {plain['not_after']}")
    click.echo(f"certificate  {plain['certificate']}")
    click.echo(f"key          {plain['key']} (root's alone)")
    click.echo(f"bundle       {plain['bundle']} (with the system's authorities: what executors see)")
    if not settings.tls.intercept:
        click.echo("not in use: tls.intercept is off")


@ca.command(short_help="Write its certificate, never its key.")
@click.option("--output", "-o", type=click.Path(path_type=Path, dir_okay=False), help="A new file instead of stdout.")
@click.pass_obj
def export(context: Context, output: Path | None) -> None:
    """Write its certificate, in PEM form, for services and containers that are to trust it. Never its key."""
    authority = _existing(context.paths().authority)
    if output is None:
        click.echo(authority.certificate, nl=False)
        return
    try:
        descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    except FileExistsError:
        raise UsageError(f"{output} exists; name a new file") from None
    except OSError as error:
        raise HostError(f"cannot write {output}: {error.strerror}; name another file") from error
    with os.fdopen(descriptor, "w") as stream:
        stream.write(authority.certificate)


@ca.command(short_help="Make another one in its place.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def rotate(context: Context, yes: bool) -> None:
    """Make another authority in place of this one, which stays trusted by executors beside it.

    In force after a reload of the supervisor. Whoever was given the certificate by 'export' needs the new one.
    """
    settings = context.paths()
    directory = settings.authority
    if not yes and (directory / KEY_FILE).exists():
        click.confirm("Everybody who trusts the authority by its certificate will need the new one. Go on?", abort=True)
    try:
        settings.state.mkdir(mode=0o700, parents=True, exist_ok=True)  # the records' directory
        made = Authority.create(directory)
    except OSError as error:
        raise HostError(
            f"{directory}: cannot keep the certificate authority ({error.strerror}); run as root"
        ) from error
    before = f"; the one before is {directory / PREVIOUS_FILE}" if (directory / PREVIOUS_FILE).exists() else ""
    click.echo(f"sha256 {made.fingerprint}{before}")
    click.echo(f"in force after a reload: {reload_command(settings)}")


def _existing(directory: Path) -> Authority:
    """Looking must not make one. Raises UsageError where there is none, ConfigError, HostError."""
    try:
        exists = (directory / KEY_FILE).exists()
    except OSError as error:
        raise HostError(f"cannot read {directory}: {error.strerror}; run as root") from error
    if not exists:
        raise UsageError(f"{directory} holds no authority yet; the supervisor makes it at its first start")
    return Authority.open(directory)
