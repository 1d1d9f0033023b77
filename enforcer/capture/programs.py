"""Step 1 of 6, capture: which program goes on which hook, and switching pinned links from one version to the next.

Pins of one instance, under a root-only directory of the BPF file system:

    <instance>/links/<target>/<program>    cgroup links; they are what keeps enforcing when no process of ours lives
    <instance>/<number>-<version>/         one loaded set: prog_*, map_*, and link_* of what is not switched in place

`<target>` is `executors`, `own`, or the id of a cgroup that was taken over. A restart of the same version goes on with
the set that is there: sockets keep their owners, flows their verdicts. Another version is loaded aside, its maps are
filled, then each link is updated in place. Nothing is ever detached first.
"""

from __future__ import annotations

import errno
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path

from enforcer.capture import cgroup, events, sysbpf
from enforcer.capture.source import flatten, source_directory
from enforcer.capture.sysbpf import AttachType, ProgramType
from enforcer.errors import EnforcerError, HostError, KernelError

BPF_MOUNT = Path("/sys/fs/bpf")
# Compiling takes three seconds; on an emulated and busy machine it was seen to take 300.
LOAD_TIMEOUT = 900.0
# Of the SHA-256 of the sources: tells versions apart in a directory's name.
VERSION_DIGITS = 12
EXECUTORS, OWN = "executors", "own"


class Where(Enum):
    """What a program is attached to."""

    EXECUTORS = auto()  # the executors' cgroups
    OWN = auto()  # the enforcer's cgroup
    UPLINK = auto()  # every uplink, as a tc filter: see `uplinks`
    EVENT = auto()  # a tracepoint
    LSM = auto()  # a security hook; kernels without BPF LSM, or that refuse it, go without


@dataclass(frozen=True, slots=True)
class Hook:
    """One program and where it goes. `event`: the tracepoint, as `group/name`."""

    program: str
    where: Where
    program_type: ProgramType
    attach_type: AttachType | None = None
    event: str = ""


def _address(program: str, attach_type: AttachType) -> Hook:
    return Hook(program, Where.EXECUTORS, ProgramType.CGROUP_SOCK_ADDR, attach_type)


def _socket(program: str, attach_type: AttachType) -> Hook:
    return Hook(program, Where.EXECUTORS, ProgramType.CGROUP_SOCK, attach_type)


def _event(group: str, name: str) -> Hook:
    return Hook(name, Where.EVENT, ProgramType.TRACEPOINT, None, f"{group}/{name}")


def _security(name: str) -> Hook:
    # BCC takes the hook from the name.
    return Hook(f"lsm__{name}", Where.LSM, ProgramType.LSM)


def _sends_past_messages() -> bool:
    """Before Linux 6.5 sendfile() and splice() reach a socket without socket_sendmsg. What sees them there is asked at
    every read and write of the host, so that later kernels are spared it."""
    major, minor = platform.release().split(".")[:2]
    return (int(major), int("".join(filter(str.isdigit, minor)) or 0)) < (6, 5)


