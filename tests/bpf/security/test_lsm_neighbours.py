"""Security hooks between an executor and the other processes of its host: tracing, signals, System V IPC, keyrings,
terminals. Where the kernel does not take them an executor gets what anybody gets. Each is tried outside as well."""

from __future__ import annotations

import errno
import os
import pty
import secrets
import signal
import termios
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.capture import cgroup, takeover
from tests.bpf.security.conftest import ATTACHED, check
from tests.fixtures.kernel import Executor, Kernel, Process

pytestmark = pytest.mark.kernel

TRACE = """
def seize(pid):
    "In a child, whose end lets go of it."
    libc.ptrace.argtypes = [ctypes.c_long] * 4
    child = os.fork()
    if child == 0:
        os._exit(ctypes.get_errno() if libc.ptrace(0x4206, pid, 0, 0) else 0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code:
        raise OSError(code, "ptrace")
def write(pid):
    "To where nothing is mapped: EFAULT, once the right to write was granted."
    text = ctypes.create_string_buffer(b"x", 1)
    near, far = (ctypes.c_size_t * 2)(ctypes.addressof(text), 1), (ctypes.c_size_t * 2)(1, 1)
    if libc.process_vm_writev(pid, near, 1, far, 1, 0) < 0:
        raise OSError(ctypes.get_errno(), "process_vm_writev")
def getfd(pid):
    fd = libc.syscall(438, os.pidfd_open(pid), 0, 0)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    os.close(fd)
def touch(pid):
    return [attempt(getfd, pid), attempt(lambda: open(f"/proc/{pid}/mem", "r+b", 0).close()),
            attempt(write, pid), attempt(seize, pid), attempt(open, f"/proc/{pid}/maps")]
libc = ctypes.CDLL(None, use_errno=True)
"""
FREE = [0, 0, errno.EFAULT, 0, 0]


def test_processes_outside_are_not_traced(
    kernel: Kernel, host: int, executor: Executor, outsider: Process, in_force: bool
) -> None:
    """Tracing, writing into or taking descriptors from a process outside, or of another executor, is refused; looking
    is not."""
    executor.run(TRACE)
    outsider.run(TRACE)
    with kernel.executor(mode=ATTACHED, netns=host) as other, kernel.outsider() as target:
        other.run("import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nanswer['pid'] = child.pid")
        with kernel.counted() as moved:
            for pid in (target.pid, other.pid):
                answer = executor.run(f"answer['all'] = touch({pid})")["all"]
                assert answer == ([errno.EPERM, errno.EACCES, errno.EPERM, errno.EPERM, 0] if in_force else FREE)
        check(kernel, executor, moved, "REFUSED_PTRACE", 8)
    with kernel.outsider() as target:
        assert outsider.run(f"answer['all'] = touch({target.pid})")["all"] == FREE


def test_an_executors_own_processes_are_traced(kernel: Kernel, host: int, executor: Executor) -> None:
    """Children, children of children, a process that was moved in and started a program, and one found at takeover."""
    executor.run(TRACE + "import subprocess")
    shell = ["sh", "-c", "sleep 60 & echo $!; wait"]
    code = (
        f"child = subprocess.Popen({shell}, stdout=-1, text=True)\npids = [child.pid, int(child.stdout.readline())]\n"
    )
    assert executor.run(code + "answer['all'] = [touch(pid) for pid in pids]")["all"] == [FREE] * 2
    with kernel.outsider(host) as moved_in, kernel.outsider(host) as found:
        for process in (moved_in, found):
            cgroup.join(executor.path, process.pid)
        moved_in.start("os.execvp('sleep', ['sleep', '60'])")
        for _ in range(500):
            if Path(f"/proc/{moved_in.pid}/comm").read_text() == "sleep\n":
                break
            threading.Event().wait(0.02)
        takeover.recognise([found.pid], executor.cgroup_id, kernel.tables.owners, kernel.tables.tasks)
        for process in (moved_in, found):
            assert executor.run(f"answer['all'] = touch({process.pid})")["all"] == FREE


# --- signals

SIGNALS = """
def send(pid, number):
    return attempt(os.kill, pid, number)
def in_threads(code):
    found = []
    thread = threading.Thread(target=lambda: found.append(code()))
    thread.start()
    thread.join()
    return found[0]
"""


