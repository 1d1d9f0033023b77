"""Step 3 of 6, decide: scalars of policy files, globs over what a request says, and how what does not fit is told: in
one bounded line."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache

# Characters of a word of the client's that a difference quotes.
SHOWN = 80


@lru_cache(maxsize=4096)
def _pieces(glob: str) -> list[str]:
    return glob.split("*")


def glob_matches(glob: str, text: str) -> bool:
    """`*` stands for any text, also none; no other character is special. Linear in both."""
    if "*" not in glob:
        return glob == text
    first, *middle, last = _pieces(glob)
    if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
        return False
    at, end = len(first), len(text) - len(last)
    for piece in middle:
        found = text.find(piece, at, end)
        if found < 0:
            return False
        at = found + len(piece)
    return True


def any_glob(globs: Iterable[str], text: str) -> bool:
    for glob in globs:  # noqa: SIM110 - half the time of any() with a generator, for each request
        if glob_matches(glob, text):
            return True
    return False


def shown(text: str) -> str:
    """A word of the client's, bounded and printable."""
    short = text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
    return short if short.isprintable() else short.encode("unicode_escape").decode("ascii")


def some(words: Iterable[str]) -> str:
    """The first few of a list that may hold thousands: a difference is one line."""
    listed = list(words)
    return ", ".join(listed) if len(listed) <= 4 else f"{', '.join(listed[:3])} and {len(listed) - 3} more"


# Longer than any field path or glob that a person writes; a bound for the parsers behind it.
MAX_TEXT = 512


def text(value: object) -> str:
    """`value`, a scalar of a policy file that may be printed. Raises ValueError."""
    if not isinstance(value, str) or not value:
        raise ValueError("is not text; write text")
    if len(value) > MAX_TEXT:
        raise ValueError(f"is longer than {MAX_TEXT} characters; shorten it")
    if not value.isprintable():
        raise ValueError("holds a control character; remove it")
    return value
