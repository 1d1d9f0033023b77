"""Step 4 of 6, inspect: what is put in the place of a value, where a policy says more than that it is hidden.

Gets a value as text and an operator; hands on the text for its place, or None for a null. What a place can hold, a
number, a cell of a typed column, a header field, is asked here too: a value of a kind stays one of it, or nothing.
"""

from __future__ import annotations

import ipaddress
import re
from bisect import bisect_right
from collections.abc import Callable
from typing import Any, Final

import orjson

from enforcer.masking.errors import MaskError
from enforcer.masking.fields import hide_json, stars, typed
from enforcer.masking.keys import Keys
from enforcer.masking.pseudonyms import Pseudonymiser
from enforcer.verdict import PSEUDONYMISE, Operator

REVEALING: Final = frozenset({"mask", "generalise"})
"""Operators that leave something of a value."""

_JSON_NUMBER: Final = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")
# A year of four digits with a month and a day, in the orders in which they are written; what follows is a time.
_YEAR_FIRST: Final = re.compile(r"([12][0-9]{3})([-/.]?)([0-9]{1,2})\2([0-9]{1,2})(?![0-9])(.*)", re.DOTALL)
_YEAR_LAST: Final = re.compile(r"([0-9]{1,2})([-/.])([0-9]{1,2})\2([12][0-9]{3})(?![0-9])(.*)", re.DOTALL)
_NOUGHT: Final = str.maketrans("123456789", "000000000")
_ZONE: Final = re.compile(r"Z|[+-][0-9]{2}(?::?[0-9]{2})?\Z")
_PREFIXES: Final = {4: 24, 6: 48}
"""Bits of an address that stay: a network of 256 addresses, and the site that a provider gives out."""


class Operators:
    """Applies operators. `keys`: of the deployment. `pseudonyms`: of the session or executor, where there are any."""

    def __init__(self, keys: Keys, pseudonyms: Pseudonymiser | None) -> None:
        self._keys = keys
        self._pseudonyms = pseudonyms

    def check(self, operator: Operator) -> None:
        """Raises MaskError where what it needs is not there."""
        if operator.name == "hmac" and not self._keys.keys:
            raise MaskError("there is no key for hmac; the supervisor makes one at its start")

    def text(self, operator: Operator, value: str, word: str, around: bytes = b"") -> str | None:
        """`value` replaced; None for a null. `word`: what it is, for a pseudonym. `around`: the text in which the
        pseudonym must not stand yet."""
        match operator.name:
            case "redact":
                return ""
            case "mask":
                return masked(value, operator.first, operator.last)
            case "replace":
                return operator.text
            case "hmac":
                return self._keys.keys[0].token(value.encode("utf-8", "surrogateescape"))
            case "nullify":
                return None
            case "generalise":
                return generalised(value, operator)
            case "pseudonymise" if self._pseudonyms is not None:
                return self._pseudonyms.pseudonym(word, value, alike=operator.alike, around=around)
            case name:
                raise MaskError(f"{name} is not possible here; ask this host's operator")

    def json(self, operator: Operator, value: Any, word: str, around: bytes) -> Any:
        """A JSON value replaced. A number stays one, or becomes null; so does whatever is neither it nor a string."""
        if isinstance(value, str):
            if operator.name == "mask" and not (operator.first or operator.last):
                return hide_json(value)
            return self.text(operator, value, word, around) if value else value
        if isinstance(value, int | float) and not isinstance(value, bool) and operator.name != PSEUDONYMISE:
            return number(self.text(operator, orjson.dumps(value).decode(), word, around))
        return None

    def cell(
        self, operator: Operator, value: bytes | None, word: str, *, binary: bool, string: bool = False
    ) -> bytes | None:
        """A cell of a row. What the client reads as a number or a date stays one, or becomes NULL; so does what is
        binary. `string`: it is read as a text, whatever it looks like."""
        if value is None or binary:
            return None
        written = value.decode("utf-8", "surrogateescape")
        text = self.text(operator, written, word)
        if text is None or not (string or typed(text) or not typed(written)):
            return None
        return text.encode("utf-8", "surrogateescape")

    def plain(self, operator: Operator, value: bytes, word: str, around: bytes = b"") -> bytes:
        """A value where there is no null: a null is nothing."""
        text = self.text(operator, value.decode("utf-8", "surrogateescape"), word, around)
        return b"" if text is None else text.encode("utf-8", "surrogateescape")


