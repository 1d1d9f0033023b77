"""The seccomp filter: what it refuses inside, and that the same call gets through to the kernel outside."""

from __future__ import annotations

import errno
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from enforcer.errors import HostError
from enforcer.isolation import syscalls
from tests.isolation.conftest import PYTHON, Cell, outside

pytestmark = pytest.mark.kernel

seccomp = pytest.importorskip("seccomp")

# Makes raw system calls as the first argument says: [[number, arguments...], ...]; prints each result or -errno.
RAW = """
import ctypes, json, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.syscall.restype = ctypes.c_long
answers = []
for number, *arguments in json.loads(sys.argv[1]):
    ctypes.set_errno(0)
    made = [value.encode() if isinstance(value, str) else ctypes.c_ulong(value & (2**64 - 1)) for value in arguments]
    result = libc.syscall(number, *made)
    answers.append(result if result >= 0 else -ctypes.get_errno())
print(json.dumps(answers))
"""
# Arguments with which the kernel itself refuses without doing anything, or does nothing; 0 for all others.
HARMLESS: dict[str, list[Any]] = {
    "setns": [-1],
    "acct": ["/no/such/file"],
    "bpf": [99, 0, 0],
    "clock_settime": [99],
    "delete_module": ["no-such-module", 0x800],
    "fanotify_init": [-1],
    "finit_module": [-1],
    "ioperm": [70000, 1, 0],
    "kexec_file_load": [-1, -1, 0, 0, -1],
    "kexec_load": [0, 0, 0, 0xFFFF],
    "keyctl": [99],
    "open_by_handle_at": [-1, 0, 0],
    "pidfd_getfd": [-1],
    "process_vm_readv": [0x7FFFFFFF, 0, 1, 0, 1],
    "process_vm_writev": [0x7FFFFFFF, 0, 1, 0, 1],
    "ptrace": [99, 0x7FFFFFFF],
    "kcmp": [0x7FFFFFFF, 0x7FFFFFFF],
    "quotactl": [0xFFFFFFFF],
    "quotactl_fd": [-1],
    "sethostname": [0, -1],
    "setdomainname": [0, -1],
    "syslog": [99],
    "userfaultfd": [0xFFFF],
    "swapon": ["/no/such/file"],
    "swapoff": ["/no/such/file"],
    "io_uring_enter": [-1],
    "io_uring_register": [-1],
    "move_mount": [-1, 0, -1, 0, 0xFFFF],
    "open_tree": [-1, "", 0xFFFF],
    "open_tree_attr": [-1, "", 0xFFFF],
    "fsopen": ["", 0xFFFF],
    "fsconfig": [-1, 0xFFFF],
    "fsmount": [-1, 0xFFFF],
    "fspick": [-1, "", 0xFFFF],
    "mount_setattr": [-1, "", 0xFFFFFFFF],
}
HIGH = 1 << 32


def number_of(call: str) -> int:
    return (
        int(seccomp.resolve_syscall(seccomp.Arch(), call)) if call not in syscalls._NUMBERS else syscalls._NUMBERS[call]
    )


HERE = [(call, group.answer) for group in syscalls.REFUSED for call in group.calls.split() if number_of(call) >= 0]


def raw(cell: Cell | None, *calls: list[Any], **options: Any) -> list[int]:
    """Results of raw calls inside the cell, or outside without one."""
    text = json.dumps([[number_of(call[0]), *call[1:]] for call in calls])
    answers: list[int] = cell.python(RAW, text, **options) if cell else outside(RAW, text)
    return answers


@pytest.fixture(scope="module")
def refused(cell: Cell) -> dict[str, tuple[int, int]]:
    """(inside, outside) of every call of the table that this machine has."""
    calls = [[call, *(HARMLESS.get(call, []) + [0] * 6)[:6]] for call, _answer in HERE]
    return dict(zip([call for call, _ in HERE], zip(raw(cell, *calls), raw(None, *calls), strict=True), strict=True))


@pytest.mark.parametrize(("call", "answer"), HERE, ids=[call for call, _ in HERE])
def test_the_table_is_refused(refused: dict[str, tuple[int, int]], call: str, answer: int) -> None:
    """Inside the call fails as the table says, also where the kernel does not know it."""
    assert refused[call][0] == -answer


def test_most_of_the_table_was_told_apart(refused: dict[str, tuple[int, int]]) -> None:
    """Outside, with the same arguments, the kernel itself answers, but for a few calls that a kernel may lack."""
    same = [call for call, answer in HERE if refused[call][1] in (-answer, -errno.ENOSYS)]
    assert len(same) <= 8, same


# --- sockets