HOOKS = (
    _socket("sock_create", AttachType.CGROUP_INET_SOCK_CREATE),
    _address("bind4", AttachType.CGROUP_INET4_BIND),
    _address("bind6", AttachType.CGROUP_INET6_BIND),
    _socket("post_bind4", AttachType.CGROUP_INET4_POST_BIND),
    _socket("post_bind6", AttachType.CGROUP_INET6_POST_BIND),
    Hook("setsockopt", Where.EXECUTORS, ProgramType.CGROUP_SOCKOPT, AttachType.CGROUP_SETSOCKOPT),
    _address("connect4", AttachType.CGROUP_INET4_CONNECT),
    _address("connect6", AttachType.CGROUP_INET6_CONNECT),
    _address("sendmsg4", AttachType.CGROUP_UDP4_SENDMSG),
    _address("sendmsg6", AttachType.CGROUP_UDP6_SENDMSG),
    _address("recvmsg4", AttachType.CGROUP_UDP4_RECVMSG),
    _address("recvmsg6", AttachType.CGROUP_UDP6_RECVMSG),
    Hook("sockops", Where.EXECUTORS, ProgramType.SOCK_OPS, AttachType.CGROUP_SOCK_OPS),
    Hook("getsockopt", Where.OWN, ProgramType.CGROUP_SOCKOPT, AttachType.CGROUP_GETSOCKOPT),
    _address("getpeername4", AttachType.CGROUP_INET4_GETPEERNAME),
    _address("getpeername6", AttachType.CGROUP_INET6_GETPEERNAME),
    Hook("egress", Where.EXECUTORS, ProgramType.CGROUP_SKB, AttachType.CGROUP_INET_EGRESS),
    Hook("uplink", Where.UPLINK, ProgramType.SCHED_CLS),
    _event("cgroup", "cgroup_mkdir"),
    _event("cgroup", "cgroup_rmdir"),
    _event("cgroup", "cgroup_attach_task"),
    _event("sched", "sched_process_fork"),
    _event("sched", "sched_process_exit"),
    _security("socket_create"),
    _security("socket_post_create"),
    _security("unix_stream_connect"),
    _security("unix_may_send"),
    _security("socket_connect"),
    _security("socket_sendmsg"),
    _security("file_receive"),
    *([_security("file_permission")] if _sends_past_messages() else []),
    _security("task_alloc"),
    _security("bprm_check_security"),
    _security("ptrace_access_check"),
    _security("task_kill"),
    *(_security(f"{kind}_{what}_security") for kind in ("msg_queue", "shm", "sem") for what in ("alloc", "free")),
    _security("ipc_permission"),
    _security("key_permission"),
    _security("file_ioctl"),
    _security("file_ioctl_compat"),
    _security("bpf"),
)
# The maps user space reads or writes; the rest live only as long as the programs that use them.
MAPS = (
    "owner_by_socket",
    "executor_by_cgroup",
    "executor_levels",
    "listener_by_place",
    "guarded_ports",
    "original_dst_by_tuple",
    "generation",
    "prefixes4",
    "prefixes6",
    "coarse_by_region_set",
    "audience_by_executor",
    "direct_by_destination",
    "heartbeat",
    "executor_by_path",
    "governed_tasks",
    "executor_by_task",
    "executor_by_ipc",
    "security",
    "counters",
    "refusals",
    "direct_events",
    "cgroup_events",
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
        found = [path for path in self.directory.iterdir() if path.name.split("-")[0].isdigit()]
        return sorted(found, key=lambda path: int(path.name.split("-")[0]))

    def next_set(self) -> Path:
        existing = self.sets()
        number = int(existing[-1].name.split("-")[0]) + 1 if existing else 1
        path = self.directory / f"{number}-{version()}"
        path.mkdir(mode=0o700)
        return path

    def targets(self) -> tuple[str, ...]:
        """What has pinned links: `executors`, `own`, ids of cgroups taken over."""
        return tuple(sorted(path.name for path in self.links.iterdir())) if self.links.exists() else ()

    def linked(self, target: str = EXECUTORS) -> tuple[str, ...]:
        """Names of the programs that have a pinned link on `target`."""
        directory = self.links / target
        return tuple(sorted(path.name for path in directory.iterdir())) if directory.exists() else ()

    def remove(self) -> None:
        """Lets go of everything: the only thing that takes the enforcer off. Links detach as their pins go."""
        if self.directory.exists():
            shutil.rmtree(self.directory)


def version() -> str:
    """What tells this version's programs from another's."""
    return hashlib.sha256(flatten(source_directory()).encode()).hexdigest()[:VERSION_DIGITS]


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
    """The set of this version, loaded now unless it is there already, whole and linked; `fill(directory)` gets it
    before anything more is attached.

    Returns the set's directory. Raises KernelError, HostError, or what `fill` raises, with a new set removed again.
    """
    pins.prepare()
    present = _usable(pins)
    directory = present or pins.next_set()
    try:
        if present is None:
            run_loader(directory)
        fill(directory)
    except (EnforcerError, OSError, subprocess.SubprocessError) as error:
        if present is None:
            shutil.rmtree(directory)
        if isinstance(error, EnforcerError):
            raise
        raise KernelError(f"loading the kernel programs failed: {error}") from error
    return directory


def _usable(pins: Pins) -> Path | None:
    """The newest set, when it is of this version and every link of the instance runs its programs."""
    sets = pins.sets()
    if not sets or sets[-1].name.split("-")[1:] != [version()]:
        return None
    try:
        for name in MAPS:
            os.close(sysbpf.get_pinned(sets[-1] / f"map_{name}"))
        for hook in HOOKS:
            if hook.where in (Where.EXECUTORS, Where.OWN):
                target = OWN if hook.where is Where.OWN else EXECUTORS
                _check_link(pins.links / target / hook.program, sets[-1] / f"prog_{hook.program}")
            elif hook.where is Where.LSM and (sets[-1] / f"prog_{hook.program}").exists():
                _check_link(sets[-1] / f"link_{hook.program}", sets[-1] / f"prog_{hook.program}")
    except OSError:
        return None
    return sets[-1]


def _check_link(link_pin: Path, program_pin: Path) -> None:
    """Raises OSError when the link is not there or runs another program."""
    link, program = sysbpf.get_pinned(link_pin), -1
    try:
        program = sysbpf.get_pinned(program_pin)
        if sysbpf.link_program(link) != sysbpf.program_id(program):
            raise OSError(errno.ESTALE, f"{link_pin} runs another program")
    finally:
        os.close(link)
        if program >= 0:
            os.close(program)


def switch(pins: Pins, groups: cgroup.Cgroups, directory: Path) -> None:
    """Points every link at the loaded set in `directory`, creating those that are missing.

    Raises KernelError; until a link is switched its old program stays in force. The security hooks of older sets stay
    beside the new ones until `finish`, which may come once these know what is older than they: `Tables.settle`.
    """
    _attach_security(pins, directory)
    attach(pins, directory, OWN, groups.own)
    attach(pins, directory, EXECUTORS, groups.executors)
    for target in pins.targets():
        if target not in (OWN, EXECUTORS):
            _update(pins, directory, target)
    _watch_events(directory)


def finish(pins: Pins, directory: Path) -> None:
    """Removes the other sets."""
    for path in pins.sets():
        if path != directory:
            shutil.rmtree(path)


def attach(pins: Pins, directory: Path, target: str, path: Path) -> None:
    """Has every hook of `target` on the cgroup at `path`, by the set in `directory`. Raises KernelError."""
    where = Where.OWN if target == OWN else Where.EXECUTORS
    (pins.links / target).mkdir(mode=0o700, exist_ok=True)
    for hook in HOOKS:
        if hook.where is where:
            _switch(pins.links / target / hook.program, hook, directory / f"prog_{hook.program}", path)


def detach(pins: Pins, target: str) -> None:
    """Takes the hooks off a cgroup that was taken over."""
    shutil.rmtree(pins.links / target, ignore_errors=True)


def _update(pins: Pins, directory: Path, target: str) -> None:
    """Points the links of a cgroup that was taken over at the new programs; lets go of one that is gone."""
    for hook in HOOKS:
        link_pin = pins.links / target / hook.program
        if hook.where is not Where.EXECUTORS or not link_pin.exists():
            continue
        link = sysbpf.get_pinned(link_pin)
        program = sysbpf.get_pinned(directory / f"prog_{hook.program}")
        try:
            sysbpf.link_update(link, program)
        except OSError as error:
            if error.errno != errno.ENOLINK:
                raise KernelError(f"cannot switch {hook.program} on cgroup {target}: {error}; restart it") from error
            detach(pins, target)
            return
        finally:
            os.close(link)
            os.close(program)


def _switch(link_pin: Path, hook: Hook, program_pin: Path, path: Path) -> None:
    """Points the hook's pinned link at the new program, or attaches it when there is none for this cgroup."""
    if hook.attach_type is None:
        raise RuntimeError(f"{hook.program} is not attached to cgroups")
    program = sysbpf.get_pinned(program_pin)
    group = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        if link_pin.exists():
            link = sysbpf.get_pinned(link_pin)
            try:
                if sysbpf.link_cgroup(link) == cgroup.cgroup_id(path):
                    if sysbpf.link_program(link) != sysbpf.program_id(program):
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
            f"cannot attach {hook.program} to {path}: {error}; 'enforcer doctor' shows what this kernel takes"
        ) from error
    finally:
        os.close(program)
        os.close(group)


