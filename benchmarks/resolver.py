"""Names through the enforcer's resolver, judged and recorded, beside dnsmasq: questions per second of processor.

    sudo make bench            or   .venv/bin/python -m benchmarks.resolver [--seconds 5] [--rounds 3]

Everything runs on this machine in one run, the contenders taking turns. One client asks for 100 names in turn, with 32
questions under way; both answer from their cache. What counts is the processor time of the answering process alone, as
the client's share differs. The resolver judges each name and has each question recorded by the supervisor; dnsmasq, in
C, does neither.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time

import psutil

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

# Questions per second of processor, from the cache and with recording.
TARGET = 5000
NAMES = 100
CLIENT = """
import json, socket, struct, sys, time
address, port, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
def query(number):
    name = b"\\x04" + b"n%03d" % number + b"\\x07example\\x00"
    return struct.pack(">6H", number, 0x100, 1, 0, 0, 0) + name + struct.pack(">2H", 1, 1)
queries = [query(number) for number in range(100)]
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.connect((address, port))
sock.settimeout(2)
for one in queries:
    sock.send(one)
    sock.recv(512)
begun, answered, asked = time.monotonic(), 0, 0
for _ in range(32):
    sock.send(queries[asked % 100])
    asked += 1
while time.monotonic() - begun < seconds:
    if sock.recv(512)[3] & 15:
        raise SystemExit("refused")
    answered += 1
    sock.send(queries[asked % 100])
    asked += 1
print(json.dumps({"answered": answered, "seconds": time.monotonic() - begun}))
"""


def ask(command: list[str], address: str, port: int, seconds: float, process: psutil.Process) -> tuple[float, float]:
    """(questions per second of `process`'s processor, per second of the clock)."""
    before = sum(process.cpu_times()[:2])
    arguments = [sys.executable, "-c", CLIENT, address, str(port), str(seconds)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the client failed: {done.stderr}")
    used = sum(process.cpu_times()[:2]) - before
    answer = json.loads(done.stdout)
    return answer["answered"] / used, answer["answered"] / answer["seconds"]


def measure(seconds: float, rounds: int) -> dict[str, list[tuple[float, float]]]:
    with World(FRANKFURT) as world:
        records = [f"--host-record=n{number:03d}.example,3.120.0.10,300" for number in range(NAMES)]
        common = [
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--conf-file=/dev/null",
            "--cache-size=1000",
        ]
        far = ["--port=53", f"--listen-address={FRANKFURT.address}", "--bind-interfaces", *records]
        world.spawn(FRANKFURT.name, "dnsmasq", *common, *far, log="far.log")
        near = ["--port=5353", "--listen-address=127.0.0.1", "--bind-interfaces", f"--server={FRANKFURT.address}"]
        dnsmasq = world.spawn("host", "dnsmasq", *common, *near, log="near.log")
        settings = {"workers": 1, "resolver": {"upstreams": [{"address": FRANKFURT.address}], "names_per_minute": 1000}}
        with Instance(world, policies=["eu-only"], packs=shipped_policies(), settings=settings) as instance:
            time.sleep(0.5)
            inside = world.command("host", *instance.command("exec", "--name", "dig", "--user", "nobody", "--"))
            (resolver,) = instance.status()["resolver"]["processes"]
            contenders = {
                "dnsmasq": (world.command("host"), "127.0.0.1", 5353, psutil.Process(dnsmasq.pid)),
                "enforcer": (inside, "192.0.2.53", 53, psutil.Process(resolver["pid"])),
            }
            results: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, (command, address, port, process) in contenders.items():
                    results[name].append(ask(command, address, port, seconds, process))
            counters = instance.status()["resolver"]["counters"]
            print(f"counted: {counters}")
    return results


def report(results: dict[str, list[tuple[float, float]]]) -> bool:
    """Prints the table; returns whether the target holds."""
    print(f"{'':<12}{'per CPU second':>16}{'per second':>12}")
    rates = {name: statistics.median(rate for rate, _ in runs) for name, runs in results.items()}
    for name, runs in results.items():
        print(f"{name:<12}{rates[name]:>16.0f}{statistics.median(clock for _, clock in runs):>12.0f}")
    holds = rates["enforcer"] >= TARGET
    share = rates["enforcer"] / rates["dnsmasq"]
    print(f"{'holds' if holds else 'FALLS SHORT'}: {rates['enforcer']:.0f}, target {TARGET}; {share:.2f} of dnsmasq")
    return holds


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.resolver", description="Names beside dnsmasq.")
    parser.add_argument("--seconds", type=float, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the median counts (default 3)")
    options = parser.parse_args()
    return 0 if report(measure(options.seconds, options.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
