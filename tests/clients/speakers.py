"""Servers of what lasts longer than one answer: `python speakers.py ADDRESS PEM LOG`, gRPC and WebSocket, both in TLS.

The gRPC service `shop.Orders` has no schema beyond one text field: `Get` answers with an order, `List` streams three,
`Put` counts what was streamed to it. WebSocket sends an order for each message. Every call and message is logged.
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
from grpc.aio import ServicerContext
from websockets.asyncio.server import ServerConnection, serve

from tests.clients.place import ORDER

GRPC_PORT, WEBSOCKET_PORT = 9444, 9445


def packed(text: str) -> bytes:
    """A message with one text as field 1 (protobuf's wire format: tag, length as a varint, bytes)."""
    data = text.encode()
    length = b""
    left = len(data)
    while left > 127:
        length += bytes([left & 127 | 128])
        left >>= 7
    return b"\x0a" + length + bytes([left]) + data


class Orders(grpc.GenericRpcHandler):  # type: ignore[misc]
    def __init__(self, log: Path) -> None:
        self._log = log

    def service(self, details: Any) -> Any:
        return {
            "/shop.Orders/Get": grpc.unary_unary_rpc_method_handler(self._get),
            "/shop.Orders/List": grpc.unary_stream_rpc_method_handler(self._list),
            "/shop.Orders/Put": grpc.stream_unary_rpc_method_handler(self._put),
        }.get(details.method)

    async def _get(self, request: bytes, context: ServicerContext) -> bytes:
        note(self._log, "Get", request)
        await context.send_initial_metadata((("served-by", "shop"),))
        context.set_trailing_metadata((("left-in-stock", "3"),))
        return packed(json.dumps(ORDER))

    async def _list(self, request: bytes, context: ServicerContext) -> AsyncIterator[bytes]:
        note(self._log, "List", request)
        for number in range(3):
            yield packed(json.dumps(ORDER | {"order": number}))

    async def _put(self, requests: AsyncIterator[bytes], context: ServicerContext) -> bytes:
        count = 0
        async for request in requests:
            note(self._log, "Put", request)
            count += 1
        return packed(str(count))


def note(log: Path, what: str, data: bytes) -> None:
    with log.open("a") as stream:
        stream.write(f"{what} {data!r}\n")


async def main(address: str, pem: str, text: bytes, log: Path) -> None:
    orders = grpc.aio.server()
    orders.add_generic_rpc_handlers((Orders(log),))
    orders.add_secure_port(f"{address}:{GRPC_PORT}", grpc.ssl_server_credentials([(text, text)]))
    await orders.start()

    async def answer(connection: ServerConnection) -> None:
        async for message in connection:
            note(log, "message", message if isinstance(message, bytes) else message.encode())
            await connection.send(json.dumps(ORDER) if isinstance(message, str) else message)

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    async with serve(answer, address, WEBSOCKET_PORT, ssl=context) as running:
        await running.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[2]).read_bytes(), Path(sys.argv[3])))
