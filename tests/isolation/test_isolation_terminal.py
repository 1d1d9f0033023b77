"""Job control on a real terminal: the command behaves as if it had been started without the enforcer."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import shlex
import signal
import struct
import termios
import time
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from tests.isolation.conftest import PYTHON, ROOT, Cell

pytestmark = pytest.mark.kernel

# Seconds for what should take none; generous, for busy machines.
PATIENCE = 30.0
CTRL_C, CTRL_Z, CTRL_BACKSLASH, CTRL_D = "\x03", "\x1a", "\x1c", "\x04"
PROMPT = "ready$ "


class Screen:
    """A program on a terminal of its own: types, and reads what appears."""

    def __init__(self, *command: str) -> None:
        self.pid, self._master = pty.fork()
        if self.pid == 0:
            for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
                signal.signal(number, signal.SIG_DFL)  # whoever started the tests may have ignored them
            os.chdir(ROOT)
            os.execvp(command[0], command)  # noqa: S606
        self._seen = ""

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def enter(self, line: str) -> None:
        self.type(line + "\n")

    def until(self, text: str) -> str:
        """Reads until `text` appears; returns what came before it."""
        deadline = time.monotonic() + PATIENCE
        while text not in self._seen:
            ready, _, _ = select.select([self._master], [], [], max(deadline - time.monotonic(), 0))
            assert ready, f"waited for {text!r}, saw {self._seen!r}"
            try:
                self._seen += os.read(self._master, 65536).decode(errors="replace").replace("\r\n", "\n")
            except OSError:
                pytest.fail(f"waited for {text!r}, saw {self._seen!r} and the end")
        before, _, self._seen = self._seen.partition(text)
        return before

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def exit_code(self) -> int:
        """Of the program; reads on, so that it is not held up by what it writes."""
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.pid = 0
                return os.waitstatus_to_exitcode(status)
            if select.select([self._master], [], [], 0.05)[0]:
                with suppress(OSError):
                    self._seen += os.read(self._master, 65536).decode(errors="replace")
        raise AssertionError(f"it does not end; saw {self._seen!r}")

    def close(self) -> None:
        if self.pid:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
                os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self._master)


@pytest.fixture
def open_screen() -> Iterator[Callable[..., Screen]]:
    screens: list[Screen] = []

    def opened(*command: str) -> Screen:
        screens.append(Screen(*command))
        return screens[-1]

    yield opened
    for screen in screens:
        screen.close()


@pytest.fixture
def shell(open_screen: Callable[..., Screen]) -> Screen:
    """An interactive shell with job control."""
    screen = open_screen("env", "TERM=dumb", f"PS1={PROMPT}", "bash", "--norc", "--noprofile", "-i")
    screen.until(PROMPT)
    return screen


def code(text: str) -> tuple[str, ...]:
    return (PYTHON, "-I", "-u", "-c", text)


REACTS = """
import signal, sys, time
for number in (signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda received, frame: sys.exit(100 + received))
print("start" "ed")
while True:
    time.sleep(1)
"""


@pytest.mark.parametrize(("key", "number"), [(CTRL_C, signal.SIGINT), (CTRL_BACKSLASH, signal.SIGQUIT)])
def test_keys_that_signal_reach_the_command(
    cell: Cell, open_screen: Callable[..., Screen], key: str, number: int
) -> None:
    """Its own handler decides, and its status is ours."""
    screen = open_screen(*cell.line(*code(REACTS)))
    screen.until("started")
    screen.type(key)
    assert screen.exit_code() == 100 + number


def test_a_command_that_a_key_kills_ends_as_in_a_shell(cell: Cell, shell: Screen) -> None:
    """128 + 2 for Ctrl-C, and the shell has its terminal back."""
    shell.enter(shlex.join(cell.line("sh", "-c", "echo start''ed; exec sleep 100")))
    shell.until("started")
    shell.type(CTRL_C)
    shell.until(PROMPT)
    shell.enter("echo status=$?")
    shell.until("status=130")


def test_the_terminal_is_the_callers(cell: Cell, open_screen: Callable[..., Screen]) -> None:
    """Input, output and size are those of the terminal; it has a name and is the controlling one."""
    screen = open_screen(*cell.line("sh", "-c", "echo start''ed; read line; tty; stty size; echo got $line > /dev/tty"))
    screen.resize(41, 137)
    screen.until("started")
    screen.enter("words")
    screen.until("/dev/console\n41 137\ngot words\n")
    assert screen.exit_code() == 0


def test_a_new_size_is_told(cell: Cell, open_screen: Callable[..., Screen]) -> None:
    """SIGWINCH reaches the command, which then reads the new size."""
    text = """
import os, signal
signal.signal(signal.SIGWINCH, lambda number, frame: None)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGWINCH])
print("start" "ed")
signal.sigwait([signal.SIGWINCH])
print("size", *os.get_terminal_size(0))
"""
    screen = open_screen(*cell.line(*code(text)))
    screen.until("started")
    screen.resize(50, 160)
    screen.until("size 160 50")
    assert screen.exit_code() == 0


@pytest.mark.parametrize("interactive", ["bash --norc --noprofile -i", "sh -i"])
def test_an_interactive_shell_has_job_control_inside(cell: Cell, shell: Screen, interactive: str) -> None:
    """No complaint at its start, background jobs, Ctrl-Z and fg; and afterwards the outer shell goes on."""
    command = ["env", "PS1=inside$ ", *interactive.split()]
    shell.enter(shlex.join(cell.line(*command, user="root")))
    start = shell.until("\ninside$ ")
    assert "job control" not in start
    shell.enter("sleep 100")
    time.sleep(0.5)
    shell.type(CTRL_Z)
    assert "Stopped" in shell.until("\ninside$ ")
    shell.enter("bg; kill %1; wait %1; echo waited=$?")
    shell.until("waited=143")
    shell.until("\ninside$ ")
    shell.enter("exit 7")
    shell.until(PROMPT)
    shell.enter("echo status=$?; cat")
    shell.until("status=7")
    shell.enter("the outer shell has the terminal")
    for _ in range(2):  # what was typed, and what cat says
        shell.until("the outer shell has the terminal\n")
    shell.type(CTRL_C)


COUNTS = """
import sys
print("start" "ed")
for line in sys.stdin:
    print("read", line.strip())
