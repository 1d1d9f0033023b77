"""The enforcer as the target: its programs, maps, processes, socket, files and proxy, and the moments it changes."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import signal
import socket
import ssl
import struct
import time
from pathlib import Path

from enforcer.probe.inside.kit import PATIENCE, Case, Refused, stream, syscall, technique

_PINS = "bpf() needs a capability the executor lacks; the pins are for root outside only and not in sight"
_SIGNAL = "the executor sees no process of the host"
_CONTROL = "the control socket answers processes with CAP_SYS_ADMIN only, and is not in sight"
_PROXY = "the verdict rests on the address that was connected to, never on what the client says"
_CLOSED = "what is attached stays attached; without a proxy there is nowhere to go"
# include/uapi/linux/bpf.h
_UPDATE, _GET, _DETACH = 2, 7, 34


def _bpf(command: int, attributes: bytes) -> int:
    buffer = ctypes.create_string_buffer(attributes.ljust(128, b"\0"), 128)
    return syscall("bpf", command, buffer, 128)


def _pinned(directory: str) -> list[tuple[str, int]]:
    """Path and descriptor of everything pinned below a directory. Raises OSError when it cannot be opened."""
    found = []
    paths = [Path(where, name) for where, _, names in os.walk(directory) for name in names]
    for path in paths:
        text = ctypes.create_string_buffer(bytes(path))
        found.append((str(path), _bpf(_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))))
    if not found:
        raise FileNotFoundError(2, f"no pins at {directory}")
    return found


@technique("programs-detached", "enforcer", _PINS, users="root", stage="pins", last=True)
def programs_detached(c: Case) -> None:
    """The kernel programs detached through their pinned links."""
    detached = 0
    for _path, descriptor in _pinned(c.values["pins"]):
        try:
            _bpf(_DETACH, struct.pack("=I", descriptor))
            detached += 1
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
                raise  # those are maps, programs, and links that cannot be detached
    if not detached:
        raise Refused("nothing could be detached")


@technique("pins-removed", "enforcer", _PINS, users="root", stage="pins", last=True)
def pins_removed(c: Case) -> None:
    """The pinned links unlinked, so that nothing keeps the programs."""
    paths = [Path(where, name) for where, _, names in os.walk(c.values["pins"]) for name in names]
    if not paths:
        raise FileNotFoundError(2, "no pins in sight")
    for path in paths:
        path.unlink()


@technique("map-written", "enforcer", _PINS, users="root", stage="map")
def map_written(c: Case) -> None:
    """A pinned map written to: a listener where there is none."""
    text = ctypes.create_string_buffer(c.values["map"].encode())
    descriptor = _bpf(_GET, struct.pack("=QII", ctypes.addressof(text), 0, 0))
    key = ctypes.create_string_buffer(bytes.fromhex(c.values["key"]))
    value = ctypes.create_string_buffer(c.values["value_size"])
    attributes = struct.pack("=I4xQQQ", descriptor, ctypes.addressof(key), ctypes.addressof(value), 0)
    _bpf(_UPDATE, attributes)


@technique("control-socket", "enforcer", _CONTROL, users="root", stage="control-socket")
def control_socket(c: Case) -> None:
    """The supervisor's control socket, asked a question."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(c.values["control_socket"])
        sock.send(b'{"op": "status"}')
        if not sock.recv(1 << 17):
            raise Refused("closed without an answer")


@technique("supervisor-killed", "enforcer", _SIGNAL, stage="supervisor", users="root")
def supervisor_killed(c: Case) -> None:
    """SIGKILL to the supervisor."""
    os.kill(c.values["supervisor"], signal.SIGKILL)


@technique("supervisor-stopped", "enforcer", _SIGNAL, stage="supervisor", users="root")
def supervisor_stopped(c: Case) -> None:
    """SIGSTOP to the supervisor."""
    os.kill(c.values["supervisor"], signal.SIGSTOP)


