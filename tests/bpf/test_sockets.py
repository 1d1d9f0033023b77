"""What an executor may ask of socket(), bind() and setsockopt(): TCP and UDP, anybody's ports but ours, no other
way."""

from __future__ import annotations

import errno
import socket
import textwrap
from typing import Any

import pytest

from enforcer.capture.abi import ExecutorMode
from tests.fixtures.kernel import Kernel

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
MAKE = """
open("/proc/sys/net/ipv4/ping_group_range", "w").write("0 65535")
for family in (2, 10):
    for kind, protocols in ((1, (132, 262)), (2, (1, 58, 136)), (3, (1, 6, 17, 58, 255)), (5, (132,)), (6, (33,))):
        for protocol in protocols:
            answer[f"{family} {kind} {protocol}"] = attempt(socket.socket, family, kind, protocol)
"""
# (level, option, value as hex): a value that the kernel takes, where there is one.
OPTIONS: dict[str, tuple[int, int, str]] = {
    "IP_HDRINCL": (0, 3, "00000000"),
    "IP_OPTIONS": (0, 4, "01010100"),
    "IP_TRANSPARENT": (0, 19, "01000000"),
    "IP_MULTICAST_IF": (0, 32, "7f000001"),
    "IP_UNICAST_IF": (0, 50, "00000001"),
    "IPV6_2292HOPOPTS": (41, 3, ""),
    "IPV6_2292DSTOPTS": (41, 4, ""),
    "IPV6_2292RTHDR": (41, 5, ""),
    "IPV6_2292PKTOPTIONS": (41, 6, ""),
    "IPV6_MULTICAST_IF": (41, 17, "01000000"),
    "IPV6_HDRINCL": (41, 36, "00000000"),
    "IPV6_HOPOPTS": (41, 54, "0000010400000000"),
    "IPV6_RTHDRDSTOPTS": (41, 55, "0000010400000000"),
    "IPV6_RTHDR": (41, 57, "0002040000000000" + "00" * 15 + "01"),
    "IPV6_DSTOPTS": (41, 59, "0000010400000000"),
    "IPV6_TRANSPARENT": (41, 75, "01000000"),
    "IPV6_UNICAST_IF": (41, 76, "00000001"),
    "SO_BINDTODEVICE": (1, 25, "6c6f00"),
    "SO_MARK": (1, 36, "01000000"),
    "SO_ATTACH_REUSEPORT_CBPF": (1, 51, "0100000000000000" + "00" * 8),
    "SO_ATTACH_REUSEPORT_EBPF": (1, 52, "ffffff7f"),
    "SO_BINDTOIFINDEX": (1, 62, "01000000"),
    "TCP_REPAIR": (6, 19, "01000000"),
}
SET = """
def setopt(level, option, value, kind=1):
    sock = socket.socket(2 if level == 0 else 10, 2 if level == 41 and option < 7 else kind)
    data = bytes.fromhex(value)
    if libc.setsockopt(sock.fileno(), level, option, data, len(data)):
        raise OSError(ctypes.get_errno(), "setsockopt")
"""


def test_sockets_of_other_types_and_protocols_are_refused(kernel: Kernel) -> None:
    """Raw, ping, MPTCP, UDP-Lite, SCTP, DCCP: each that this kernel makes outside is EPERM inside, with count and
    event."""
    with kernel.outsider() as outsider:
        control = outsider.run(MAKE)
    exist = {name for name, code in control.items() if code == 0}
    assert {"2 3 1", "2 2 1", "10 2 58", "2 3 255", "10 3 6"} <= exist
    with kernel.executor() as executor, kernel.counted() as moved:
        answer = executor.run(MAKE)
        assert {name for name, code in answer.items() if code == 0} == set()
        assert {answer[name] for name in exist} == {errno.EPERM}
        refusals = kernel.refusals(executor)
        assert [(one.reason, one.destination) for one in refusals] == [("REFUSED_SOCKET_TYPE", None)] * len(exist)
    assert moved == {"REFUSED_SOCKET_TYPE": len(exist)}


