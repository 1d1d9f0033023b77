"""`enforcer doctor` on this host, whole and with things taken away from it, and beside a running supervisor."""

from __future__ import annotations

import json
import os
import platform
import pwd
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from enforcer.capture import cgroup, programs
from enforcer.capture.programs import BPF_MOUNT, HOOKS, Where
from enforcer.config import Settings, load_settings
from enforcer.demo.instance import Instance
from enforcer.demo.world import World
from enforcer.doctor.checks import Place
from enforcer.doctor.promises import Mode, Promise
from enforcer.doctor.report import examine
from enforcer.doctor.stage import PREFIX
from enforcer.doctor.table import CHECKS
from tests.fixtures.world import enforcing, eventually

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

USAGE, HOST = 2, 6
TIMEOUT = 120.0
# A listener on a socket, started inside the mount namespace that `within` makes; ends with the doctor.
SERVICE = """
import os, socket, subprocess, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
os.chmod(sys.argv[1], 0o666)
listener.listen(64)
sys.exit(subprocess.call(sys.argv[2:]))
"""


@dataclass
class Doctor:
    """The command on a root of its own; `within`: another command that takes something away from it."""

    root: Path

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "enforcer", "--root", str(self.root), "doctor", *arguments]

    def run(self, *arguments: str, within: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*within, *self.command(*arguments)], capture_output=True, text=True, check=False, timeout=TIMEOUT
        )

    def report(self, *arguments: str, within: tuple[str, ...] = ()) -> dict[str, Any]:
        done = self.run("--json", *arguments, within=within)
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    def configure(self, **settings: Any) -> None:
        directory = self.root / "etc/enforcer"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "enforcer.yaml").write_text(yaml.safe_dump(settings))