def _watch_events(directory: Path) -> None:
    """Attaches the tracepoints of a set, once; the older set's go with it, so that for a moment both look."""
    for hook in HOOKS:
        link_pin = directory / f"link_{hook.program}"
        if hook.where is not Where.EVENT or link_pin.exists():
            continue
        program = sysbpf.get_pinned(directory / f"prog_{hook.program}")
        try:
            events.attach(program, hook.event, link_pin)
        finally:
            os.close(program)


def _attach_security(pins: Pins, directory: Path) -> None:
    """Attaches the security hooks of a set, once, beside those of the older set, which go with it. A kernel that does
    not take one goes without. Raises KernelError when it took that one before: nothing must open by a restart."""
    for hook in HOOKS:
        link_pin, program_pin = directory / f"link_{hook.program}", directory / f"prog_{hook.program}"
        if hook.where is not Where.LSM or link_pin.exists():
            continue
        reason = "the kernel refused the program"
        if program_pin.exists():
            try:
                _link_security(program_pin, link_pin)
                continue
            except OSError as error:
                reason = str(error)
                program_pin.unlink()  # a set without it is whole
        if any((path / link_pin.name).exists() for path in pins.sets()):
            raise KernelError(f"cannot attach {hook.program} again: {reason}; the one in force stays, restart the host")


