"""Many flows at once, full tables, ports used again: an accepted connection's record is always its own client's."""

from __future__ import annotations

import errno
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from enforcer.capture import abi, sysbpf
from enforcer.capture.original_dst import flow_record
from enforcer.capture.sysbpf import Map
from tests.fixtures.kernel import EMULATED, PATIENCE, Executor, Kernel, destination

pytestmark = pytest.mark.kernel

# An emulated machine takes minutes for what is a second elsewhere.
OPEN_AT_ONCE, PER_THREAD, USED_AGAIN = (1000, 50, 200) if EMULATED else (10000, 250, 1000)
# What a client says first: the port and the IPv4 address that it asked for.
TAG = struct.Struct("!4sH")


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """This process keeps what it accepts, and a shell's limit is 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Accepting:
    """Accepts in the background at an executor's listener, and compares every record with what its client says it
    asked."""

    def __init__(self, executor: Executor) -> None:
        self.wrong: list[str] = []
        self.unmapped = self.right = 0
        self._executor = executor
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Accepting:
        self._executor.listener4.settimeout(0.05)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def wait_for(self, count: int) -> None:
        """Until it has judged as many."""
        deadline = time.monotonic() + PATIENCE
        while self.right + self.unmapped + len(self.wrong) < count and time.monotonic() < deadline:
            time.sleep(0.01)

    def _run(self) -> None:
        with ExitStack() as kept:
            while True:
                try:
                    accepted, _ = self._executor.listener4.accept()
                except TimeoutError:
                    if self._stop.is_set():
                        return
                    continue
                self._judge(kept.enter_context(accepted))

    def _judge(self, accepted: socket.socket) -> None:
        record = flow_record(accepted)
        accepted.settimeout(5)
        tag = accepted.recv(TAG.size)
        if record is None:
            self.unmapped += 1
            accepted.close()
        elif len(tag) == TAG.size:
            address, port = TAG.unpack(tag)
            asked = f"{socket.inet_ntoa(address)} {port}"
            accepted.send(b"k")
            mine = record.executor == self._executor.cgroup_id and record.netns == self._executor.cookie
            if destination(record) == asked and mine:
                self.right += 1
            else:
                self.wrong.append(f"{asked} -> {destination(record)}")


SAY = """
def say(sock, address, port):
    sock.sendall(struct.pack("!4sH", socket.inet_aton(address), port))
"""


def test_ten_thousand_open_connections_keep_their_destinations(kernel: Kernel) -> None:
    """10,000 connections open at once, each to another destination: every record is its own, and all are forgotten."""
    before = kernel.tables.open_flows()
    with kernel.executor() as executor:
        with Accepting(executor) as accepting:
            answer = executor.run(
                f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (20000, 20000))\ncount = {OPEN_AT_ONCE}"
                + SAY
                + """
                socks = []
                for number in range(count):
                    address, port = f"52.{number >> 8}.{number & 255}.7", 1000 + number
                    sock = socket.create_connection((address, port), 5)
                    say(sock, address, port)
                    socks.append(sock)
                answer["open"] = len(socks)
                """.replace("\n                ", "\n")
            )
        assert answer == {"open": OPEN_AT_ONCE}
        assert (accepting.right, accepting.wrong, accepting.unmapped) == (OPEN_AT_ONCE, [], 0)
        executor.run("for sock in socks: sock.close()")
        assert kernel.tables.open_flows() == before


def test_threads_that_connect_at_once_do_not_mix(kernel: Kernel) -> None:
    """Threads of one process dialling different places as fast as they can: no record is another's."""
    with kernel.executor() as executor, Accepting(executor) as accepting:
        executor.run(
            f"count = {PER_THREAD}"
            + SAY
            + """
            def dial(thread):
                for number in range(count):
                    address, port = f"8.{thread}.{number}.1", 2000 + number
                    with socket.create_connection((address, port), 5) as sock:
                        say(sock, address, port)
                        sock.recv(1)
            threads = [threading.Thread(target=dial, args=(number,)) for number in range(8)]
            for thread in threads: thread.start()
            for thread in threads: thread.join()
            """.replace("\n            ", "\n")
        )
    assert (accepting.right, accepting.wrong, accepting.unmapped) == (8 * PER_THREAD, [], 0)


