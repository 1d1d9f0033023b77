"""Does a thing in a child process, so that joining a cgroup, entering a namespace or giving up root ends with it."""

from __future__ import annotations

import ctypes
import json
import os
import pwd
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from enforcer import privileges
from enforcer.capture import cgroup
from enforcer.doctor.checks import CannotTell
from enforcer.errors import HostError

# Seconds a probe may take: none needs one, but an emulated machine takes its time.
CHILD_TIMEOUT = 30.0
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x00020000, 0x10000000, 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 0x40000

libc = ctypes.CDLL(None, use_errno=True)


def system(result: int) -> int:
    """The result of a C call, or its errno as OSError."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def within(
    function: Callable[[], Any],
    *,
    group: Path | None = None,
    netns: int | None = None,
    user: pwd.struct_passwd | None = None,
    timeout: float = CHILD_TIMEOUT,
) -> Any:
    """What `function` returns (as JSON carries it) when called in a child that first joins cgroup `group`, enters
    network namespace `netns`, and becomes `user` for good. OSError and HostError are raised here again; anything
    else, and a child that dies or does not answer, is CannotTell."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _answer(writer, function, group, netns, user)
    os.close(writer)
    try:
        raw = _read(reader, timeout)
    finally:
        os.close(reader)
        os.kill(child, signal.SIGKILL)  # not reaped yet, so the pid is still its own
        os.waitpid(child, 0)
    if not raw:
        raise CannotTell(f"the probing process ended, or did not answer within {timeout:.0f} s")
    answer = json.loads(raw)
    if "errno" in answer:
        raise OSError(answer["errno"], answer["strerror"])
    if "host" in answer:
        raise HostError(answer["host"])
    if "failed" in answer:
        raise CannotTell(answer["failed"])
    return answer["value"]


def _answer(
    writer: int, function: Callable[[], Any], group: Path | None, netns: int | None, user: pwd.struct_passwd | None
) -> NoReturn:
    """The child: nothing returns from here into the parent's code."""
    try:
        answer = _prepared(group, netns, user) or _called(function)
    except BaseException as error:  # noqa: BLE001 - told to the parent, which counts it as "cannot tell"
        answer = {"failed": f"{type(error).__name__}: {error}"}
    os.write(writer, json.dumps(answer).encode())
    os._exit(0)


def _prepared(group: Path | None, netns: int | None, user: pwd.struct_passwd | None) -> dict[str, Any]:
    """Empty when all went well. A refusal here is none of what was to be tried."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)
    try:
        if group is not None:
            cgroup.join(group, os.getpid())
        if netns is not None:
            system(libc.setns(netns, CLONE_NEWNET))
        if user is not None:
            privileges.drop_privileges(user.pw_name)
    except OSError as error:
        return {"failed": f"the probing process cannot be where it should: {error}"}
    privileges.die_with_parent()
    return {}


def _called(function: Callable[[], Any]) -> dict[str, Any]:
    try:
        return {"value": function()}
    except OSError as error:
        return {"errno": error.errno, "strerror": error.strerror}
    except HostError as error:
        return {"host": str(error)}


def _read(reader: int, timeout: float) -> bytes:
    """Everything until the child ends, at most for `timeout` seconds; empty when it is late."""
    data = b""
    deadline = time.monotonic() + timeout
    while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
        piece = os.read(reader, 65536)
        if not piece:
            return data
        data += piece
    return b""


def private_mounts() -> None:
    """From here on, what this process mounts is its own. For children only."""
    system(libc.unshare(CLONE_NEWNS))
    system(libc.mount(None, b"/", None, _MS_REC | _MS_PRIVATE, None))
