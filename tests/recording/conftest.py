from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Path of a database that does not exist yet, in a private directory that does not exist either."""
    return tmp_path / "state" / "sessions.db"