def test_a_source_port_used_again_brings_its_new_destination(kernel: Kernel) -> None:
    """One source port, bound again and again, resets in between, two destinations in turn: the record is always the
    new one."""
    with kernel.executor() as executor, Accepting(executor) as accepting:
        executor.run(
            f"count = {USED_AGAIN}"
            + SAY
            + """
            for number in range(count):
                address, port = (("3.120.0.10", 80), ("52.0.0.10", 443))[number % 2]
                sock = socket.socket()
                sock.setsockopt(1, socket.SO_REUSEADDR, 1)
                sock.setsockopt(1, socket.SO_LINGER, struct.pack("=ii", 1, 0))
                sock.bind(("127.0.0.1", 40000))
                sock.connect((address, port))
                say(sock, address, port)
                # The reset would throw away a tag that was not read yet.
                sock.recv(1)
                sock.close()
            """.replace("\n            ", "\n")
        )
    assert (accepting.right, accepting.wrong, accepting.unmapped) == (USED_AGAIN, [], 0)


def test_a_client_that_is_gone_before_it_is_accepted_is_known(kernel: Kernel) -> None:
    """Connect, send and close at once: what it sent has its destination, however late it is accepted, told once."""
    fire = """
        for port in (443, 80):
            sock = socket.create_connection(("3.120.0.10", port))
            sock.sendall(b"to %d" % port)
            sock.close()
    """
    with kernel.executor() as executor, kernel.counted() as moved:
        executor.run(fire)
        time.sleep(0.1)
        for port in (443, 80):
            accepted, record = executor.accept()
            with accepted:
                assert (destination(record), accepted.recv(10)) == (f"3.120.0.10 {port}", b"to %d" % port)
                assert flow_record(accepted) is None
    assert moved == {"REDIRECTED": 2, "MAPPED": 2, "UNMAPPED_NO_FLOW": 2}


def test_two_namespaces_with_one_tuple_are_two_flows(kernel: Kernel) -> None:
    """The same source port, the same listener port, another namespace: each listener gets its own executor's
    destination."""
    with kernel.executor() as one, kernel.executor() as other:
        port, listeners = 15998, []
        for executor in (one, other):
            listener = executor.bound(socket.AF_INET, "127.0.0.1", port, socket.SOCK_STREAM)
            listener.listen()
            kernel.tables.set_listener(executor.cookie, executor.cgroup_id, port)
            listeners.append(listener)
        for executor, address in ((one, "3.120.0.10"), (other, "52.0.0.10")):
            executor.run(f"sock = socket.socket()\nsock.bind(('127.0.0.1', 41000))\nsock.connect(({address!r}, 80))")
        for listener, executor, address in zip(listeners, (one, other), ("3.120.0.10", "52.0.0.10"), strict=True):
            accepted, peer = listener.accept()
            with accepted:
                assert peer == ("127.0.0.1", 41000)
                record = flow_record(accepted)
                assert record is not None
                assert (destination(record), record.executor) == (f"{address} 80", executor.cgroup_id)


def test_with_the_table_of_flows_full_new_ones_have_no_destination(kernel: Kernel) -> None:
    """Full of others' flows: a new connection is accepted without a record, for the proxy to close; once there is
    room, flows are mapped again, and none ever got another's."""
    flows = Map(sysbpf.get_pinned(kernel.directory / "map_original_dst_by_tuple"), *_sizes())
    stuffed = stuff(flows)
    try:
        with kernel.executor() as executor:
            with Accepting(executor) as accepting, kernel.counted() as moved:
                executor.run(f"{SAY}\nsocks = [connect(2, '8.8.8.8', 1000 + n)[0] for n in range(50)]")
                executor.run("for n, sock in enumerate(socks): attempt(say, sock, '8.8.8.8', 1000 + n)")
                accepting.wait_for(50)
            assert (accepting.right, accepting.wrong, accepting.unmapped) == (0, [], 50)
            assert moved == {"REDIRECTED": 50, "UNMAPPED_TUPLE_FULL": 50, "UNMAPPED_NO_FLOW": 50}
            for key in stuffed[:100]:
                flows.delete(key)
            with Accepting(executor) as accepting:
                executor.run("sock = connect(2, '8.8.8.8', 99)[0]\nsay(sock, '8.8.8.8', 99)")
            assert (accepting.right, accepting.wrong, accepting.unmapped) == (1, [], 0)
    finally:
        for key in stuffed:
            flows.delete(key)
        flows.close()


