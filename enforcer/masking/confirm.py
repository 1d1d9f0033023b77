"""Step 4 of 6, inspect: is this candidate really a value?

Gets a text and the end of a candidate that Hyperscan reported; hands on the span of the value, or None. Here are the
lengths, checksums and surroundings that tell a card number from an order number. Each looks at a bounded neighbourhood.
"""

from __future__ import annotations

import re
import unicodedata
from typing import TYPE_CHECKING, Final

from enforcer.masking.issuers import LENGTHS, LONGEST, PREFIX_DIGITS, SHORTEST
from enforcer.masking.validators import valid

if TYPE_CHECKING:
    from mypy_extensions import i64

Span = tuple[int, int]

MAX_SPAN: Final = 128
"""Bytes of the longest value, or of what of it is looked at: a token may go on beyond (`Detector.tail`)."""

ALNUM: Final = frozenset(b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_KINDS: Final = bytes((byte in ALNUM) + (byte in b"0123456789") for byte in range(256))
"""2 for a digit, 1 for a letter, 0 for all others."""
_DIGITS: Final = frozenset(b"0123456789")
_DOT: Final = ord(".")
SEPARATORS: Final = b" -+"
"""Between groups of digits and letters. Forms write a space as `+`."""

# --- credit_card: ISO/IEC 7812-1, 13 to 19 digits, a single space or dash between groups, last digit by Luhn.

CARD_HEAD: Final = 11
"""Digits of a card that are looked for. Two more cost the engine a fifth of its speed, and tell hardly more."""
# Cards are printed in groups of 3 digits or more (4-4-4-4, 4-6-5, 4-3-3-3), with a short rest at the end. Rows of
# shorter numbers are tables, and one number in ten passes Luhn.
_CARD_GROUPS: Final = re.compile(rb"[0-9]{3,}(?:[ +-][0-9]{3,})*(?:[ +-][0-9]{1,2})?")
# Lengths that are issued: of Visa; of American Express, Diners Club and JCB; of the others. Networks allow more, which
# hardly any card has: bare digits of them are numbers of orders.
_USUAL: Final = {ord("4"): (16,), ord("3"): (14, 15, 16)}
_USUAL_OTHERS: Final = (16, 19)
_CARD_WORDS: Final = re.compile(
    rb"(?i)(?:card|karte|carte|carta|tarjeta|cart\xc3\xa3o|cartao|kaart|kort|karta|k\xc3\xa1rtya|kortti|visa|maestro|"
    rb"unionpay|(?<![a-z])(?:pan|cc))[^0-9,;{}]{0,40}\Z"
)
_UUID: Final = re.compile(rb"(?i)(?<![0-9a-z])[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}(?![0-9a-z])")
_UUID_REST: Final = 36 - 13
_PHONE_DIGITS: Final = 15
EAN_DIGITS: Final = 13
_PLUS: Final = ord("+")
_ZERO: Final = 0x30
# Luhn doubles every second digit and adds the digits of the product.
_DOUBLED: Final = bytes(48 + (2 * (c - 48)) // 10 + (2 * (c - 48)) % 10 if 48 <= c < 58 else c for c in range(256))


def luhn(number: bytes) -> bool:
    """Does the last of these ASCII digits fit the others (ISO/IEC 7812-1, annex B)?"""
    return (sum(number[-1::-2]) + sum(number[-2::-2].translate(_DOUBLED)) - 48 * len(number)) % 10 == 0


def ean(number: bytes) -> bool:
    """Does the last of these 13 ASCII digits fit the others as in an EAN (GS1 General Specifications, 7.9)?"""
    return (sum(number[0::2]) + 3 * sum(number[1::2]) - 48 * 25) % 10 == 0


def any_card(text: bytes, end: int) -> Span | None:
    """The card number, of any length, whose first `CARD_HEAD` digits end at `end`."""
    start = _back(text, end, CARD_HEAD)
    size: i64 = len(text)
    place: i64 = start
    prefix: i64 = 0
    lengths: i64 = -1
    count: i64 = 0
    # Luhn's sum for an even number of digits, and for an odd one: which digits count double depends on the last.
    even: i64 = 0
    odd: i64 = 0
    digit: i64 = text[place] - _ZERO
    passing: list[Span] = []
    while True:
        count += 1
        twice: i64 = 2 * digit if digit < 5 else 2 * digit - 9
        if count & 1:
            even += twice
            odd += digit
        else:
            even += digit
            odd += twice
        if count <= PREFIX_DIGITS:
            prefix = 10 * prefix + digit
            if count == PREFIX_DIGITS:
                lengths = LENGTHS[prefix]
                if not lengths:
                    return None
        place += 1
        following: i64 = text[place] if place < size else 0
        if count >= SHORTEST and lengths >> (count - SHORTEST) & 1:
            luhn_sum: i64 = odd if count & 1 else even
            if luhn_sum % 10 == 0 and not _KINDS[following]:
                passing.append((count, place))
        if count == LONGEST:
            break
        if following in (0x20, 0x2B, 0x2D) and place + 1 < size:
            place += 1
            following = text[place]
        digit = following - _ZERO
        if digit < 0 or digit > 9:
            break
    for length, last in reversed(passing):
        if _stands_alone(text, start, last, length):
            return start, last
    return None


def _stands_alone(text: bytes, start: int, end: int, length: int) -> bool:
    """May these digits, whose prefix, length and sum are a card's, be one where they stand?"""
    if length == EAN_DIGITS and ean(text[start:end].translate(None, SEPARATORS)):
        return False  # nobody has issued cards so short for decades, and shops are full of EANs
    if start and length <= _PHONE_DIGITS and text[start - 1] == _PLUS:
        return False  # +4915112345678
    unusual = length not in _USUAL.get(text[start], _USUAL_OTHERS)
    if unusual and end - start == length and not is_labelled(_CARD_WORDS, text, start):
        return False
    if not _CARD_GROUPS.fullmatch(text, start, end):
        return False
    return not _in_decimal(text, start, end) and not _in_uuid(text, start, end)


def _back(text: bytes, end: int, characters: int) -> int:
    """Where so many digits and letters before `end` begin, between which there may be separators."""
    start: i64 = end
    missing: i64 = characters
    while missing:
        start -= 1
        byte: i64 = text[start]
        if byte not in (0x20, 0x2B, 0x2D):
            missing -= 1
    return start


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

_IBAN_HEAD: Final = 15
_IBAN_VALUES: Final = bytes(int(chr(c), 36) if c in ALNUM else 255 for c in range(256))

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


_IBAN_TABLE: Final = bytes(IBAN_LENGTHS.get(bytes((65 + place // 26, 65 + place % 26)), 0) for place in range(26 * 26))
"""Country, as a number of two letters to base 26 -> length, or 0."""


def iban(text: bytes, end: int) -> Span | None:
    """The IBAN whose first 15 characters end at `end`."""
    start: i64 = _back(text, end, _IBAN_HEAD)
    if start and _KINDS[text[start - 1]]:
        return None
    country: i64 = ((text[start] | 0x20) - 0x61) * 26 + (text[start + 1] | 0x20) - 0x61
    length: i64 = _IBAN_TABLE[country]
    if not length:
        return None
    size: i64 = len(text)
    place: i64 = start + 4
    rest: i64 = 0  # of the characters from the fifth on, then the first four, each as its number, by 97
    taken: i64 = 4
    while taken < length:
        byte: i64 = text[place] if place < size else 0
        if byte in (0x20, 0x2B):
            place += 1
            byte = text[place] if place < size else 0
        value: i64 = _IBAN_VALUES[byte]
        if value == 255:
            return None
        rest = (rest * (10 if value < 10 else 100) + value) % 97
        place += 1
        taken += 1
    if place < size and _KINDS[text[place]]:
        return None
    for head in range(start, start + 4):
        value = _IBAN_VALUES[text[head]]
        rest = (rest * (10 if value < 10 else 100) + value) % 97
    return (start, place) if rest == 1 else None


# --- email: RFC 5321 mailbox in the characters that are used, and UTF-8 (RFC 6531); only the local part is hidden.

_LOCAL: Final = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz._%+-'" + bytes(range(0x80, 0x100))
LOCAL_MAX: Final = 64
_LABEL_MAX: Final = 63
DOMAIN_MAX: Final = 128
"""Bytes of a domain that are looked at: its first label and the beginning of the next are nearly always enough."""
NOISE: Final = 64
"""Bytes on either side of a value that tell whether it is in a text."""
# Not a part of a character in UTF-8; and of ASCII those that no text has, but that end strings and lines.
_CONTROLS_ABOVE: Final = re.compile(f"[{chr(0xDC80)}-{chr(0xDC9F)}]")
_WRITTEN: Final = re.compile("[\\0\\t\\n\\r -~]")
_CONTROLS: Final = re.compile("[\x01-\x08\x0b\x0c\x0e-\x1f\x7f]")
# The local part's end in Latin-1 or Windows-1252: characters of an address, and letters beyond ASCII.
_LATIN: Final = re.compile(rb"[0-9A-Za-z._%+'\xc0-\xd6\xd8-\xf6\xf8-\xff-]*\Z")
# `logo@2x.png` is no address: pictures for dense screens are named like this all over the web.
_DOMAIN: Final = re.compile(
    rb"(?![0-9.]+x\.(?:png|jpe?g|gif|webp|svg|avif|ico)(?![0-9A-Za-z.-]))"
    rb"(?:[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff-]{0,62}\.)+[A-Za-z\x80-\xff]{2}"
)


def email(text: bytes, end: int) -> Span | None:
    """The local part and `@` of the address whose domain's first dot is two bytes before `end`."""
    at = text.rfind(b"@", max(0, end - _LABEL_MAX - 4), end)
    domain = _DOMAIN.match(text, at + 1, at + 1 + DOMAIN_MAX) if at >= 0 else None
    if domain is None:
        return None
    reach = max(0, at - LOCAL_MAX)
    window = text[reach:at]
    start = reach + len(window.rstrip(_LOCAL))
    if start == reach:  # cut at the limit: not inside a UTF-8 character
        while start < at and 0x80 <= text[start] < 0xC0:
            start += 1
    if not text[start : domain.end()].isascii():
        if not _written(domain[0], cut=True):
            return None
        if not _written(text[start:at]):
            start = at - len(_LATIN.search(text, start, at)[0])  # type: ignore[index]  # it may be empty
    if amid_noise(text, start, domain.end()):
        return None
    while start < at and text[start] in b"'.":
        start += 1
    return (start, at + 1) if start < at else None


def amid_noise(text: bytes, start: int, end: int) -> bool:
    """Does a value stand in what is compressed or encrypted, where every few MB something looks like one by chance? To
    change that would break it.

    Of such bytes an eighth are control characters of ASCII and an eighth those of Latin-1, which is thrice and twice
    what is asked for. No text has both, in whatever character set; and what else is binary and has, has strings, so
    that more than half of it are characters that are written."""
    before, after = text[max(0, start - NOISE) : start], text[end : end + NOISE]
    if before.isascii() and after.isascii():
        return False
    around = (before + after).decode(errors="surrogateescape")
    if len(_CONTROLS_ABOVE.findall(around)) * 20 < len(around):
        return False
    return len(_CONTROLS.findall(around)) * 30 > len(around) > len(_WRITTEN.findall(around)) * 2


def _written(name: bytes, *, cut: bool = False) -> bool:
    """Are the characters beyond ASCII letters or digits in UTF-8? In compressed data any two bytes around an `@` would
    be an address else, some 18 in each MB. `cut`: the last one may be."""
    try:
        text = name.decode()
    except UnicodeDecodeError as error:
        if not cut or error.reason != "unexpected end of data":
            return False
        text = name[: error.start].decode()
    return all(character.isascii() or unicodedata.category(character)[0] in "LMN" for character in text)


# --- us_ssn: area 001-899 but 666, group 01-99, serial 0001-9999 (Social Security Administration, since 2011).

_SSN: Final = re.compile(rb"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}(?![0-9A-Za-z])(?!-[0-9])")
_SSN_LENGTH: Final = 11


def ssn(text: bytes, end: int) -> Span | None:
    start = end - _SSN_LENGTH
    if not _SSN.match(text, start) or (start and text[start - 1] in ALNUM):
        return None
    if start > 1 and text[start - 1] == ord("-") and text[start - 2] in _DIGITS:
        return None  # the tail of a longer number
    return start, end


# --- what the table's rows are confirmed with: the number after a label, the value of a shape of its own.

LABELLED_MAX: Final = 64
"""Bytes of the longest value with a label, or of a shape of its own."""
SHAPED_BEFORE: Final = 28
"""Bytes from the beginning of such a shape to what gives it away, and that."""
_LETTERS_BEFORE: Final = 7
LABEL: Final = 96
"""Bytes in which a label and the gap behind it fit."""


def labelled(words: re.Pattern[bytes], value: re.Pattern[bytes], validator: str, text: bytes, end: int) -> Span | None:
    """The value that begins with the last byte before `end`, where one of `words` and a gap stand in front of it."""
    start = end - 1
    found = value.match(text, start)
    if found is None or not valid(validator, found[0]) or not is_labelled(words, text, start):
        return None
    return found.span()


def is_labelled(words: re.Pattern[bytes], text: bytes, start: int) -> bool:
    """Does one of `words` stand before `start`, as the last word but for a gap?"""
    return words.search(text, max(0, start - LABEL), start) is not None


def lettered(words: re.Pattern[bytes], value: re.Pattern[bytes], validator: str, text: bytes, end: int) -> Span | None:
    """The value whose first digit is the byte before `end`, with the letters that it begins with, behind a label."""
    start: i64 = end - 1
    while start >= 0 and end - start < _LETTERS_BEFORE:
        if not start or not _KINDS[text[start - 1]]:
            found = value.match(text, start)
            if found is not None:
                return found.span() if valid(validator, found[0]) and is_labelled(words, text, start) else None
        start -= 1
    return None


def shaped(value: re.Pattern[bytes], validator: str, text: bytes, end: int) -> Span | None:
    """The value that `end` is in, or at the end of: what gave it away ends there, or one byte later."""
    last: i64 = end if _KINDS[text[end - 1]] else end - 1
    start: i64 = end - SHAPED_BEFORE if end > SHAPED_BEFORE else 0
    within = start > 0 and _KINDS[text[start - 1]] > 0
    while start < last:
        if not _KINDS[text[start]]:
            within = False
        elif not within:
            within = True
            found = value.match(text, start, end + LABELLED_MAX)
            if found is not None and found.end() >= last and valid(validator, found[0]):
                return found.span()
        start += 1
    return None
