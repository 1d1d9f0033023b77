"""Executors beside each other and beside ungoverned processes in one network namespace: nobody reaches what is not
his."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from enforcer.capture.abi import ExecutorMode, FlowPath
from enforcer.capture.generation import AudienceEntry, DirectPlan
from tests.fixtures.kernel import Executor, Kernel, Process, destination

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
# TCP and UDP servers on one port of every address that FORMS come to; what they hear is in `heard`.
SERVE = """
heard = []
def serve(port, *options, addresses=("127.0.0.1", "127.8.9.9", "::1")):
    for address in addresses:
        for kind in (1, 2):
            sock = socket.socket(10 if ":" in address else 2, kind)
            for option in options:
                sock.setsockopt(1, option, 1)
            sock.bind((address, port))
            if kind == 1:
                sock.listen(64)
            threading.Thread(target=hear, args=(sock, kind), daemon=True).start()
def hear(sock, kind):
    while True:
        try:
            if kind == 1:
                client, _ = sock.accept()
                heard.append(client.recv(100).decode())
                client.sendall(b"tcp answer"), client.close()
            else:
                data, peer = sock.recvfrom(100)
                heard.append(data.decode())
                sock.sendto(b"udp answer", peer)
        except OSError:
            heard.append("refused")
"""
# Says `text` to a port on every spelling of loopback, with every call; the errno or the answer of each. `patience`:
# seconds for a datagram's answer; `tcp`: for a connection and its answer.
FORMS = """
FORMS = ((2, "127.0.0.1"), (2, "127.8.9.9"), (2, "0.0.0.0"), (10, "::1"), (10, "::"), (10, "::ffff:127.0.0.1"))
def say(port, text, patience=5, forms=FORMS, tcp=20):
    found = {}
    for family, address in forms:
        for kind in ("tcp", "connected", "sendto", "sendmsg"):
            sock = socket.socket(family, 1 if kind == "tcp" else 2)
            sock.settimeout(tcp if kind == "tcp" else patience)
            try:
                if kind in ("tcp", "connected"):
                    sock.connect((address, port))
                    sock.send(text)
                elif kind == "sendto":
                    sock.sendto(text, (address, port))
                else:
                    sock.sendmsg([text], [], 0, (address, port))
                found[kind + " " + address] = sock.recv(100).decode()
            except OSError as error:
                found[kind + " " + address] = error.errno or "timed out"
            sock.close()
    return found
"""
ALL_FORMS = 24


@pytest.fixture
def pair(kernel: Kernel, host: int) -> Iterator[tuple[Executor, Executor]]:
    with (
        kernel.executor(mode=ATTACHED, netns=host) as one,
        kernel.executor(mode=ATTACHED, netns=host) as other,
    ):
        yield one, other


@pytest.fixture
def neighbour(kernel: Kernel, host: int) -> Iterator[Process]:
    with kernel.outsider(host) as outsider:
        yield outsider


def test_flows_of_two_executors_never_mix(pair: tuple[Executor, Executor]) -> None:
    """Two executors that dial the same destinations at once: each listener gets its own executor's flows and no
    other."""
    count = 200
    for executor in pair:
        executor.start(
            f"""
            socks = [socket.create_connection(("3.120.0.10", 10000 + port), 5) for port in range({count})]
            for port, sock in enumerate(socks):
                sock.send(struct.pack("=QI", {executor.cgroup_id}, 10000 + port))
            """
        )
    for executor in pair:
        asked = set()
        for _ in range(count):
            accepted, record = executor.accept()
            with accepted:
                ident, port = int.from_bytes(accepted.recv(8), "little"), int.from_bytes(accepted.recv(4), "little")
                assert record is not None
                assert ident == record.executor == executor.cgroup_id
                assert destination(record) == f"3.120.0.10 {port}"
                asked.add(port)
        assert len(asked) == count
        executor.result()


def test_an_executors_own_servers_are_reached(kernel: Kernel, pair: tuple[Executor, Executor]) -> None:
    """TCP and UDP on every spelling of loopback, connected or not: the executor's own server answers."""
    one, _ = pair
    one.run(SERVE + FORMS + "serve(7101)")
    with kernel.counted() as moved:
        answer = one.run("answer.update(say(7101, b'mine'))\nanswer['heard'] = len(heard)")
    assert answer.pop("heard") == ALL_FORMS
    assert answer == {form: "tcp answer" if form.startswith("tcp") else "udp answer" for form in answer}
    # The server answers each of 18 datagrams with one more; a connected mapped socket's send() is judged as well.
    assert moved == {"LOOPBACK_PASSED": ALL_FORMS + 18 + 1}


