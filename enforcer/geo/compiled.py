"""Step 1 of 6, capture: the cache of compiled tables. Gets sources, hands on the path of the table made of them.

A table is named by the hash of its inputs, so a changed file is a new name and nothing is ever stale. It is written
aside and renamed, so there is no half table. Building needs 300 MB: a short-lived child does it, and the caller
stays small.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from enforcer.errors import TableError
from enforcer.geo.sources import Inputs, Sources
from enforcer.geo.table import GeoTable

SYSTEM_CACHE = Path("/var/cache/enforcer/geo")

SUFFIX = ".geo"

KEPT = 8
"""Tables kept per cache directory; the least recently used go first. One is 14 MB, and every edit of an operator table
makes one."""


def compiled(sources: Sources, cache_dirs: Sequence[Path]) -> Path:
    """The table of `sources`: from the first cache directory that has it, else built in the first writable one.

    Raises TableError where a source is missing or damaged, or no directory can be written.
    """
    key = sources.read().key
    found = cached(key, cache_dirs)
    if found:
        return found
    directory = _writable(cache_dirs)
    _build_in_child(sources, directory)
    found = cached(key, [directory])
    if not found:
        raise TableError("the geography tables changed while they were compiled; start again")
    return found


def cached(key: str, cache_dirs: Sequence[Path]) -> Path | None:
    """A sound table with this key, or None. One that is damaged, foreign or writable by others does not count."""
    for directory in cache_dirs:
        path = place(directory, key)
        with suppress(TableError):
            if GeoTable.open(path).key == key:
                with suppress(OSError):  # only marks it as used; another user's cache may be read-only to us
                    os.utime(path)
                return path
    return None


def place(directory: Path, key: str) -> Path:
    return directory / f"{key[:32]}{SUFFIX}"


def build_into(inputs: Inputs, directory: Path) -> Path:
    """Compiles in this process and puts the table in place atomically, readable by all. Raises TableError."""
    data = inputs.compile()
    path = place(directory, inputs.key)
    try:
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        _write(path, data)
        _prune(directory)
    except OSError as error:
        raise TableError(
            f"{path}: cannot write the geography table ({error.strerror}); free or grant the space"
        ) from error
    return path


def _write(path: Path, data: bytes) -> None:
    """Write aside, sync, rename, sync the directory: after a power cut there is the old table or the new one."""
    descriptor, aside = tempfile.mkstemp(prefix=".building-", suffix=SUFFIX, dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
        Path(aside).rename(path)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
    parent = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def _prune(directory: Path) -> None:
    """Processes that have a removed table mapped keep it."""
    tables = [path for path in directory.glob(f"*{SUFFIX}") if not path.name.startswith(".")]
    for path in sorted(tables, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        path.unlink(missing_ok=True)


def _writable(cache_dirs: Sequence[Path]) -> Path:
    for directory in cache_dirs:
        with suppress(OSError):
            directory.mkdir(mode=0o755, parents=True, exist_ok=True)
            if os.access(directory, os.W_OK | os.X_OK):
                return directory
    places = ", ".join(map(str, cache_dirs))
    raise TableError(f"no place for the compiled geography table ({places}); make one of them writable")


def _build_in_child(sources: Sources, directory: Path) -> None:
    # -P: the working directory must not come before the installed package on a root process's import path.
    command = [sys.executable, "-P", "-m", "enforcer.geo.build", "--only", "--cache", str(directory)]
    command += ["--mmdb", str(sources.mmdb)]
    if sources.ipfire is not None:
        command += ["--ipfire", str(sources.ipfire)]
    for path in sources.operator_csvs:
        command += ["--operator", str(path)]
    for table in sources.imported:
        command += ["--import", f"{table.name}:{table.form}", *map(str, table.paths)]
    for name, country in sources.cloud_regions:
        command += ["--cloud-region", f"{name}={country}"]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if child.returncode == TableError.exit_code:
        raise TableError(child.stderr.strip())
    if child.returncode:
        last = (child.stderr.strip().splitlines() or ["no message"])[-1]
        raise TableError(f"compiling the geography tables failed ({last}); run `{' '.join(command)}` to see why")
