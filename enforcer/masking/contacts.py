"""Step 4 of 6, inspect: is this candidate really a phone number, a date of birth, or an address of a machine or purse?

Like `confirm`: gets a text and the end of a candidate, hands on the span or None.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from enforcer.masking import checks, phones
from enforcer.masking.confirm import ALNUM, EAN_DIGITS, Span, amid_noise, ean, is_labelled

if TYPE_CHECKING:
    from mypy_extensions import i64

_DIGITS: Final = frozenset(b"0123456789")
_WORD: Final = ALNUM | {ord("_")}
_ENDS: Final = rb"(?![0-9A-Za-z])(?!\.[0-9])(?!-[0-9A-Za-z])"

# --- phone numbers: ITU-T E.164, at most 15 digits; each region's own plan says which are numbers.

PHONE_MAX: Final = 2 + 15 * 3
_INTERNATIONAL: Final = re.compile(rb"(?:\+|00)[1-9](?:[ ().\-/\xa0]{0,3}[0-9]){6,14}(?![0-9A-Za-z])")
_NATIONAL: Final = re.compile(rb"[0-9](?:[ ().\-/+]{0,3}[0-9]){5,13}(?![0-9A-Za-z])")
_GROUP: Final = re.compile(rb"[ ().\-/+\xa0]+[0-9]+\Z")
_TRIES: Final = 3
"""Groups that may belong to what follows the number: `+49 30 901820 12 pieces`."""


def _phone(found: re.Match[bytes] | None, real: phones.Plan) -> Span | None:
    """The longest of the first groups that make a number."""
    if found is None:
        return None
    number, start = found[0], found.start()
    if len(number) == EAN_DIGITS and number.isdigit() and ean(number):
        return None
    for _ in range(_TRIES):
        if real(number):
            return start, start + len(number)
        group = _GROUP.search(number)
        if group is None:
            break
        number = number[: group.start()]
    return None


def phone_international(text: bytes, end: int) -> Span | None:
    """The number in international form whose first seven digits end at `end`."""
    low = max(0, end - 32)
    start = text.rfind(b"+", low, end)
    if start < 0:
        found = _DOUBLE_ZERO.search(text, low, end)
        if found is None:
            return None
        start = found.end() - 2
    return _phone(_INTERNATIONAL.match(text, start), phones.international)


_DOUBLE_ZERO: Final = re.compile(rb"(?<![0-9A-Za-z.])00(?=[1-9])")


_DAY_LIKE: Final = re.compile(
    rb"(?:19|20)[0-9]{2}(?:[-/.](?:0[1-9]|1[0-2])[-/.]|(?:0[1-9]|1[0-2])(?:0[1-9]|[12][0-9]|3[01])(?![0-9]))"
)


def phone_labelled(words: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    """The number in some region's national form whose first digit is the byte before `end`, behind one of `words`."""
    start = end - 1
    if _DAY_LIKE.match(text, start) or not is_labelled(words, text, start):
        return None
    return _phone(_NATIONAL.match(text, start), phones.national)


_NANP: Final = re.compile(rb"(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[-.])[2-9][0-9]{2}[-.][0-9]{4}\Z")
_FRENCH: Final = re.compile(rb"0[1-9](?:[ .][0-9]{2}){4}\Z")
_MORE: Final = re.compile(rb"[0-9A-Za-z]|[ .-]?[0-9]")


def phone_grouped(american: bool, text: bytes, end: int) -> Span | None:
    """The number whose groups alone tell what it is: North America's `(415) 555-0132`, France's `01 23 45 67 89`."""
    if text[end - 1] not in _DIGITS:
        end -= 1
    found = (_NANP if american else _FRENCH).search(text, max(0, end - 14), end)
    if found is None or _MORE.match(text, end):
        return None
    start = found.start()
    if start and (text[start - 1] in ALNUM or (text[start - 1] in b"-." and text[start - 2] in _DIGITS)):
        return None
    return (start, end) if phones.in_region("US" if american else "FR", found[0]) else None


# --- dates of birth: nothing but the label tells them from other dates.

_MONTH: Final = (
    rb"(?:jan|feb|mar|m\xc3\xa4r|apr|avr|may|mai|mei|mag|jun|juin|jul|juil|aug|ago|ao\xc3\xbb|sep|oct|okt|ott|nov|dec|"
    rb"dez|dic|d\xc3\xa9c|giu|lug|gen|ene|abr|set|out|maj)[a-z\x80-\xff]{0,8}"
)
_DAY: Final = rb"(?:0?[1-9]|[12][0-9]|3[01])"
_NUMBER_OF_MONTH: Final = rb"(?:0?[1-9]|1[0-2])"
_YEAR: Final = rb"(?:1[89]|20)[0-9]{2}"
_DATE: Final = re.compile(
    rb"(?i)(?:%(year)s[-/.]%(month)s[-/.]%(day)s|%(year)s%(mm)s%(dd)s|%(day)s\. ?%(month)s\. ?%(year)s|"
    rb"%(day)s[-/]%(month)s[-/](?:%(year)s|[0-9]{2})|%(month)s[-/]%(day)s[-/](?:%(year)s|[0-9]{2})|"
    rb"%(day)s(?:st|nd|rd|th|\.|er)?[ -](?:de |of )?%(name)s[ ,.-]{1,2}(?:de )?%(year)s|"
    rb"%(day)s(?:st|nd|rd|th)?,? %(year)s)(?![0-9A-Za-z])"
    % {
        b"year": _YEAR,
        b"month": _NUMBER_OF_MONTH,
        b"day": _DAY,
        b"name": _MONTH,
        b"mm": rb"(?:0[1-9]|1[0-2])",
        b"dd": rb"(?:0[1-9]|[12][0-9]|3[01])",
    }
)
_MONTH_BEFORE: Final = re.compile(rb"(?i)(?<![a-z])" + _MONTH + rb"\.? \Z")
_MONTH_LONGEST: Final = 16


