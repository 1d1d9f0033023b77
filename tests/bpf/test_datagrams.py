"""UDP: port 53 of every address goes to the resolver, its answers seem to come from there, and nothing else leaves."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator

import pytest

from enforcer.capture.abi import ExecutorMode
from tests.bpf.far import Far
from tests.fixtures.kernel import Executor, Kernel

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
PLACES = {"IPv4": (2, "3.120.0.10"), "IPv6": (10, "2a05:d014::10"), "mapped": (10, "::ffff:3.120.0.10")}
# sendmmsg(2) of one message, which Python does not have.
SENDMMSG = """
def sendmmsg(sock, data, address):
    family = sock.family
    packed, number = struct.pack("=H", family) + struct.pack("!H", address[1]), socket.inet_pton(family, address[0])
    packed += number + bytes(8) if family == 2 else bytes(4) + number + bytes(4)
    name, text = ctypes.create_string_buffer(packed, len(packed)), ctypes.create_string_buffer(data, len(data))
    vector = ctypes.create_string_buffer(struct.pack("=QQ", ctypes.addressof(text), len(data)))
    places = ctypes.addressof(name), len(packed), ctypes.addressof(vector)
    message = ctypes.create_string_buffer(struct.pack("=QIxxxxQQQQiIIxxxx", *places, 1, 0, 0, 0, 0, 0))
    if libc.sendmmsg(sock.fileno(), message, 1, 0) != 1:
        raise OSError(ctypes.get_errno(), "sendmmsg")
def send(kind, family, address, port, data=b"question"):
    sock = socket.socket(family, 2)
    sock.settimeout(5)
    if kind == "sendto":
        sock.sendto(data, (address, port))
    elif kind == "sendmsg":
        sock.sendmsg([data], [], 0, (address, port))
    elif kind == "sendmmsg":
        sendmmsg(sock, data, (address, port))
    elif kind == "connected":
        sock.connect((address, port))
        sock.send(data)
    elif kind == "connected with a control message":
        sock.connect((address, port))
        ttl = (0, 2, struct.pack("=i", 9)) if family == 2 or "." in address else (41, 52, struct.pack("=i", 9))
        sock.sendmsg([data], [ttl])
    return sock
