"""Load generators and what they told: wrk for rates, h2load for HTTP/2 and for latencies at a constant rate."""

from __future__ import annotations

import re
import statistics
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# h2load writes to a file that it opens itself, and an executor's files are its own.
_LOGGED = 'log=$(mktemp) && "$@" --log-file="$log" && cat "$log" && rm "$log"'
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0}


@dataclass(frozen=True)
class Result:
    """One run: requests per second, latencies in milliseconds, and answers that were not 2xx or failed."""

    rate: float
    p50: float
    p99: float
    errors: int


def wrk(command: Sequence[str], url: str, seconds: int, *, connections: int = 32, close: bool = False) -> Result:
    """As many requests as go, one after another on each connection; with `close` each on a connection of its own."""
    arguments = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", *(["-H", "Connection: close"] * close)]
    told = _run([*command, *arguments, url], seconds)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", told)
    p50, p99 = (re.search(rf"\s{share}%\s+([\d.]+)(us|ms|s)", told) for share in (50, 99))
    if not (rate and p50 and p99):
        raise SystemExit(f"wrk said:\n{told}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", told)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", told)
    # A connection that the server closes behind its answer, as asked, may count as a read error with wrk.
    failed = [int(count) for count in broken.groups()] if broken else [0, 0]
    errors = (int(bad[1]) if bad else 0) + sum(failed) - (failed[1] if close else 0)
    return Result(float(rate[1]), *(float(found[1]) * _UNITS[found[2]] for found in (p50, p99)), errors)


def h2load(command: Sequence[str], url: str, seconds: int, *options: str) -> tuple[Result, str]:
    """HTTP/2 or, by the options, HTTP/1.1; also the protocol that was agreed on."""
    arguments = ["h2load", f"-D{seconds}", *options]
    told = _run([*command, "sh", "-c", _LOGGED, "sh", *arguments, url], seconds)
    rows = [line.split("\t") for line in told.splitlines() if re.fullmatch(r"\d+\t-?\d+\t\d+", line)]
    agreed = re.search(r"Application protocol: (\S+)", told)
    taken = sorted(int(row[2]) / 1000 for row in rows)
    if not taken:
        raise SystemExit(f"h2load said:\n{told[-2000:]}")
    errors = sum(row[1] != "200" for row in rows)
    figures = len(taken) / seconds, taken[len(taken) // 2], taken[len(taken) * 99 // 100]
    return Result(*figures, errors), agreed[1] if agreed else "none"


def steady(command: Sequence[str], url: str, seconds: int, rate: float, *, clients: int = 16) -> Result:
    """HTTP/1.1 requests at a constant rate, whether or not answers keep up; latency of each from its own start."""
    return h2load(command, url, seconds, "--h1", f"-c{clients}", f"--rps={max(rate / clients, 1):.0f}")[0]


def in_turns(contenders: dict[str, Callable[[], Result]], rounds: int) -> dict[str, list[Result]]:
    """Every contender once a round, so that what else the machine does hits them alike. A run that does not end has no
    rate and one error."""
    results: dict[str, list[Result]] = {name: [] for name in contenders}
    for turn in range(rounds + 1):
        for name, run in contenders.items():
            try:
                result = run()
            except Stuck:
                result = Result(0.0, 0.0, 0.0, 1)
            if turn:  # the first round warms everybody up
                results[name].append(result)
    return results


def median(runs: list[Result]) -> Result:
    """The median of each figure; errors added up."""
    figures = (statistics.median(getattr(run, field) for run in runs) for field in ("rate", "p50", "p99"))
    return Result(*figures, sum(run.errors for run in runs))


class Stuck(Exception):
    """A load generator did not end: with a contender that is too slow for it."""


def _run(command: list[str], seconds: int) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds + 30)
    except subprocess.TimeoutExpired as error:
        raise Stuck(f"{command} did not end") from error
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)}\nended with {done.returncode}: {done.stderr or done.stdout}")
    return done.stdout
