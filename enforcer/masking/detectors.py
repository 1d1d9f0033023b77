"""Step 4 of 6, inspect: which detectors there are, and the sets that policies may name together.

The table itself is in `table`, what a row is in `rows`. Case, separators and surroundings are those in which people and
programs print such values; a value inside a longer run of letters and digits (order numbers, hashes, UUIDs) is not one.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Final

from enforcer.masking import language
from enforcer.masking.rows import Detector
from enforcer.masking.table import contact, europe, payment, secrets, taxes, world

__all__ = ["DETECTORS", "GROUPS", "NAMES", "Detector", "expand", "unknown"]

DETECTORS: Final = (*secrets.ROWS, *world.ROWS, *europe.ROWS, *taxes.ROWS, *payment.ROWS, *contact.ROWS)
"""Every detector. Where two find values that begin together the longer counts, of equal ones the earlier row."""

GROUPS: Final = {
    group: frozenset(detector.name for detector in DETECTORS if group in detector.groups)
    for group in sorted({group for detector in DETECTORS for group in detector.groups})
}
"""Name of a set -> the detectors in it."""

NAMES: Final = frozenset(detector.name for detector in DETECTORS) | GROUPS.keys()
"""Every word that may stand for detectors: their own names, and those of the sets."""


def expand(names: Iterable[str]) -> frozenset[str]:
    """The detectors that `names` stand for, those of the language model being themselves. Raises KeyError for a word
    that is neither in `NAMES` nor theirs."""
    own = {detector.name for detector in (*DETECTORS, *language.ROWS)}
    return frozenset(one for name in names for one in ((name,) if name in own else GROUPS[name]))


def unknown(name: str) -> str:
    """What to say of a word that is not in `NAMES`: there are too many to list them."""
    close = get_close_matches(name, sorted(NAMES), n=3, cutoff=0.6)
    meant = f"use {' or '.join(close)}" if close else "docs/masking.md lists them"
    return f"unknown detector {name!r}; {meant}"
