"""PostgreSQL through the enforcer, judged, masked and recorded, beside pgbouncer and the same server directly.

    sudo make bench            or   .venv/bin/python -m benchmarks.postgres [--seconds 5] [--rounds 3]

Everything runs on this machine in one run, the contenders taking turns: one PostgreSQL far away, and its own load
generator (pgbench, in C). pgbouncer is one process that pools sessions and reads no statement; the enforcer has one
worker, looks for card numbers in every answer, hides one column, and records every statement. Transactions are
pgbench's `select-only`, in the simple protocol and prepared; one client shows what a statement waits, a million rows
what a row costs.
"""

from __future__ import annotations

import argparse
import pwd
import re
import shutil
import statistics
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

CLIENTS = 8
ROWS = 1_000_000
POOL_PORT = 6432
POLICY = """
policy: bench
rules:
  - name: databases
    to: {region: [DE], protocol: [postgres]}
    action: allow
    mask: {response: [credit_card, {column: "people.ssn"}]}
"""
TABLES = f"""
create table people as
  select n as id, 'name ' || n as name, '078-05-1120'::text as ssn from generate_series(1, {ROWS}) n
"""  # noqa: S608 - the number is ours
POOL = f"""
[databases]
* = host={FRANKFURT.address} port=5432 user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {POOL_PORT}
unix_socket_dir =
auth_type = any
auth_file = /dev/null
pool_mode = session
ignore_startup_parameters = extra_float_digits
"""
BOUNCER_SHARE = 0.5
"""Of pgbouncer's transactions per second, at least."""
ROWS_TARGET = 400_000
"""Rows per second of the clock, with one column masked."""
ADDED_TARGET = 150.0
"""Microseconds that a statement waits longer than without us, in the middle."""
_RATE = re.compile(r"tps = ([\d.]+)")


@contextmanager
def server(world: World) -> Iterator[None]:
    """PostgreSQL in Frankfurt, and pgbouncer on the host; both end with the world."""
    account, home = pwd.getpwnam("postgres"), world.directory / "postgres"
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin"))[-1]
    home.mkdir()
    for directory in (world.directory, home):
        directory.chmod(0o755)
    shutil.chown(home, account.pw_uid, account.pw_gid)
    initdb = [f"{binaries}/initdb", "-D", f"{home}/data", "-U", "postgres", "-A", "trust", "-N"]
    user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    subprocess.run(initdb, check=True, capture_output=True, cwd=home, **user)  # type: ignore[call-overload]
    with (home / "data/pg_hba.conf").open("a") as rules:
        rules.write("host all all 0.0.0.0/0 trust\n")
    settings = {"listen_addresses": FRANKFURT.address, "unix_socket_directories": home, "fsync": "off"}
    options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
    as_postgres = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    command = [*as_postgres, f"{binaries}/postgres", "-D", f"{home}/data", *options]
    world.spawn(FRANKFURT.name, *command, log="postgres.log")
    world.wait_for(FRANKFURT, 5432)
    (home / "pgbouncer.ini").write_text(POOL)
    world.spawn("host", *as_postgres, "pgbouncer", f"{home}/pgbouncer.ini", log="pgbouncer.log")
    yield


def login(program: str, *arguments: str, port: int = 5432) -> list[str]:
    """`port`: of the server, or of the pool before it."""
    host = FRANKFURT.address if port == 5432 else "127.0.0.1"
    return [program, "-h", host, "-p", str(port), "-U", "postgres", *arguments]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[-1]!r} failed: {done.stderr.strip()}")
    return done.stdout


def transactions(command: list[str], port: int, mode: str, clients: int, seconds: int) -> float:
    """Selects of one row per second."""
    load = ["-S", "-n", "-M", mode, "-c", str(clients), "-j", "1", "-T", str(seconds), "postgres"]
    told = _RATE.search(run([*command, *login("pgbench", *load, port=port)]))
    if told is None:
        raise SystemExit("pgbench does not say how many transactions there were")
    return float(told[1])