# With "control", a family that is not there is tried once: each try has the kernel look for a module.
OPEN = """
import errno, json, socket, sys
answers = {}
for family in range(64):
    for kind in range(1, 11):
        for protocol in (0, 1, 6, 17, 132, 136, 255, 262):
            try:
                socket.socket(family, kind, protocol).close()
                answers[f"{family} {kind} {protocol}"] = 0
            except OSError as error:
                answers[f"{family} {kind} {protocol}"] = error.errno
                if error.errno == errno.EAFNOSUPPORT and "control" in sys.argv:
                    break
        else:
            continue
        break
print(json.dumps(answers))
"""
IP = (int(socket.AF_INET), int(socket.AF_INET6))


@pytest.mark.parametrize("user", ["nobody", "root"])
def test_only_tcp_udp_and_route_netlink_can_be_opened(cell: Cell, user: str) -> None:
    """Of 5,120 combinations of family, type and protocol those succeed that are TCP, UDP or NETLINK_ROUTE; root outside
    opens Unix, packet, raw and other sockets."""
    within = {key for key, code in cell.python(OPEN, user=user).items() if code == 0}
    allowed = {f"{family} {kind} {number}" for family in IP for kind, number in ((1, 0), (1, 6), (2, 0), (2, 17))}
    assert within == allowed | {f"{int(socket.AF_NETLINK)} {kind} 0" for kind in (2, 3)}
    control = {key for key, code in outside(OPEN, "control").items() if code == 0}
    assert within < control
    assert {f"{int(socket.AF_UNIX)} 1 0", f"{int(socket.AF_PACKET)} 3 0", f"{int(socket.AF_INET)} 3 255"} <= control


def test_each_family_is_refused_by_the_filter_itself(cell: Cell) -> None:
    """EAFNOSUPPORT, also where the kernel would have said that the address family needs a capability."""
    codes = cell.python(OPEN)
    for family in set(range(64)) - {*IP, int(socket.AF_NETLINK)}:
        assert codes[f"{family} 1 0"] == codes[f"{family} 3 255"] == errno.EAFNOSUPPORT


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (["socket", socket.AF_UNIX | HIGH, 1, 0], errno.EAFNOSUPPORT),
        (["socket", socket.AF_PACKET | HIGH << 7, 3, 0], errno.EAFNOSUPPORT),
        (["socket", socket.AF_INET | HIGH, 3, 255], errno.EAFNOSUPPORT),
        (["socket", socket.AF_INET, 3 | HIGH, 255], errno.EPROTONOSUPPORT),
        (["socket", socket.AF_INET, 1, 262 | HIGH], errno.EPROTONOSUPPORT),
        (["socket", socket.AF_INET, 3 | HIGH << 31, 255], errno.EPROTONOSUPPORT),
        (["socket", socket.AF_NETLINK, 3, 4 | HIGH], errno.EPROTONOSUPPORT),
        (["socketpair", socket.AF_UNIX, 2 | HIGH, 0, 0], errno.EPROTONOSUPPORT),
        (["socketpair", socket.AF_UNIX | HIGH, 1, 0, 0], errno.EAFNOSUPPORT),
        (["ioctl", 0, 0x5412 | HIGH, 0], errno.EPERM),
        (["ioctl", 0, 0x541C | HIGH << 20, 0], errno.EPERM),
        (["clone", 0x10000000 | HIGH, 0], errno.EPERM),
        (["clone", 0x40000000 | HIGH << 5, 0], errno.EPERM),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else None,
)
def test_high_bits_are_no_way_around(cell: Cell, call: list[Any], answer: int) -> None:
    """The kernel reads 32 bits of these arguments and seccomp sees 64; whatever is in the others, it is refused."""
    assert raw(cell, call, user="root") == [-answer]


def test_the_kernel_does_ignore_high_bits() -> None:
    """The control of the test above: outside such calls succeed."""
    calls = (
        ["socket", socket.AF_UNIX | HIGH, 1, 0],
        ["socket", socket.AF_INET, 3 | HIGH, 255],
        ["socket", socket.AF_NETLINK, 3, 4 | HIGH],
    )
    assert all(result >= 0 for result in raw(None, *calls))


DATAGRAMS = """
import json, os, socket, sys
path = sys.argv[1]
try:
    one, other = socket.socketpair(socket.AF_UNIX, getattr(socket, sys.argv[2]))
    if "connect" in sys.argv:
        one.connect(path)
    one.sendto(b"out of the pair", path)
    other.setblocking(False)
    try:
        print(json.dumps("to its half" if other.recv(100) else ""))
    except BlockingIOError:
        print(json.dumps("sent"))
except OSError as error:
    print(json.dumps(error.errno))
"""


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_RAW"])
def test_a_pair_of_datagram_sockets_reaches_no_service(cell: Cell, place: Path, kind: str) -> None:
    """Outside, half of a pair can be sent to any Unix socket by its path; inside there is no such pair."""
    path = place / "socket"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service:
        service.bind(str(path))
        path.chmod(0o777)
        service.setblocking(False)
        assert outside(DATAGRAMS, str(path), kind) == "sent"
        assert service.recv(100) == b"out of the pair"
        assert cell.python(DATAGRAMS, str(path), kind) == errno.EPROTONOSUPPORT
        with pytest.raises(BlockingIOError):
            service.recv(100)


