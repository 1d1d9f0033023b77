"""What runs techniques: each outcome is told apart, and a fault of one does not end the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from enforcer.probe import launch

INSIDE = Path(launch.__file__).parent / "inside"
MODULE = """
import ctypes, os, signal, time
from enforcer.probe.inside.kit import Case, Missing, technique

def enter(name, function):
    technique(name, "g", "s")(function)

def refused(c):
    raise PermissionError(1, "no")

def missing(c):
    raise Missing("a tool")

def crashed(c):
    raise ValueError("boom")

def endless(c):
    time.sleep(60)

def filtered(c):
    os.kill(os.getpid(), signal.SIGSYS)

def killed(c):
    os.kill(os.getpid(), signal.SIGSEGV)

def done(c):
    if c.token != "t0ken" or c.values != {"x": 1}:
        raise ValueError("not what was sent")

for function in (refused, missing, crashed, endless, filtered, killed, done):
    enter(function.__name__, function)
"""
SOURCES = {"enforcer.probe.inside.kit": (INSIDE / "kit.py").read_text(), "probed": MODULE}


def task(name: str) -> dict[str, Any]:
    case = {
        "peer4": "",
        "peer6": "",
        "home4": "",
        "home6": "",
        "port": 1,
        "token": "t0ken",
        "inside": True,
        "values": {"x": 1},
    }
    return {"technique": name, "case": case, "limit": 0.5 if name == "endless" else 20.0}


def serve(*names: str) -> list[dict[str, str]]:
    """The answers of one agent to these techniques, after the one that it is ready."""
    lines = [{"sources": SOURCES}, *map(task, names)]
    done = subprocess.run(
        [sys.executable, "-I", "-c", (INSIDE / "agent.py").read_text()],
        input="".join(json.dumps(line) + "\n" for line in lines),
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    )
    ready, *answers = map(json.loads, done.stdout.splitlines())
    assert ready["outcome"] == "ready"
    return answers


@pytest.mark.parametrize(
    ("name", "outcome", "words"),
    [
        ("done", "done", ""),
        ("refused", "refused", "PermissionError: [Errno 1] no"),
        ("missing", "missing", "a tool"),
        ("crashed", "crashed", "ValueError: boom"),
        ("endless", "endless", "did not end"),
        ("filtered", "refused", "seccomp"),
        ("killed", "crashed", "status -11"),
        ("no-such-technique", "crashed", "KeyError"),
    ],
)
def test_each_outcome_is_told_apart(name: str, outcome: str, words: str) -> None:
    """A refusal is no crash, a crash no refusal, and whoever does not end is ended."""
    [answer] = serve(name)
    assert answer["outcome"] == outcome
    assert words in answer["detail"]


def test_a_crash_does_not_end_the_agent() -> None:
    """Techniques run in processes of their own."""
    assert [answer["outcome"] for answer in serve("killed", "crashed", "done")] == ["crashed", "crashed", "done"]
