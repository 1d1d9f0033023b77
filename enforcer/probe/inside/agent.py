"""Runs techniques, one child process each. This text is what an executor is started with: `python3 -c TEXT`.

Tasks come as lines of JSON on standard input, answers go to standard output. With an argument, that is the only task,
and standard input is the technique's own.
"""

from __future__ import annotations

import base64
import json
import os
import select
import signal
import sys
import time
import types
import zlib
from typing import Any

# Bytes of a failing technique's complaints that are reported.
_COMPLAINT = 2000


def install(sources: dict[str, str]) -> None:
    """Makes modules of texts, in this order: nothing of the enforcer's needs to be readable here."""
    for name, text in sources.items():
        module = types.ModuleType(name)
        sys.modules[name] = module
        exec(compile(text, f"<{name}>", "exec"), module.__dict__)  # noqa: S102 - the text is what we were started for


def attempt(task: dict[str, Any]) -> dict[str, str]:
    """Runs one technique in a child and says how that ended; never raises for what the technique does."""
    answer, answer_in = os.pipe()
    complaint, complaint_in = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        if not task.get("keep_stdin"):
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(complaint_in, 1)
        os.dup2(complaint_in, 2)
        os.write(answer_in, json.dumps(run(task)).encode())
        os._exit(0)
    os.close(answer_in)
    os.close(complaint_in)
    try:
        status = wait(child, task["limit"])
        if status is None:
            return {"outcome": "endless", "detail": f"did not end within {task['limit']:g} s"}
        return ended(status, take(answer), take(complaint).decode(errors="replace"))
    finally:
        os.close(answer)
        os.close(complaint)
        kill(-child)


def run(task: dict[str, Any]) -> dict[str, str]:
    kit = sys.modules["enforcer.probe.inside.kit"]
    chosen = kit.TECHNIQUES[task["technique"]]
    try:
        chosen.run(kit.Case(**task["case"]))
    except kit.Missing as error:
        return {"outcome": "missing", "detail": str(error)}
    except OSError as error:
        return {"outcome": "refused", "detail": f"{type(error).__name__}: {error}"}
    return {"outcome": "done", "detail": ""}


def wait(child: int, limit: float) -> int | None:
    """The child's status; None when it had to be killed because it took too long."""
    deadline = time.monotonic() + limit
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return status
        if time.monotonic() > deadline:
            kill(-child)
            kill(child)
            os.waitpid(child, 0)
            return None
        time.sleep(0.002)


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except OSError:
        return


def take(pipe: int) -> bytes:
    """What lies in a pipe; not until its end, as grandchildren may hold it open."""
    data = b""
    while select.select([pipe], [], [], 0)[0] and (more := os.read(pipe, 65536)):
        data += more
    return data


def ended(status: int, answer: bytes, complaint: str) -> dict[str, str]:
    if answer:
        said: dict[str, str] = json.loads(answer)
        return said
    code = os.waitstatus_to_exitcode(status)
    if code == -signal.SIGSYS:
        return {"outcome": "refused", "detail": "killed by the seccomp filter"}
    lines = complaint.strip().splitlines() or ["no output"]
    return {"outcome": "crashed", "detail": f"status {code}: {lines[-1]}", "complaint": complaint[-_COMPLAINT:]}


def unpack(argument: str) -> dict[str, Any]:
    packed: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(argument)))
    return packed


def serve() -> None:
    for line in sys.stdin:
        task = json.loads(line)
        if "sources" in task:
            install(task["sources"])
            reply = {"outcome": "ready", "detail": ""}
        else:
            reply = attempt(task)
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()


def main() -> None:
    if len(sys.argv) < 2:
        serve()
        return
    task = unpack(sys.argv[1])
    install(task["sources"])
    sys.stdout.write(json.dumps(attempt(task)) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
