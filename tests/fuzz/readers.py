"""Real HTTP/1.1 servers as readers: what did they take the bytes of one connection for?

Each logs a line per request, with the client's port, which tells whose it was. nginx answers by itself; HAProxy hands
on to it, so that it has to find where every body ends.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PATIENCE = 20.0
NGINX = """
daemon off; master_process off; pid {root}/nginx.pid; error_log {root}/error.log;
events {{ worker_connections 512; }}
http {{
    log_format seen escape=none '$remote_port $request';
    access_log {root}/nginx.seen seen;
    client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u;
    scgi_temp_path {root}/s; keepalive_requests 1000000; keepalive_timeout 10s;
    server {{ listen {address}:{port}; location / {{ return 200 'ok'; }} }}
}}
"""
HAPROXY = """
global
  log stdout format raw local0
  maxconn 200
defaults
  mode http
  log global
  log-format "%cp %HM %HU %HV"
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend f
  bind 127.0.0.1:{port}
  default_backend b
backend b
  server s 127.0.0.1:{behind}
"""
_FINAL = re.compile(rb"HTTP/1\.1 [2-5][0-9]{2} ")


@dataclass(frozen=True)
class Reader:
    """A running server. `log`: a line per request, `PORT METHOD TARGET VERSION`."""

    port: int
    log: Path

    def reads(self, data: bytes, *, ended: bool) -> list[str]:
        """The requests (`METHOD target`) it takes `data` for; `ended`: the client closes its side behind them, else
        the last of them says that it is the last."""
        before = len(self._lines())
        with socket.create_connection(("127.0.0.1", self.port), PATIENCE) as connection:
            mine = str(connection.getsockname()[1])
            connection.sendall(data)
            if ended:
                connection.shutdown(socket.SHUT_WR)
            answers = b"".join(iter(lambda: connection.recv(65536), b""))
        deadline = time.monotonic() + PATIENCE
        while True:
            lines = [line.split(" ", 1)[1] for line in self._lines()[before:] if line.split(" ", 1)[0] == mine]
            if len(lines) >= len(_FINAL.findall(answers)) or time.monotonic() > deadline:
                return [line.rsplit(" ", 1)[0] for line in lines]
            time.sleep(0.01)

    def _lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines() if self.log.exists() else []


@contextmanager
def nginx(root: Path) -> Iterator[Reader]:
    configuration, port = root / "nginx.conf", free_port()
    configuration.write_text(NGINX.format(root=root, address="127.0.0.1", port=port))
    command = [_program("nginx", "nginx-light"), "-p", str(root), "-c", str(configuration)]
    with _running(command, port, root / "nginx.out"):
        yield Reader(port, root / "nginx.seen")


@contextmanager
def haproxy(root: Path, behind: int) -> Iterator[Reader]:
    configuration, port = root / "haproxy.cfg", free_port()
    configuration.write_text(HAPROXY.format(port=port, behind=behind))
    command = [_program("haproxy", "haproxy"), "-db", "-f", str(configuration)]
    with _running(command, port, root / "haproxy.seen"):
        yield Reader(port, root / "haproxy.seen")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _program(name: str, package: str) -> str:
    found = shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin")
    assert found is not None, f"{name} is missing; install Debian's {package}"
    return found


@contextmanager
def _running(command: list[str], port: int, output: Path) -> Iterator[None]:
    with output.open("wb") as out, subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT) as process:
        try:
            deadline = time.monotonic() + PATIENCE
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except ConnectionRefusedError:
                    assert time.monotonic() < deadline, f"{command[0]} does not accept; {output.read_text()}"
                    time.sleep(0.02)
            yield
        finally:
            process.terminate()
            process.wait(10)
