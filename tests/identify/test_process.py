"""What /proc says of a process: exact for a live one, nothing for one that is gone, always text that can be stored."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from enforcer.identify.process import MAX_ARGV, describe_process

NOTHING = {"exe": None, "argv": None, "cgroup": "", "unit": None}
CGROUP = "/system.slice/agent.service/worker-1"


def fake(
    proc: Path,
    *,
    pid: int = 7,
    exe: bytes = b"/usr/bin/psql",
    cmdline: bytes = b"psql\0-h\0db\0",
    cgroup: bytes = f"0::{CGROUP}\n".encode(),
) -> Path:
    """One process of a /proc in a directory."""
    directory = proc / str(pid)
    directory.mkdir()
    (directory / "cmdline").write_bytes(cmdline)
    (directory / "cgroup").write_bytes(cgroup)
    (directory / "exe").symlink_to(os.fsdecode(exe))
    return proc


def test_a_live_process_is_described_by_its_own_proc_entries() -> None:
    """A real child: its program, its arguments and its cgroup, as /proc itself has them."""
    arguments = [sys.executable, "-c", "import sys; print(flush=True); sys.stdin.read()", "ä b"]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()  # it runs
        facts = describe_process(child.pid, os.getuid())
        own = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert facts["argv"] == arguments
    assert facts["exe"] == str(Path(sys.executable).resolve())
    assert facts["cgroup"] == own.removeprefix("0::")


def test_a_process_that_is_gone_is_nobody() -> None:
    """It may have ended between connect() and our look."""
    with subprocess.Popen(["true"]) as child:
        child.wait()
    assert describe_process(child.pid, os.getuid()) == NOTHING


def test_a_process_of_another_user_is_nobody(tmp_path: Path) -> None:
    """The pid was used again by somebody else: better no name than a wrong one."""
    proc = fake(tmp_path)
    assert describe_process(7, os.getuid(), proc)["exe"] == "/usr/bin/psql"
    assert describe_process(7, os.getuid() + 1, proc) == NOTHING


@pytest.mark.parametrize("missing", ["cmdline", "cgroup", "exe"])
def test_a_process_that_ends_while_it_is_looked_at_is_nobody(tmp_path: Path, missing: str) -> None:
    """Half a description is none."""
    proc = fake(tmp_path)
    (proc / "7" / missing).unlink()
    assert describe_process(7, os.getuid(), proc) == NOTHING


@pytest.mark.parametrize(
    ("text", "cgroup", "unit"),
    [
        (f"0::{CGROUP}\n", CGROUP, "agent.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/tmux-1.scope\n", None, "tmux-1.scope"),
        ("12:cpu:/v1/wrong.service\n1:name=systemd:/v1\n0::/enforcer/executors/agent-1\n", None, None),
        ("12:cpu:/v1/only.service\n", "", None),
        ("0::/\n", "/", None),
        ("", "", None),
    ],
    ids=["a service", "the innermost unit", "hybrid: version 2 counts", "version 1 only", "root", "none"],
)
def test_cgroup_and_unit(tmp_path: Path, text: str, cgroup: str | None, unit: str | None) -> None:
    """The line `0::PATH` is the cgroup v2 path (cgroups(7)); its innermost service or scope is the unit."""
    facts = describe_process(7, os.getuid(), fake(tmp_path, cgroup=text.encode()))
    expected = text.splitlines()[-1].removeprefix("0::") if cgroup is None else cgroup
    assert (facts["cgroup"], facts["unit"]) == (expected, unit)


def test_bytes_that_are_no_text_become_text_that_can_be_recorded(tmp_path: Path) -> None:
    """A program may sit at any path and have any arguments; what is stored of it is always valid Unicode."""
    proc = fake(tmp_path, exe=b"/tmp/\xff\xfe", cmdline=b"\xff\0caf\xc3\xa9\0", cgroup=b"0::/\xff.service\n")
    facts = describe_process(7, os.getuid(), proc)
    assert facts == {
        "exe": "/tmp/\\xff\\xfe",
        "argv": ["\\xff", "café"],
        "cgroup": "/\\xff.service",
        "unit": "\\xff.service",
    }


def test_a_long_command_line_is_cut_at_the_named_limit(tmp_path: Path) -> None:
    """An executor's arguments may have 2 MiB; a record keeps the beginning."""
    facts = describe_process(7, os.getuid(), fake(tmp_path, cmdline=b"x\0" + b"y" * 100_000))
    assert facts["argv"] == ["x", "y" * (MAX_ARGV - 2)]


def test_a_process_without_arguments_has_one_empty_name(tmp_path: Path) -> None:
    """A zombie's, and a kernel thread's, command line is empty."""
    assert describe_process(7, os.getuid(), fake(tmp_path, cmdline=b""))["argv"] == [""]
