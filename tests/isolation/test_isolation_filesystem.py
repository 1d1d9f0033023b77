"""What an executor sees of the host's files and devices, and what root without capabilities may still write."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.isolation import filesystem
from tests.isolation.conftest import Cell, outside

pytestmark = pytest.mark.kernel

# Opens each path of its argument for writing, without changing anything; prints errno's name or "writable".
WRITE = """
import errno, json, os, sys
answers = {}
for path in json.loads(sys.argv[1]):
    try:
        os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
        answers[path] = "writable"
    except OSError as error:
        answers[path] = errno.errorcode[error.errno]
print(json.dumps(answers))
"""
LIST = "import json, os, sys; print(json.dumps({path: sorted(os.listdir(path)) for path in sys.argv[1:]}))"


# --- /proc and /sys

STEERING = ["/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger", "/proc/mtrr"]
STEERING += ["/sys/kernel/uevent_helper", "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state"]
STEERING += ["/proc/irq/default_smp_affinity", "/proc/sys/net/ipv4/ip_forward"]


def test_root_steers_the_kernel_by_no_file(cell: Cell) -> None:
    """Files that belong to root and make the kernel run a program, or reboot: writable outside, not inside."""
    there = [path for path in STEERING if Path(path).exists()]
    control = outside(WRITE, json.dumps(there))
    steering = [path for path in there if control[path] == "writable"]
    assert "/proc/sys/kernel/core_pattern" in steering
    within = cell.python(WRITE, json.dumps(steering), user="root")
    assert set(within.values()) <= {"EROFS", "ENOENT"}, within


def test_nothing_of_proc_but_processes_can_be_written(cell: Cell) -> None:
    """Every file below /proc that is not a process's, tried one by one as root."""
    code = """
import json, os
found = []
for directory, names, files in os.walk("/proc"):
    if directory == "/proc":
        names[:] = [name for name in names if not name.isdecimal() and name not in ("self", "thread-self")]
    for name in files:
        path = os.path.join(directory, name)
        try:
            os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW))
            if os.stat(path).st_rdev != os.makedev(1, 3):
                found.append(path)
        except OSError:
            pass
print(json.dumps(found))
"""
    assert cell.python(code, user="root") == []


def test_only_its_own_processes_are_in_proc(cell: Cell) -> None:
    """The first process, a shell, and what it runs; the host has many more."""
    lines = cell.run("sh", "-c", "ps -e -o pid=,comm=; true").stdout.split("\n")
    assert [line.split()[1] for line in lines if line] == ["sleep", "sh", "ps"]
    assert len([path for path in Path("/proc").iterdir() if path.name.isdecimal()]) > 3


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_the_first_process_is_out_of_reach(cell: Cell, user: str) -> None:
    """It belongs to nobody: its memory, its root directory and its life are not for the executor."""
    code = """
import json, os
answers = []
for attempt in (lambda: open("/proc/1/mem", "r+b"), lambda: os.readlink("/proc/1/root"), lambda: os.kill(1, 9)):
    try:
        attempt()
        answers.append("done")
    except OSError as error:
        answers.append(type(error).__name__)
print(json.dumps(answers))
"""
    assert cell.python(code, user=user) == ["PermissionError"] * 3


def test_what_tells_of_the_host_is_masked(cell: Cell) -> None:
    """Kernel memory, keys and timers read as nothing; firmware tables are not there."""
    code = (
        "import json, os, sys; print(json.dumps([open(path).read() for path in sys.argv[1:] if os.path.exists(path)]))"
    )
    there = [path for path in ("/proc/keys", "/proc/timer_list", "/proc/key-users") if Path(path).exists()]
    assert all(outside(code, *there))
    assert cell.python(code, *there, user="root") == [""] * len(there)
    if Path("/sys/firmware").is_dir():
        assert cell.python(LIST, "/sys/firmware") == {"/sys/firmware": []}