@technique("worker-killed", "enforcer", _SIGNAL, stage="worker", users="root")
def worker_killed(c: Case) -> None:
    """SIGKILL to the proxy's workers."""
    for pid in c.values["workers"]:
        os.kill(pid, signal.SIGKILL)


@technique(
    "policy-edited", "enforcer", "the enforcer's files are not the executor's to write", users="root", stage="policy"
)
def policy_edited(c: Case) -> None:
    """The policy file, given another rule."""
    with Path(c.values["policy"]).open("a") as policy:
        policy.write(f"# {c.token}\n")


@technique("port-taken", "enforcer", "the port is taken; who has it gets only its own connections", stage="proxy")
def port_taken(c: Case) -> None:
    """The proxy's port bound beside the proxy, SO_REUSEPORT, before connecting."""

    def bind() -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            server.bind(("127.0.0.1", c.values["proxy_port"] if c.inside else c.port))
            server.listen(16)

    c.step(bind)


def _to_proxy(c: Case, message: str) -> None:
    """Straight to the proxy's port; outside, a proxy that does as it is told is there."""
    with stream(c.values["proxy_address"]) as sock:
        sock.connect((c.values["proxy_address"], c.values["proxy_port"]))
        c.talk(sock, message.encode())


def _by_allowed_flow(c: Case, message: str) -> None:
    """On a connection that policy allows; outside, to a proxy that does as it is told."""
    if not c.inside:
        _to_proxy(c, message)
        return
    with stream(c.home4) as sock:
        sock.connect((c.home4, 80))
        sock.sendall(message.encode())
        sock.settimeout(PATIENCE)
        with contextlib.suppress(OSError):
            while sock.recv(4096):
                continue


@technique(
    "proxy-dialled", "proxy", "a connection to the proxy that no connect() was redirected for is closed", stage="proxy"
)
def proxy_dialled(c: Case) -> None:
    """The proxy's port dialled, and given an absolute URI."""
    _to_proxy(c, f"GET http://{c.peer4}:{c.port}/{c.token} HTTP/1.1\r\nHost: {c.peer4}\r\n\r\n")


@technique(
    "proxy-dialled-connect",
    "proxy",
    "a connection to the proxy that no connect() was redirected for is closed",
    stage="proxy",
)
def proxy_dialled_connect(c: Case) -> None:
    """The proxy's port dialled, and told to CONNECT."""
    _to_proxy(c, f"CONNECT {c.peer4}:{c.port} HTTP/1.1\r\nHost: {c.peer4}\r\nX-Token: {c.token}\r\n\r\n")


@technique(
    "proxy-header", "proxy", "a connection to the proxy that no connect() was redirected for is closed", stage="proxy"
)
def proxy_header(c: Case) -> None:
    """The proxy's port dialled with a PROXY protocol line that claims another destination."""
    _to_proxy(c, f"PROXY TCP4 127.0.0.1 {c.peer4} 1000 {c.port}\r\nGET /{c.token} HTTP/1.1\r\nHost: x\r\n\r\n")


@technique(
    "proxy-socks", "proxy", "a connection to the proxy that no connect() was redirected for is closed", stage="proxy"
)
def proxy_socks(c: Case) -> None:
    """The proxy's port dialled and spoken to in SOCKS4."""
    request = struct.pack(">BBH4s", 4, 1, c.port, socket.inet_aton(c.peer4)) + c.payload + b"\0"
    with stream(c.values["proxy_address"]) as sock:
        sock.connect((c.values["proxy_address"], c.values["proxy_port"]))
        c.talk(sock, request)


@technique("http-absolute", "proxy", _PROXY, stage="proxy")
def http_absolute(c: Case) -> None:
    """An absolute URI of the far side on an allowed connection."""
    _by_allowed_flow(c, f"GET http://{c.peer4}:{c.port}/{c.token} HTTP/1.1\r\nHost: {c.peer4}\r\n\r\n")


@technique("http-connect", "proxy", _PROXY, stage="proxy")
def http_connect(c: Case) -> None:
    """CONNECT to the far side on an allowed connection."""
    message = f"CONNECT {c.peer4}:{c.port} HTTP/1.1\r\nHost: {c.peer4}:{c.port}\r\nX-Token: {c.token}\r\n\r\n"
    _by_allowed_flow(c, message)


