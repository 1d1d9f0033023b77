"""Enough of an object store for aws-cli: `python objects.py PORT DIRECTORY`, behind nginx, which speaks TLS.

Buckets are directories below the host's. As the real one does, it tells those who ask a checksum of what it sends.
"""

from __future__ import annotations

import base64
import sys
import zlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

LISTING = "<ListBucketResult><Name>bucket</Name><IsTruncated>false</IsTruncated>{}</ListBucketResult>"
ENTRY = "<Contents><Key>{}</Key><Size>{}</Size><LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    root = Path()

    def do_GET(self) -> None:
        path = self._file()
        if path.is_dir():
            entries = [ENTRY.format(one.name, one.stat().st_size) for one in sorted(path.iterdir())]
            self._answer(200, LISTING.format("".join(entries)).encode(), "application/xml")
        elif path.is_file():
            self._answer(
                200, path.read_bytes(), "application/json" if path.suffix == ".json" else "binary/octet-stream"
            )
        else:
            self._answer(404, b"", "application/xml")

    do_HEAD = do_GET  # noqa: N815 - the base class's name

    def do_PUT(self) -> None:
        self._file().write_bytes(self._body())
        self._answer(200, b"", "application/xml")

    def _file(self) -> Path:
        return self.root / self.headers["Host"] / urlsplit(self.path).path.removeprefix("/objects/")

    def _body(self) -> bytes:
        """Plain, or in the chunks of aws-chunked, whose lengths are in hexadecimal and have parameters."""
        if "aws-chunked" not in self.headers.get("Content-Encoding", ""):
            return self.rfile.read(int(self.headers["Content-Length"]))
        body = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            continue
        return body

    def _answer(self, status: int, body: bytes, media: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        if self.headers.get("x-amz-checksum-mode") == "ENABLED":
            checksum = base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode()
            self.send_header("x-amz-checksum-crc32", checksum)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Quiet: nginx keeps the log."""


if __name__ == "__main__":
    Handler.root = Path(sys.argv[2])
    ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