"""
KINDS = ("sendto", "sendmsg", "sendmmsg", "connected", "connected with a control message")


@pytest.fixture
def executor(kernel: Kernel, host: int) -> Iterator[Executor]:
    """Attached, so that everything has a route: what is contained is contained by the hooks alone."""
    with kernel.executor(mode=ATTACHED, netns=host, resolver=True) as executor:
        executor.run(SENDMMSG)
        yield executor


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_question_reaches_the_resolver_and_its_answer_seems_to_come_from_where_it_was_asked(
    kernel: Kernel, executor: Executor, frankfurt: Far, kind: str, place: str
) -> None:
    """recvfrom, recvmsg and getpeername show the address that was asked, in every family and by every call."""
    family, address = PLACES[place]
    frankfurt.arrived()
    with kernel.counted() as moved:
        executor.start(
            f"""
            sock = send({kind!r}, {family}, {address!r}, 53)
            answer["recvfrom"] = [sock.recv(100, 2).decode(), sock.recvfrom(100)[1][:2]]
            answer["recvmsg"] = sock.recvmsg(100)[3][:2]
            if "connected" in {kind!r}:
                answer["getpeername"] = sock.getpeername()[:2]
            """
        )
        resolver = executor.resolver6 if place == "IPv6" else executor.resolver4
        question, client = resolver.recvfrom(100)
        assert question == b"question"
        for _ in range(2):
            resolver.sendto(b"answer", client)
        found = executor.result()
    assert found.pop("recvfrom") == ["answer", [address, 53]]
    assert set(map(tuple, found.values())) == {(address, 53)}
    assert moved == {"DNS_REDIRECTED": 1}
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", KINDS)
def test_any_other_port_is_refused_at_once(
    kernel: Kernel, executor: Executor, frankfurt: Far, kind: str, place: str
) -> None:
    """QUIC and everything else that is not DNS gets EPERM, so that clients fall back to TCP; the far side gets
    nothing."""
    family, address = PLACES[place]
    frankfurt.arrived()
    with kernel.counted() as moved:
        answer = executor.run(f"answer['e'] = attempt(send, {kind!r}, {family}, {address!r}, 443)")
    assert answer == {"e": errno.EPERM}
    assert moved == {"REFUSED_UDP": 1}
    [refusal] = kernel.refusals(executor)
    assert refusal.reason == "REFUSED_UDP"
    assert str(refusal.destination) == ("[2a05:d014::10]:443" if place == "IPv6" else "3.120.0.10:443")
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("place", PLACES)
def test_without_a_resolver_port_53_is_like_any_other(kernel: Kernel, host: int, frankfurt: Far, place: str) -> None:
    """A listener without a resolver: questions are refused, connected or not."""
    family, address = PLACES[place]
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        executor.run(SENDMMSG)
        frankfurt.arrived()
        with kernel.counted() as moved:
            answer = executor.run(f"for kind in {KINDS}: answer[kind] = attempt(send, kind, {family}, {address!r}, 53)")
    assert set(answer.values()) == {errno.EPERM}
    assert moved == {"REFUSED_UDP": len(KINDS)}
    assert frankfurt.arrived() == []


def test_the_calls_work_outside(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """The control: every call that is refused above arrives when a process outside makes it."""
    frankfurt.arrived()
    with kernel.outsider(host) as outsider:
        outsider.run(SENDMMSG)
        for family, address in PLACES.values():
            outsider.run(f"for kind in {KINDS}: send(kind, {family}, {address!r}, 443)")
    assert frankfurt.arrived() == ["UDP 443"] * len(KINDS) * len(PLACES)


def test_a_socket_connected_to_the_resolver_sends_nowhere_else(
    kernel: Kernel, executor: Executor, frankfurt: Far
) -> None:
    """sendto() elsewhere on a socket that is connected to the resolver is judged by its own address, and so is a new
    connect(); nobody names the resolver or the listener itself."""
    frankfurt.arrived()
    with kernel.counted() as moved:
        answer = executor.run(
            f"""
            sock = send("connected", 2, "3.120.0.10", 53)
            answer["far"] = attempt(sock.sendto, b"x", ("3.120.0.10", 80))
            answer["reconnect"] = attempt(sock.connect, ("3.120.0.10", 80))
            fresh = socket.socket(2, 2)
            answer["resolver"] = attempt(fresh.sendto, b"x", ("127.0.0.1", {executor.resolver_port}))
            answer["dial"] = attempt(fresh.connect, ("127.0.0.1", {executor.resolver_port}))
            answer["listener"] = attempt(sock.sendto, b"x", ("127.0.0.1", {executor.port}))
            sock.send(b"again")
            """
        )
    assert set(answer.values()) == {errno.EPERM}
    assert moved == {"DNS_REDIRECTED": 1, "REFUSED_UDP": 2, "REFUSED_DIRECT_DIAL": 3}
    assert [executor.resolver4.recv(100) for _ in range(2)] == [b"question", b"again"]
    assert frankfurt.arrived() == []


def test_a_socket_that_was_dissolved_is_judged_again(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """connect(AF_UNSPEC) ends what connect() allowed: the next address is judged, and a null one is no address."""
    frankfurt.arrived()
    with kernel.counted() as moved:
        answer = executor.run(
            """
            sock = send("connected", 2, "3.120.0.10", 53)
            libc.connect(sock.fileno(), bytes(16), 16)
            answer["sendto"] = attempt(sock.sendto, b"x", ("3.120.0.10", 80))
            answer["connect"] = attempt(sock.connect, ("3.120.0.10", 80))
            answer["nowhere"] = attempt(sock.send, b"x")
            sock.connect(("8.8.8.8", 53))
            answer["peer"] = sock.getpeername()
            """
        )
    assert answer == {
        "sendto": errno.EPERM,
        "connect": errno.EPERM,
        "nowhere": errno.EDESTADDRREQ,
        "peer": ["8.8.8.8", 53],
    }
    assert moved == {"DNS_REDIRECTED": 2, "REFUSED_UDP": 2}
    assert frankfurt.arrived() == []


def test_af_unspec_in_sendto_is_an_address_like_any(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """sendto() with family AF_UNSPEC, which IPv4 sockets take: port 53 goes to the resolver, any other is refused."""
    code = """
    def unspec(port):
        sock, data = socket.socket(2, 2), b"unspec"
        address = struct.pack("=H", 0) + struct.pack("!H", port) + socket.inet_aton("3.120.0.10") + bytes(8)
        if libc.sendto(sock.fileno(), data, len(data), 0, address, 16) != len(data):
            raise OSError(ctypes.get_errno(), "sendto")
    for port in (53, 443): answer[str(port)] = attempt(unspec, port)
    """
    frankfurt.arrived()
    with kernel.counted() as moved:
        assert executor.run(code) == {"53": 0, "443": errno.EPERM}
    assert moved == {"DNS_REDIRECTED": 1, "REFUSED_UDP": 1}
    assert executor.resolver4.recv(100) == b"unspec"
    with kernel.outsider(executor.netns) as outsider:
        outsider.run(code)
    assert frankfurt.arrived() == ["UDP 53", "UDP 443"]


def test_a_null_address_on_a_socket_that_was_never_judged_is_refused(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A UDP socket connected before its executor was governed sends nothing after, with control messages or without."""
    server = frankfurt.bind(443)
    with kernel.slice() as home, kernel.executor(mode=ATTACHED, netns=host, home=home, listening=False) as executor:
        executor.run("sock = socket.socket(2, 2)\nsock.connect(('3.120.0.10', 443))\nsock.send(b'x')")
        kernel.tables.set_executor(executor.cgroup_id, ATTACHED)
        kernel.tables.set_listener(executor.cookie, executor.cgroup_id, executor.port)
        assert server.recv(1) == b"x"
        frankfurt.arrived()
        with kernel.counted() as moved:
            answer = executor.run(
                """
                answer["send"] = attempt(sock.send, b"x")
                answer["message"] = attempt(sock.sendmsg, [b"x"], [(0, 2, struct.pack("=i", 9))])
                answer["again"] = attempt(sock.send, b"x")
                """
            )
        kernel.tables.delete_executor(executor.cgroup_id)
        kernel.tables.delete_listener(executor.cookie, executor.cgroup_id)
    assert set(answer.values()) == {errno.EPERM}
    assert moved == {"REFUSED_PACKET": 2, "REFUSED_UDP": 1}
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("address", ["127.0.0.53", "127.0.0.1", "::1", "::ffff:127.0.0.53"])
@pytest.mark.parametrize("mode", [ExecutorMode.ISOLATED, ATTACHED])
def test_a_stub_resolver_on_loopback_is_answered_by_ours(
    kernel: Kernel, host: int, mode: ExecutorMode, address: str
) -> None:
    """Port 53 of loopback, where resolv.conf of many hosts points, goes to the resolver too: the host's own stub,
    which asks anybody, is never reached."""
    netns = host if mode is ATTACHED else None
    family = 10 if ":" in address else 2
    with kernel.executor(mode=mode, netns=netns, resolver=True) as executor, kernel.counted() as moved:
        executor.start(
            SENDMMSG
            + f"""
for kind in ("sendto", "connected"):
    sock = send(kind, {family}, {address!r}, 53)
    answer[kind] = [sock.recv(100, 2).decode(), sock.recvfrom(100)[1][:2]]
"""
        )
        resolver = executor.resolver6 if address == "::1" else executor.resolver4
        for _ in range(2):
            _, client = resolver.recvfrom(100)
            resolver.sendto(b"answer", client)
        found = executor.result()
    assert list(found.values()) == [["answer", [address, 53]]] * 2
    assert moved == {"DNS_REDIRECTED": 2}