def test_a_neighbours_servers_are_not(kernel: Kernel, pair: tuple[Executor, Executor], neighbour: Process) -> None:
    """An ungoverned process's loopback servers hear nothing of an executor, whatever the spelling or the call; the same
    calls from outside are heard."""
    one, _ = pair
    neighbour.run(SERVE + FORMS + "serve(7102)")
    one.run(FORMS)
    with kernel.counted() as moved:
        answer = one.run("answer.update(say(7102, b'executor'))")
    assert set(answer.values()) == {errno.EPERM}
    assert len(answer) == ALL_FORMS
    assert moved == {"REFUSED_LOOPBACK": ALL_FORMS}
    refusals = kernel.refusals(one)
    assert {refusal.reason for refusal in refusals} == {"REFUSED_LOOPBACK"}
    assert {refusal.destination.port for refusal in refusals if refusal.destination} == {7102}
    assert neighbour.run("answer['control'] = len(say(7102, b'control'))\nanswer['heard'] = heard") == {
        "control": ALL_FORMS,
        "heard": ["control"] * ALL_FORMS,
    }


def test_another_executors_servers_are_not(kernel: Kernel, pair: tuple[Executor, Executor]) -> None:
    """Executors in one namespace do not reach each other's loopback servers, nor each other's listeners unseen."""
    one, other = pair
    other.run(SERVE + "serve(7103)")
    with kernel.counted() as moved:
        answer = one.run(FORMS + "answer.update(say(7103, b'x'))")
        listener = one.run(f"answer.update(say({other.port}, b'x'))")
    assert set(answer.values()) == set(listener.values()) == {errno.EPERM}
    assert moved == {"REFUSED_LOOPBACK": 2 * ALL_FORMS}
    assert other.run("answer['heard'] = heard") == {"heard": []}


@pytest.mark.parametrize("option", ["SO_REUSEADDR", "SO_REUSEPORT"])
def test_a_bind_beside_a_neighbours_port_opens_nothing(
    kernel: Kernel, pair: tuple[Executor, Executor], neighbour: Process, option: str
) -> None:
    """Beside a neighbour that shares its port an executor binds the same one, on every address that it can, and at most
    talks to itself: the neighbour never hears it."""
    # One lookup has the same answer each time, which is the executor itself for half of the ports.
    ports = range(7160, 7166) if option == "SO_REUSEADDR" else range(7170, 7176)
    neighbour.run(
        SERVE + FORMS + f"for port in {ports!r}: serve(port, socket.{option}, addresses=('127.0.0.1', '::1'))"
    )
    one, _ = pair
    one.run(
        SERVE
        + FORMS
        + f"""
for port in {ports!r}:
    for address in ("127.0.0.1", "0.0.0.0", "127.8.9.9", "::1", "::"):
        attempt(lambda: serve(port, socket.{option}, addresses=(address,)))
    for _ in range(4):
        say(port, b"executor", 0.02, FORMS[::3], tcp=0.02)
"""
    )
    heard = neighbour.run(
        f"for port in {ports!r}: say(port, b'control', 0.1, FORMS[:1])\nanswer['heard'] = sorted(set(heard))"
    )
    assert heard == {"heard": ["control"]}


