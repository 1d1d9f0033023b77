"""`enforcer ca`: looking makes nothing, export gives the certificate alone, rotate keeps the one before."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from click.testing import CliRunner

from enforcer.cli.ca_cmd import ca
from enforcer.cli.context import Context
from enforcer.errors import ConfigError, UsageError
from enforcer.tls.authority import Authority


@pytest.fixture
def context(tmp_path: Path) -> Context:
    (tmp_path / "etc/enforcer").mkdir(parents=True)
    (tmp_path / "etc/enforcer/enforcer.yaml").write_text("policies: []\n")
    return Context(tmp_path)


def run(context: Context, *arguments: str) -> str:
    done = CliRunner().invoke(ca, arguments, obj=context, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_before_the_first_start_there_is_none(context: Context) -> None:
    """One line says who makes it, and nothing was made by asking."""
    for command in ("show", "export"):
        with pytest.raises(UsageError, match="no authority yet; the supervisor makes it at its first start"):
            run(context, command)
    assert not context.settings().authority.exists()


def test_rotate_before_the_first_start(context: Context) -> None:
    """The first authority is made, in a directory that the supervisor takes: nobody else looks into it. No one before
    is told of."""
    told = run(context, "rotate", "--yes")
    assert stat.S_IMODE(context.paths().state.stat().st_mode) == 0o700
    assert "the one before" not in told
    assert Authority.open(context.paths().authority).fingerprint in told


def test_show_and_export(context: Context, tmp_path: Path) -> None:
    """Name, fingerprint and files; the certificate without the key, and over no file that exists."""
    authority = Authority.open(context.settings().authority)
    plain = json.loads(run(context, "show", "--json"))
    assert (plain["sha256"], plain["in_use"]) == (authority.fingerprint, True)
    assert f"sha256       {authority.fingerprint}" in run(context, "show")
    assert run(context, "export") == authority.certificate
    assert "PRIVATE" not in run(context, "export")
    target = tmp_path / "ca.pem"
    run(context, "export", "--output", str(target))
    assert target.read_text() == authority.certificate
    with pytest.raises(UsageError, match="exists; name a new file"):
        run(context, "export", "--output", str(target))


def test_rotate_makes_another_and_keeps_the_one_before(context: Context) -> None:
    """The key is root's alone; a question first, unless told not to ask."""
    directory = context.settings().authority
    old = Authority.open(directory)
    refused = CliRunner().invoke(ca, ["rotate"], obj=context, input="n\n")
    assert refused.exit_code == 1
    assert Authority.open(directory).fingerprint == old.fingerprint
    lock = context.paths().run / "supervisor.lock"
    assert f"in force after a reload: sudo kill -HUP $(sudo cat {lock})" in run(context, "rotate", "--yes")
    new = Authority.open(directory)
    assert new.fingerprint != old.fingerprint
    assert (directory / "ca-previous.pem").read_text() == old.certificate
    assert stat.S_IMODE((directory / "ca.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_damaged_and_open_files_are_refused(context: Context) -> None:
    """One line each, with what mends it."""
    directory = context.settings().authority
    Authority.open(directory)
    (directory / "ca.key").chmod(0o644)
    with pytest.raises(ConfigError, match="is open to others; chown root and chmod 600"):
        run(context, "show")
    (directory / "ca.key").chmod(0o600)
    whole = (directory / "ca.pem").read_text()
    for damage, words in ((whole[:100], "is damaged"), ("", "is damaged"), (None, "is damaged")):
        (directory / "ca.pem").unlink(missing_ok=True)
        if damage is not None:
            (directory / "ca.pem").write_text(damage)
        with pytest.raises(ConfigError, match=words):
            run(context, "show")
    (directory / "ca.pem").write_text(whole)
    Authority.create(directory.parent / "other")
    (directory / "ca.pem").write_text((directory.parent / "other/ca.pem").read_text())
    with pytest.raises(ConfigError, match="do not belong together"):
        run(context, "show")
