"""Feeds targets with atheris, one after another: `python -m tests.fuzz.run [TARGET...] [--seconds 60]`.

What a target learnt (inputs that reached new code) is kept in `build/fuzz/TARGET/` and begins the next run. An input
that breaks a promise is written to `tests/corpora/fuzz/TARGET/`, where `make test` feeds it from then on; the run ends
with 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time

from tests.fuzz.feed import LEARNT, ROOT
from tests.fuzz.targets import TARGETS

# The last of these lines of libFuzzer's tells how much was reached: "cov: 412 ft: 1033 corp: 97/3012b".
_COVERAGE = re.compile(r"cov: \d+ ft: \d+ corp: \S+")
_RUNS = re.compile(r"Done (\d+) runs")


def main() -> int:
    parser = argparse.ArgumentParser(prog="tests.fuzz.run", description="Feeds fuzz targets with atheris.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"which (default: all of {', '.join(TARGETS)})")
    parser.add_argument("--seconds", type=int, default=60, help="how long each (default 60)")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"no target {', '.join(sorted(unknown))}; there are {', '.join(TARGETS)}")
    failed = [name for name in options.targets or TARGETS if not _run(name, options.seconds)]
    for name in failed:
        sys.stderr.write(f"fuzz: {name} broke; see build/fuzz/{name}.log and tests/corpora/fuzz/{name}/\n")
    return 1 if failed else 0


def _run(name: str, seconds: int) -> bool:
    """One target in a process of its own; libFuzzer's report goes to a file, its last words here."""
    LEARNT.mkdir(parents=True, exist_ok=True)
    log, begun = LEARNT / f"{name}.log", time.monotonic()
    command = [sys.executable, "-P", "-m", "tests.fuzz.feed", name, str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with log.open("wb") as output:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=output, stderr=output, check=False)
    text = log.read_text(errors="replace")
    told = [*_RUNS.findall(text), "?"][0], ["nothing reached", *_COVERAGE.findall(text)][-1]
    verdict = "ok" if done.returncode == 0 else "BROKE"
    sys.stdout.write(f"{name:<18}{time.monotonic() - begun:>6.0f} s {told[0]:>10} runs  {told[1]:<36}{verdict}\n")
    sys.stdout.flush()
    return done.returncode == 0


if __name__ == "__main__":
    raise SystemExit(main())
