"""`enforcer exec`: starts a command as an isolated executor.

The child makes a network namespace with nothing but `lo`, the supervisor puts listeners into it, the child joins its
cgroup, gives up root, and only then becomes the command: it is governed before its first instruction.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import pwd
import shutil
import signal
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from enforcer import privileges
from enforcer.capture import cgroup
from enforcer.capture.namespace import CLONE_NEWNET
from enforcer.errors import EnforcerError, HostError, UsageError
from enforcer.supervisor.control import ControlClient

if TYPE_CHECKING:
    from enforcer.cli.context import Context

# Shell conventions: command found but not startable, and not found; 128 + signal for a signal's death.
CANNOT_EXECUTE, NOT_FOUND, SIGNALLED = 126, 127, 128
# Bytes of a command line that are recorded.
MAX_ARGV = 4096
# include/uapi/linux/sockios.h, if.h
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1
_FORWARDED = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCONT, signal.SIGWINCH)

_libc = ctypes.CDLL(None, use_errno=True)


@click.command("exec", context_settings={"ignore_unknown_options": True})
@click.option("--name", default=None, help="Executor name that policies match; default: the command's own name.")
@click.option("--user", default=None, help="Run as this user; default: the one who called sudo.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def execute(context: Context, name: str | None, user: str | None, command: tuple[str, ...]) -> None:
    """Run COMMAND as an executor: no network but what the enforcer lets through.

    Ends with the command's own exit status; 128 + N when signal N killed it.
    """
    if os.geteuid() != 0:
        raise HostError("starting an executor must be done by root; use sudo, the command runs as you")
    settings = context.settings()
    account = _account(user)
    executor_name = name or _name_of(command[0])
    with ControlClient(settings.control_socket) as client:
        sys.exit(_run(client, executor_name, account, command))


def _account(user: str | None) -> pwd.struct_passwd:
    if user is not None:
        return privileges.find_user(user)
    sudo_uid = os.environ.get("SUDO_UID", "")
    if not sudo_uid.isdigit() or sudo_uid == "0":
        # It would own every file of the host, the enforcer's among them.
        raise UsageError("the command would run as root; name its user with --user, if need be --user root")
    try:
        return pwd.getpwuid(int(sudo_uid))
    except KeyError:
        raise UsageError(f"user id {sudo_uid} has no account here; name one with --user") from None


def _name_of(program: str) -> str:
    name = "".join(letter if letter.isalnum() else "-" for letter in Path(program).name.lower()).strip("-")
    return name or "executor"


def _run(client: ControlClient, name: str, account: pwd.struct_passwd, command: tuple[str, ...]) -> int:
    """Starts the child, has it governed, lets it go, waits for it. Returns the exit status to end with."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        _become(theirs, account, command)
    theirs.close()
    try:
        if ours.recv(1) != b"r":
            raise HostError("the executor could not make its network namespace; see the line above")
        netns = os.open(f"/proc/{child}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        request: dict[str, Any] = {
            "op": "start executor",
            "name": name,
            "uid": account.pw_uid,
            "argv": _recorded(command),
        }
        answer = client.request(request, [netns])
        os.close(netns)
        cgroup.join(Path(answer["cgroup"]), child)
    except (EnforcerError, OSError):
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise
    _forward_signals(child)
    ours.send(b"g")
    ours.close()
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else SIGNALLED - code


def _recorded(command: tuple[str, ...]) -> list[str]:
    """The command line as text, whatever bytes it has; the beginning of one that is too long for a message."""
    raw = b"\0".join(map(os.fsencode, command))[:MAX_ARGV]
    return [part.decode("utf-8", "backslashreplace") for part in raw.split(b"\0")]


def _forward_signals(child: int) -> None:
    """The terminal sends Ctrl-C to the child itself, as it is in the same process group: we only must outlive it."""
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    for number in _FORWARDED:
        signal.signal(number, lambda received, _frame: os.kill(child, received))


def _become(parent: socket.socket, account: pwd.struct_passwd, command: tuple[str, ...]) -> NoReturn:
    """The child: from here to the command nothing returns, and every failure ends it."""
    try:
        _enter_empty_network()
        parent.send(b"r")
        if parent.recv(1) != b"g":
            os._exit(CANNOT_EXECUTE)  # the parent says why
        environment = _environment(account)
        os.closerange(3, os.sysconf("SC_OPEN_MAX"))
        privileges.drop_privileges(account.pw_name)
        privileges.die_with_parent()  # where no supervisor lives to end the executor with us
        # Looked up as the account itself: PATH may hold directories that are not for it.
        program = shutil.which(command[0], path=environment.get("PATH", os.defpath))
        if program is None and "/" not in command[0]:
            _die(f"{command[0]}: command not found", NOT_FOUND)
        os.execve(program or command[0], command, environment)  # noqa: S606 - the whole point
    except FileNotFoundError:
        _die(f"{command[0]}: no such file", NOT_FOUND)
    except (EnforcerError, OSError) as error:
        _die(f"{command[0]}: {getattr(error, 'strerror', None) or error}", CANNOT_EXECUTE)


def _die(message: str, code: int) -> NoReturn:
    os.write(2, f"enforcer: {message}\n".encode())
    os._exit(code)


def _enter_empty_network() -> None:
    if _libc.unshare(CLONE_NEWNET) != 0:
        raise HostError(f"no new network namespace: {os.strerror(ctypes.get_errno())}; run as root on the host")
    with socket.socket() as sock:
        name = b"lo".ljust(16, b"\0")
        flags = struct.unpack_from("h", fcntl.ioctl(sock, _SIOCGIFFLAGS, name + bytes(16)), 16)[0]
        fcntl.ioctl(sock, _SIOCSIFFLAGS, struct.pack("16sh14x", name, flags | _IFF_UP))


def _environment(account: pwd.struct_passwd) -> dict[str, str]:
    """The caller's environment, with the account's own home when it is not the caller's."""
    environment = dict(os.environ)
    if account.pw_uid != os.geteuid():
        environment.update(HOME=account.pw_dir, USER=account.pw_name, LOGNAME=account.pw_name, SHELL=account.pw_shell)
    return environment
