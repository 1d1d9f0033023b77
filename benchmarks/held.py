"""Processes that are held to a part of a core, so that what more of them can do shows on a machine of few cores."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

_PERIOD = 10_000
"""Microseconds in which a process gets its part: short, so that nobody waits long for what is left of it."""


def _hierarchy() -> Path | None:
    """Where the kernel's `cpu` controller is: a hierarchy of its own, or cgroup v2; None where it is in neither."""
    own = Path("/sys/fs/cgroup/cpu")
    if (own / "cpu.cfs_quota_us").exists():
        return own
    unified = Path("/sys/fs/cgroup")
    control = unified / "cgroup.subtree_control"
    return unified if control.exists() and "cpu" in control.read_text().split() else None


@contextmanager
def _alone(root: Path, pid: int, share: float) -> Iterator[None]:
    """A process in a group of its own, until the end; then it is where it was."""
    field = "cpu" if root.name == "cpu" else ""
    lines = (line.split(":", 2) for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines())
    before = next(path for _, controllers, path in lines if field in controllers.split(","))
    group = root / f"held-{pid}"
    group.mkdir()
    try:
        quota = round(_PERIOD * share)
        if field:
            (group / "cpu.cfs_period_us").write_text(str(_PERIOD))
            (group / "cpu.cfs_quota_us").write_text(str(quota))
        else:
            (group / "cpu.max").write_text(f"{quota} {_PERIOD}")
        (group / "cgroup.procs").write_text(str(pid))
        yield
        (root / before.lstrip("/") / "cgroup.procs").write_text(str(pid))
    finally:
        if not (group / "cgroup.procs").read_text():
            group.rmdir()


@contextmanager
def held(pids: Collection[int], share: float) -> Iterator[bool]:
    """Each of the processes gets `share` of a core, and no more. Yields whether this kernel can do that."""
    root = _hierarchy()
    with ExitStack() as stack:
        for pid in pids if root is not None else ():
            stack.enter_context(_alone(root, pid, share))
        yield root is not None