def _link_security(program_pin: Path, link_pin: Path) -> None:
    program = sysbpf.get_pinned(program_pin)
    try:
        link = sysbpf.link_create(program, 0, AttachType.LSM_MAC)
        try:
            sysbpf.pin(link, link_pin)
        finally:
            os.close(link)
    finally:
        os.close(program)


def security(pins: Pins) -> dict[str, int]:
    """How many programs each security hook has, by the hook's own name: 1, or 0 where the kernel does not take it.
    Whether the kernel asks them at all, `Tables.is_security_asked` knows."""
    newest = pins.sets()[-1:]
    return {
        hook.program.removeprefix("lsm__"): sum(1 for path in newest if (path / f"link_{hook.program}").exists())
        for hook in HOOKS
        if hook.where is Where.LSM
    }


def attached(pins: Pins, groups: cgroup.Cgroups) -> dict[str, int]:
    """How many programs each hook has on its cgroup, and each tracepoint of the set in force; 1 each is right."""
    counts = {}
    sets = pins.sets()
    for hook in HOOKS:
        if hook.where is Where.EVENT:
            counts[hook.program] = sum(1 for path in sets if (path / f"link_{hook.program}").exists())
        elif hook.attach_type is not None and hook.where in (Where.EXECUTORS, Where.OWN):
            counts[hook.program] = _count(groups.own if hook.where is Where.OWN else groups.executors, hook.attach_type)
    return counts


def attached_above(path: Path) -> dict[str, int]:
    """The same for a cgroup above executors that were taken over: how many programs each hook has there."""
    return {
        hook.program: _count(path, hook.attach_type)
        for hook in HOOKS
        if hook.where is Where.EXECUTORS and hook.attach_type is not None
    }


def _count(path: Path, attach_type: AttachType) -> int:
    if not path.exists():
        return 0
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return len(sysbpf.attached_programs(fd, attach_type))
    finally:
        os.close(fd)
