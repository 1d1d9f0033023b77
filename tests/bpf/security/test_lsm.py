"""Security hooks: where the kernel takes them they refuse what no cgroup hook sees; where it does not, an executor gets
what anybody outside gets, and nothing is counted. Each attempt is made outside as well, and there it succeeds."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.capture import takeover
from enforcer.capture.unix_sockets import AllowedSockets
from tests.bpf.far import Far
from tests.bpf.security.conftest import ATTACHED, check
from tests.fixtures.kernel import Executor, Kernel, Process

pytestmark = pytest.mark.kernel

# (family, type, protocol); netlink's protocols are those of the packet filter and of IPsec.
SHUT = [(socket.AF_PACKET, 3, 0), (socket.AF_ALG, 5, 0), (socket.AF_VSOCK, 1, 0), (44, 3, 0), (30, 5, 0), (31, 3, 0),
        (29, 3, 1), (15, 3, 2), (socket.AF_NETLINK, 3, 12), (socket.AF_NETLINK, 3, 6)]  # fmt: skip
OPEN = [(1, 1, 0), (1, 2, 0), (1, 5, 0), (2, 1, 0), (10, 2, 0), *((16, 3, protocol) for protocol in (0, 4, 9, 15, 16))]
FAMILIES = "answer['all'] = [attempt(lambda: socket.socket(*one).close()) for one in {}]"
# Opens Unix servers at a path, in the abstract namespace and for datagrams; every one that speaks is heard.
SERVE = """
heard = []
def serve(path):
    for kind, address in ((1, path + "/stream"), (5, path + "/packets"), (2, path + "/datagrams"), (1, "\\0" + path)):
        sock = socket.socket(1, kind)
        sock.bind(address)
        if kind != 2:
            sock.listen(64)
        threading.Thread(target=hear, args=(sock, kind), daemon=True).start()
def hear(sock, kind):
    while True:
        client = sock if kind == 2 else sock.accept()[0]
        heard.append(client.recv(100).decode())
"""
SPEAK = """
def speak(path, text):
    found = {}
    for name, kind, address in (("stream", 1, path + "/stream"), ("packets", 5, path + "/packets"),
                                ("connected", 2, path + "/datagrams"), ("abstract", 1, "\\0" + path)):
        sock = socket.socket(1, kind)
        found[name] = attempt(sock.connect, address) or attempt(sock.send, text)
    sock = socket.socket(1, 2)
    found["sendto"] = attempt(sock.sendto, text, path + "/datagrams")
    return found
"""
WAYS = {"stream", "packets", "connected", "abstract", "sendto"}


def test_families(kernel: Kernel, executor: Executor, outsider: Process, in_force: bool) -> None:
    """IP, Unix and the netlink protocols that look things up; nothing else."""
    shut = FAMILIES.format([tuple(map(int, one)) for one in SHUT])
    outside = outsider.run(shut)["all"]
    assert outside[0] == 0
    with kernel.counted() as moved:
        inside = executor.run(shut)["all"]
    assert inside == ([errno.EPERM] * len(SHUT) if in_force else outside)
    check(kernel, executor, moved, "REFUSED_FAMILY", len(SHUT))
    with kernel.counted() as moved:
        assert (
            executor.run(FAMILIES.format(OPEN))["all"] == outsider.run(FAMILIES.format(OPEN))["all"] == [0] * len(OPEN)
        )
    assert moved == {}


RING = """
import mmap
def ring_socket(family):
    "IORING_OP_SOCKET, without socket(); see include/uapi/linux/io_uring.h."
    parameters = ctypes.create_string_buffer(120)
    ring = libc.syscall(425, 1, parameters)
    if ring < 0:
        return "no io_uring"
    sq, cq = struct.unpack_from("=10I", parameters, 40), struct.unpack_from("=10I", parameters, 80)
    shared = mmap.mmap(ring, max(sq[6] + 4, cq[5] + 32))
    entries = mmap.mmap(ring, 64, offset=0x10000000)
    entries[:] = struct.pack("=BBHiQQIIQ", 45, 0, 0, family, 3, 0, 0, 0, 1).ljust(64, b"\\0")
    struct.pack_into("=I", shared, sq[6], 0)
    struct.pack_into("=I", shared, sq[1], 1)
    libc.syscall(426, ring, 1, 1, 1, None, 0)
    result = struct.unpack_from("=i", shared, cq[5] + 8)[0]
    os.close(ring)
    return min(result, 0)
