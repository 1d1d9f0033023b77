"""Redis through the enforcer, masking and recording on, beside Redis without it: redis-benchmark, one worker.

    sudo make bench            or   .venv/bin/python -m benchmarks.redis [--requests 20000] [--rounds 3] [--json FILE]

Everything runs on this machine in one run, the contenders taking turns, so that only the ratios mean something: one
redis-server, 32 connections, values of 64 bytes. Every command is judged, masked by the pack `eu-only`'s four kinds of
values, and recorded for itself, also in a pipeline.
"""

from __future__ import annotations

import argparse
import csv
import io
import subprocess
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from benchmarks.load import Result, in_turns
from benchmarks.report import Report
from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

# Milliseconds that the enforcer may add to the median of a command on its own.
ADDED = 0.15
POLICY = """
policy: bench
rules:
  - name: germany
    to: {region: [DE], protocol: [redis]}
    action: allow
    mask: {response: [credit_card, iban, email, us_ssn]}
"""
# Seconds that one run may take.
PATIENCE = 300


def run(command: Sequence[str], test: str, requests: int, clients: int, pipeline: int) -> Result:
    options = ["-h", FRANKFURT.address, "-t", test, "-n", str(requests), "-c", str(clients), "-P", str(pipeline)]
    program = [*command, "redis-benchmark", *options, "-d", "64", "-r", "1000", "--precision", "3", "--csv"]
    done = subprocess.run(program, capture_output=True, text=True, check=False, timeout=PATIENCE)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    if done.returncode or not rows:
        raise SystemExit(f"redis-benchmark said:\n{done.stdout}{done.stderr}")
    told = rows[0]
    return Result(float(told["rps"]), float(told["p50_latency_ms"]), float(told["p99_latency_ms"]), 0)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.redis", description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=20_000, help="commands of one run (default 20000)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the median counts (default 3)")
    parser.add_argument("--json", type=Path, help="also write all runs to this file")
    options = parser.parse_args()
    report = Report()
    with World(FRANKFURT) as world:
        server = ("redis-server", "--save", "", "--bind", FRANKFURT.address, "--protected-mode", "no")
        world.spawn(FRANKFURT.name, *server, log="redis.log")
        world.wait_for(FRANKFURT, 6379)
        instance = Instance(world, policies=["bench"], packs=shipped_policies(), settings={"workers": 1})
        (instance.root / "etc/enforcer/policies/bench.yaml").write_text(POLICY)
        with instance:
            inside = world.command("host", *instance.command("exec", "--name", "load", "--user", "nobody", "--"))
            contenders = {"direct": world.command("host"), "enforcer": inside}
            for title, test, clients, pipeline in (
                ("GET, 32 connections", "get", 32, 1),
                ("SET, 32 connections", "set", 32, 1),
                ("GET, pipelines of 16", "get", 32, 16),
                ("LRANGE of 100, 32 connections", "lrange_100", 32, 1),
                ("GET, 1 connection", "get", 1, 1),
            ):
                requests = options.requests // (10 if clients == 1 or test == "lrange_100" else 1)
                runs = {
                    name: partial(run, command, test, requests, clients, pipeline)
                    for name, command in contenders.items()
                }
                told = report.section(title, in_turns(runs, options.rounds), "direct")
            report.target(
                "ms added to the median of one command", told["enforcer"].p50 - told["direct"].p50, at_most=ADDED
            )
    return report.end(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
