"""The far side's servers: `far_side.py PORT...` answers HTTP on every port to whatever it hears, and keeps nothing.

What arrived is told by the frames on its link, not by this program: it is here so that the controls are whole
conversations.
"""

from __future__ import annotations

import resource
import selectors
import socket
import sys

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nheard"
# Linux's IPPROTO_MPTCP: an MPTCP listener takes plain TCP as well.
_MPTCP = 262


def listen(port: int) -> socket.socket:
    try:
        server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, _MPTCP)
    except OSError:
        server = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    server.bind(("::", port))
    server.listen(64)
    server.setblocking(False)
    return server


def serve(ports: list[int]) -> None:
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    selector = selectors.DefaultSelector()
    for port in ports:
        selector.register(listen(port), selectors.EVENT_READ, "accept")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    while True:
        for key, _ in selector.select():
            sock = key.fileobj
            if not isinstance(sock, socket.socket):
                continue
            if key.data == "accept":
                client, _ = sock.accept()
                selector.register(client, selectors.EVENT_READ, "answer")
            else:
                selector.unregister(sock)
                answer(sock)


def answer(sock: socket.socket) -> None:
    with sock:
        try:
            if sock.recv(65536):
                sock.sendall(_ANSWER)
        except OSError:
            return


if __name__ == "__main__":
    serve([int(port) for port in sys.argv[1:]])
