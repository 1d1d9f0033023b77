"""Step 4 of 6, inspect: the sums over digits that most checks begin with, fast enough for tables of numbers that fail.

Gets the name of a check and a value; says whether the check may fit it. What does not add up is not shown to the check
itself, which takes fifty times as long. The weights are those of the checks' sources.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mypy_extensions import i64

_SEPARATORS: Final = b" ./+-"


class Sieve:
    """Lets everything through."""

    def may_fit(self, value: bytes) -> bool:  # noqa: ARG002 - the interface
        return True


class Sum(Sieve):
    """Digits times weights, by a modulus: one of `rests` is left. Letters, other numbers of digits, and what does not
    begin with one of `heads` may fit; of `least` digits and more, those in front that are not written are zeros."""

    def __init__(
        self,
        weights: tuple[int, ...],
        modulus: int,
        rests: tuple[int, ...] = (0,),
        *,
        least: int = 0,
        heads: bytes = b"0123456789",
    ) -> None:
        self._weights = [weight % modulus for weight in reversed(weights)]
        self._modulus = modulus
        self._rests = rests
        self._least = least or len(weights)
        self._heads = heads

    def may_fit(self, value: bytes) -> bool:
        weights = self._weights
        most: i64 = len(weights)
        total: i64 = 0
        count: i64 = 0
        place: i64 = len(value)
        while place:
            place -= 1
            digit: i64 = value[place] - 0x30
            if digit < 0:
                continue  # a separator
            if digit > 9 or count == most:
                return True
            weight: i64 = weights[count]
            total += digit * weight
            count += 1
        if count < self._least or value[0] not in self._heads:
            return True
        return total % self._modulus in self._rests


class Staged(Sieve):
    """The last digit is the sum of the others by the modulus 11, with other weights where that would be 10. One
    digit in front may be missing, and is a zero."""

    def __init__(self, weights: tuple[int, ...], others: tuple[int, ...]) -> None:
        self._weights = list(reversed(weights))
        self._others = list(reversed(others))

    def may_fit(self, value: bytes) -> bool:
        first: i64 = 0
        second: i64 = 0
        last: i64 = 0
        count: i64 = -1
        most: i64 = len(self._weights)
        place: i64 = len(value)
        while place:
            place -= 1
            digit: i64 = value[place] - 0x30
            if digit < 0:
                continue
            if digit > 9 or count == most:
                return True
            if count < 0:
                last = digit
            else:
                weight: i64 = self._weights[count]
                other: i64 = self._others[count]
                first += digit * weight
                second += digit * other
            count += 1
        return count < most - 1 or last == (first % 11 if first % 11 < 10 else second % 11 % 10)


class Both(Sieve):
    """Two of them."""

    def __init__(self, one: Sieve, other: Sieve) -> None:
        self._one = one
        self._other = other

    def may_fit(self, value: bytes) -> bool:
        return self._one.may_fit(value) and self._other.may_fit(value)


class Country(Sieve):
    """One for each two letters that a number may begin with."""

    def __init__(self, countries: dict[bytes, Sieve]) -> None:
        self._countries = countries

    def may_fit(self, value: bytes) -> bool:
        country = self._countries.get(value[:2].upper())
        return country is None or country.may_fit(value[2:])


class Luhn(Sieve):
    """Of the last `length` digits every second one from the right counts double, as the sum of its own digits (ISO/IEC
    7812-1). `more` is added. `padded`: digits in front that are not written are zeros."""

    def __init__(self, length: int, more: int = 0, *, padded: bool = False) -> None:
        self._length = length
        self._more = more
        self._padded = padded

    def may_fit(self, value: bytes) -> bool:
        total: i64 = self._more
        count: i64 = 0
        length: i64 = self._length
        place: i64 = len(value)
        while place and count < length:
            place -= 1
            digit: i64 = value[place] - 0x30
            if digit < 0:
                continue  # a separator
            if digit > 9:
                return True
            total += (2 * digit if digit < 5 else 2 * digit - 9) if count & 1 else digit
            count += 1
        return (count != length and not self._padded) or total % 10 == 0


class Verhoeff(Sieve):
    """The digits, turned by their places, multiplied in the dihedral group of ten elements, are its unit."""

    def __init__(self, length: int) -> None:
        self._length = length

    def may_fit(self, value: bytes) -> bool:
        check: i64 = 0
        count: i64 = 0
        place: i64 = len(value)
        while place:
            place -= 1
            digit: i64 = value[place] - 0x30
            if 0 <= digit <= 9:
                turned: i64 = _TURNED[count % 8 * 10 + digit]
                check = _PRODUCTS[check * 10 + turned]
                count += 1
        return count != self._length or check == 0


# 0 to 4 are turns, 5 to 9 are reflections.
_PRODUCTS: Final = bytes(
    (a + b) % 5 + b // 5 * 5
    if a < 5 and b < 5
    else (a + b) % 5 + 5
    if a < 5
    else (a - b) % 5 + 5
    if b < 5
    else (a - b) % 5
    for a in range(10)
    for b in range(10)
)
_TURN: Final = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)


def _turned() -> bytes:
    rows = [list(range(10))]
    for _ in range(7):
        rows.append([_TURN[digit] for digit in rows[-1]])
    return bytes(digit for row in rows for digit in row)


_TURNED: Final = _turned()


class Recursive(Sieve):
    """ISO 7064, MOD 11,10, of so many digits."""

    def __init__(self, length: int) -> None:
        self._length = length

    def may_fit(self, value: bytes) -> bool:
        check: i64 = 5
        count: i64 = 0
        for byte in value:
            digit: i64 = byte - 0x30
            if 0 <= digit <= 9:
                check = ((check if check else 10) * 2 % 11 + digit) % 10
                count += 1
        return count != self._length or check == 1


class Letter(Sieve):
    """The last character is the one of `letters` that the digits before it lead to, as one number. An X, Y or Z in
    front of them is 0, 1 or 2."""

    def __init__(self, letters: bytes) -> None:
        self._letters = letters

    def may_fit(self, value: bytes) -> bool:
        modulus: i64 = len(self._letters)
        first: i64 = value[0] | 0x20
        rest: i64 = first - 0x78 if first >= 0x78 else 0
        last: i64 = len(value) - 1
        place: i64 = 0
        while place < last:
            digit: i64 = value[place] - 0x30
            if 0 <= digit <= 9:
                rest = (rest * 10 + digit) % modulus
            place += 1
        letter: i64 = value[last]
        return (letter - 0x20 if letter >= 0x61 else letter) == self._letters[rest]


def _powers(digits: int, modulus: int) -> tuple[int, ...]:
    return tuple(pow(10, digits - 1 - place, modulus) for place in range(digits))


_BALTIC: Final = Staged((1, 2, 3, 4, 5, 6, 7, 8, 9, 1), (3, 4, 5, 6, 7, 8, 9, 1, 2, 3))
_NIP: Final = Sum((6, 5, 7, 2, 3, 4, 5, 6, 7, -1), 11)
_DOWN: Final = (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)
SIEVES: Final[dict[str, Sieve]] = {
    "at.tin": Luhn(9),
    "at.vnr": Sum((3, 7, 9, -1, 5, 8, 4, 2, 1, 6), 11),
    "au.tfn": Sum((1, 4, 3, 7, 5, 8, 6, 9, 10), 11),
    "ar.cuit": Sum((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11, (0, 10)),
    # Of those born since 2000 a 2 is set in front.
    "be.nn": Sum((*_powers(9, 97), 10, 1), 97, (0, -2 * 10**9 % 97)),
    "bg.egn": Sum((2, 4, 8, 5, 10, 9, 7, 3, 6, -1), 11, (0, 10)),
    "bg.pnf": Sum((21, 19, 17, 13, 11, 9, 7, 3, 1, -1), 10),
    "br.cpf": Both(Sum((*_DOWN, 0), 11, (0, 1)), Sum((11, *_DOWN), 11, (0, 1))),
    "br.cnpj": Both(
        Sum((5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0), 11, (0, 1)),
        Sum((6, 5, 4, 3, 2, 9, 8, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
    ),
    "ca.sin": Luhn(9),
    "ch.ssn": Sum((1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 3, 1), 10),
    "cl.rut": Sum((8, 9, 4, 5, 6, 7, 8, 9, -1), 11, least=8),
    "cz.rc": Sum((1, -1, 1, -1, 1, -1, 1, -1, 1, -1), 11, (0, 10)),
    "de.idnr": Recursive(11),
    "ee.ik": _BALTIC,
    "es.cif": Luhn(8),
    "es.dni": Letter(b"TRWAGMYFPDXBNJZSQVHLCKE"),
    "es.nie": Letter(b"TRWAGMYFPDXBNJZSQVHLCKE"),
    "eu.vat": Country(
        {
            b"DE": Recursive(9),
            b"DK": Sum((2, 7, 6, 5, 4, 3, 2, 1), 11),
            b"FI": Sum((7, 9, 10, 5, 8, 4, 2, 1), 11),
            b"HR": Recursive(11),
            b"IT": Luhn(11),
            b"PL": _NIP,
            b"PT": Sum((9, 8, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
            b"SI": Sum((8, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
        }
    ),
    "fi.hetu": Letter(b"0123456789ABCDEFHJKLMNPRSTUVWXY"),
    "fr.nif": Sum((*_powers(10, 511), -100, -10, -1), 511),
    "fr.nir": Sum((*_powers(13, 97), 10, 1), 97),
    "gb.nhs": Sum(_DOWN, 11),
    "gb.utr": Sum((1, 6, 7, 8, 9, 10, 5, 4, 3, 2), 11, (0, 2)),
    "gr.amka": Luhn(11),
    "gr.vat": Sum((256, 128, 64, 32, 16, 8, 4, 2, -1), 11, (0, 10)),
    "hr.oib": Recursive(11),
    "il.idnr": Luhn(9, padded=True),
    "is_.kennitala": Sum((3, 2, 7, 6, 5, 4, 3, 2, 1, 0), 11),
    "it.iva": Luhn(11),
    "jp.in_": Sum((6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
    "kr.rrn": Sum((2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 1), 11, (0, 1)),
    "in_.aadhaar": Verhoeff(12),
    "lt.asmens": _BALTIC,
    # Of companies, that begin with 4 to 9, others count.
    "lv.pvn": Sum((10, 5, 8, 4, 2, 1, 6, 3, 7, 9, -1), 11, (9, 10), heads=b"0123"),
    "nl.bsn": Sum((9, 8, 7, 6, 5, 4, 3, 2, -1), 11),
    "no.fodselsnummer": Both(Sum((3, 7, 6, 1, 8, 9, 4, 5, 2, 1, 0), 11), Sum((5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11)),
    "nz.ird": Staged((-3, -2, -7, -6, -5, -4, -3, -2), (-7, -4, -3, -2, -5, -2, -7, -6)),
    "own.au_medicare": Sum((1, 3, 7, 9, 1, 3, 7, 9, -1, 0), 10),
    "own.hu_taj": Sum((3, 7, 3, 7, 3, 7, 3, 7, -1), 10),
    "own.hu_tax": Sum((1, 2, 3, 4, 5, 6, 7, 8, 9, -1), 11),
    "own.us_npi": Luhn(10, 24),
    "own.imei": Luhn(15),
    "pl.nip": _NIP,
    "pl.pesel": Sum((1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1), 10),
    "pt.nif": Sum((9, 8, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
    "ro.cnp": Sum((2, 7, 9, 1, 4, 6, 3, 5, 8, 2, 7, 9, -1), 11, (0, 9)),
    "ru.inn": Sum((2, 4, 10, 3, 5, 9, 4, 6, 8, -1), 11, (0, 10)),
    "se.personnummer": Luhn(10),
    "si.ddv": Sum((8, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
    "si.emso": Sum((7, 6, 5, 4, 3, 2, 7, 6, 5, 4, 3, 2, 1), 11, (0, 1)),
    "tr.tckimlik": Both(Sum((3, 1, 3, 1, 3, 1, 3, 1, 3, 1, 0), 10), Sum((1, 1, 1, 1, 1, 1, 1, 1, 1, 1, -1), 10)),
    "ua.rntrc": Sum((-1, 5, 7, 9, 4, 6, 10, 5, 7, -1), 11, (0, 10)),
    "us.rtn": Sum((7, 3, 9, 7, 3, 9, 7, 3, -1), 10),
    "za.idnr": Luhn(13),
}
"""Check -> what a number that it fits gets through, in all of its lengths and forms."""
ALL: Final = Sieve()
