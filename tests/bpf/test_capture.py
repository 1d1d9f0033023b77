"""Step 1, capture, on this machine's kernel: real programs, real sockets, throw-away cgroups."""

from __future__ import annotations

import errno
import os
import subprocess
from pathlib import Path

import pytest

from enforcer.capture import programs
from enforcer.capture.original_dst import flow_record
from enforcer.capture.tables import Tables
from tests.bpf.conftest import TABLE
from tests.fixtures.kernel import Kernel, Prefixes, destination

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize(
    ("family", "address", "listener", "expected", "region_set"),
    [
        ("AF_INET", "3.120.0.10", 4, "3.120.0.10 5432", 8),
        ("AF_INET", "3.121.0.10", 4, "3.121.0.10 5432", 7),
        ("AF_INET", "9.9.9.9", 4, "9.9.9.9 5432", 0),
        ("AF_INET6", "::ffff:3.120.0.10", 4, "3.120.0.10 5432", 8),
        ("AF_INET6", "2a05:d014::1", 6, "2a05:d014::1 5432", 17),
        ("AF_INET6", "2a05:d014:1::1", 6, "2a05:d014:1::1 5432", 18),
        ("AF_INET6", "2a00::1", 6, "2a00::1 5432", 0),
    ],
)
def test_a_connection_reaches_the_listener_with_its_original_destination_and_longest_prefix(
    kernel: Kernel, family: str, address: str, listener: int, expected: str, region_set: int
) -> None:
    """The accepted socket tells destination, region set, executor and namespace of the connection, in every family."""
    with kernel.executor() as executor:
        executor.start(f"sock, answer['errno'] = connect(socket.{family}, {address!r}, 5432)\nsock.recv(1)")
        accepted, record = executor.accept(listener)
        accepted.close()
        assert record is not None
        assert destination(record) == expected
        assert record.region_set == region_set
        assert record.executor == executor.cgroup_id
        assert record.netns == executor.cookie
        assert record.uid == 0
        assert executor.result() == {"errno": 0}


def test_the_client_sees_the_peer_it_asked_for(kernel: Kernel) -> None:
    """getpeername answers with the original destination in IPv4, IPv6 and IPv4-mapped sockets."""
    with kernel.executor() as executor:
        executor.start(
            """
            peers = []
            for family, address in ((2, "3.120.0.10"), (10, "2a05:d014::1"), (10, "::ffff:8.8.8.8")):
                sock, _ = connect(family, address, 443)
                peers.append(sock.getpeername()[:2])
            answer["peers"] = peers
            """.replace("\n            ", "\n")
        )
        assert executor.result() == {"peers": [["3.120.0.10", 443], ["2a05:d014::1", 443], ["::ffff:8.8.8.8", 443]]}


@pytest.mark.parametrize(("family", "address"), [("AF_INET", "224.0.0.1"), ("AF_INET6", "2001:db8::1")])
def test_a_region_set_whose_coarse_verdict_is_refuse_gets_eperm_and_an_event(
    kernel: Kernel, family: str, address: str
) -> None:
    """The refusal is an immediate EPERM, counted by reason and queued with who, where and why."""
    kernel.tables.pop_refusals(1000)
    before = kernel.tables.counters()["REFUSED_REGION_CLASS"]
    with kernel.executor() as executor:
        answer = executor.run(f"_, answer['errno'] = connect(socket.{family}, {address!r}, 80)")
        assert answer == {"errno": errno.EPERM}
        assert kernel.tables.counters()["REFUSED_REGION_CLASS"] == before + 1
        refusal = kernel.tables.pop_refusals(10)[-1]
        assert (str(refusal.destination.address), refusal.destination.port) == (address, 80)
        assert refusal.reason == "REFUSED_REGION_CLASS"
        assert refusal.executor == executor.cgroup_id


def test_a_namespace_without_listener_is_refused(kernel: Kernel) -> None:
    """No listener known for the socket's namespace: EPERM for every destination, loopback included."""
    with kernel.executor(listening=False) as executor:
        answer = executor.run("answer['e'] = [connect(2, a, 80)[1] for a in ('3.120.0.10', '127.0.0.1')]")
    assert answer == {"e": [errno.EPERM, errno.EPERM]}


