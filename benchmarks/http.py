"""HTTP through the enforcer, masking and recording on, beside a direct connection and HAProxy without inspection.

    sudo make bench            or   .venv/bin/python -m benchmarks.http [--seconds 5] [--rounds 3] [--json FILE]

Everything runs on this machine in one run, the contenders taking turns, so that only the ratios mean something: one
nginx, one wrk (1 thread, 32 keep-alive connections), a JSON answer of 200 bytes. HAProxy has one thread and the
enforcer one worker (its supervisor, which writes the records, is a second process).
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

TARGET = 0.3
CONNECTIONS = 32
PLAIN = json.dumps({"order": 17, "state": "shipped", "note": "x" * 151}).ljust(200)
CARRIES = json.dumps({"order": 17, "contact": "ada@example.org", "note": "x" * 138}).ljust(200)
LOCATIONS = f"location /plain {{ return 200 '{PLAIN}'; }}\nlocation /carries {{ return 200 '{CARRIES}'; }}"
HAPROXY = """
global
  nbthread 1
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend f
  bind 127.0.0.1:8080
  default_backend b
backend b
  server s {address}:80
"""


@dataclass(frozen=True)
class Result:
    """One run of wrk: requests per second, latencies in milliseconds, and answers that were not 2xx or failed."""

    rate: float
    p50: float
    p99: float
    errors: int


def wrk(command: list[str], url: str, seconds: int) -> Result:
    arguments = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", url]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    p50, p99 = (re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s)", done.stdout) for share in (50, 99))
    if not (rate and p50 and p99):
        raise SystemExit(f"wrk said:\n{done.stdout}{done.stderr}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", done.stdout)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", done.stdout)
    errors = (int(bad[1]) if bad else 0) + (sum(map(int, broken.groups())) if broken else 0)
    return Result(float(rate[1]), _milliseconds(p50), _milliseconds(p99), errors)


def _milliseconds(match: re.Match[str]) -> float:
    return float(match[1]) * {"us": 0.001, "ms": 1.0, "s": 1000.0}[match[2]]


def measure(seconds: int, rounds: int) -> tuple[dict[str, list[Result]], dict[str, int]]:
    """Results per contender, and resident bytes of the enforcer's processes under load."""
    with World(FRANKFURT) as world:
        world.nginx(FRANKFURT, LOCATIONS)
        configuration = world.directory / "haproxy.cfg"
        configuration.write_text(HAPROXY.format(address=FRANKFURT.address))
        world.spawn("host", "haproxy", "-f", str(configuration), "-db", log="haproxy.log")
        with Instance(world, policies=["eu-only"], packs=shipped_policies(), settings={"workers": 1}) as instance:
            inside = instance.command("exec", "--name", "wrk", "--user", "nobody", "--")
            outside = world.command("host")
            contenders = {
                "direct": (outside, f"http://{FRANKFURT.address}/plain"),
                "HAProxy, no inspection": (outside, "http://127.0.0.1:8080/plain"),
                "enforcer, nothing to mask": (world.command("host", *inside), f"http://{FRANKFURT.address}/plain"),
                "enforcer, one value masked": (world.command("host", *inside), f"http://{FRANKFURT.address}/carries"),
            }
            results: dict[str, list[Result]] = {name: [] for name in contenders}
            for _ in range(rounds):
                for name, (command, url) in contenders.items():
                    results[name].append(wrk(command, url, seconds))
            status = instance.status()
            resident = {"supervisor": status["resident_bytes"], "worker": status["workers"][0]["resident_bytes"]}
    return results, resident


def report(results: dict[str, list[Result]], resident: dict[str, int]) -> bool:
    """Prints the table; returns whether the target holds."""
    haproxy = statistics.median(result.rate for result in results["HAProxy, no inspection"])
    print(f"{'':<28}{'requests/s':>12}{'p50 ms':>9}{'p99 ms':>9}{'of HAProxy':>12}{'errors':>8}")
    ratios = {}
    for name, runs in results.items():
        rate = statistics.median(run.rate for run in runs)
        ratios[name] = rate / haproxy
        p50, p99 = (statistics.median(getattr(run, field) for run in runs) for field in ("p50", "p99"))
        errors = sum(run.errors for run in runs)
        print(f"{name:<28}{rate:>12.0f}{p50:>9.2f}{p99:>9.2f}{ratios[name]:>12.2f}{errors:>8}")
    worst = min(ratio for name, ratio in ratios.items() if name.startswith("enforcer"))
    print(f"resident under load: {', '.join(f'{name} {size / 1e6:.0f} MB' for name, size in resident.items())}")
    print(f"{'holds' if worst >= TARGET else 'FALLS SHORT'}: {worst:.2f} of HAProxy's rate, target {TARGET}")
    return worst >= TARGET


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.http", description="HTTP beside direct and HAProxy, as ratios.")
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the median counts (default 3)")
    parser.add_argument("--json", type=Path, help="also write all runs to this file")
    options = parser.parse_args()
    results, resident = measure(options.seconds, options.rounds)
    if options.json:
        document = {name: [asdict(run) for run in runs] for name, runs in results.items()}
        options.json.write_text(json.dumps({"results": document, "resident": resident, "cpus": psutil.cpu_count()}))
    return 0 if report(results, resident) else 1


if __name__ == "__main__":
    raise SystemExit(main())
