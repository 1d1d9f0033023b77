"""Process trees that policies name: taken over where they run, governed before their first packet, given back."""

from __future__ import annotations

import os
import secrets
import signal
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import MASKED_CARD, Watch, eventually, session_list, url, write_policy
from tests.system.attaching import Group, attached, events, governed, made_slice, policy_for, rows
from tests.system.far_side import RAW_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world


@pytest.fixture
def slice_(world: World) -> Iterator[Path]:
    with made_slice() as path:
        yield path


def test_a_running_tree_is_taken_over_and_governed_as_its_policy_says(
    world: World, slice_: Path, virginia: Watch
) -> None:
    """What runs already is masked, allowed and denied from the start of the supervisor on; its neighbour is not."""
    agent, neighbour = Group(world, slice_, "agent-1.service"), Group(world, slice_, "other.service")
    with agent.shell() as inside, neighbour.shell() as beside:
        assert "frankfurt" not in inside.curl(url(VIRGINIA.address)).stdout
        assert inside.curl(url(VIRGINIA.address)).returncode == 0
        with governed(world, slice_) as instance:
            assert attached(instance) == [agent.relative]
            virginia.arrived()
            assert MASKED_CARD in inside.curl(url(FRANKFURT.address, "/orders")).stdout
            denied = inside.curl(url(VIRGINIA.address))
            assert "forbids" in denied.stdout or "denied" in denied.stdout
            assert virginia.arrived() == []
            assert beside.curl(url(VIRGINIA.address)).returncode == 0
            assert virginia.arrived() != []
        assert inside.curl(url(VIRGINIA.address)).returncode == 0


def test_connections_that_exist_are_closed_at_the_takeover(world: World, slice_: Path, virginia: Watch) -> None:
    """Nobody judged them: the process gets an error, and nothing more of it arrives."""
    agent = Group(world, slice_, "agent-1.service")
    with agent.shell() as inside:
        inside.run(f"import socket; old = socket.create_connection(('{VIRGINIA.address}', {RAW_PORT})); old.recv(64)")
        with governed(world, slice_) as instance:
            virginia.arrived()
            outcome = inside.run(
                """
                old.settimeout(3)
                try:
                    old.sendall(b"late")
                    answer = old.recv(64).hex() or "end"
                except OSError as error:
                    answer = type(error).__name__
                """
            )
            assert outcome in ("ConnectionAbortedError", "BrokenPipeError", "ConnectionResetError", "end")
            assert not [line for line in virginia.arrived() if "SYN" in line or "UDP" in line]
            kinds = lambda: [row for row in events(instance) if row["kind"] == "executor attached"]  # noqa: E731
            assert eventually(kinds, "it is recorded")[0]["detail"]["connections_closed"] == 1


def test_the_hosts_loopback_is_denied_but_for_its_own_and_what_the_policy_names(world: World, slice_: Path) -> None:
    """A service of the host: refused, until a rule for region HOST names its port; the tree's own server: reached."""
    rules = (
        '      - name: local\n        to: {region: [HOST], port: ["7001"], protocol: [opaque]}\n        action: allow'
    )
    agent, neighbour = Group(world, slice_, "agent-1.service"), Group(world, slice_, "other.service")
    serve = """
        import socket, threading
        def serve(port):
            server = socket.create_server(("127.0.0.1", port))
            def loop():
                while True:
                    sock, _ = server.accept(); sock.sendall(b"hello"); sock.close()
            threading.Thread(target=loop, daemon=True).start()
        for port in ports: serve(port)
        """
    ask = """
        answer = {}
        for port in ports:
            try:
                with socket.create_connection(("127.0.0.1", port), 5) as sock:
                    sock.settimeout(5)
                    answer[port] = sock.recv(64).decode()
            except OSError as error:
                answer[port] = type(error).__name__
        """
    with agent.shell() as inside, neighbour.shell() as beside, governed(world, slice_, rules):
        beside.run(serve, ports=[7001, 7002])
        inside.run(serve, ports=[7003])
        answers = inside.run(ask, ports=[7001, 7002, 7003])
    assert answers == {"7001": "hello", "7002": "PermissionError", "7003": "hello"}


