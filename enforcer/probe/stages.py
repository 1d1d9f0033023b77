"""What is prepared outside for a technique that needs more than an address, by the name the catalogue gives it."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from ipaddress import ip_interface
from typing import Any

from enforcer.probe.craft import crafted
from enforcer.probe.ground import EMBEDDED, PEER, Ground
from enforcer.probe.neighbour import Neighbour
from enforcer.probe.sight import QUIET

# The same where a process outside may have to forward first.
DETOUR = 0.08
# The same for a process that waits until its executor has ended.
_OUTLIVE = 1.2
# Where the stub resolver of the agent host is, and seconds it waits for a question.
_STUB, _STUB_PATIENCE = "127.0.0.53", 0.5


class Unprepared(Exception):
    """This host lacks what the stage needs; the technique is skipped for this reason."""


@dataclass(slots=True)
class Scene:
    """An attempt about to be made: who, where, and with what to tell it by."""

    ground: Ground
    neighbour: Neighbour
    user: str
    token: str
    port: int
    inside: bool


@dataclass(slots=True)
class Props:
    """What a stage hands to the technique, and how its success shows.

    `values` go into its Case. `stdin` and `pass_fds` are for an executor of its own; `terminal`: stdin is to be its
    controlling terminal. `reached`, asked afterwards: was something outside reached in a way that only we can see? Then
    the helper outside tells the far side. `believed`: it is told as well when the technique itself says that it
    succeeded, as nobody else can see that. `quiet`: seconds to wait for a frame.
    """

    values: dict[str, Any] = field(default_factory=dict)
    stdin: int | None = None
    pass_fds: tuple[int, ...] = ()
    terminal: bool = False
    reached: Callable[[], bool] = lambda: False
    believed: bool = False
    quiet: float = DETOUR


Stage = Callable[[Scene], AbstractContextManager[Props]]


@contextmanager
def _nothing(_scene: Scene) -> Iterator[Props]:
    yield Props(quiet=QUIET)


@contextmanager
def _embedded(scene: Scene) -> Iterator[Props]:
    """The far side's other addresses."""
    broadcast = str(ip_interface(PEER.ipv4).network.broadcast_address)
    local = scene.ground.link.peer_link_local
    yield Props({**EMBEDDED, "link_local": local, "broadcast": broadcast}, quiet=QUIET)


@contextmanager
def _crafted(scene: Scene) -> Iterator[Props]:
    """Packets made by hand."""
    yield Props(crafted(scene.ground.link, scene.token, scene.port), quiet=QUIET)


@contextmanager
def _neighbour(scene: Scene) -> Iterator[Props]:
    """Where the helper outside can be reached; it knows what to send when it is only nudged."""
    scene.neighbour.arm(scene.token)
    yield Props(scene.neighbour.values)


@contextmanager
def _inbound(scene: Scene) -> Iterator[Props]:
    """The far side keeps dialling the agent host on the attempt's port."""
    over = threading.Event()

    def dial() -> None:
        while not over.is_set():
            with suppress(OSError), socket.create_connection((scene.ground.link.host4, scene.port), 0.3) as client:
                client.recv(100)
            over.wait(0.05)

    def hang_up() -> bool:
        over.set()
        return False

    thread = threading.Thread(target=scene.ground.at_far_side, args=(dial,))
    thread.start()
    try:
        yield Props(scene.neighbour.values, reached=hang_up)
    finally:
        over.set()
        thread.join()


def _connected(scene: Scene) -> socket.socket:
    """A socket of the agent host, connected to the far side."""
    return scene.ground.at_host(lambda: socket.create_connection((PEER.address, scene.port), 2))


@contextmanager
def _inherited_socket(scene: Scene) -> Iterator[Props]:
    """A connected socket left open for the executor."""
    with _connected(scene) as sock:
        yield Props({"descriptor": sock.fileno()}, pass_fds=(sock.fileno(),), quiet=QUIET)


@contextmanager
def _inherited_namespace(scene: Scene) -> Iterator[Props]:
    """The agent host's network namespace left open for the executor."""
    descriptor = os.open(scene.ground.world.path(), os.O_RDONLY)
    try:
        yield Props({"descriptor": descriptor}, pass_fds=(descriptor,), quiet=QUIET)
    finally:
        os.close(descriptor)


