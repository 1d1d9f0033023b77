"""What is said of statements against what PostgreSQL's own parser makes of them: nothing that it sees is missing."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from enforcer.protocols.statement_facts import COLUMN, FUNCTION, OPERATION, TABLE, facts_of
from enforcer.sql.functions import effects

from .statements import STATEMENTS

pglast = pytest.importorskip("pglast")

# Debian's: views of the catalogue and functions of it, 150 queries of any complexity.
INSTALLED = Path("/usr/share/postgresql/15")
QUERY = re.compile(r"\bAS\s+((?:SELECT|WITH)\b.*)", re.DOTALL)

WRITING = {
    "InsertStmt": "write",
    "UpdateStmt": "write",
    "DeleteStmt": "write",
    "MergeStmt": "write",
    "TruncateStmt": "write",
    "NotifyStmt": "write",
    "RefreshMatViewStmt": "write",
    "LockingClause": "write",
    "IntoClause": "ddl",
    "CreateTableAsStmt": "ddl",
}
# Statements that neither change data nor what others see.
READING = {
    *("SelectStmt", "RawStmt", "TransactionStmt", "VariableShowStmt", "ClosePortalStmt", "FetchStmt"),
    *("ListenStmt", "UnlistenStmt", "DiscardStmt", "DeallocateStmt", "DeclareCursorStmt", "ExplainStmt"),
    *("LockStmt", "VariableSetStmt", "ConstraintsSetStmt", "PrepareStmt", "CopyStmt"),
}


def plain(node: Any) -> Any:
    return node(skip_none=True)


class Seen:
    """What the parse tree of one statement holds."""

    def __init__(self, tree: Any) -> None:
        self.operations: set[str] = set()
        self.tables: set[str] = set()
        self.columns: set[str] = set()
        self.functions: set[str] = set()
        self.kinds: set[str] = set()
        self._walk(tree, frozenset())

    def _walk(self, node: Any, ctes: frozenset[str]) -> None:
        if isinstance(node, (list, tuple)):
            for one in node:
                self._walk(one, ctes)
        if not isinstance(node, dict):
            return
        kind = node.get("@", "")
        if kind.endswith("Stmt"):
            self.kinds.add(kind)
        if kind in WRITING:
            self.operations.add(WRITING[kind])
        clause = node.get("withClause")
        if clause is not None:
            ctes = self._with(clause, ctes)
        if kind == "RangeVar":
            name = node["relname"]
            if "schemaname" in node or name not in ctes:
                self.tables.add(".".join(node[key] for key in ("catalogname", "schemaname", "relname") if key in node))
        elif kind == "ColumnRef":
            last = node["fields"][-1]
            self.columns.add(last["sval"] if last["@"] == "String" else "*")
        elif kind == "FuncCall":
            self.functions.add(".".join(part["sval"] for part in node["funcname"]))
        for key, value in node.items():
            # A locking clause names aliases.
            if key not in ("withClause", "lockedRels"):
                self._walk(value, ctes)

    def _with(self, clause: Any, ctes: frozenset[str]) -> frozenset[str]:
        names = [cte["ctename"] for cte in clause["ctes"]]
        if clause.get("recursive"):
            ctes |= set(names)
        for name, cte in zip(names, clause["ctes"], strict=True):
            self._walk(cte["ctequery"], ctes)
            ctes |= {name}
        return ctes


def listed(facts: dict[str, str], name: str) -> set[str]:
    return set(facts.get(name, "").split(", ")) - {""}


def missing(text: str) -> list[str]:
    """What PostgreSQL's parser sees in a text and the facts do not say; `unknown` says it all."""
    try:
        trees = [plain(raw.stmt) for raw in pglast.parse_sql(text)]
    except pglast.parser.ParseError:
        return []
    facts = facts_of(text, "postgres")
    said = listed(facts, OPERATION)
    if "unknown" in said:
        return []
    faults = []
    tables, columns, functions = listed(facts, TABLE), listed(facts, COLUMN), listed(facts, FUNCTION)
    names = {column.rpartition(".")[2] for column in columns}
    known = effects("postgres")
    for tree in trees:
        seen = Seen(tree)
        explained = tree["@"] == "ExplainStmt" and not any(
            option["defname"] == "analyze" for option in tree.get("options", ())
        )
        if not explained and not said & {"ddl", "admin"}:
            faults += [f"operation {one}" for one in seen.operations - said]
        if said <= {"read", "write"} and not seen.kinds - {"RawStmt"} <= READING | set(WRITING):
            faults.append(f"statements {seen.kinds}")
        if "*" not in tables:
            faults += [f"table {one}" for one in seen.tables - tables]
        for name in seen.functions:
            bare = name.removeprefix("pg_catalog.")
            if bare not in known and name not in functions and "*" not in tables:
                faults.append(f"function {name}")
            elif known.get(bare, "read") != "read" and known[bare] not in said and not said & {"ddl", "admin"}:
                faults.append(f"function {name} {known[bare]}")
        # A column that is no column of ours is an alias of an output, or comes from a query within.
        faults += [] if "*" in columns else [f"column {one}" for one in seen.columns - names if one in OF_TABLES]
    return faults


# Columns that the statements below take for those of tables alone.
OF_TABLES = {"ssn", "email", "salary", "iban"}


@pytest.mark.parametrize("text", STATEMENTS)
def test_nothing_that_postgres_sees_is_missing(text: str) -> None:
    """Every change, table, function and telling column of the parse tree is in the facts, or they are unknown."""
    assert missing(text) == []


def test_most_statements_are_understood() -> None:
    """To call everything unknown would be safe, and of no use."""
    understood = [text for text in STATEMENTS if facts_of(text, "postgres").get(OPERATION) != "unknown"]
    assert len(understood) > 0.9 * len(STATEMENTS)


def installed() -> Iterator[str]:
    for name in ("system_views.sql", "information_schema.sql"):
        path = INSTALLED / name
        if path.is_file():
            for raw in pglast.split(path.read_text("utf-8")):
                found = QUERY.search(raw)
                if raw.lstrip().upper().startswith("CREATE VIEW") and found is not None:
                    yield found[1]


def test_nothing_is_missing_in_postgres_own_views() -> None:
    """The queries behind the catalogue's views are understood, but for a few, and nothing of them is missing."""
    queries = list(installed())
    if not queries:
        pytest.skip("PostgreSQL 15 is not installed")
    faults = {query[:80]: found for query in queries if (found := missing(query))}
    assert faults == {}
    unknown = [query for query in queries if facts_of(query, "postgres").get(OPERATION) == "unknown"]
    assert len(unknown) < 0.05 * len(queries), unknown
