"""Step 4 of 6, inspect: what the values look like that masking hides.

Gets a text and the end of a candidate that Hyperscan reported; hands on the span of the value, or None. A detector is
one row of `DETECTORS`: patterns that must not miss, a confirmation that must not guess, what stays readable,
and published examples that a test runs. Case, separators and surroundings are those in which people and programs print
such values; a value inside a longer run of letters and digits (order numbers, hashes, UUIDs) is not one.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from enforcer.masking.issuers import LENGTHS_BY_PREFIX, PREFIX_DIGITS

Span = tuple[int, int]
Confirm = Callable[[bytes, int], Span | None]

MAX_SPAN: Final = 67
"""Bytes of the longest value: an IBAN of 34 characters with a space between every two."""

_ALNUM: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_DIGITS: Final = frozenset(b"0123456789")
_DOT: Final = ord(".")
_SEPARATORS: Final = b" -"

# --- credit_card: ISO/IEC 7812-1, 13 to 19 digits, a single space or dash between groups, last digit by Luhn.

_CARD_LENGTHS: Final = range(13, 20)
# Cards are printed in groups of 3 digits or more (4-4-4-4, 4-6-5, 4-3-3-3), with a short rest at the end. Rows of
# shorter numbers are tables, and one number in ten passes Luhn.
_CARD_GROUPS: Final = re.compile(rb"[0-9]{3,}(?:[ -][0-9]{3,})*(?:[ -][0-9]{1,2})?")
_UUID: Final = re.compile(rb"(?i)(?<![0-9a-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-z])")
_UUID_REST: Final = 36 - 13
# Luhn doubles every second digit and adds the digits of the product.
_DOUBLED: Final = bytes(48 + (2 * (c - 48)) // 10 + (2 * (c - 48)) % 10 if 48 <= c < 58 else c for c in range(256))


def luhn(number: bytes) -> bool:
    """Does the last of these ASCII digits fit the others (ISO/IEC 7812-1, annex B)?"""
    return (sum(number[-1::-2]) + sum(number[-2::-2].translate(_DOUBLED)) - 48 * len(number)) % 10 == 0


def _card(length: int, text: bytes, end: int) -> Span | None:
    """The card number of `length` digits before `end`, or just before it: the pattern takes what follows along."""
    if text[end - 1] not in _DIGITS:
        end -= 1
    number = text[end - length : end]
    if not number.isdigit():
        number = text[max(0, end - 2 * length + 1) : end].translate(None, _SEPARATORS)[-length:]
    if length not in LENGTHS_BY_PREFIX.get(number[:PREFIX_DIGITS], ()) or not luhn(number):
        return None
    start, missing = end, length
    while missing:
        start -= 1
        missing -= text[start] not in _SEPARATORS
    if not _CARD_GROUPS.fullmatch(text, start, end) or _in_decimal(text, start, end) or _in_uuid(text, start, end):
        return None
    return start, end


def _in_decimal(text: bytes, start: int, end: int) -> bool:
    """Are these digits the whole part, or the fraction, of a number with a decimal point?"""
    return (text[end : end + 1] == b"." and text[end + 1 : end + 2].isdigit()) or (
        start > 1 and text[start - 1] == _DOT and text[start - 2] in _DIGITS
    )


def _in_uuid(text: bytes, start: int, end: int) -> bool:
    """One UUID in some ten thousand has only digits where it matters."""
    if b"-" not in text[max(0, start - 1) : end + 1]:
        return False
    return _UUID.search(text, max(0, start - _UUID_REST - 1), end + _UUID_REST + 1) is not None


# --- iban: ISO 13616; length by country, and the whole, rearranged, is 1 modulo 97.

_IBAN_HEAD: Final = re.compile(rb"[A-Za-z]{2}[0-9]{2}(?: ?[0-9A-Za-z]){11}\Z")
_IBAN_REST: Final = {
    n: re.compile(rb"[A-Za-z]{2}[0-9]{2}(?: ?[0-9A-Za-z]){%d}(?![0-9A-Za-z])" % (n - 4)) for n in range(15, 35)
}
_IBAN_VALUES: Final = [str(int(chr(c), 36)) if c in _ALNUM else "" for c in range(256)]

# Country -> length, from the IBAN registry (ISO 13616-2), which SWIFT keeps.
IBAN_LENGTHS: Final = {
    code.encode(): length
    for length, codes in {
        15: "NO",
        16: "BE",
        18: "DK FI FK FO GL NL SD",
        19: "MK SI",
        20: "AT BA EE KZ LT LU MN XK",
        21: "CH HR LI LV",
        22: "BG BH CR DE GB GE IE ME RS VA",
        23: "AE GI IL IQ OM SO TL",
        24: "AD CZ ES MD PK RO SA SE SK TN VG",
        25: "LY PT ST",
        26: "IS TR",
        27: "BI DJ FR GR IT MC MR SM",
        28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
        29: "BR EG PS QA UA",
        30: "JO KW MU YE",
        31: "MT SC",
        32: "LC",
        33: "RU",
    }.items()
    for code in codes.split()
}


def _iban(text: bytes, end: int) -> Span | None:
    """The IBAN whose first 15 characters end at `end`."""
    head = _IBAN_HEAD.search(text, max(0, end - 29), end)
    if head is None:
        return None
    start = head.start()
    length = IBAN_LENGTHS.get(text[start : start + 2].upper())
    if length is None or (start and text[start - 1] in _ALNUM):
        return None
    whole = _IBAN_REST[length].match(text, start)
    if whole is None:
        return None
    characters = whole[0].replace(b" ", b"")
    if int("".join(map(_IBAN_VALUES.__getitem__, characters[4:] + characters[:4]))) % 97 != 1:
        return None
    return whole.span()


# --- email: RFC 5321 mailbox in the characters that are used, and UTF-8 (RFC 6531); only the local part is hidden.

_LOCAL: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-'" + bytes(range(0x80, 0x100))
_LOCAL_MAX: Final = 64
_LABEL_MAX: Final = 63
_DOMAIN_MAX: Final = 255
# `logo@2x.png` is no address: pictures for dense screens are named like this all over the web.
_DOMAIN: Final = re.compile(
    rb"(?![0-9.]+x\.(?:png|jpe?g|gif|webp|svg|avif|ico)(?![0-9A-Za-z.-]))"
    rb"(?:[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff-]{0,62}\.)+[A-Za-z\x80-\xff]{2}"
)


def _email(text: bytes, end: int) -> Span | None:
    """The local part and `@` of the address whose domain's first dot is one byte before `end`."""
    at = text.rfind(b"@", max(0, end - _LABEL_MAX - 3), end)
    if at < 0 or not _DOMAIN.match(text, at + 1, at + 1 + _DOMAIN_MAX):
        return None
    reach = max(0, at - _LOCAL_MAX)
    window = text[reach:at]
    start = reach + len(window.rstrip(_LOCAL))
    if start == reach:  # cut at the limit: not inside a UTF-8 character
        while start < at and 0x80 <= text[start] < 0xC0:
            start += 1
    while start < at and text[start] in b"'.":
        start += 1
    return (start, at + 1) if start < at else None


