"""Libraries without what they load only because a host has it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without(name: str) -> Iterator[None]:
    """The module `name` cannot be imported meanwhile; what is loaded already stays, and later imports get it."""
    absent = name not in sys.modules
    if absent:
        sys.modules[name] = None  # type: ignore[assignment]  # what makes an import of it fail
    try:
        yield
    finally:
        if absent:
            del sys.modules[name]
