"""Step 4 of 6, inspect: what a statement of SQL says of itself that a rule's `only` and column masks may ask for.

Gets a statement's text and its dialect (`postgres`, `mysql`); hands on a few short texts by name. What cannot be read
is `unknown` and has no other facts but why (`statement`). Pure but for a cache; never raises. sqlglot is imported with
the first statement.
"""

from __future__ import annotations

from collections.abc import Sequence

from enforcer.protocols.body_facts import SEPARATOR
from enforcer.sql.scopes import Items, Names, Output, Star, all_of
from enforcer.sql.shape import Doubtful, shape_of
from enforcer.sql.understanding import UNKNOWN, Understanding, understand

OPERATION, TABLE, COLUMN, FUNCTION = "operation", "table", "column", "function"
DATABASE, USER = "database", "user"
COMMAND = "command"
"""What databases of commands call theirs. A request that carries a statement has an operation; one with neither is of
the connection itself."""
DOUBT = "statement"

# Characters of one list of names.
LIST_LIMIT = 4000
# Results of one statement whose columns are remembered, by what the server calls them: there is one, usually. The
# characters of those names.
NAMED_CACHED, NAMES_CACHED = 2, 1024
JOINED = "\0"
"""Between the names of all columns that a cell comes from, in `Rows.columns`."""


def facts_of(text: str, dialect: str, *, database: str = "", user: str = "") -> dict[str, str]:
    """The facts of one request's text, which may hold several statements.

    `operation`: read, write, ddl, admin, unknown, in order of appearance. `table`: `schema.table` as written, `*` where
    a definition's tables are not known. `column`: `table.column`, `table.*`, or `column` of no known table. `function`:
    functions that are none of the server's own, and so may do anything. `database`: the one given, and those that a
    statement of MySQL names. `user`: as given."""
    understood = understand(text, dialect)
    facts = {**(understood.facts or _facts(understood))}
    if database:
        named = facts.get(DATABASE)
        facts[DATABASE] = f"{database}{SEPARATOR}{named}" if named and named != database else database
    if user:
        facts[USER] = user
    return facts


def is_utf8(raw: bytes) -> bool:
    """Is the text, or the name, one that is read for what it is?"""
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True


def illegible(text: str, dialect: str) -> dict[str, str]:
    """The facts of a text that was not UTF-8, as those of one that is not understood, where it has letters beyond ASCII
    outside of its literals and comments: no name of a rule could be told in them. None of any other."""
    try:
        if shape_of(text, dialect).isascii():
            return {}
    except Doubtful:
        return {}
    return {OPERATION: UNKNOWN, DOUBT: "it has names that are not in UTF-8"}


def lineage_of(text: str, dialect: str) -> tuple[tuple[str, ...], ...] | None:
    """For each column of the statement's result the columns it comes from; an empty name where that may be any. None
    where not all are known, as with `SELECT *`: `columns_of` says more then."""
    results = understand(text, dialect).results
    if len(results) != 1 or not results[0]:
        return None
    result = results[0]
    outputs = [item for item in result if isinstance(item, Output)]
    return tuple(tuple(sorted(item.sources)) for item in outputs) if len(outputs) == len(result) else None


def columns_of(text: str, dialect: str, names: Sequence[str], number: int = 0) -> tuple[str, ...]:
    """For `Rows.columns`: of each column of the result, which the server calls `names`, all columns it comes from,
    `JOINED`; the server's name where it comes from none; empty where nothing is known, which any rule hides. `number`:
    of which statement in the text it is the result, from 0."""
    understood = understand(text, dialect)
    asked = number, tuple(names)
    known = understood.named.get(asked)
    if known is None:
        known = _named(understood.results, number, names)
        if sum(map(len, names)) <= NAMES_CACHED:
            if len(understood.named) >= NAMED_CACHED:
                understood.named.clear()
            understood.named[asked] = known
    return known


def _named(results: tuple[Items | None, ...], number: int, names: Sequence[str]) -> tuple[str, ...]:
    result = results[number] if number < len(results) else None
    if result is None:
        return ("",) * len(names)
    sources = _aligned(result, names)
    return tuple(JOINED.join(sorted(found)) if found else name for found, name in zip(sources, names, strict=True))


def parameters_of(text: str, dialect: str) -> tuple[tuple[str, ...], ...]:
    """For each parameter the columns it is compared with or written to; none where that is not known."""
    return understand(text, dialect).parameters


def _aligned(result: Items, names: Sequence[str]) -> list[Names]:
    """What each column comes from. A `*` stands for as many columns as are left; where there are two, for what either
    says of a name."""
    stars = [number for number, item in enumerate(result) if isinstance(item, Star)]
    if not stars:
        unknown = len(result) != len(names)
        return [frozenset({""})] * len(names) if unknown else [all_of((item,)) for item in result]
    before, after = stars[0], len(result) - stars[-1] - 1
    if len(names) < before + after:
        return [frozenset({""})] * len(names)
    middle = result[before : len(result) - after]
    between = all_of(tuple(item for item in middle if isinstance(item, Output)))
    spread = [item for item in middle if isinstance(item, Star)]
    end = len(names) - after
    return [
        *(all_of((item,)) for item in result[:before]),
        *(between.union(*(star.of(name) for star in spread)) for name in names[before:end]),
        *(all_of((item,)) for item in result[len(result) - after :]),
    ]


def _facts(understood: Understanding) -> dict[str, str]:
    facts = understood.facts
    if understood.doubt:
        facts.update({OPERATION: UNKNOWN, DOUBT: understood.doubt})
        return facts
    lists = {
        OPERATION: understood.operations,
        TABLE: understood.tables,
        COLUMN: understood.columns,
        FUNCTION: understood.functions,
        DATABASE: understood.databases,
    }
    for name, words in lists.items():
        joined = SEPARATOR.join(words)
        if len(joined) > LIST_LIMIT or any("," in word or not word.isprintable() for word in words):
            facts.clear()
            facts.update({OPERATION: UNKNOWN, DOUBT: f"too many of {name}, or one that is no plain name"})
            return facts
        if joined:
            facts[name] = joined
    return facts
