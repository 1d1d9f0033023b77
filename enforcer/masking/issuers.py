"""Step 4 of 6, inspect: which first digits a payment card has, and how many digits follow.

ISO/IEC 7812 gives each network ranges of first digits; the lengths are what the networks issue within them, as they
publish for merchants. Prefixes nobody issues cards under are left out: they are where order numbers and times live.
"""

from __future__ import annotations

from typing import Final

PREFIX_DIGITS: Final = 4
SHORTEST: Final = 13
LONGEST: Final = 19

_ISSUERS: Final = (
    # first prefix, last prefix, lengths
    ("4", "4", (13, 16, 19)),  # Visa
    ("51", "55", (16,)),  # Mastercard
    ("2221", "2720", (16,)),  # Mastercard
    ("34", "34", (15,)),  # American Express
    ("37", "37", (15,)),  # American Express
    ("6011", "6011", range(16, 20)),  # Discover
    ("644", "649", range(16, 20)),  # Discover
    ("65", "65", range(16, 20)),  # Discover, RuPay, Troy, Verve
    ("300", "305", range(14, 20)),  # Diners Club
    ("3095", "3095", range(14, 20)),  # Diners Club
    ("36", "36", range(14, 20)),  # Diners Club
    ("38", "39", range(14, 20)),  # Diners Club
    ("3528", "3589", range(16, 20)),  # JCB
    ("62", "62", range(16, 20)),  # UnionPay
    ("81", "82", range(16, 20)),  # UnionPay, RuPay
    ("50", "50", range(13, 20)),  # Maestro, RuPay, Verve, Elo
    ("56", "58", range(13, 20)),  # Maestro
    ("63", "63", range(13, 20)),  # Maestro
    ("67", "67", range(13, 20)),  # Maestro
    ("60", "60", (16,)),  # RuPay
    ("2200", "2204", range(16, 20)),  # Mir
    ("9792", "9792", (16,)),  # Troy
)


def _table() -> bytes:
    table = bytearray(10**PREFIX_DIGITS)
    for first, last, lengths in _ISSUERS:
        bits = sum(1 << (length - SHORTEST) for length in lengths)
        for prefix in range(int(first.ljust(PREFIX_DIGITS, "0")), int(last.ljust(PREFIX_DIGITS, "9")) + 1):
            table[prefix] |= bits
    return bytes(table)


LENGTHS: Final = _table()
"""By the first four digits, as a number: a bit for each length of cards that begin so, the lowest for the shortest."""
