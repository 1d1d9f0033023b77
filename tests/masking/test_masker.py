"""Rows, single values, and what a specification may say."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest

from enforcer.errors import EnforcerError
from enforcer.masking.detectors import NAMES
from enforcer.masking.masker import Masker, MaskError, masker_for
from enforcer.verdict import Column, JsonPath, MaskSpec

DETECT = masker_for(MaskSpec(detectors=tuple(NAMES)))


def columns(*patterns: str) -> Masker:
    return masker_for(MaskSpec(columns=tuple(map(Column, patterns))))


def row(
    masker: Masker, names: tuple[str, ...], values: list[bytes | None], binary: tuple[bool, ...] | None = None
) -> tuple[list[bytes | None] | None, Counter[str]]:
    counts: Counter[str] = Counter()
    return masker.rows(names, values, binary or (False,) * len(values), counts), counts


@pytest.mark.parametrize(
    ("pattern", "name", "hidden"),
    [
        ("*.ssn", "users.ssn", True),
        ("*.ssn", "ssn", True),
        ("*.ssn", "USERS.SSN", True),
        ("*.ssn", "users.ssn2", False),
        ("*.ssn", "users.assn", False),
        ("ssn", "users.ssn", True),
        ("ssn", "ssn", True),
        ("SSN", "public.users.ssn", True),
        ("ssn", "users.name", False),
        ("users.ssn", "users.ssn", True),
        ("users.ssn", "public.users.ssn", True),
        ("users.ssn", "orders.ssn", False),
        ("users.ssn", "ssn", True),
        ("users.*", "users.anything", True),
        ("users.*", "orders.id", False),
        ("users.*", "id", True),
        ("*_pii.*", "hr_pii.x", True),
        ("*.card*", "cards.card_no", True),
        ("*.card*", "cards.no", False),
        ("a.b[c]", "a.bc", False),
        ("users.ssn", "", True),
    ],
)
def test_column_patterns(pattern: str, name: str, hidden: bool) -> None:
    """A pattern means table and column, in any case; without a table, any; a column of unknown table may be the one."""
    values, counts = row(columns(pattern), (name,), [b"secret"])
    assert values == ([b"******"] if hidden else None)
    assert counts == ({pattern: 1} if hidden else {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (b"", b""),
        (b"abc", b"***"),
        ("größe".encode(), b"*****"),
        (b"\xff\xfe", b"**"),
        (b"x" * 100, b"*" * 16),
        (b"078-05-1120", b"***********"),
        (b"+49 30 901820", b"*************"),
        *(
            (value, None)
            for value in (
                b"42 -1.5e10 .5 NaN -Infinity $1,234.50 t false 2026-11-02 12:33:00+01 12:33 "
                b"f81d4fae-7dec-11d0-a765-00a0c91e6bf6 10.0.0.1/8 \\xdeadbeef {1,2} [1,5)"
            ).split()
        ),
        (b"2026-11-02 12:33:00.123+01", None),
        (b"3 days 04:05:06", None),
        (b'{"a": 1}', None),
    ],
)
def test_masked_cells(value: bytes | None, expected: bytes | None) -> None:
    """A text becomes asterisks, at most 16; what a client would parse becomes NULL; NULL stays NULL."""
    values, _ = row(columns("c"), ("c", "d"), [value, b"kept"])
    assert (values or [value, b"kept"]) == [expected, b"kept"]


def test_binary_cell_of_masked_column_is_null() -> None:
    """A binary cell of a masked column becomes NULL: asterisks would be some other value."""
    assert row(columns("c"), ("c", "c"), [b"abcd", b"abcd"], (True, False))[0] == [None, b"****"]


def test_unchanged_rows_are_none() -> None:
    """A row in which nothing is found is not rewritten."""
    names = ("id", "name", "note")
    assert row(DETECT, names, [b"1", b"alice", None]) == (None, {})
    assert row(columns("x"), names, [b"1", b"alice", None]) == (None, {})
    assert row(DETECT, names, [b"1234567812345670", b"4111111111111112", b"\\u00e9"]) == (None, {})
    assert row(DETECT, (), []) == (None, {})


def test_cells_by_detector() -> None:
    """Only the cells that hold a value change, and both kinds of rule count under their own names."""
    masker = masker_for(MaskSpec(tuple(NAMES), (Column("*.name"),)))
    values, counts = row(masker, ("id", "name", "card", "mail"), [b"1", b"ann", b"4111111111111111", b"a@example.org"])
    assert values == [b"1", b"***", b"************1111", b"*@example.org"]
    assert counts == {"*.name": 1, "credit_card": 1, "email": 1}


def test_field_rule_goes_before_detectors() -> None:
    """A value in a masked column is hidden whole and counts once, for the column."""
    masker = masker_for(MaskSpec(tuple(NAMES), (Column("card"),)))
    assert row(masker, ("card",), [b"card: 4111111111111111"]) == ([b"*" * 16], {"card": 1})


@pytest.mark.parametrize("place", range(6))
def test_the_right_cell_is_found(place: int) -> None:
    """Wherever a value stands in a row, with whatever around it, its cell is the one that changes."""
    for value, hidden in (
        (b"4111111111111111", b"************1111"),
        (b"4111111111111111.", b"************1111."),
        (b"078-05-1120", b"***-**-****"),
        (b"a@b.co", b"*@b.co"),
        (b"NO9386011117947", b"***********7947"),
    ):
        values: list[bytes | None] = [b"", None, b"x", b"\x00\x00", b"\xff"]
        values.insert(place, value)
        expected = list(values)
        expected[place] = hidden
        assert row(DETECT, tuple("abcdef"), values)[0] == expected


def test_values_do_not_join_across_cells() -> None:
    """Digits of neighbouring cells are no card number."""
    assert row(DETECT, ("a", "b", "c"), [b"41111111", b"11111111", b"x"])[0] is None
    assert row(DETECT, ("a", "b"), [b"john", b"@example.org"])[0] is None


def test_binary_cell_with_a_value_is_null() -> None:
    """A value in a binary cell is never edited in place: the whole cell becomes NULL."""
    cell = b"\x00\x00\x00\x01\x00\x00\x00\x104111111111111111\x00\x00"
    assert row(DETECT, ("a", "b"), [cell, b"x"], (True, False)) == ([None, b"x"], {"credit_card": 1})
    assert row(DETECT, ("a", "b"), [b"\xff\xfe\x00", b"x"], (True, False)) == (None, {})


@pytest.mark.parametrize(
    ("cell", "expected"),
    [
        (rb'{"card":"\u0034111111111111111"}', b'{"card":"************1111"}'),
        (rb'{"n":"\u00e9john@example.org"}', b'{"n":"******@example.org"}'),
        (b'{"card": 4111111111111111}', b'{"card": null            }'),
        (b"{4111111111111111,7}", b"{null            ,7}"),
    ],
)
def test_json_and_arrays_in_cells(cell: bytes, expected: bytes) -> None:
    """A JSON or array cell is searched as the client will read it, and stays readable."""
    assert row(DETECT, ("c",), [cell])[0] == [expected]


def test_misshapen_row_is_refused() -> None:
    """A row that does not fit its columns could hide a masked one: it is refused."""
    with pytest.raises(MaskError, match="columns that were announced"):
        columns("ssn").rows(("id", "ssn"), [b"1", b"2", b"3"], (False,) * 3, Counter())
    with pytest.raises(MaskError, match="columns that were announced"):
        columns("ssn").rows(("id",), [b"1", b"2"], (False,) * 2, Counter())


def test_mask_returns_the_same_object() -> None:
    """A value without a hit comes back as the very same object, also when it is long."""
    for value in (b"", b"nothing here", b"\\u0041", b"x" * 200_000):
        assert DETECT.mask(value, Counter()) is value


def test_mask_counts() -> None:
    """Each value counts once under its detector's name."""
    counts: Counter[str] = Counter()
    text = b"4111111111111111 and 5555555555554444, a@example.org, 078-05-1120, GB29 NWBK 6016 1331 9268 19"
    DETECT.mask(text, counts)
    assert counts == {"credit_card": 2, "email": 1, "us_ssn": 1, "iban": 1}


