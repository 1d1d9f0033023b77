"""Judges the reports of the probe on one kernel: `python -m tests.kernels.judge isolated.json attached.json`.

Nothing may leave an isolated executor, nothing an attached one of an ordinary user where BPF LSM is in force. As root
an attached one has ways: those that docs/security.md names. What was skipped proves nothing and is told.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from enforcer.errors import EnforcerError
from enforcer.probe import report
from enforcer.probe.results import Finding

# Techniques that may get out of an attached executor that is root although BPF LSM is in force, and the way of
# `enforcer doctor` and docs/security.md that each one goes.
NAMED = {
    "tunnel-vxlan": "netlink",
    "tunnel-geneve": "netlink",
    "tun-injection": "TUN",
    "cgroup-born": "CLONE_INTO_CGROUP",
    "cgroup-moved": "cgroup.procs",
    "host-file": "files",
    "kernel-helper": "core_pattern",
    "kernel-helper-module": "core_pattern",
    "kernel-log": "kernel log",
    "sysrq": "sysrq",
    "block-device": "disks",
    "module": "kernel module",
    "pins-removed": "bpf",
    "policy-edited": "files",
}
# Contained in each mode for each user, at least; a run that skips is no pass.
LEAST = {"root": 120, "nobody": 90}


def judge(body: dict[str, Any], mode: str) -> list[str]:
    """What is wrong with a report; nothing when it holds what is promised for `mode`."""
    faults = [] if body["whole_catalogue"] else ["only a part of the catalogue was tried"]
    if body["modes"] != [mode]:
        faults.append(f"it is of the modes {body['modes']}")
    for user in ("root", "nobody"):
        results = [one for one in body["results"] if one["user"] == user]
        contained = sum(one["finding"] == Finding.CONTAINED for one in results)
        if contained < LEAST[user]:
            faults.append(f"{user}: only {contained} contained, at least {LEAST[user]} are on this kernel")
        for one in results:
            named = mode == "attached" and user == "root" and one["technique"] in NAMED
            if one["finding"] == Finding.ERROR or (one["finding"] == Finding.ESCAPED and not named):
                faults.append(f"{user}: {one['technique']} {one['finding']}: {one['reason']}")
    return faults


def counts(body: dict[str, Any]) -> list[str]:
    """A line for each user."""
    lines = []
    for user in ("root", "nobody"):
        found = Counter(one["finding"] for one in body["results"] if one["user"] == user)
        told = ", ".join(f"{found[finding]} {finding}" for finding in Finding)
        lines.append(f"probe, {'+'.join(body['modes'])}, {user}: {told}")
    return lines


def main(paths: list[str]) -> int:
    status = 0
    for path, mode in zip(paths, ("isolated", "attached"), strict=True):
        try:
            body = report.verify(Path(path))
        except EnforcerError as error:
            lines, faults = [], [str(error)]
        else:
            lines, faults = counts(body), judge(body, mode)
        for line in [*lines, *(f"FAILED: probe, {mode}, {fault}" for fault in faults)]:
            print(line)  # noqa: T201 - a command
        status = 1 if faults else status
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