def test_trees_in_one_namespace_have_listeners_of_their_own(world: World, slice_: Path) -> None:
    """Two trees, also after a restart: each is served at its own port, and neither's flows are the other's."""
    one, two = Group(world, slice_, "agent-1.service"), Group(world, slice_, "agent-2.service")
    with one.shell() as first, two.shell() as second, governed(world, slice_) as instance:
        for restarted in (False, True):
            if restarted:
                instance.stop()
                instance.start()
            ports = [port for tree in instance.status()["attached"] for port in tree["ports"]]
            assert len(set(ports)) == 2
            for _ in range(5):
                assert MASKED_CARD in first.curl(url(FRANKFURT.address, "/orders")).stdout
                assert MASKED_CARD in second.curl(url(FRANKFURT.address, "/orders")).stdout


def test_release_gives_back_one_tree_and_undo_takes_it_again(world: World, slice_: Path, virginia: Watch) -> None:
    """Released it is not governed, also after a restart; its neighbours are; undone it is as before."""
    one, two = Group(world, slice_, "agent-1.service"), Group(world, slice_, "agent-2.service")
    with one.shell() as first, two.shell() as second, governed(world, slice_) as instance:
        released = instance.run("release", "agent-1.service")
        assert released.returncode == 0, released.stderr
        assert first.curl(url(VIRGINIA.address)).returncode == 0
        virginia.arrived()
        instance.stop()
        instance.start()
        assert first.curl(url(VIRGINIA.address)).returncode == 0
        assert attached(instance) == [two.relative]
        assert instance.status()["released"] == [one.relative]
        virginia.arrived()
        second.curl(url(VIRGINIA.address))
        assert virginia.arrived() == []
        assert instance.run("release", "--undo", "agent-1.service").returncode == 0
        first.curl(url(VIRGINIA.address))
        assert virginia.arrived() == []
        unknown = instance.run("release", "nobody")
        assert unknown.returncode == 2
        assert unknown.stderr.startswith("enforcer: 'nobody' is no attached executor; name one of:")


def test_direct_flows_leave_without_proxy_and_are_recorded_with_their_bytes(
    world: World, slice_: Path, frankfurt: Watch
) -> None:
    """A rule with `path: direct`: the server sees the host itself; kernel events become a session with an end."""
    rules = (
        f'      - name: straight\n        to: {{region: [DE], port: ["{RAW_PORT}"]}}\n'
        "        action: allow\n        path: direct"
    )
    agent = Group(world, slice_, "agent-1.service")
    with agent.shell() as inside, governed(world, slice_, rules) as instance:
        sent = 100_000
        received = inside.run(
            """
            import socket
            with socket.create_connection((host, port)) as sock:
                sock.sendall(b"x" * sent)
                sock.shutdown(socket.SHUT_WR)
                answer = len(b"".join(iter(lambda: sock.recv(65536), b"")))
            """,
            host=FRANKFURT.address,
            port=RAW_PORT,
            sent=sent,
        )
        assert frankfurt.arrived() != []
        assert instance.status()["counters"]["DIRECT_PASSED"] == 1
        sessions = eventually(
            lambda: [row for row in session_list(instance) if row["protocol"] == "direct"], "the session is recorded"
        )
        assert [(row["rule"], row["destination"]) for row in sessions] == [
            ("straight", f"{FRANKFURT.address}:{RAW_PORT}")
        ]
        end = eventually(lambda: rows(instance, "session_ends"), "its end is recorded")[0]
        assert (end["bytes_up"], end["bytes_down"]) == (sent, received)
        assert end["duration_ns"] > 0

        hold = f"sock = socket.create_connection((host, {RAW_PORT}), 10)\nanswer = len(sock.recv(100))"
        assert inside.run(hold, host=FRANKFURT.address) > 0
        ask = """
        try:
            sock.sendall(b"?")
            answer = sock.recv(10).decode()
        except OSError as error:
            answer = type(error).__name__
        """
        reload(instance, slice_, rules)
        assert inside.run(ask) == "?", "what may still go directly stays"
        reload(instance, slice_)
        eventually(lambda: inside.run(ask) in ("ConnectionAbortedError", "ConnectionResetError"), "the flow is ended")


