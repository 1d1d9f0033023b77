"""Servers for a site of the test world, in one process: `python far_side.py ADDRESS...`.

Port 8080 speaks HTTP/1.1 and answers with what it received, as JSON; `/endless` never stops sending, and `/seen` tells
all requests since it was last asked. Port 9000 speaks first and then echoes raw bytes. Deliberately no framework: what
it reports must not have been tidied up on the way.
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio import StreamReader, StreamWriter
from collections import deque
from typing import Any

HTTP_PORT, RAW_PORT = 8080, 9000
BANNER = b"\x00\x01 far side\n"
# Method, target and body of each request, at most as many as one test could mean.
_SEEN: deque[tuple[str, str, str]] = deque(maxlen=1000)


async def _body(reader: StreamReader, headers: dict[str, str]) -> bytes:
    """The request's body, by its Content-Length or its chunks (RFC 9112, sections 6 and 7.1)."""
    if headers.get("transfer-encoding") != "chunked":
        return await reader.readexactly(int(headers.get("content-length", "0")))
    body = b""
    while size := int((await reader.readline()).split(b";")[0], 16):
        body += await reader.readexactly(size)
        await reader.readline()
    await reader.readline()
    return body


async def _http(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            first, *lines = head.decode("latin-1").rstrip().split("\r\n")
            method, target, _ = first.split(" ")
            headers = {line.split(":")[0].lower(): line.split(":", 1)[1].strip() for line in lines}
            if headers.get("expect") == "100-continue":
                writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            body = await _body(reader, headers)
            if target == "/endless":
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n")
                while True:
                    writer.write(b"5\r\nmore\n\r\n")
                    await writer.drain()
                    await asyncio.sleep(0.02)
            answer: dict[str, Any] = {
                "method": method,
                "target": target,
                "headers": headers,
                "body": body.decode("latin-1"),
            }
            if target == "/seen":
                answer["seen"] = list(_SEEN)
                _SEEN.clear()
            else:
                _SEEN.append((method, target, body.decode("latin-1")))
            text = json.dumps(answer).encode()
            length = f"Content-Length: {len(text)}\r\n".encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length + b"\r\n")
            writer.write(b"" if method == "HEAD" else text)
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def _raw(reader: StreamReader, writer: StreamWriter) -> None:
    try:
        writer.write(BANNER)
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def _main(addresses: list[str]) -> None:
    for handler, port in ((_http, HTTP_PORT), (_raw, RAW_PORT)):
        await asyncio.start_server(handler, addresses, port)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1:]))
