"""Bad input and unfit hosts: one clear line with the mend, the documented exit code, nothing attached or opened."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.capture import cgroup, programs
from enforcer.capture.programs import Pins
from enforcer.config import Settings, load_settings
from enforcer.demo.instance import shipped_policies
from enforcer.errors import EnforcerError, HostError, TableError
from enforcer.geo import sources
from enforcer.supervisor import service
from enforcer.supervisor.uninstall import uninstall
from tests.fixtures.world import eventually

pytestmark = pytest.mark.world

# Exit codes of enforcer/errors.py.
USAGE, CONFIG, POLICY, TABLE, HOST, NOT_RUNNING, RECORD = 2, 3, 4, 5, 6, 7, 8
# Ends a supervisor that started although it should not have.
TIMEOUT = 60.0


@dataclass
class Host:
    """An instance's directory on this host, with the shipped packs, and what `enforcer run` makes of it."""

    root: Path

    def configure(self, **settings: Any) -> None:
        (self.root / "etc/enforcer/enforcer.yaml").write_text(yaml.safe_dump(settings))

    def policy(self, text: str) -> None:
        """Enables one policy, `bad`, with this text."""
        (self.root / "etc/enforcer/policies/bad.yaml").write_text(textwrap.dedent(text))
        self.configure(policies=["bad"])

    def table(self, name: str, text: str) -> None:
        """Writes an operator's table."""
        directory = self.root / "etc/enforcer/geo"
        directory.mkdir(exist_ok=True)
        (directory / name).write_text(text)

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "enforcer", "--root", str(self.root), *arguments]

    def enforcer(self, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a command of this instance, `within` another command that takes something away from it."""
        return subprocess.run(
            [*within, *self.command(*arguments)], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )

    def attached(self) -> dict[str, int]:
        """Programs on the instance's cgroups, whether those exist or not."""
        return programs.attached(Pins(self.instance), cgroup.Cgroups(cgroup.find_mount() / self.instance))

    @property
    def instance(self) -> str:
        return Settings(root=self.root.resolve()).instance

    def refuses(self, code: int, *words: str, within: tuple[str, ...] = (), lines: int = 1) -> str:
        """`enforcer run` ends with `code` and as many lines as there are faults; afterwards this host is untouched."""
        done = self.enforcer("run", within=within)
        assert done.returncode == code, done.stderr
        return self.check(done.stderr, words, lines)

    def check(self, text: str, words: tuple[str, ...], lines: int = 1) -> str:
        told = text.splitlines()
        assert len(told) == lines, text
        for line in told:
            assert line.startswith("enforcer: ")
            assert "Traceback" not in line
            # What is wrong, then what mends it; some faults say it as a choice (`did you mean`, `known are`).
            assert any(sign in line for sign in ("; ", "did you mean", "would deny everything")), line
        for word in words:
            assert word in text
        self.assert_untouched()
        return text

    def assert_untouched(self) -> None:
        assert set(self.attached().values()) == {0}
        pins = Pins(self.instance).directory
        assert not [path for path in pins.rglob("*") if path.is_file()]
        assert not (self.root / "run/enforcer/control.sock").exists()


@pytest.fixture
def host() -> Iterator[Host]:
    """Readable by everyone, unlike pytest's own directories; removed with all that an instance may leave."""
    with tempfile.TemporaryDirectory(prefix="enforcer-bad-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "etc/enforcer").mkdir(parents=True)
        shutil.copytree(shipped_policies(), root / "etc/enforcer/policies")
        host = Host(root)
        host.configure(policies=["eu-only"])
        yield host
        host.configure()
        uninstall(load_settings(root))


# --- the daemon's configuration


def test_a_missing_configuration(host: Host) -> None:
    """Without enforcer.yaml the line says how to get one."""
    (host.root / "etc/enforcer/enforcer.yaml").unlink()
    host.refuses(CONFIG, "enforcer.yaml does not exist", "make install")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policiez: [eu-only]", "policiez: unknown setting; known are"),
        ("policies: [eu-only", "not valid YAML"),
        ("- eu-only", "must be a mapping of settings"),
        ("workers: many", "workers:"),
        ("workers: -1", "workers:"),
        ("listener_port: 80", "listener_port:"),
        ("policies: [../../etc/passwd]", "policies.0:"),
        ("record_mask: [no_such_detector]", "no_such_detector"),
        ("groups: {HOME: [XX]}", "XX"),
        ("root: /elsewhere", "use the --root option"),
    ],
)
def test_a_wrong_setting(host: Host, text: str, words: str) -> None:
    """Unknown, malformed or impossible settings name file and field."""
    (host.root / "etc/enforcer/enforcer.yaml").write_text(text)
    done = host.enforcer("run")
    assert done.returncode in (CONFIG, TABLE), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("enforcer: ")
    assert words in done.stderr
    host.assert_untouched()
    host.configure()


