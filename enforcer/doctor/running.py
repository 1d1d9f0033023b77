"""Checks of a supervisor that runs here: what it says, compared with what the kernel says."""

from __future__ import annotations

import struct
import time
from typing import Any

import psutil

from enforcer.capture import cgroup, programs
from enforcer.capture.cgroup import Cgroups
from enforcer.capture.programs import Pins
from enforcer.capture.sysbpf import Map
from enforcer.doctor.checks import Outcome, Place, absent, missing, ok
from enforcer.errors import NotRunning
from enforcer.supervisor.client import ControlClient

_NONE = absent("no supervisor runs")


def _status(place: Place) -> dict[str, Any] | None:
    try:
        with ControlClient(place.settings.control_socket) as client:
            return client.request({"op": "status"})
    except NotRunning:
        return None


def answers(place: Place) -> Outcome:
    status = _status(place)
    if status is not None:
        return ok(f"pid {status['pid']}, generation {status['generation']}")
    if Pins(place.settings.instance).linked():
        return missing(
            "no supervisor answers, and its programs stay attached: executors are refused everything",
            "enforcer run, or enforcer uninstall",
        )
    return absent(f"no supervisor runs, and nothing is attached for {place.settings.instance!r}")


def attached(place: Place) -> Outcome:
    """Counted here, at the kernel, and compared with what the supervisor claims."""
    if not Pins(place.settings.instance).linked():
        return absent("nothing is attached")
    counted = programs.attached(Pins(place.settings.instance), Cgroups(cgroup.find_mount() / place.settings.instance))
    wrong = [f"{name} {count}" for name, count in counted.items() if count != 1]
    if wrong:
        return missing(f"not exactly one program per hook: {', '.join(wrong)}", "stop and start 'enforcer run'")
    status = _status(place)
    if status is not None and status["programs"] != counted:
        return missing("the supervisor claims other programs than the kernel has", "stop and start 'enforcer run'")
    return ok(f"exactly one program on each of {len(counted)} hooks")


def workers(place: Place) -> Outcome:
    status = _status(place)
    if status is None:
        return _NONE
    pids = [int(worker["pid"]) for worker in status["workers"]]
    faults = [fault for pid in pids if (fault := _worker_fault(pid, place.settings.user))]
    if faults or not pids:
        return missing(faults[0] if faults else "no worker runs", "see the supervisor's log")
    return ok(f"{len(pids)} alive, as {place.settings.user}")


def _worker_fault(pid: int, user: str) -> str:
    try:
        name = psutil.Process(pid).username()
    except psutil.NoSuchProcess:
        return f"worker {pid} is gone"
    return "" if name == user else f"worker {pid} runs as {name}"


def recorder(place: Place) -> Outcome:
    status = _status(place)
    if status is None:
        return _NONE
    if status["recorder"]["failing"]:
        return missing(f"rows cannot be written: {status['recorder']['failing']}", "see docs/operating.md, the disk")
    return ok(f"writes to {status['recorder']['database']}")


def heartbeat(place: Place) -> Outcome:
    """Read where the kernel programs read it: the pinned map of the set in force."""
    if _status(place) is None:
        return _NONE
    sets = Pins(place.settings.instance).sets()
    if not sets:
        return missing("the supervisor has no programs loaded", "stop and start 'enforcer run'")
    beats = Map.open(sets[-1] / "map_heartbeat", 4, 8)
    try:
        last, limit = (struct.unpack("=Q", beats.lookup(struct.pack("=I", slot)) or bytes(8))[0] for slot in (0, 1))
    finally:
        beats.close()
    age = time.clock_gettime_ns(time.CLOCK_BOOTTIME) - last
    if age > limit:
        return missing(f"the last one is {age / 1e9:.0f} s old: direct flows are refused", "see the supervisor's log")
    return ok(f"{age / 1e9:.1f} s old, of {limit / 1e9:.0f} s")


def observing(place: Place) -> Outcome:
    status = _status(place)
    if status is None:
        return _NONE
    if status["observing"]:
        return missing(
            f"not refusing what they deny: {', '.join(status['observing'])}", "remove 'mode: observe' from the policy"
        )
    return ok("every policy in force is enforced")