def test_an_executors_own_name_server_is_its_own(kernel: Kernel, executor: Executor) -> None:
    """An executor that serves port 53 of its loopback reaches itself there, not the resolver."""
    with kernel.counted() as moved:
        answer = executor.run(
            """
            server = socket.socket(2, 2)
            server.bind(("127.0.0.53", 53))
            send("sendto", 2, "127.0.0.53", 53), send("connected", 2, "127.0.0.53", 53)
            answer["heard"] = [server.recv(100).decode() for _ in range(2)]
            """
        )
    assert answer == {"heard": ["question", "question"]}
    assert moved == {"LOOPBACK_PASSED": 2}


def test_the_resolver_of_one_executor_is_not_anothers(kernel: Kernel, host: int) -> None:
    """Two executors in one namespace have resolvers of their own, and neither reaches the other's."""
    with (
        kernel.executor(mode=ATTACHED, netns=host, resolver=True) as one,
        kernel.executor(mode=ATTACHED, netns=host, resolver=True) as other,
    ):
        for executor in (one, other):
            executor.run(SENDMMSG + f"send('sendto', 2, '8.8.8.8', 53, b'{executor.cgroup_id}')")
            assert executor.resolver4.recv(100) == str(executor.cgroup_id).encode()
        answer = one.run(f"answer['e'] = attempt(send, 'sendto', 2, '127.0.0.1', {other.resolver_port})")
        assert answer == {"e": errno.EPERM}
        other.resolver4.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.resolver4.recv(1)


def test_a_forged_sender_is_not_shown_as_the_resolver(kernel: Kernel, executor: Executor) -> None:
    """An answer from anywhere but the resolver's port shows its true sender."""
    executor.start(
        """
        sock = send("sendto", 2, "8.8.8.8", 53)
        answer["sender"] = sock.recvfrom(100)[1]
        """
    )
    _, client = executor.resolver4.recvfrom(100)
    with executor.bound(socket.AF_INET, "127.0.0.1", 0) as forger:
        forger.sendto(b"x", client)
        assert executor.result() == {"sender": list(forger.getsockname())}
