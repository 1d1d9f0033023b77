"""Operators and named fields: what takes a value's place, in every kind of text and cell."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from enforcer.masking.errors import MaskError
from enforcer.masking.keys import Key, Keys
from enforcer.masking.masker import Masker
from enforcer.masking.recorded import facts_as_sent, text_as_sent
from enforcer.verdict import Column, Field, JsonPath, Masked, MaskSpec, Operator

SECRET = bytes(range(32))
KEYS = Keys((Key(SECRET), Key(b"o" * 32)))
REDACT, HMAC, NULLIFY = Operator("redact"), Operator("hmac"), Operator("nullify")
LAST4 = Operator("mask", last=4)
YEAR, MONTH, NETWORK = (Operator("generalise", text=text) for text in ("year", "month", "network"))


def masker(*items: tuple[Masked, Operator | None]) -> Masker:
    masked = [item for item, _ in items]
    return Masker(
        MaskSpec(
            tuple(item for item in masked if isinstance(item, str)),
            tuple(item for item in masked if isinstance(item, Column)),
            tuple(item for item in masked if isinstance(item, JsonPath)),
            tuple(item for item in masked if isinstance(item, Field)),
            tuple((item, operator) for item, operator in items if operator is not None),
        ),
        KEYS,
    )


def through(mask: Masker, media: str, text: bytes, cuts: list[int] | None = None) -> bytes:
    edges = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts or [])})
    pieces = [text[begin:end] for begin, end in pairwise(edges)] or [b""]
    one, counts = mask.text(media), Counter[str]()
    return b"".join([one.feed(piece, number == len(pieces) - 1, counts) for number, piece in enumerate(pieces)])


@pytest.mark.parametrize(
    ("operator", "value", "expected"),
    [
        (REDACT, "Anna", ""),
        (Operator("mask"), "Anna", "****"),
        (LAST4, "DE89 3704 0044 0532", "**** **** **** 0532"),
        (Operator("mask", first=2, last=2), "a-b-c-d-e", "a-b-*-d-e"),
        (LAST4, "1234", "****"),
        (Operator("replace", text='x"y'), "Anna", 'x"y'),
        (NULLIFY, "Anna", None),
        (YEAR, "1980-03-12", "1980-01-01"),
        (YEAR, "12.03.1980", "01.01.1980"),
        (YEAR, "19800312", "19800101"),
        (YEAR, "2024-05-17T10:11:12+02:00", "2024-01-01T00:00:00+02:00"),
        (MONTH, "1980-03-12", "1980-03-01"),
        (MONTH, "12.03.1980", "01.03.1980"),
        (MONTH, "03/12/1980", "01/01/1980"),
        (YEAR, "soon", None),
        (NETWORK, "192.0.2.77", "192.0.2.0"),
        (NETWORK, "2001:db8:1:2::3", "2001:db8:1::"),
        (Operator("generalise", bounds=(1000.0,)), 12_345, 12_000),
        (Operator("generalise", bounds=(0.0, 18.0, 65.0)), 64.5, 18),
        (Operator("generalise", bounds=(18.0, 65.0)), 3, None),
        (HMAC, 17, None),
        (Operator("replace", text="0"), 17, 0),
        (Operator("replace", text="x"), True, None),
        (REDACT, {"a": 1}, None),
    ],
)
def test_a_member_of_json_becomes_what_its_operator_says(operator: Operator, value: object, expected: object) -> None:
    """Each operator on a JSON value; a number stays a number or becomes null."""
    text = through(masker((JsonPath("$.a"), operator)), "application/json", json.dumps({"a": value, "b": 1}).encode())
    assert json.loads(text) == {"a": expected, "b": 1}


def test_hmac_is_hmac_sha256_under_the_first_key_and_names_it() -> None:
    """Two values are the same text where, and only where, they are the same value under the same key."""
    first, again, other = (masker((JsonPath("$.a"), HMAC)) for _ in range(3))
    texts = [json.loads(through(one, "application/json", b'{"a":"x"}'))["a"] for one in (first, again)]
    assert texts[0] == texts[1] == KEYS.keys[0].token(b"x")
    assert texts[0].startswith(f"hmac-{KEYS.keys[0].ident}-")
    assert json.loads(through(other, "application/json", b'{"a":"y"}'))["a"] != texts[0]
    assert KEYS.keys[1].token(b"x").partition("-")[2][:6] != KEYS.keys[0].ident
    with pytest.raises(MaskError, match="no key for hmac"):
        Masker(MaskSpec(("email",), operators=(("email", HMAC),)))


def test_detectors_have_operators_where_their_values_stand() -> None:
    """In text, in strings of JSON and in its numbers; other detectors hide as ever, and domains go with addresses."""
    mask = masker(("email", Operator("replace", text='<"mail">')), ("credit_card", LAST4), ("us_ssn", None))
    text = b"mail a@example.org, card 4111 1111 1111 1111, ssn 078-05-1120"
    counts: Counter[str] = Counter()
    assert mask.mask(text, counts) == b'mail <"mail">, card **** **** **** 1111, ssn ***-**-****'
    assert counts == {"email": 1, "credit_card": 1, "us_ssn": 1}
    document = b'{"a":"a@example.org","n":4111111111111111,"s":"4111111111111111"}'
    got = json.loads(through(mask, "application/json", document))
    assert got == {"a": '<"mail">', "n": None, "s": "************1111"}


def test_what_overlaps_leaves_nothing_readable() -> None:
    """Of a card within a longer value that another detector hides, the last four do not stay."""
    mask = masker(("url_password", LAST4), ("email", None))
    assert b"secret" not in mask.mask(b"https://user:secret@example.org/", Counter())


WORDS = st.sampled_from(
    ["a@example.org", "4111 1111 1111 1111", "192.0.2.77", "4111111111111111@example.org", " ", ",", "x", "\\n", "%40"]
)


@settings(max_examples=30)
@given(st.lists(WORDS, max_size=10).map("".join), st.lists(st.integers(0, 300), max_size=5))
def test_cuts_change_nothing(text: str, cuts: list[int]) -> None:
    """For every cut the same comes out, also where what takes a value's place is longer or shorter."""
    items = (("email", HMAC), ("credit_card", REDACT), ("ip_address", NETWORK))
    raw = (text + " " * 700 + text).encode()
    assert through(masker(*items), "text/plain", raw, cuts) == through(masker(*items), "text/plain", raw)


