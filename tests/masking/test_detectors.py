"""What the detectors find, and what they leave alone."""

from __future__ import annotations

from collections import Counter

import pytest

from enforcer.masking.confirm import IBAN_LENGTHS, luhn
from enforcer.masking.detectors import DETECTORS, NAMES
from enforcer.masking.scanner import Scanner

ALL = Scanner(DETECTORS)
EXAMPLES = [(d.name, example) for d in DETECTORS for example in d.examples]
COUNTER_EXAMPLES = [(d.name, example) for d in DETECTORS for example in d.counter_examples]
SURROUNDINGS = [(b"", b""), (b"x ", b", y"), (b'{"v":"', b'"}'), (b"v=", b"&w=1"), (b"<b>", b"</b>"), (b"\n", b"\n")]


def hide(text: bytes) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    return ALL.hide(text, counts), counts


def test_names() -> None:
    """The four detectors of the policy language exist under their names."""
    assert {"credit_card", "iban", "email", "us_ssn"} == NAMES


@pytest.mark.parametrize(("name", "example"), EXAMPLES)
@pytest.mark.parametrize(("before", "after"), SURROUNDINGS)
def test_examples_are_found(name: str, example: bytes, before: bytes, after: bytes) -> None:
    """A published example is found once, as its own kind, in any usual surroundings, which stay as they are."""
    hidden, counts = hide(before + example + after)
    assert counts == {name: 1}
    assert len(hidden) == len(before + example + after)
    assert hidden.startswith(before)
    assert hidden.endswith(after)


@pytest.mark.parametrize(("name", "example"), COUNTER_EXAMPLES)
@pytest.mark.parametrize(("before", "after"), [(b"", b""), (b"x ", b", y"), (b'{"v":"', b'"}')])
def test_counter_examples_are_left_alone(name: str, example: bytes, before: bytes, after: bytes) -> None:
    """What only resembles a value passes unchanged, as the very same object."""
    text = before + example + after
    hidden, counts = hide(text)
    assert hidden is text
    assert not counts


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"4111111111111111", b"************1111"),
        (b"4111 1111-1111 1111", b"**** ****-**** 1111"),
        (b"3714 496353 98431", b"**** ****** *8431"),
        (b"4111 1111 1111 1111 12/27", b"**** **** **** 1111 12/27"),
        (b"42 4111111111111111", b"42 ************1111"),
        (b"4111111111111111 5555555555554444", b"************1111 ************4444"),
        (b"DE89 3704 0044 0532 0130 00 is it", b"**** **** **** **** **30 00 is it"),
        (b"GB29NWBK60161331926819", b"******************6819"),
        (b"to <john.doe@example.org>", b"to <********@example.org>"),
        (b"mail=john@example.org&x", b"mail=****@example.org&x"),
        (b"'john@example.org'", b"'****@example.org'"),
        (b"o'brien@example.ie", b"*******@example.ie"),
        ("jürgen@example.org".encode(), b"*******@example.org"),
        (b"j\xfcrgen@example.org", b"******@example.org"),
        (b"4111111111111111@example.org", b"****************@example.org"),
        (b"a@4111111111111111.org", b"*@************1111.org"),
        (b"id 078-05-1120.", b"id ***-**-****."),
    ],
)
def test_what_stays_readable(text: bytes, expected: bytes) -> None:
    """Cards and IBANs keep four characters, addresses their domain, SSNs nothing; separators stay."""
    assert hide(text)[0] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'{"note":"line\n4111111111111111"}', rb'{"note":"line\n************1111"}'),
        (rb'{"note":"line\njohn@example.org"}', rb'{"note":"line\n****@example.org"}'),
        (rb"a\t078-05-1120", rb"a\t***-**-****"),
        (rb"\xa04111111111111111", rb"\xa0************1111"),
        (rb"C:\4111111111111111", rb"C:\************1111"),
    ],
)
def test_escapes_are_not_letters(text: bytes, expected: bytes) -> None:
    """A value right after an escape sequence is found, and the escape is not torn apart."""
    assert hide(text)[0] == expected


def test_overlapping_values_are_both_hidden() -> None:
    """A card and an address that share digits leave neither the card's digits nor the address's name readable."""
    hidden, counts = hide(b"4111 1111 1111 1111.john@example.org")
    assert hidden == b"**** **** **** *********@example.org"
    assert counts == {"credit_card": 1, "email": 1}


def test_contained_value_does_not_count() -> None:
    """Of two values of which one holds the other only the longer counts."""
    assert hide(b"4111111111111111@example.org")[1] == {"email": 1}


@pytest.mark.parametrize("length", [64, 65, 300])
def test_local_part_is_bounded(length: int) -> None:
    """RFC 5321 ends a local part at 64 octets: so many are hidden of a longer one, and never half a character."""
    hidden, _ = hide(b"a" * length + b"@example.org")
    assert hidden == b"a" * (length - 64) + b"*" * 64 + b"@example.org"
    hidden.decode()
    hide("€".encode() * length + b"@example.org")[0].decode()


def test_hard_negatives() -> None:
    """Hashes, UUIDs, times, prices and version numbers are not values."""
    text = (
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 123e4567-e89b-12d3-a456-426614174000 "
        b"2026-11-02T12:33:00.411111Z 1764000000000 1764000000000000000 4532.0151128303664 192.168.100.100 "
        b"2024-01-15 2024-02-15 pip==24.0 user@host git@18.2 10.1016/j.cell.2020.02.058 0.5105105105105100"
    )
    assert hide(text) == (text, {})


def test_luhn() -> None:
    """Luhn's own example: 7992739871 takes the check digit 3 and no other."""
    assert [digit for digit in range(10) if luhn(b"7992739871%d" % digit)] == [3]


def test_iban_table() -> None:
    """The registry's lengths lie between Norway's 15 and Russia's 33, and no country is missing its code."""
    assert set(map(len, IBAN_LENGTHS)) == {2}
    assert min(IBAN_LENGTHS.values()) == IBAN_LENGTHS[b"NO"] == 15
    assert max(IBAN_LENGTHS.values()) == IBAN_LENGTHS[b"RU"] == 33
    assert (IBAN_LENGTHS[b"DE"], IBAN_LENGTHS[b"FR"], IBAN_LENGTHS[b"MT"], IBAN_LENGTHS[b"GB"]) == (22, 27, 31, 22)