def test_the_executor_cannot_dial_the_listener_itself(kernel: Kernel) -> None:
    """A direct connect to the proxy's port is refused on every loopback spelling."""
    with kernel.executor() as executor:
        answer = executor.run(
            f"""
for address in ("127.0.0.1", "127.9.9.9", "0.0.0.0"):
    answer[address] = connect(2, address, {executor.port})[1]
for address in ("::1", "::", "::ffff:127.0.0.1"):
    answer[address] = connect(10, address, {executor.port})[1]
"""
        )
    assert set(answer.values()) == {errno.EPERM}


def test_the_executors_own_loopback_servers_work(kernel: Kernel) -> None:
    """Loopback inside the namespace is the executor's own and is not proxied."""
    with kernel.executor() as executor:
        answer = executor.run(
            """
server = socket.create_server(("127.0.0.1", 8080))
answer["errno"] = connect(2, "127.0.0.1", 8080)[1]
"""
        )
    assert answer == {"errno": 0}


def test_udp_and_raw_sockets_reach_nothing(kernel: Kernel) -> None:
    """UDP connect is refused; unconnected UDP, raw and packet sockets find no route out of the namespace."""
    with kernel.executor() as executor:
        answer = executor.run(
            """
def attempt(action):
    try:
        action()
    except OSError as error:
        return error.errno
    return 0
answer["udp connect"] = attempt(lambda: socket.socket(2, 2).connect(("8.8.8.8", 53)))
answer["udp send"] = attempt(lambda: socket.socket(2, 2).sendto(b"x", ("8.8.8.8", 53)))
answer["icmp"] = attempt(lambda: socket.socket(2, 3, 1).sendto(b"x" * 8, ("8.8.8.8", 0)))
"""
        )
    assert answer == {"udp connect": errno.EPERM, "udp send": errno.EPERM, "icmp": errno.EPERM}


def test_a_socket_connected_again_gets_its_second_destination(kernel: Kernel) -> None:
    """State is overwritten at each connect(): AF_UNSPEC and a new connect lead to the new destination's record."""
    with kernel.executor() as executor:
        executor.start(
            """
import ctypes
sock, _ = connect(2, "3.120.0.10", 80)
sock.recv(1)
libc.connect(sock.fileno(), struct.pack("=H14x", 0), 16)
sock.connect(("8.8.8.8", 81))
sock.recv(1)
"""
        )
        first, record = executor.accept()
        assert destination(record) == "3.120.0.10 80"
        first.send(b"x")
        second, record = executor.accept()
        assert destination(record) == "8.8.8.8 81"
        first.close()
        second.close()


def test_fast_open_data_arrives_with_its_destination(kernel: Kernel) -> None:
    """The mapping is written before the SYN, so that even data in the SYN is accepted with a destination."""
    with kernel.executor() as executor:
        executor.start("sock = socket.socket()\nsock.sendto(b'hello', 0x20000000, ('8.8.8.8', 443))\nsock.recv(1)")
        accepted, record = executor.accept()
        assert destination(record) == "8.8.8.8 443"
        assert accepted.recv(5) == b"hello"
        accepted.close()


def test_an_accepted_socket_without_mapping_is_an_error(kernel: Kernel) -> None:
    """A connection that was not captured has no original destination, and never gets the kernel's own answer."""
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()):
        accepted, _ = server.accept()
        with accepted:
            assert flow_record(accepted) is None
            with pytest.raises(OSError, match=r"not permitted|No such file|Protocol not available"):
                accepted.getsockopt(socket.SOL_IP, 80, 16)


def test_so_original_dst_answers_as_netfilter_does(kernel: Kernel) -> None:
    """SO_ORIGINAL_DST gives the sockaddr that transparent proxies expect, in both families."""
    import socket

    with kernel.executor() as executor:
        executor.start("a, _ = connect(2, '8.8.8.8', 443)\nb, _ = connect(10, '2a05:d014::1', 80)\na.recv(1)")
        four, _ = executor.accept(4)
        six, _ = executor.accept(6)
        assert four.getsockopt(socket.SOL_IP, 80, 16) == bytes.fromhex("020001bb080808080000000000000000")
        expected = "0a000050" + "00000000" + "2a05d014000000000000000000000001" + "00000000"
        assert six.getsockopt(socket.IPPROTO_IPV6, 80, 28) == bytes.fromhex(expected)
        four.close()
        six.close()


