"""Taking the enforcer off this host: the only thing that opens a path it closed."""

from __future__ import annotations

import fcntl
import os

from enforcer.capture import cgroup, namespace
from enforcer.capture.programs import Pins
from enforcer.capture.tables import Tables
from enforcer.capture.uplinks import Uplinks
from enforcer.config import Settings
from enforcer.errors import HostError, UsageError


def uninstall(settings: Settings) -> None:
    """Takes the enforcer off this host: executors killed, links and maps unpinned, cgroups removed. Records and
    configuration stay. Raises UsageError while a supervisor runs, HostError when something cannot be removed."""
    if os.geteuid() != 0:
        raise HostError("uninstalling must be done by root; use sudo")
    lock = settings.run / "supervisor.lock"
    if lock.exists():
        with lock.open("a+") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise UsageError("the supervisor is running; stop it first") from None
    groups = cgroup.Cgroups(cgroup.find_mount() / settings.instance)
    cgroup.remove(groups.top)
    _let_go(settings.instance)
    for directory in ("netns", "executors"):
        for path in sorted((settings.run / directory).glob("*")):
            namespace.release(path)
    Pins(settings.instance).remove()


def _let_go(instance: str) -> None:
    """Nobody is governed any more, whatever program still runs somewhere; then the uplinks of every namespace."""
    for directory in Pins(instance).sets():
        try:
            tables = Tables(directory)
        except OSError:  # never finished, or of another version: its programs end with its pins
            continue
        for cgroup_id in tables.executors():
            tables.delete_executor(cgroup_id)
        tables.close()
        uplinks = Uplinks(instance, directory / "prog_uplink")
        for netns in namespace.every_namespace():
            try:
                namespace.run_inside(netns, uplinks.remove)
            finally:
                os.close(netns)