def birth(words: re.Pattern[bytes], text: bytes, end: int) -> Span | None:
    """The date whose first digit is the byte before `end`, behind one of `words`; and the name of a month between."""
    start = end - 1
    found = _DATE.match(text, start)
    if found is None or not is_labelled(words, text, start):
        return None
    month = _MONTH_BEFORE.search(text, max(0, start - _MONTH_LONGEST), start)
    return start if month is None else month.start(), found.end()


# --- addresses of machines

_VERSION: Final = re.compile(
    rb"(?i)(?:(?:version|release|build|firmware|ver|agent|revision)[\"'=: ._>/-]{0,6}|\bv[ .]?)\Z"
)
_VERSION_GAP: Final = b"\"'=: ._>/-"
_VERSION_GAP_MAX: Final = 6
_VERSION_ENDS: Final = b"vVnNeEdDrRtT"


def ipv4(text: bytes, end: int) -> Span | None:
    """The address that ends at `end`, or at most two bytes before; not the four numbers of a version."""
    last: i64 = end
    while text[last - 1] < 0x30 or text[last - 1] > 0x39:
        last -= 1
    start: i64 = last
    while start and (text[start - 1] in _DIGITS or text[start - 1] == 0x2E):
        start -= 1
    place: i64 = start
    while place and start - place < _VERSION_GAP_MAX and text[place - 1] in _VERSION_GAP:
        place -= 1
    if place and text[place - 1] in _VERSION_ENDS and _VERSION.search(text, max(0, start - 20), start):
        return None
    return None if amid_noise(text, start, last) else (start, last)


IPV6_MAX: Final = 45
_IPV6: Final = re.compile(rb"[0-9A-Fa-f:]{2,30}:[0-9]{1,3}(?:\.[0-9]{1,3}){3}|[0-9A-Fa-f:]{2,39}")
_IPV6_LETTERS: Final = frozenset(b"0123456789ABCDEFabcdef:")


def ipv6(text: bytes, end: int) -> Span | None:
    """The address that has two colons and a digit before `end` (RFC 4291, section 2.2)."""
    start = end
    while start and end - start < IPV6_MAX and text[start - 1] in _IPV6_LETTERS:
        start -= 1
    if start and (text[start - 1] in _WORD or text[start - 1] in b".-"):
        return None
    found = _IPV6.match(text, start)
    if found is None:
        return None
    last = found.end()
    while last > start and text[last - 1] in b":" and text[last - 2 : last] != b"::":
        last -= 1
    if text[last : last + 1].isalnum() or not checks.ipv6(text[start:last]):
        return None
    if amid_noise(text, start, last):
        return None
    return start, last


_MAC: Final = re.compile(
    rb"[0-9A-Fa-f]{2}(?:(?::[0-9A-Fa-f]{2}){5}|(?:-[0-9A-Fa-f]{2}){5})(?![0-9A-Za-z])(?![:-][0-9A-Fa-f])"
)
_CISCO: Final = re.compile(rb"[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}\.[0-9A-Fa-f]{4}(?![0-9A-Za-z])(?!\.[0-9A-Fa-f])")


def mac(dotted: bool, text: bytes, end: int) -> Span | None:
    """The EUI-48 that ends at `end`, in the notation of IEEE 802 or of Cisco; not a part of a fingerprint."""
    start = end - (14 if dotted else 17)
    if start < 0 or (start and text[start - 1] in ALNUM):
        return None
    found = (_CISCO if dotted else _MAC).match(text, start)
    if found is None:
        return None
    if start > 1 and text[start - 1] in b":-." and text[start - 2] in ALNUM:
        return None
    return found.span()


# --- purses

BASE58: Final = rb"[1-9A-HJ-NP-Za-km-z]"
_BASE58_ADDRESS: Final = re.compile(rb"(?<![0-9A-Za-z])[13]" + BASE58 + rb"{25,34}(?![0-9A-Za-z])")
_BECH32_ADDRESS: Final = re.compile(rb"(?i)(?<![0-9a-z])(?:bc|tb|ltc)1[02-9ac-hj-np-z]{38,71}(?![0-9a-z])")


def bitcoin(text: bytes, end: int) -> Span | None:
    """The address whose first 26 characters end at `end`: base58 with a double SHA-256 over it."""
    found = _BASE58_ADDRESS.match(text, end - 26)
    return found.span() if found and checks.base58check(found[0]) else None


def bech32(human: int, text: bytes, end: int) -> Span | None:
    """The address with `human` letters before its `1`, whose first 38 characters behind that end at `end` (BIP 173,
    BIP 350)."""
    found = _BECH32_ADDRESS.match(text, end - 39 - human)
    return found.span() if found and checks.bech32(found[0]) else None


_ETHEREUM: Final = re.compile(rb"0x(?!0{40})[0-9A-Fa-f]{40}(?![0-9A-Za-z])")


def ethereum(text: bytes, end: int) -> Span | None:
    """The address that ends at `end`, or just before it; not the zero one, which nobody owns."""
    found = _ETHEREUM.match(text, end - 42) or _ETHEREUM.match(text, end - 43)
    return None if found is None else found.span()
