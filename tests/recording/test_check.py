"""What may enter the database at all."""

from __future__ import annotations

import hashlib
import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.errors import RecordError
from enforcer.recording import check as checking
from enforcer.recording.check import NAME_LIMIT, STORED, TEXT_LIMIT, check
from enforcer.recording.schema import FORM, FORMS
from tests.recording.record_rows import OUTCOME, answered, event, exchange, one_of_each, outcome, refusal, session


def test_columns_sent_are_the_columns_stored() -> None:
    """The typed rows and the newest form of the schema name the same columns in the same order."""
    assert {table: tuple(columns) for table, columns in FORMS[FORM].items()} == STORED


def test_every_kind_of_row_survives_the_trip_as_json() -> None:
    """Rows that a worker encodes with orjson are accepted as they arrive."""
    for row in one_of_each():
        assert check(orjson.loads(orjson.dumps(row))).table == row["table"]


def test_a_key_that_may_be_none_may_be_left_out() -> None:
    """Leaving out `unit` and sending None are the same row."""
    assert check(session()) == check(session(unit=None))
    assert check(exchange()) == check(exchange(**dict.fromkeys(OUTCOME)))


def test_an_exchange_may_carry_its_outcome() -> None:
    """Every outcome column is stored as it is in a row of its own; an exchange without stores NULLs."""
    row = dict(zip(("time_ns", *STORED["exchanges"]), check(answered(failed=True, rows=None)).values, strict=True))
    ending = dict(zip(("time_ns", *STORED["outcomes"]), check(outcome(failed=True, rows=None)).values, strict=True))
    assert [row[name] for name in OUTCOME] == ["SELECT", None, 1, 14, 60, 2_500_000, '{"email":4}']
    assert [type(row[name]) for name in OUTCOME] == [type(ending[name]) for name in OUTCOME]
    without = dict(zip(("time_ns", *STORED["exchanges"]), check(exchange()).values, strict=True))
    assert [without[name] for name in OUTCOME] == [None] * len(OUTCOME)


@pytest.mark.parametrize(
    "row",
    [
        {},
        {"table": "chain_head", "seq": 9},
        {"table": "_sqlite_migrations"},
        {"table": ["sessions"]},
        {"table": None},
        session(extra=1),
        session(seq=1),
        session(hash="00"),
        exchange(cut_bytes=3),
        session(pid="4242"),
        session(pid=True),
        session(pid=1.0),
        session(pid=2**63),
        session(pid=None),
        session(id="0123456789ABCDEF"),
        session(id="0123456789abcde"),
        session(id="0123456789abcdef\n"),
        session(id="\N{ARABIC-INDIC DIGIT ONE}123456789abcdef"),
        session(action="approve it"),
        session(observed=1),
        session(argv=["a", None]),
        session(argv="psql"),
        session(executor="x" * (NAME_LIMIT + 1)),
        session(executor="\ud800"),
        exchange(text="\ud800"),
        exchange(text="\ud800" * (TEXT_LIMIT // 4 + 1)),
        exchange(text=b"SELECT 1"),
        exchange(params=[1]),
        exchange(params=["\udfff"]),
        exchange(facts={"a": None}),
        exchange(facts={"a": "x" * checking.MAPPING_LIMIT}),
        exchange(facts=[]),
        answered(status=200),
        answered(status="x" * (NAME_LIMIT + 1)),
        answered(status="\ud800"),
        answered(rows="1"),
        answered(rows=True),
        answered(failed=1),
        answered(failed="no"),
        answered(bytes_up="14"),
        answered(bytes_up=2**63),
        answered(bytes_down=60.0),
        answered(duration_ns=-(2**63) - 1),
        answered(duration_ns=True),
        answered(masked={"a": "1"}),
        answered(masked={"a": True}),
        answered(masked=[]),
        answered(masked="{}"),
        outcome(masked={"a": "1"}),
        outcome(masked={"a": True}),
        outcome(rows="1"),
        event(detail={"a": b"raw"}),
        refusal(count=None),
        {key: value for key, value in exchange().items() if key != "text"},
    ],
)
def test_a_row_that_is_not_exactly_right_is_refused(row: dict[str, object]) -> None:
    """Unknown tables and columns, wrong types, missing values, bad ids, long names, broken Unicode: RecordError."""
    with pytest.raises(RecordError, match="record row refused"):
        check(row)


def test_the_refusal_names_the_column_and_never_the_value() -> None:
    """The message helps the author of the sender without carrying what was sent."""
    with pytest.raises(RecordError, match="sessions column id must be 16 lower-case") as refused:
        check(session(id="4111111111111111x"))
    assert "4111" not in str(refused.value)
    with pytest.raises(RecordError, match="column text must be str"):
        check(exchange(text=7))


def test_the_longest_text_is_whole() -> None:
    """A text of exactly 16 MiB is stored as it is, with the columns of a cut left NULL."""
    text = "é" * (TEXT_LIMIT // 2)
    row = dict(zip(("time_ns", *STORED["exchanges"]), check(exchange(text=text)).values, strict=True))
    assert (row["text"] == text, row["cut_bytes"], row["cut_sha256"]) == (True, None, None)


def test_a_longer_text_is_cut_between_characters_with_its_length_and_digest() -> None:
    """One byte over the limit: the last whole character goes, the length and SHA-256 of the whole are kept."""
    text = "a" + "é" * (TEXT_LIMIT // 2)
    row = dict(zip(("time_ns", *STORED["exchanges"]), check(exchange(text=text)).values, strict=True))
    assert row["text"] == text[:-1]
    assert row["cut_bytes"] == TEXT_LIMIT + 1
    assert row["cut_sha256"] == hashlib.sha256(text.encode()).hexdigest()


def test_a_longer_list_keeps_whole_elements_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parameters beyond the limit end with one object, which no parameter can look like, about the whole list."""
    monkeypatch.setattr(checking, "LIST_LIMIT", 1000)
    params = ["x" * 100] * 20
    row = dict(zip(("time_ns", *STORED["exchanges"]), check(exchange(params=params)).values, strict=True))
    assert isinstance(row["params"], str)
    *kept, note = json.loads(row["params"])
    whole = json.dumps(params, separators=(",", ":")).encode()
    assert kept == params[:7]  # 1000 - 256 leaves room for seven of 103 bytes
    assert note == {"cut_bytes": len(whole), "cut_sha256": hashlib.sha256(whole).hexdigest(), "cut_elements": 20}
    assert len(row["params"]) <= 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(one_of_each()), st.data())
def test_whatever_arrives_is_accepted_or_a_record_error(row: dict[str, object], data: st.DataObject) -> None:
    """Any value in any column: stored as SQLite types with a canonical form, or RecordError, and nothing else."""
    key = data.draw(st.sampled_from(sorted(row)) | st.text(max_size=5))
    try:
        checked = check({**row, key: data.draw(json_values)})
    except RecordError:
        return
    assert all(type(value) in (str, int, type(None)) for value in checked.values)
    assert b"[" + checked.tail == json.dumps(checked.values, ensure_ascii=False, separators=(",", ":")).encode()