def check(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = next(one for one in report["checks"] if one["name"] == name)
    return found


def status(report: dict[str, Any], name: str) -> str:
    return str(check(report, name)["status"])


def level(report: dict[str, Any], promise: str, mode: str = "isolated") -> str:
    return str(report["promises"][promise][mode]["level"])


def unshared(*steps: str) -> tuple[str, ...]:
    """Runs what follows in a mount namespace of its own, after `steps` (shell commands)."""
    return ("unshare", "--mount", "sh", "-ec", "; ".join([*steps, 'exec "$@"']), "sh")


def traces() -> dict[str, set[str]]:
    """Everything a doctor could leave on this host."""
    return {
        "cgroups": {path.name for path in cgroup.find_mount().glob(f"{PREFIX}*")},
        "pins": {path.name for path in BPF_MOUNT.glob(f"{PREFIX}*")},
        "scratch": {path.name for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}*")},
        "mounts": {line for line in Path("/proc/self/mounts").read_text().splitlines() if "doctor" in line},
        "interfaces": {path.name for path in Path("/sys/class/net").iterdir()} & {"near", "far", "tunnel"},
    }


NOTHING: dict[str, set[str]] = {name: set() for name in ("cgroups", "pins", "scratch", "mounts", "interfaces")}


def assert_nothing_left() -> None:
    """What another test's doctor has made meanwhile goes with that one."""
    eventually(lambda: traces() == NOTHING, "the doctors' traces to go")


@pytest.fixture
def doctor() -> Iterator[Doctor]:
    with tempfile.TemporaryDirectory(prefix="enforcer-root-") as directory:
        yield Doctor(Path(directory))
    assert_nothing_left()


@pytest.fixture(scope="module")
def whole() -> dict[str, Any]:
    """One report on this host as it is; no cgroup, pin, mount, interface or scratch directory stays behind."""
    with tempfile.TemporaryDirectory(prefix="enforcer-root-") as directory:
        report = Doctor(Path(directory)).report()
    assert_nothing_left()
    return report


# --- this host as it is


def test_every_promise_is_judged_in_both_modes(whole: dict[str, Any]) -> None:
    """P1 to P8, each with a level and its reasons, isolated and attached."""
    assert list(whole["promises"]) == list(Promise.__members__)
    levels = {"guaranteed", "in part", "not guaranteed", "cannot tell"}
    for promise in whole["promises"].values():
        for mode in Mode:
            assert promise[mode]["level"] in levels
            assert (promise[mode]["why"] == []) == (promise[mode]["level"] == "guaranteed")


def test_this_host_can_be_told(whole: dict[str, Any]) -> None:
    """Where the tests run every check has an answer, and a mend where something is missing."""
    assert [one for one in whole["checks"] if one["status"] == "cannot tell"] == []
    assert [one["name"] for one in whole["checks"] if one["status"] == "missing" and not one["mend"]] == []
    assert [one["name"] for one in whole["root_executor"] if one["open"] is None or not one["mend"]] == []


def test_it_agrees_with_what_else_is_known(whole: dict[str, Any]) -> None:
    """Kernel, mounts, hooks and sysctls are what this host's own files say."""
    assert platform.release() in check(whole, "kernel")["detail"]
    assert str(cgroup.find_mount()) in check(whole, "cgroup v2")["detail"]
    hooks = {hook.program for hook in HOOKS if hook.where in (Where.EXECUTORS, Where.OWN)}
    assert hooks <= set(check(whole, "attach")["detail"].split(", "))
    tiocsti = Path("/proc/sys/dev/tty/legacy_tiocsti")
    assert (status(whole, "TIOCSTI") == "missing") == (not tiocsti.exists() or tiocsti.read_text().strip() == "1")
    assert (status(whole, "bpf") == "ok") == (
        Path("/proc/sys/kernel/unprivileged_bpf_disabled").read_text().strip() != "0"
    )


def test_isolated_mode_is_guaranteed_here(whole: dict[str, Any]) -> None:
    """Where all tests pass, nothing leaves an isolated executor."""
    assert [level(whole, promise) for promise in ("P1", "P2", "P3")] == ["guaranteed"] * 3
    assert status(whole, "executor") == "ok"


def test_a_new_host_is_told_so(whole: dict[str, Any]) -> None:
    """Without configuration and supervisor the defaults are examined, and both are said to be absent."""
    assert "defaults were checked" in check(whole, "configuration")["detail"]
    assert status(whole, "supervisor") == "does not apply"
    assert whole["host"]["configuration"] != "valid"


@pytest.mark.full
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_doctor_leaves_nothing(doctor: Doctor, number: signal.Signals) -> None:
    """Ctrl-C and a stop in the middle of its work end it, and what it made is gone."""
    process = subprocess.Popen(doctor.command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    eventually(lambda: traces()["pins"], "a doctor at work")
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=TIMEOUT)
    assert process.returncode != 0
    assert b"Traceback" not in errors
    assert_nothing_left()


# --- requirements


@pytest.fixture(scope="module")
def given() -> subprocess.CompletedProcess[str]:
    """The report for people, with a requirement that this host meets."""
    with tempfile.TemporaryDirectory(prefix="enforcer-root-") as directory:
        return Doctor(Path(directory)).run("--require", "P1,P2,P3:isolated")


def test_required_and_given(given: subprocess.CompletedProcess[str]) -> None:
    """What is guaranteed may be required: exit code 0, nothing on standard error."""
    assert (given.returncode, given.stderr) == (0, "")


def test_people_read_promises_first(given: subprocess.CompletedProcess[str]) -> None:
    """A line per promise with both modes, then what is not ok with its mend, then root's ways out; no colour codes
    where it is no terminal."""
    text = given.stdout
    assert "\x1b" not in text
    lines = text.splitlines()
    for promise in Promise:
        assert any(line.startswith(f"{promise.name} {promise}") for line in lines)
    (first,) = [line for line in lines if line.startswith("P1 ")]
    assert "isolated: guaranteed" in first
    assert "attached: in part: " in first
    assert "mend: " in text
    assert "Ways out for an executor that is root" in text
    assert max(map(len, lines)) <= 120


def test_required_and_not_given(doctor: Doctor) -> None:
    """Exit code 6, and one line per promise that is not guaranteed; the report is printed all the same."""
    done = doctor.run("--require", "P1,P1:attached,P3:attached")
    assert done.returncode == HOST
    lines = done.stderr.splitlines()
    assert [line.split()[1] for line in lines] == ["P1:attached", "P3:attached"]
    assert all("is in part: " in line or "is not guaranteed: " in line for line in lines)
    assert "P8 " in done.stdout


@pytest.mark.parametrize("arguments", [("--require", "P9"), ("--require", ""), ("--user", "nosuchuser")], ids=" ".join)
def test_a_wrong_question(doctor: Doctor, arguments: tuple[str, ...]) -> None:
    """An unknown promise or user is one line and exit code 2, before anything is tried."""
    done = doctor.run(*arguments)
    assert done.returncode == USAGE
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_not_root(doctor: Doctor) -> None:
    """Another user is told to use sudo. (CAP_DAC_READ_SEARCH only lets it read this checkout, wherever that is.)"""
    doctor.root.chmod(0o755)
    reader = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    done = doctor.run(within=("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *reader))
    assert (done.returncode, done.stdout) == (HOST, "")
    assert "must be root" in done.stderr
    assert "use sudo" in done.stderr


# --- with something taken away


@pytest.mark.full
def test_no_bpf_file_system(doctor: Doctor) -> None:
    """Without bpffs nothing can be pinned: said with the mount command, and P3 is not guaranteed."""
    report = doctor.report(within=unshared("umount --lazy /sys/fs/bpf"))
    assert status(report, "bpffs") == "missing"
    assert "mount -t bpf" in check(report, "bpffs")["mend"]
    assert level(report, "P3") == level(report, "P3", "attached") == "not guaranteed"
    assert level(report, "P4") == "guaranteed"


@pytest.mark.full
def test_no_cgroup_v2(doctor: Doctor) -> None:
    """Without cgroup v2 there is nowhere to attach; what needs a cgroup cannot be told, and nothing breaks."""
    report = doctor.report(within=unshared(f"umount --lazy {cgroup.find_mount()}"))
    assert status(report, "cgroup v2") == "missing"
    assert "mount -t cgroup2" in check(report, "cgroup v2")["mend"]
    assert status(report, "load") == status(report, "TCP") == status(report, "executor") == "cannot tell"
    assert level(report, "P1") == "not guaranteed"
    assert level(report, "P7") == "in part"
    assert {one["open"] for one in report["root_executor"] if one["name"] == "CLONE_INTO_CGROUP"} == {None}


@pytest.mark.full
def test_no_kernel_headers(doctor: Doctor) -> None:
    """Without any header package the check names the one to install, and nothing loads."""
    hidden = [f"mount -t tmpfs none {path}" for path in ("/usr/src", "/lib/modules") if Path(path).is_dir()]
    report = doctor.report(within=unshared(*hidden))
    assert "apt-get install linux-headers" in check(report, "headers")["mend"]
    assert status(report, "load") == "missing"
    assert level(report, "P1") == "not guaranteed"


@pytest.mark.full
def test_no_bpf(doctor: Doctor) -> None:
    """Root without CAP_BPF and CAP_SYS_ADMIN, as in a container: the lacking capabilities are named."""
    dropped = "-bpf,-sys_admin,-perfmon,-net_admin"
    report = doctor.report(within=("setpriv", f"--bounding-set={dropped}", f"--inh-caps={dropped}"))
    assert "CAP_BPF" in check(report, "capabilities")["detail"]
    assert level(report, "P2") == level(report, "P2", "attached") == "not guaranteed"


@pytest.mark.full
def test_a_service_that_listens_to_everybody(doctor: Doctor) -> None:
    """A docker.sock that takes an ordinary user's connection opens attached mode, not isolated mode."""
    within = (*unshared("mount -t tmpfs none /run"), sys.executable, "-c", SERVICE, "/run/docker.sock")
    report = doctor.report(within=within)
    assert "/run/docker.sock" in check(report, "services")["detail"]
    assert level(report, "P1", "attached") == "not guaranteed"
    assert next(one["open"] for one in report["root_executor"] if one["name"] == "services")
    assert status(report, "executor") == "ok"
    assert level(report, "P1") == "guaranteed"


@pytest.mark.full
def test_a_user_that_is_root(doctor: Doctor) -> None:
    """Trying as root is no trying as an ordinary user, and is said so."""
    report = doctor.report("--user", "root")
    assert status(report, "user") == "missing"
    assert level(report, "P1", "attached") != "guaranteed"


def examined(settings: Settings, *names: str) -> dict[str, Any]:
    """What these checks alone make of the settings."""
    place = Place(settings, "", pwd.getpwnam("nobody"))
    return examine(place, [check for check in CHECKS if check.name in names]).as_json()


@pytest.mark.full
@pytest.mark.parametrize(
    ("settings", "name", "promise"),
    [
        ({"user": "root"}, "workers' user", "P3"),
        ({"user": "nosuchuser"}, "workers' user", "P3"),
        ({"listener_port": 40000}, "listener port", "P8"),
        ({"record_mask": ()}, "record_mask", "P4"),
    ],
    ids=str,
)
def test_a_setting_that_weakens(settings: dict[str, Any], name: str, promise: str) -> None:
    """What the configuration gives away is found in it, and the promise that rests on it is not guaranteed."""
    assert status(examined(Settings(), name), name) == "ok"
    report = examined(Settings(**settings), name)
    assert status(report, name) == "missing"
    assert level(report, promise) != "guaranteed"


@pytest.mark.full
def test_records_that_others_can_read(tmp_path: Path) -> None:
    """A state directory that is open to others is named with the command that closes it."""
    settings = Settings(root=tmp_path)
    settings.state.mkdir(parents=True)
    settings.state.chmod(0o755)
    report = examined(settings, "records private")
    assert f"chmod 0700 {settings.state}" in check(report, "records private")["mend"]
    assert level(report, "P4") == level(report, "P6") == "not guaranteed"
    settings.state.chmod(0o700)
    assert level(examined(settings, "records private"), "P4") == "guaranteed"


def test_a_configuration_that_cannot_be_read(doctor: Doctor) -> None:
    """A fault in it is named, and the host is examined with the defaults; records in memory would not last."""
    doctor.configure(policiez=[])
    report = doctor.report(within=unshared(f"mkdir {doctor.root}/var", f"mount -t tmpfs none {doctor.root}/var"))
    assert "policiez" in check(report, "configuration")["detail"]
    assert status(report, "load") == "ok"
    assert "tmpfs" in check(report, "records stored")["detail"]
    assert level(report, "P6") == "not guaranteed"


# --- beside a running supervisor


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only", "observe", workers=1) as running:
        yield running


@pytest.mark.full
def test_a_running_supervisor_is_examined(instance: Instance) -> None:
    """It answers, has one program per hook, beats, its workers live, it records; an observing policy is a warning."""
    before = programs.attached(programs.Pins(instance_name(instance)), groups(instance))
    report = instance.json("doctor", "--json")
    for name in ("configuration", "supervisor", "programs", "workers", "recorder", "heartbeat"):
        assert status(report, name) == "ok", check(report, name)
    assert f"pid {instance.pid}" in check(report, "supervisor")["detail"]
    assert status(report, "enforcing") == "missing"
    assert "observe" in check(report, "enforcing")["detail"]
    assert level(report, "P1") == "in part"
    # What runs was not touched.
    assert programs.attached(programs.Pins(instance_name(instance)), groups(instance)) == before
    assert instance.status()["pid"] == instance.pid


@pytest.mark.full
def test_a_program_that_is_gone_is_found(instance: Instance) -> None:
    """A link that somebody removed is counted at the kernel, whatever the supervisor thinks."""
    links = programs.Pins(instance_name(instance)).links / programs.EXECUTORS
    (links / "connect4").unlink()
    try:
        report = instance.json("doctor", "--json")
        assert status(report, "programs") == "missing"
        assert "connect4 0" in check(report, "programs")["detail"]
        assert level(report, "P3") == level(report, "P7") == "not guaranteed"
    finally:
        instance.stop()
        instance.start()


@pytest.mark.full
def test_programs_without_a_supervisor(instance: Instance) -> None:
    """A supervisor that died leaves its programs: P1 to P3 stand, clients do not work."""
    instance.kill()
    try:
        report = instance.json("doctor", "--json")
        assert status(report, "supervisor") == "missing"
        assert "programs stay attached" in check(report, "supervisor")["detail"]
        assert status(report, "programs") == "ok"
        assert level(report, "P3") == "guaranteed"
        assert level(report, "P8") == "not guaranteed"
    finally:
        instance.start()


def instance_name(instance: Instance) -> str:
    return load_settings(instance.root).instance


def groups(instance: Instance) -> cgroup.Cgroups:
    return cgroup.Cgroups(cgroup.find_mount() / instance_name(instance))
