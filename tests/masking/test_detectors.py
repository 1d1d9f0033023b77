"""What the detectors find, and what they leave alone."""

from __future__ import annotations

import random
import re
from collections import Counter

import pytest

from enforcer.masking.confirm import IBAN_LENGTHS, luhn
from enforcer.masking.detectors import DETECTORS, GROUPS, NAMES, Detector, expand, unknown
from enforcer.masking.scanner import Scanner
from enforcer.masking.sums import SIEVES
from enforcer.masking.validators import load
from enforcer.verdict import MaskSpec
from tests.masking.table import parsed

ALL = Scanner(DETECTORS)
BY_NAME = {detector.name: detector for detector in DETECTORS}
SURROUNDINGS = [(b"", b""), (b"x ", b", y"), (b'{"v":"', b'"}'), (b"v=", b"&w=1"), (b"<b>", b"</b>"), (b"\n", b"\n")]


def hide(text: bytes) -> tuple[bytes, Counter[str]]:
    counts: Counter[str] = Counter()
    return ALL.hide(text, counts), counts


def found(text: bytes) -> list[tuple[str, int, int]]:
    return [(hit.detector.name, hit.start, hit.end) for hit in ALL.hits(text)]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_examples_are_found(detector: Detector) -> None:
    """A published example is found once, from its first to its last byte, as its own kind, in any usual surroundings,
    which stay as they are."""
    assert detector.examples
    for example in detector.examples:
        text, start, end = parsed(example)
        for before, after in SURROUNDINGS:
            whole = before + text + after
            assert found(whole) == [(detector.name, len(before) + start, len(before) + end)], whole
            hidden, counts = hide(whole)
            assert counts == {detector.name: 1}
            assert (len(hidden), hidden[: len(before) + start]) == (len(whole), whole[: len(before) + start])
            assert hidden[len(before) + end :] == whole[len(before) + end :]


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_counter_examples_are_left_alone(detector: Detector) -> None:
    """What only resembles a value passes unchanged, as the very same object."""
    assert detector.counter_examples
    for counter_example in detector.counter_examples:
        for before, after in SURROUNDINGS[:3]:
            text = before + counter_example + after
            hidden, counts = hide(text)
            assert hidden is text
            assert not counts


def test_every_row_is_complete() -> None:
    """A row has a name of its own, a source, a set it belongs to, and hides what it finds."""
    assert len(BY_NAME) == len(DETECTORS)
    for detector in DETECTORS:
        assert detector.source, detector.name
        assert detector.groups, detector.name
        for example in detector.examples:
            text, start, end = parsed(example)
            assert hide(text)[0][start:end] != text[start:end], example


def test_every_state_of_the_union_has_its_number() -> None:
    """Each of the 27 member states' numbers of persons is in the set of its name."""
    states = re.findall("..", "atbebghrcyczdkeefifrdegrhuieitlvltlumtnlplptrosksiesse")
    names = " ".join(GROUPS["eu_person_id"] | GROUPS["eu_tax_id"]).replace("cz_sk", "cz_ sk").split()
    assert [state for state in states if not any(name.startswith(state) for name in names)] == []


def test_names_and_groups() -> None:
    """Policies may name detectors and sets of them; a set means its members, and no set means everything."""
    assert {"credit_card", "iban", "email", "us_ssn", "person_id", "secrets"} <= NAMES
    assert not GROUPS.keys() & BY_NAME.keys()
    assert expand(("crypto", "email")) == {"bitcoin_address", "ethereum_address", "email"}
    assert all(members < BY_NAME.keys() for members in GROUPS.values())
    assert MaskSpec(detectors=("person_id",))


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("creditcard", "unknown detector 'creditcard'; use credit_card"),
        ("shoe_size", "unknown detector 'shoe_size'; docs/masking.md lists them"),
    ],
)
def test_unknown_words_are_answered(word: str, said: str) -> None:
    """A word that is none of them is told what comes near."""
    assert unknown(word).startswith(said)


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
        (b"tel. +49 30 227-0001!", b"tel. +** ** ***-****!"),
        (b"born 12 March 1980", b"born ** ***** ****"),
        (b"http://u:p4ss-w0rd@host/", b"http://u:*********@host/"),
        (b"from 192.0.2.1:80", b"from ***.*.*.*:80"),
    ],
)
def test_what_stays_readable(text: bytes, expected: bytes) -> None:
    """Cards and IBANs keep four characters, addresses their domain, others nothing; separators stay, a secret's not."""
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


@pytest.mark.parametrize(
    ("text", "hits", "hidden"),
    [
        # They overlap: what begins first goes first, the rest is the other's; and neither shows what the other hides.
        (
            b"4111 1111 1111 1111.john@example.org",
            [("credit_card", 0, 19), ("email", 19, 25)],
            b"**** **** **** *********@example.org",
        ),
        # One holds the other: it is the longer one's.
        (b"4111111111111111@example.org", [("email", 0, 17)], b"****************@example.org"),
        # The same bytes: the earlier row's.
        (b"NHS number: 943-476-5870", [("uk_nhs", 12, 24)], b"NHS number: ***-***-****"),
    ],
)
def test_overlapping_values(text: bytes, hits: list[tuple[str, int, int]], hidden: bytes) -> None:
    """Of values that overlap the first comes first, of those the longest, of those the earlier row of the table."""
    assert found(text) == hits
    assert hide(text) == (hidden, Counter(name for name, _, _ in hits))


