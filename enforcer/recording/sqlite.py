"""Step 6 of 6, record: sqlite-utils as it is needed here, which is without NumPy.

It loads NumPy where a host has it, for types of numbers that no row here holds: 30 MB in the supervisor, and half a
second of a start.
"""

from __future__ import annotations

import sys

_absent = "numpy" not in sys.modules
if _absent:
    sys.modules["numpy"] = None  # type: ignore[assignment]  # what makes an import of it fail
try:
    from sqlite_utils import Database, Migrations
finally:
    if _absent:
        del sys.modules["numpy"]

__all__ = ["Database", "Migrations"]
