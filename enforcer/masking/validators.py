"""Step 4 of 6, inspect: the check of a number by its name in the table.

Gets `nl.bsn` (a module of python-stdnum) or `own.hu_taj` (a function of `checks`) and a value as it was found; says
whether its check fits. Modules are loaded when a scanner is made, never while one works.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Final

from enforcer.masking import checks
from enforcer.masking.sums import ALL, SIEVES, Sieve

Check = Callable[[str], bool]

_OWN: Final = "own."
_SEPARATORS: Final = b" ./+-"
_LOADED: dict[str, Check] = {}


def load(name: str) -> Check:
    """The check called `name`; the empty name's fits everything."""
    known = _LOADED.get(name)
    if known is None:
        if not name:
            known = _always
        elif name.startswith(_OWN):
            known = getattr(checks, name.removeprefix(_OWN))
        else:
            known = import_module(f"stdnum.{name}").is_valid
        _LOADED[name] = known
    return known


def _always(_number: str) -> bool:
    return True


def valid(name: str, value: bytes) -> bool:
    """Does the check `name` fit `value`, as it is or without its separators?"""
    sieve: Sieve = SIEVES.get(name, ALL)
    if not sieve.may_fit(value):
        return False
    check = _LOADED.get(name) or load(name)
    number = value.decode("latin-1")
    if check(number):
        return True
    digits = value.translate(None, _SEPARATORS).decode("latin-1")
    return digits != number and check(digits)