def test_what_a_field_became_is_not_looked_at_again() -> None:
    """A text that replaces a member stays, though a detector would find something in it; signs of Unicode's private
    use stay as well."""
    mask = masker((JsonPath("$.a"), Operator("replace", text="a@example.org")), ("email", REDACT))
    document = {"a": "x\ue000", "b": "b@example.org", "c": "\ue000\ue001\ue000"}
    got = json.loads(through(mask, "application/json", json.dumps(document).encode()))
    assert got == {"a": "a@example.org", "b": "", "c": "\ue000\ue001\ue000"}


def test_cells_keep_their_type() -> None:
    """A cell that a client reads as a number or a date stays one, or becomes NULL; a binary one becomes NULL."""
    mask = masker((Column("users.id"), HMAC), (Column("users.born"), YEAR), ("email", Operator("replace", text="-")))
    columns = ("users.id", "users.born", "users.note")
    row = mask.rows(columns, [b"17", b"1980-03-12", b"to a@example.org"], (False, False, False), Counter())
    assert row == [None, b"1980-01-01", b"to -"]
    row = mask.rows(columns, [b"abc", b"x", b"a@example.org"], (False, True, True), Counter())
    assert row == [KEYS.keys[0].token(b"abc").encode(), None, None]


@pytest.mark.parametrize(
    ("pattern", "hidden", "shown"),
    [
        ("users.email", ["users.email", "shop.users.email", "email"], ["users.email.x", "users.emails"]),
        ("users.contact.email", ["users.contact.email", "users.contact.0.email"], ["users.contact", "orders.x.email"]),
        ("users.*.email", ["users.contact.email", "users.a.b.email"], ["users.contact.phone"]),
        ("users.contact.**", ["users.contact.email", "users.contact.home.2.street"], ["users.name", "users.contact"]),
        ("*.card", ["orders.items.3.card", "card"], ["orders.cards"]),
    ],
)
def test_paths_of_documents_are_columns(pattern: str, hidden: list[str], shown: list[str]) -> None:
    """A column pattern names a field of documents at any depth; places in arrays are no part of it."""
    mask = masker((Column(pattern), REDACT))
    for name in hidden:
        assert mask.rows((name,), [b"Anna"], (False,), Counter()) == [b""], name
    for name in shown:
        assert mask.rows((name,), [b"Anna"], (False,), Counter()) is None, name


