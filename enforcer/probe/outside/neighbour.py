"""The helper outside: an ordinary process of the host, of the same user as the executor, that can reach the far side.

`neighbour.py CONFIG` (JSON). It listens wherever a service of a host might: TCP and UDP on every address, Unix sockets
in several places, vsock, message queues, the user's keyring, its own memory. Whatever arrives is forwarded to the far
side as a UDP datagram, so that a technique which reaches it has reached the far side. It prints one line of JSON with
its pid and the addresses of what can be attacked in it, and takes orders on standard input: `relay TEXT`, `arm TEXT`.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import selectors
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import Any

# Answers by service: what the real one would say to a first message.
_ANSWERS = {
    "docker": b'HTTP/1.1 201 Created\r\nContent-Type: application/json\r\nContent-Length: 14\r\n\r\n{"Id":"heard"}',
    "bus": b"OK heard\r\n",
}
_HEARD = b"heard\n"
# Seconds between looks at what cannot be waited for.
_TURN = 0.01
_PR_SET_PTRACER, _PR_SET_PTRACER_ANY = 0x59616D61, ctypes.c_ulong(-1)
_KEY_USER_KEYRING, _KEYCTL_UNLINK, _KEYCTL_SEARCH, _KEYCTL_READ = -4, 9, 10, 11
_IPC_CREAT, _IPC_NOWAIT, _IPC_RMID = 0o1000, 0o4000, 0

libc = ctypes.CDLL(None, use_errno=True)


class Neighbour:
    def __init__(self, config: dict[str, Any]) -> None:
        self._config = config
        self._far = (config["peer"], config["relay_port"])
        self._udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._selector = selectors.DefaultSelector()
        self._armed = b"unarmed"
        # What the attacks on this process itself aim at: a buffer, and a connected socket.
        self._buffer = ctypes.create_string_buffer(64)
        self._connected = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._connected.connect(self._far)
        self._turns: list[Callable[[], None]] = [self._look_at_buffer]
        self._kept: list[socket.socket] = []

    def serve(self) -> None:
        libc.prctl(_PR_SET_PTRACER, _PR_SET_PTRACER_ANY, 0, 0, 0)
        signal.signal(signal.SIGUSR1, lambda *_: self._relay(self._armed))
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        self._open_everything()
        threading.Thread(target=self._obey, daemon=True).start()
        about = {
            "pid": os.getpid(),
            "buffer": ctypes.addressof(self._buffer),
            "socket": self._connected.fileno(),
        }
        sys.stdout.write(json.dumps(about) + "\n")
        sys.stdout.flush()
        while True:
            for key, _ in self._selector.select(_TURN):
                key.data(key.fileobj)
            for turn in self._turns:
                turn()

    def _open_everything(self) -> None:
        port, token = self._config["port"], self._config["name"]
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
            both = socket.socket(socket.AF_INET6, kind)
            both.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            self._bound(both, ("::", port), "tcp")
            self._bound(socket.socket(socket.AF_UNIX, kind), f"\0{token}-{int(kind)}", "abstract")
        for service, path in self._config["sockets"].items():
            kind = socket.SOCK_DGRAM if service == "datagram" else socket.SOCK_STREAM
            self._bound(socket.socket(socket.AF_UNIX, kind), path, service)
            os.chmod(path, 0o666)  # noqa: PTH101, S103 - as open as such sockets get
        try:
            vsock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
            self._bound(vsock, (socket.VMADDR_CID_ANY, port), "vsock")
        except OSError:
            pass
        self._turns.append(Keyring(token, self._relay).look)
        self._turns.append(Queue(self._config["queue_key"], self._relay).look)

    def _bound(self, sock: socket.socket, address: Any, service: str) -> None:
        sock.bind(address)
        if sock.type == socket.SOCK_STREAM:
            sock.listen(16)
            self._selector.register(sock, selectors.EVENT_READ, lambda server: self._accept(server, service))
        else:
            self._selector.register(sock, selectors.EVENT_READ, lambda one: self._relay(one.recv(4096)))

    def _accept(self, server: Any, service: str) -> None:
        client, _ = server.accept()
        self._selector.register(client, selectors.EVENT_READ, lambda sock: self._answer(sock, service))

    def _answer(self, sock: Any, service: str) -> None:
        try:
            heard = sock.recv(4096)
            if heard and service == "descriptors":
                self._hand_out(sock, heard.decode().split())
            elif heard:
                self._relay(heard)
                sock.sendall(_ANSWERS.get(service, _HEARD))
        except OSError:
            heard = b""
        if not heard:
            self._selector.unregister(sock)
            sock.close()

    def _hand_out(self, sock: socket.socket, wish: list[str]) -> None:
        """`connected PORT`, `unconnected PORT` or `listening PORT`: a TCP socket in that state, to keep."""
        state, port = wish[0], int(wish[1])
        given = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if state == "connected":
            given.connect((self._config["peer"], port))
        if state == "listening":
            given.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            given.bind(("0.0.0.0", port))  # noqa: S104 - the far side dials it
            given.listen(4)
        sock.sendmsg([b"heard"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [given.fileno()]))])
        given.close()

    def _look_at_buffer(self) -> None:
        if written := self._buffer.value:
            ctypes.memset(self._buffer, 0, len(self._buffer))
            self._relay(written)

    def _relay(self, data: bytes) -> None:
        if data:
            self._udp.sendto(data, self._far)

    def _obey(self) -> None:
        for line in sys.stdin:
            order, _, text = line.strip().partition(" ")
            if order == "relay":
                self._relay(text.encode())
            elif order == "arm":
                self._armed = text.encode()
            sys.stdout.write("obeyed\n")
            sys.stdout.flush()
        os._exit(0)


class Keyring:
    """Forwards a key of a known name that appears in the user's keyring."""

    def __init__(self, name: str, relay: Callable[[bytes], None]) -> None:
        self._name, self._relay = name.encode(), relay
        self._number = 250 if os.uname().machine == "x86_64" else 219

    def look(self) -> None:
        found = libc.syscall(self._number, _KEYCTL_SEARCH, _KEY_USER_KEYRING, b"user", self._name, 0)
        if found > 0:
            text = ctypes.create_string_buffer(64)
            if libc.syscall(self._number, _KEYCTL_READ, found, text, 64, 0) > 0:
                self._relay(text.value)
            libc.syscall(self._number, _KEYCTL_UNLINK, found, _KEY_USER_KEYRING, 0, 0)


class Queue:
    """Forwards what is put into a System V message queue; the harness removes the queue."""

    def __init__(self, key: int, relay: Callable[[bytes], None]) -> None:
        self._relay = relay
        self._queue = libc.msgget(key, _IPC_CREAT | 0o666)

    def look(self) -> None:
        message = ctypes.create_string_buffer(72)
        size = libc.msgrcv(self._queue, message, ctypes.c_size_t(64), ctypes.c_long(0), _IPC_NOWAIT)
        if size > 0:
            self._relay(message.raw[8 : 8 + size])


if __name__ == "__main__":
    Neighbour(json.loads(sys.argv[1])).serve()
