"""An executor in which clients run as anybody would run them, with a home of their own and nothing else set."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path
from typing import Any

from tests.clients.place import Place
from tests.fixtures.world import Shell, eventually

_RUN = """
import os, subprocess
done = subprocess.run(command, env={**os.environ, "HOME": home, **more}, cwd=home, capture_output=True, timeout=120)
answer = [done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")]
"""
_EXCHANGES = """
SELECT e.action, e.rule, e.facts, coalesce(e.status, o.status) status, coalesce(e.masked, o.masked) masked
FROM exchanges e
LEFT JOIN outcomes o ON o.session = e.session AND o.exchange = e.exchange
WHERE substr(e.text, -length(?1)) = ?1 AND json_extract(e.facts, '$.host') = ?2 ORDER BY e.seq DESC LIMIT 1
"""


class Client:
    """`home`: the directory that commands run in; the executor may write to it, and so may the test."""

    def __init__(self, place: Place, shell: Shell, home: Path) -> None:
        self.place = place
        self.shell = shell
        self.home = home

    def run(self, *command: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """The command in the executor, with `variables` beside those that `enforcer exec` sets."""
        self.shell.start(_RUN, command=command, home=str(self.home), more=variables)
        code, out, errors = self.shell.result(130)
        return subprocess.CompletedProcess(command, code, out, errors)

    def must(self, *command: str, **variables: str) -> str:
        """The same, for commands that must succeed: their output."""
        done = self.run(*command, **variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def recorded(self, host: str, part: str, *, denied: bool = False) -> dict[str, Any]:
        """The newest exchange with `host` whose text ends with `part`, once it is on record with its outcome."""
        file = self.place.instance.root / "var/lib/enforcer/sessions.db"

        def found() -> dict[str, Any] | None:
            with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
                database.row_factory = sqlite3.Row
                row = database.execute(_EXCHANGES, (part, host)).fetchone()
            if row is None or (row["status"] is None and not denied):
                return None
            return dict(row) | {"masked": json.loads(row["masked"] or "{}")}

        exchange: dict[str, Any] = eventually(found, f"no exchange of {host} with {part}")
        return exchange
