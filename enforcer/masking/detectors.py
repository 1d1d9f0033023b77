"""Step 4 of 6, inspect: what the values look like that masking hides.

A detector is one row of `DETECTORS`: patterns that must not miss, a confirmation that must not guess, what stays
readable, and published examples that a test runs. Case, separators and surroundings are those in which people and
programs print such values; a value inside a longer run of letters and digits (order numbers, hashes, UUIDs) is not one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Final

from enforcer.masking import confirm
from enforcer.masking.confirm import Span

Confirm = Callable[[bytes, int], Span | None]

# --- what stays readable. Applied twice to the same bytes, each hides no less than once.

_STARS: Final = bytes(ord("*") if c in confirm.ALNUM else c for c in range(256))
_KEPT: Final = 4


def _all_but_last_four(value: bytes) -> bytes:
    split, kept = len(value), 0
    while kept < _KEPT:
        split -= 1
        kept += value[split] not in confirm.SEPARATORS
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
                partial(confirm.card, length),
            )
            for length in confirm.CARD_LENGTHS
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
        candidates=((_BEFORE + rb"[A-Za-z]{2}[0-9]{2}(?: ?[0-9A-Za-z]){11}", confirm.iban),),
        reach=confirm.MAX_SPAN + 1,
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
            (
                rb"[0-9A-Za-z._%+'\x80-\xff-]@[0-9A-Za-z\x80-\xff][0-9A-Za-z\x80-\xff-]*\.[0-9A-Za-z\x80-\xff]",
                confirm.email,
            ),
        ),
        reach=confirm.LOCAL_MAX + confirm.DOMAIN_MAX + 2,
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
        candidates=((_BEFORE + rb"[0-9]{3}-[0-9]{2}-[0-9]{4}", confirm.ssn),),
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