def test_tcp_and_udp_are_made_under_every_name(kernel: Kernel) -> None:
    """TCP and UDP, their protocol named or not, and families that are not IP."""
    with kernel.executor() as executor, kernel.counted() as moved:
        executor.run(
            """
            for family in (2, 10):
                for kind, protocol in ((1, 0), (1, 6), (2, 0), (2, 17)):
                    socket.socket(family, kind, protocol).close()
            socket.socketpair(), socket.socket(1, 2), socket.socket(16, 3, 0)
            """
        )
    assert moved == {}


@pytest.mark.parametrize("alive", [True, False], ids=["alive", "dead"])
def test_nobody_binds_the_listeners_or_the_resolvers_port(kernel: Kernel, host: int, alive: bool) -> None:
    """On any address, shared or not, of another executor in the namespace as well, and also while we are down."""
    code = """
    for address in ("127.0.0.1", "0.0.0.0", "127.0.0.2", "::1", "::", "::ffff:127.0.0.1"):
        for kind in (1, 2):
            for option in (0, socket.SO_REUSEADDR, socket.SO_REUSEPORT):
                with socket.socket(10 if ":" in address else 2, kind) as sock:
                    if option:
                        sock.setsockopt(1, option, 1)
                    answer[f"{address} {kind} {option}"] = attempt(sock.bind, (address, PORT))
    """
    with (
        kernel.executor(mode=ATTACHED, netns=host, resolver=True) as victim,
        kernel.executor(mode=ATTACHED, netns=host) as executor,
    ):
        if not alive:
            for sock in (victim.listener4, victim.listener6, victim.resolver4, victim.resolver6):
                sock.close()
        for port in (victim.port, victim.resolver_port):
            for who in (victim, executor):
                with kernel.counted() as moved:
                    answer = who.run(f"PORT = {port}\n{textwrap.dedent(code)}")
                assert set(answer.values()) == {errno.EPERM}
                assert moved == {"REFUSED_BIND": len(answer)}
                refusals = kernel.refusals(who)
                assert {(one.reason, one.destination and one.destination.port) for one in refusals} <= {
                    ("REFUSED_BIND", port),
                    ("REFUSED_BIND", None),
                }
        with kernel.outsider(host) as outsider:
            answer = outsider.run(f"answer['e'] = attempt(socket.socket().bind, ('127.0.0.2', {victim.port}))")
        assert answer == {"e": 0}
        assert executor.run("answer['e'] = attempt(socket.socket().bind, ('127.0.0.1', 7999))") == {"e": 0}


def test_the_kernel_does_not_hand_out_our_ports(kernel: Kernel) -> None:
    """bind() to port 0 where the namespace's range holds only our port: refused once the kernel has chosen it."""
    with kernel.executor(resolver=True) as executor, kernel.counted() as moved:
        answer = executor.run(
            f"""
            for port in ({executor.port}, {executor.resolver_port}):
                open("/proc/sys/net/ipv4/ip_local_port_range", "w").write(f"{{port}} {{port}}")
                for family, address in ((2, "127.0.0.2"), (10, "::ffff:127.0.0.2")):
                    for kind in (1, 2):
                        sock = socket.socket(family, kind)
                        answer[f"{{port}} {{kind}} {{address}}"] = attempt(sock.bind, (address, 0))
            """
        )
    assert set(answer.values()) == {errno.EPERM}
    assert moved == {"REFUSED_BIND": 8}


