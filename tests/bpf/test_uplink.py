"""The last line at an interface: frames that no cgroup hook sees have a socket all the same, and that has a cgroup."""

from __future__ import annotations

import errno
from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

from enforcer.capture import uplinks as interfaces
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.generation import AudienceEntry, DirectPlan
from enforcer.capture.namespace import run_inside
from enforcer.capture.uplinks import Uplinks
from enforcer.demo.world import FRANKFURT
from enforcer.errors import KernelError
from tests.bpf.far import Far
from tests.bpf.test_owner import nest
from tests.fixtures.kernel import Executor, Kernel

pytestmark = pytest.mark.kernel

ATTACHED = ExecutorMode.ATTACHED
HERE, HERE6 = "3.120.0.1", "2a05:d014::1"
FRAMES: dict[str, Packet] = {
    "TCP 80 SYN": IP(src=HERE, dst=FRANKFURT.address) / TCP(dport=80, flags="S"),
    "TCP 81": IP(src=HERE, dst=FRANKFURT.address) / TCP(dport=81, flags="PA") / Raw(b"secret"),
    "UDP 53": IP(src=HERE, dst=FRANKFURT.address) / UDP(dport=53) / Raw(b"secret"),
    "ICMP 8": IP(src=HERE, dst=FRANKFURT.address) / ICMP() / Raw(b"secret"),
    "protocol 253": IP(src=HERE, dst=FRANKFURT.address, proto=253) / Raw(b"secret"),
    "TCP 443 SYN": IPv6(src=HERE6, dst=FRANKFURT.address6) / TCP(dport=443, flags="S"),
    "UDP 443": IPv6(src=HERE6, dst=FRANKFURT.address6) / UDP(dport=443) / Raw(b"secret"),
}
# Sends each packet twice, as a whole frame and behind the kernel's own link header; the errnos of all.
SEND = """
def frames(packets):
    name, codes = [name for _, name in socket.if_nameindex() if name.endswith("h0")][0], set()
    for packet in packets:
        kind = 0x86DD if packet[0] >> 4 == 6 else 0x0800
        with socket.socket(17, 3, 0) as raw, socket.socket(17, 2, 0) as cooked:
            raw.bind((name, kind)), cooked.bind((name, kind))
            codes.add(attempt(raw.send, b"\\xff" * 6 + bytes(6) + struct.pack("!H", kind) + packet))
            codes.add(attempt(cooked.sendto, packet, (name, kind, 0, 1, b"\\xff" * 6)))
    return sorted(codes)
"""


def send(packets: list[Packet]) -> str:
    return f"{SEND}\nanswer['codes'] = frames({[bytes(packet) for packet in packets]!r})"


@pytest.fixture(scope="module")
def guarded(kernel: Kernel, host: int) -> Iterator[None]:
    """The host's uplinks have the filter, as the supervisor attaches it."""
    uplinks = Uplinks(kernel.instance, kernel.directory / "prog_uplink")
    names = run_inside(host, uplinks.ensure)
    assert len(names) == 2
    yield
    run_inside(host, uplinks.remove)


@pytest.fixture
def executor(kernel: Kernel, host: int, guarded: None) -> Iterator[Executor]:
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        yield executor


def test_frames_made_by_hand_do_not_leave(kernel: Kernel, executor: Executor, host: int, frankfurt: Far) -> None:
    """AF_PACKET, raw and cooked, of every protocol and family: nothing of the executor's arrives, all of a
    neighbour's does."""
    frankfurt.arrived()
    with kernel.outsider(host) as outsider:
        outsider.run(send(list(FRAMES.values())))
    # Broadcast frames of TCP and ICMP are seen by the witness and answered by nobody.
    assert sorted(frankfurt.arrived()) == sorted([*FRAMES, *FRAMES])
    with kernel.counted() as moved:
        assert executor.run(send(list(FRAMES.values()))) == {"codes": [errno.ENOBUFS]}
    assert frankfurt.arrived() == []
    assert moved == {"REFUSED_UPLINK": 2 * len(FRAMES)}
    refusals = kernel.refusals(executor)
    assert {one.reason for one in refusals} == {"REFUSED_UPLINK"}
    assert "3.120.0.10:53" in {str(one.destination) for one in refusals}