def reload(instance: Instance, slice_: Path, rules: str = "") -> None:
    """Another policy, and a signal; returns when its generation is in force."""
    write_policy(instance, "attached", policy_for(slice_, f"{rules}\n      # {secrets.token_hex(4)}"))
    before = instance.status()["generation"]
    os.kill(instance.pid, signal.SIGHUP)
    eventually(lambda: instance.status()["generation"] != before, "the new generation")


@pytest.mark.full
def test_direct_flows_are_refused_while_the_supervisor_is_silent(world: World, slice_: Path, frankfurt: Watch) -> None:
    """Killed, it no longer says that it lives: after the limit nothing goes direct, until it is back."""
    rules = (
        f'      - name: straight\n        to: {{region: [DE], port: ["{RAW_PORT}"]}}\n'
        "        action: allow\n        path: direct"
    )
    connect = f"""
        import socket
        try:
            socket.create_connection(("{FRANKFURT.address}", {RAW_PORT}), 3).close()
            answer = "connected"
        except OSError as error:
            answer = type(error).__name__
        """
    agent = Group(world, slice_, "agent-1.service")
    with agent.shell() as inside, governed(world, slice_, rules) as instance:
        assert inside.run(connect) == "connected"
        instance.kill()
        assert inside.run(connect) == "connected"
        eventually(lambda: inside.run(connect) == "PermissionError", "direct flows are refused")
        frankfurt.arrived()
        assert inside.run(connect) == "PermissionError"
        assert frankfurt.arrived() == []
        instance.start()
        assert inside.run(connect) == "connected"


def test_frames_that_no_cgroup_hook_sees_are_stopped_at_the_uplink(world: World, slice_: Path, virginia: Watch) -> None:
    """AF_PACKET as root in an attached tree: frames do not leave by the host's interface; its neighbour's do."""
    resolve = f'getmacbyip("{VIRGINIA.address}")'
    send = f"""
        from scapy.layers.inet import IP, UDP
        from scapy.layers.l2 import Ether, getmacbyip
        from scapy.config import conf
        from scapy.sendrecv import sendp
        link = conf.route.route("{VIRGINIA.address}")[0]
        mac = {resolve}
        sendp(Ether(dst=mac) / IP(dst="{VIRGINIA.address}") / UDP(dport=4242) / b"frame", iface=link, verbose=False)
        answer = mac
        """
    agent, neighbour = Group(world, slice_, "agent-1.service"), Group(world, slice_, "other.service")
    with agent.shell() as inside, neighbour.shell() as beside:
        mac = beside.run(send)
        assert "UDP 4242" in virginia.arrived()
        with governed(world, slice_) as instance:
            # Where the kernel takes LSM programs it comes to no frame: there is no socket to write it to.
            reason = "REFUSED_FAMILY" if instance.status()["lsm"]["asked"] else "REFUSED_UPLINK"
            before = instance.status()["counters"][reason]
            inside.run(
                "try:\n"
                + textwrap.indent(textwrap.dedent(send.replace(resolve, repr(mac))), "    ")
                + "\nexcept OSError: pass"
            )
            assert virginia.arrived() == []
            assert instance.status()["counters"][reason] > before
            beside.run(send)
            assert "UDP 4242" in virginia.arrived()
            assert set(instance.status()["uplinks"].values()) == {1}
