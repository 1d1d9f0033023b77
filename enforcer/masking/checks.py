"""Step 4 of 6, inspect: check digits that no library at hand computes.

Each gets a value as it was found, separators included, and says whether its check fits. The sources stand beside them.
"""

from __future__ import annotations

import hashlib
import ipaddress
from typing import Final

_DIGITS: Final = "0123456789"


def _digits(number: str) -> list[int]:
    return [int(c) for c in number if c in _DIGITS]


def _date(year: int, month: int, day: int) -> bool:
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    lengths = (31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
    return 1 <= month <= 12 and 1 <= day <= lengths[month - 1]


def _luhn(digits: list[int]) -> bool:
    doubled = (sum(divmod(2 * digit, 10)) for digit in digits[-2::-2])
    return (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0


_VERHOEFF: Final = (
    (0, 1, 2, 3, 4, 5, 6, 7, 8, 9),
    (1, 2, 3, 4, 0, 6, 7, 8, 9, 5),
    (2, 3, 4, 0, 1, 7, 8, 9, 5, 6),
    (3, 4, 0, 1, 2, 8, 9, 5, 6, 7),
    (4, 0, 1, 2, 3, 9, 5, 6, 7, 8),
    (5, 9, 8, 7, 6, 0, 4, 3, 2, 1),
    (6, 5, 9, 8, 7, 1, 0, 4, 3, 2),
    (7, 6, 5, 9, 8, 2, 1, 0, 4, 3),
    (8, 7, 6, 5, 9, 3, 2, 1, 0, 4),
    (9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
)
_PERMUTED: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _verhoeff(digits: list[int]) -> bool:
    check = 0
    for place, digit in enumerate(reversed(digits)):
        permuted = digit
        for _ in range(place % 8):
            permuted = _PERMUTED[permuted]
        check = _VERHOEFF[check][permuted]
    return check == 0


def hu_tax(number: str) -> bool:
    """Adóazonosító jel: 8, eight digits, then their sum weighted by place, modulo 11 (Act CL of 2017, annex 1)."""
    digits = _digits(number)
    return (
        len(digits) == 10
        and digits[0] == 8
        and sum((place + 1) * digit for place, digit in enumerate(digits[:9])) % 11 == digits[9]
    )


def hu_taj(number: str) -> bool:
    """TAJ: eight digits, weighted 3 and 7 in turn, modulo 10 (Act LXXX of 1997)."""
    digits = _digits(number)
    return (
        len(digits) == 9
        and any(digits)
        and sum((7 if place % 2 else 3) * digit for place, digit in enumerate(digits[:8])) % 10 == digits[8]
    )


def hu_personal(number: str) -> bool:
    """Személyi azonosító: sex and century, birth date, serial; the sum weighted by place, from the front until 1996
    and from the back since 1997 (Act XX of 1996)."""
    digits = _digits(number)
    if len(digits) != 11 or not 1 <= digits[0] <= 8:
        return False
    century = 2000 if digits[0] in (3, 4) else 1900
    year = century + 10 * digits[1] + digits[2]
    if not _date(year, 10 * digits[3] + digits[4], 10 * digits[5] + digits[6]):
        return False
    front = sum((place + 1) * digit for place, digit in enumerate(digits[:10])) % 11
    back = sum((10 - place) * digit for place, digit in enumerate(digits[:10])) % 11
    return digits[10] in (back if year >= 1997 else front, front if year >= 1997 else -1)


def lu_matricule(number: str) -> bool:
    """Birth date, serial, a Luhn digit over eleven and a Verhoeff digit over the same eleven (law of 19 June 2013)."""
    digits = _digits(number)
    return (
        len(digits) == 13
        and 1850 <= int("".join(map(str, digits[:4]))) <= 2099
        and _date(int("".join(map(str, digits[:4]))), 10 * digits[4] + digits[5], 10 * digits[6] + digits[7])
        and _luhn(digits[:12])
        and _verhoeff([*digits[:11], digits[12]])
    )


def de_pension(number: str) -> bool:
    """Versicherungsnummer of the pension insurance: area, birth date, initial, serial, check (§ 4 VKVV)."""
    letters = number.replace(" ", "").upper()
    if len(letters) != 12:
        return False
    if not (1 <= int(letters[4:6]) <= 12 and 1 <= int(letters[2:4]) <= 31):
        return False
    digits = _digits(f"{letters[:8]}{ord(letters[8]) - 64:02d}{letters[9:]}")
    weights = (2, 1, 2, 5, 7, 1, 2, 1, 2, 1, 2, 1)
    return sum(sum(divmod(w * d, 10)) for w, d in zip(weights, digits[:12], strict=True)) % 10 == digits[12]


def de_health(number: str) -> bool:
    """Krankenversichertennummer: a letter, eight digits, check with the weights 1 and 2 (§ 290 SGB V)."""
    letters = number.upper()
    digits = _digits(f"{ord(letters[0]) - 64:02d}{letters[1:]}")
    products = ((2 if place % 2 else 1) * digit for place, digit in enumerate(digits[:10]))
    return len(digits) == 11 and sum(sum(divmod(product, 10)) for product in products) % 10 == digits[10]


def de_id_card(number: str) -> bool:
    """Serial number of an identity card or passport with its check digit: weights 7, 3, 1 (ICAO 9303-3, 4.9)."""
    letters = number.upper()
    values = [int(letter, 36) for letter in letters]
    return len(values) == 10 and sum((7, 3, 1)[i % 3] * v for i, v in enumerate(values[:9])) % 10 == values[9]


def es_social(number: str) -> bool:
    """Número de la Seguridad Social: province, serial, and both modulo 97 (TGSS)."""
    digits = "".join(map(str, _digits(number)))
    if len(digits) != 12 or not 1 <= int(digits[:2]) <= 66:
        return False
    serial, province = int(digits[2:10]), int(digits[:2])
    base = serial + province * 10_000_000 if serial < 10_000_000 else int(digits[:10])
    return base % 97 == int(digits[10:])


def pl_id_card(number: str) -> bool:
    """Seria i numer dowodu: three letters, check, five digits; weights 7, 3, 1 (decree of 29 January 2015)."""
    letters = number.replace(" ", "").upper()
    values = [int(letter, 36) for letter in letters]
    return len(values) == 9 and sum(w * v for w, v in zip((7, 3, 1, 9, 7, 3, 1, 7, 3), values, strict=True)) % 10 == 0


def uk_nino(number: str) -> bool:
    """National Insurance number: prefixes that are not given out (NIM39110)."""
    return number[:2].upper() not in ("BG", "GB", "KN", "NK", "NT", "TN", "ZZ")


def us_npi(number: str) -> bool:
    """National Provider Identifier: Luhn over 80840 and the number (45 CFR 162.406)."""
    digits = _digits(number)
    return len(digits) == 10 and digits[0] in (1, 2) and _luhn([8, 0, 8, 4, 0, *digits])


def us_dea(number: str) -> bool:
    """Registration of the Drug Enforcement Administration: the odd places and twice the even ones, modulo 10."""
    digits = _digits(number[2:])
    return len(digits) == 7 and (sum(digits[0:6:2]) + 2 * sum(digits[1:6:2])) % 10 == digits[6]


def au_medicare(number: str) -> bool:
    """Eight digits, weighted 1, 3, 7, 9, then their sum modulo 10 and an issue number."""
    digits = _digits(number)
    weighted = sum(w * d for w, d in zip((1, 3, 7, 9, 1, 3, 7, 9), digits, strict=False))
    return len(digits) in (10, 11) and 2 <= digits[0] <= 6 and weighted % 10 == digits[8]


def sg_nric(number: str) -> bool:
    """NRIC and FIN: seven weighted digits, an offset by century and kind, a letter from the kind's row."""
    letters = number.upper()
    total = sum(w * d for w, d in zip((2, 7, 6, 5, 4, 3, 2), _digits(letters), strict=True))
    total += {"T": 4, "G": 4, "M": 3}.get(letters[0], 0)
    rows = {"S": "JZIHGFEDCBA", "T": "JZIHGFEDCBA", "F": "XWUTRQPNMLK", "G": "XWUTRQPNMLK", "M": "KLJNPQRTUWX"}
    row = rows[letters[0]]
    place = total % 11
    return row[10 - place if letters[0] == "M" else place] == letters[-1]


# Province-level divisions, by the first two digits of GB/T 2260.
_CN_PROVINCES: Final = (
    "11 12 13 14 15 21 22 23 31 32 33 34 35 36 37 41 42 43 44 45 46 50 51 52 53 54 61 62 63 64 65 71 81 82 83"
)


def cn_resident(number: str) -> bool:
    """Division, birth date, serial, ISO 7064 MOD 11-2 (GB 11643-1999). Which counties there were when is not asked: a
    list of them is never whole."""
    if len(number) != 18 or not number[:17].isdigit() or number[:2] not in _CN_PROVINCES.split():
        return False
    check = (1 - 2 * int(number[:17], 13)) % 11
    return number[17].upper() == "0123456789X"[check] and _date(
        int(number[6:10]), int(number[10:12]), int(number[12:14])
    )


def imei(number: str) -> bool:
    """15 digits, the last by Luhn (3GPP TS 23.003, annex B); not all the same."""
    digits = _digits(number)
    return len(digits) == 15 and len(set(digits)) > 1 and _luhn(digits)


def ipv6(address: bytes) -> bool:
    """An address that names a host: not `::`; and not two words with colons between them, as programs have them."""
    if address.count(b":") < 4 and not any(c in b"0123456789" for c in address):
        return False
    try:
        return int(ipaddress.IPv6Address(address.decode("ascii"))) != 0
    except ipaddress.AddressValueError:
        return False


_BASE58: Final = {c: i for i, c in enumerate(b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz")}


def base58check(address: bytes) -> bool:
    """A version, 20 bytes and the beginning of their double SHA-256, in base 58 (Bitcoin's addresses since 2009)."""
    if not address.translate(None, b"123456789abcdef"):
        return False  # by chance one in 10 to the 19th, and logs are full of hashes
    number = 0
    for letter in address:
        number = number * 58 + _BASE58[letter]
    if number >> 200:
        return False
    raw = number.to_bytes(25, "big")
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    if zeros != len(address) - len(address.lstrip(b"1")):
        return False
    return hashlib.sha256(hashlib.sha256(raw[:21]).digest()).digest()[:4] == raw[21:]


_BECH32: Final = {c: i for i, c in enumerate(b"qpzry9x8gf2tvdw0s3jn54khce6mua7l")}
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_BECH32_CHECKS: Final = (1, 0x2BC830A3)


def bech32(address: bytes) -> bool:
    """BIP 173's check, or BIP 350's; one case throughout."""
    if address not in (address.lower(), address.upper()):
        return False
    human, _, rest = address.lower().partition(b"1")
    check = 1
    for value in [c >> 5 for c in human] + [0] + [c & 31 for c in human] + [_BECH32[c] for c in rest]:
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(_GENERATOR):
            if top >> bit & 1:
                check ^= generator
    return check in _BECH32_CHECKS
