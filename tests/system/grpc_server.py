"""A gRPC server for a site of the test world: `python grpc_server.py ADDRESS PORT PEM`.

Answers `/echo.Echo/Unary` and `/echo.Echo/Stream` with the messages it gets, and `/echo.Echo/Fails` with a status.
Messages are bytes as they are: what they hold is the client's affair.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc


class Echo(grpc.GenericRpcHandler):
    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = handler_call_details.method.rpartition("/")[2]
        if method == "Unary":
            return grpc.unary_unary_rpc_method_handler(lambda message, _context: message)
        if method == "Stream":
            return grpc.stream_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._fail)

    @staticmethod
    def _stream(messages: Iterator[bytes], _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield from messages

    @staticmethod
    def _fail(_message: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(grpc.StatusCode.NOT_FOUND, "no order for card 4111111111111111")
        return b""


def main(address: str, port: str, pem: str) -> None:
    text = Path(pem).read_bytes()
    key = re.search(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?-----END [A-Z ]*PRIVATE KEY-----\n", text, re.DOTALL)
    assert key is not None
    server = grpc.server(futures.ThreadPoolExecutor(8), handlers=(Echo(),))
    credentials = grpc.ssl_server_credentials([(key[0], text.replace(key[0], b""))])
    server.add_secure_port(f"{address}:{port}", credentials)
    server.start()
    server.wait_for_termination()


if __name__ == "__main__":
    main(*sys.argv[1:])