def test_sys_shows_its_own_network_and_no_other_file_system(cell: Cell) -> None:
    """Nothing is mounted below it: no cgroups, no BPF objects, no debugging."""
    assert cell.python(LIST, "/sys/class/net") == {"/sys/class/net": ["lo"]}
    for path in ("/sys/fs/cgroup", "/sys/fs/bpf", "/sys/kernel/debug", "/sys/kernel/tracing"):
        if Path(path).is_dir():
            assert cell.python(LIST, path, user="root") == {path: []}


@pytest.mark.parametrize("kind", ["proc", "sysfs", "cgroup2", "bpf", "devtmpfs", "tracefs", "debugfs"])
def test_views_of_the_kernel_elsewhere_are_gone(cell: Cell, place: Path, kind: str) -> None:
    """A chroot's /proc, or a cgroup tree mounted a second time: the directory is there and empty."""
    subprocess.run(["mount", "-t", kind, kind, str(place)], check=True)
    assert list(place.iterdir()) or kind == "bpf"
    assert cell.python(LIST, str(place), user="root") == {str(place): []}
    assert cell.run("findmnt", "-t", kind, str(place)).stdout == ""


def test_a_view_below_another_is_gone_with_it(cell: Cell, place: Path) -> None:
    """Stacked on each other, and one in a directory whose name has a blank."""
    blank = place / "a b"
    blank.mkdir()
    for kind in ("proc", "sysfs"):
        subprocess.run(["mount", "-t", kind, kind, str(blank)], check=True)
    assert cell.python(LIST, str(blank)) == {str(blank): []}


def test_a_view_that_another_mount_covers_is_no_obstacle(cell: Cell, place: Path) -> None:
    """It cannot be unmounted, and not be reached either."""
    (place / "below").mkdir()
    subprocess.run(["mount", "-t", "proc", "proc", str(place / "below")], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place)], check=True)
    assert cell.python(LIST, str(place)) == {str(place): []}


# --- /dev


def test_dev_holds_what_every_program_needs(cell: Cell) -> None:
    """Six devices, a new set of terminals, shared memory, message queues, links, and nothing else."""
    found = cell.python(LIST, "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue")
    assert set(found["/dev"]) == {*filesystem._DEVICES, *filesystem._LINKS, "pts", "shm", "mqueue"}
    assert (found["/dev/pts"], found["/dev/shm"], found["/dev/mqueue"]) == (["ptmx"], [], [])
    assert cell.run("sh", "-c", "head -c 3 /dev/zero | wc -c; echo lost > /dev/null; head -c 2 /dev/urandom | wc -c")
    code = "import json, os, pty; a, b = pty.openpty(); print(json.dumps(os.ttyname(b)))"
    assert cell.python(code) == "/dev/pts/0"


def test_root_cannot_change_the_hosts_devices(cell: Cell) -> None:
    """The nodes are the host's own: without /dev/null for all, nothing on the host would work."""
    before = stat.S_IMODE(Path("/dev/null").stat().st_mode)
    done = cell.run("sh", "-c", "chmod 600 /dev/null; echo still works > /dev/null", user="root")
    assert done.returncode == 0
    assert "Read-only file system" in done.stderr
    assert stat.S_IMODE(Path("/dev/null").stat().st_mode) == before


def test_a_block_device_cannot_be_opened(cell: Cell, place: Path) -> None:
    """Neither one that lies elsewhere, which root opens outside, nor one that root would make."""
    node = place / "disk"
    disk = next((path.stat().st_rdev for path in Path("/dev").iterdir() if _can_be_opened(path)), None)
    if disk is None:
        pytest.skip("this host has no block device that root may open")
    os.mknod(node, stat.S_IFBLK | 0o666, disk)
    read = "import json, os, sys; os.open(sys.argv[1], os.O_RDONLY); print(json.dumps('opened'))"
    assert outside(read, str(node)) == "opened"
    assert "PermissionError" in cell.run("/usr/bin/python3", "-I", "-c", read, str(node), user="root").stderr
    made = cell.run("mknod", "/tmp/enforcer-test-node", "b", str(os.major(disk)), str(os.minor(disk)), user="root")
    assert "Operation not permitted" in made.stderr


