"""`enforcer exec`: what an executor of a running instance sees and may do, and that ordinary programs do not notice."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.config import load_settings
from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from tests.cli.executing import NOTHING, configured, execute, inside, left_behind
from tests.fixtures.world import enforcing, eventually, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only") as running:
        yield running


def test_an_executor_finds_nothing_of_the_enforcer(instance: Instance) -> None:
    """Records, control socket, policies and configuration: the directories are empty, for root too."""
    settings = load_settings(instance.root)
    places = [str(settings.state), str(settings.run), str(settings.etc)]
    assert all(list(Path(place).iterdir()) for place in places)
    code = f"import json, os; print(json.dumps([os.listdir(place) for place in {places}]))"
    assert inside(instance, code) == [[], [], []]
    code = f"""
import json, socket
try:
    socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).connect({str(settings.control_socket)!r})
    print(json.dumps("connected"))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""
    assert inside(instance, code) == "OSError"
    with configured(instance, unix_sockets=True):
        assert inside(instance, code) == "FileNotFoundError"


# --- what it may see and write


def test_root_writes_where_it_is_told_it_may(instance: Instance, tmp_path: Path) -> None:
    """--writable, more than once, beside /tmp; all else is read-only."""
    places = [Path("/var/lib") / f"enforcer-test-{name}-{os.getpid()}" for name in ("one", "two")]
    for place in places:
        place.mkdir()
    try:
        script = f"touch {tmp_path}/a {places[0]}/b {places[1]}/c; touch /etc/d"
        line = ["exec", "--user", "root", "--writable", str(places[0]), "--writable", str(places[1]), "--"]
        done = instance.run(*line, "sh", "-c", script)
        assert done.stderr == "touch: cannot touch '/etc/d': Read-only file system\n"
        assert [place.name for place in (tmp_path / "a", places[0] / "b", places[1] / "c") if place.exists()] == [
            *"abc"
        ]
        assert instance.run("exec", "--user", "root", "--", "touch", f"{places[0]}/x").returncode == 1
    finally:
        for place in places:
            shutil.rmtree(place)


@pytest.mark.parametrize("path", ["/", "/no/such/directory", "/etc/hosts"])
def test_what_cannot_be_made_writable_is_one_line(instance: Instance, path: str) -> None:
    """The whole file system, nothing, a file."""
    done = instance.run("exec", "--user", "root", "--writable", path, "--", "true")
    assert done.returncode == 2
    assert done.stderr == f"enforcer: --writable {path}: must be a directory other than /; name one that exists\n"


def test_what_the_configuration_exposes_is_there(instance: Instance) -> None:
    """A file below /run; without the setting it is gone, and a missing one is one line that names the setting."""
    place = Path("/run") / f"enforcer-test-{os.getpid()}"
    place.write_text("of the host")
    try:
        assert execute(instance, "cat", str(place)).returncode == 1
        with configured(instance, expose=[str(place)]):
            assert execute(instance, "cat", str(place)).stdout == "of the host"
    finally:
        place.unlink()
    with configured(instance, expose=[str(place)]):
        done = execute(instance, "true")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1)
    assert f"expose: {place} does not exist; make it, or take it off the list" in done.stderr
    eventually(lambda: left_behind(instance) == NOTHING, "nothing to have been started")


def test_a_socket_of_the_host_as_standard_input_is_refused(instance: Instance) -> None:
    """One line, and nothing is started."""
    with socket.socket() as leaked:
        line = instance.world.command("host", *instance.command("exec", "--user", "nobody", "--", "true"))
        done = subprocess.run(line, stdin=leaked, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "standard input is a socket of the host's network" in done.stderr


# --- programs that are not ours


WORK = {
    "curl": f"curl -sS {url(FRANKFURT.address)}",
    "Python": f"python3 -c \"import urllib.request as u; print(u.urlopen('{url(FRANKFURT.address)}').read())\"",
    "node": f"node -e \"require('http').get('{url(FRANKFURT.address)}', r => r.pipe(process.stdout))\"",
    "psql": f"psql -X 'host={FRANKFURT.address} user=postgres' -Atc \"SELECT 'hello from {FRANKFURT.address}'\"",
    "git": (
        "cd $(mktemp -d) && git init -q . && git -c user.name=a -c user.email=a@example.org commit -q --allow-empty -m"
        f" 'hello from {FRANKFURT.address}' && git log --format=%s && rm -r $PWD"
    ),
}


@pytest.mark.parametrize("user", ["nobody", "root"])
@pytest.mark.parametrize("program", WORK)
def test_ordinary_programs_work(instance: Instance, program: str, user: str) -> None:
    """As an ordinary user and as root, nothing told about the enforcer."""
    if shutil.which(program.lower().replace("python", "python3")) is None:
        pytest.skip(f"{program} is not installed")
    done = execute(instance, "sh", "-c", WORK[program], user=("--user", user))
    assert done.returncode == 0, done.stderr
    assert "hello" in done.stdout
    assert FRANKFURT.address in done.stdout


def test_names_fail_as_where_there_is_no_network(instance: Instance) -> None:
    """Quickly and readably: no name service is asked over a Unix socket, and none by UDP."""
    done = execute(instance, "curl", "-sS", "http://name.example/")
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr == "curl: (6) Could not resolve host: name.example\n"