def rows(command: list[str], port: int) -> float:
    """Rows per second of one result of a million, one column of which is masked. psql reads them by the thousand."""
    select = login(
        "psql", "-X", "-A", "-t", "-v", "FETCH_COUNT=0", "-c", "select id, name, ssn from people", "postgres", port=port
    )
    timed = 'begun=$EPOCHREALTIME; "$@" | wc -l; echo $begun; echo $EPOCHREALTIME'  # without what starts an executor
    count, begun, ended = run([*command, "bash", "-c", timed, "-", *select]).split()
    if int(count) != ROWS:
        raise SystemExit(f"the client got {count} rows; see postgres.log")
    return ROWS / (float(ended) - float(begun))


Found = dict[str, dict[str, list[float]]]


def measure(seconds: int, rounds: int) -> Found:
    found: Found = {}
    with World(FRANKFURT) as world, server(world):
        instance = Instance(world, policies=["bench"], packs=shipped_policies(), settings={"workers": 1})
        (instance.root / "etc/enforcer/policies/bench.yaml").write_text(POLICY)
        with instance:
            host = world.command("host")
            inside = world.command("host", *instance.command("exec", "--name", "load", "--user", "nobody", "--"))
            run([*host, *login("pgbench", "-i", "-q", "-s", "1", "postgres")])
            run([*host, *login("psql", "-X", "-q", "-c", TABLES, "postgres")])
            contenders = {"direct": (host, 5432), "pgbouncer": (host, POOL_PORT), "enforcer": (inside, 5432)}
            what: dict[str, Callable[[list[str], int], float]] = {
                "simple/s": lambda command, port: transactions(command, port, "simple", CLIENTS, seconds),
                "prepared/s": lambda command, port: transactions(command, port, "prepared", CLIENTS, seconds),
                "one client/s": lambda command, port: transactions(command, port, "simple", 1, seconds),
                "rows/s": rows,
            }
            for _ in range(rounds):
                for name, measured in what.items():
                    for contender, (command, port) in contenders.items():
                        found.setdefault(name, {}).setdefault(contender, []).append(measured(command, port))
    return found


def report(found: Found) -> bool:
    """Prints the medians; whether all targets hold."""
    medians = {name: {who: statistics.median(runs) for who, runs in told.items()} for name, told in found.items()}
    print(
        f"\n{'PostgreSQL, one worker, medians':<32}{'direct':>12}{'pgbouncer':>12}{'enforcer':>12}{'to pgbouncer':>14}"
    )
    for name, told in medians.items():
        figures = "".join(f"{told[who]:>12.0f}" for who in ("direct", "pgbouncer", "enforcer"))
        print(f"  {name:<30}{figures}{told['enforcer'] / told['pgbouncer']:>14.2f}")
    alone = medians["one client/s"]
    added = 1e6 / alone["enforcer"] - 1e6 / alone["direct"]
    shares = {name: medians[name]["enforcer"] / medians[name]["pgbouncer"] for name in ("simple/s", "prepared/s")}
    verdicts = [
        (f"{name} beside pgbouncer: {share:.2f}, target >= {BOUNCER_SHARE}", share >= BOUNCER_SHARE)
        for name, share in shares.items()
    ]
    reached = medians["rows/s"]["enforcer"]
    verdicts.append((f"rows/s with a masked column: {reached:.0f}, target >= {ROWS_TARGET}", reached >= ROWS_TARGET))
    verdicts.append((f"added per statement: {added:.0f} us, target <= {ADDED_TARGET:.0f}", added <= ADDED_TARGET))
    print()
    for words, holds in verdicts:
        print(f"{'holds' if holds else 'FALLS SHORT':<12}{words}")
    return all(holds for _, holds in verdicts)


def main() -> int:
    parser = argparse.ArgumentParser(description="PostgreSQL through the enforcer beside pgbouncer and direct.")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    return 0 if report(measure(arguments.seconds, arguments.rounds)) else 1


if __name__ == "__main__":
    raise SystemExit(main())
