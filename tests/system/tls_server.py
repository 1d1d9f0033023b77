"""An HTTPS server for a site of the test world: `python tls_server.py ADDRESS PORT PEM [CLIENT_CA]`.

Answers each request with what it received, a card number beside, as JSON; `/stream` sends as many bytes as its query
says. With CLIENT_CA it wants a certificate of it, and says whose it got.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CARD = "4111111111111111"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        if self.path.startswith("/stream?"):
            self._stream(int(self.path.split("?")[1]))
            return
        peer = self.connection.getpeercert() or {}  # type: ignore[attr-defined]
        subject = [value for part in peer.get("subject", ()) for _, value in part]
        answer = {"path": self.path, "host": self.headers["Host"], "card": CARD, "client": subject}
        self._answer(json.dumps(answer).encode(), "application/json")

    def do_POST(self) -> None:
        length = int(self.headers["Content-Length"])
        digest = hashlib.sha256()
        while length:
            piece = self.rfile.read(min(length, 65536))
            digest.update(piece)
            length -= len(piece)
        self._answer(digest.hexdigest().encode(), "text/plain")

    def _answer(self, body: bytes, media: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, size: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(size))
        self.end_headers()
        piece = bytes(range(256)) * 256
        while size > 0:
            self.wfile.write(piece[:size])
            size -= len(piece)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: the far side is judged by its packets."""


def main(address: str, port: str, pem: str, client_ca: str = "") -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    if client_ca:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer((address, int(port)), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