def test_only_the_named_detectors_look() -> None:
    """A detector that the specification does not name hides nothing."""
    text = b"4111111111111111 a@example.org"
    assert masker_for(MaskSpec(("email",))).mask(text, Counter()) == b"4111111111111111 *@example.org"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (MaskSpec(("email", "creditcard")), "unknown detector 'creditcard'; use credit_card"),
        (MaskSpec(("shoe_size",)), "unknown detector 'shoe_size'; docs/masking.md lists them"),
        (MaskSpec(json_paths=(JsonPath("ssn"),)), "must begin with"),
    ],
)
def test_bad_specification(spec: MaskSpec, message: str) -> None:
    """A specification that cannot be met is an error, not a mask that hides less."""
    with pytest.raises(MaskError, match=message) as caught:
        Masker(spec)
    assert isinstance(caught.value, EnforcerError)


def test_maskers_are_made_once() -> None:
    """Equal specifications share one masker."""
    assert masker_for(MaskSpec(("email",))) is masker_for(MaskSpec(("email",)))


UNITS = [
    b"a",
    b"4",
    b"@",
    b"4111 ",
    b"4 ",
    b"a@",
    b"\\",
    b"\\u0041",
    b"DE89 ",
    b'"',
    b"\x00",
    b"a\x00",
    b"%41",
    b"%41a",
]
UNITS += [
    b"4111 1111 1111 1112 ",
    b"BSN 111222334 ",
    b"a@b.c ",
    b"1.2.3.4.5 ",
    b"SGVsbG8gV29ybGQgYWdhaW4 ",
    b"eyJhbGciOiJIUzI1NiJ9 ",
]


@pytest.mark.parametrize("unit", UNITS)
def test_repetition_is_no_attack(unit: bytes) -> None:
    """Half a megabyte of anything repeated is masked in time that grows with its length, not its square."""
    import time

    data = unit * (500_000 // len(unit))
    begun = time.process_time()
    for media in ("text/plain", "application/json"):
        assert len(DETECT.text(media).feed(data, True, Counter())) <= len(data)
    assert time.process_time() - begun < 4


def test_pure() -> None:
    """Masking needs no event loop, socket or clock: importing it loads no asyncio."""
    program = "import sys, enforcer.masking.masker; sys.exit('asyncio' in sys.modules or 'socket' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
