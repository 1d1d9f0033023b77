"""MySQL through the enforcer, judged, masked and recorded, beside the same server directly.

    sudo make bench            or   .venv/bin/python -m benchmarks.mysql [--seconds 10] [--rounds 3]

Everything runs on this machine in one run, the contenders taking turns: one MariaDB far away, sysbench and MariaDB's
client. The enforcer has one worker; it looks for card numbers in answers, hides one column, and records every
statement. Selects of one row show what a statement costs, as text and prepared; sysbench's transactions that read
(14 statements, ranges and sums among them) what a mix does; a million rows what a row costs.
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

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World

CLIENTS = 8
ROWS = 1_000_000
SIZE = 100_000
"""Rows of sysbench's table."""
POLICY = """
policy: bench
rules:
  - name: databases
    to: {region: [DE], protocol: [mysql]}
    action: allow
    mask: {response: [credit_card, {column: "people.ssn"}]}
"""
TABLES = f"""
CREATE USER bench@'%';
GRANT ALL ON *.* TO bench@'%';
CREATE DATABASE bench;
CREATE TABLE bench.people (id INT PRIMARY KEY, name VARCHAR(40), ssn CHAR(11)) ENGINE=InnoDB;
INSERT INTO bench.people SELECT seq, CONCAT('name ', seq), '078-05-1120' FROM bench.seq_1_to_{ROWS};
"""  # noqa: S608 - the number is ours
# Rows per second of the clock, with one column masked.
ROWS_TARGET = 400_000
_RATE = re.compile(r"queries: +\d+ +\(([\d.]+) per sec")


@contextmanager
def server(world: World) -> Iterator[None]:
    """MariaDB in Frankfurt, with a million rows; ended with the world."""
    account, home = pwd.getpwnam("mysql"), world.directory / "mariadb"
    home.mkdir()
    (home / "init.sql").write_text(TABLES)
    data = f"--datadir={home}/data"
    install = [
        "mariadb-install-db",
        "--no-defaults",
        data,
        "--skip-test-db",
        "--auth-root-authentication-method=normal",
    ]
    subprocess.run(install, check=True, capture_output=True, cwd=home)
    for directory in (world.directory, home):
        directory.chmod(0o755)
    for path in (home, *home.rglob("*")):
        shutil.chown(path, account.pw_uid, account.pw_gid)
    options = ["--user=mysql", f"--bind-address={FRANKFURT.address}", f"--socket={home}/sock", "--skip-name-resolve"]
    options += [f"--init-file={home}/init.sql", "--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=256M"]
    world.spawn(FRANKFURT.name, "mariadbd", "--no-defaults", data, *options, log="mariadb.log")
    world.wait_for(FRANKFURT, 3306)
    yield


def login(*arguments: str) -> list[str]:
    return [arguments[0], "--no-defaults", f"-h{FRANKFURT.address}", "-ubench", *arguments[1:]]


def run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{command[-1]!r} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def sysbench(test: str, *arguments: str) -> list[str]:
    server = [f"--mysql-host={FRANKFURT.address}", "--mysql-user=bench", "--mysql-db=bench", f"--table-size={SIZE}"]
    return ["sysbench", test, *server, *arguments]


def queries(command: list[str], test: str, prepared: str, seconds: int) -> float:
    """Statements per second of 8 clients. `prepared`: sysbench's word for how they are sent, `disable` as text."""
    load = [f"--threads={CLIENTS}", f"--time={seconds}", f"--db-ps-mode={prepared}"]
    told = _RATE.search(run([*command, *sysbench(test, *load, "run")]))
    if told is None:
        raise SystemExit("sysbench does not say how many queries there were")
    return float(told[1])


def rows(command: list[str]) -> float:
    """Rows per second of one result of a million, one column of which is masked."""
    select = login("mariadb", "--quick", "-N", "-e", "SELECT id, name, ssn FROM bench.people")
    timed = 'begun=$EPOCHREALTIME; "$@" | wc -l; echo $begun; echo $EPOCHREALTIME'  # without what starts an executor
    count, begun, ended = run([*command, "bash", "-c", timed, "-", *select]).split()
    if int(count) != ROWS:
        raise SystemExit(f"the client got {count} rows; see mariadb.log")
    return ROWS / (float(ended) - float(begun))


def measure(seconds: int, rounds: int) -> dict[str, dict[str, list[float]]]:
    found: dict[str, dict[str, list[float]]] = {}
    with World(FRANKFURT) as world, server(world):
        settings = {"workers": 1}
        instance = Instance(world, policies=["bench"], packs=shipped_policies(), settings=settings)
        (instance.root / "etc/enforcer/policies/bench.yaml").write_text(POLICY)
        with instance:
            inside = world.command("host", *instance.command("exec", "--name", "load", "--user", "nobody", "--"))
            contenders = {"direct": world.command("host"), "enforcer": inside}
            what: dict[str, Callable[[list[str]], float]] = {
                "selects/s, text": lambda command: queries(command, "oltp_point_select", "disable", seconds),
                "selects/s, prepared": lambda command: queries(command, "oltp_point_select", "auto", seconds),
                "statements/s, mixed": lambda command: queries(command, "oltp_read_only", "auto", seconds),
                "rows/s": rows,
            }
            run([*contenders["direct"], *login("mariadb", "-e", "SELECT COUNT(*) FROM bench.people")])
            run([*contenders["direct"], *sysbench("oltp_read_only", "prepare")])
            for _ in range(rounds):
                for name, measured in what.items():
                    for contender, command in contenders.items():
                        found.setdefault(name, {}).setdefault(contender, []).append(measured(command))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="MySQL through the enforcer beside the same server directly.")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    found = measure(arguments.seconds, arguments.rounds)
    print(f"\n{'MySQL, one worker, medians':<30}{'direct':>12}{'enforcer':>12}{'ratio':>8}")
    medians = {name: {who: statistics.median(runs) for who, runs in told.items()} for name, told in found.items()}
    for name, told in medians.items():
        print(f"  {name:<28}{told['direct']:>12.0f}{told['enforcer']:>12.0f}{told['enforcer'] / told['direct']:>8.2f}")
    reached = medians["rows/s"]["enforcer"]
    said = "holds" if reached >= ROWS_TARGET else "FALLS SHORT"
    print(f"\n{said:<12}rows/s with a masked column: {reached:.0f}, target >= {ROWS_TARGET}")
    return 0 if said == "holds" else 1


if __name__ == "__main__":
    raise SystemExit(main())