def fits(old: bytes, new: bytes) -> bool:
    """May `new` stand in a cell that held `old`, as a client reads it?"""
    return old == new or not typed(old.decode("utf-8", "replace")) or typed(new.decode("utf-8", "replace"))


def number(text: str | None) -> Any:
    """The JSON number that `text` is; None where it is none."""
    if text is None or not _JSON_NUMBER.fullmatch(text):
        return None
    return orjson.loads(text)


def masked(value: str, first: int, last: int) -> str:
    """Asterisks for all letters and digits but the `first` and the `last`; for all where that would be none. Without
    either, as a field is hidden by default."""
    if not first and not last:
        return stars(value)
    signs = [place for place, sign in enumerate(value) if sign.isalnum()]
    if first + last >= len(signs):
        first = last = 0
    hidden = set(signs[first : len(signs) - last])
    return "".join("*" if place in hidden else sign for place, sign in enumerate(value))


def generalised(value: str, operator: Operator) -> str | None:
    """`value` made coarser; None where it is not what the operator is for."""
    if operator.bounds:
        return _range(value, operator.bounds)
    return _GRAINS[operator.text](value)


def _range(value: str, bounds: tuple[float, ...]) -> str | None:
    """Where the range begins that the number is in: a number as well. None below the first."""
    if not _JSON_NUMBER.fullmatch(value.strip()):
        return None
    known = float(value)
    if len(bounds) == 1:
        begin = known // bounds[0] * bounds[0]
    else:
        place = bisect_right(bounds, known)
        if not place:
            return None
        begin = bounds[place - 1]
    return str(int(begin)) if begin.is_integer() else repr(begin)


def _year(value: str) -> str | None:
    """The first of January at midnight, written as `value` is."""
    first = _YEAR_FIRST.fullmatch(value.strip())
    if first is not None:
        year, sign, month, day, rest = first.groups()
        return f"{year}{sign}{_one(month)}{sign}{_one(day)}{_midnight(rest)}"
    last = _YEAR_LAST.fullmatch(value.strip())
    if last is None:
        return None
    one, sign, other, year, rest = last.groups()
    return f"{_one(one)}{sign}{_one(other)}{sign}{year}{_midnight(rest)}"


def _month(value: str) -> str | None:
    """The first of the month. Of `03/04/1980` nobody knows which that is: the year remains."""
    first = _YEAR_FIRST.fullmatch(value.strip())
    if first is not None:
        year, sign, month, day, rest = first.groups()
        return f"{year}{sign}{month}{sign}{_one(day)}{_midnight(rest)}"
    last = _YEAR_LAST.fullmatch(value.strip())
    if last is None or last[2] == "/":
        return _year(value)
    day, sign, month, year, rest = last.groups()
    return f"{_one(day)}{sign}{month}{sign}{year}{_midnight(rest)}"


def _one(digits: str) -> str:
    return "1".rjust(len(digits), "0")


def _midnight(rest: str) -> str:
    zone = _ZONE.search(rest)
    time = rest if zone is None else rest[: zone.start()]
    return time.translate(_NOUGHT) + ("" if zone is None else zone[0])


def _network(value: str) -> str | None:
    """The first address of the network."""
    try:
        address = ipaddress.ip_address(value.strip())
    except ValueError:
        return None
    network = ipaddress.ip_network(f"{address}/{_PREFIXES[address.version]}", strict=False)
    return str(network.network_address)


_GRAINS: Final[dict[str, Callable[[str], str | None]]] = {"year": _year, "month": _month, "network": _network}
