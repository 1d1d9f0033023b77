"""Step 4 of 6, inspect: which digits are a telephone number, by the numbering plans that phonenumbers keeps.

Gets a number as it was found, hands on whether any plan has it. Only the plans are used (Google's libphonenumber, by
way of the Python port): one pattern per region, compiled when first asked for, and answers remembered.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import cache, lru_cache
from typing import Final

Plan = Callable[[bytes], bool]

_REMEMBERED: Final = 4096
_OTHERS: Final = bytes(byte for byte in range(256) if byte not in b"0123456789")
# Regions whose national forms are known by a label before them: Europe, North America, and large ones beyond.
NATIONAL_REGIONS: Final = tuple(
    re.findall(
        "[A-Z]+",
        "US GB DE FR IT ES NL BE AT CH PL SE NO DK FI IE PT GR CZ SK HU RO BG HR SI LT LV EE LU CY MT IS LI "
        "TR UA CA AU NZ IN JP BR MX AR CL ZA SG IL KR CN",
    )
)
_KINDS: Final = (
    *("fixed_line", "mobile", "toll_free", "premium_rate", "shared_cost", "personal_number", "voip", "uan"),
    *("pager", "voicemail"),
)
_SHORTEST: Final = 7
"""Digits of the shortest number: shorter ones are short codes and extensions."""


class _Region:
    """One region's plan."""

    def __init__(self, code: str) -> None:
        from phonenumbers import PhoneMetadata  # noqa: PLC0415 - only where a detector of numbers is in force

        metadata = PhoneMetadata.metadata_for_region_or_calling_code(1, code)
        kinds = [getattr(metadata, kind, None) for kind in _KINDS]
        patterns = {kind.national_number_pattern for kind in kinds if kind is not None}
        whole = "|".join(f"(?:{pattern})" for pattern in sorted(filter(None, patterns)))
        self._pattern = re.compile(whole or "(?!)")
        self._lengths = frozenset(
            n for kind in kinds if kind is not None for n in kind.possible_length if n >= _SHORTEST
        )
        self._prefix = (metadata.national_prefix if metadata is not None else None) or ""

    def significant(self, digits: str) -> bool:
        """Are these the digits behind the country code?"""
        return len(digits) in self._lengths and self._pattern.fullmatch(digits) is not None

    def national(self, digits: str) -> bool:
        """Are these the digits that one dials within the region?"""
        prefix = self._prefix
        if prefix and digits.startswith(prefix) and self.significant(digits[len(prefix) :]):
            return True
        return prefix != "0" and self.significant(digits)


@cache
def _regions() -> Mapping[int, tuple[str, ...]]:
    """Country code -> the regions that have it."""
    from phonenumbers import COUNTRY_CODE_TO_REGION_CODE  # noqa: PLC0415 - ditto

    return COUNTRY_CODE_TO_REGION_CODE


@cache
def _region(code: str) -> _Region:
    return _Region(code)


@lru_cache(maxsize=_REMEMBERED)
def _international(digits: str) -> bool:
    if len(digits) < _SHORTEST:
        return False
    for length in (1, 2, 3):
        regions = _regions().get(int(digits[:length]))
        if regions is not None:
            rest = digits[length:]
            return any(_region(code).significant(rest) for code in regions)
    return False


def international(number: bytes) -> bool:
    """Is this `+`, or `00`, a country code and a number of that country? `(0)` before the number is no part of it."""
    digits = number.replace(b"(0)", b"").translate(None, _OTHERS).decode()
    return _international(digits if number.startswith(b"+") else digits[2:])


@lru_cache(maxsize=_REMEMBERED)
def _national(digits: str) -> bool:
    return any(_region(code).national(digits) for code in NATIONAL_REGIONS)


def national(number: bytes) -> bool:
    """Is this how one of `NATIONAL_REGIONS` writes a number at home?"""
    return _national(number.translate(None, _OTHERS).decode())


def in_region(code: str, number: bytes) -> bool:
    """Is this how the region `code` writes a number at home?"""
    return _region(code).national(number.translate(None, _OTHERS).decode())


def load() -> None:
    """Reads every plan, so that none is read from disk while a scanner works."""
    from phonenumbers import PhoneMetadata  # noqa: PLC0415 - ditto

    for codes in _regions().values():
        for code in codes:
            if code != "001":
                PhoneMetadata.metadata_for_region(code)
