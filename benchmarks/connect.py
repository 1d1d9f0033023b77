"""What the hooks cost: connect() with and without the enforcer, and one look into the region table at its full size.

    sudo make bench            or   .venv/bin/python -m benchmarks.connect [--connects 2000] [--rounds 9] [--json FILE]

One process that nothing governs and two of attached executors, in the same network namespace, take turns connecting to
the same server; a round of each is one sample, so that only the ratios mean something. `direct`: a rule lets the flow
go in the kernel. `proxied`: it is redirected, and the worker accepts it. The table is the one this host has.
"""

from __future__ import annotations

import argparse
import json
import random
import secrets
import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

from enforcer.capture import cgroup
from enforcer.capture.programs import Pins
from enforcer.capture.sysbpf import Map
from enforcer.capture.tables import Tables
from enforcer.config import load_settings
from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

TARGET = 1.05
PORT = 9100
LOOKUPS = 200_000
POLICY = f"""
policy: bench
applies_to: [{{{{cgroup: "{{slice}}/agent-*.service"}}}}]
rules:
  - name: straight
    to: {{{{region: [DE], port: ["{PORT}"]}}}}
    action: allow
    path: direct
  - name: germany
    to: {{{{region: [DE]}}}}
    action: allow
"""
# Accepts nothing until it is told to: a server that wakes up inside the client's connect() would be measured with it.
SERVER = """
import socket, sys
open("/proc/sys/net/core/somaxconn", "w").write("65535")
servers = [socket.create_server((sys.argv[1], int(port)), backlog=65535) for port in sys.argv[2:]]
for server in servers:
    server.setblocking(False)
for line in sys.stdin:
    for server in servers:
        try:
            while True:
                server.accept()[0].close()
        except BlockingIOError:
            pass
    print("drained", flush=True)
"""
# A line with a number and a port comes in, a line with the nanoseconds of each connect() goes out.
CLIENT = """
import json, socket, struct, sys, time
address = sys.argv[1]
linger = struct.pack("ii", 1, 0)
for line in sys.stdin:
    count, port = map(int, line.split())
    took = []
    for _ in range(count):
        sock = socket.socket()
        begun = time.perf_counter_ns()
        sock.connect((address, port))
        took.append(time.perf_counter_ns() - begun)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        sock.close()
    print(json.dumps(took), flush=True)
"""


class Process:
    """A process of this benchmark; a line goes in, a line comes out."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, line: str) -> str:
        if self._process.stdin is None or self._process.stdout is None:
            raise OSError("the process has no pipes")
        print(line, file=self._process.stdin, flush=True)
        return self._process.stdout.readline()

    def close(self) -> None:
        self._process.kill()
        self._process.wait()


class Client(Process):
    """On the agent host, in `group` where it is given."""

    def __init__(self, world: World, group: Path | None, server: Process) -> None:
        prefix = ["sh", "-c", f'echo $$ > {group}/cgroup.procs; exec "$@"', "sh"] if group else []
        super().__init__(world.command("host", *prefix, sys.executable, "-c", CLIENT, FRANKFURT.address))
        self._server = server

    def connect(self, count: int, port: int) -> float:
        """Median nanoseconds of `count` connections, one after another."""
        took = json.loads(self.ask(f"{count} {port}"))
        self._server.ask("drain")
        return float(statistics.median(took))


def connects(count: int, rounds: int) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Median nanoseconds of connect() per round and contender; and of one look into the table, per IP version."""
    with ExitStack() as stack:
        slice_ = cgroup.find_mount() / f"enfbench{secrets.token_hex(3)}.slice"
        slice_.mkdir()
        stack.callback(cgroup.remove, slice_)
        group = slice_ / "agent-1.service"
        group.mkdir()
        world = stack.enter_context(World(FRANKFURT))
        ports = [str(PORT), str(PORT + 1)]
        server = Process(world.command("frankfurt", sys.executable, "-c", SERVER, FRANKFURT.address, *ports))
        stack.callback(server.close)
        world.wait_for(FRANKFURT, PORT + 1)
        instance = Instance(world, policies=["bench"], packs=shipped_policies(), settings={"workers": 1}, user="root")
        (instance.root / "etc/enforcer/policies/bench.yaml").write_text(POLICY.format(slice=slice_.name))
        free, governed = Client(world, None, server), Client(world, group, server)
        stack.callback(free.close)
        stack.callback(governed.close)
        before = [free.connect(count, PORT) for _ in range(rounds)]
        stack.enter_context(instance)
        samples: dict[str, list[float]] = {"enforcer off": before, "beside": [], "direct": [], "proxied": []}
        for _ in range(rounds):
            samples["beside"].append(free.connect(count, PORT))
            samples["direct"].append(governed.connect(count, PORT))
            samples["proxied"].append(governed.connect(count // 4, PORT + 1))
        counters = instance.status()["counters"]
        if counters["DIRECT_PASSED"] < count * rounds or counters["REDIRECTED"] < count // 4 * rounds:
            raise OSError(f"not measured what was meant: {counters}")
        return samples, lookups(instance)


def lookups(instance: Instance) -> dict[str, float]:
    """Nanoseconds of one look into each trie, less what the same system call takes on an array of one."""
    (directory,) = Pins(load_settings(instance.root).instance).sets()
    tables = Tables(directory)
    tries = tables.tries_in_force()
    generation = Map.open(directory / "map_generation", 4, 4)
    chance = random.Random(1)
    floor = _time(generation, [bytes(4)] * LOOKUPS)
    four = [b"\x20\0\0\0" + IPv4Address(chance.getrandbits(32)).packed for _ in range(LOOKUPS)]
    six = [b"\x80\0\0\0" + IPv6Address(0x2 << 124 | chance.getrandbits(125)).packed for _ in range(LOOKUPS)]
    found = {"IPv4": _time(Map(tries[4], 8, 4), four) - floor, "IPv6": _time(Map(tries[6], 20, 4), six) - floor}
    tables.close()
    return found


def _time(table: Map, keys: list[bytes]) -> float:
    begun = time.perf_counter_ns()
    for key in keys:
        table.lookup(key)
    return (time.perf_counter_ns() - begun) / len(keys)


def report(samples: dict[str, list[float]], found: dict[str, float]) -> bool:
    base = statistics.median(samples["beside"])
    print(f"{'connect()':<14} {'median us':>10} {'lowest':>8} {'highest':>8} {'to ungoverned':>14}")
    for name, values in samples.items():
        median = statistics.median(values)
        line = f"{name:<14} {median / 1e3:>10.1f} {min(values) / 1e3:>8.1f} {max(values) / 1e3:>8.1f}"
        print(f"{line} {median / base:>14.3f}")
    for version, nanoseconds in found.items():
        print(f"region table, {version}: {nanoseconds:.0f} ns a look from user space, system call taken off")
    ratio = statistics.median(samples["direct"]) / base
    reached = ratio < TARGET
    verdict = "reached" if reached else "MISSED"
    print(f"direct connect(): {ratio:.3f} of an ungoverned one; target below {TARGET}: {verdict}")
    return reached


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--connects", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="write every figure to this file")
    options = parser.parse_args()
    samples, found = connects(options.connects, options.rounds)
    report(samples, found)
    if options.json:
        document: dict[str, Any] = {"connect_ns": samples, "lookup_ns": found}
        options.json.write_text(json.dumps(document, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
