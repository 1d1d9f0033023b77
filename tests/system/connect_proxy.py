"""An HTTP proxy for a site of the test world: `python connect_proxy.py ADDRESS PORT`. CONNECT, and nothing else."""

from __future__ import annotations

import asyncio
import sys


async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).split()
    assert head[0] == b"CONNECT", head
    host, _, port = head[1].decode().rpartition(":")
    there, back = await asyncio.open_connection(host.strip("[]"), int(port))
    writer.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
    await asyncio.gather(copy(reader, back), copy(there, writer), return_exceptions=True)


async def main(address: str, port: str) -> None:
    server = await asyncio.start_server(serve, address, int(port))
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