@contextmanager
def _stdin_socket(scene: Scene) -> Iterator[Props]:
    """A connected socket as standard input."""
    with _connected(scene) as sock:
        sock.settimeout(None)
        yield Props(stdin=sock.fileno(), quiet=QUIET)


@contextmanager
def _stdin_unconnected(scene: Scene) -> Iterator[Props]:
    """An unconnected datagram socket of the agent host as standard input."""
    with scene.ground.at_host(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as sock:
        yield Props(stdin=sock.fileno(), quiet=QUIET)


@contextmanager
def _stdin_handing(scene: Scene) -> Iterator[Props]:
    """A Unix socket as standard input, with a connected socket waiting in it."""
    ours, theirs = socket.socketpair()
    with ours, theirs, _connected(scene) as sock:
        socket.send_fds(ours, [b"x"], [sock.fileno()])
        yield Props(stdin=theirs.fileno(), quiet=QUIET)


@contextmanager
def _terminal(_scene: Scene) -> Iterator[Props]:
    """A terminal as standard input, from which somebody outside goes on reading when the executor has ended."""
    master, slave = os.openpty()
    reader = os.open(os.ttyname(slave), os.O_RDONLY | os.O_NOCTTY | os.O_NONBLOCK)

    def typed() -> bool:
        with suppress(OSError):
            return _scene.token.encode() in os.read(reader, 1000)
        return False

    try:
        yield Props(stdin=slave, terminal=True, reached=typed)
    finally:
        for descriptor in (reader, slave, master):
            os.close(descriptor)


@contextmanager
def _host_namespace(scene: Scene) -> Iterator[Props]:
    """The path of the agent host's network namespace."""
    yield Props({"namespace": scene.ground.world.path()}, quiet=QUIET)


@contextmanager
def _proxy(scene: Scene) -> Iterator[Props]:
    """The proxy's port. On the agent host something listens there that forwards whatever it is told, unless the
    enforcer itself does."""
    with ExitStack() as stack:
        address, server = "127.0.0.1", None
        try:
            server = _listen(scene, address)
        except OSError:
            # The enforcer's own, for attached executors: a control needs another one to show what could be done.
            address = address if scene.inside else "127.0.0.2"
            if not scene.inside:
                server = _listen(scene, address)
        if server is not None:
            stack.enter_context(server)
            thread = threading.Thread(target=_forward, args=(server, scene))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown, socket.SHUT_RDWR)
        yield Props({"proxy_address": address, "proxy_port": scene.ground.proxy_port})


def _listen(scene: Scene, address: str) -> socket.socket:
    return scene.ground.at_host(lambda: socket.create_server((address, scene.ground.proxy_port)))


def _forward(server: socket.socket, scene: Scene) -> None:
    """Answers connections until the listener is shut down, and tells the far side that there was one."""
    while True:
        try:
            client, _ = server.accept()
        except OSError:
            return
        with client, suppress(OSError):
            client.settimeout(2)
            client.recv(4096)
            scene.neighbour.relay(scene.token)
            client.sendall(b"heard")


@contextmanager
def _stub(scene: Scene) -> Iterator[Props]:
    """A resolver on the agent host's loopback, as systemd-resolved is one, that passes questions on to the far side."""
    with ExitStack() as stack:
        server, onward = (
            stack.enter_context(scene.ground.at_host(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)))
            for _ in range(2)
        )
        server.bind((_STUB, 53))
        server.settimeout(_STUB_PATIENCE)

        def forward() -> None:
            with suppress(OSError):
                onward.sendto(server.recv(4096), (PEER.address, 53))

        thread = threading.Thread(target=forward)
        thread.start()
        try:
            yield Props({"stub": _STUB})
        finally:
            thread.join()


@contextmanager
def _outlive(_scene: Scene) -> Iterator[Props]:
    """Time enough for somebody who waits until the executor has ended."""
    yield Props(quiet=_OUTLIVE)


STAGES: dict[str, Stage] = {
    "": _nothing,
    "crafted": _crafted,
    "embedded": _embedded,
    "host-namespace": _host_namespace,
    "inbound": _inbound,
    "inherited-namespace": _inherited_namespace,
    "inherited-socket": _inherited_socket,
    "neighbour": _neighbour,
    "outlive": _outlive,
    "stub": _stub,
    "proxy": _proxy,
    "stdin-handing": _stdin_handing,
    "stdin-socket": _stdin_socket,
    "stdin-unconnected": _stdin_unconnected,
    "terminal": _terminal,
}