# --- us_ssn: area 001-899 but 666, group 01-99, serial 0001-9999 (Social Security Administration, since 2011).

_SSN: Final = re.compile(rb"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9A-Za-z])(?!-[0-9])")
_SSN_LENGTH: Final = 11


def _ssn(text: bytes, end: int) -> Span | None:
    start = end - _SSN_LENGTH
    if not _SSN.match(text, start):
        return None
    if start > 1 and text[start - 1] == ord("-") and text[start - 2] in _DIGITS:
        return None  # the tail of a longer number
    return start, end


# --- what stays readable. Applied twice to the same bytes, each hides no less than once.

_STARS: Final = bytes(ord("*") if c in _ALNUM else c for c in range(256))
_KEPT: Final = 4


def _all_but_last_four(value: bytes) -> bytes:
    split, kept = len(value), 0
    while kept < _KEPT:
        split -= 1
        kept += value[split] not in _SEPARATORS
    return value[:split].translate(_STARS) + value[split:]


def _all(value: bytes) -> bytes:
    return value.translate(_STARS)


def _all_but_at(value: bytes) -> bytes:
    return b"*" * (len(value) - 1) + value[-1:]


@dataclass(frozen=True, slots=True)
class Detector:
    """One kind of value.

    `candidates`: Hyperscan patterns, each with what is asked about each end it reports: `confirm(text, end)`, the span
    or None. `reach`: how far before and after that end it looks, in bytes. `hide(value)`: the value as it may be seen,
    of the same length. `examples`: values found as a whole; `counter_examples`: texts in which nothing is.
    """

    name: str
    candidates: tuple[tuple[bytes, Confirm], ...]
    reach: int
    hide: Callable[[bytes], bytes]
    examples: tuple[bytes, ...]
    counter_examples: tuple[bytes, ...]


_BEFORE: Final = rb"(?:^|[^0-9A-Za-z])"

