"""Starts an executor: namespaces with a first process that keeps them, then the command as their second process.

Both are born in the executor's cgroup. The first makes the namespaces what they should be and becomes `sleep`: it only
lives, and by ignoring SIGCHLD lets the kernel clear away whatever the command leaves behind. When it dies, and it dies
with us, the kernel ends everything in its PID namespace.

The command is our own child, so that we see its exit status and its stops as they are. It joins the namespaces before
it gives up root, and no code of the executor's runs before that is complete.
"""

from __future__ import annotations

import os
import resource
import select
import shutil
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from enforcer import privileges
from enforcer.errors import EnforcerError, HostError
from enforcer.isolation import filesystem, kernel
from enforcer.isolation.filesystem import View
from enforcer.isolation.syscalls import Filter
from enforcer.isolation.terminal import FORWARDED, Terminal

# Shell conventions: command found but not startable, and not found.
CANNOT_EXECUTE, NOT_FOUND = 126, 127

_JOINED = kernel.CLONE_NEWNET | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWUTS | kernel.CLONE_NEWCGROUP
# The cgroup namespace comes later: at birth its top would be the cgroup that we are in.
_NEW = (_JOINED | kernel.CLONE_NEWPID) & ~kernel.CLONE_NEWCGROUP
# No account has this id, so no executor can touch the first process. Positive where ids are taken for signed.
_FIRST_PROCESS_ID = 2**31 - 2
_FIRST_PROCESS = ("/usr/bin/sleep", "infinity")
# Not 0: a crash would still start the host's helper of core_pattern, with the crashed memory as its input. 1 is the
# kernel's own mark for "do not" (fs/coredump.c).
_NO_CORE = (1, 1)
# Python ignores these by itself; a command expects them as they were.
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Command:
    """What runs, as whom and where. Groups are looked up before: services that know them are out of reach inside."""

    arguments: tuple[str, ...]
    environment: dict[str, str]
    directory: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Isolation:
    """One executor's namespaces. Leaving the context ends every process in them."""

    def __init__(self, cgroup: Path, view: View, syscalls: Filter) -> None:
        self._syscalls = syscalls
        self._cgroup = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        faults, report = os.pipe()
        self._first = kernel.birth(_NEW, self._cgroup)
        if self._first == 0:
            _become_first_process(report, view, syscalls)
        self._pidfd = os.pidfd_open(self._first)
        os.close(report)
        try:
            with open(faults, "rb") as stream:  # noqa: PTH123 - a descriptor
                fault = stream.read()  # ends when it has become another program
            if fault:
                raise HostError(fault.decode(errors="replace"))
        except BaseException:
            self._end()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._end()

    def network(self) -> int:
        """A descriptor of the network namespace, the caller's to close."""
        return os.open(f"/proc/{self._first}/ns/net", os.O_RDONLY | os.O_CLOEXEC)

    def run(self, command: Command, terminal: Terminal) -> int:
        """Runs the command to its end. Returns its exit code, or minus the signal that killed it."""
        kernel.enter(self._pidfd, kernel.CLONE_NEWPID)
        child = kernel.birth(0, self._cgroup)
        if child == 0:
            self._become(command, terminal)
        return terminal.wait(child)

    def _end(self) -> None:
        """With its first process the kernel ends all others of a PID namespace, and waits until they are reaped: those
        that are our children, by us."""
        with suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)
        while os.waitpid(-1, 0)[0] != self._first:
            continue

    def _become(self, command: Command, terminal: Terminal) -> NoReturn:
        """The command's process: from here on nothing returns, and every failure ends it."""
        name = command.arguments[0]
        try:
            terminal.be_given()
            kernel.enter(self._pidfd, _JOINED)
            _change_directory(command.directory)
            for number in (*_IGNORED_BY_PYTHON, *FORWARDED):
                # What the caller ignores stays ignored, as by nohup(1); handlers end with execve() anyway.
                if number in _IGNORED_BY_PYTHON or signal.getsignal(number) is not signal.SIG_IGN:
                    signal.signal(number, signal.SIG_DFL)
            kernel.close_from(3)
            _give_up(command.uid, command.gid, command.groups, self._syscalls)
            # Looked up as the account itself: PATH may hold directories that are not for it.
            program = shutil.which(name, path=command.environment.get("PATH", os.defpath))
            if program is None and "/" not in name:
                _die(f"{name}: command not found", NOT_FOUND)
            os.execve(program or name, command.arguments, command.environment)  # noqa: S606 - the whole point
        except FileNotFoundError:
            _die(f"{name}: no such file", NOT_FOUND)
        except EnforcerError as error:
            _die(str(error), error.exit_code)
        except OSError as error:
            _die(f"{name}: {error.strerror or error}", CANNOT_EXECUTE)


def _become_first_process(report: int, view: View, syscalls: Filter) -> NoReturn:
    try:
        os.setsid()
        kernel.new_cgroup_namespace()
        kernel.loopback_up()
        filesystem.build(view)
        os.chdir("/")
        for number in range(3):
            os.dup2(os.open(os.devnull, os.O_RDWR), number)
        report = os.dup2(report, 3, inheritable=False)
        kernel.close_from(4)
        signal.signal(signal.SIGCHLD, signal.SIG_IGN)
        _give_up(_FIRST_PROCESS_ID, _FIRST_PROCESS_ID, (), syscalls)
        if _is_read_by_nobody(report):
            os._exit(1)  # whoever started us died before it would have taken us along
        os.execve(_FIRST_PROCESS[0], _FIRST_PROCESS, {})  # noqa: S606 - a constant
    except (EnforcerError, OSError) as error:
        os.write(report, str(error).encode())
    os._exit(1)


def _give_up(uid: int, gid: int, groups: tuple[int, ...], syscalls: Filter) -> None:
    """Everything that would be more than the account's own, for good."""
    kernel.new_session_keyring()
    resource.setrlimit(resource.RLIMIT_CORE, _NO_CORE)
    privileges.become(uid, gid, groups)
    privileges.die_with_parent()
    syscalls.load()


def _change_directory(path: str) -> None:
    """By its name: the directory that was inherited lies on the host's own mounts."""
    try:
        os.chdir(path)
    except OSError as error:
        raise HostError(f"the executor does not have the directory {path}: {error.strerror}; cd to another") from error


def _is_read_by_nobody(pipe: int) -> bool:
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(0))  # POLLERR is always reported


def _die(message: str, code: int) -> NoReturn:
    os.write(2, f"enforcer: {message}\n".encode())
    os._exit(code)
