"""Step 1 of 6, capture: where imported tables are kept: `/var/lib/enforcer/geo/NAME/VERSION/`, and `NAME/current`,
which says which of them counts.

Gets the bytes of a table that was found good, hands on its files. A version is written aside and comes into force by
the rename of one link, so there is never half a table, and the one before stays for `rollback`. What lies there is
checked against the sha256 that it was imported with every time it is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from enforcer.config import GeoSource
from enforcer.errors import TableError
from enforcer.geo.rows import Origin
from enforcer.geo.sources import IPFIRE_FILES, Table

PARTS: Mapping[str, tuple[str, ...]] = {"ipfire": IPFIRE_FILES, "cloudflare": ("ips-v4", "ips-v6")}
"""Files of a table that is more than one; they lie side by side, in a directory or below a URL."""

KEPT = 3
"""Versions kept per table: the one in force, the one before, and one more."""

CURRENT = "current"
META = "meta.json"
MEND = "import it again with 'enforcer geo update'"


def parts_of(form: str) -> tuple[str, ...]:
    return PARTS.get(form, ("table",))


@dataclass(frozen=True, slots=True)
class Imported:
    """One version of one table. `taken_from`: file or URL; `published`: day of the publisher's, ISO 8601 or empty;
    `imported` and `checked`: days of ours; `previous`: the version that it took the place of."""

    name: str
    form: str
    ident: str
    version: str
    published: str
    taken_from: str
    imported: str
    checked: str
    sha256: Mapping[str, str]
    previous: str = ""


class Store:
    """All imported tables of an instance. Methods raise TableError where files are damaged or cannot be written."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def current(self, name: str) -> Imported | None:
        """What counts of this table, or None where it was never imported."""
        link = self._directory / name / CURRENT
        try:
            ident = str(link.readlink())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise TableError(f"{link}: {error.strerror}; use root, or remove it and {MEND}") from error
        return self._read(name, ident)

    def table(self, found: Imported) -> Table:
        """Its files, which are as they were imported."""
        directory = self._directory / found.name / found.ident
        paths = tuple(directory / part for part in parts_of(found.form))
        for path in paths:
            try:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
            except OSError as error:
                raise TableError(f"{path}: {error.strerror}; {MEND}") from error
            if digest != found.sha256.get(path.name):
                raise TableError(f"{path}: not what was imported (sha256 {digest}); {MEND}")
        return Table(found.name, found.form, paths)

    def tables(self, sources: Iterable[GeoSource]) -> tuple[Table, ...]:
        """The tables of these sources, as far as they have been imported in the format that the settings name."""
        found = [(source, self.current(source.name)) for source in sources]
        return tuple(self.table(one) for source, one in found if one is not None and one.form == source.format)

    def write(self, source: GeoSource, data: Mapping[str, bytes], origin: Origin, place: str, day: str) -> Imported:
        """Writes a version, taken from `place` on `day`, beside the others; it does not count before `choose`. The
        same content again is the same version."""
        digests = {part: hashlib.sha256(content).hexdigest() for part, content in data.items()}
        name, before = source.name, self.current(source.name)
        ident = f"{origin.date or day}-{Origin.combined(*digests.values())[:12]}"
        previous = before.ident if before and before.ident != ident else before.previous if before else ""
        form, version, date = source.format, origin.version, origin.date
        made = Imported(name, form, ident, version, date, place, day, day, digests, previous)
        home = self._directory / name
        try:
            self._directory.parent.mkdir(mode=0o700, parents=True, exist_ok=True)  # the records' directory
            home.mkdir(mode=0o755, parents=True, exist_ok=True)
            if not self._has(made):
                _write_directory(home, made, data)
            _write_meta(home / ident, made)
            _sync(home)
        except OSError as error:
            raise TableError(f"{home}: cannot write the table ({error.strerror}); free or grant the space") from error
        return made

    def _has(self, made: Imported) -> bool:
        with suppress(TableError):
            self.table(made)
            return True
        return False

    def choose(self, made: Imported) -> None:
        """Makes this version the one that counts, in one rename, and lets the oldest go."""
        home = self._directory / made.name
        link = home / f".{CURRENT}-{os.getpid()}"
        try:
            link.unlink(missing_ok=True)
            link.symlink_to(made.ident)
            link.rename(home / CURRENT)
            _sync(home)
        except OSError as error:
            raise TableError(f"{home}: cannot choose the table ({error.strerror}); free or grant the space") from error
        self._prune(made)

    def discard(self, made: Imported) -> None:
        """Removes a version that was written and not chosen."""
        now = self.current(made.name)
        if now is None or made.ident not in {now.ident, now.previous}:
            shutil.rmtree(self._directory / made.name / made.ident, ignore_errors=True)

    def previous(self, name: str) -> Imported:
        """The version before the one that counts."""
        now = self.current(name)
        if now is None:
            raise TableError(f"{name} was never imported; import it with 'enforcer geo update {name}'")
        if not now.previous:
            raise TableError(f"{name}: there is no version before {now.ident}; update it to get another")
        if not (self._directory / name / now.previous / META).exists():
            raise TableError(f"{name}: version {now.previous} is no longer kept; update it to get another")
        return self._read(name, now.previous)

    def _read(self, name: str, ident: str) -> Imported:
        path = self._directory / name / ident / META
        try:
            found = Imported(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError) as error:
            raise TableError(f"{path}: damaged; remove {path.parent.parent} and {MEND}") from error
        if (found.name, found.ident) != (name, ident):
            raise TableError(f"{path}: of another table; remove {path.parent.parent} and {MEND}")
        return found

    def _prune(self, made: Imported) -> None:
        home = self._directory / made.name
        versions = [path for path in home.iterdir() if path.is_dir() and not path.is_symlink()]
        others = [path for path in versions if path.name not in {made.ident, made.previous}]
        for path in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[KEPT - 2 :]:
            shutil.rmtree(path, ignore_errors=True)


def _write_directory(home: Path, made: Imported, data: Mapping[str, bytes]) -> None:
    """A whole version under its name, or nothing."""
    aside = Path(tempfile.mkdtemp(prefix=".importing-", dir=home))
    try:
        aside.chmod(0o755)
        for part, content in data.items():
            _write(aside / part, content)
        _write_meta(aside, made)
        shutil.rmtree(home / made.ident, ignore_errors=True)  # damaged, or it would not be written again
        aside.rename(home / made.ident)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _write_meta(directory: Path, made: Imported) -> None:
    aside = directory / f".{META}"
    _write(aside, json.dumps(asdict(made), indent=1).encode())
    aside.rename(directory / META)


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fchmod(file.fileno(), 0o644)
        os.fsync(file.fileno())


def _sync(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