def _can_be_opened(path: Path) -> bool:
    """Is it a block device, and does nothing else keep root from it?"""
    try:
        if path.is_block_device():
            os.close(os.open(path, os.O_RDONLY))
            return True
    except OSError:
        pass
    return False


# --- /run, hidden and exposed


@pytest.fixture
def service() -> Iterator[Path]:
    """A service's socket and a file below /run, open to everybody."""
    directory = Path("/run") / f"enforcer-test-{secrets.token_hex(3)}"
    directory.mkdir(mode=0o755)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(directory / "socket"))
            (directory / "socket").chmod(0o777)
            server.listen()
            (directory / "file").write_text("of the host")
            yield directory
    finally:
        shutil.rmtree(directory)


CONNECT = """
import json, socket, sys
try:
    socket.socket(socket.AF_UNIX).connect(sys.argv[1])
    print(json.dumps("connected"))
except OSError as error:
    print(json.dumps(type(error).__name__))
"""


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_services_of_the_host_are_gone(cell: Cell, service: Path, user: str) -> None:
    """/run and /var/run are empty; even with Unix sockets allowed there is none to connect to."""
    assert outside(CONNECT, str(service / "socket")) == "connected"
    assert cell.python(CONNECT, str(service / "socket"), user=user, unix_sockets=True) == "FileNotFoundError"
    assert cell.python(CONNECT, str(service / "socket"), user=user) == "OSError"
    assert cell.python(LIST, "/run", "/var/run/", user=user) == {"/run": [], "/var/run/": []}


def test_what_is_exposed_is_there_and_nothing_beside_it(cell: Cell, service: Path) -> None:
    """One socket of one service, and a directory."""
    options: dict[str, Any] = {"exposed": [str(service / "socket")], "unix_sockets": True}
    assert cell.python(CONNECT, str(service / "socket"), **options) == "connected"
    assert cell.python(LIST, "/run", str(service), **options) == {"/run": [service.name], str(service): ["socket"]}
    options["exposed"] = [str(service)]
    assert cell.python(LIST, str(service), **options) == {str(service): ["file", "socket"]}
    assert cell.python(CONNECT, str(service / "socket"), **options) == "connected"
    written = cell.python(WRITE, json.dumps([str(service / "file")]), user="root", **options)
    assert list(written.values()) == ["EROFS"]


def test_a_device_can_be_exposed(cell: Cell) -> None:
    """An accelerator, say; here the kernel's log, which is not there otherwise."""
    assert cell.python(LIST, "/dev", exposed=["/dev/kmsg"])["/dev"].count("kmsg") == 1
    code = "import json, os; print(json.dumps(os.major(os.stat('/dev/kmsg').st_rdev)))"
    assert cell.python(code, exposed=["/dev/kmsg"]) == 1


def test_hidden_directories_are_empty_even_below_what_is_exposed(cell: Cell, service: Path) -> None:
    """The enforcer's own: no records, no control socket, no policies, also for root."""
    options: dict[str, Any] = {"exposed": [str(service)], "hidden": [str(service), "/var/lib/dpkg"], "user": "root"}
    assert list(Path("/var/lib/dpkg").iterdir())
    paths = [str(service), "/var/lib/dpkg"]
    assert cell.python(LIST, *paths, **options) == {path: [] for path in paths}
    assert "Read-only" in cell.run("touch", "/var/lib/dpkg/x", **options).stderr


# --- what root may write