"""


def test_a_stop_returns_to_the_shell_and_fg_goes_on(cell: Cell, shell: Screen) -> None:
    """Ctrl-Z: the shell has the prompt and a stopped job; fg gives the terminal to the command again."""
    shell.enter(shlex.join(cell.line(*code(COUNTS))))
    shell.until("started")
    for round_number in range(2):
        shell.type(CTRL_Z)
        shell.until("Stopped")
        shell.until(PROMPT)
        shell.enter("echo shell''works")
        shell.until("shellworks")
        shell.until(PROMPT)
        shell.enter("fg")
        shell.enter(f"line {round_number}")
        shell.until(f"read line {round_number}")
    shell.type(CTRL_D)
    shell.until(PROMPT)


CONTINUED = """
import signal, sys
count = 0
def continued(number, frame):
    global count
    count += 1
signal.signal(signal.SIGCONT, continued)
print("start" "ed")
for line in sys.stdin:
    print("count", count, line.strip())
"""


def test_fg_continues_the_command_once(cell: Cell, shell: Screen) -> None:
    """A second SIGCONT, after the command runs again, would undo a Ctrl-Z that is typed just then."""
    shell.enter(shlex.join(cell.line(*code(CONTINUED))))
    shell.until("started")
    for round_number in range(1, 4):
        shell.type(CTRL_Z)
        shell.until("Stopped")
        shell.until(PROMPT)
        shell.enter("fg")
        shell.enter("first")
        shell.until(" first\n")
        shell.enter("second")
        assert shell.until(" second\n").rpartition("count ")[2] == str(round_number)
    shell.type(CTRL_D)
    shell.until(PROMPT)


def test_in_the_background_it_leaves_the_terminal_alone(cell: Cell, shell: Screen) -> None:
    """The shell goes on reading; a command that reads is stopped, until fg gives it the terminal."""
    shell.enter(shlex.join(cell.line(*code(COUNTS))) + " &")
    shell.until("started")
    for _ in range(20):
        shell.enter("jobs; echo shell''works")
        if "Stopped" in shell.until("shellworks"):
            break
        time.sleep(0.1)
    else:
        pytest.fail("the command that reads in the background was not stopped")
    shell.enter("fg")
    shell.enter("words")
    shell.until("read words")
    shell.type(CTRL_D)
    shell.until(PROMPT)


def test_fg_of_a_running_job_gives_it_the_keys(cell: Cell, shell: Screen) -> None:
    """A background job that never read is not stopped; after fg Ctrl-C ends it."""
    shell.enter(shlex.join(cell.line(*code(REACTS))) + " &")
    shell.until("started")
    shell.enter("fg")
    shell.until("tests.isolation.launch")  # the shell repeats the job's command
    time.sleep(0.2)
    shell.type(CTRL_C)
    shell.until(PROMPT)
    shell.enter("echo status=$?")
    shell.until("status=102")


def test_a_script_that_repeats_it_can_be_interrupted(cell: Cell, shell: Screen) -> None:
    """Ctrl-C that kills the command is also for the script around it, as without the enforcer."""
    line = shlex.join(cell.line("sh", "-c", "echo start''ed; exec sleep 100"))
    shell.enter(f"bash -c '{line.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}; echo went''on; sleep 100'")
    shell.until("started")
    shell.type(CTRL_C)
    shell.until(PROMPT)
    shell.enter("echo status=$?")
    assert "wenton" not in shell.until("status=130")


def test_the_command_cannot_signal_the_callers_job(cell: Cell, shell: Screen) -> None:
    """A process group of its own: kill(0) by root's command ends the command, not the script that called it."""
    line = shlex.join(cell.line("sh", "-c", "kill -KILL 0", user="root"))
    shell.enter(f"bash -c '{line.replace(chr(39), chr(39) + chr(92) + chr(39) + chr(39))}; echo status=$?'")
    shell.until("status=137")
    shell.until(PROMPT)


@pytest.mark.parametrize("request_name", ["TIOCSTI", "TIOCLINUX"])
def test_it_cannot_type_into_the_terminal(cell: Cell, shell: Screen, request_name: str) -> None:
    """What it would type, the caller's shell would run once the command has ended."""
    text = f"""
import ctypes, fcntl, struct, termios
for request in (termios.{request_name}, termios.{request_name} + 2**32):
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        code = libc.ioctl(0, ctypes.c_ulong(request), ctypes.c_char_p(b"x"))
        print("result", code, ctypes.get_errno())
    except OSError as error:
        print(error.errno)
"""
    shell.enter(shlex.join(cell.line(*code(text), user="root")))
    shell.until("result -1 1")
    shell.until("result -1 1")
    assert shell.until(PROMPT).strip() == ""
