"""Step 4 of 6, inspect: names as the server compares them.

PostgreSQL folds ASCII letters of names that are not quoted and cuts names to 63 bytes; MySQL compares columns without
regard to case and, on most servers, tables with it.
"""

from __future__ import annotations

from typing import Final

from enforcer.sql.shape import POSTGRES

POSTGRES_BYTES: Final = 63
"""NAMEDATALEN - 1."""

_ASCII_LOWER: Final = {letter: letter + 32 for letter in range(ord("A"), ord("Z") + 1)}


def folded(name: str, quoted: bool, dialect: str) -> str:
    """A table, alias or schema."""
    if dialect != POSTGRES:
        return name
    if not quoted:
        name = name.translate(_ASCII_LOWER)
    raw = name.encode("utf-8", "surrogatepass")
    return name if len(raw) <= POSTGRES_BYTES else raw[:POSTGRES_BYTES].decode("utf-8", "ignore")


def folded_column(name: str, quoted: bool, dialect: str) -> str:
    return folded(name, quoted, dialect) if dialect == POSTGRES else name.replace("\u0130", "i").lower()