def test_processes_outside_get_no_signals(
    kernel: Kernel, host: int, executor: Executor, outsider: Process, in_force: bool
) -> None:
    """A process outside, or of another executor, is not signalled; whether it is there may be asked. Whoever is outside
    signals all."""
    executor.run(SIGNALS)
    outsider.run(SIGNALS)
    with kernel.executor(mode=ATTACHED, netns=host) as other, kernel.outsider() as target:
        other.run("import subprocess\nchild = subprocess.Popen(['sleep', '60'])\nanswer['pid'] = child.pid")
        with kernel.counted() as moved:
            for pid in (target.pid, other.pid):
                answer = executor.run(f"answer['all'] = [send({pid}, {int(signal.SIGURG)}), send({pid}, 0)]")["all"]
                assert answer == [errno.EPERM if in_force else 0, 0]
            pidfd = (
                f"libc = ctypes.CDLL(None)\nanswer['failed'] = libc.syscall(424, os.pidfd_open({target.pid}), 23, 0, 0)"
            )
            assert executor.run(pidfd) == {"failed": -1 if in_force else 0}
        check(kernel, executor, moved, "REFUSED_NEIGHBOUR", 3)
        assert outsider.run(f"answer['all'] = [send({pid}, 23) for pid in ({target.pid}, {executor.pid})]")["all"] == [
            0,
            0,
        ]


def test_an_executors_own_processes_get_signals(kernel: Kernel, host: int, executor: Executor) -> None:
    """Itself, its threads, children, their parent, and a process with threads that was found at takeover."""
    code = """
        import subprocess
        signal = __import__("signal")
        answer["itself"] = [send(os.getpid(), 23), attempt(signal.raise_signal, 23)]
        waiting = threading.Event()
        thread = threading.Thread(target=waiting.wait, daemon=True)
        thread.start()
        answer["thread"] = [attempt(signal.pthread_kill, thread.ident, 23), in_threads(lambda: send(os.getpid(), 23))]
        waiting.set()
        child = subprocess.Popen(["sh", "-c", "kill -URG $PPID; echo $?; sleep 60"], stdout=-1, text=True)
        answer["parent"] = child.stdout.readline()
        answer["child"] = [send(child.pid, 15), child.wait()]
    """
    executor.run(SIGNALS)
    with kernel.counted() as moved:
        assert executor.run(code) == {"itself": [0, 0], "thread": [0, 0], "parent": "0\n", "child": [0, -15]}
        with kernel.outsider(host) as found:
            found.run(SIGNALS + "over = threading.Event()\nthreading.Thread(target=over.wait, daemon=True).start()")
            cgroup.join(executor.path, found.pid)
            takeover.recognise([found.pid], executor.cgroup_id, kernel.tables.owners, kernel.tables.tasks)
            threads = sorted(int(path.name) for path in Path(f"/proc/{found.pid}/task").iterdir())
            assert len(threads) == 2
            tgkill = "ctypes.CDLL(None).syscall(234, {0}, {1}, 23)"
            sent = ", ".join(tgkill.format(found.pid, thread) for thread in threads)
            for process in (executor, found):
                assert process.run(f"answer['all'] = [{sent}]")["all"] == [0, 0]
    assert "REFUSED_NEIGHBOUR" not in moved


# --- System V IPC

IPC = """
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_long
def called(result):
    if result < 0:
        raise OSError(ctypes.get_errno(), "ipc")
    return result
def ipc(key, flags):
    "What becomes of opening a queue, a segment and a set of semaphores of one key."
    return [attempt(lambda: called(get())) for get in (
        lambda: libc.msgget(key, flags), lambda: libc.shmget(key, 100, flags), lambda: libc.semget(key, 1, flags))]
def use(queue, segment):
    return [attempt(lambda: called(libc.msgsnd(queue, struct.pack("=q", 1) + b"x", ctypes.c_size_t(1), 0o4000))),
            attempt(lambda: called(libc.shmat(segment, None, 0)))]
def remove(key):
    libc.msgctl(libc.msgget(key, 0), 0, None), libc.shmctl(libc.shmget(key, 0, 0), 0, None)
    libc.semctl(libc.semget(key, 0, 0), 0, 0)
"""
MADE = 0o1666  # IPC_CREAT, for everybody


