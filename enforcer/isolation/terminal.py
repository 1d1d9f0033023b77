"""Job control between the caller's shell and the command, which has a process group of its own.

In one group with us the command could signal the caller's whole job. So the terminal's foreground is handed over and
taken back, and a stop (Ctrl-Z) is passed on, as the shell watches us and not the command.
"""

from __future__ import annotations

import os
import resource
import signal
import stat
from contextlib import suppress

# Signals to us are meant for the command. SIGTSTP and SIGSTOP stop us, and the shell's SIGCONT goes on to it.
FORWARDED = (
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
)


def path_of_terminal() -> str:
    """Of the first standard descriptor that is one; empty when none is, or it has no name here."""
    for number in range(3):
        with suppress(OSError):
            path = os.ttyname(number)
            status = os.stat(path)  # noqa: PTH116 - to compare with a descriptor's
            if stat.S_ISCHR(status.st_mode) and status.st_rdev == os.fstat(number).st_rdev:
                return path
    return ""


class Terminal:
    """The controlling terminal; without one, every method does nothing."""

    def __init__(self) -> None:
        try:
            self._fd = os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1
        self._handed_over = self._is_ours()

    def be_given(self) -> None:
        """In the command's process, before it is one: its own group, in the foreground if we were."""
        os.setpgid(0, 0)
        if self._handed_over:
            self._give(os.getpgrp())

    def wait(self, command: int) -> int:
        """Passes signals and stops on to the command until it ends. Returns its exit code as waitstatus_to_exitcode."""
        for number in FORWARDED:
            signal.signal(number, lambda received, _frame: _forward(command, received))
        while True:
            child, status = os.waitpid(-1, os.WUNTRACED)
            if child != command:
                continue  # the command can make children ours (CLONE_PARENT of clone(2))
            if not os.WIFSTOPPED(status):
                return os.waitstatus_to_exitcode(status)
            self._stopped(command, os.WSTOPSIG(status))

    def take_back(self, exit_code: int) -> None:
        """After the executor's end, when nobody else can have the foreground. Does not return when the command died of
        Ctrl-C or Ctrl-\\: that was for the caller's whole job, and a shell script goes on unless we die of it too."""
        if self._fd < 0 or not _is_gone(self._foreground()):
            return
        self._give(os.getpgrp())
        if -exit_code in (signal.SIGINT, signal.SIGQUIT):
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            signal.signal(-exit_code, signal.SIG_DFL)
            os.kill(0, -exit_code)

    def _stopped(self, command: int, number: int) -> None:
        if self._fd < 0:
            return  # whoever stopped it will continue it
        if number not in (signal.SIGTTIN, signal.SIGTTOU) or not self._is_ours():
            if self._foreground() == command:
                self._give(os.getpgrp())
            # The shell's SIGCONT is not forwarded here: it would reach the command before it has the terminal, and once
            # more below, where it would undo a Ctrl-Z typed meanwhile.
            forwarding = signal.signal(signal.SIGCONT, signal.SIG_DFL)
            os.kill(0, signal.SIGTSTP)
            # Here we stand still until the shell continues us.
            signal.signal(signal.SIGCONT, forwarding)
        if self._is_ours():
            self._give(command)
        with suppress(ProcessLookupError):
            os.killpg(command, signal.SIGCONT)

    def _is_ours(self) -> bool:
        return self._fd >= 0 and self._foreground() == os.getpgrp()

    def _foreground(self) -> int:
        """The process group that reads from the terminal; 0 when it has hung up."""
        try:
            return os.tcgetpgrp(self._fd)
        except OSError:
            return 0

    def _give(self, group: int) -> None:
        """From the background, too, where the kernel would stop us for it."""
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            with suppress(OSError):  # the group has ended, or the terminal has hung up
                os.tcsetpgrp(self._fd, group)
        finally:
            signal.signal(signal.SIGTTOU, before)


def _forward(command: int, number: int) -> None:
    with suppress(ProcessLookupError):
        os.kill(command, number)


def _is_gone(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False