"""


def test_io_uring_makes_no_other_sockets(kernel: Kernel, executor: Executor, outsider: Process, in_force: bool) -> None:
    """A socket of another family made without socket() is refused like one made with it."""
    code = RING + "answer.update(unix=ring_socket(1), packet=ring_socket(17))"
    assert outsider.run(code) == {"unix": 0, "packet": 0}
    with kernel.counted() as moved:
        assert executor.run(code) == {"unix": 0, "packet": -errno.EPERM if in_force else 0}
    check(kernel, executor, moved, "REFUSED_FAMILY", 1)


def test_unix_sockets_of_the_host(
    kernel: Kernel, executor: Executor, outsider: Process, in_force: bool, tmp_path: Path
) -> None:
    """A server outside hears nothing of the executor, also by other names of its socket: moved, linked, abstract."""
    outsider.run(SERVE + f"serve({str(tmp_path)!r})")
    executor.run(SPEAK)
    with kernel.counted() as moved:
        answer = executor.run(f"answer.update(speak({str(tmp_path)!r}, b'executor'))")
    assert answer == dict.fromkeys(WAYS, errno.EPERM if in_force else 0)
    check(kernel, executor, moved, "REFUSED_UNIX", len(WAYS))
    os.link(tmp_path / "stream", tmp_path / "linked")
    (tmp_path / "symlinked").symlink_to(tmp_path / "linked")
    (tmp_path / "stream").rename(tmp_path / "moved")
    (tmp_path / "stream").symlink_to(tmp_path / "moved")
    names = [str(tmp_path / name) for name in ("linked", "symlinked", "moved")]
    answer = executor.run(f"answer['all'] = [attempt(socket.socket(1).connect, name) for name in {names}]")
    assert answer["all"] == [errno.EPERM if in_force else 0] * 3
    with kernel.outsider() as other:
        other.run(SPEAK)
        assert other.run(f"answer.update(speak({str(tmp_path)!r}, b'control'))") == dict.fromkeys(
            WAYS - {"abstract"}, 0
        ) | {
            "abstract": errno.ECONNREFUSED  # another network namespace
        }
    heard = outsider.run("time.sleep(0.2)\nanswer['heard'] = sorted(heard)")["heard"]
    assert [text for text in heard if text] == ["control"] * 4 + ([] if in_force else ["executor"] * 5)


def test_unix_sockets_of_another_executor(
    kernel: Kernel, host: int, executor: Executor, in_force: bool, tmp_path: Path
) -> None:
    """Executors do not reach each other, and each reaches itself."""
    with kernel.executor(mode=ATTACHED, netns=host) as other:
        other.run(SERVE + SPEAK + f"serve({str(tmp_path)!r})")
        executor.run(SPEAK)
        with kernel.counted() as moved:
            answer = executor.run(f"answer.update(speak({str(tmp_path)!r}, b'executor'))")
        assert answer == dict.fromkeys(WAYS, errno.EPERM if in_force else 0)
        check(kernel, executor, moved, "REFUSED_UNIX", len(WAYS))
        with kernel.counted() as moved:
            assert other.run(f"answer.update(speak({str(tmp_path)!r}, b'own'))") == dict.fromkeys(WAYS, 0)
        assert moved == {}


def test_who_is_outside_reaches_executors(executor: Executor, outsider: Process, tmp_path: Path) -> None:
    """The host speaks to an executor's servers as ever, and their answers come back over the connection."""
    executor.run(SERVE + f"serve({str(tmp_path)!r})")
    outsider.run(SPEAK)
    assert outsider.run(f"answer.update(speak({str(tmp_path)!r}, b'host'))") == dict.fromkeys(WAYS, 0)
    executor.run(
        f"server = socket.socket(1)\nserver.bind({str(tmp_path / 'asked')!r})\nserver.listen()\n"
        "def reply():\n    client = server.accept()[0]\n    client.send(client.recv(9) + b' heard')\n"
        "threading.Thread(target=reply).start()"
    )
    outsider.run(f"sock = socket.socket(1)\nsock.connect({str(tmp_path / 'asked')!r})\nsock.send(b'host')")
    assert outsider.run("answer['reply'] = sock.recv(99).decode()") == {"reply": "host heard"}


