"""`make test-kernels` believes an emulated machine only what it tells: programs stand in for the emulator here."""

from __future__ import annotations

import importlib.util
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools/test_kernels.py"
# Seconds that a program which should have ended may still be seen.
PATIENCE = 10.0


@pytest.fixture(scope="module")
def tool() -> ModuleType:
    specification = importlib.util.spec_from_file_location("kernel_test_tool", TOOL)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


@pytest.fixture
def machine(tool: ModuleType, tmp_path: Path) -> Iterator[Callable[[str], Any]]:
    """Starts a shell script as the machine; it is in the shared directory, as the guest's is."""
    (tmp_path / "output").touch()
    started = []

    def start(script: str) -> Any:
        started.append(tool.Machine(["sh", "-c", f"cd {tmp_path}\n{script}"], tmp_path))
        return started[-1]

    yield start
    for one in started:
        one.stop()


def test_status_and_output_are_the_machines_own(
    machine: Callable[[str], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    """What the machine runs is printed, and its status is passed on."""
    one = machine("touch booted; echo 12 passed >> output; echo 3 > status")
    one.watch(60)
    assert one.status() == 3
    assert "12 passed" in capfd.readouterr().out


@pytest.mark.parametrize(
    "end", ["exit 0", "touch booted; exit 0", "touch booted; : > status", "touch booted; echo x > status"]
)
def test_a_machine_that_tells_no_status_has_failed(tool: ModuleType, machine: Callable[[str], Any], end: str) -> None:
    """An emulator that ends well proves nothing: a crashed machine ends it as well as a finished one."""
    one = machine(end)
    one.watch(60)
    with pytest.raises(tool.KernelTestError, match="without telling a status"):
        one.status()


def test_a_machine_that_does_not_boot_has_failed(tool: ModuleType, machine: Callable[[str], Any]) -> None:
    """A machine that never says it has booted is given up."""
    one = machine("sleep 1000")
    with pytest.raises(tool.KernelTestError, match="did not boot"):
        one.watch(60, boot_limit=0.1)


def test_a_machine_that_hangs_is_ended_with_all_it_started(
    tool: ModuleType, machine: Callable[[str], Any], tmp_path: Path
) -> None:
    """Past the limit it has failed, and no process of it stays."""
    one = machine("touch booted; sleep 1000 & echo $! > child; wait")
    with pytest.raises(tool.KernelTestError, match="not done after"):
        one.watch(0.5)
    one.stop()
    child = Path("/proc") / (tmp_path / "child").read_text().strip() / "stat"
    deadline = time.monotonic() + PATIENCE
    while runs(child) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not runs(child)


def test_what_was_compiled_there_is_kept_for_the_next(tool: ModuleType, tmp_path: Path) -> None:
    """What the machine has given back takes the place of what it had been given; one that gave nothing back loses
    nothing."""
    made, images = tmp_path / "made", tmp_path / "images"
    images.mkdir()
    (images / "old.image").touch()
    tool.keep_images(made, images)
    assert [path.name for path in images.iterdir()] == ["old.image"]
    made.mkdir()
    (made / "new.image").touch()
    tool.keep_images(made, images)
    assert [path.name for path in images.iterdir()] == ["new.image"]


def runs(stat: Path) -> bool:
    """Whether a process is there and is no zombie that waits for a parent."""
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_kernel_tests_and_probe_both_run_and_each_can_fail(tool: ModuleType, tmp_path: Path) -> None:
    """The machine's script ends with 0 only where the tests and the judge of the probe did, and runs the probe in both
    modes whatever the tests said."""
    options = tool.argparse.Namespace(shell=None, select=None, cpus=2)
    script = tmp_path / "command"
    script.write_text(tool.commands(options))
    for tests, judge, expected in ((0, 0, 0), (1, 0, 1), (0, 5, 5), (2, 5, 2)):
        (tmp_path / "python").write_text(
            f"#!/bin/sh\necho $* >> {tmp_path}/ran\n[ $2 = pytest ] && exit {tests}\nexit {judge}\n"
        )
        (tmp_path / "enforcer").write_text(f"#!/bin/sh\necho $* >> {tmp_path}/ran\nexit 1\n")
        for name in ("python", "enforcer"):
            (tmp_path / name).chmod(0o755)
        environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = tool.subprocess.run(["bash", str(script)], env=environment, capture_output=True, check=False)
        assert done.returncode == expected
    ran = (tmp_path / "ran").read_text().splitlines()
    assert len(ran) == 4 * 4
    assert ran[0].startswith("-m pytest")
    assert "tests/bpf/test_capture.py" in ran[0]
    assert f"-m {tool.WHICH} tests/" in ran[0]
    assert ran[1:4] == [
        "probe --mode isolated --report isolated.json",
        "probe --mode attached --report attached.json",
        "-m tests.kernels.judge isolated.json attached.json",
    ]
