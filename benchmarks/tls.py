"""TLS that ends at the enforcer, is masked, recorded and begun anew, beside HAProxy that ends it and begins it anew.

    sudo make bench            or   .venv/bin/python -m benchmarks.tls [--seconds 5] [--rounds 3] [--json FILE]

As `benchmarks.http`: HTTP/1.1 on connections that stay open, a connection for each request, and HTTP/2 (8 connections,
8 streams each). TLS 1.3, P-256 certificates. HAProxy keeps its connections to the server from client to client; the
enforcer opens one for each, because each is judged.
"""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from benchmarks.load import Result, h2load, in_turns, wrk
from benchmarks.report import Report
from benchmarks.stage import Contender, Stage, missing, stage

OF_HAPROXY = 0.5
PEERS = ("direct", "HAProxy", "mitmproxy", "enforcer")


def present(built: Stage) -> list[Contender]:
    return [built.contenders[name] for name in PEERS if name in built.contenders]


def kept(report: Report, built: Stage, seconds: int, rounds: int) -> None:
    """Requests on connections that stay open."""
    runs = {one.name: partial(wrk, one.command, f"{one.tls}/carries", seconds) for one in present(built)}
    told = report.section("32 connections, HTTP/1.1 in TLS", in_turns(runs, rounds), "HAProxy")
    report.target("TLS: of HAProxy's rate", told["enforcer"].rate / told["HAProxy"].rate, at_least=OF_HAPROXY)


def new(report: Report, built: Stage, seconds: int, rounds: int) -> None:
    """A handshake for each request."""
    runs = {one.name: partial(wrk, one.command, f"{one.tls}/plain", seconds, close=True) for one in present(built)}
    report.section("new TLS connections", in_turns(runs, rounds), "HAProxy")


def streams(report: Report, built: Stage, seconds: int, rounds: int) -> None:
    """HTTP/2, where a contender agrees to it."""
    agreed: dict[str, str] = {}

    def run(one: Contender) -> Result:
        options = ("-c8", "-m8", "--npn-list=h2,http/1.1")
        result, agreed[one.name] = h2load(one.command, f"{one.tls}/carries", seconds, *options)
        return result

    told = report.section(
        "8 connections x 8 streams in TLS",
        in_turns({one.name: partial(run, one) for one in present(built)}, rounds),
        "HAProxy",
    )
    report.note(f"agreed by ALPN: {', '.join(f'{name} {protocol}' for name, protocol in agreed.items())}")
    if agreed.get("enforcer") == "h2":
        report.target("HTTP/2: of HAProxy's rate", told["enforcer"].rate / told["HAProxy"].rate, at_least=OF_HAPROXY)


def main() -> int:
    parser = argparse.ArgumentParser(prog="benchmarks.tls", description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=5, help="length of one run (default 5)")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each contender; the median counts (default 3)")
    parser.add_argument("--json", type=Path, help="also write all runs to this file")
    options = parser.parse_args()
    report = Report()
    if lacking := missing():
        report.note(lacking)
    with stage() as built:
        for section in (kept, new, streams):
            section(report, built, options.seconds, options.rounds)
    return report.end(options.json)


if __name__ == "__main__":
    raise SystemExit(main())
