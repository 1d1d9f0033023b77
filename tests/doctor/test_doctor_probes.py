"""The probes themselves: each must be able to say no, and the throw-away place must vanish."""

from __future__ import annotations

import errno
import fcntl
import os
import pwd
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path

import pytest

from enforcer.capture import cgroup
from enforcer.capture.programs import BPF_MOUNT
from enforcer.config import Home, Settings
from enforcer.doctor import attempts, children, host, inside, sockets, stage, users
from enforcer.doctor.checks import CannotTell, Place, Status
from enforcer.doctor.stage import Stage
from tests.fixtures.world import eventually

pytestmark = pytest.mark.kernel

NOBODY = pwd.getpwnam("nobody")
EVERY_ATTEMPT = (*attempts.CONNECTS, *attempts.DATAGRAMS, *attempts.PINGS, *attempts.RAWS, *attempts.FRAMES)


def test_what_nothing_stops_is_seen() -> None:
    """Without programs every attempt arrives: a check that finds nothing has looked."""
    with Stage() as bare:
        assert attempts.escaped(bare, EVERY_ATTEMPT) == [attempt.name for attempt in EVERY_ATTEMPT]


def test_what_arrives_from_nowhere_proves_nothing() -> None:
    """An attempt that does not work from outside either is no evidence of a program's work."""
    with Stage() as bare, pytest.raises(CannotTell, match="does not arrive from an ungoverned process"):
        attempts.escaped(bare, (attempts.Attempt("nothing", lambda _number: None),))


def test_the_stage_needs_its_programs() -> None:
    """Before programs are attached nothing can be said of them."""
    with Stage() as bare, pytest.raises(CannotTell, match="not attached"):
        _ = bare.tables


def test_a_dead_doctors_leavings_go() -> None:
    """The next doctor removes the cgroup and pins of one that was killed, and none that is in use or just made."""
    mount = cgroup.find_mount()
    dead, used, young = (mount / f"{stage.PREFIX}test-{name}-{os.getpid()}" for name in ("dead", "used", "young"))
    pins = BPF_MOUNT / dead.name
    try:
        for path in (dead / "executors", used, young):
            path.mkdir(parents=True)
        pins.mkdir()
        for path in (dead, used):
            os.utime(path, (0, 0))
        fd = os.open(used, os.O_RDONLY)
        fcntl.flock(fd, fcntl.LOCK_EX)
        with Stage():
            pass
        assert [path.exists() for path in (dead, pins, used, young)] == [False, False, True, True]
        os.close(fd)
    finally:
        for path in (dead, used, young):
            cgroup.remove(path)
        if pins.exists():
            pins.rmdir()


def test_the_tries_of_an_executor_work_outside() -> None:
    """Run by root outside an executor, what an isolated one tries mostly succeeds."""
    done = subprocess.run(
        ["/usr/bin/python3", "-I", "-c", Path(inside.__file__).read_text()], capture_output=True, check=True
    )
    for words in (b"raw IP socket", b"AF_PACKET", b"host's processes", b"a capability", b"an interface", b"user name"):
        assert words in done.stdout


# --- children


def test_a_child_answers_or_cannot_tell() -> None:
    """Values come back, an OSError comes back as itself, and a child that dies or hangs is no answer."""
    assert children.within(lambda: {"a": [1]}) == {"a": [1]}
    with pytest.raises(NotADirectoryError):
        children.within(lambda: list(Path("/etc/passwd").iterdir()))
    with pytest.raises(CannotTell, match="ended"):
        children.within(lambda: os._exit(0))
    with pytest.raises(CannotTell, match="did not answer"):
        children.within(lambda: time.sleep(60), timeout=0.2)
    with pytest.raises(CannotTell, match="ValueError: why"):
        children.within(_raise_value_error)


def test_a_child_that_cannot_start_is_no_refusal() -> None:
    """A probe that does not get to where it should try has not been refused what it never tried."""
    with pytest.raises(CannotTell, match="cannot be where it should"):
        children.within(lambda: None, group=Path("/proc/nosuch"))


