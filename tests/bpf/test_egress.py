"""The last line: real packets of an executor's sockets, whatever came before them; nothing reaches the far side."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.packet import Raw

from enforcer.capture.abi import ExecutorMode
from enforcer.demo.world import FRANKFURT, World
from tests.bpf.far import Far
from tests.fixtures.kernel import Executor, Kernel

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
# Loose source route whose first hop is FRANKFURT (RFC 791): pointer 4, one address.
LSRR = bytes.fromhex("830704") + socket.inet_aton(FRANKFURT.address) + b"\0"
# Segment routing header whose first hop is FRANKFURT (RFC 8754); the kernel puts the destination into segment 0.
SEGMENTS = bytes.fromhex("0004040101000000") + bytes(16) + socket.inet_pton(socket.AF_INET6, FRANKFURT.address6)
# Destination options: one PadN (RFC 8200).
PADDING = bytes.fromhex("0000010400000000")


@contextmanager
def governed_later(kernel: Kernel, host: int, code: str) -> Iterator[Executor]:
    """An executor whose process runs `code` before anybody governs it."""
    with kernel.slice() as home, kernel.executor(mode=ATTACHED, netns=host, home=home, listening=False) as executor:
        executor.run(code)
        kernel.tables.set_executor(executor.cgroup_id, ATTACHED)
        kernel.tables.set_listener(executor.cookie, executor.cgroup_id, executor.port, resolver_port=15999)
        try:
            yield executor
        finally:
            kernel.tables.delete_listener(executor.cookie, executor.cgroup_id)
            kernel.tables.delete_executor(executor.cgroup_id)


@pytest.mark.parametrize("address", ["3.120.0.10", "2a05:d014::10"])
def test_a_connection_older_than_its_executor_carries_nothing_more(
    kernel: Kernel, host: int, frankfurt: Far, address: str
) -> None:
    """A connection that was open when its cgroup was governed: what is written then does not arrive."""
    port = 5501 if ":" in address else 5502
    server = frankfurt.listen(port)
    with governed_later(
        kernel, host, f"sock = socket.create_connection(({address!r}, {port}))\nsock.send(b'a')"
    ) as executor:
        accepted, _ = server.accept()
        with accepted:
            assert accepted.recv(9) == b"a"
            frankfurt.arrived()
            with kernel.counted() as moved:
                executor.run("sock.send(b'secret')")
                accepted.settimeout(0.3)
                with pytest.raises(TimeoutError):
                    accepted.recv(9)
        assert moved.keys() == {"REFUSED_PACKET"}
        refusal = kernel.refusals(executor)[0]
        assert refusal.reason == "REFUSED_PACKET"
        assert refusal.destination is not None
        assert (str(refusal.destination.address), refusal.destination.port) == (address, port)
        assert frankfurt.arrived() == []


ROUTED = {
    "source route": f"sock = socket.socket(2, 2)\nsock.setsockopt(0, 4, {LSRR!r})",
    "routing header": f"sock = socket.socket(10, 2)\nsock.setsockopt(41, 57, {SEGMENTS!r})",
    "destination options": f"sock = socket.socket(10, 2)\nsock.setsockopt(41, 59, {PADDING!r})",
    "NOP option": "sock = socket.socket(2, 2)\nsock.setsockopt(0, 4, b'\\x01\\x01\\x01\\x00')",
}


@pytest.mark.parametrize("form", ROUTED)
def test_options_set_before_change_no_packets_way_after(kernel: Kernel, host: int, frankfurt: Far, form: str) -> None:
    """A source route or extension header set before the executor was governed: the question that is then rewritten to
    the resolver does not leave by the first hop; before, it arrived there."""
    target = "52.0.0.10" if form == "source route" else "3.120.0.10"
    target6 = "2600:1f18::10" if form == "routing header" else "2a05:d014::10"
    send = f"answer['e'] = attempt(sock.sendto, b'secret', ({target!r} if sock.family == 2 else {target6!r}, 53))"
    frankfurt.arrived()
    with governed_later(kernel, host, f"{ROUTED[form]}\n{send}") as executor:
        assert len(frankfurt.arrived()) == 1
        with kernel.counted() as moved:
            answer = executor.run(send)
        assert answer == {"e": errno.EPERM}
        assert moved == {"DNS_REDIRECTED": 1, "REFUSED_PACKET_FORM": 1}
        assert [one.reason for one in kernel.refusals(executor)] == ["REFUSED_PACKET_FORM"]
    assert frankfurt.arrived() == []


def test_a_source_route_in_a_control_message_changes_nothing(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """IP_RETOPTS with one datagram, which no option hook sees: dropped for its form."""
    code = f"answer['e'] = attempt(socket.socket(2, 2).sendmsg, [b'x'], [(0, 7, {LSRR[:7]!r})], 0, ('52.0.0.10', 53))"
    frankfurt.arrived()
    with kernel.outsider(host) as outsider:
        assert outsider.run(code) == {"e": 0}
    assert frankfurt.arrived() == ["UDP 53"]
    with kernel.executor(mode=ATTACHED, netns=host, resolver=True) as executor, kernel.counted() as moved:
        assert executor.run(code) == {"e": errno.EPERM}
    assert moved == {"DNS_REDIRECTED": 1, "REFUSED_PACKET_FORM": 1}
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("family", [4, 6])
def test_loopbacks_packets_do_not_leave_by_another_interface(
    kernel: Kernel, world: World, host: int, family: int
) -> None:
    """IP_PKTINFO sends a datagram for 127.0.0.1 out by the interface that it names, towards the next hop: the
    question that was rewritten to the resolver stays inside."""
    via, address, loopback = (FRANKFURT.address, "127.0.0.1", 2) if family == 4 else (FRANKFURT.address6, "::1", 10)
    index = world_interface(kernel, host)
    info = f"(0, 8, struct.pack('=i8x', {index}))" if family == 4 else f"(41, 50, struct.pack('=16xi', {index}))"
    code = f"answer['e'] = attempt(socket.socket({loopback}, 2).sendmsg, [b'x'], [{info}], 0, ({address!r}, 53))"
    route = ["ip", f"-{family}", "route"]
    with kernel.outsider(host) as outsider:
        outsider.run(f"import subprocess\nsubprocess.run({[*route, 'add', 'default', 'via', via]!r}, check=True)")
        try:
            witness = world.witness(FRANKFURT)
            control = outsider.run(code)
            frames = witness.frames()
            with kernel.executor(mode=ATTACHED, netns=host, resolver=True) as executor, kernel.counted() as moved:
                answer = executor.run(code)
            left = [frame for frame in witness.frames() if executor.resolver_port.to_bytes(2, "big") in frame]
        finally:
            outsider.run(f"subprocess.run({[*route, 'del', 'default']!r}, check=True)")
    if family == 4:
        assert control == {"e": 0}
        assert any(socket.inet_aton(address) in frame for frame in frames)
        assert answer == {"e": errno.EPERM}
        assert moved == {"DNS_REDIRECTED": 1, "REFUSED_PACKET": 1}
    assert left == []


def world_interface(kernel: Kernel, host: int) -> int:
    with kernel.outsider(host) as outsider:
        code = "answer['index'] = [i for i, name in socket.if_nameindex() if name.endswith('h0')][0]"
        index: int = outsider.run(code)["index"]
        return index


FORGED = {
    "ICMP": (IP(dst=FRANKFURT.address) / ICMP(), "ICMP 8", "REFUSED_PACKET_FORM"),
    "SYN": (IP(dst=FRANKFURT.address) / TCP(dport=80, flags="S"), "TCP 80 SYN", "REFUSED_PACKET"),
    "data": (IP(dst=FRANKFURT.address) / TCP(dport=80, flags="PA") / Raw(b"secret"), "TCP 80", "REFUSED_PACKET"),
    "UDP": (IP(dst=FRANKFURT.address) / UDP(dport=53) / Raw(b"secret"), "UDP 53", "REFUSED_PACKET"),
    "first fragment": (
        IP(dst=FRANKFURT.address, flags="MF") / UDP(dport=53, len=1000) / Raw(b"secret00"),
        "UDP 53",
        "REFUSED_PACKET_FORM",
    ),
    "later fragment": (
        IP(dst=FRANKFURT.address, frag=3, proto=17) / Raw(b"secret"),
        "protocol 17",
        "REFUSED_PACKET_FORM",
    ),
    "protocol 253": (IP(dst=FRANKFURT.address, proto=253) / Raw(b"secret"), "protocol 253", "REFUSED_PACKET_FORM"),
    "cut short": (IP(dst=FRANKFURT.address, proto=6) / Raw(b"sec"), "protocol 6", "REFUSED_PACKET_FORM"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_raw_socket_older_than_its_executor_sends_nothing(
    kernel: Kernel, host: int, frankfurt: Far, kind: str
) -> None:
    """Packets made by hand on a raw socket from before: each arrives before its cgroup is governed, and none after."""
    packet, arrives, reason = FORGED[kind]
    send = f"answer['e'] = attempt(sock.sendto, {bytes(packet)!r}, ('3.120.0.10', 0))"
    frankfurt.arrived()
    with governed_later(kernel, host, f"sock = socket.socket(2, 3, 255)\n{send}") as executor:
        # A resent first packet of a connection is answered by a reset, to which we answer nothing.
        assert frankfurt.arrived()[:1] == [arrives]
        with kernel.counted() as moved:
            assert executor.run(send) == {"e": errno.EPERM}
        assert moved == {reason: 1}
        assert [one.reason for one in kernel.refusals(executor)] == [reason]
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("address", ["3.120.0.1", "2a05:d014::1"])
def test_who_connects_to_an_executors_server_from_outside_gets_no_data(
    kernel: Kernel, host: int, frankfurt: Far, address: str
) -> None:
    """A neighbour on the network that connects to a server in the executor receives not a byte; a server outside
    answers."""
    serve = """
    server = socket.create_server(("::", 5510), family=10, dualstack_ipv6=True)
    def answer_all():
        while True:
            client, _ = server.accept()
            client.sendall(b"secret")
    threading.Thread(target=answer_all, daemon=True).start()
    """

    def ask() -> bytes:
        try:
            with socket.create_connection((address, 5510), 0.5) as sock:
                return sock.recv(6)
        except OSError:
            return b""

    with kernel.outsider(host) as outsider:
        outsider.run(serve)
        assert frankfurt.inside(ask) == b"secret"
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        executor.run(serve)
        with kernel.counted() as moved:
            assert frankfurt.inside(ask) == b""
        assert moved.keys() == {"REFUSED_PACKET"}
        assert {one.reason for one in kernel.refusals(executor)} == {"REFUSED_PACKET"}


def test_datagrams_to_who_asked_from_outside_are_refused(kernel: Kernel, host: int, frankfurt: Far) -> None:
    """A UDP server in the executor hears a neighbour on the network and cannot answer."""
    frankfurt.arrived()
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        executor.run("server = socket.socket(2, 2)\nserver.bind(('0.0.0.0', 5511))\nserver.settimeout(5)")

        def ask() -> None:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
                sock.sendto(b"question", ("3.120.0.1", 5511))

        frankfurt.inside(ask)
        with kernel.counted() as moved:
            answer = executor.run(
                "question, peer = server.recvfrom(9)\nanswer['e'] = attempt(server.sendto, b'secret', peer)"
            )
    assert answer == {"e": errno.EPERM}
    assert moved == {"REFUSED_UDP": 1}
    assert frankfurt.arrived() == []