@technique("http-host", "proxy", _PROXY, stage="proxy")
def http_host(c: Case) -> None:
    """A Host of the far side on an allowed connection."""
    _by_allowed_flow(c, f"GET /{c.token} HTTP/1.1\r\nHost: {c.peer4}:{c.port}\r\n\r\n")


@technique("http-smuggled", "proxy", _PROXY, stage="proxy")
def http_smuggled(c: Case) -> None:
    """A second request for the far side hidden behind a body of two lengths."""
    hidden = f"GET http://{c.peer4}:{c.port}/{c.token} HTTP/1.1\r\nHost: {c.peer4}\r\n\r\n"
    head = "POST / HTTP/1.1\r\nHost: home\r\nContent-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n"
    _by_allowed_flow(c, f"{head}0\r\n\r\n{hidden}")


@technique("http-fronted", "proxy", _PROXY)
def http_fronted(c: Case) -> None:
    """The far side's address with the Host of an allowed site."""
    _to_peer(c, 80, f"GET /{c.token} HTTP/1.1\r\nHost: {c.home4}\r\n\r\n".encode())


@technique("http-second", "proxy", _PROXY)
def http_second(c: Case) -> None:
    """Two requests in one segment to the far side, the first without anything to object to."""
    first = b"OPTIONS * HTTP/1.1\r\nHost: home\r\n\r\n"
    _to_peer(c, 80, first + f"GET /{c.token} HTTP/1.1\r\nHost: home\r\n\r\n".encode())


@technique("tls-fronted", "proxy", _PROXY)
def tls_fronted(c: Case) -> None:
    """A ClientHello to the far side that names an allowed site."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    into, out = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = context.wrap_bio(into, out, server_hostname=f"{c.token}.home.example")
    with contextlib.suppress(ssl.SSLWantReadError):
        session.do_handshake()
    _to_peer(c, 443, out.read())


@technique("ssh-as-web", "proxy", "an unknown protocol is opaque, and denied by address like all else")
def ssh_as_web(c: Case) -> None:
    """Something that is not HTTP, on port 80."""
    _to_peer(c, 80, f"SSH-2.0-{c.token}\r\n".encode())


@technique("server-first", "proxy", "nothing is dialled before the verdict, also not for a client that is silent")
def server_first(c: Case) -> None:
    """A client that says nothing until the proxy has given up guessing; reaching the far side at all is enough."""
    with stream(c.peer4) as sock:
        sock.connect((c.peer4, c.port))
        time.sleep(0.6)
        c.talk(sock)


def _to_peer(c: Case, port: int, message: bytes) -> None:
    with socket.create_connection((c.peer4, port), PATIENCE) as sock:
        c.talk(sock, message)


@technique("started-at-once", "timing", "governed before its first instruction", start="own")
def started_at_once(c: Case) -> None:
    """Connections and datagrams in the first moments of an executor of its own."""
    _keep_trying(c, 0.2)


@technique("reloaded", "timing", "a new generation is built aside and swapped in one step", stage="reloads")
def reloaded(c: Case) -> None:
    """Connections and datagrams while the policy is reloaded again and again."""
    _keep_trying(c, 1.5)


@technique("restarted", "timing", _CLOSED, stage="restarts")
def restarted(c: Case) -> None:
    """Connections and datagrams while the supervisor is killed and started again."""
    _keep_trying(c, 3.0)


def _keep_trying(c: Case, seconds: float) -> None:
    """TCP and UDP in turn for so long; outside, once is enough."""
    failure: OSError | None = None
    deadline = time.monotonic() + (seconds if c.inside else 0)
    while True:
        for attempt in (c.tcp, c.udp):
            try:
                attempt(c.peer4)
            except OSError as error:
                failure = error
        if time.monotonic() > deadline:
            break
        time.sleep(0.005)
    if failure is not None:
        raise failure