def test_named_ports_of_the_host_go_to_the_proxy(
    kernel: Kernel, pair: tuple[Executor, Executor], neighbour: Process
) -> None:
    """Where a rule names a port of the host's loopback, the connection goes to the listener with its loopback
    destination; the port beside it and UDP stay refused, and so does everything of the executor that the rule does
    not name."""
    one, other = pair
    neighbour.run(SERVE + "serve(7120)\nserve(7121)")
    with (
        kernel.planned(DirectPlan(audiences={one.cgroup_id: AudienceEntry(1, ((7119, 7120),))})),
        kernel.counted() as moved,
    ):
        one.start(
            """
            places = (2, "127.0.0.1"), (2, "127.5.5.5"), (10, "::ffff:127.0.0.1")
            socks = [connect(family, address, 7120)[0] for family, address in places]
            """
        )
        for expected in ("127.0.0.1", "127.5.5.5", "127.0.0.1"):
            accepted, record = one.accept()
            with accepted:
                assert record is not None
                assert destination(record) == f"{expected} 7120"
                assert record.path == FlowPath.PROXY
        one.result()
        one.start("sock = connect(10, '::1', 7120)[0]\nanswer['peer'] = sock.getpeername()[:2]")
        accepted, record = one.accept(6)
        accepted.close()
        assert destination(record) == "::1 7120"
        assert one.result() == {"peer": ["::1", 7120]}
        answer = one.run(
            """
            answer["beside"] = connect(2, "127.0.0.1", 7121)[1]
            answer["udp"] = attempt(socket.socket(2, 2).sendto, b"x", ("127.0.0.1", 7120))
            """
        )
        answer["other"] = other.run("answer['e'] = connect(2, '127.0.0.1', 7120)[1]")["e"]
    assert set(answer.values()) == {errno.EPERM}
    assert moved == {"REDIRECTED": 4, "MAPPED": 4, "REFUSED_LOOPBACK": 3}
    assert neighbour.run("answer['heard'] = heard") == {"heard": []}


def test_an_own_server_comes_before_a_port_of_the_hosts(kernel: Kernel, pair: tuple[Executor, Executor]) -> None:
    """A port that a rule names and that the executor itself serves is its own server's."""
    one, _ = pair
    with kernel.planned(DirectPlan(audiences={one.cgroup_id: AudienceEntry(1, ((7130, 7130),))})):
        one.run("server = socket.create_server(('127.0.0.1', 7130))")
        with kernel.counted() as moved:
            assert one.run("answer['e'] = connect(2, '127.0.0.1', 7130)[1]") == {"e": 0}
    assert moved == {"LOOPBACK_PASSED": 1}


def test_a_neighbour_may_use_an_executors_server(
    kernel: Kernel, pair: tuple[Executor, Executor], neighbour: Process
) -> None:
    """Who comes in by loopback is answered over TCP; a datagram back would be as good as one sent out, and is
    refused."""
    one, _ = pair
    one.run(SERVE + "serve(7140)")
    with kernel.counted() as moved:
        answer = neighbour.run(FORMS + "answer.update(say(7140, b'client', 0.05))")
        one.run(
            f"""
            deadline = time.monotonic() + 20
            while heard.count("refused") < {ALL_FORMS - 6} and time.monotonic() < deadline:
                time.sleep(0.01)
            """
        )
    assert answer == {form: "tcp answer" if form.startswith("tcp") else "timed out" for form in answer}
    # A packet that a connection of before sends once more is refused, too, whenever it comes.
    moved.pop("REFUSED_PACKET", None)
    assert moved == {"REFUSED_LOOPBACK": ALL_FORMS - 6}


def test_isolated_loopback_without_a_listener_is_the_kernels_own_refusal(kernel: Kernel) -> None:
    """In a namespace of its own an executor gets ECONNREFUSED where nothing listens, as without us, so that clients
    that try several ports go on; connected UDP too."""
    with kernel.executor() as executor, kernel.outsider() as outsider:
        code = """
        for family, address in ((2, "127.0.0.1"), (2, "0.0.0.0"), (10, "::1"), (10, "::ffff:127.0.0.1")):
            answer[address] = connect(family, address, 7150)[1]
            sock = socket.socket(family, 2)
            sock.connect((address, 7150))
            sock.send(b"x")
            answer["udp " + address] = attempt(sock.recv, 1)
        """
        assert set(outsider.run(code).values()) == {errno.ECONNREFUSED}
        assert set(executor.run(code).values()) == {errno.ECONNREFUSED}


def test_one_namespaces_listener_is_not_anothers(kernel: Kernel, host: int) -> None:
    """An attached executor's process in a second namespace, which has no listener for it, is refused there."""
    with ExitStack() as stack:
        executor = stack.enter_context(kernel.executor(mode=ATTACHED, netns=host))
        answer = executor.run(
            """
            libc.unshare(0x40000000)
            answer["tcp"] = connect(2, "3.120.0.10", 80)[1]
            answer["udp"] = attempt(socket.socket(2, 2).sendto, b"x", ("3.120.0.10", 53))
            """
        )
        assert answer == {"tcp": errno.EPERM, "udp": errno.EPERM}
        assert [refusal.reason for refusal in kernel.refusals(executor)] == ["REFUSED_NO_LISTENER"] * 2
