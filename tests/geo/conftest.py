"""The full table, compiled once per machine: from the system's cache, else in a directory of this user's."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest

from enforcer.geo.build import CACHE
from enforcer.geo.compiled import SYSTEM_CACHE, cached, compiled
from enforcer.geo.sources import Sources
from enforcer.geo.table import GeoTable


@pytest.fixture(scope="session")
def full_sources() -> Sources:
    """The shipped table, and the second opinion where this machine has it."""
    ipfire = CACHE / "geo" / "ipfire"
    return Sources(ipfire=ipfire if ipfire.is_dir() else None)


@pytest.fixture(scope="session")
def full(full_sources: Sources) -> GeoTable:
    key = full_sources.read().key
    own = Path(tempfile.gettempdir()) / f"enforcer-geo-{os.geteuid()}"
    return GeoTable.open(cached(key, [SYSTEM_CACHE]) or compiled(full_sources, [own]))
