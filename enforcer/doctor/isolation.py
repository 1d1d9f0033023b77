"""Checks of what isolated mode is made of."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import pwd
import socket
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from enforcer.capture.namespace import run_inside
from enforcer.doctor import inside, sockets
from enforcer.doctor.attempts import CONNECTS, DATAGRAMS, PINGS, RAWS
from enforcer.doctor.checks import CannotTell, Outcome, Place, missing, ok
from enforcer.doctor.children import libc, private_mounts, system, within
from enforcer.doctor.stage import new_namespace

_CLONE_NEWPID, _CLONE_NEWIPC = 0x20000000, 0x08000000
_MOUNT_SETATTR = 442  # the same number on every architecture
_AT_FDCWD, _AT_RECURSIVE, _MOUNT_ATTR_RDONLY = -100, 0x8000, 1
_STARTING_SECONDS = 20.0
_DISCARD = 9
# The system's: another may lie where the executor's user may not go.
_PYTHON = "/usr/bin/python3"
# Runs in a process of its own: a filter cannot be taken off again.
_FILTER = """
import errno, socket, sys
try:
    import seccomp
except ImportError:
    sys.exit(3)
rules = seccomp.SyscallFilter(seccomp.ALLOW)
rules.add_rule(seccomp.ERRNO(errno.EXDEV), "socket", seccomp.Arg(0, seccomp.EQ, socket.AF_UNIX))
rules.load()
try:
    socket.socket(socket.AF_UNIX).close()
except OSError as error:
    sys.exit(0 if error.errno == errno.EXDEV else 4)
sys.exit(4)
"""


def empty_namespace(_place: Place) -> Outcome:
    """A new network namespace has `lo` and nothing else, and what is sent in it has nowhere to go."""
    namespace = new_namespace()
    try:
        links = run_inside(namespace, lambda: [name for _, name in socket.if_nameindex()])
        # A kernel may put placeholders for tunnels into each namespace (net.core.fb_tunnels_only_for_init_net).
        others = [name for name in links if name != "lo"]
        sent = [attempt.name for attempt in (*CONNECTS, *DATAGRAMS, *PINGS, *RAWS) if _sends(namespace, attempt.send)]
    finally:
        os.close(namespace)
    if sent:
        return missing(f"sent from a namespace without a route: {', '.join(sent)}", "report it with uname -r")
    if others:
        return missing(
            f"a new namespace is not empty: {', '.join(others)}", "sysctl -w net.core.fb_tunnels_only_for_init_net=2"
        )
    return ok("a new network namespace has lo only, and no route")


def _sends(namespace: int, send: Callable[[int], None]) -> bool:
    try:
        within(lambda: send(_DISCARD), netns=namespace)
    except OSError:
        return False
    return True


def namespaces(_place: Place) -> Outcome:
    """PID, mount and IPC namespaces of its own: the first process in there is number 1."""

    def enter() -> int:
        private_mounts()
        system(libc.unshare(_CLONE_NEWPID | _CLONE_NEWIPC))
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writer, struct.pack("=I", os.getpid()))
            os._exit(0)
        os.waitpid(child, 0)
        return int(struct.unpack("=I", os.read(reader, 4))[0])

    try:
        first = within(enter)
    except OSError as error:
        return missing(f"no PID, mount or IPC namespace: {error.strerror}", "run on the host itself")
    if first != 1:
        raise CannotTell(f"the first process of a new PID namespace has number {first}")
    return ok("PID, mount and IPC namespaces can be made")


def seccomp(_place: Place) -> Outcome:
    done = subprocess.run(
        [sys.executable, "-P", "-c", _FILTER], capture_output=True, text=True, check=False, timeout=_STARTING_SECONDS
    )
    if done.returncode == 3:
        return missing("Python's seccomp module is missing", "apt-get install python3-seccomp")
    if done.returncode == 4:
        return missing("a filter was loaded and does not filter", "boot a kernel with CONFIG_SECCOMP_FILTER")
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or ["it died"])[-1]
        return missing(f"no filter can be loaded: {last}", "boot a kernel with CONFIG_SECCOMP_FILTER")
    return ok("a filter was loaded, and refused a socket family")


def mount_setattr(_place: Place) -> Outcome:
    """A mount is made read-only, and then is."""
    with tempfile.TemporaryDirectory(prefix="enforcer-doctor-") as directory:

        def make_read_only() -> int:
            private_mounts()
            system(libc.mount(b"none", directory.encode(), b"tmpfs", 0, None))
            attributes = struct.pack("=QQQQ", _MOUNT_ATTR_RDONLY, 0, 0, 0)
            buffer = ctypes.create_string_buffer(attributes, len(attributes))
            path = directory.encode()
            system(libc.syscall(_MOUNT_SETATTR, _AT_FDCWD, path, _AT_RECURSIVE, buffer, len(attributes)))
            try:
                (Path(directory) / "written").touch()
            except OSError as error:
                return error.errno or 0
            return 0

        try:
            code = within(make_read_only)
        except OSError as error:
            return missing(f"mount_setattr(2): {error.strerror}", "boot Linux 5.12 or later")
    if code != errno.EROFS:
        return missing("a mount that was made read-only is written to", "report it with uname -r")
    return ok("mounts can be made read-only as a tree")


def executor(place: Place) -> Outcome:
    """A real isolated executor, made by what `enforcer exec` uses, tries to get out in every way it knows."""
    paths = [one.path for one in sockets.reachable(None)]
    answer = within(lambda: _run_executor(place.stage.executor, place.user, paths))
    if answer["could"]:
        return missing(f"an isolated executor could {', '.join(answer['could'])}", "report it with uname -r")
    return ok(f"a real one, as user {place.user.pw_name}, got out by none of {answer['tried']} ways")


def _run_executor(group: Path, user: pwd.struct_passwd, paths: list[str]) -> object:
    from enforcer.isolation.filesystem import View  # noqa: PLC0415 - needs Python's seccomp module, whose absence
    from enforcer.isolation.start import Command, Isolation  # noqa: PLC0415 - another check tells
    from enforcer.isolation.syscalls import Filter  # noqa: PLC0415
    from enforcer.isolation.terminal import Terminal  # noqa: PLC0415

    os.setsid()  # without a terminal there is none to hand over
    output = os.memfd_create("answer")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(output, 1)
    arguments = (_PYTHON, "-I", "-c", Path(inside.__file__).read_text(), *paths)
    groups = tuple(os.getgrouplist(user.pw_name, user.pw_gid))
    command = Command(arguments, {"PATH": os.defpath}, "/", user.pw_uid, user.pw_gid, groups)
    with Isolation(group, View(), Filter(unix_sockets=False)) as isolation:
        code = isolation.run(command, Terminal())
    raw = os.pread(output, os.fstat(output).st_size, 0)
    if code != 0 or len(raw) < 4 or struct.unpack_from("!I", raw)[0] != len(raw) - 4:
        raise CannotTell(f"the executor's command ended with {code}")
    return json.loads(raw[4:])
