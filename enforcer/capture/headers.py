"""Step 1 of 6, capture: finds kernel headers that BCC can compile with.

Our programs use UAPI types only, so any version's headers serve: the running kernel's when they are installed, else a
merged tree of symbolic links made from an installed Debian pair `linux-headers-*-common` and `linux-headers-*-ARCH`.
"""

from __future__ import annotations

import os
from pathlib import Path

from enforcer.errors import HostError

_MEND = "apt-get install linux-headers-amd64"
# What every built tree has.
_CONFIGURED = "include/generated/autoconf.h"


def find_kernel_source(scratch: Path, root: Path = Path("/")) -> Path | None:
    """The directory to put into `BCC_KERNEL_SOURCE`, or None when BCC finds the running kernel's headers itself.

    `scratch`: an empty directory for the merged tree. `root`: where to look, for tests.
    Raises HostError when no headers are installed.
    """
    common, built = _find(root)
    if common is None:
        return None
    _merge(common, built, scratch)
    return scratch


def stamp(root: Path = Path("/")) -> str:
    """What tells these headers from others. Raises HostError when no headers are installed."""
    common, built = _find(root)
    configured = (built / _CONFIGURED).stat()
    return f"{common} {built.resolve()} {configured.st_size} {configured.st_mtime_ns}"


def _find(root: Path) -> tuple[Path | None, Path]:
    """The common half, where they come in halves, and what was built."""
    running = root / "lib/modules" / os.uname().release / "build"
    if (running / _CONFIGURED).exists():
        return None, running
    for common in sorted((root / "usr/src").glob("linux-headers-*-common"), reverse=True):
        release = common.name.removesuffix("-common")
        for built in sorted((root / "usr/src").glob(f"{release}-*")):
            if (built / _CONFIGURED).exists():
                return common, built
    raise HostError(f"no kernel headers under {root / 'usr/src'} (any version serves); {_MEND}")


def _merge(common: Path, built: Path, tree: Path) -> None:
    """Links the architecture's generated headers and the common ones into one tree, as an unsplit build has them."""
    machine = built / "arch"
    arch = next(path.name for path in sorted(machine.iterdir()) if (path / "include/generated").is_dir())
    for part in ("include", f"arch/{arch}/include"):
        (tree / part).mkdir(parents=True)
        for source in (built, common):
            for entry in (source / part).iterdir():
                link = tree / part / entry.name
                # Directories hold all there is, and a BPF file system takes no name with a dot.
                if entry.is_dir() and not link.is_symlink():
                    link.symlink_to(entry)
