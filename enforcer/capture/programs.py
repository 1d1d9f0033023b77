"""Step 1 of 6, capture: which program goes on which hook, and switching pinned links from one generation to the next.

Pins of one instance, under a root-only directory of the BPF file system:

    <instance>/links/<program>       the links; they are what keeps enforcing when no process of ours lives
    <instance>/<number>/prog_*,map_* one loaded set; the highest number is current once its links are switched

A restart loads a new set aside, lets the caller fill its maps, then updates each link in place. Nothing is ever
detached first.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from enforcer.capture import cgroup, sysbpf
from enforcer.capture.sysbpf import AttachType
from enforcer.errors import EnforcerError, HostError, KernelError

BPF_MOUNT = Path("/sys/fs/bpf")
# Compiling takes about a second; under emulation it was seen to take 70.
LOAD_TIMEOUT = 300.0

_SOCK_OPS, _CGROUP_SOCK_ADDR, _CGROUP_SOCKOPT = 13, 18, 25  # enum bpf_prog_type


@dataclass(frozen=True, slots=True)
class Hook:
    """One program and where it goes; `own` means the enforcer's cgroup instead of the executors'."""

    program: str
    program_type: int
    attach_type: AttachType
    own: bool = False


HOOKS = (
    Hook("connect4", _CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_CONNECT),
    Hook("connect6", _CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_CONNECT),
    Hook("sockops", _SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
    Hook("getsockopt", _CGROUP_SOCKOPT, AttachType.CGROUP_GETSOCKOPT, own=True),
    Hook("getpeername4", _CGROUP_SOCK_ADDR, AttachType.CGROUP_INET4_GETPEERNAME),
    Hook("getpeername6", _CGROUP_SOCK_ADDR, AttachType.CGROUP_INET6_GETPEERNAME),
)
# The maps user space reads or writes; the rest live only as long as the programs that use them.
MAPS = (
    "listener_by_netns",
    "original_dst_by_tuple",
    "generation",
    "prefixes4",
    "prefixes6",
    "coarse_by_region_set",
    "counters",
    "refusals",
)


class Pins:
    """The pin directory of one instance."""

    def __init__(self, instance: str, mount: Path = BPF_MOUNT) -> None:
        self.directory = mount / instance
        self.links = self.directory / "links"

    def prepare(self) -> None:
        """Makes the directory, root-only. Raises HostError when `mount` is not a BPF file system."""
        mount = self.directory.parent
        mounted = [line.split(" ")[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
        if [str(mount), "bpf"] not in mounted:
            raise HostError(f"no BPF file system at {mount}; mount -t bpf bpf {mount}")
        self.directory.mkdir(mode=0o700, exist_ok=True)
        self.links.mkdir(mode=0o700, exist_ok=True)

    def sets(self) -> list[Path]:
        """Loaded sets, oldest first."""
        if not self.directory.exists():
            return []
        return sorted(
            (path for path in self.directory.iterdir() if path.name.isdigit()), key=lambda path: int(path.name)
        )

    def next_set(self) -> Path:
        existing = self.sets()
        path = self.directory / str(int(existing[-1].name) + 1 if existing else 1)
        path.mkdir(mode=0o700)
        return path

    def linked(self) -> tuple[str, ...]:
        """Names of the programs that have a pinned link."""
        return tuple(sorted(path.name for path in self.links.iterdir())) if self.links.exists() else ()

    def remove(self) -> None:
        """Lets go of everything: the only thing that takes the enforcer off. Links detach as their pins go."""
        if self.directory.exists():
            shutil.rmtree(self.directory)


def run_loader(directory: Path) -> None:
    """Compiles and loads a set into `directory` in a child process. Raises KernelError or HostError, one line."""
    # -P: the working directory must not come before the installed package on a root process's import path.
    child = subprocess.run(
        [sys.executable, "-P", "-m", "enforcer.capture.loader", str(directory)],
        capture_output=True,
        text=True,
        timeout=LOAD_TIMEOUT,
        check=False,
    )
    if child.returncode == 0:
        return
    lines = [line for line in child.stderr.strip().splitlines() if line.strip()] or [
        f"loader died ({child.returncode})"
    ]
    errors = [line for line in lines if ": error: " in line][:3]
    message = " | ".join([*errors, lines[-1]])
    raise HostError(message) if child.returncode == HostError.exit_code else KernelError(message)


def load(pins: Pins, fill: Callable[[Path], None]) -> Path:
    """Loads a new set and calls `fill(directory)` to fill its maps; nothing is attached yet.

    Returns the set's directory. Raises KernelError, HostError, or what `fill` raises, with the new set removed again.
    """
    pins.prepare()
    directory = pins.next_set()
    try:
        run_loader(directory)
        fill(directory)
    except (EnforcerError, OSError, subprocess.SubprocessError) as error:
        shutil.rmtree(directory)
        if isinstance(error, EnforcerError):
            raise
        raise KernelError(f"loading the kernel programs failed: {error}") from error
    return directory


def switch(pins: Pins, groups: cgroup.Cgroups, directory: Path) -> None:
    """Points every link at the loaded set in `directory`, creating those that are missing, and removes the other sets.

    Raises KernelError; until a link is switched its old program stays in force.
    """
    for hook in HOOKS:
        _switch(pins, hook, directory / f"prog_{hook.program}", groups.own if hook.own else groups.executors)
    for path in pins.sets():
        if path != directory:
            shutil.rmtree(path)


def _switch(pins: Pins, hook: Hook, program_pin: Path, target: Path) -> None:
    """Points the hook's pinned link at the new program, or attaches it when there is none for this cgroup."""
    link_pin = pins.links / hook.program
    program = sysbpf.get_pinned(program_pin)
    group = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if link_pin.exists():
            link = sysbpf.get_pinned(link_pin)
            try:
                if sysbpf.link_cgroup(link) == cgroup.cgroup_id(target):
                    sysbpf.link_update(link, program)
                    return
            except OSError as error:
                if error.errno != errno.ENOLINK:
                    raise
            finally:
                os.close(link)
            link_pin.unlink()  # of a cgroup that is gone
        link = sysbpf.link_create(program, group, hook.attach_type)
        try:
            sysbpf.pin(link, link_pin)
        finally:
            os.close(link)
    except OSError as error:
        raise KernelError(
            f"cannot attach {hook.program} to {target}: {error}; 'enforcer status' shows what is"
        ) from error
    finally:
        os.close(program)
        os.close(group)
        program_pin.unlink()


def attached(groups: cgroup.Cgroups) -> dict[str, int]:
    """How many programs each hook has on its cgroup; 1 each is right."""
    counts = {}
    for hook in HOOKS:
        target = groups.own if hook.own else groups.executors
        if not target.exists():
            counts[hook.program] = 0
            continue
        fd = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        try:
            counts[hook.program] = len(sysbpf.attached_programs(fd, hook.attach_type))
        finally:
            os.close(fd)
    return counts
