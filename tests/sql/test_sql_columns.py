"""Where result columns come from and what parameters meet, and how masks read that."""

from __future__ import annotations

import pytest

from enforcer.masking.fields import ColumnRules
from enforcer.protocols.statement_facts import columns_of, lineage_of, parameters_of
from enforcer.verdict import Column


@pytest.mark.parametrize(
    ("statement", "sources"),
    [
        ("SELECT ssn AS x, 1 FROM people p", (("people.ssn",), ())),
        ("SELECT upper(p.ssn) || o.iban FROM people p, orders o", (("orders.iban", "people.ssn"),)),
        ("SELECT ssn FROM people p, orders o", (("orders.ssn", "people.ssn"),)),
        ("WITH q (a) AS (SELECT ssn FROM people) SELECT a FROM q", (("people.ssn",),)),
        ("SELECT ssn FROM people UNION SELECT iban FROM orders", (("orders.iban", "people.ssn"),)),
        ("SELECT count(*), p FROM people p", ((), ("people.*", "people.p"))),
        ("SELECT mine(ssn) FROM people", (("", "people.ssn"),)),
        ("INSERT INTO people (ssn) VALUES ('x') RETURNING id", (("people.id",),)),
        ("SELECT * FROM people", None),
        ("DO 'x'", None),
        ("SELECT 1; SELECT 2", None),
    ],
)
def test_what_result_columns_come_from(statement: str, sources: tuple[tuple[str, ...], ...] | None) -> None:
    """An empty name is any column; None is a list whose length the text does not say."""
    assert lineage_of(statement, "postgres") == sources


@pytest.mark.parametrize(
    ("statement", "names", "columns"),
    [
        ("SELECT * FROM people", ["id", "ssn"], ("people.id", "people.ssn")),
        ("SELECT ssn AS a, p.*, 1 AS b FROM people p", ["a", "id", "b"], ("people.ssn", "people.id", "b")),
        ("SELECT * FROM people, orders", ["id"], ("orders.id\0people.id",)),
        ("SELECT p.*, ssn AS x, o.* FROM people p, orders o", ["id", "x", "n"], None),
        ("SELECT * FROM (SELECT ssn AS x, * FROM people) q", ["x", "id"], ("people.ssn", "people.id")),
        ("SELECT 1, 2", ["a"], ("",)),
        ("SELECT 1 FROM", ["a", "b"], ("", "")),
        ("SHOW work_mem", ["work_mem"], ("work_mem",)),
        ("SHOW search_path", ["search_path"], ("",)),
        ("SHOW my.own", ["my.own"], ("",)),
    ],
)
def test_columns_are_named_for_masks(statement: str, names: list[str], columns: tuple[str, ...] | None) -> None:
    """A `*` stands for what is left of the server's columns; between two of them a name may be of either."""
    known = columns_of(statement, "postgres", names)
    if columns is not None:
        assert known == columns
    else:
        assert all(
            {"orders." + name, "people." + name} <= set(one.split("\0")) for name, one in zip(names, known, strict=True)
        )
        assert all("people.ssn" in one.split("\0") for one in known)


@pytest.mark.parametrize(
    ("name", "hidden"),
    [
        ("people.ssn", True),
        ("public.people.ssn", True),
        ("ssn", True),
        ("people.*", True),
        ("*", True),
        ("", True),
        ("orders.id\0people.ssn", True),
        ("orders.id\0", True),
        ("orders.ssn", False),
        ("orders.*", False),
        ("orders.id\0people.id", False),
    ],
)
def test_a_rule_hides_what_may_come_from_its_column(name: str, hidden: bool) -> None:
    """One of several sources is enough, and so is not to know."""
    assert bool(ColumnRules((Column("people.ssn"),)).hidden((name,))) is hidden


@pytest.mark.parametrize(
    ("statement", "dialect", "met"),
    [
        ("SELECT id FROM people WHERE ssn = $2 AND id = $1", "postgres", (("people.id",), ("people.ssn",))),
        ("SELECT id FROM people WHERE lower(email) LIKE '%' || $1", "postgres", (("people.email",),)),
        ("SELECT id FROM people WHERE id IN ($1, $2) OR ssn BETWEEN $3 AND 'x'", "postgres",
         (("people.id",), ("people.id",), ("people.ssn",))),
        ("INSERT INTO people (id, ssn) VALUES ($1, $2), ($3, upper($4))", "postgres",
         (("people.id",), ("people.ssn",), ("people.id",), ("people.ssn",))),
        ("INSERT INTO people (ssn) SELECT $1 FROM orders", "postgres", (("people.ssn",),)),
        ("UPDATE people SET ssn = $1, (a, b) = ($2, 1) WHERE id = ANY($3)", "postgres",
         (("people.ssn",), ("people.a",), ("people.id",))),
        ("SELECT $1::int + 1, $2", "postgres", ((), ())),
        ("UPDATE people SET ssn = ? WHERE Id = ?", "mysql", (("people.ssn",), ("people.id",))),
        ("DO 'x'", "postgres", ()),
    ],
)  # fmt: skip
def test_what_parameters_meet(statement: str, dialect: str, met: tuple[tuple[str, ...], ...]) -> None:
    """The columns that each is compared with or written to."""
    assert parameters_of(statement, dialect) == met