@pytest.fixture
def service(kernel: Kernel) -> Iterator[Process]:
    """A process in our own network namespace, as the supervisor and the host's services are in one."""
    netns = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        with kernel.outsider(netns) as process:
            yield process
    finally:
        os.close(netns)


def test_unix_sockets_that_are_allowed(
    kernel: Kernel, executor: Executor, service: Process, in_force: bool, tmp_path: Path
) -> None:
    """What the configuration names is reached, by whatever name; void once it does not; another socket in its place is
    not."""
    service.run(SERVE + f"serve({str(tmp_path)!r})")
    executor.run(SPEAK)
    speak = f"answer.update(speak({str(tmp_path)!r}, b'x'))"
    (tmp_path / "link").symlink_to(tmp_path / "datagrams")
    allowed = AllowedSockets([tmp_path / "stream", tmp_path / "link", tmp_path / "absent"], kernel.tables)
    allowed.look()
    assert allowed.labelled() == [str(tmp_path / "link"), str(tmp_path / "stream")]
    refused = errno.EPERM if in_force else 0
    assert executor.run(speak) == {
        "stream": 0,
        "connected": 0,
        "sendto": 0,
        "packets": refused,
        "abstract": errno.ECONNREFUSED,
    }
    (tmp_path / "stream").unlink()
    service.run(
        f"sock = socket.socket(1)\nsock.bind({str(tmp_path / 'stream')!r})\nsock.listen()\n"
        "threading.Thread(target=hear, args=(sock, 1), daemon=True).start()"
    )
    assert executor.run(speak)["stream"] == refused
    allowed.look()
    assert executor.run(speak)["stream"] == 0
    AllowedSockets([], kernel.tables).look()
    assert executor.run(speak) == dict.fromkeys(WAYS, refused) | {
        "abstract": errno.ECONNREFUSED
    }  # of another namespace


PASSED = "answer['all'] = [len(socket.recv_fds(channel, 1, 1)[1]) for _ in range({})]"


def test_sockets_from_outside_do_not_come_in(kernel: Kernel, executor: Executor, host: int, in_force: bool) -> None:
    """IP, Unix and other sockets made outside are not received; files are."""
    made = kernel_made(host)
    try:
        for sock in made:
            executor.give(sock)
        with kernel.counted() as moved:
            assert executor.run(PASSED.format(len(made)))["all"] == [0 if in_force else 1] * len(made)
        check(kernel, executor, moved, "REFUSED_FILE", len(made))
        with open("/dev/null", "rb") as file:  # noqa: PTH123 - a descriptor
            executor.give(file)  # type: ignore[arg-type]
            assert executor.run(PASSED.format(1))["all"] == [1]
    finally:
        for sock in made:
            sock.close()


def kernel_made(host: int) -> list[socket.socket]:
    """One socket each of our own, in the host's namespace."""
    from enforcer.capture.namespace import run_inside

    kinds = ((2, 1), (10, 2), (1, 1), (16, 3), (17, 3))
    return run_inside(host, lambda: [socket.socket(family, kind) for family, kind in kinds])