def test_a_failure_is_no_refusal() -> None:
    """Only a refusal or an absence is one: running out of something says nothing of what is allowed."""

    def fail(code: int) -> None:
        raise OSError(code, os.strerror(code))

    assert users._refused(NOBODY, lambda: fail(errno.EPERM))
    with pytest.raises(CannotTell):
        users._refused(NOBODY, lambda: fail(errno.EMFILE))


def _raise_value_error() -> None:
    raise ValueError("why")


def test_a_child_becomes_the_user() -> None:
    """What is tried as a user is tried with its ids and without any capability."""
    status = children.within(lambda: Path("/proc/self/status").read_text(), user=NOBODY)
    assert f"Uid:\t{NOBODY.pw_uid}\t{NOBODY.pw_uid}" in status
    assert "CapEff:\t0000000000000000" in status


# --- what an ordinary user may


@pytest.fixture
def docker() -> Iterator[tuple[Path, list[int]]]:
    """A service that listens on a socket with a telling name at an unusual place, and counts who came."""
    came: list[int] = []
    with tempfile.TemporaryDirectory() as directory, socket.socket(socket.AF_UNIX) as listener:
        Path(directory).chmod(0o755)
        path = Path(directory) / "docker.sock"
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                came.append(1)
                connection.close()

        thread = threading.Thread(target=serve)
        thread.start()
        yield path, came
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_service_that_accepts_the_user_is_found(docker: tuple[Path, list[int]]) -> None:
    """Wherever it lies, a socket that takes the user's connection is named; one that does not is not."""
    path, came = docker
    path.chmod(0o600)
    assert str(path) not in [one.path for one in sockets.reachable(NOBODY)]
    assert came == []
    path.chmod(0o666)
    found = {one.path: one.service.name for one in sockets.reachable(NOBODY)}
    assert found[str(path)] == "Docker"
    eventually(lambda: came == [1], "the connection at the service")
    assert str(path) in [one.path for one in sockets.reachable(None)]


@pytest.mark.parametrize(
    ("path", "service"),
    [
        ("/run/docker.sock", "Docker"),
        ("/var/run/docker.sock", "Docker"),
        ("/run/containerd/containerd.sock", "containerd"),
        ("@/containerd-shim/0123abcd.sock", "containerd"),
        ("/run/user/1000/podman/podman.sock", "Podman"),
        ("/run/dbus/system_bus_socket", "the system bus"),
        ("/run/systemd/private", "systemd"),
        ("/run/user/1000/bus", "a user's session bus"),
        ("/run/systemd/resolve/io.systemd.Resolve", "systemd-resolved"),
        ("/run/postgresql/.s.PGSQL.5432", ""),
    ],
)
def test_services_are_known_by_their_sockets(path: str, service: str) -> None:
    """Each service that would act for an executor is known by the names its sockets have."""
    found = sockets._service_of(path)
    assert (found.name if found else "") == service


def test_root_is_no_ordinary_user() -> None:
    """Root's groups lend root; nobody's do not."""
    assert "root" in users.powerful_groups(pwd.getpwnam("root"))
    assert users.powerful_groups(NOBODY) == []


def test_tracing_is_what_the_kernel_allows() -> None:
    """Root can trace a sibling; what an ordinary user can agrees with Yama's setting, where there is one."""
    scope = Path("/proc/sys/kernel/yama/ptrace_scope")
    assert users.seizes(NOBODY) == (not scope.exists() or scope.read_text().strip() == "0")


def test_nothing_is_imported_that_an_executor_may_not_see() -> None:
    """What runs inside an executor needs the standard library only."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({inside.__file__!r})"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_a_host_that_is_elsewhere_is_told(tmp_path: Path) -> None:
    """By the address that the configuration names: at home in the one country, elsewhere for the other."""
    answers = {}
    for region in ("US", "DE"):
        here = Home(regions=(region,), addresses=(IPv4Address("52.0.0.10"),))
        answers[region] = host.home(Place(Settings(root=tmp_path, home=here), "", NOBODY))
    assert answers["US"].status is Status.OK, answers["US"]
    assert answers["DE"].status is Status.MISSING
    assert answers["DE"].detail.startswith("address 52.0.0.10 is in US (")
    assert host.home(Place(Settings(root=tmp_path), "", NOBODY)).status is Status.ABSENT