DETECTORS: Final = (
    Detector(
        name="credit_card",
        # Not after `digit.`: most decimals of a JSON document would be candidates.
        candidates=tuple(
            (
                rb"(?:^|^\.|[^0-9A-Za-z.]|[^0-9]\.)[2-9][0-9]{2}(?:[ -]?[0-9]){%d}(?:[^0-9A-Za-z]|\z)" % (length - 3),
                partial(_card, length),
            )
            for length in _CARD_LENGTHS
        ),
        reach=2 * 19 + 36,
        hide=_all_but_last_four,
        # Test numbers that the networks and their processors publish.
        examples=(
            b"4111111111111111",
            b"4111 1111 1111 1111",
            b"4012-8888-8888-1881",
            b"4222222222222",
            b"5555555555554444",
            b"5105 1051 0510 5100",
            b"2223003122003222",
            b"378282246310005",
            b"3714 496353 98431",
            b"6011111111111117",
            b"6011 0009 9013 9424",
            b"30569309025904",
            b"3852 000002 3237",
            b"3530111333300000",
            b"3566-0020-2036-0505",
            b"6200000000000005",
            b"6205500000000000004",
            b"6759649826438453",
            b"2200000000000004",
        ),
        counter_examples=(
            b"4111111111111112",
            b"1234567812345670",
            b"41111111111111111111",
            b"99994111111111111111",
            b"order4111111111111111",
            b"4111111111111111x",
            b"0.4111111111111111",
            b"4111111111111111.25",
            b"4111  1111  1111  1111",
            b"4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1",
            b"41111111-1111-4111-8111-111111111111",
            b"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
            b"1700000000000",
        ),
    ),
    Detector(
        name="iban",
        candidates=((_BEFORE + rb"[A-Za-z]{2}[0-9]{2}(?: ?[0-9A-Za-z]){11}", _iban),),
        reach=MAX_SPAN + 1,
        hide=_all_but_last_four,
        # Examples of the registry.
        examples=(
            b"DE89370400440532013000",
            b"DE89 3704 0044 0532 0130 00",
            b"GB29 NWBK 6016 1331 9268 19",
            b"FR1420041010050500013M02606",
            b"NO9386011117947",
            b"MT84MALT011000012345MTLCAST001S",
            b"LC55HEMM000100010012001200023015",
            b"NL91 ABNA 0417 1643 00",
            b"SA0380000000608010167519",
            b"nl91abna0417164300",
        ),
        counter_examples=(
            b"DE89370400440532013001",
            b"DE8937040044053201300",
            b"DE893704004405320130000",
            b"XDE89370400440532013000",
            b"ZZ89370400440532013000",
            b"de305d54-75b4-431b-adb2-eb6b9e546014",
        ),
    ),
    Detector(
        name="email",
        # One report per `@` that a dotted name follows. The local part is read backwards from there: in front of the
        # pattern it would be unbounded, which is what slows Hyperscan down.
        candidates=(
            (rb"[0-9A-Za-z._%+'\x80-\xff-]@[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff-]*\.[0-9A-Za-z\x80-\xff]", _email),
        ),
        reach=_LOCAL_MAX + _DOMAIN_MAX + 2,
        hide=_all_but_at,
        examples=(
            b"a@example.org",
            b"john.doe+tag@mail.example.co.uk",
            b"o'brien@example.ie",
            b"user%host@example.com",
            b"someone@163.com",
            b"x@xn--mller-kva.example",
            "jürgen@müller.example".encode(),
        ),
        counter_examples=(
            b"@example.org",
            b"user@localhost",
            b"a@b.c",
            b"react@18.2.0",
            b"logo@2x.png",
            b"a @example.org",
            b"user@-example",
        ),
    ),
    Detector(
        name="us_ssn",
        candidates=((_BEFORE + rb"[0-9]{3}-[0-9]{2}-[0-9]{4}", _ssn),),
        reach=16,
        hide=_all,
        # The numbers that became examples by being printed on wallets and leaflets.
        examples=(b"078-05-1120", b"219-09-9999", b"899-99-9999", b"001-01-0001"),
        counter_examples=(
            b"000-12-3456",
            b"666-12-3456",
            b"900-12-3456",
            b"987-65-4320",
            b"123-00-4567",
            b"123-45-0000",
            b"123456789",
            b"123-45-67890",
            b"1123-45-6789",
            b"1-123-45-6789",
            b"123-45-6789-0",
            b"A123-45-6789",
        ),
    ),
)
"""Every detector. Where two find the same bytes, the longer value counts, then the earlier row."""

NAMES: Final = frozenset(detector.name for detector in DETECTORS)
