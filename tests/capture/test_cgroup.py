"""Where cgroup v2 is, and what a subtree is asked; the real hierarchy is the kernel tests' matter."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.capture import cgroup
from enforcer.capture.cgroup import Cgroups, find_mount, is_populated
from enforcer.errors import HostError

UNIFIED = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid,nodev,noexec,relatime,nsdelegate 0 0\n"
HYBRID = """\
tmpfs /sys/fs/cgroup tmpfs ro,nosuid,nodev,noexec,mode=755 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid,nodev,noexec,relatime 0 0
cgroup /sys/fs/cgroup/systemd cgroup rw,nosuid,nodev,noexec,relatime,xattr,name=systemd 0 0
"""
LEGACY = "cgroup /sys/fs/cgroup/cpu cgroup rw,relatime,cpu 0 0\n"
BEFORE = "proc /proc proc rw 0 0\nsysfs /sys sysfs rw 0 0\n"


@pytest.mark.parametrize(
    ("mounts", "place"),
    [
        (UNIFIED, "/sys/fs/cgroup"),
        (HYBRID, "/sys/fs/cgroup/unified"),
        (LEGACY + HYBRID, "/sys/fs/cgroup/unified"),
        ("none /mnt/my\\040groups cgroup2 rw 0 0\n", "/mnt/my groups"),
    ],
    ids=["unified", "hybrid", "hybrid beside v1", "a path with a space (proc(5): octal escapes)"],
)
def test_the_mount_is_read_from_proc_mounts(tmp_path: Path, mounts: str, place: str) -> None:
    """Wherever the distribution put it."""
    path = tmp_path / "mounts"
    path.write_text(BEFORE + mounts)
    assert find_mount(path) == Path(place)


@pytest.mark.parametrize("mounts", [BEFORE, BEFORE + LEGACY, ""])
def test_a_host_without_cgroup_v2_gets_one_line_with_the_mend(tmp_path: Path, mounts: str) -> None:
    """Before anything is made."""
    path = tmp_path / "mounts"
    path.write_text(mounts)
    with pytest.raises(HostError, match="cgroup v2 is not mounted; mount -t cgroup2") as caught:
        find_mount(path)
    assert "\n" not in str(caught.value)


def test_a_subtree_that_cannot_be_made_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which directory, why, and who may."""
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(cgroup, "find_mount", lambda: tmp_path / "file")
    with pytest.raises(HostError, match=r"cannot create cgroup .*/file/enforcer: Not a directory; run as root"):
        Cgroups.create("enforcer")


def test_making_a_subtree_again_keeps_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A restarted supervisor finds its executors where they are."""
    monkeypatch.setattr(cgroup, "find_mount", lambda: tmp_path)
    groups = Cgroups.create("enforcer")
    executor = groups.create_executor("agent-1")
    assert Cgroups.create("enforcer") == groups
    assert executor.is_dir()
    assert (groups.own, groups.executors) == (tmp_path / "enforcer/enforcer", tmp_path / "enforcer/executors")


def test_population_is_the_kernels_word(tmp_path: Path) -> None:
    """`populated` of cgroup.events; a cgroup that is gone holds nobody."""
    events = tmp_path / "cgroup.events"
    events.write_text("populated 1\nfrozen 0\n")
    assert is_populated(tmp_path)
    events.write_text("populated 0\nfrozen 0\n")
    assert not is_populated(tmp_path)
    assert not is_populated(tmp_path / "gone")


def test_removing_what_is_gone_is_fine(tmp_path: Path) -> None:
    """An uninstall may be repeated."""
    cgroup.remove(tmp_path / "gone")
