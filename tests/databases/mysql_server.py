"""A throw-away MariaDB server of Debian's own packages, for tests that need the real thing."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.databases.inspected import free_port

ACCOUNT = "mysql"
"""The server refuses to run as root unless told to; Debian's package makes this user."""

START_SECONDS = 30.0
USER, PASSWORD, DATABASE = "app", "s3cret word", "shop"

_INIT = f"""
CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4;
CREATE USER {USER}@'%' IDENTIFIED BY '{PASSWORD}';
GRANT ALL ON *.* TO {USER}@'%';
CREATE USER wise@'%' IDENTIFIED VIA ed25519 USING PASSWORD('{PASSWORD}');
GRANT SELECT ON {DATABASE}.* TO wise@'%';
USE {DATABASE};
CREATE TABLE customers (id INT PRIMARY KEY, name VARCHAR(40), email VARCHAR(60) UNIQUE, card VARCHAR(20), ssn CHAR(11), digits BIGINT, born DATE);
INSERT INTO customers VALUES (1, 'Ada', 'ada@example.org', '4111111111111111', '078-05-1120', 4111111111111111, '1815-12-10'), (2, 'Grace', NULL, NULL, NULL, NULL, NULL);
"""  # noqa: E501 - one statement per line: that is how the server reads its init file


@dataclass(frozen=True)
class MariaDb:
    """`port`: on 127.0.0.1. `socket`: its Unix socket."""

    port: int
    socket: Path


def _program(*names: str) -> str:
    for name in names:
        found = shutil.which(name, path="/usr/sbin:/usr/bin")
        if found:
            return found
    raise RuntimeError(f"{names[0]} is not installed; apt-get install mariadb-server")


def _here(*command: str) -> list[str]:
    return list(command)


@contextmanager
def running_mariadb(
    tmp: Path,
    *,
    pem: str = "",
    address: str = "127.0.0.1",
    port: int = 0,
    within: Callable[..., list[str]] = _here,
    statements: str = "",
) -> Iterator[MariaDb]:
    """Runs a server with the user and tables above, in an empty directory, after `statements`; `pem`: key and
    certificate for TLS; `within`: makes of a command the one that runs it elsewhere. Ends the server it started, by
    pid."""
    account, port = pwd.getpwnam(ACCOUNT), port or free_port()
    home = Path("/tmp") / f"enforcer-mariadb-{os.getpid()}-{port}"  # short: socket paths have 107 bytes
    home.mkdir(mode=0o700)
    log = (tmp / "mariadb.log").open("wb")
    try:
        (home / "init.sql").write_text(_INIT + statements)
        (home / "tls.pem").write_text(pem)
        data = f"--datadir={home}/data"
        install = [
            _program("mariadb-install-db"),
            "--no-defaults",
            data,
            "--skip-test-db",
            "--auth-root-authentication-method=normal",
        ]
        subprocess.run(install, check=True, stdout=log, stderr=log, cwd=home)
        for path in (home, *home.rglob("*")):
            os.chown(path, account.pw_uid, account.pw_gid)
        options = {
            "port": port, "bind-address": address, "socket": home / "sock", "pid-file": home / "pid",
            "init-file": home / "init.sql", "innodb-flush-log-at-trx-commit": 0, "innodb-buffer-pool-size": "32M",
            "plugin-load-add": "auth_ed25519", "max-allowed-packet": "64M", "local-infile": "ON", "user": ACCOUNT,
            "character-set-server": "utf8mb4", "skip-name-resolve": "ON",
        }  # fmt: skip
        if pem:
            options |= {"ssl-cert": home / "tls.pem", "ssl-key": home / "tls.pem"}
        arguments = [f"--{name}={value}" for name, value in options.items()]
        server = subprocess.Popen(
            within(_program("mariadbd", "mysqld"), "--no-defaults", data, *arguments), stdout=log, stderr=log, cwd=home
        )
        try:
            _wait(server, home / "sock")
            yield MariaDb(port, home / "sock")
        finally:
            server.kill()  # nothing of it is kept
            server.wait()
    finally:
        log.close()
        shutil.rmtree(home, ignore_errors=True)


def _wait(server: subprocess.Popen[bytes], socket: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    ready = [_program("mariadb-admin", "mysqladmin"), "--no-defaults", f"--socket={socket}", f"-u{USER}"]
    ready += [f"-p{PASSWORD}", "ping"]
    while subprocess.run(ready, check=False, capture_output=True).returncode != 0:
        if time.monotonic() > deadline or server.poll() is not None:
            raise RuntimeError("MariaDB did not start; see mariadb.log")
        time.sleep(0.05)
