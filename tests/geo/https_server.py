"""A small HTTPS server on 127.0.0.1, with every way to serve a file badly."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


class Server:
    """`bodies`: what is served, by path. `faults`: by path `cut`, `longer`, `unsized`, `plain` (redirect to http),
    `moved` (redirect to `/moved`), `chunked` or a status."""

    def __init__(self, directory: Path) -> None:
        self.bodies: dict[str, bytes] = {}
        self.faults: dict[str, str] = {}
        self.certificate = directory / "server.pem"
        _write_certificate(self.certificate)
        server = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                server.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                return

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.certificate)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self._http.server_port}{path}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path, fault = request.path, self.faults.get(request.path, "")
        request.close_connection = True
        if fault.isdigit() or (path not in self.bodies and not fault):
            request.send_error(int(fault or 404))
            return
        if fault in {"plain", "moved"}:
            request.send_response(302)
            request.send_header("Location", "http://127.0.0.1:9/x" if fault == "plain" else self.url("/moved"))
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        body = self.bodies[path]
        request.send_response(200)
        if fault == "chunked":
            request.send_header("Transfer-Encoding", "chunked")
            body = f"{len(body):x}\r\n".encode() + body[: len(body) // 2]
        elif fault != "unsized":
            request.send_header("Content-Length", str(len(body) + (7 if fault == "longer" else 0)))
        request.end_headers()
        request.wfile.write(body[: len(body) // 2] if fault == "cut" else body)

    def close(self) -> None:
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@contextmanager
def serving(directory: Path) -> Iterator[Server]:
    server = Server(directory)
    try:
        yield server
    finally:
        server.close()


def _write_certificate(path: Path) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(names, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    )
    certificate = built.sign(key, hashes.SHA256())
    plain = serialization.NoEncryption()
    form = serialization.PrivateFormat.PKCS8
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, form, plain)
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
