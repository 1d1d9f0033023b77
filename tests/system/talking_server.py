"""A language model's WebSocket for a site of the test world: `python talking_server.py ADDRESS`.

Answers each message with its text, two letters at a time, and with what it got: `{"delta": "to"}`, `{"got": "..."}`.
Where it ends in `...` it says no more after the last letters.
"""

from __future__ import annotations

import asyncio
import json
import sys

from websockets.asyncio.server import ServerConnection, serve

PORT = 8090


async def _talk(connection: ServerConnection) -> None:
    async for message in connection:
        text = message if isinstance(message, str) else message.decode()
        said = text.removesuffix("...")
        for at in range(0, len(said), 2):
            await connection.send(json.dumps({"delta": said[at : at + 2]}))
        if said == text:
            await connection.send(json.dumps({"got": text[::-1]}))


async def _serve(address: str) -> None:
    async with serve(_talk, address, PORT, compression=None):
        await asyncio.Future()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
