"""Any text at all: no exception, and the quick way of reading texts says what the careful one says."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from enforcer.protocols.statement_facts import OPERATION, columns_of, facts_of, lineage_of, parameters_of
from enforcer.sql import shape
from enforcer.sql.shape import Doubtful

from .statements import STATEMENTS

WORDS = sorted({word for statement in STATEMENTS for word in statement.replace("(", " ( ").split()})
PIECES = [
    "'",
    "''",
    "'a'",
    '"',
    '"a"',
    "`",
    "`a`",
    "1",
    "1.5e3",
    ".5",
    "a1",
    "a.1",
    "E'x'",
    "U&'",
    "\\",
    "--",
    "/*",
    "*/",
]
DIALECTS = st.sampled_from(["postgres", "mysql"])
SOUP = st.lists(st.sampled_from(WORDS + PIECES), max_size=12).map(" ".join) | st.lists(
    st.sampled_from(
        [*PIECES, "a", "b", " ", "-", "+", "=", ",", "(", ")", "$", "?", "#", ";", "{", "\n", "é", "\u212a"]
    ),
    max_size=12,
).map("".join)


@given(text=SOUP | st.text(max_size=30), dialect=DIALECTS)
@example("SELECT $$ FROM t", "mysql")
@example("SELECT `$1` FROM t", "mysql")
@example("SELECT $99999999999999999999", "postgres")
@settings(max_examples=200, deadline=None)
def test_no_text_raises(text: str, dialect: str) -> None:
    """Whoever sends nonsense gets `unknown`, and the worker goes on."""
    assert isinstance(facts_of(text, dialect).get(OPERATION, ""), str)
    assert len(columns_of(text, dialect, ["a", "b"])) == 2
    lineage_of(text, dialect)
    parameters_of(text, dialect)


@given(cut=st.tuples(st.sampled_from(STATEMENTS), st.integers(0, 60), st.integers(0, 12)), dialect=DIALECTS)
@settings(max_examples=300, deadline=None)
def test_no_statement_of_which_a_piece_is_missing_raises(cut: tuple[str, int, int], dialect: str) -> None:
    """Words left out anywhere."""
    words = cut[0].split(" ")
    del words[cut[1] % len(words) : cut[1] % len(words) + cut[2]]
    assert facts_of(" ".join(words), dialect).get(OPERATION, "") is not None


@given(text=SOUP, dialect=DIALECTS)
@settings(max_examples=300, deadline=None)
def test_the_quick_way_reads_what_the_careful_one_reads(text: str, dialect: str) -> None:
    """Where it takes a text at all."""
    quick = shape._simple_shape(text, dialect)
    if quick is not None:
        try:
            careful = shape._shape(text, dialect)
        except Doubtful:
            careful = ""
        assert quick == careful
