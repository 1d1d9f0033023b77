"""`enforcer sessions`: real databases, real command line."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from enforcer.cli.sessions_cmd import TABLE_WIDTH, printable, sessions, table
from enforcer.errors import EnforcerError, RecordError, UsageError
from tests.recording.record_rows import SID, answered, exchange, one_of_each, outcome, record, session, session_end

# Sets the window title, hides a line, reverses the text after it, 8-bit CSI, and a forged line.
HOSTILE = "SELECT '\x1b]0;owned\x07\x1b[8m\u202e\x9b2J\r' -- \u2028 \U000e0041"


@dataclass
class Settings:
    database: Path


@dataclass
class Context:
    database: Path

    def paths(self) -> Settings:
        return Settings(self.database)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "state" / "sessions.db"


def run(database: Path, *arguments: str) -> Result:
    return CliRunner().invoke(sessions, arguments, obj=Context(database))


def failure(database: Path, *arguments: str) -> EnforcerError:
    error = run(database, *arguments).exception
    assert isinstance(error, EnforcerError)
    return error


def test_list_is_one_readable_line_per_session(database: Path) -> None:
    """The columns are those promised, in UTC, with exchanges and masked values counted."""
    record(database, one_of_each(), [exchange(3, action="deny")])
    header, line = run(database, "list").stdout.splitlines()
    assert header.split() == [
        "ID", "TIME", "(UTC)", "EXECUTOR", "VERDICT", "PROTOCOL", "DESTINATION", "REGION", "RULE", "EXCHANGES",
        "MASKED",
    ]  # fmt: skip
    assert line.split() == [
        SID, "2025-11-22", "06:00:00", "agent", "allow", "postgres", "3.120.0.10:5432", "DE", "eu-only/eea", "3", "(1",
        "denied)", "7",
    ]  # fmt: skip


def test_list_fits_120_columns_and_escapes_what_is_hostile(database: Path) -> None:
    """Long or hostile names are shortened and escaped; no line is wider, none contains a control character."""
    long = "x" * 5000
    for_list = {"executor": HOSTILE, "destination": long, "region": long, "rule": HOSTILE * 9, "protocol": long}
    record(database, [session(**for_list), session("f" * 16, destination="[2001:db8:1:2:3:4:5:6]:65535")])
    out = run(database, "list").stdout
    assert all(len(line) <= TABLE_WIDTH for line in out.splitlines())
    assert out.replace("\n", "").isprintable()
    assert len(out.split("\n")) == 4  # heading, two sessions, the end


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ((), 2),
        (("--executor", "other"), 1),
        (("--action", "deny"), 1),
        (("--region", "FR"), 1),
        (("--region", "fr"), 1),
        (("--protocol", "postgres"), 2),
        (("--since", "2025-11-22T06:00:00"), 2),
        (("--since", "2025-11-22T07:00:01+01:00"), 1),
        (("--since", "1s"), 0),
        (("--since", "999999999d"), 2),
        (("--since", "0001-01-01"), 2),
        (("--since", "9999-12-31"), 0),
        (("--limit", "1"), 1),
        (("--limit", str(10**9)), 2),
    ],
)
def test_list_options_filter(database: Path, options: tuple[str, ...], shown: int) -> None:
    """Each option reaches the query; times are UTC unless they say otherwise."""
    later = session("f" * 16, time_ns=1_763_791_201_000_000_000, executor="other", region="FR", action="deny")
    record(database, [session(), later])
    assert len(json.loads(run(database, "list", "--json", *options).stdout)) == shown
    assert len(run(database, "list", *options).stdout.splitlines()) == shown + 1


def test_a_time_that_is_none_is_a_usage_error(database: Path) -> None:
    """`--since` says what it takes."""
    record(database, one_of_each())
    for wrong in ("yesterday", "5", "5y", "-1h", "2025-13-01"):
        error = failure(database, "list", "--since", wrong)
        assert isinstance(error, UsageError)
        assert "; give" in str(error)


def test_a_group_is_no_region_of_a_row(database: Path) -> None:
    """An empty list would read as if nothing had gone there."""
    record(database, one_of_each())
    for wrong in ("EEA", "Germany", "", "D%"):
        error = failure(database, "list", "--region", wrong)
        assert isinstance(error, UsageError)
        assert "is no country; give a code such as DE, of a group each member by itself" in str(error)


def test_show_has_every_fact_the_exact_text_and_what_came_of_it(database: Path) -> None:
    """An auditor reads who, where, why, the statement line by line, parameters, outcome and masked counts."""
    text = "SELECT *\n  FROM users\n WHERE id = $1"
    record(database, [session(), exchange(text=text, params=["4;2", None]), outcome(), session_end()])
    out = run(database, "show", SID[:4]).stdout
    for fact in (
        "agent (agent-1, cgroup /enforcer/agent-1)",
        "pid 4242, uid 1000 (runner), /usr/bin/psql",
        '"psql" "-h" "db"',
        "3.120.0.10:5432",
        "DE (country, 3.120.0.0/14)",
        "geo-whois 2025-11",
        "allow, rule eu-only/eea, generation 7",
        "2025-11-22 06:00:00.000000 UTC",
        "2025-11-22 06:00:02.000000 UTC, client closed, 14 bytes up, 60 down, 2000.0 ms",
        "#1 2025-11-22 06:00:00.500000 postgres Query: allow",
        "    SELECT *\n      FROM users\n     WHERE id = $1\n",
        'params   "4;2", NULL',
        'facts    database="shop"',
        "outcome  SELECT, 1 rows, 14 bytes up, 60 down, 1.5 ms",
        "masked   credit_card 2, users.ssn 1",
    ):
        assert fact in out


def test_a_direct_session_says_that_nobody_read_it(database: Path) -> None:
    """The list has `direct` for its protocol, the page its path; a session of the proxy says that. An attached executor
    was started as no user."""
    other = "f" * 16
    record(database, [session(protocol="direct", user=""), session_end(exchanges=0), session(other)])
    lines = run(database, "list", "--protocol", "direct").stdout.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [SID]
    assert " direct " in lines[1]
    page = run(database, "show", SID).stdout
    assert "path         direct: judged in the kernel, not read\n" in page
    assert "process      pid 4242, uid 1000, /usr/bin/psql\n" in page
    assert "path         proxy\n" in run(database, "show", other).stdout


def test_show_has_the_outcome_that_is_in_the_exchanges_own_row(database: Path) -> None:
    """A batched exchange looks no different from a durable one."""
    record(database, [session(), answered(), exchange(2), outcome(2, status="INSERT", failed=True), session_end()])
    lines = run(database, "show", SID).stdout.splitlines()
    assert [line.strip() for line in lines if "outcome  " in line or "masked   " in line] == [
        "outcome  SELECT, 1 rows, 14 bytes up, 60 down, 2.5 ms",
        "masked   email 4",
        "outcome  INSERT (failed), 1 rows, 14 bytes up, 60 down, 1.5 ms",
        "masked   credit_card 2, users.ssn 1",
    ]
    document = json.loads(run(database, "show", SID, "--json").stdout)
    assert [one["masked"] for one in document["exchanges"]] == [{"email": 4}, {"credit_card": 2, "users.ssn": 1}]


def test_show_escapes_what_a_terminal_would_obey(database: Path) -> None:
    """A hostile statement, parameter, fact, argument or status cannot move the cursor or reorder the text."""
    hostile = {
        "text": HOSTILE,
        "params": [HOSTILE],
        "facts": {HOSTILE: HOSTILE},
        "detail": HOSTILE,
        "operation": HOSTILE,
    }
    record(
        database,
        [
            session(argv=[HOSTILE], host=HOSTILE, exe=HOSTILE, unit=HOSTILE),
            exchange(**hostile),
            outcome(status=HOSTILE, masked={HOSTILE: 1}),
            answered(2, status=HOSTILE, masked={HOSTILE: 1}),
            session_end(cause=HOSTILE),
        ],
    )
    out = run(database, "show", SID).stdout
    assert out.replace("\n", "").isprintable()
    assert r"    SELECT '\x1b]0;owned\x07\x1b[8m\u202e\x9b2J\x0d' -- \u2028 \U000e0041" in out


def test_json_is_ascii_and_exact(database: Path) -> None:
    """`--json` gives back the very text, in characters that no terminal interprets."""
    record(database, [session(executor=HOSTILE), exchange(text=HOSTILE)])
    out = run(database, "show", SID, "--json").stdout
    assert out.isascii()
    assert out.replace("\n", "").isprintable()
    shown = json.loads(out)
    assert shown["exchanges"][0]["text"] == HOSTILE
    assert shown["executor"] == HOSTILE
    assert run(database, "list", "--json").stdout.isascii()


def test_show_says_what_is_missing(database: Path) -> None:
    """A live session, an exchange without outcome and a cut text are said to be so."""
    record(database, [session(), exchange()])
    out = run(database, "show", SID).stdout
    assert "ended        not yet" in out
    assert "outcome  none recorded" in out
    assert isinstance(failure(database, "show", "ffff"), RecordError)
    assert isinstance(failure(database, "show", "xyz"), UsageError)


def test_a_time_no_calendar_has_is_still_shown(database: Path) -> None:
    """A worker's absurd clock does not stop the listing."""
    record(database, [session(time_ns=2**63 - 1), session("f" * 16, time_ns=-(2**63))])
    assert run(database, "list").exit_code == 0
    assert run(database, "show", SID).exit_code == 0