def test_closing_forgets_the_flow(kernel: Kernel) -> None:
    """A closed connection leaves no entry behind, whoever closes first, also when connect() failed."""
    with kernel.executor() as executor:
        executor.start("for port in range(20): connect(2, '3.120.0.10', 1000 + port)[0].close()")
        accepted = [executor.accept()[0] for _ in range(20)]
        executor.result()
        for sock in accepted:
            sock.close()
    assert kernel.tables.open_flows() == 0


def test_a_new_generation_swaps_tables_at_once(kernel: Kernel) -> None:
    """After a swap the next connect is judged by the new table and carries its number."""
    number = kernel.load(Prefixes({"3.120.0.0/14": 55}))
    try:
        with kernel.executor() as executor:
            executor.start("kept = connect(2, '3.120.0.10', 80)[0].recv(1)")
            accepted, record = executor.accept()
            accepted.close()
            assert record is not None
            assert (record.region_set, record.generation) == (55, number)
    finally:
        kernel.load(TABLE)


def test_the_generation_in_force_can_be_put_in_force_again(kernel: Kernel) -> None:
    """A reload that changes only policy keeps the tries: the other slot gets the same ones, under the next number."""
    number = kernel.load_again()
    with kernel.executor() as executor:
        executor.start("kept = connect(2, '3.120.0.10', 80)[0].recv(1)")
        accepted, record = executor.accept()
        accepted.close()
        assert record is not None
        assert (record.region_set, record.generation) == (8, number)


def test_a_region_set_missing_from_the_coarse_table_is_refused(kernel: Kernel) -> None:
    """A slot never written is zero, and zero refuses."""
    kernel.load(Prefixes({"3.120.0.0/14": 200}))
    try:
        with kernel.executor() as executor:
            answer = executor.run("_, answer['errno'] = connect(2, '3.120.0.10', 80)")
        assert answer == {"errno": errno.EPERM}
    finally:
        kernel.load(TABLE)


def test_restarts_leave_one_program_per_hook_and_counters_continue(kernel: Kernel) -> None:
    """Three installs update the links in place: one program each, one pinned set, no second link."""
    with kernel.executor() as executor:
        executor.run("connect(2, '224.0.0.1', 80)")
    for _ in range(3):
        before = kernel.tables.counters()
        older = kernel.tables
        kernel.install()
        older.close()
        assert kernel.tables.counters() == before
        assert set(programs.attached(kernel.pins, kernel.groups).values()) == {1}
    assert kernel.pins.sets() == [kernel.directory]
    assert len(kernel.pins.linked()) == sum(hook.where is programs.Where.EXECUTORS for hook in programs.HOOKS)
    with kernel.executor() as executor:
        executor.start("kept = connect(2, '3.120.0.10', 80)[0].recv(1)")
        accepted, record = executor.accept()
        accepted.close()
        assert destination(record) == "3.120.0.10 80"


def test_a_failed_load_leaves_the_old_set_in_force(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """When compiling or filling fails, nothing is switched and the new set is removed again."""
    sets = kernel.pins.sets()

    def fail(_directory: Path) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    with pytest.raises(programs.KernelError, match="Cannot allocate memory"):
        programs.load(kernel.pins, fail)
    assert kernel.pins.sets() == sets
    with kernel.executor() as executor:
        executor.start("kept = connect(2, '3.120.0.10', 80)[0].recv(1)")
        accepted, record = executor.accept()
        accepted.close()
        assert record is not None


def test_enforcement_outlives_every_process_of_ours(kernel: Kernel) -> None:
    """The links are pinned: with nobody holding a descriptor the hooks still refuse."""
    listing = subprocess.run(
        ["bpftool", "cgroup", "list", str(kernel.groups.executors)], capture_output=True, text=True, check=True
    ).stdout
    for hook in programs.HOOKS:
        if hook.where is programs.Where.EXECUTORS:
            assert hook.program in listing
    kernel.tables.delete_listener(0, 0)
    with kernel.executor(listening=False) as executor:
        answer = executor.run("_, answer['errno'] = connect(2, '3.120.0.10', 80)")
    assert answer == {"errno": errno.EPERM}


def test_all_maps_open_again_by_their_pins(kernel: Kernel) -> None:
    """A second process finds the same maps under the pin directory."""
    again = Tables(kernel.directory)
    assert again.counters() == kernel.tables.counters()
    again.close()
