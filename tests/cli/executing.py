"""Commands as executors of a running instance, and what is left of them."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil
import yaml

from enforcer.capture import cgroup
from enforcer.capture.abi import ExecutorMode
from enforcer.capture.programs import Pins
from enforcer.capture.tables import Tables
from enforcer.config import load_settings
from enforcer.demo.instance import Instance

PYTHON = "/usr/bin/python3"  # readable for every user


def execute(
    instance: Instance, *command: str, text: str = "", user: tuple[str, ...] = ("--user", "root"), **options: Any
) -> subprocess.CompletedProcess[str]:
    """`user`: how `exec` is told whom to run as; empty leaves it to what sudo says."""
    line = instance.world.command("host", *instance.command("exec", "--name", "agent", *user, "--", *command))
    return subprocess.run(line, input=text, capture_output=True, text=True, check=False, timeout=60, **options)


def inside(instance: Instance, code: str, **options: Any) -> Any:
    """Runs Python code in an executor; it prints one JSON value."""
    done = execute(instance, PYTHON, "-I", "-c", code, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def known_to_the_kernel(instance: Instance) -> tuple[int, int]:
    """How many isolated executors, and listeners, the kernel programs know."""
    tables = Tables(Pins(load_settings(instance.root).instance).sets()[-1])
    try:
        isolated = [mode for mode in tables.executors().values() if mode is ExecutorMode.ISOLATED]
        return len(isolated), len(list(tables._maps["listener_by_place"].keys()))
    finally:
        tables.close()


def left_behind(instance: Instance) -> dict[str, Any]:
    """What remains of executors on this host; all of it empty when they are gone."""
    settings = load_settings(instance.root)
    group = cgroup.find_mount() / settings.instance / "executors"
    mounts = Path("/proc/mounts").read_text()
    return {
        "cgroups": [path.name for path in group.iterdir() if path.is_dir()],
        "namespaces": [path.name for path in (settings.run / "netns").iterdir()],
        "states": [path.name for path in (settings.run / "executors").iterdir()],
        "mounts": [line for line in mounts.splitlines() if str(settings.run) in line],
        "executors": instance.status()["executors"],
        "known": known_to_the_kernel(instance),
    }


def namespaces_of(pid: int) -> list[str]:
    """Network, mount and PID namespace of a process; nothing of one that has ended, or that even root may not see."""
    try:
        return [str(Path(f"/proc/{pid}/ns/{kind}").readlink()) for kind in ("net", "mnt", "pid")]
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return []


def still_there(namespaces: list[str], now: float) -> list[str]:
    """Which of these namespaces some process of the host is in that began before `now` (seconds since the epoch): the
    number of one that is gone is soon that of another, of a test that runs beside this one."""
    older = [one.pid for one in psutil.process_iter(["create_time"]) if one.info["create_time"] < now]
    found = {name for pid in older for name in namespaces_of(pid)}
    return [name for name in namespaces if name in found]


@contextmanager
def configured(instance: Instance, **settings: Any) -> Iterator[None]:
    """With these settings for the executors that start meanwhile."""
    path = instance.root / "etc/enforcer/enforcer.yaml"
    before = path.read_text()
    path.write_text(yaml.safe_dump({**yaml.safe_load(before), **settings}))
    try:
        yield
    finally:
        path.write_text(before)


NOTHING = {"cgroups": [], "namespaces": [], "states": [], "mounts": [], "executors": [], "known": (0, 0)}