def test_verify_prints_counts_and_head(database: Path) -> None:
    """A whole chain: rows per table, their sum, the head's number and hash, exit code 0; also for another file."""
    record(database, one_of_each())
    with closing(sqlite3.connect(database)) as connection:
        (digest,) = connection.execute("SELECT hash FROM chain_head").fetchone()
    for where, arguments in ((database, ()), (Path("/nonexistent"), (str(database),))):
        result = run(where, "verify", *arguments)
        assert result.exit_code == 0
        assert {"exchanges 2", "rows 7", f"head 7 {digest.hex()}"} <= {
            " ".join(line.split()) for line in result.stdout.splitlines()
        }
    document = json.loads(run(database, "verify", "--json").stdout)
    assert (document["head"], document["fault"]) == ({"seq": 7, "hash": digest.hex()}, None)


def test_verify_names_the_first_fault_and_fails(database: Path) -> None:
    """An altered row: RecordError (exit code 8) naming it, after the counts of what was verified before it."""
    record(database, one_of_each())
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("UPDATE outcomes SET masked = '{}' WHERE seq = 4")
        connection.commit()
    error = failure(database, "verify")
    assert (error.exit_code, "altered row: row 4 (outcomes)" in str(error)) == (8, True)
    result = run(database, "verify", "--json")
    assert isinstance(result.exception, RecordError)
    fault = json.loads(result.stdout)["fault"]
    assert (fault["kind"], fault["seq"], fault["table"]) == ("altered row", 4, "outcomes")


@pytest.mark.parametrize("arguments", [("list",), ("show", "ab"), ("verify",)])
def test_without_records_every_command_says_so(database: Path, arguments: tuple[str, ...]) -> None:
    """No database: the path, and the likely reason."""
    assert str(failure(database, *arguments)) == f"no records at {database}; is the supervisor running?"


@given(st.text())
def test_printable_text_has_nothing_a_terminal_obeys(text: str) -> None:
    """Whatever was recorded, the output has no control, format or separator character, and plain text is unchanged."""
    shown = printable(text)
    assert not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or c in "\u200e\u200f\u2028\u2029\u202e\u2066" for c in shown)
    if text.isprintable():
        assert shown == text


def test_a_table_too_wide_to_shrink_still_ends() -> None:
    """Cells that may not be shortened never make the layout loop."""
    header = tuple("0123456789")
    assert table(header, [("x" * 300,) * 10])