def test_all_wrong_settings_at_once(host: Host) -> None:
    """Two faults are two lines."""
    host.configure(policiez=[], workerz=2)
    host.refuses(CONFIG, "policiez", "workerz", lines=2)


def test_a_root_that_is_too_long_for_a_socket(host: Host) -> None:
    """A path that no Unix socket can have is refused before anything is made."""
    deep = Host(host.root / ("x" * 100))
    shutil.copytree(host.root / "etc", deep.root / "etc")
    deep.refuses(CONFIG, "too long for a socket", "shorter --root")


# --- policies


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("policy: bad\nrules: []\n", "would deny everything"),
        ("policy: bad\n", "would deny everything"),
        ("policy: bad\nrulez: []\nrules: [{name: a, to: {region: [DE]}, action: deny}]\n", "did you mean 'rules'?"),
        (
            "policy: bad\nrules: [{name: a, to: {address: [10.0.0.0/33]}, action: deny}]\n",
            "bad.yaml:2: rules[0].to.address[0]: '10.0.0.0/33' is not a network; write ADDRESS/LENGTH",
        ),
        (
            "policy: bad\nrules: [{name: a, to: {address: [10.0.0.1/8]}, action: deny}]\n",
            "has host bits set; write 10.0.0.0/8",
        ),
        ("policy: bad\nrules: [{name: a, to: {region: [ATLANTIS]}, action: deny}]\n", "ATLANTIS"),
        ("policy: bad\nrules: [{name: a, to: {region: [DE]}, action: permit}]\n", "'permit' is not accepted"),
        ("", "is empty"),
    ],
    ids=["empty rules", "no rules", "unknown key", "bad CIDR", "host bits", "region", "action", "empty file"],
)
def test_a_bad_policy(host: Host, text: str, words: str) -> None:
    """Each fault is one line with file, line and field; the supervisor does not start with half a policy."""
    host.policy(text)
    host.refuses(POLICY, "policies/bad.yaml:", words)


def test_a_policy_that_does_not_exist(host: Host) -> None:
    """Enabling a name without a file is refused, and the file is named."""
    host.configure(policies=["eu-only", "nosuch"])
    host.refuses(POLICY, "policies/nosuch.yaml:", "No such file")


# --- tables


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("10.1.0.1/16,DE\n", "own.csv:1: 10.1.0.1/16 has host bits set; write 10.1.0.0/16"),
        ("not a cidr,DE\n", "own.csv:1: 'not a cidr' is no CIDR"),
        ("10.1.0.0/16,XX\n", "own.csv:1: 'XX' is no ISO 3166-1 alpha-2 country code"),
        ("# nothing\n", "own.csv: no rows in it"),
    ],
)
def test_a_bad_operator_table(host: Host, text: str, words: str) -> None:
    """A wrong row names file and line."""
    host.table("own.csv", text)
    host.refuses(TABLE, words)


def test_an_unreadable_operator_table(host: Host) -> None:
    """What has a table's name and cannot be read as a file is refused, not skipped."""
    (host.root / "etc/enforcer/geo/own.csv").mkdir(parents=True)
    host.refuses(TABLE, "own.csv", "correct it or remove it")