def test_an_executors_own_sockets_come_in(executor: Executor, tmp_path: Path) -> None:
    """Within an executor every kind of socket is passed on: made, accepted, of a pair; and comes back from outside."""
    answer = executor.run(
        f"""
        one, two = socket.socketpair()
        server = socket.create_server({str(tmp_path / "own")!r}, family=1)
        client = socket.socket(1)
        client.connect({str(tmp_path / "own")!r})
        tcp = socket.create_server(("127.0.0.1", 7301))
        answer["all"] = []
        for sock in (*socket.socketpair(1, 2), server, client, server.accept()[0], tcp, socket.socket(16, 3)):
            socket.send_fds(one, [b"x"], [sock.fileno()])
            answer["all"].append(len(socket.recv_fds(two, 1, 1)[1]))
        give(tcp)
        """
    )
    assert answer["all"] == [1] * 7
    with executor.take() as back:
        executor.give(back)
    assert executor.run(PASSED.format(1))["all"] == [1]


def test_inherited_sockets_are_not_used(
    kernel: Kernel, host: int, frankfurt: Far, in_force: bool, tmp_path: Path
) -> None:
    """What a process brought in with it sends nothing, until it is taken over; what was connected to a Unix socket
    outside still does, as standard output is."""
    server = frankfurt.listen(7302)
    with (
        kernel.slice() as home,
        kernel.executor(mode=ATTACHED, netns=host, home=home, listening=False) as executor,
    ):
        executor.run(
            f"tcp = socket.create_connection(('3.120.0.10', 7302))\nunix = socket.socket(1, 2)\n"
            f"peer = socket.socket(1, 2)\npeer.bind({str(tmp_path / 'peer')!r})\npair = socket.socketpair(1, 2)\n"
        )
        kernel.tables.set_executor(executor.cgroup_id, ATTACHED)
        with kernel.counted() as moved, server.accept()[0] as accepted:
            answer = executor.run(
                f"""
                answer["tcp"] = attempt(tcp.send, b"x")
                answer["write"] = attempt(os.write, tcp.fileno(), b"x")
                with open("/proc/self/exe", "rb") as file:
                    answer["sendfile"] = attempt(os.sendfile, tcp.fileno(), file.fileno(), 0, 1)
                answer["unix"] = attempt(unix.sendto, b"x", {str(tmp_path / "peer")!r})
                answer["connect"] = attempt(unix.connect, {str(tmp_path / "peer")!r})
                answer["pair"] = attempt(pair[0].send, b"x")
                """
            )
            refused = errno.EPERM if in_force else 0
            ways = ("tcp", "write", "sendfile", "unix", "connect")
            assert answer == dict.fromkeys(ways, refused) | {"pair": 0}
            with pytest.raises(BlockingIOError):
                accepted.recv(9, socket.MSG_DONTWAIT)
        check(kernel, executor, moved, "REFUSED_FILE", len(ways))
        takeover.take_over([executor.pid], executor.cgroup_id, kernel.tables.owners, kernel.tables.tasks)
        answer = executor.run(
            f"answer['unix'] = attempt(unix.connect, {str(tmp_path / 'peer')!r})\n"
            "answer['received'] = pair[1].recv(1).decode()"
        )
        assert answer == {"unix": 0, "received": "x"}
        kernel.tables.delete_executor(executor.cgroup_id)


def test_no_bpf(kernel: Kernel, executor: Executor, outsider: Process, in_force: bool) -> None:
    """bpf() is refused an executor's root, whatever it asks for; elsewhere a map is made."""
    create = "libc.syscall(321, 0, struct.pack('=IIIII', 2, 4, 4, 1, 0).ljust(120, b'\\0'), 120)"
    code = f"fd = {create}\nanswer['made'] = fd >= 0"
    assert outsider.run(code) == {"made": True}
    with kernel.counted() as moved:
        assert executor.run(code) == {"made": not in_force}
    check(kernel, executor, moved, "REFUSED_BPF", 1)