FORM = "application/x-www-form-urlencoded"


def test_fields_of_forms_are_named() -> None:
    """Pairs and parts of a form, whatever their values look like; others are read by the detectors."""
    mask = masker((Field("form", "user[*]"), REDACT), (Field("form", "pin"), None), ("email", LAST4))
    sent = through(mask, FORM, b"user%5Bname%5D=Anna+B&pin=1234&m=a%40example.org&user=x", [7, 20, 31])
    assert sent == b"user%5Bname%5D=&pin=****&m=*%40******e.org&user=x"
    parts = (
        b'--b\r\nContent-Disposition: form-data; name="pin"\r\n\r\n1234\r\n'
        b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\n1234\r\n--b--\r\n'
    )
    masked = through(mask, "multipart/form-data; boundary=b", parts, [60, 61])
    assert masked == parts.replace(b"\r\n\r\n1234", b"\r\n\r\n****", 1)


CSV = b'id;"full name";mail\r\n1;"Anna ""A"";\r\nB";a@example.org\r\n2;Bob;b@example.org\r\n\r\n3;;'


@settings(max_examples=25)
@given(st.lists(st.integers(0, 200), max_size=6))
def test_columns_of_csv_are_named_by_the_first_line(cuts: list[int]) -> None:
    """Quoted cells, other signs between them, line ends within: only the named cells change, however it is cut; what
    takes their place is not looked at again."""
    mask = masker((Field("csv", "full *"), Operator("replace", text="x; y@example.org")), ("email", REDACT))
    expected = b'id;"full name";mail\r\n1;"x; y@example.org";\r\n2;"x; y@example.org";\r\n\r\n3;;'
    assert through(mask, "text/csv; charset=utf-8", CSV, cuts) == expected


def test_a_column_of_csv_may_be_a_column_of_a_table() -> None:
    """COPY output in CSV has the names of its columns, and rules for them hold."""
    mask = masker((Column("people.mail"), LAST4))
    assert through(mask, "text/csv", b"id,mail\n1,anna\n2,annabel\n") == b"id,mail\n1,****\n2,***abel\n"
    with pytest.raises(MaskError, match="without a first line"):
        through(mask, "text/csv; header=absent", b"1,anna\n")
    with pytest.raises(MaskError, match="more cells"):
        through(mask, "text/csv", b"id,mail\n1,2,3\n")


def test_the_record_holds_what_was_sent() -> None:
    """Target, messages and facts of a request, as the server gets them."""
    mask = masker((Field("query", "q"), REDACT), (JsonPath("$.a"), REDACT), ("email", Operator("replace", text="M")))
    assert text_as_sent(mask, "GET /a%40example.org?q=x&r=b%40example.org") == "GET /M?q=&r=M"
    assert text_as_sent(mask, '{"a": "x"}') == '{"a":""}'
    assert text_as_sent(mask, '{"a": "x…') == "(cannot be masked)"
    facts = {"host": "a@example.org", "path": "/b@example.org"}
    assert facts_as_sent(mask, facts) == {"host": "a@example.org", "path": "/M"}


def test_keys_are_parsed_or_refused_by_line() -> None:
    """One key per line, the first in use; a line that is none is named."""
    assert Keys.parse(KEYS.lines()) == KEYS
    with pytest.raises(ValueError, match="line 2"):
        Keys.parse([SECRET.hex(), "abc"])
