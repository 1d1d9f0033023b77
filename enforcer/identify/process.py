"""Step 2 of 6, identify: who the connecting process is, for the record.

Gets the pid that the kernel saw at connect(); hands on what /proc says of it. Names only: no verdict rests on it,
since a process can rename itself and a pid can be used again.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TypedDict

# Bytes of a command line that are kept.
MAX_ARGV = 4096


class ProcessFacts(TypedDict):
    """Columns of a session row. None where the process was gone before it was looked at, or its pid is another's."""

    exe: str | None
    argv: list[str] | None
    cgroup: str
    unit: str | None


def describe_process(pid: int, uid: int, proc: Path = Path("/proc")) -> ProcessFacts:
    """Executable, arguments, cgroup v2 path and systemd unit of process `pid`, if it still belongs to user `uid`."""
    directory = proc / str(pid)
    try:
        if directory.stat().st_uid != uid:
            return ProcessFacts(exe=None, argv=None, cgroup="", unit=None)
        raw = (directory / "cmdline").read_bytes()[:MAX_ARGV]
        cgroup = _cgroup_v2(_text((directory / "cgroup").read_bytes()))
        exe = _text(os.fsencode((directory / "exe").readlink()))
    except OSError:
        return ProcessFacts(exe=None, argv=None, cgroup="", unit=None)
    argv = [_text(part) for part in raw.rstrip(b"\0").split(b"\0")]
    return ProcessFacts(exe=exe, argv=argv, cgroup=cgroup, unit=_unit(cgroup))


def _text(raw: bytes) -> str:
    """As text that can be recorded: file names and arguments are any bytes."""
    return raw.decode("utf-8", "backslashreplace")


def _cgroup_v2(text: str) -> str:
    """The path of the line `0::PATH` (cgroups(7))."""
    return next((line[3:] for line in text.splitlines() if line.startswith("0::")), "")


def _unit(cgroup: str) -> str | None:
    """The innermost systemd service or scope in a cgroup path."""
    parts = [part for part in cgroup.split("/") if part.endswith((".service", ".scope"))]
    return parts[-1] if parts else None
