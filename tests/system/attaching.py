"""Process trees in cgroups of their own, which a policy names, and an enforcer that governs them."""

from __future__ import annotations

import json
import secrets
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from enforcer.capture import cgroup
from enforcer.demo.instance import Instance
from enforcer.demo.world import World
from tests.fixtures.world import Shell, enforcing


class Group:
    """A cgroup of ours that a policy may name, with shells in it. `slice` is its parent."""

    def __init__(self, world: World, parent: Path, name: str) -> None:
        self.world = world
        self.path = parent / name
        self.path.mkdir()

    @property
    def relative(self) -> str:
        return str(self.path.relative_to(cgroup.find_mount()))

    def shell(self) -> Shell:
        """A Python in this cgroup, from its first instruction on, and in the agent host's network namespace."""
        join = f'echo $$ > {self.path}/cgroup.procs; exec "$@"'
        return Shell.beside(self.world, "sh", "-c", join, "sh")

    def remove(self) -> None:
        cgroup.remove(self.path)


@contextmanager
def made_slice() -> Iterator[Path]:
    """A slice of our own, as systemd's system.slice is on a host."""
    path = cgroup.find_mount() / f"enftest{secrets.token_hex(3)}.slice"
    path.mkdir()
    try:
        yield path
    finally:
        cgroup.remove(path)


def policy_for(slice_: Path, rules: str = "", pattern: str = "agent-*.service") -> str:
    return f"""
    policy: attached
    applies_to: [{{cgroup: "{slice_.name}/{pattern}"}}]
    rules:
{rules}
      - name: germany
        to: {{region: [DE], protocol: [http]}}
        action: allow
        mask: {{response: [credit_card]}}
"""


@contextmanager
def governed(world: World, slice_: Path, rules: str = "") -> Iterator[Instance]:
    with enforcing(world, "attached", files={"attached": policy_for(slice_, rules)}) as instance:
        yield instance


def attached(instance: Instance) -> list[str]:
    return [one["cgroup"] for one in instance.status()["attached"]]


def events(instance: Instance) -> list[dict[str, Any]]:
    found = rows(instance, "events")
    return [{**row, "detail": json.loads(row["detail"])} for row in found]


def rows(instance: Instance, table: str) -> list[dict[str, Any]]:
    with sqlite3.connect(f"file:{instance.root}/var/lib/enforcer/sessions.db?mode=ro", uri=True) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY seq")]
