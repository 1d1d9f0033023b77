"""Commands on a host where something is wrong: with the configuration, with the terminal, with where output goes."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from click.testing import CliRunner

from enforcer.cli import cli
from enforcer.errors import ConfigError, EnforcerError, NotRunning, RecordError, UsageError

# A slip of the pen, as an operator leaves it behind; and what is left when the directory was removed too early.
FAULTS = {"malformed": "policies: [eu-only\n", "unknown": "policiez: []\n", "missing": None}


def enforcer(
    root: Path, *arguments: str, environment: dict[str, str] | None = None, output: int = subprocess.PIPE
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "enforcer", "--root", str(root), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
        env={**os.environ, **(environment or {})},
    )


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "etc/enforcer/policies").mkdir(parents=True)
    (tmp_path / "etc/enforcer/enforcer.yaml").write_text("policies: []\n")
    return tmp_path


@pytest.mark.parametrize("fault", FAULTS)
def test_looking_and_taking_off_need_no_configuration(root: Path, fault: str) -> None:
    """Whatever enforcer.yaml says: status, records and uninstall work, for that is when they are needed; what depends
    on it says what is wrong."""
    path, text = root / "etc/enforcer/enforcer.yaml", FAULTS[fault]
    path.unlink() if text is None else path.write_text(text)
    for arguments, kind in (
        (("status",), NotRunning),
        (("release", "agent.service"), NotRunning),
        (("sessions", "list"), RecordError),
        (("ca", "export"), UsageError),
        (("policy", "check"), ConfigError),
    ):
        assert type(CliRunner().invoke(cli, ["--root", str(root), *arguments]).exception) is kind, arguments
    done = CliRunner().invoke(cli, ["--root", str(root), "uninstall", "--yes"])
    assert (done.exception, done.output.partition(" '")[0]) == (None, "nothing is there of")


def test_a_full_disk_under_the_output(root: Path) -> None:
    """Output that cannot be written is one line on standard error and exit code 1."""
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        done = enforcer(root, "policy", "check", output=full)
    finally:
        os.close(full)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "the output cannot be written: No space left on device" in done.stderr


def test_an_encoding_that_lacks_a_character(root: Path) -> None:
    """What the terminal's encoding cannot show is spelt out, and the rest is shown."""
    (root / "etc/enforcer/policies/big.yaml").write_text(
        "policy: big\ndescription: an arrow → and …\nrules: [{name: all, to: {region: [DE]}, action: deny}]\n", "utf-8"
    )
    done = enforcer(root, "policy", "list", environment={"PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, done.stderr) == (0, "")
    assert "\\u2192 and \\u2026" in done.stdout


def test_closed_standard_input(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    """A text that is to come from nowhere is asked for by name."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(UsageError, match="standard input is closed; name a FILE"):
        cli(["--root", str(root), "mask", "test", "--detectors", "email"], standalone_mode=False)


@pytest.mark.parametrize(("name", "value"), [("NO_COLOR", "1"), ("TERM", "dumb"), ("TERM", "xterm")])
def test_colours_only_where_they_are_wanted(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    """On a terminal there are colours, unless NO_COLOR is set or the terminal is a dumb one."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv(name, value)
    output = CliRunner().invoke(cli, ["probe", "--list"], color=True).output
    assert ("\x1b[" in output) == (value == "xterm")


def test_a_copy_that_is_not_there(root: Path) -> None:
    """Who names a file to verify is told about that file, not about a supervisor."""
    error = CliRunner().invoke(cli, ["sessions", "verify", str(root / "gone.db")]).exception
    assert isinstance(error, RecordError)
    assert str(error) == f"{root}/gone.db is no file; name a copy of sessions.db"


def test_files_that_others_may_not_reach() -> None:
    """Who is not root is told so in a line, by every command that reads or writes what is root's alone."""
    with tempfile.TemporaryDirectory(prefix="enforcer-others-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "etc/enforcer").mkdir(parents=True)
        (root / "etc/enforcer/enforcer.yaml").write_text("policies: []\n")
        (root / "var/lib/enforcer").mkdir(mode=0o700, parents=True)
        told_as_nobody(root)


def told_as_nobody(root: Path) -> None:
    database = root / "var/lib/enforcer/sessions.db"
    for arguments in (
        ("sessions", "list"),
        ("sessions", "verify"),
        ("sessions", "verify", str(database)),
        ("ca", "show"),
        ("ca", "rotate", "--yes"),
        ("mask", "rotate", "--yes"),
        ("uninstall", "--yes"),
    ):
        error = as_nobody(root, *arguments)
        assert isinstance(error, EnforcerError), (arguments, error)
        assert "root" in str(error)


def as_nobody(root: Path, *arguments: str) -> BaseException | None:
    """The error of a command that an ordinary user gives: in this process, for nobody else need be able to read the
    checkout."""
    for late in (
        f"enforcer.cli.{arguments[0]}_cmd",
        "enforcer.cli.context",
        "enforcer.config",
        "enforcer.supervisor.uninstall",
    ):
        importlib.import_module(late)
    os.seteuid(65534)
    try:
        return CliRunner().invoke(cli, ["--root", str(root), *arguments]).exception
    finally:
        os.seteuid(0)


def test_no_executor_as_the_workers_user(root: Path) -> None:
    """Who shares the workers' account could meet them where processes and files go by user."""
    error = CliRunner().invoke(cli, ["--root", str(root), "exec", "--user", "enforcer", "true"]).exception
    assert isinstance(error, UsageError)
    assert str(error) == "the workers run as enforcer; name another user with --user"