def test_root_writes_to_temporary_directories_only(cell: Cell, place: Path) -> None:
    """/etc, the system, its cron tables, root's home: read-only, though root owns them."""
    paths = ["/etc", "/etc/cron.d", "/usr/bin", "/root", "/var/lib", "/var/spool", str(place)]
    name = f"enforcer-test-{secrets.token_hex(3)}"
    script = f'export LC_ALL=C; for path; do touch "$path/{name}" && rm "$path/{name}" && echo "$path"; done; true'
    control = subprocess.run(["sh", "-c", script, "sh", *paths], capture_output=True, text=True, check=True)
    # Not all of them, where a host lacks some, or has them read-only itself.
    writable = control.stdout.split()
    assert {"/etc", str(place)} <= set(writable)
    done = cell.run("sh", "-c", script, "sh", *writable, "/tmp", "/var/tmp", "/dev/shm", "/run", user="root")
    assert done.stdout.split() == ["/tmp", "/var/tmp", "/dev/shm", "/run"]
    assert done.stderr.count("Read-only file system") == len(writable)


def test_more_can_be_made_writable(cell: Cell, place: Path) -> None:
    """What `--writable` names, but no other file system mounted below it."""
    for name in ("mine", "mine/mounted", "not-mine"):
        (place / name).mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(place / "mine/mounted")], check=True)
    script = f"cd {place}; for path in mine mine/mounted not-mine; do touch $path/file && echo $path; done; true"
    done = cell.run("sh", "-c", script, user="root", writable=[str(place / "mine")])
    assert done.stdout == "mine\n"
    assert (place / "mine/file").exists()


def test_what_the_host_made_read_only_does_not_become_writable(cell: Cell, place: Path) -> None:
    """`--writable` gives back what isolation took, and no more."""
    subprocess.run(["mount", "--bind", str(place), str(place)], check=True)
    subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
    done = cell.run("touch", f"{place}/file", user="root", writable=[str(place)])
    assert "Read-only file system" in done.stderr


def test_another_user_writes_where_it_always_could(cell: Cell, place: Path) -> None:
    """Its own files; the rest is not writable for want of permission."""
    shutil.chown(place, "nobody")
    assert cell.run("touch", f"{place}/file").returncode == 0
    assert "Permission denied" in cell.run("touch", "/etc/enforcer-test-file").stderr


# --- the mounts themselves


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_mounts_cannot_be_taken_off(cell: Cell, user: str) -> None:
    """umount(2) is refused by the filter, and needs a capability that nobody has."""
    for path in ("/run", "/proc", "/dev"):
        assert cell.run("umount", path, user=user).returncode != 0


def test_set_user_id_counts_nowhere(cell: Cell) -> None:
    """Every mount of the executor's says nosuid."""
    done = cell.run("cat", "/proc/self/mounts", user="root")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert len(lines) > 10
    assert [line for line in lines if "nosuid" not in line[3].split(",")] == []


def mounts_of_the_host() -> list[str]:
    """Without what other tests mount and take off meanwhile: namespaces, and file systems in temporary directories."""
    theirs = ("/run/netns", "/var/lib/enforcer-test-", f"{tempfile.gettempdir()}/")
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line for line in lines if not line.split()[4].startswith(theirs) and " - nsfs " not in line]


def test_the_hosts_mounts_stay_as_they_are(cell: Cell, place: Path) -> None:
    """What is mounted inside does not show outside, and what the host mounts later does not show inside."""
    before = mounts_of_the_host()
    code = f"""
import json, os, sys, time
print(json.dumps("ready"), flush=True)
sys.stdin.read(1)
print(json.dumps(os.listdir("{place}")), flush=True)
"""
    process = subprocess.Popen(
        cell.line("/usr/bin/python3", "-I", "-c", code),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == '"ready"\n'
        assert mounts_of_the_host() == before
        subprocess.run(["mount", "-t", "proc", "proc", str(place)], check=True)
        out, _ = process.communicate("x", timeout=30)
        assert json.loads(out) == []
    finally:
        process.kill()
        process.communicate()


def test_the_working_directory_is_looked_up_inside(cell: Cell, service: Path, place: Path) -> None:
    """One that is hidden cannot be worked in, though the caller stands in it; others stay as they are."""
    assert cell.run("pwd", directory=str(place)).stdout == f"{place}\n"
    done = cell.run("pwd", directory=str(service))
    assert (done.returncode, done.stdout) == (6, "")
    assert f"the executor does not have the directory {service}: No such file" in done.stderr
