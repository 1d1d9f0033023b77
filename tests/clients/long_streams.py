"""Both ends of a long conversation, by which every byte is told: `python long_streams.py ADDRESS PEM` on the far side.

A stream is a sequence of pieces, each with its number in it, so that a lost, doubled or misplaced one changes the hash.
Ports: HTTP in clear and in TLS, and raw bytes. `/down?SIZE` sends a stream, `/up` answers with the hash of what came,
`/echo` sends back what came, in chunks if `X-Answer` says so. `/held` reads nothing of its body until `/release`;
`/sent` tells how much of the last stream was taken by the kernel. The raw port answers the end of a client's bytes with
their hash, and with `mirror` as first bytes ends its own side first.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import ssl
import sys
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Iterator

CLEAR_PORT, TLS_PORT, RAW_PORT = 9080, 9443, 9000
PIECE = 1 << 20
# Letters: no run of digits that could be taken for a number to mask.
_BLOCK = bytes(random.Random(1).choices(b"abcdefghijklmnop", k=PIECE))


def stream(size: int) -> Iterator[bytes]:
    for number in range(-(-size // PIECE)):
        mark = bytes(ord("a") + int(digit) for digit in f"{number:08}")
        yield (mark + _BLOCK[8:])[: size - number * PIECE]


def hash_of(size: int) -> str:
    digest = hashlib.sha256()
    for piece in stream(size):
        digest.update(piece)
    return digest.hexdigest()


class Server:
    def __init__(self) -> None:
        self._released = asyncio.Event()
        self._sent = 0

    async def http(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                first, *lines = head.decode("ascii").rstrip().split("\r\n")
                target = first.split(" ")[1]
                fields = {line.split(":")[0].lower(): line.split(":", 1)[1].strip() for line in lines}
                if target == "/held":
                    self._released.clear()
                    await self._released.wait()
                await self._answer(target, fields, reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, target: str, fields: dict[str, str], reader: StreamReader, writer: StreamWriter) -> None:
        path, _, size = target.partition("?")
        if path == "/down":
            await self._down(int(size), writer)
            return
        digest, kept = hashlib.sha256(), []
        async for data in _body(reader, fields):
            digest.update(data)
            if path == "/echo":
                kept.append(data)
        answer = {"/echo": b"".join(kept), "/sent": b"%d" % self._sent}.get(path, digest.hexdigest().encode())
        if path == "/release":
            self._released.set()
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n"
        if fields.get("x-answer") == "chunked":
            writer.write(head + b"Transfer-Encoding: chunked\r\n\r\n")
            for at in range(0, len(answer), 10_000):
                part = answer[at : at + 10_000]
                writer.write(b"%x\r\n%b\r\n" % (len(part), part))
            writer.write(b"0\r\n\r\n")
        else:
            writer.write(head + b"Content-Length: %d\r\n\r\n%b" % (len(answer), answer))
        await writer.drain()

    async def _down(self, size: int, writer: StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % size)
        self._sent = 0
        for piece in stream(size):
            writer.write(piece)
            await writer.drain()
            self._sent += len(piece)

    async def raw(self, reader: StreamReader, writer: StreamWriter) -> None:
        try:
            first = await reader.readexactly(6)
            if first == b"mirror":
                for piece in stream(3 * PIECE):
                    writer.write(piece)
                writer.write_eof()
            digest = hashlib.sha256(first)
            while data := await reader.read(PIECE):
                digest.update(data)
            if first != b"mirror":
                writer.write(digest.hexdigest().encode())
            else:
                sys.stdout.write(digest.hexdigest() + "\n")
                sys.stdout.flush()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


async def _body(reader: StreamReader, fields: dict[str, str]) -> AsyncIterator[bytes]:
    """By Content-Length or chunks (RFC 9112, sections 6 and 7.1)."""
    if fields.get("transfer-encoding") == "chunked":
        while size := int(await reader.readline(), 16):
            yield await reader.readexactly(size)
            await reader.readexactly(2)
        await reader.readexactly(2)
        return
    left = int(fields.get("content-length", "0"))
    while left:
        data = await reader.read(min(left, PIECE))
        if not data:
            raise ConnectionError("the body is cut short")
        left -= len(data)
        yield data


async def serve(address: str, pem: str) -> None:
    server = Server()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    await asyncio.start_server(server.http, address, CLEAR_PORT)
    await asyncio.start_server(server.http, address, TLS_PORT, ssl=context)
    await asyncio.start_server(server.raw, address, RAW_PORT)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(serve(*sys.argv[1:]))
