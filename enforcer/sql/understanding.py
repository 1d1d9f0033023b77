"""Step 4 of 6, inspect: all that is known of a statement, cached by its text and by its shape.

The one entrance of this package that imports sqlglot, when the first statement is read. Never raises.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from enforcer.sql.scopes import Items
from enforcer.sql.shape import MYSQL, Doubtful, shape_of

if TYPE_CHECKING:
    from enforcer.sql.expressions import Reading as ReadingType

TEXTS_CACHED: Final = 2048
"""Texts whose reading is remembered: prepared statements and those without values."""

TEXT_CACHED: Final = 2048
"""Characters of a text that is remembered as a whole."""

RECENT_CACHED: Final = 256
"""Other texts that are remembered until their answers have come, which ask for them again."""

SHAPES_CACHED: Final = 4096
"""Shapes that are remembered: the statements of the applications behind one worker, with room. Some 4 KiB each."""

STATEMENTS: Final = 100
"""Statements in one text."""

UNKNOWN: Final = "unknown"


# Definitions may have a body, whose statements end in semicolons and are answered by nothing.
_BODIES: Final = frozenset({"ddl", "admin"})

# Of a parse tree of another form than any the parser was seen to make: to be in doubt is always right.
_UNFORESEEN: Final = (AttributeError, IndexError, KeyError, RecursionError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class Understanding:
    """What one text does. `results`: of each statement in it, in order, the output columns, None where they are not
    known; empty where it is not certain which of the server's answers is whose. `parameters`: the columns that each of
    them meets, in order. `doubt`: why it is not understood; then there is nothing else."""

    operations: tuple[str, ...]
    tables: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    functions: tuple[str, ...] = ()
    databases: tuple[str, ...] = ()
    results: tuple[Items | None, ...] = ()
    parameters: tuple[tuple[str, ...], ...] = ()
    doubt: str = ""
    facts: dict[str, str] = field(default_factory=dict, compare=False)
    named: dict[tuple[int, tuple[str, ...]], tuple[str, ...]] = field(default_factory=dict, compare=False)
    """Both for `statement_facts`, which fills them."""


_texts: dict[tuple[str, str], Understanding] = {}
_recent: dict[tuple[str, str], Understanding] = {}
_shapes: dict[tuple[str, str], Understanding] = {}


def understand(text: str, dialect: str) -> Understanding:
    """What `text` does, sent to a server of `dialect`."""
    key = (dialect, text)
    known = _texts.get(key) or _recent.get(key)
    if known is not None:
        return known
    try:
        shape = shape_of(text, dialect)
    except Doubtful as doubt:
        return Understanding((UNKNOWN,), doubt=str(doubt))
    by_shape = (dialect, shape)
    known = _shapes.get(by_shape)
    if known is None:
        if len(_shapes) >= SHAPES_CACHED:
            _shapes.clear()
        known = _shapes[by_shape] = _read(shape, dialect)
    if len(text) <= TEXT_CACHED:
        general = _is_general(text, shape)
        kept, most = (_texts, TEXTS_CACHED) if general else (_recent, RECENT_CACHED)
        if len(kept) >= most:
            kept.clear()
        kept[key] = known
    return known


def _is_general(text: str, shape: str) -> bool:
    """May the very same text come again? Prepared statements and those without values do."""
    return "$" in shape or shape == text


def _read(shape: str, dialect: str) -> Understanding:
    from enforcer.sql import statements  # noqa: PLC0415 - sqlglot, when the first statement comes
    from enforcer.sql.expressions import Reading  # noqa: PLC0415

    parts = [part for part in shape.split(";") if part.strip()]
    if len(parts) > STATEMENTS:
        return Understanding((UNKNOWN,), doubt=f"it is more than {STATEMENTS} statements")
    reading = Reading()
    results: list[Items | None] = []
    try:
        for part in parts:
            one = statements.read(part.strip(), dialect)
            reading.add(one)
            results.append(one.result)
    except Doubtful as doubt:
        return Understanding((UNKNOWN,), doubt=str(doubt))
    except _UNFORESEEN:
        return Understanding((UNKNOWN,), doubt="it is made as no statement that is read")
    count = max(reading.parameters, default=0)
    return Understanding(
        tuple(reading.operations),
        tuple(reading.tables),
        tuple(name for name in reading.columns if name),
        tuple(reading.functions),
        (*reading.databases, *(_databases(reading) if dialect == MYSQL else ())),
        tuple(results) if len(parts) == 1 or _BODIES.isdisjoint(reading.operations) else (),
        tuple(tuple(sorted(reading.parameters.get(number, ()))) for number in range(1, count + 1)),
    )


def _databases(reading: ReadingType) -> list[str]:
    """MySQL's schemas are its databases, and any statement may name one."""
    return list(
        dict.fromkeys(table.rpartition(".")[0] or table for table in reading.tables if "." in table or table == "*")
    )
