"""HTTP/1 between real peers: curl, the inspector in a throw-away relay, nginx."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import selectors
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from enforcer.protocols.base import Text
from enforcer.protocols.http1 import PROTOCOL
from tests.conversation import DENIAL, Conversation, Decide

BIG = bytes(range(256)) * 40_000  # 10 MB
PAGE = b'{"card": "4111 1111 1111 1111"}\n' * 200

CONF = """
daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log {root}/access.log; client_body_temp_path {root}/body; proxy_temp_path {root}/proxy;
    fastcgi_temp_path {root}/f; uwsgi_temp_path {root}/u; scgi_temp_path {root}/s;
    types {{ application/json json; }} default_type application/octet-stream;
    client_max_body_size 32m; root {root}/www; keepalive_requests 1000;
    server {{
        listen 127.0.0.1:{port};
        location / {{ gzip_static off; gzip on; gzip_min_length 1; gzip_types application/json; }}
        location /zipped {{ add_header Content-Encoding gzip; default_type application/json; }}
        location /chunked {{ ssi on; ssi_types *; }}
        location /upload {{ dav_methods PUT; create_full_put_path on; }}
    }}
}}
"""


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, Path]]:
    """An nginx of our own: its port and document root."""
    program = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    assert program is not None, "nginx is missing; install Debian's nginx-light"
    root, port = tmp_path_factory.mktemp("nginx"), free_port()
    root.chmod(0o755)
    for parent in list(root.parents)[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)  # nginx's workers may run as another user
    www = root / "www"
    www.mkdir()
    (www / "upload").mkdir()
    (www / "upload").chmod(0o777)
    (www / "big").write_bytes(BIG)
    (www / "page.json").write_bytes(PAGE)
    (www / "zipped").write_bytes(gzip.compress(PAGE))
    (www / "chunked").write_bytes(b"chunk " * 20_000)
    conf = root / "nginx.conf"
    conf.write_text(CONF.format(root=root, port=port))
    with subprocess.Popen([program, "-p", str(root), "-c", str(conf)], stderr=subprocess.DEVNULL) as process:
        try:
            for _ in range(100):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.05)
            yield port, www
        finally:
            process.terminate()
            process.wait(10)


class Relay:
    """Accepts on `port` and plays each connection through an inspector to `upstream`; `talks` keeps them all."""

    def __init__(self, upstream: int, start: Callable[[], Conversation]) -> None:
        self._upstream = upstream
        self._start = start
        self.talks: list[Conversation] = []
        self.upstream_bytes = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            talk = self._start()
            self.talks.append(talk)
            threading.Thread(target=self._relay, args=(client, talk), daemon=True).start()

    def _relay(self, client: socket.socket, talk: Conversation) -> None:
        with client, socket.create_connection(("127.0.0.1", self._upstream)) as server:
            selector = selectors.DefaultSelector()
            selector.register(client, selectors.EVENT_READ, talk.client_sends)
            selector.register(server, selectors.EVENT_READ, talk.server_sends)
            while not talk.closed:
                for key, _ in selector.select(timeout=20):
                    sock: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = sock.recv(65536)
                    if data:
                        key.data(data)
                    elif sock is server:
                        talk.server_closes()
                        client.sendall(talk.take_client())
                        return
                    else:
                        talk.client_closes()
                        self._send_upstream(server, talk)
                        server.shutdown(socket.SHUT_WR)
                        selector.unregister(client)
                    client.sendall(talk.take_client())
                    self._send_upstream(server, talk)

    def _send_upstream(self, server: socket.socket, talk: Conversation) -> None:
        if data := talk.take_upstream():
            self.upstream_bytes += len(data)
            server.sendall(data)

    def close(self) -> None:
        self._listener.close()

    def requests(self) -> list[str]:
        return [request.text for talk in self.talks for request in talk.requests]

    def outcomes(self) -> list[str]:
        return [outcome.status for talk in self.talks for outcome in talk.outcomes]


@contextmanager
def relay(port: int, decide: Decide | None = None, mask_text: Callable[[Text], bytes] | None = None) -> Iterator[Relay]:
    def start() -> Conversation:
        return Conversation(PROTOCOL.inspector(), decide=decide, mask_text=mask_text, quiet=True)

    running = Relay(port, start)
    try:
        yield running
    finally:
        running.close()


def curl(*arguments: str, data: bytes | None = None) -> bytes:
    command = ["curl", "-sS", "--max-time", "20", "--noproxy", "*", *arguments]
    done = subprocess.run(command, input=data, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def hide(text: Text) -> bytes:
    return text.data.replace(b"4111 1111 1111 1111", b"****")


def test_keep_alive_and_a_large_body(nginx: tuple[int, Path]) -> None:
    """Several requests share one connection, and 10 MB arrive unchanged."""
    with relay(nginx[0]) as r:
        url = f"http://127.0.0.1:{r.port}"
        got = curl(f"{url}/page.json", f"{url}/big", f"{url}/page.json")
        assert hashlib.sha256(got).digest() == hashlib.sha256(PAGE + BIG + PAGE).digest()
        assert r.requests() == ["GET /page.json", "GET /big", "GET /page.json"]
        assert len(r.talks) == 1
        assert r.outcomes() == ["200"] * 3


def test_head_and_conditional(nginx: tuple[int, Path]) -> None:
    """HEAD and 304, whose heads tell a length of a body that does not come, leave the connection in step."""
    with relay(nginx[0]) as r:
        url = f"http://127.0.0.1:{r.port}/page.json"
        told = curl("-I", url, "--next", "-sSI", url)
        assert told.count(b"HTTP/1.1 200 OK") == 2
        etag = curl("-sI", f"http://127.0.0.1:{r.port}/big").split(b"ETag: ")[1].split(b"\r\n")[0].decode()
        assert b"304 Not Modified" in curl("-i", "-H", f"If-None-Match: {etag}", f"http://127.0.0.1:{r.port}/big")


def test_chunked_answer(nginx: tuple[int, Path]) -> None:
    """An answer in chunks arrives whole."""
    with relay(nginx[0]) as r:
        got = curl("-i", f"http://127.0.0.1:{r.port}/chunked")
        assert b"Transfer-Encoding: chunked" in got
        assert got.endswith(b"\r\n\r\n" + b"chunk " * 20_000)


@pytest.mark.parametrize(
    "how", [["-H", "Transfer-Encoding: chunked", "-H", "Expect:"], ["-H", "Expect: 100-continue"], ["-H", "Expect:"]]
)
def test_upload(nginx: tuple[int, Path], how: list[str]) -> None:
    """10 MB reach the server unchanged: in chunks, after 100 Continue, and plainly."""
    with relay(nginx[0]) as r:
        target = f"http://127.0.0.1:{r.port}/upload/file"
        status = curl("-w", "%{http_code}", "-o", "/dev/null", "-T", "-", *how, target, data=BIG)
        assert status in (b"201", b"204")
        stored = (nginx[1] / "upload" / "file").read_bytes()
        assert hashlib.sha256(stored).digest() == hashlib.sha256(BIG).digest()


def test_http_10_client(nginx: tuple[int, Path]) -> None:
    """curl as an HTTP/1.0 client gets a chunked answer without chunks."""
    with relay(nginx[0]) as r:
        got = curl("-i", "--http1.0", f"http://127.0.0.1:{r.port}/chunked")
        assert b"Transfer-Encoding" not in got
        assert got.endswith(b"\r\n\r\n" + b"chunk " * 20_000)


def test_http_10_without_a_host(nginx: tuple[int, Path]) -> None:
    """An HTTP/1.0 request that names no host gets an answer (of whatever kind the server has for it)."""
    with relay(nginx[0]) as r, socket.create_connection(("127.0.0.1", r.port)) as client:
        client.sendall(b"GET /page.json HTTP/1.0\r\n\r\n")
        got = b"".join(iter(lambda: client.recv(65536), b""))
        assert got.startswith(b"HTTP/1.1 200 OK\r\n")


def test_upgrade_offers(nginx: tuple[int, Path]) -> None:
    """curl's offer of h2c is answered in HTTP/1.1."""
    with relay(nginx[0]) as r:
        url = f"http://127.0.0.1:{r.port}/page.json"
        assert curl("--http2", url) == PAGE
        assert curl("--http2", "-X", "GET", "-d", "x", url) == PAGE


