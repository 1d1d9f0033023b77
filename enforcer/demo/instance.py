"""A complete enforcer instance under a directory of its own, on the agent host of a world."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import yaml

from enforcer.config import load_settings
from enforcer.demo.world import START_TIMEOUT, World, stop
from enforcer.errors import HostError, NotRunning
from enforcer.supervisor.client import ControlClient
from enforcer.supervisor.uninstall import uninstall

# Seconds a command in an executor may take.
COMMAND_TIMEOUT = 60.0


class Instance:
    """Configuration, supervisor and executors below `root`. Leaving the context uninstalls all of it.

    `user`: whom executors run as; the default is an account that every Debian has and that owns nothing.
    """

    def __init__(
        self,
        world: World,
        *,
        policies: list[str],
        packs: Path,
        settings: dict[str, Any] | None = None,
        user: str = "nobody",
    ) -> None:
        self.world = world
        self.user = user
        self.root = world.directory / "root"
        self._supervisor: subprocess.Popen[bytes] | None = None
        policy_dir = self.root / "etc/enforcer/policies"
        shutil.copytree(packs, policy_dir)
        self.configure(policies=policies, **(settings or {}))

    def configure(self, **settings: Any) -> None:
        """Writes enforcer.yaml."""
        (self.root / "etc/enforcer/enforcer.yaml").write_text(yaml.safe_dump(settings))

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    @property
    def pid(self) -> int:
        if self._supervisor is None:
            raise NotRunning("the supervisor was not started")
        return self._supervisor.pid

    def start(self) -> float:
        """Starts the supervisor and returns the seconds until it answered. Raises HostError with its last line."""
        begun = time.monotonic()
        self._supervisor = self.world.spawn("host", *self.command("run"), log="supervisor.log")
        while time.monotonic() - begun < START_TIMEOUT:
            try:
                self.status()
            except NotRunning:
                if self._supervisor.poll() is not None:
                    raise HostError(f"the supervisor did not start: {self.last_line()}") from None
                # Asking costs what the start needs itself, where processors are slow.
                time.sleep(min(0.5, 0.02 + (time.monotonic() - begun) / 20))
            else:
                return time.monotonic() - begun
        raise HostError(f"the supervisor does not answer after {START_TIMEOUT:.0f} s: {self.last_line()}")

    def stop(self) -> None:
        """Ends the supervisor as systemd would."""
        if self._supervisor is not None:
            stop(self._supervisor)

    def kill(self) -> None:
        """kill -9, as the OOM killer would."""
        if self._supervisor is not None:
            self._supervisor.kill()
            self._supervisor.wait()

    def alive(self) -> bool:
        """Is the supervisor's process there? Whether it answers, `status` tells."""
        return self._supervisor is not None and self._supervisor.poll() is None

    def status(self) -> dict[str, Any]:
        with ControlClient(self.root / "run/enforcer/control.sock") as client:
            return client.request({"op": "status"})

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """An `enforcer` command of this instance, on the agent host."""
        return subprocess.run(
            self.world.command("host", *self.command(*arguments)),
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_TIMEOUT,
        )

    def json(self, *arguments: str) -> Any:
        """The same, for commands that print JSON."""
        done = self.run(*arguments)
        if done.returncode != 0:
            raise HostError(f"enforcer {' '.join(arguments)} failed: {done.stderr.strip()}")
        return json.loads(done.stdout)

    def execute(self, *command: str, name: str = "agent") -> subprocess.CompletedProcess[str]:
        """Runs a command as an executor of `user`."""
        return self.run("exec", "--name", name, "--user", self.user, "--", *command)

    def spawn_executor(self, *command: str, name: str = "agent") -> subprocess.Popen[str]:
        """Starts an executor and does not wait for it."""
        return subprocess.Popen(
            self.world.command("host", *self.command("exec", "--name", name, "--user", self.user, "--", *command)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        self.stop()
        uninstall(load_settings(self.root))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "enforcer", "--root", str(self.root), *arguments]

    def last_line(self) -> str:
        """What the supervisor wrote last."""
        lines = (self.world.directory / "supervisor.log").read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it wrote nothing"


def shipped_policies() -> Path:
    """The packs of this checkout. Raises HostError when they are not there."""
    path = Path(__file__).resolve().parent.parent.parent / "policies"
    if not path.is_dir():
        raise HostError(f"no policies at {path}; run from a checkout of the project")
    return path
