"""Which kernel headers the compiler gets: the running kernel's, a merged Debian pair, or one clear error."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from enforcer.capture.headers import find_kernel_source
from enforcer.errors import HostError


def built(directory: Path, arch: str = "x86") -> Path:
    """A tree as `linux-headers-VERSION-ARCH` has it: only what was generated."""
    (directory / "include/generated").mkdir(parents=True)
    (directory / "include/generated/autoconf.h").write_text("built")
    (directory / "include/config").mkdir()
    (directory / f"arch/{arch}/include/generated").mkdir(parents=True)
    (directory / "arch/other").mkdir()
    return directory


def common(directory: Path, arch: str = "x86") -> Path:
    """A tree as `linux-headers-VERSION-common` has it: what is the same everywhere."""
    for part in ("include/uapi", "include/linux", f"arch/{arch}/include/asm", f"arch/{arch}/include/uapi"):
        (directory / part).mkdir(parents=True)
    (directory / "include/uapi/bpf.h").write_text("common")
    return directory


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    path = tmp_path / "scratch"
    path.mkdir()
    return path


def test_the_running_kernels_headers_are_left_to_bcc(tmp_path: Path, scratch: Path) -> None:
    """It finds them itself; the scratch directory stays empty."""
    built(tmp_path / "lib/modules" / os.uname().release / "build")
    common(tmp_path / "usr/src/linux-headers-6.1.0-1-common")
    built(tmp_path / "usr/src/linux-headers-6.1.0-1-amd64")
    assert find_kernel_source(scratch, tmp_path) is None
    assert list(scratch.iterdir()) == []


@pytest.mark.parametrize("arch", ["x86", "arm64"])
def test_a_debian_pair_of_any_version_is_merged(tmp_path: Path, scratch: Path, arch: str) -> None:
    """Generated and common headers appear in one tree, as an unsplit build has them."""
    common(tmp_path / "usr/src/linux-headers-6.1.0-1-common", arch)
    built(tmp_path / "usr/src/linux-headers-6.1.0-1-amd64", arch)
    assert find_kernel_source(scratch, tmp_path) == scratch
    assert (scratch / "include/generated/autoconf.h").read_text() == "built"
    assert (scratch / "include/uapi/bpf.h").read_text() == "common"
    assert sorted(path.name for path in (scratch / "include").iterdir()) == ["config", "generated", "linux", "uapi"]
    assert sorted(path.name for path in (scratch / f"arch/{arch}/include").iterdir()) == ["asm", "generated", "uapi"]


def test_names_that_a_bpf_file_system_refuses_are_left_out(tmp_path: Path, scratch: Path) -> None:
    """The tree is made where the programs are pinned, and names with a dot are refused there; such files, which some
    packages have beside the directories, are no headers."""
    tree = common(tmp_path / "usr/src/linux-headers-6.1.0-1-common")
    (tree / "include/.config.cmd").write_text("")
    (tree / "include/Kbuild.old").write_text("")
    built(tmp_path / "usr/src/linux-headers-6.1.0-1-amd64")
    assert find_kernel_source(scratch, tmp_path) == scratch
    assert not [path for path in scratch.rglob("*") if "." in path.name and not path.parent.is_symlink()]


def test_a_dangling_build_link_of_the_running_kernel_does_not_count(tmp_path: Path, scratch: Path) -> None:
    """/lib/modules/RELEASE/build stays behind when its headers are removed."""
    modules = tmp_path / "lib/modules" / os.uname().release
    modules.mkdir(parents=True)
    (modules / "build").symlink_to("/nowhere")
    common(tmp_path / "usr/src/linux-headers-6.1.0-1-common")
    built(tmp_path / "usr/src/linux-headers-6.1.0-1-amd64")
    assert find_kernel_source(scratch, tmp_path) == scratch


def test_a_common_half_without_its_other_half_is_passed_over(tmp_path: Path, scratch: Path) -> None:
    """Removing one package of a pair leaves the other; an older whole pair serves."""
    common(tmp_path / "usr/src/linux-headers-6.9.0-9-common")
    (tmp_path / "usr/src/linux-headers-6.9.0-9-amd64").mkdir()
    common(tmp_path / "usr/src/linux-headers-6.1.0-1-common")
    built(tmp_path / "usr/src/linux-headers-6.1.0-1-amd64")
    assert find_kernel_source(scratch, tmp_path) == scratch
    assert "6.1.0-1" in str((scratch / "include/generated").readlink())


@pytest.mark.parametrize("half", ["", "common", "amd64"])
def test_without_headers_one_line_says_what_to_install(tmp_path: Path, scratch: Path, half: str) -> None:
    """HostError with the command that mends it, also where only one half of a pair is there."""
    if half:
        (common if half == "common" else built)(tmp_path / f"usr/src/linux-headers-6.1.0-1-{half}")
    with pytest.raises(HostError, match=r"no kernel headers .*; apt-get install linux-headers-amd64") as caught:
        find_kernel_source(scratch, tmp_path)
    assert "\n" not in str(caught.value)