@pytest.mark.parametrize("length", [64, 65, 300])
def test_local_part_is_bounded(length: int) -> None:
    """RFC 5321 ends a local part at 64 octets: so many are hidden of a longer one, and never half a character."""
    hidden, _ = hide(b"a" * length + b"@example.org")
    assert hidden == b"a" * (length - 64) + b"*" * 64 + b"@example.org"
    hidden.decode()
    hide("€".encode() * length + b"@example.org")[0].decode()


def test_hard_negatives() -> None:
    """Hashes, UUIDs, times, prices, version numbers and the numbers of orders are not values."""
    text = (
        b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855 123e4567-e89b-12d3-a456-426614174000 "
        b"2026-11-02T12:33:00.411111Z 1764000000000 1764000000000000000 4532.0151128303664 v1.2.3.4 10.0.19041.1 "
        b"2024-01-15 2024-02-15 pip==24.0 user@host git@18.2 10.1016/j.cell.2020.02.058 0.5105105105105100 "
        b"order 12345678901 invoice 2024/001234 ticket 4711-0815 SKU AB-123456 batch 111222333 std::vector 12:34:56 "
        b"b6589fc6ab0dc82cf12099d1c2d40ab994e8410c 00:1B:44 part 415-555 page 1-2 ISBN 978-3-16-148410-0 "
        b"Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0 Safari/537.36 password: required tokens: 4096"
    )
    assert hide(text) == (text, {})


@pytest.mark.parametrize(
    "text",
    [
        b"customer_bsn = 111222333",
        b"customerBSN: 111222333",
        b'{"bsn":111222333}',
        b'{"bsn" : "111222333"}',
        b"BSN,111222333",
        b"<td>BSN</td>\n  <td>111222333</td>",
        b"BSN-nummer 111222333",
        b"het BSN van de klant is 111222333",
        b"?bsn=111222333&x=1",
    ],
)
def test_labels(text: bytes) -> None:
    """A number that is known by its label is found behind it, in prose, fields, markup and names of all cases."""
    assert hide(text)[1] == {"nl_bsn": 1}


@pytest.mark.parametrize(
    "text",
    [
        b"absn: 111222333",
        b"bsnx: 111222333",
        b'{"bsn":null,"order":111222333}',
        b"BSN " + b"." * 60 + b" 111222333",
        b"BSN: 12 111222333",
        b"111222333 is no BSN",
    ],
)
def test_what_is_no_label(text: bytes) -> None:
    """A part of another word, a label of another value, one too far away or behind its number, is none."""
    assert hide(text) == (text, {})


def test_a_resident_of_a_county_that_no_list_has_is_found() -> None:
    """A Chinese number with the right division, date and check digit is one, and its county no error."""
    assert hide(b"x 360146198001021130 y") == (b"x ****************** y", {"cn_resident_id": 1})


def _altered(example: bytes, chance: random.Random) -> bytes:
    """A value with some of its digits exchanged."""
    digits = b"0123456789"
    return bytes(chance.choice(digits) if byte in digits and chance.random() < 0.4 else byte for byte in example)


@pytest.mark.parametrize("detector", [one for one in DETECTORS if one.validator in SIEVES], ids=lambda one: one.name)
def test_sums_are_part_of_their_checks(detector: Detector) -> None:
    """Every number that a check fits gets through the sieve before it, in all forms, and most that it does not, do
    not."""
    chance = random.Random(1)
    check, sieve = load(detector.validator), SIEVES[detector.validator]
    valid = sifted = 0
    for example in detector.examples:
        text, start, end = parsed(example)
        values = [_altered(text[start:end], chance) for _ in range(400)]
        for value in values:
            plain = value.translate(None, b" ./+-")
            fits = check(value.decode()) or check(plain.decode())
            valid += fits
            sifted += sieve.may_fit(value)
            assert not fits or (sieve.may_fit(value) and sieve.may_fit(plain)), value
    assert valid
    assert sifted < 330 * len(detector.examples)


def test_luhn() -> None:
    """Luhn's own example: 7992739871 takes the check digit 3 and no other."""
    assert [digit for digit in range(10) if luhn(b"7992739871%d" % digit)] == [3]


def test_iban_table() -> None:
    """The registry's lengths lie between Norway's 15 and Russia's 33, and no country is missing its code."""
    assert set(map(len, IBAN_LENGTHS)) == {2}
    assert min(IBAN_LENGTHS.values()) == IBAN_LENGTHS[b"NO"] == 15
    assert max(IBAN_LENGTHS.values()) == IBAN_LENGTHS[b"RU"] == 33
    assert (IBAN_LENGTHS[b"DE"], IBAN_LENGTHS[b"FR"], IBAN_LENGTHS[b"MT"], IBAN_LENGTHS[b"GB"]) == (22, 27, 31, 22)


def test_the_page_lists_every_row_and_set() -> None:
    """docs/masking.md has the tables that tools/detectors_table.py prints."""
    from pathlib import Path

    from tools.detectors_table import tables

    assert tables() in Path("docs/masking.md").read_text(encoding="utf-8")