def test_frames_that_are_not_ip_do_not_leave_either(
    kernel: Kernel, executor: Executor, host: int, frankfurt: Far
) -> None:
    """ARP and ether types of one's own carry data as well as any."""
    frame = bytes(Ether(dst="ff:ff:ff:ff:ff:ff", type=0x88B5) / Raw(b"secret-by-ether"))
    # From an address that nobody has: with one of the host's, the far side would believe a wrong place for it, and its
    # answers would go there for seconds.
    arp = bytes(Ether(dst="ff:ff:ff:ff:ff:ff") / ARP(pdst="3.120.0.99", psrc="3.120.0.98") / Raw(b"secret-by-arp"))
    code = f"""
    name = [name for _, name in socket.if_nameindex() if name.endswith("h0")][0]
    with socket.socket(17, 3, 0) as raw:
        raw.bind((name, 0))
        for frame in ({frame!r}, {arp!r}):
            answer.setdefault("codes", []).append(attempt(raw.send, frame))
    """
    frankfurt.arrived()
    with kernel.outsider(host) as outsider:
        outsider.run(code)
    assert frankfurt.carried(b"secret-by") == 2
    with kernel.counted() as moved:
        assert executor.run(code) == {"codes": [errno.ENOBUFS] * 2}
    assert frankfurt.carried(b"secret-by") == 0
    assert moved == {"REFUSED_UPLINK": 2}


def test_a_packet_socket_of_a_nested_cgroup_is_the_executors(
    kernel: Kernel, executor: Executor, frankfurt: Far
) -> None:
    """The socket's cgroup decides, however deep below the executor's it was made."""
    nest(executor.path, executor.pid, "a", "b")
    frankfurt.arrived()
    with kernel.counted() as moved:
        executor.run(send([FRAMES["UDP 53"]]))
    assert moved == {"REFUSED_UPLINK": 2}
    assert frankfurt.arrived() == []


@pytest.mark.parametrize("address", ["3.120.0.10", "2a05:d014::10"])
def test_direct_flows_pass(kernel: Kernel, executor: Executor, frankfurt: Far, address: str) -> None:
    """A direct flow crosses the guarded uplink with all its bytes, and stops there too while the supervisor is
    silent."""
    plan = DirectPlan({executor.cgroup_id: AudienceEntry(1)}, {(1, 8): ((6300, 6300, 1),), (1, 17): ((6300, 6300, 1),)})
    kernel.tables.beat(3600)
    with frankfurt.listen(6300) as server, kernel.planned(plan):
        executor.start(
            f"sock = socket.create_connection(({address!r}, 6300))\nsock.sendall(bytes(200000))\nsock.shutdown(1)"
        )
        accepted, _ = server.accept()
        with accepted:
            total = 0
            while data := accepted.recv(1 << 16):
                total += len(data)
    kernel.tables.beat(0)
    assert total == 200000
    executor.result()


def test_a_packet_beside_a_direct_flow_does_not(kernel: Kernel, executor: Executor, frankfurt: Far) -> None:
    """A frame made by hand for the very destination of an open direct flow is not that flow's."""
    plan = DirectPlan({executor.cgroup_id: AudienceEntry(1)}, {(1, 8): ((6301, 6301, 1),)})
    kernel.tables.beat(3600)
    with frankfurt.listen(6301), kernel.planned(plan):
        executor.run("sock = socket.create_connection(('3.120.0.10', 6301))\nport = sock.getsockname()[1]")
        packet = IP(src=HERE, dst=FRANKFURT.address) / TCP(sport=1, dport=6301, flags="PA") / Raw(b"beside")
        frankfurt.arrived()
        with kernel.counted() as moved:
            executor.run(send([packet]))
        assert frankfurt.carried(b"beside") == 0
    kernel.tables.beat(0)
    assert moved == {"REFUSED_UPLINK": 2}


def test_neighbours_pass(kernel: Kernel, executor: Executor, host: int, frankfurt: Far) -> None:
    """TCP, UDP and ICMP of processes that nobody governs cross the guarded uplink, and so do answers of the kernel's
    own."""
    with frankfurt.listen(6302) as server, kernel.counted() as moved, kernel.outsider(host) as outsider:
        outsider.run(
            """
            sock = socket.create_connection(("3.120.0.10", 6302))
            sock.sendall(b"neighbour")
            socket.socket(2, 2).sendto(b"x", ("3.120.0.10", 53))
            """
        )
        with server.accept()[0] as accepted:
            assert accepted.recv(9) == b"neighbour"
    assert moved == {}
    assert "UDP 53" in frankfurt.arrived()


def test_an_interface_that_goes_meanwhile_is_no_fault(
    kernel: Kernel, host: int, guarded: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that was listed and is gone when its turn comes is left out; the others are guarded, and given back."""
    uplinks = Uplinks(f"{kernel.instance}-other", kernel.directory / "prog_uplink")
    real, gone = interfaces._interfaces, [(4242, "gone")]
    monkeypatch.setattr(interfaces, "_interfaces", lambda route: [*(gone.pop() for _ in list(gone)), *real(route)])
    assert len(run_inside(host, uplinks.ensure)) == 2
    assert gone == []
    run_inside(host, uplinks.remove)
    assert set(run_inside(host, uplinks.guarded).values()) == {0}
    gone.append((4242, "gone"))
    monkeypatch.setattr(interfaces, "_is_gone", lambda *_: False)
    with pytest.raises(KernelError, match="cannot guard interface gone"):
        run_inside(host, uplinks.ensure)