def test_pipelining(nginx: tuple[int, Path]) -> None:
    """Twenty requests in one write get twenty answers, in order, one upstream at a time."""
    with relay(nginx[0]) as r, socket.create_connection(("127.0.0.1", r.port)) as client:
        asked = [b"GET /page.json?%d HTTP/1.1\r\nHost: a\r\n\r\n" % number for number in range(19)]
        asked.append(b"GET /page.json?19 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        client.sendall(b"".join(asked))
        got = b"".join(iter(lambda: client.recv(65536), b""))
        assert got.count(b"HTTP/1.1 200 OK\r\n") == 20
        assert got.count(PAGE) == 20
        assert r.requests() == [f"GET /page.json?{number}" for number in range(20)]


def test_compressed_answers(nginx: tuple[int, Path]) -> None:
    """Unmasked, a compressed answer passes; masked, it is decoded and comes compressed all the same."""
    with relay(nginx[0]) as r:
        url = f"http://127.0.0.1:{r.port}/page.json"
        assert b"Content-Encoding: gzip" in curl("-i", "-H", "Accept-Encoding: gzip", url)
        assert curl("--compressed", url) == PAGE
    with relay(nginx[0], mask_text=hide) as r:
        url = f"http://127.0.0.1:{r.port}/page.json"
        assert b"Content-Encoding: gzip" in curl("-I", "-X", "GET", "-H", "Accept-Encoding: gzip", url)
        assert curl("--compressed", url) == PAGE.replace(b"4111 1111 1111 1111", b"****")


def test_masked_answer_compressed_unasked(nginx: tuple[int, Path]) -> None:
    """A server that compresses although nobody asked for it is read all the same, and the client gets what it sent."""
    with relay(nginx[0], mask_text=hide) as r:
        got = curl("-i", f"http://127.0.0.1:{r.port}/zipped")
    head, _, body = got.partition(b"\r\n\r\n")
    assert b"Content-Encoding: gzip" in head
    assert gzip.decompress(body) == PAGE.replace(b"4111 1111 1111 1111", b"****")


def test_refusal(nginx: tuple[int, Path]) -> None:
    """curl reads the refusal and goes on with the next request on the same connection."""
    with relay(nginx[0], decide=lambda request: DENIAL if "big" in request.text else None) as r:
        url = f"http://127.0.0.1:{r.port}"
        got = curl("-w", "%{http_code} %{num_connects}\n", f"{url}/big", f"{url}/page.json")
        refused, _, rest = got.partition(b"}\n")
        assert json.loads(refused + b"}")["region"] == "US"
        assert rest.startswith(b"403 1\n")
        assert rest.endswith(PAGE + b"200 0\n")


@pytest.mark.parametrize("how", [["-H", "Expect: 100-continue"], ["-H", "Transfer-Encoding: chunked"], []])
def test_refused_upload(nginx: tuple[int, Path], how: list[str]) -> None:
    """A refused upload ends with a readable 403, and nothing of it is sent upstream."""
    with relay(nginx[0], decide=lambda _: DENIAL) as r:
        told = curl(
            "-w", "%{http_code}", "-T", "-", *how, f"http://127.0.0.1:{r.port}/upload/no", data=b"secret" * 1000
        )
        assert told.endswith(b"403")
        assert not (nginx[1] / "upload" / "no").exists()
        assert r.upstream_bytes == 0
