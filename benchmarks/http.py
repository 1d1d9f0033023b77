"""HTTP through the enforcer, masking and recording on, beside mitmproxy with an equal mask and HAProxy without one.

    sudo make bench            or   .venv/bin/python -m benchmarks.http [--seconds 5] [--rounds 3] [--json FILE]

Everything runs on this machine in one run, the contenders taking turns, so that only the ratios mean something: one
nginx, one wrk (1 thread, 32 keep-alive connections), a JSON answer of 200 bytes. Then latency at half of the enforcer's
rate, and a second worker. `stage` says what the contenders are.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

import psutil

from benchmarks.held import held
from benchmarks.load import Result, in_turns, steady, wrk
from benchmarks.report import Report
from benchmarks.stage import Contender, Stage, missing, stage

OF_HAPROXY, OF_MITMPROXY, OF_ONE_WORKER = 0.5, 20.0, 1.6
# Of a core, for each worker where one is compared with two: so much that the rest of the machine has enough for both.
PART = 0.2
# Milliseconds that the enforcer may add to the 99th percentile at half of what it can do.
ADDED = 2.0
MASKED, NOTHING = "enforcer, one value masked", "enforcer, nothing to mask"


def rates(report: Report, built: Stage, seconds: int, rounds: int) -> float:
    """Requests per second on 32 connections that stay open; returns the enforcer's with a value to mask."""
    there = built.contenders

    def run(contender: Contender, path: str):  # type: ignore[no-untyped-def]
        return partial(wrk, contender.command, f"{contender.plain}/{path}", seconds)

    runs = {"direct": run(there["direct"], "plain"), "HAProxy": run(there["HAProxy"], "plain")}
    if "mitmproxy" in there:
        runs["mitmproxy, one value masked"] = run(there["mitmproxy"], "carries")
    runs |= {NOTHING: run(there["enforcer"], "plain"), MASKED: run(there["enforcer"], "carries")}
    told = report.section("32 connections, HTTP/1.1", in_turns(runs, rounds), "HAProxy")
    worst = min(told[NOTHING].rate, told[MASKED].rate)
    report.target("of HAProxy's rate, which inspects nothing", worst / told["HAProxy"].rate, at_least=OF_HAPROXY)
    if "mitmproxy" in there:
        times = told[MASKED].rate / told["mitmproxy, one value masked"].rate
        report.target("times mitmproxy's rate, equal mask", times, at_least=OF_MITMPROXY)
    status = built.instance.status()
    supervisor, worker = status["resident_bytes"] / 1e6, status["workers"][0]["resident_bytes"] / 1e6
    report.note(f"resident under load: supervisor {supervisor:.0f} MB, worker {worker:.0f} MB")
    return told[MASKED].rate


def latency(report: Report, built: Stage, rate: float, seconds: int, rounds: int) -> None:
    """What is added at a constant rate, half of what the enforcer can do."""
    there = built.contenders
    runs = {
        name: partial(steady, there[name].command, f"{there[name].plain}/carries", seconds, rate / 2)
        for name in ("direct", "HAProxy", "enforcer")
    }
    told = report.section(f"constant {rate / 2:.0f} requests/s", in_turns(runs, rounds), "HAProxy")
    added = told["enforcer"].p99 - told["direct"].p99
    report.target("ms added to the 99th percentile at half load", added, at_most=ADDED)


def workers(report: Report, one: list[Result], seconds: int, rounds: int) -> None:
    """A second worker, against the runs of one: with what cores there are, and each with the same part of a core."""
    runs: dict[str, list[Result]] = {"one worker": one}
    able = True
    for count, name in ((1, "one worker, held"), (2, "two workers, held")):
        with stage(workers=count, peers=False) as built:
            contender = built.contenders["enforcer"]
            run = partial(wrk, contender.command, f"{contender.plain}/carries", seconds)
            if count == 2:
                runs |= in_turns({"two workers": run}, rounds)
            with held([worker["pid"] for worker in built.instance.status()["workers"]], PART) as able:
                if able:
                    runs |= in_turns({name: run}, rounds)
    told = report.section("workers, one value masked", runs, "one worker")
    report.note(f"load generator, server, workers and supervisor share this machine's {psutil.cpu_count()} cores;")
    if not able:
        report.note("to hold workers to a part of one, the kernel's cpu controller is needed: it is not there")
        return
    report.note(f"held: each worker has {PART:.0%} of a core")
    times = told["two workers, held"].rate / told["one worker, held"].rate
    report.target("times the rate of one worker with two, each held", times, at_least=OF_ONE_WORKER)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.http", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the median counts (default 3)")
    parser.add_argument("--json", type=Path, help="also write all runs to this file")
    options = parser.parse_args()
    report = Report()
    if lacking := missing():
        report.note(lacking)
    with stage() as built:
        rate = rates(report, built, options.seconds, options.rounds)
        latency(report, built, rate, options.seconds, options.rounds)
    workers(report, report.runs["32 connections, HTTP/1.1"][MASKED], options.seconds, options.rounds)
    return report.end(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
