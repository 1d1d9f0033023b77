"""Direct flows: what a rule lets past the proxy goes to the real far side, is recorded from the kernel's own counts,
and stops when nobody could record it."""

from __future__ import annotations

import errno
import socket
import struct
import time
from collections.abc import Callable, Iterator

import pytest

from enforcer.capture import takeover
from enforcer.capture.abi import ExecutorMode, FlowPath
from enforcer.capture.generation import AudienceEntry, DirectPlan
from enforcer.capture.sysbpf import Map
from enforcer.capture.tables import DirectEvent
from tests.bpf.conftest import TABLE
from tests.bpf.far import Far
from tests.fixtures.kernel import PATIENCE, Executor, Kernel, Prefixes, destination, fill_queue

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
RULE = 42
FRANKFURT4, FRANKFURT6 = 8, 17  # region sets of the table
AUDIENCE = 5
DIRECT = {
    (AUDIENCE, FRANKFURT4): ((6000, 6099, RULE), (6200, 6200, RULE + 1)),
    (AUDIENCE, FRANKFURT6): ((6000, 6099, RULE),),
}
FORMS = {"IPv4": (2, "3.120.0.10"), "IPv6": (10, "2a05:d014::10"), "mapped": (10, "::ffff:3.120.0.10")}


@pytest.fixture
def executor(kernel: Kernel, host: int) -> Iterator[Executor]:
    """An attached executor that some rule lets go directly to Frankfurt; nobody accepts at its listener unless asked
    to."""
    kernel.tables.pop_direct_events(10**6)
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        kernel.tables.beat(3600)
        with kernel.planned(DirectPlan({executor.cgroup_id: AudienceEntry(AUDIENCE)}, DIRECT)):
            yield executor
    kernel.tables.beat(0)


def events_of(kernel: Kernel, executor: Executor, count: int) -> list[DirectEvent]:
    """The next `count` events of the executor."""
    found: list[DirectEvent] = []
    deadline = time.monotonic() + PATIENCE
    while len(found) < count:
        assert time.monotonic() < deadline, f"{len(found)} events of {count}"
        found += [event for event in kernel.tables.pop_direct_events(1000) if event.executor == executor.cgroup_id]
    return found


@pytest.mark.parametrize("form", FORMS)
def test_a_direct_flow_reaches_the_far_side_itself(
    kernel: Kernel, executor: Executor, frankfurt: Far, form: str
) -> None:
    """The far side accepts from the host's own address, the peer is the real one, the listener sees nothing, and the
    beginning says who, where and by which rule."""
    family, address = FORMS[form]
    server = frankfurt.listen(6000)
    with kernel.counted() as moved:
        found = executor.run(
            f"""
            sock, answer["errno"] = connect({family}, {address!r}, 6000)
            answer["peer"] = sock.getpeername()[:2]
            sock.send(b"hello")
            answer["pid"] = os.getpid()
            """
        )
        accepted, source = server.accept()
    with accepted, server:
        assert accepted.recv(5) == b"hello"
        assert source[0] == ("2a05:d014::1" if form == "IPv6" else "::ffff:3.120.0.1")
    assert (found["errno"], found["peer"]) == (0, [address, 6000])
    assert moved == {"DIRECT_PASSED": 1}
    [event] = events_of(kernel, executor, 1)
    assert str(event.destination) == ("[2a05:d014::10]:6000" if form == "IPv6" else "3.120.0.10:6000")
    assert (event.rule, event.ended, event.pid, event.uid) == (RULE, False, found["pid"], 0)
    assert event.region_set == (FRANKFURT6 if form == "IPv6" else FRANKFURT4)
    assert event.generation == kernel.tables.generation
    assert 0 < event.opened_ns == event.time_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def read_all(sock: socket.socket) -> int:
    total = 0
    while data := sock.recv(1 << 16):
        total += len(data)
    return total


