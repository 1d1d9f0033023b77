"""Step 1 of 6, capture: what every table source hands on: rows of one address family, with their origin.

A source reads one file and yields `Row`s; it knows nothing of precedence, of other sources, or of the compiled table.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, Protocol

from enforcer.errors import TableError
from enforcer.geo.address import Version


class Row(NamedTuple):
    """Addresses `first` to `last` (integers, inclusive) are in one of `regions`. `label`: the source's own words.
    `kind`: where it is not the one of all rows of such a source: `provider`, `anycast` or `unknown`."""

    version: Version
    first: int
    last: int
    regions: frozenset[str]
    label: str = ""
    kind: str = ""


@dataclass(frozen=True, slots=True)
class Origin:
    """Which release of which table. `version` is the publisher's, or a short sha256; `date` is ISO 8601 or empty."""

    name: str
    version: str
    date: str
    sha256: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"

    @staticmethod
    def combined(*digests: str) -> str:
        """The sha256 of a table that is several files."""
        return hashlib.sha256(" ".join(digests).encode()).hexdigest()


class Source(Protocol):
    """One table. `rows` may be iterated once or more; raises TableError where the file is damaged."""

    @property
    def origin(self) -> Origin: ...

    def rows(self) -> Iterator[Row]: ...


@dataclass(frozen=True, slots=True)
class Input:
    """A source file, read once: what is hashed is what is parsed."""

    path: Path
    data: bytes = field(repr=False)
    sha256: str

    @classmethod
    def read(cls, path: Path, mend: str) -> Input:
        """Raises TableError (with `mend`) where the file is missing, unreadable or empty."""
        try:
            data = path.read_bytes()
        except OSError as error:
            raise TableError(f"{path}: {error.strerror}; {mend}") from error
        if not data:
            raise TableError(f"{path}: the file is empty; {mend}")
        return cls(path, data, hashlib.sha256(data).hexdigest())
