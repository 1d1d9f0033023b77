"""What waits and what floods: memory of 5,000 idle connections, and one executor's latency beside another that floods.

    sudo make bench            or   .venv/bin/python -m benchmarks.idle [--connections 5000] [--json FILE]

A connection is idle after one request: inspected, recorded, open on both sides. Plain and in TLS. Then one executor
asks 100 times a second while another keeps 1,000 connections open that send a byte of a request every second (slow
loris), or opens as many connections as it can and drops them (flood).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import psutil

from benchmarks.load import Result, in_turns, steady
from benchmarks.report import Report
from benchmarks.stage import NAME, Stage, stage
from enforcer.demo.world import FRANKFURT

# Bytes of one idle connection, supervisor and worker together.
EACH = 100_000
RATE = 100.0
# Times that the 99th percentile may grow beside a flood, and milliseconds that it may have in any case.
TIMES, FLOOR = 3.0, 25.0
# What holds or attacks, run inside an executor: MODE HOST PORT COUNT; says a line when it is under way.
CLIENT = r"""
import asyncio, socket, ssl, sys
mode, host, port, count = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
context = ssl.create_default_context() if port == 443 else None
REQUEST = f"GET /plain HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()

async def idle(kept, gate):
    async with gate:
        reader, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.write(REQUEST)
        await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(200)
        kept.append(writer)

async def loris():
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            for byte in REQUEST[:-2] + b"X" * 10_000:
                writer.write(bytes([byte]))
                await asyncio.sleep(1)
        except OSError:
            await asyncio.sleep(0.1)

async def flood():
    while True:
        try:
            reader, writer = await asyncio.open_connection(host, port)
            writer.write(REQUEST)
            writer.transport.abort()
        except OSError:
            await asyncio.sleep(0.01)

async def main():
    if mode == "idle":
        kept, gate = [], asyncio.Semaphore(64)
        await asyncio.gather(*(idle(kept, gate) for _ in range(count)))
    else:
        tasks = [asyncio.create_task({"loris": loris, "flood": flood}[mode]()) for _ in range(count)]
        await asyncio.sleep(3)
    print("under way", flush=True)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    sys.exit(0)

asyncio.run(main())
"""


@contextmanager
def client(built: Stage, mode: str, port: int, count: int) -> Iterator[None]:
    """An executor that does `mode` while the block runs."""
    host = NAME if port == 443 else FRANKFURT.address
    command = [*built.executor(mode), sys.executable, "-c", CLIENT, mode, host, str(port), str(count)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise SystemExit("no pipes to the client")
        if process.stdout.readline() != "under way\n":
            process.kill()
            raise SystemExit(f"{mode}: {process.stderr.read()[-2000:]}")
        try:
            yield
        finally:
            process.kill()


def resident(built: Stage) -> int:
    """Bytes of supervisor and workers."""
    status = built.instance.status()
    pids = [built.instance.pid, *(worker["pid"] for worker in status["workers"])]
    return sum(psutil.Process(pid).memory_info().rss for pid in pids)


def memory(report: Report, count: int) -> None:
    """Each kind on an enforcer of its own, so that neither finds memory of the other's."""
    for kind, port in (("plain", 80), ("TLS", 443)):
        with stage(peers=False) as built:
            with client(built, "idle", port, 50):
                before = resident(built)
            with client(built, "idle", port, count):
                each = (resident(built) - before) / count
            report.note(f"{count} idle connections, {kind}: {each / 1000:.1f} KB each")
            report.target(f"KB of memory per idle connection, {kind}", each / 1000, at_most=EACH / 1000)


def neighbours(report: Report, seconds: int, rounds: int) -> None:
    """The same executor alone, beside a slow loris, and beside a flood."""
    with stage(peers=False) as built:
        contender = built.contenders["enforcer"]
        ask = partial(steady, contender.command, f"{contender.plain}/carries", seconds, RATE, clients=4)

        def beside(mode: str, count: int) -> Result:
            with client(built, mode, 80, count):
                return ask()

        runs = {
            "alone": ask,
            "beside 1,000 slow connections": partial(beside, "loris", 1000),
            "beside a flood of connections": partial(beside, "flood", 16),
        }
        told = report.section(f"an executor that asks {RATE:.0f} times/s", in_turns(runs, rounds), "alone")
    for name in list(told)[1:]:
        grown, allowed = told[name].p99, max(TIMES * told["alone"].p99, FLOOR)
        report.target(f"ms at the 99th percentile {name}", grown, at_most=allowed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.idle", description=__doc__.splitlines()[0])
    parser.add_argument("--connections", type=int, default=5000, help="how many are idle (default 5000)")
    parser.add_argument("--seconds", type=int, default=10, help="length of one run beside a neighbour (default 10)")
    parser.add_argument("--rounds", type=int, default=2, help="turns of each; the median counts (default 2)")
    parser.add_argument("--json", type=Path, help="also write all runs to this file")
    options = parser.parse_args()
    report = Report()
    memory(report, options.connections)
    neighbours(report, options.seconds, options.rounds)
    return report.end(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
