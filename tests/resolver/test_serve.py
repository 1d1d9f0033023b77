"""Questions over TCP: pipelined, cut anywhere, in any number; what is no DNS ends the connection."""

from __future__ import annotations

import asyncio
import socket
import struct
import time

import dns.message
import pytest

from enforcer.resolver import serve as serve_module
from enforcer.resolver import upstreams as upstreams_module
from tests.resolver.stage import DE, Stage, addresses, allow, awaited, deny, until


@awaited
async def test_tcp_takes_many_questions_in_one_segment() -> None:
    """Pipelined, cut at any byte, an allowed and a denied one together: each is judged, each answered by its id."""
    async with Stage(deny(hosts=frozenset({"evil.example"})), allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        names = ["db.example", "evil.example", "nope.example"]
        queries = [dns.message.make_query(name, "A", id=number) for number, name in enumerate(names)]
        data = b"".join(struct.pack(">H", len(one)) + one for one in (query.to_wire() for query in queries))
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        for at in range(0, len(data), 7):
            writer.write(data[at : at + 7])
            await asyncio.sleep(0)
        answers = {}
        for _ in names:
            length = int.from_bytes(await reader.readexactly(2), "big")
            message = dns.message.from_wire(await reader.readexactly(length))
            answers[message.id] = (message.rcode(), addresses(message))
        assert answers == {0: (0, [DE]), 1: (3, []), 2: (3, [])}
        assert sorted(stage.upstream.asked) == ["db.example. IN A", "nope.example. IN A"]
        writer.close()
        await until(lambda: [row for row in stage.rows if row["table"] == "session_ends"])
        (opening,) = [row for row in stage.rows if row["table"] == "sessions"]
        assert (opening["destination"], opening["region"]) == (f"{DE}:53", "DE")


@awaited
async def test_a_client_that_has_asked_all_still_gets_its_answers() -> None:
    """It closes its side at once; the answers come, then the end."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        query = dns.message.make_query("db.example", "A").to_wire()
        writer.write(struct.pack(">H", len(query)) + query)
        writer.write_eof()
        data = await reader.read()
        assert addresses(dns.message.from_wire(data[2:])) == [DE]


@pytest.mark.parametrize("data", [b"\xff\xff", b"\x00\x00", b"\x00\x04leak"])
@awaited
async def test_a_stream_that_is_no_dns_is_closed(data: bytes) -> None:
    """Lengths that no question has, and messages that are none."""
    async with Stage(allow()) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(data)
        assert await reader.read() == b""
        assert stage.upstream.asked == []
        writer.close()


@awaited
async def test_more_questions_than_may_wait_on_one_stream_wait_their_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred in one go, of an upstream that takes its time: all are answered."""
    monkeypatch.setattr(upstreams_module, "TRY", 0.5)
    async with Stage(allow(), names_per_minute=1000) as stage:
        stage.upstream.silent = True
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        queries = [dns.message.make_query(f"n{number}.example", "A", id=number).to_wire() for number in range(100)]
        writer.write(b"".join(struct.pack(">H", len(one)) + one for one in queries))
        await until(lambda: len(stage.upstream.asked) == 32)
        assert stage.counters["QUERIES"] == 32
        stage.upstream.silent = False
        seen = set()
        started = time.monotonic()
        while len(seen) < 100 and time.monotonic() - started < 20:
            length = int.from_bytes(await reader.readexactly(2), "big")
            seen.add(int.from_bytes((await reader.readexactly(length))[:2], "big"))
        assert seen == set(range(100))
        writer.close()


@awaited
async def test_a_connection_that_says_nothing_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """After its time, with half a question as well."""
    monkeypatch.setattr(serve_module, "IDLE", 0.1)
    async with Stage(allow()) as stage:
        reader, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        writer.write(b"\x00\x20half")
        assert await reader.read() == b""
        writer.close()


@awaited
async def test_a_client_that_is_gone_costs_nobody_else_an_answer() -> None:
    """Its answer finds no socket; the next question is answered."""
    async with Stage(allow()) as stage:
        stage.upstream.zone["db.example."] = {"A": [DE]}
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(("127.0.0.1", stage.port))
            sock.send(dns.message.make_query("db.example", "A").to_wire())
        _, writer = await asyncio.open_connection("127.0.0.1", stage.port)
        query = dns.message.make_query("slow.example", "A").to_wire()
        writer.write(struct.pack(">H", len(query)) + query)
        await writer.drain()
        writer.transport.abort()
        assert addresses(await stage.ask("db.example")) == [DE]