def test_who_gets_our_ports_without_a_bind_gets_nobodys_traffic(kernel: Kernel) -> None:
    """listen() and sendto() choose a port without asking any hook: while we are down an executor may come to hold ours,
    but no connection and no question of another's reaches it."""
    with (
        kernel.outsider() as namespace,
        kernel.executor(mode=ATTACHED, netns=namespace.netns, resolver=True) as victim,
        kernel.executor(mode=ATTACHED, netns=namespace.netns) as thief,
    ):
        for sock in (victim.listener4, victim.listener6, victim.resolver4, victim.resolver6):
            sock.close()
        got = thief.run(
            f"""
            def narrow(low, high):
                open("/proc/sys/net/ipv4/ip_local_port_range", "w").write(f"{{low}} {{high}}")
            narrow({victim.port}, {victim.port})
            stream = socket.socket()
            stream.listen()
            narrow({victim.resolver_port}, {victim.resolver_port})
            datagram = socket.socket(2, 2)
            attempt(datagram.sendto, b"x", ("3.120.0.10", 443))
            narrow(32768, 60999)
            stream.settimeout(0.2), datagram.settimeout(0.2)
            answer["ports"] = [stream.getsockname()[1], datagram.getsockname()[1]]
            """
        )
        assert got == {"ports": [victim.port, victim.resolver_port]}
        with kernel.counted() as moved:
            victim.run(
                """
                sock = socket.socket()
                sock.settimeout(0.2)
                attempt(sock.connect, ("3.120.0.10", 80))
                answer["question"] = attempt(socket.socket(2, 2).sendto, b"secret", ("3.120.0.10", 53))
                """
            )
        assert thief.run("answer['e'] = [attempt(stream.accept), attempt(datagram.recv, 9)]") == {
            "e": ["timed out"] * 2
        }
        assert moved.pop("REFUSED_PACKET") >= 2
        assert moved == {"REDIRECTED": 1, "DNS_REDIRECTED": 1}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_lead_elsewhere_are_refused(kernel: Kernel, options: dict[str, Any], name: str) -> None:
    """Source routes, extension headers, devices, marks and steering: EPERM for executors, not for others."""
    assert options["outside"][name] != errno.EPERM
    assert options["inside"][name] == errno.EPERM


@pytest.fixture(scope="module")
def options(kernel: Kernel) -> dict[str, Any]:
    """Every option set by an executor and by a process outside."""
    code = f"{SET}\nfor name, one in {OPTIONS!r}.items(): answer[name] = attempt(setopt, *one)"
    with kernel.executor() as executor, kernel.outsider() as outsider:
        with kernel.counted() as moved:
            inside = executor.run(code)
        assert moved == {"REFUSED_OPTION": len(OPTIONS)}
        assert [one.reason for one in kernel.refusals(executor)] == ["REFUSED_OPTION"] * len(OPTIONS)
        return {"inside": inside, "outside": outsider.run(code)}


def test_other_options_work(kernel: Kernel) -> None:
    """What clients set every day is set, and reads back."""
    with kernel.executor() as executor, kernel.counted() as moved:
        answer = executor.run(
            """
            daily = (0, 1, 16), (0, 2, 9), (1, 9, 1), (1, 15, 1), (1, 2, 1), (6, 1, 1), (6, 4, 60), (6, 23, 5)
            for family in (2, 10):
                for level, option, value in daily:
                    sock = socket.socket(family)
                    sock.setsockopt(level, option, value)
                    if sock.getsockopt(level, option) != value:
                        answer[f"{level} {option}"] = sock.getsockopt(level, option)
            sock = socket.socket(10)
            sock.setsockopt(41, 26, 1), sock.setsockopt(41, 67, 16), sock.setsockopt(6, 13, b"reno")
            socket.socket(2, 2).setsockopt(0, 35, struct.pack("=4sii", socket.inet_aton("239.1.1.1"), 0, 1))
            """
        )
    assert answer == {}
    assert moved == {}


def test_options_longer_than_a_program_sees_work(kernel: Kernel) -> None:
    """A multicast filter of 8 kB, of which a program is shown half a page: set as outside."""
    code = """
    group = struct.pack("=H2xI", 10, 0) + socket.inet_pton(10, "ff02::1234") + bytes(104)
    sock = socket.socket(10, 2)
    sock.setsockopt(41, 20, socket.inet_pton(10, "ff02::1234") + struct.pack("=i", 1))
    addresses = [socket.inet_pton(10, f"2001:db8::{number:x}") for number in range(1, 61)]
    sources = b"".join(struct.pack("=H6x", 10) + address + bytes(104) for address in addresses)
    value = struct.pack("=I4x", 1) + group + struct.pack("=II", 1, 60) + sources
    answer["size"] = len(value)
    answer["errno"] = attempt(sock.setsockopt, 41, 48, value)
    """
    with kernel.outsider() as outsider, kernel.executor() as executor:
        assert outsider.run(code) == {"size": 7824, "errno": 0}
        assert executor.run(code) == {"size": 7824, "errno": 0}


def test_the_numbers_are_linuxs(kernel: Kernel) -> None:
    """The options above are named by the numbers that Python takes from the system's headers."""
    modules = {name: getattr(socket, name) for name in OPTIONS if hasattr(socket, name)}
    assert len(modules) >= 9
    assert {name: OPTIONS[name][1] for name in modules} == modules