def reset(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
    sock.close()


UP, DOWN = 1_000_003, 300_007
TRANSFER = """
sock = socket.create_connection(place)
def read(size):
    total = 0
    while total != size and (data := sock.recv(1 << 16)):
        total += len(data)
    answer["down"] = total
sock.sendall(bytes(UP))
"""


def read_exactly(sock: socket.socket, size: int) -> int:
    total = 0
    while total < size:
        total += len(sock.recv(1 << 16))
    return total


def client_first(far: socket.socket) -> int:
    far.sendall(bytes(DOWN))
    return read_all(far)


def server_first(far: socket.socket) -> int:
    far.sendall(bytes(DOWN))
    received = read_exactly(far, UP)
    far.shutdown(socket.SHUT_WR)
    return received


def half_closed(far: socket.socket) -> int:
    received = read_all(far)
    far.sendall(bytes(DOWN))
    far.close()
    return received


def reset_by_far(far: socket.socket) -> int:
    far.sendall(bytes(DOWN))
    received = read_exactly(far, UP)
    # Lets the executor read what a reset would throw away.
    time.sleep(0.3)
    reset(far)
    return received


# What the executor does after it has sent, and what the far side does, which returns how much it received.
ENDS: dict[str, tuple[str, Callable[[socket.socket], int]]] = {
    "client first": ("read(DOWN)\nsock.close()", client_first),
    "server first": ("read(None)\nsock.close()", server_first),
    "half closed": ("sock.shutdown(1)\nread(None)\nsock.close()", half_closed),
    "reset by the far side": ("read(DOWN)\nattempt(sock.recv, 1)", reset_by_far),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("address", ["3.120.0.10", "2a05:d014::10"])
def test_the_end_of_a_direct_flow_says_what_went_over_it(
    kernel: Kernel, executor: Executor, frankfurt: Far, end: str, address: str
) -> None:
    """Bytes up are what the far side received, bytes down what the client read, to the byte, whoever ends it and how;
    the times enclose the flow."""
    code, far_end = ENDS[end]
    with frankfurt.listen(6001) as server:
        executor.start(f"DOWN, UP, place = {DOWN}, {UP}, ({address!r}, 6001)\n{TRANSFER}{code}")
        accepted, _ = server.accept()
        with accepted:
            accepted.settimeout(PATIENCE)
            received = far_end(accepted)
            read = executor.result()["down"]
            begun, ended = events_of(kernel, executor, 2)
    assert (received, read) == (UP, DOWN)
    assert (begun.ended, ended.ended) == (False, True)
    assert (ended.bytes_up, ended.bytes_down) == (UP, DOWN)
    assert (ended.cookie, ended.rule, ended.opened_ns) == (begun.cookie, begun.rule, begun.opened_ns)
    assert begun.time_ns < ended.time_ns <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def test_a_direct_flow_that_nobody_answers_ends_empty(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """Connection refused at the far side: a beginning and an end, with no bytes."""
    assert executor.run("answer['e'] = connect(2, '3.120.0.10', 6002)[1]") == {"e": errno.ECONNREFUSED}
    _, ended = events_of(kernel, executor, 2)
    assert (ended.ended, ended.bytes_up, ended.bytes_down) == (True, 0, 0)


def test_other_ports_and_places_go_to_the_listener(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """Beside the ranges, at another region, over UDP: as without the rule; the range's own edges and the second range
    are in."""
    frankfurt.listen(6099), frankfurt.listen(6200), frankfurt.listen(6100)
    frankfurt.arrived()
    kernel.tables.pop_direct_events(10**6)
    places = (
        ("3.120.0.10", 5999),
        ("3.120.0.10", 6100),
        ("3.120.0.10", 6199),
        ("3.121.0.1", 6000),
        ("52.0.0.10", 6000),
    )
    with kernel.counted() as moved:
        executor.start(f"socks = [socket.create_connection(place, 5) for place in {places!r}]")
        for address, port in places:
            accepted, record = executor.accept()
            with accepted:
                assert destination(record) == f"{address} {port}"
                assert record is not None
                assert record.path == FlowPath.PROXY
        executor.result()
        answer = executor.run(
            """
            answer["udp"] = attempt(socket.socket(2, 2).sendto, b"x", ("3.120.0.10", 6000))
            answer["edges"] = [connect(2, "3.120.0.10", port)[1] for port in (6099, 6200)]
            """
        )
    assert answer == {"udp": errno.EPERM, "edges": [0, 0]}
    assert moved == {"REDIRECTED": 5, "MAPPED": 5, "REFUSED_UDP": 1, "DIRECT_PASSED": 2}
    # The process let go of both sockets, so that each has ended too.
    assert {(event.destination.port, event.rule) for event in events_of(kernel, executor, 4)} == {
        (6099, RULE),
        (6200, RULE + 1),
    }
    assert {line.split()[1] for line in frankfurt.arrived()} == {"6099", "6200"}


def test_another_executor_has_other_rules(kernel: Kernel, executor: Executor, host: int) -> None:
    """Who is not of the audience goes to its listener with the same destination."""
    with kernel.executor(mode=ATTACHED, netns=host) as other:
        other.start("kept = connect(2, '3.120.0.10', 6000)")
        accepted, record = other.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 6000"


def test_an_executor_may_join_an_audience_later(kernel: Kernel, executor: Executor, host: int, frankfurt: Far) -> None:
    """An executor that starts after the generation was built gets its entry into the one in force."""
    frankfurt.listen(6003)
    with kernel.executor(mode=ATTACHED, netns=host) as other:
        kernel.tables.set_audience(other.cgroup_id, AudienceEntry(AUDIENCE))
        assert other.run("answer['e'] = connect(2, '3.120.0.10', 6003)[1]") == {"e": 0}


def test_isolated_executors_take_the_proxy(kernel: Kernel) -> None:
    """An isolated executor has no route: what could go directly goes to its listener."""
    with (
        kernel.executor() as executor,
        kernel.planned(DirectPlan({executor.cgroup_id: AudienceEntry(AUDIENCE)}, DIRECT)),
    ):
        executor.start("kept = connect(2, '3.120.0.10', 6000)")
        accepted, record = executor.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 6000"


def test_a_new_generation_ends_the_rule(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """After a swap to a plan without it, the same destination goes to the listener; after a swap to a table that has
    another region there, too; and back."""
    frankfurt.listen(6004)
    # Kept open: the kernel forgets where a closed one was going.
    dial = "sock, answer['e'] = connect(2, '3.120.0.10', 6004)"
    assert executor.run(dial) == {"e": 0}
    plan = kernel.plan
    for change in ("plan", "table"):
        kernel.plan = DirectPlan() if change == "plan" else plan
        kernel.load(Prefixes({"3.120.0.0/24": 55}) if change == "table" else TABLE)
        executor.start(dial)
        accepted, record = executor.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 6004"
        executor.result()
    kernel.load(TABLE)
    with kernel.counted() as moved:
        assert executor.run(dial) == {"e": 0}
    assert moved == {"DIRECT_PASSED": 1}


def test_without_a_heartbeat_direct_flows_stop(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """A silent supervisor: new ones are refused at once, the packets of open ones dropped, and both go on when it
    beats."""
    server = frankfurt.listen(6005)
    executor.run("sock = connect(2, '3.120.0.10', 6005)[0]\nsock.send(b'a')")
    accepted, _ = server.accept()
    with accepted:
        assert accepted.recv(9) == b"a"
        events_of(kernel, executor, 1)
        kernel.refusals(executor)
        frankfurt.arrived()
        kernel.tables.beat(0)
        with kernel.counted() as moved:
            answer = executor.run("answer['e'] = connect(2, '3.120.0.10', 6005)[1]\nsock.send(b'late')")
            accepted.settimeout(0.3)
            with pytest.raises(TimeoutError):
                accepted.recv(9)
        assert answer == {"e": errno.EPERM}
        assert moved.keys() == {"REFUSED_STALE"}
        assert moved["REFUSED_STALE"] >= 2
        assert {one.reason for one in kernel.refusals(executor)} == {"REFUSED_STALE"}
        assert frankfurt.arrived() == []
        assert kernel.tables.pop_direct_events(10) == []
        kernel.tables.beat(3600)
        accepted.settimeout(PATIENCE)
        assert accepted.recv(9) == b"late"
        assert executor.run("answer['e'] = connect(2, '3.120.0.10', 6005)[1]") == {"e": 0}


def test_the_proxys_flows_need_no_heartbeat(kernel: Kernel, executor: Executor) -> None:
    """What goes to the listener is judged there, however silent the supervisor is."""
    kernel.tables.beat(0)
    executor.start("kept = connect(2, '52.0.0.10', 80)")
    accepted, record = executor.accept()
    accepted.close()
    assert destination(record) == "52.0.0.10 80"


def test_a_flow_that_cannot_be_recorded_does_not_begin(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """With the queue of direct events full, connect() gets EPERM and nothing arrives; once it is read, flows begin
    again."""
    frankfurt.listen(6006)
    frankfurt.arrived()
    fill_queue(kernel, "direct_events")
    with kernel.counted() as moved:
        assert executor.run("answer['e'] = connect(2, '3.120.0.10', 6006)[1]") == {"e": errno.EPERM}
    assert moved == {"REFUSED_UNRECORDED": 1}
    assert [one.reason for one in kernel.refusals(executor)] == ["REFUSED_UNRECORDED"]
    assert frankfurt.arrived() == []
    kernel.tables.pop_direct_events(10**6)
    assert executor.run("answer['e'] = connect(2, '3.120.0.10', 6006)[1]") == {"e": 0}


def test_an_end_that_cannot_be_queued_is_counted(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """A flow that ends while the queue is full: its end is counted as lost."""
    frankfurt.listen(6007)
    executor.run("sock = connect(2, '3.120.0.10', 6007)[0]\nsock.setsockopt(1, 13, struct.pack('=ii', 1, 0))")
    fill_queue(kernel, "direct_events")
    with kernel.counted() as moved:
        executor.run("sock.close()")
    kernel.tables.pop_direct_events(10**6)
    assert moved == {"DIRECT_EVENT_LOST": 1}


def test_a_direct_socket_connected_again_is_judged_again(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """connect(AF_UNSPEC) ends the direct flow, with its event; the next destination goes to the listener, and back."""
    with frankfurt.listen(6008) as server:
        executor.run("sock = connect(2, '3.120.0.10', 6008)[0]\nsock.send(b'abc')")
        with server.accept()[0] as accepted:
            assert accepted.recv(3) == b"abc"
        executor.start("libc.connect(sock.fileno(), bytes(16), 16)\nsock.connect(('52.0.0.10', 80))")
        proxied, record = executor.accept()
        with proxied:
            assert destination(record) == "52.0.0.10 80"
        _, ended = events_of(kernel, executor, 2)
        assert (ended.ended, ended.bytes_up) == (True, 3)
        executor.result()
        assert executor.run(
            "libc.connect(sock.fileno(), bytes(16), 16)\nanswer['e'] = attempt(sock.connect, ('3.120.0.10', 6008))"
        ) == {"e": 0}


def test_what_a_socket_was_connected_to_covers_nothing_that_it_accepts(
    kernel: Kernel, executor: Executor, frankfurt: Far
) -> None:
    """A direct flow's socket that ends it and listens instead: who connects to it then, from that very place, gets no
    byte, and no event tells of another flow."""
    with frankfurt.listen(6010) as server:
        executor.run("sock = connect(2, '3.120.0.10', 6010)[0]")
        reset(server.accept()[0])
    executor.run(
        """
        libc.connect(sock.fileno(), bytes(16), 16)
        sock.bind(("0.0.0.0", 6011))
        sock.listen()
        sock.settimeout(None)
        def serve():
            client, _ = sock.accept()
            client.sendall(b"secret")
        threading.Thread(target=serve, daemon=True).start()
        """
    )

    def ask() -> bytes:
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("3.120.0.10", 6010))
            sock.settimeout(0.5)
            try:
                sock.connect(("3.120.0.1", 6011))
                return sock.recv(6)
            except OSError:
                return b""

    events_of(kernel, executor, 2)
    with kernel.counted() as moved:
        assert frankfurt.inside(ask) == b""
    assert moved.keys() == {"REFUSED_PACKET"}
    assert [one for one in kernel.tables.pop_direct_events(1000) if one.executor == executor.cgroup_id] == []


def test_a_flow_that_begins_as_its_socket_is_labelled_goes_on(
    kernel: Kernel, executor: Executor, frankfurt: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The supervisor finds a socket without an owner; it is connected before the label is written: its flow stays."""
    with frankfurt.listen(6012) as server:
        executor.run("sock = connect(2, '3.120.0.10', 6012)[0]")
        with monkeypatch.context() as patch:
            patch.setattr(Map, "lookup", lambda *_: None)
            takeover.recognise([executor.pid], executor.cgroup_id, kernel.tables.owners, kernel.tables.tasks)
        executor.run("sock.send(b'after')")
        with server.accept()[0] as accepted:
            accepted.settimeout(PATIENCE)
            assert accepted.recv(5) == b"after"


def test_a_released_executors_direct_flow_goes_on(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """Its connections are its own once it is given back, heartbeat or not."""
    server = frankfurt.listen(6009)
    kernel.tables.beat(3600)
    with kernel.slice() as home, kernel.executor(mode=ATTACHED, netns=host, home=home) as executor:
        with kernel.planned(DirectPlan({executor.cgroup_id: AudienceEntry(AUDIENCE)}, DIRECT)):
            executor.run("sock = connect(2, '3.120.0.10', 6009)[0]")
        kernel.tables.delete_executor(executor.cgroup_id)
        kernel.tables.beat(0)
        executor.run("sock.send(b'free')")
        with server.accept()[0] as accepted:
            accepted.settimeout(PATIENCE)
            assert accepted.recv(4) == b"free"


@pytest.mark.parametrize("form", FORMS)
def test_questions_never_go_directly(kernel: Kernel, host: int, form: str) -> None:
    """Port 53 is the resolver's, also over TCP and where a direct rule covers it: the connection goes to the proxy,
    which hands it on."""
    family, address = FORMS[form]
    ranges = {(AUDIENCE, FRANKFURT4): ((1, 65535, RULE),), (AUDIENCE, FRANKFURT6): ((1, 65535, RULE),)}
    with kernel.executor(mode=ATTACHED, netns=host, resolver=True) as executor:
        kernel.tables.beat(3600)
        plan = DirectPlan({executor.cgroup_id: AudienceEntry(AUDIENCE)}, ranges)
        with kernel.planned(plan), kernel.counted() as moved:
            executor.start(f"sock, answer['errno'] = connect({family}, {address!r}, 53)")
            accepted, record = executor.accept(6 if form == "IPv6" else 4)
            accepted.close()
            assert executor.result() == {"errno": 0}
    kernel.tables.beat(0)
    assert record is not None
    assert record.path == FlowPath.PROXY
    assert (moved["REDIRECTED"], moved.get("DIRECT_PASSED", 0)) == (1, 0)
