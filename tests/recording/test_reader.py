"""Queries of the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from enforcer.errors import RecordError, UsageError
from enforcer.recording.reader import Filter, Reader, connect
from enforcer.recording.writer import Writer
from tests.recording.record_rows import OUTCOME, answered, exchange, one_of_each, outcome, record, session, session_end

A, B, C, D = "aa00000000000001", "aa00000000000002", "bb00000000000003", "cc00000000000004"


@pytest.fixture
def reader(database: Path) -> Reader:
    record(
        database,
        [
            session(A, time_ns=1_000),
            exchange(1, A),
            outcome(1, A),
            exchange(2, A, action="deny", rule="no-writes"),
            answered(3, A),
            session_end(A),
            session(B, time_ns=2_000, executor="other", region="FR google/europe-west9", protocol="http"),
            session(C, time_ns=3_000, action="deny", region="US/DE", protocol=None, rule=""),
            session(D, time_ns=4_000, action="deny", observed=True, region=""),
        ],
    )
    return Reader(database)


@pytest.mark.parametrize(
    ("wanted", "ids"),
    [
        (Filter(), [D, C, B, A]),
        (Filter(limit=2), [D, C]),
        (Filter(executor="other"), [B]),
        (Filter(executor="oth%"), []),
        (Filter(action="allow"), [B, A]),
        (Filter(action="deny"), [D, C, A]),
        (Filter(region="DE"), [C, A]),
        (Filter(region="D"), []),
        (Filter(region="FR"), [B]),
        (Filter(region="google/europe-west9"), [B]),
        (Filter(protocol="http"), [B]),
        (Filter(since_ns=3_000), [D, C]),
        (Filter(executor="agent", action="deny", region="US", since_ns=1), [C]),
    ],
)
def test_sessions_are_filtered_and_newest_first(reader: Reader, wanted: Filter, ids: list[str]) -> None:
    """Each filter narrows; deny includes a session with a denied exchange; a region set matches by member."""
    with reader:
        assert [record["id"] for record in reader.sessions(wanted)] == ids


def test_a_listed_session_says_what_became_of_it(reader: Reader) -> None:
    """Exchanges, denied ones, masked values (2 + 1 in an outcome, 4 in an exchange) and the end are counted from the
    other tables."""
    with reader:
        (listed,) = reader.sessions(Filter(since_ns=1_000, limit=9, executor="agent", action="allow"))
    assert (listed["exchanges"], listed["denied"], listed["masked_total"]) == (3, 1, 7)
    assert listed["ended"] == "client closed"


def test_one_session_with_its_exchanges_and_outcomes(reader: Reader) -> None:
    """JSON columns are decoded, flags are booleans, an exchange without an end has an outcome of None."""
    with reader:
        found = reader.session("aa00000000000001")
    assert found["argv"] == ["psql", "-h", "db"]
    assert found["observed"] is False
    assert found["end"]["cause"] == "client closed"
    first, second, third = found["exchanges"]
    assert (first["params"], first["facts"], first["masked"]) == (
        ["a", None],
        {"database": "shop"},
        {"credit_card": 2, "users.ssn": 1},
    )
    assert (second["action"], second["status"], second["masked"]) == ("deny", None, None)
    assert third["masked"] == {"email": 4}


def test_an_outcome_reads_the_same_wherever_it_was_written(reader: Reader) -> None:
    """In a row of its own or in the exchange's: same columns, same types, and the time at which it ended."""
    with reader:
        apart, without, together = reader.exchanges(A)
    assert apart.keys() == without.keys() == together.keys()
    assert [apart[name] for name in OUTCOME[:5]] == ["SELECT", 1, False, 14, 60]
    assert [together[name] for name in OUTCOME[:5]] == ["SELECT", 1, False, 14, 60]
    assert (apart["duration_ns"], together["duration_ns"]) == (1_500_000, 2_500_000)
    assert apart["outcome_time_ns"] == 1_763_791_201_000_000_000
    assert together["outcome_time_ns"] == together["time_ns"] + 2_500_000
    assert [without[name] for name in (*OUTCOME, "outcome_time_ns")] == [None] * 8


def test_masked_values_are_counted_in_either_form(database: Path) -> None:
    """Only outcomes, only exchanges, neither: the sum is of what is there, and never NULL."""
    record(
        database, [session(A), exchange(1, A), outcome(1, A), session(B), answered(1, B), answered(2, B), session(C)]
    )
    with Reader(database) as reader:
        assert [listed["masked_total"] for listed in reader.sessions(Filter())] == [0, 8, 3]


def test_an_id_may_be_shortened_until_it_is_ambiguous(reader: Reader) -> None:
    """A unique beginning is enough; an ambiguous one names the candidates; nonsense is a usage error."""
    with reader:
        assert reader.session("b")["id"] == C
        with pytest.raises(UsageError, match=f"begins several sessions .*{A}, {B}"):
            reader.session("aa")
        with pytest.raises(RecordError, match="no session begins with 12"):
            reader.session("12")
        for wrong in ("", "AA", "%", "aa' OR 1=1 --", "0" * 17):
            with pytest.raises(UsageError, match="is not a session id"):
                reader.session(wrong)


def test_counts_and_head(database: Path) -> None:
    """Rows per table, and the head that the writer had last."""
    writer = Writer(database)
    writer.submit(one_of_each())
    writer.close()
    with Reader(database) as reader:
        assert reader.counts() == {
            "sessions": 1, "exchanges": 2, "outcomes": 1, "session_ends": 1, "refusals": 1, "events": 1,
        }  # fmt: skip
        assert reader.head() == writer.head


def test_a_missing_or_empty_database_says_so(database: Path) -> None:
    """No file, or one without tables: the path and the likely reason; and nothing is created."""
    with pytest.raises(RecordError, match=rf"no records at {database}; is the supervisor running\?"):
        Reader(database)
    assert not database.parent.exists()
    database.parent.mkdir()
    database.touch()
    with pytest.raises(RecordError, match="no records at"):
        Reader(database)


def test_a_reader_cannot_write(reader: Reader, database: Path) -> None:
    """The connection is read-only by its URI, not by good manners."""
    reader.close()
    connection = connect(database)
    with pytest.raises(Exception, match="readonly database"):
        connection.execute("DELETE FROM sessions")
    connection.close()


def test_a_path_with_characters_of_a_uri_is_opened(tmp_path: Path) -> None:
    """`?`, `#` and `%` in a directory name are part of the path."""
    database = tmp_path / "a?mode=rwc#b%20" / "sessions.db"
    record(database, one_of_each())
    with Reader(database) as reader:
        assert reader.counts()["sessions"] == 1