@pytest.fixture
def key(outsider: Process) -> Iterator[int]:
    key = secrets.randbits(30) | 1
    outsider.run(IPC)
    yield key
    outsider.run(f"remove({key})")


def test_ipc_objects_of_others_are_not_used(
    kernel: Kernel, executor: Executor, outsider: Process, in_force: bool, key: int
) -> None:
    """Queues, segments and semaphores that somebody outside made are neither opened nor, by their numbers, used."""
    outsider.run(f"answer['all'] = ipc({key}, {MADE})")
    numbers = outsider.run(f"answer['all'] = [libc.msgget({key}, 0), libc.shmget({key}, 0, 0)]")["all"]
    executor.run(IPC)
    refused = errno.EPERM if in_force else 0
    with kernel.counted() as moved:
        answer = executor.run(f"answer['all'] = ipc({key}, 0o666) + use(*{numbers})")["all"]
    assert len(answer) == 5
    assert set(answer) == {refused} or (in_force and set(answer) <= {errno.EPERM, errno.EACCES})
    check(kernel, executor, moved, "REFUSED_NEIGHBOUR", 5)
    assert outsider.run(f"answer['all'] = ipc({key}, 0) + use(*{numbers})")["all"] == [0] * 5


def test_an_executors_own_ipc_objects_work(
    kernel: Kernel, host: int, executor: Executor, outsider: Process, in_force: bool, key: int
) -> None:
    """What it made it opens and uses, and so may whoever is outside; another executor may not."""
    executor.run(IPC)
    with kernel.counted() as moved:
        assert executor.run(f"answer['all'] = ipc({key}, {MADE}) + ipc({key}, 0o666)")["all"] == [0] * 6
        numbers = executor.run(f"answer['all'] = [libc.msgget({key}, 0), libc.shmget({key}, 0, 0)]")["all"]
        assert executor.run(f"answer['all'] = use(*{numbers})")["all"] == [0, 0]
        assert outsider.run(f"answer['all'] = ipc({key}, 0) + use(*{numbers})")["all"] == [0] * 5
    assert "REFUSED_NEIGHBOUR" not in moved
    with kernel.executor(mode=ATTACHED, netns=host) as other:
        other.run(IPC)
        assert (other.run(f"answer['all'] = ipc({key}, 0o666)")["all"] == [0] * 3) == (not in_force)


# --- keyrings

KEYS = """
libc = ctypes.CDLL(None, use_errno=True)
def add(ring):
    number = libc.syscall(248, b"user", b"enforcer-test", b"x", ctypes.c_size_t(1), ring)
    if number < 0:
        raise OSError(ctypes.get_errno(), "add_key")
    libc.syscall(250, 9, number, ring)
"""


def test_nothing_is_written_into_keyrings(
    kernel: Kernel, executor: Executor, outsider: Process, in_force: bool
) -> None:
    """A key in the user's keyring, or that of its session, is refused an executor."""
    rings = "answer['all'] = [attempt(add, ring) for ring in (-4, -5)]"
    outsider.run(KEYS)
    assert outsider.run(rings)["all"] == [0, 0]
    executor.run(KEYS)
    with kernel.counted() as moved:
        assert executor.run(rings)["all"] == [errno.EPERM if in_force else 0] * 2
    check(kernel, executor, moved, "REFUSED_NEIGHBOUR", 2)


# --- terminals


def test_nothing_is_typed_into_terminals(kernel: Kernel, executor: Executor, outsider: Process, in_force: bool) -> None:
    """TIOCSTI on a terminal from outside is refused an executor; asking for its size is not."""
    master, slave = pty.openpty()
    try:
        name = os.ttyname(slave)
        code = (
            f"tty = os.open({name!r}, os.O_RDWR | os.O_NOCTTY)\n"
            f"answer['typed'] = attempt(fcntl.ioctl, tty, {termios.TIOCSTI}, b'x')\n"
            f"answer['size'] = attempt(fcntl.ioctl, tty, {termios.TIOCGWINSZ}, bytes(8))"
        )
        outside = outsider.run(code)
        assert outside["size"] == 0
        with kernel.counted() as moved:
            answer = executor.run(code)
        assert answer == ({"typed": errno.EPERM, "size": 0} if in_force else outside)
        check(kernel, executor, moved, "REFUSED_NEIGHBOUR", 1)
    finally:
        os.close(slave)
        os.close(master)