@pytest.mark.parametrize("kind", ["SOCK_STREAM", "SOCK_SEQPACKET"])
def test_a_connected_pair_cannot_be_sent_elsewhere(cell: Cell, place: Path, kind: str) -> None:
    """What is allowed talks to its other half, whatever it is told (unix(7)): it can neither send nor connect away."""
    path = place / "socket"
    with socket.socket(socket.AF_UNIX, getattr(socket, kind)) as service:
        service.bind(str(path))
        path.chmod(0o777)
        service.listen()
        service.setblocking(False)
        assert cell.python(DATAGRAMS, str(path), kind) in (errno.EISCONN, "to its half")
        assert cell.python(DATAGRAMS, str(path), kind, "connect") in (errno.EISCONN, errno.EINVAL)
        with pytest.raises(BlockingIOError):
            service.accept()


def test_unix_sockets_can_be_allowed(cell: Cell) -> None:
    """`unix_sockets: true`: of all types, and nothing else with it."""
    code = OPEN.replace("range(64)", "(1, 17, 38, 40)")
    within = {key for key, value in cell.python(code, unix_sockets=True).items() if value == 0}
    assert within == {f"1 {kind} 0" for kind in (1, 2, 3, 5)} | {f"1 {kind} 1" for kind in (1, 2, 3, 5)}
    assert cell.python("import json, socket; print(json.dumps(len(socket.socketpair(1, 2))))", unix_sockets=True) == 2


# --- other architectures' calls

FOREIGN = """
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code.write(bytes.fromhex({code!r}))
answer = ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))()
print(answer)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="machine code of x86")
@pytest.mark.parametrize(
    "code", ["b814000000cd80c3", "b8270000400f05c3"], ids=["getpid of i386 by int 0x80", "getpid of x32"]
)
def test_other_architectures_calls_end_the_process(cell: Cell, code: str) -> None:
    """Their numbers mean other calls, so the table says nothing about them."""
    done = cell.run(PYTHON, "-I", "-c", FOREIGN.format(code=code))
    assert done.returncode == 128 + signal.SIGSYS
    control = subprocess.run([PYTHON, "-I", "-c", FOREIGN.format(code=code)], capture_output=True, check=False)
    assert control.returncode == 0


# --- what must go on working


def test_threads_children_and_servers_work(cell: Cell) -> None:
    """Threads and processes are made without clone3, and connect to each other by TCP, UDP and pairs."""
    code = """
import asyncio, concurrent.futures, json, multiprocessing, os, socket, subprocess, threading
with concurrent.futures.ThreadPoolExecutor(8) as pool:
    total = sum(pool.map(len, ["ab"] * 50))
with multiprocessing.Pool(2) as pool:
    total += sum(pool.map(len, ["ab"] * 50))
total += int(subprocess.run(["echo", "5"], capture_output=True).stdout)
async def serve():
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "localhost", 0)
    reader, _ = await asyncio.open_connection(*server.sockets[0].getsockname()[:2])
    process = await asyncio.create_subprocess_exec("true")
    return await process.wait() + len(await reader.read())
total += asyncio.run(serve())
with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as one:
    one.bind(("::1", 0))
    one.sendto(b"x", one.getsockname())
    total += len(one.recv(10))
print(json.dumps(total))
"""
    assert cell.python(code) == 206


def test_names_and_addresses_are_looked_up_without_services(cell: Cell) -> None:
    """Unix sockets of name services are refused, and the lookups go on: /etc/hosts, /etc/passwd, numeric addresses."""
    code = (
        "import json, os, pwd, socket; print(json.dumps([socket.getaddrinfo('localhost', 80)[0][4][0],"
        " socket.getaddrinfo('3.120.0.10', 80)[0][4][0], pwd.getpwuid(os.getuid()).pw_name]))"
    )
    found = cell.python(code)
    assert found[0] in ("127.0.0.1", "::1")
    assert found[1:] == ["3.120.0.10", "nobody"]


def test_a_filter_that_does_not_refuse_is_found_out() -> None:
    """Loading is not believed: here nothing was loaded, and the same check that every executor passes fails."""
    for unix_sockets in (False, True):
        with pytest.raises(HostError, match="does not refuse"):
            syscalls._check(unix_sockets)