@pytest.mark.parametrize("damage", ["cut", "garbled", "empty", "missing"])
def test_a_damaged_shipped_table(host: Host, damage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A shipped table that is cut short, garbled, empty or gone is a TableError, before anything is made."""
    whole = sources.SHIPPED.read_bytes()
    copy = host.root / sources.SHIPPED.name
    contents = {"cut": whole[: len(whole) // 2], "garbled": whole[:1000] + bytes(1000) + whole[2000:], "empty": b""}
    if damage != "missing":
        copy.write_bytes(contents[damage])
    monkeypatch.setattr(sources, "SHIPPED", copy)
    with pytest.raises(TableError) as raised:
        asyncio.run(service.supervise(load_settings(host.root)))
    assert len(str(raised.value).splitlines()) == 1
    assert str(copy) in str(raised.value)
    assert "; " in str(raised.value)
    assert not (host.root / "run").exists()
    host.assert_untouched()


# --- the host


def unshared(*steps: str) -> tuple[str, ...]:
    """Runs what follows in a mount namespace of its own, after `steps` (shell commands)."""
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh")


def test_not_root(host: Host) -> None:
    """Another user is told to use sudo. (CAP_DAC_READ_SEARCH only lets it read this checkout, wherever that is.)"""
    reader = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    within = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *reader)
    host.refuses(HOST, "must be root; use sudo", within=within)


def test_no_kernel_headers(host: Host) -> None:
    """Without any header package the line names the one to install."""
    hidden = [f"mount -t tmpfs none {path}" for path in ("/usr/src", "/lib/modules") if Path(path).is_dir()]
    host.refuses(HOST, "no kernel headers", "apt-get install linux-headers", within=unshared(*hidden))


def test_no_bcc(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without Debian's bcc module the line names its package."""
    (host.root / "bcc.py").write_text("raise ImportError('not here')\n")
    path = os.pathsep.join(filter(None, [str(host.root), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    host.refuses(HOST, "bcc module is missing", "apt-get install python3-bpfcc")


def test_no_cgroup_v2(host: Host) -> None:
    """Without a cgroup v2 mount the line says how to mount one."""
    host.refuses(HOST, "cgroup v2 is not mounted", within=unshared(f"umount --lazy {cgroup.find_mount()}"))


def test_no_bpf_file_system(host: Host) -> None:
    """Without /sys/fs/bpf the line says how to mount it."""
    host.refuses(HOST, "mount -t bpf", within=unshared("umount --lazy /sys/fs/bpf"))


def test_no_bpf(host: Host) -> None:
    """Where bpf(2) is forbidden (a container without CAP_BPF and CAP_SYS_ADMIN) the line says what is missing."""
    dropped = "-bpf,-sys_admin,-perfmon,-net_admin"
    host.refuses(
        HOST,
        "Operation not permitted",
        "CAP_BPF",
        within=("setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"),
    )


def test_no_workers_user(host: Host) -> None:
    """A user that does not exist is named, with the command that makes it."""
    host.configure(policies=["eu-only"], user="nosuchuser")
    host.refuses(HOST, "user 'nosuchuser' does not exist", "useradd --system")


def test_a_state_directory_that_cannot_be_made(host: Host) -> None:
    """A file in the place of a directory is named."""
    (host.root / "var").write_text("in the way")
    host.refuses(HOST, f"{host.root}/var/lib/enforcer", "check the path")


def test_a_database_that_is_none(host: Host) -> None:
    """A file that is no session database is left as it is, and said so."""
    state = host.root / "var/lib/enforcer"
    state.mkdir(parents=True)
    (state / "sessions.db").write_text("these are somebody's notes\n" * 100)
    host.refuses(RECORD, "sessions.db")
    assert (state / "sessions.db").read_text().startswith("these are somebody's notes")


# --- one supervisor, or none


@pytest.fixture
def running(host: Host) -> Iterator[Host]:
    """A supervisor that runs on this host, with no executor."""
    with (host.root / "log").open("wb") as log:
        process = subprocess.Popen(host.command("run"), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        eventually(lambda: host.enforcer("status").returncode == 0, "the supervisor answers", 60)
        yield host
    finally:
        process.terminate()
        process.wait(20)


def test_a_second_supervisor(running: Host) -> None:
    """The second one on the same root names the first one's pid and changes nothing."""
    before = running.enforcer("status", "--json").stdout
    done = running.enforcer("run")
    assert done.returncode == USAGE
    (line,) = done.stderr.splitlines()
    assert "a supervisor already runs here (pid " in line
    assert "stop it first" in line
    assert running.attached() == dict.fromkeys(running.attached(), 1)
    after = running.enforcer("status", "--json").stdout
    for name in ('"generation": 1,', '"worker_restarts": 0,'):
        assert name in before
        assert name in after


@pytest.mark.parametrize("command", [("status",), ("exec", "--user", "nobody", "--", "true")])
def test_commands_without_a_supervisor(host: Host, command: tuple[str, ...]) -> None:
    """They end with 7 and say what to start."""
    done = host.enforcer(*command)
    assert done.returncode == NOT_RUNNING
    host.check(done.stderr, ("no supervisor answers", "start one with 'enforcer run'"))


def test_commands_with_a_policy_that_is_bad(host: Host) -> None:
    """`policy check` and `explain` report the same fault with the same code as the supervisor."""
    host.policy("policy: bad\nrules: []\n")
    for arguments in (("policy", "check"), ("explain", "8.8.8.8:443")):
        done = host.enforcer(*arguments)
        assert done.returncode == POLICY
        assert "would deny everything" in done.stderr + done.stdout


@pytest.mark.parametrize(
    "arguments", [("exec", "--"), ("nosuch",), ("run", "--nosuch"), ("explain", "not an address")], ids=" ".join
)
def test_a_wrong_command_line(host: Host, arguments: tuple[str, ...]) -> None:
    """The command line's own faults end with 2."""
    done = host.enforcer(*arguments)
    assert done.returncode == USAGE
    assert done.stderr
    assert "Traceback" not in done.stderr


def test_errors_know_their_codes() -> None:
    """The table in enforcer/errors.py is what the classes say."""
    assert (EnforcerError.exit_code, TableError.exit_code, HostError.exit_code) == (1, TABLE, HOST)
