"""The ISO 3166-1 alpha-2 codes that a table or a policy may use; data, with its source in `data/SOURCES.md`."""

from __future__ import annotations

from functools import cache
from importlib import resources


@cache
def countries() -> dict[str, str]:
    """Code to English name, e.g. `DE` to `Germany`. `EU` is not in it: it is a group, not a country."""
    text = resources.files("enforcer.geo").joinpath("data/iso3166.tab").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {row[0]: row[1] for row in rows}
