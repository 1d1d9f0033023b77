"""What an executor inherits: its standard descriptors, if they are no way out, and not one more."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.isolation.conftest import PYTHON, ROOT, Cell

pytestmark = pytest.mark.kernel

LISTING = "import json, os; print(json.dumps(sorted(map(int, os.listdir('/proc/self/fd')))))"


class Pair:
    """Half of a pair of Unix sockets; the other half stays open as long."""

    def __init__(self, kind: int) -> None:
        self._one, self._other = socket.socketpair(socket.AF_UNIX, kind)

    def fileno(self) -> int:
        return self._one.fileno()

    def close(self) -> None:
        self._one.close()
        self._other.close()


class Opened:
    """A descriptor with the life of a socket."""

    def __init__(self, path: str, flags: int = os.O_RDWR) -> None:
        self._fd = os.open(path, flags)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        os.close(self._fd)


Given = socket.socket | Pair | Opened

REFUSED: dict[str, tuple[Callable[[], Given], str]] = {
    "TCP": (socket.socket, "a socket of the host's network"),
    "TCP over IPv6": (lambda: socket.socket(socket.AF_INET6), "a socket of the host's network"),
    "UDP": (lambda: socket.socket(type=socket.SOCK_DGRAM), "a socket of the host's network"),
    "netlink": (lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW), "a socket of the host's network"),
    "packet": (lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW), "a socket of the host's network"),
    "vsock": (lambda: socket.socket(socket.AF_VSOCK), "a socket of the host's network"),
    "Unix datagrams": (lambda: Pair(socket.SOCK_DGRAM), "a Unix socket that can be sent elsewhere"),
    "Unix without a peer": (lambda: socket.socket(socket.AF_UNIX), "a Unix socket without a peer"),
    "directory": (lambda: Opened("/", os.O_RDONLY), "a directory"),
    "kernel log": (lambda: Opened("/dev/kmsg", os.O_RDONLY), "a device of the host"),
}


def run(cell: Cell, **streams: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        cell.line(PYTHON, "-I", "-c", LISTING),
        **{"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams},  # type: ignore[call-overload]
        text=True,
        check=False,
        timeout=60,
        cwd=ROOT,
    )


@pytest.mark.parametrize("stream", ["stdin", "stdout", "stderr"])
@pytest.mark.parametrize("kind", REFUSED)
def test_a_way_out_as_a_standard_descriptor_is_refused(cell: Cell, kind: str, stream: str) -> None:
    """Status 2, and one line that says which it is and what to give instead; nothing was started."""
    make, words = REFUSED[kind]
    given = make()
    try:
        done = run(cell, **{stream: given})
    finally:
        given.close()
    assert done.returncode != 0
    assert not done.stdout
    if stream != "stderr" and kind != "directory":  # there Python itself says so first
        (line,) = done.stderr.splitlines()
        name = {"stdin": "input", "stdout": "output"}[stream]
        assert line.startswith(f"enforcer: standard {name} is {words}, ")
        assert "give a pipe or a file" in line
        assert done.returncode == 2


def test_a_directory_is_refused_by_more_than_python() -> None:
    """Python does not start with one; if it did, we would not go on."""
    code = (
        "import os; from enforcer.isolation import descriptors; os.dup2(os.open('/', os.O_RDONLY), 0);"
        " descriptors.check_standard()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT)
    assert "UsageError: standard input is a directory, which an executor could get out by" in done.stderr


@pytest.mark.parametrize(
    "make",
    [
        lambda: Pair(socket.SOCK_STREAM),
        lambda: Opened("/dev/null"),
        lambda: Opened("/dev/zero"),
        lambda: Opened("/etc/hosts", 0),
    ],
    ids=["connected Unix socket", "null", "zero", "file"],
)
def test_what_only_carries_bytes_is_taken(cell: Cell, make: Callable[[], Given]) -> None:
    """As standard input: what servers, cron and shells give."""
    given = make()
    try:
        done = run(cell, stdin=given)
    finally:
        given.close()
    assert (done.returncode, done.stderr) == (0, "")


def test_every_other_descriptor_is_closed(cell: Cell) -> None:
    """Also one with a number above the limit that applies by now (close_range(2) knows no limit)."""
    with socket.socket() as leaked:
        high = 5000
        script = f'ulimit -n 6000; exec {high}<&{leaked.fileno()}; ulimit -n 64; exec "$@"'
        line = ["bash", "-c", script, "bash", *cell.line(PYTHON, "-I", "-c", LISTING)]
        done = subprocess.run(
            line, capture_output=True, text=True, check=False, pass_fds=[leaked.fileno()], timeout=60, cwd=ROOT
        )
    assert json.loads(done.stdout) == [0, 1, 2, 3], done.stderr  # 3 is the listing itself


def test_a_closed_standard_descriptor_stays_harmless(cell: Cell) -> None:
    """The next file that is opened must not become standard input or output."""
    code = "import json, os; print(json.dumps([os.readlink(f'/proc/self/fd/{n}') for n in (0, 2)]))"
    line = ["sh", "-c", 'exec "$@" <&- 2>&-', "sh", *cell.line(PYTHON, "-I", "-c", code)]
    done = subprocess.run(line, capture_output=True, text=True, check=False, timeout=60, cwd=ROOT)
    assert json.loads(done.stdout) == ["/dev/null", "/dev/null"]


def test_signals_that_python_ignores_are_as_they_were(cell: Cell) -> None:
    """A writer whose reader has gone dies of SIGPIPE, as in every pipeline."""
    status = cell.run("sh", "-c", "grep SigIgn /proc/self/status").stdout
    mine = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("SigIgn"))
    # What whoever started these tests has ignored stays so; what Python adds to it does not.
    python_adds = sum(1 << (number - 1) for number in (signal.SIGPIPE, signal.SIGXFSZ))
    assert int(status.split()[1], 16) == int(mine.split()[1], 16) & ~python_adds


def test_a_crash_starts_no_helper_of_the_hosts(cell: Cell) -> None:
    """The core limit is 1, which the kernel takes for "none, and no helper either" (fs/coredump.c), and stays 1; other
    limits can be lowered."""
    code = """
import json, resource
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
resource.prlimit(0, resource.RLIMIT_CORE, (0, 1))
resource.setrlimit(resource.RLIMIT_NOFILE, (77, 77))
print(json.dumps([resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)]))
"""
    assert cell.python(code, user="root") == [[1, 1], [77, 77]]
    done = cell.run("sh", "-c", "ulimit -c 0")
    assert (done.returncode, done.stderr) == (0, "")


def test_keys_of_the_callers_session_stay_with_it(cell: Cell) -> None:
    """A key in the caller's session keyring is seen by any command of nobody's outside, and by none inside."""
    code = """
import ctypes, os, subprocess, sys
libc = ctypes.CDLL(None)
add, keyctl = (248, 250) if os.uname().machine == "x86_64" else (217, 219)
libc.syscall(keyctl, 1, None)
assert libc.syscall(add, b"user", b"enforcer-test-key", b"secret", ctypes.c_size_t(6), -3) > 0
sys.exit(subprocess.run(sys.argv[1:]).returncode)
"""
    reading = ("cat", "/proc/keys")

    def seen_by(*line: str) -> str:
        command = [PYTHON, "-I", "-c", code, *line]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT).stdout

    assert "enforcer-test-key" in seen_by("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups", *reading)
    within = seen_by(*cell.line(*reading, exposed=["/proc/keys"]))
    assert "_ses" in within
    assert "enforcer-test-key" not in within
