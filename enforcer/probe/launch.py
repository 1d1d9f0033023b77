"""Starts processes that run techniques: executors of each mode, and beside them the ungoverned control."""

from __future__ import annotations

import base64
import json
import select
import subprocess
import zlib
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Protocol, Self

from enforcer.errors import HostError, UsageError
from enforcer.probe.ground import PYTHON, Ground, outside
from enforcer.probe.inside.kit import TECHNIQUES
from enforcer.probe.results import Outcome

_INSIDE = Path(__file__).parent / "inside"
# All others need the first, and no other one.
MODULES = (
    "kit",
    "addresses",
    "sockets",
    "protocols",
    "udp",
    "names",
    "routing",
    "packets",
    "families",
    "surroundings",
    "privileges",
    "enforcer_itself",
)
# Seconds for a process to start and answer, beside what its technique may take; an emulated machine needs twenty, and
# more where others use its processors.
START = 300.0


class Mode(Protocol):
    """How a command becomes what a technique runs in."""

    name: str
    # Must policy take over a cgroup?
    takes_over: bool

    def command(self, ground: Ground, user: str, *command: str) -> list[str]:
        """The command line that starts `command` so, as `user`."""


class Given(Protocol):
    """What a process of its own is started with; `terminal`: standard input is its controlling terminal."""

    stdin: int | None
    pass_fds: tuple[int, ...]
    terminal: bool


class Outside:
    """Not an executor: the control."""

    name = "outside"
    takes_over = False

    def command(self, ground: Ground, user: str, *command: str) -> list[str]:
        return outside(ground.world, user, *command)


class Isolated:
    """`enforcer exec`: a network namespace with only `lo`, and what else belongs to it."""

    name = "isolated"
    takes_over = False

    def command(self, ground: Ground, user: str, *command: str) -> list[str]:
        arguments = ["exec", "--name", "probe", "--user", user, "--", *command]
        return ground.world.command("host", *ground.instance.command(*arguments))


class Attached:
    """A command that something else starts, in a cgroup that policy names, in the agent host's own namespaces."""

    name = "attached"
    takes_over = True

    def command(self, ground: Ground, user: str, *command: str) -> list[str]:
        join = 'echo 0 > "$0/cgroup.procs" && exec "$@"'
        return ["sh", "-c", join, str(ground.attached), *outside(ground.world, user, *command)]


MODES: dict[str, Mode] = {"isolated": Isolated(), "attached": Attached()}


def sources(technique: str | None = None) -> dict[str, str]:
    """The texts of the modules that run inside, by their names; those of one technique where only that is to run, as
    each of them is compiled there."""
    names = MODULES if technique is None else (MODULES[0], TECHNIQUES[technique].run.__module__.rpartition(".")[2])
    return {f"enforcer.probe.inside.{name}": (_INSIDE / f"{name}.py").read_text() for name in names}


def agent_command(task: dict[str, Any] | None = None) -> list[str]:
    """What an executor is started with; `task` when it is to run only that."""
    command = [PYTHON, "-I", "-c", (_INSIDE / "agent.py").read_text()]
    if task is not None:
        packed = zlib.compress(json.dumps({**task, "sources": sources(task["technique"])}).encode(), 9)
        command.append(base64.b64encode(packed).decode())
    return command


def failed(detail: str) -> dict[str, str]:
    return {"outcome": Outcome.CRASHED, "detail": detail}


class Agent:
    """A process that runs many techniques, one after another; started anew when one of them ends it."""

    def __init__(self, ground: Ground, mode: Mode, user: str) -> None:
        self._ground, self.mode, self._user = ground, mode, user
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def run(self, task: dict[str, Any]) -> dict[str, str]:
        """Runs one task and returns the agent's answer; `crashed` when it did not live to give one. Raises HostError
        when there is no agent to be had."""
        if self._process is None or self._process.poll() is not None:
            self.close()
            self._ground.heal()
            reply = self._start()
            if reply["outcome"] != "ready":
                raise HostError(f"no {self.mode.name} process starts for {self._user}: {reply['detail']}")
        return self._ask(task, task["limit"] + START)

    def _start(self) -> dict[str, str]:
        self._process = subprocess.Popen(
            self.mode.command(self._ground, self._user, *agent_command()),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
        )
        return self._ask({"sources": sources()}, START)

    def _ask(self, task: dict[str, Any], patience: float) -> dict[str, str]:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            return failed("it was not started")
        try:
            process.stdin.write(json.dumps(task) + "\n")
            process.stdin.flush()
        except BrokenPipeError:
            return failed(self._last_words())
        return answer_of(process.stdout, patience) or failed(self._last_words())

    def _last_words(self) -> str:
        """Why it gives no answer; it is ended."""
        process = self._process
        if process is None or process.stderr is None:
            return "it was not started"
        process.kill()
        lines = process.stderr.read().strip().splitlines()
        process.wait()
        return f"its process ended: {lines[-1] if lines else 'no output'}"

    def close(self) -> None:
        if self._process is None:
            return
        for stream in (self._process.stdin, self._process.stdout, self._process.stderr):
            close(stream)
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def close(stream: IO[str] | None) -> None:
    if stream is not None:
        try:
            stream.close()
        except BrokenPipeError:
            return


def answer_of(stream: IO[str], patience: float) -> dict[str, str] | None:
    """The next line of JSON; None when the stream ends or nothing comes in time."""
    if not select.select([stream], [], [], patience)[0]:
        return None
    line = stream.readline()
    if not line.startswith("{"):
        return None
    answer: dict[str, str] = json.loads(line)
    return answer


def run_once(ground: Ground, mode: Mode, user: str, task: dict[str, Any], given: Given) -> dict[str, str]:
    """Runs one task in a process of its own, with its own standard input and descriptors."""
    command = mode.command(ground, user, *agent_command(task))
    process = subprocess.Popen(
        ["setsid", "--ctty", *command] if given.terminal else command,
        stdin=subprocess.DEVNULL if given.stdin is None else given.stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd="/",
        pass_fds=given.pass_fds,
    )
    try:
        output, errors = process.communicate(timeout=task["limit"] + START)
    except subprocess.TimeoutExpired:
        return {"outcome": Outcome.ENDLESS, "detail": "its executor did not end"}
    finally:
        if process.poll() is None:
            process.kill()
            process.communicate()
    for line in output.splitlines():
        if line.startswith("{"):
            answer: dict[str, str] = json.loads(line)
            return answer
    lines = errors.strip().splitlines()
    if process.returncode == UsageError.exit_code and lines:
        # An executor that the enforcer will not start with such descriptors.
        return {"outcome": Outcome.REFUSED, "detail": lines[-1].removeprefix("enforcer: ")}
    return failed(f"its process ended with {process.returncode}: {lines[-1] if lines else 'no output'}")
