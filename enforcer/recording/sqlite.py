"""Step 6 of 6, record: sqlite-utils as it is needed here, which is without NumPy.

It loads NumPy where a host has it, for types of numbers that no row here holds: 10 MB in the supervisor, and half a
second of a start.
"""

from __future__ import annotations

from enforcer.lean import without

with without("numpy"):
    from sqlite_utils import Database, Migrations

__all__ = ["Database", "Migrations"]
