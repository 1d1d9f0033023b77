"""Whose a socket is: decided when it is made, kept wherever it goes, and the deepest executor wins."""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from enforcer.capture import cgroup
from enforcer.capture.abi import ExecutorMode
from tests.bpf.far import Far
from tests.fixtures.kernel import Kernel, destination

pytestmark = pytest.mark.kernel

DIAL = "answer['errno'] = attempt(sock.connect, ('3.120.0.10', 5432))"
ATTACHED = ExecutorMode.ATTACHED


def test_a_socket_passed_out_of_the_executor_stays_the_executors(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A socket that the executor made is redirected to its listener also when a process outside connects it."""
    frankfurt.listen(5401)
    frankfurt.arrived()
    with kernel.executor(mode=ATTACHED, netns=host) as executor, kernel.outsider(host) as outsider:
        executor.run("give(socket.socket())")
        outsider.give(executor.take())
        with kernel.counted() as moved:
            answer = outsider.run("sock = take()\nanswer['errno'] = attempt(sock.connect, ('3.120.0.10', 5401))")
            accepted, record = executor.accept()
        with accepted:
            assert destination(record) == "3.120.0.10 5401"
            assert record is not None
            assert record.executor == executor.cgroup_id
        assert answer == {"errno": 0}
        assert moved == {"REDIRECTED": 1, "MAPPED": 1}
    assert frankfurt.arrived() == []


def test_a_socket_that_was_connected_outside_is_outsides(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """The limit of cgroup hooks: a connection made outside and passed in belongs to the cgroup that made it, whose
    process could as well have passed the bytes. The LSM hooks refuse to receive it, where the kernel has them."""
    server = frankfurt.listen(5402)
    with kernel.executor(mode=ATTACHED, netns=host) as executor, kernel.outsider(host) as outsider:
        outsider.run("sock = socket.create_connection(('3.120.0.10', 5402))\ngive(sock)")
        executor.give(outsider.take())
        with kernel.counted() as moved:
            executor.run("sock = take()\nsock.send(b'x')")
        with server.accept()[0] as accepted:
            assert accepted.recv(1) == b"x"
        assert moved == {}


def test_accepted_sockets_belong_to_their_listeners_executor(kernel: Kernel, host: int) -> None:
    """An accepted socket, passed outside and connected again there, is judged as the listener's executor's."""
    with kernel.executor(mode=ATTACHED, netns=host) as executor, kernel.outsider(host) as outsider:
        executor.run(
            """
            server = socket.create_server(("127.0.0.1", 7001))
            client = socket.create_connection(("127.0.0.1", 7001))
            accepted, _ = server.accept()
            client.close(), server.close()
            accepted.recv(1)
            give(accepted)
            accepted.close()
            """
        )
        outsider.give(executor.take())
        outsider.start(f"sock = take()\nlibc.connect(sock.fileno(), bytes(16), 16)\n{DIAL}")
        accepted, record = executor.accept()
        with accepted:
            assert record is not None
            assert (record.executor, destination(record)) == (executor.cgroup_id, "3.120.0.10 5432")
        assert outsider.result() == {"errno": 0}


def test_a_socket_older_than_its_executor_is_claimed_by_who_uses_it(kernel: Kernel, host: int) -> None:
    """A socket made before its cgroup was governed is redirected once it is: its next connect() is judged. The LSM
    hooks refuse it until the tree is taken over, where the kernel has them."""
    with (
        kernel.slice() as home,
        kernel.executor(mode=ATTACHED, netns=host, home=home, listening=False) as executor,
    ):
        executor.run("sock = socket.socket()")
        kernel.tables.set_executor(executor.cgroup_id, ATTACHED)
        kernel.tables.set_listener(executor.cookie, executor.cgroup_id, executor.port)
        executor.start(DIAL)
        accepted, record = executor.accept()
        with accepted:
            assert record is not None
            assert record.executor == executor.cgroup_id
        assert executor.result() == {"errno": 0}
        kernel.tables.delete_executor(executor.cgroup_id)
        kernel.tables.delete_listener(executor.cookie, executor.cgroup_id)


def test_an_old_socket_used_from_outside_sends_nothing(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A socket older than its executor has no owner when a process outside connects it: its SYN is dropped all the
    same, because the socket's own cgroup is the executor's."""
    frankfurt.listen(5403)
    frankfurt.arrived()
    with (
        kernel.slice() as home,
        kernel.executor(mode=ATTACHED, netns=host, home=home, listening=False) as executor,
        kernel.outsider(host) as outsider,
    ):
        executor.run("give(socket.socket())")
        outsider.give(executor.take())
        kernel.tables.set_executor(executor.cgroup_id, ATTACHED)
        kernel.tables.set_listener(executor.cookie, executor.cgroup_id, executor.port)
        with kernel.counted() as moved:
            answer = outsider.run(
                "sock = take()\nsock.settimeout(0.3)\nanswer['errno'] = attempt(sock.connect, ('3.120.0.10', 5403))"
            )
        assert answer["errno"] != 0
        assert moved.keys() == {"REFUSED_PACKET"}
        assert {refusal.reason for refusal in kernel.refusals(executor)} == {"REFUSED_PACKET"}
        kernel.tables.delete_executor(executor.cgroup_id)
        kernel.tables.delete_listener(executor.cookie, executor.cgroup_id)
    assert frankfurt.arrived() == []


def test_a_released_executor_is_as_free_as_before(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """Once it is deleted, sockets it made while governed and new ones go out directly, and nothing is counted."""
    server = frankfurt.listen(5404)
    with kernel.slice() as home, kernel.executor(mode=ATTACHED, netns=host, home=home) as executor:
        executor.run("old = socket.socket()")
        kernel.tables.delete_executor(executor.cgroup_id)
        with kernel.counted() as moved:
            executor.run("old.connect(('3.120.0.10', 5404))\nnew = socket.create_connection(('3.120.0.10', 5404))")
        for _ in range(2):
            server.accept()[0].close()
        assert moved == {}


def test_an_executor_that_is_gone_leaves_its_sockets_shut(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """Below `executors` nobody is free: an ended executor's socket, kept by a process outside, sends nothing."""
    frankfurt.listen(5405)
    frankfurt.arrived()
    with kernel.outsider(host) as outsider:
        with kernel.executor(mode=ATTACHED, netns=host) as executor:
            executor.run("give(socket.socket()), give(socket.socket(2, 2))")
            for _ in range(2):
                outsider.give(executor.take())
            outsider.run("stream, datagram = take(), take()\nstream.settimeout(0.3)")
        with kernel.counted() as moved:
            answer = outsider.run(
                """
                answer["stream"] = attempt(stream.connect, ("3.120.0.10", 5405))
                answer["datagram"] = attempt(datagram.sendto, b"x", ("3.120.0.10", 5405))
                """
            )
    assert answer["stream"] != 0
    assert answer["datagram"] == errno.EPERM
    assert moved.keys() == {"REFUSED_PACKET"}
    assert frankfurt.arrived() == []


def test_a_pending_cgroup_is_refused_everything(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A cgroup that is known to be governed but not yet as what: connect and sendmsg get EPERM, each with an event."""
    frankfurt.arrived()
    with kernel.executor(mode=ExecutorMode.REFUSED, netns=host) as executor:
        with kernel.counted() as moved:
            answer = executor.run(
                """
                for family, address in ((2, "3.120.0.10"), (10, "2a05:d014::10"), (2, "127.0.0.1")):
                    answer[address] = connect(family, address, 80)[1]
                    answer["UDP " + address] = attempt(socket.socket(family, 2).sendto, b"x", (address, 53))
                """
            )
        assert set(answer.values()) == {errno.EPERM}
        assert moved == {"REFUSED_PENDING": 6}
        assert [refusal.reason for refusal in kernel.refusals(executor)] == ["REFUSED_PENDING"] * 6
    assert frankfurt.arrived() == []


def nest(executor_path: Path, pid: int, *names: str) -> Path:
    path = executor_path.joinpath(*names)
    path.mkdir(parents=True)
    cgroup.join(path, pid)
    return path


def test_nested_cgroups_belong_to_the_executor(kernel: Kernel) -> None:
    """A cgroup that a process makes below its own and moves to changes nothing."""
    with kernel.executor() as executor:
        nest(executor.path, executor.pid, "a", "b", "c")
        executor.start(f"sock = socket.socket()\n{DIAL}")
        accepted, record = executor.accept()
        with accepted:
            assert record is not None
            assert record.executor == executor.cgroup_id


def test_the_deepest_executor_wins(kernel: Kernel, host: int) -> None:
    """An executor inside another's cgroup has its own listener, and the outer one's is not used."""
    with kernel.executor(mode=ATTACHED, netns=host) as outer:
        (outer.path / "x").mkdir()
        with kernel.executor(mode=ATTACHED, netns=host, home=outer.path / "x") as inner:
            inner.start(f"sock = socket.socket()\n{DIAL}")
            accepted, record = inner.accept()
            with accepted:
                assert record is not None
                assert record.executor == inner.cgroup_id
            inner.result()


def test_levels_that_are_not_watched_are_not_looked_at(kernel: Kernel, host: int) -> None:
    """An executor below a level that nobody watches is its parent's: unwatched means governed by what is above, never
    free."""
    with kernel.executor(mode=ATTACHED, netns=host) as outer:
        deep = nest(outer.path, outer.pid, *"abcdefghij")
        assert cgroup.level(deep) > 10
        kernel.tables.set_executor(cgroup.cgroup_id(deep), ExecutorMode.REFUSED)
        outer.start(f"sock = socket.socket()\n{DIAL}")
        accepted, record = outer.accept()
        with accepted:
            assert record is not None
            assert record.executor == outer.cgroup_id
        outer.result()
        kernel.tables.watch_level(cgroup.level(deep))
        assert outer.run(f"sock = socket.socket()\n{DIAL}") == {"errno": errno.EPERM}
        kernel.tables.delete_executor(cgroup.cgroup_id(deep))


def test_who_is_not_governed_is_not_touched(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A process in a cgroup that has the hooks but is no executor: TCP, UDP, raw sockets and options as without
    them."""
    server = frankfurt.listen(5406)
    frankfurt.arrived()
    with kernel.slice() as path, kernel.outsider(host, path) as outsider:
        with kernel.counted() as moved:
            answer = outsider.run(
                """
                tcp = socket.create_connection(("3.120.0.10", 5406))
                tcp.send(b"hello")
                socket.socket(2, 2).sendto(b"x", ("3.120.0.10", 53))
                raw = socket.socket(2, 3, 1)
                raw.sendto(bytes.fromhex("0800f7ff00000000"), ("3.120.0.10", 0))
                tcp.setsockopt(0, 4, b"\\x01\\x01\\x01\\x00")
                answer["peer"] = tcp.getpeername()
                """
            )
        with server.accept()[0] as accepted:
            assert accepted.recv(5) == b"hello"
        assert answer == {"peer": ["3.120.0.10", 5406]}
        assert moved == {}
    arrived = frankfurt.arrived()
    assert {"TCP 5406 SYN", "UDP 53", "ICMP 8"} <= set(arrived)


def test_a_thread_elsewhere_changes_nothing(kernel: Kernel, host: int) -> None:
    """Whose a socket is does not follow user, name or thread of who uses it."""
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        executor.start(
            """
            libc.prctl(15, b"enforcer", 0, 0, 0)
            os.setresuid(65534, 65534, 65534)
            socks = [socket.socket()]
            thread = threading.Thread(target=lambda: socks[0].connect(("3.120.0.10", 80)))
            thread.start(), thread.join()
            """
        )
        accepted, record = executor.accept()
        with accepted:
            assert record is not None
            assert (record.executor, record.uid) == (executor.cgroup_id, 65534)
        with suppress(OSError, socket.timeout):
            executor.result()