def _sizes() -> tuple[int, int]:
    return len(bytes(abi.Tuple())), len(bytes(abi.FlowRecord()))


def stuff(flows: Map) -> list[bytes]:
    """Fills the table with flows of a namespace that does not exist, in one call; every key that it now has of
    those."""
    size = 262144
    keys = [bytes(abi.Tuple(netns=1, source_port=number & 0xFFFF, target_port=number >> 16)) for number in range(size)]
    room = size - len(flows.items())
    flows.update_batch(b"".join(keys[:room]), bytes(abi.FlowRecord()) * room, room)
    return keys[:room]


def test_a_nonblocking_connect_is_captured(kernel: Kernel) -> None:
    """EINPROGRESS, writable, no error: as without us, with its destination."""
    with kernel.executor() as executor, Accepting(executor) as accepting:
        answer = executor.run(
            SAY
            + """
            import select
            sock = socket.socket()
            sock.setblocking(False)
            answer["begun"] = sock.connect_ex(("8.8.8.8", 443))
            answer["writable"] = len(select.select([], [sock], [], 5)[1])
            answer["error"] = sock.getsockopt(1, 4)
            say(sock, "8.8.8.8", 443)
            """.replace("\n            ", "\n")
        )
    assert answer == {"begun": errno.EINPROGRESS, "writable": 1, "error": 0}
    assert (accepting.right, accepting.wrong) == (1, [])


def test_racing_families_each_arrive(kernel: Kernel) -> None:
    """Happy Eyeballs: IPv6 and IPv4 at the same time from one process; both are captured, and the loser's close harms
    nobody."""
    with kernel.executor() as executor:
        for number in range(50):
            executor.start(
                f"""
                socks = [socket.socket(10), socket.socket(2)]
                for sock, address in zip(socks, ("2a05:d014::1", "3.120.0.10")):
                    sock.setblocking(False)
                    sock.connect_ex((address, {1000 + number}))
                socks[{number % 2}].close()
                """
            )
            found = [executor.accept(family) for family in (6, 4)]
            executor.result()
            for accepted, _ in found:
                accepted.close()
            kept = found[1 - number % 2][1]
            expected = ("2a05:d014::1", "3.120.0.10")[1 - number % 2]
            assert destination(kept) == f"{expected} {1000 + number}"


@pytest.mark.parametrize("how", ["sendto", "TCP_FASTOPEN_CONNECT"])
def test_fast_open_brings_data_and_destination_together(kernel: Kernel, how: str) -> None:
    """Data with the SYN, by either call, a cookie known or not: accepted with its own destination each time."""
    with kernel.executor() as executor, Accepting(executor) as accepting:
        executor.run(
            f"""
            open("/proc/sys/net/ipv4/tcp_fastopen", "w").write("1539")
            for number in range(100):
                address, port = "8.8.8.8", 3000 + number
                tag = struct.pack("!4sH", socket.inet_aton(address), port)
                sock = socket.socket()
                if {how!r} == "sendto":
                    sock.sendto(tag, socket.MSG_FASTOPEN, (address, port))
                else:
                    sock.setsockopt(6, 30, 1)
                    sock.connect((address, port)), sock.send(tag)
                sock.shutdown(1)
            """
        )
    assert (accepting.right, accepting.wrong, accepting.unmapped) == (100, [], 0)


def test_refusals_beyond_the_queue_are_refused_and_counted(kernel: Kernel) -> None:
    """With the queue of refusals full, a refused connect() is refused all the same, and its event counted as lost."""
    with kernel.executor() as executor:
        kernel.tables.pop_refusals(10**6)
        with kernel.counted() as moved:
            answer = executor.run("answer['e'] = sorted({connect(2, '224.0.0.1', 80)[1] for _ in range(8200)})")
        kept = kernel.tables.pop_refusals(10**6)
        assert answer == {"e": [1]}
        # The kernel itself may have sent a packet meanwhile, such as the report of a multicast group.
        refused = 8200 + moved.pop("REFUSED_PACKET", 0)
        assert moved == {"REFUSED_REGION_CLASS": 8200, "REFUSAL_EVENT_LOST": refused - 8192}
        assert len(kept) == 8192
