"""Step 4 of 6, inspect: expressions of SQL: the columns they touch, the functions they call, the parameters in them.

Gets nodes of a parsed statement with the scope they are in; hands on what their value comes from, and writes the rest
down in a `Reading`. Nothing of the schema is known: a column that may be of several tables is taken to be of each.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Final

from sqlglot import exp

from enforcer.sql import functions, settings
from enforcer.sql.functions import ADMIN, READ, WRITE
from enforcer.sql.names import folded, folded_column
from enforcer.sql.scopes import ANYTHING, NOTHING, Items, Names, Scope, all_of
from enforcer.sql.shape import Doubtful

# What the values of session settings and variables come from was said in another statement.
_REMEMBERED: Final = frozenset({"current_setting"})

MAX_WORK: Final = 100_000
"""Names that are looked at for one statement: of each column each table that it may be of. A tenth of a second."""

MAX_DIGITS: Final = 5
"""Of a parameter's number: both protocols count 65,535 of them."""

# What has no place within an expression.
_REFUSED: Final = (exp.DDL, exp.DML, exp.Command, exp.Table)


@dataclass(slots=True)
class Reading:
    """What a statement does. The dictionaries are ordered sets. `databases`: those that it names. `result`: the columns
    it returns, None where they are not known. `parameters`: number -> the columns it meets or is written to."""

    operations: dict[str, None] = field(default_factory=dict)
    tables: dict[str, None] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    functions: dict[str, None] = field(default_factory=dict)
    databases: dict[str, None] = field(default_factory=dict)
    parameters: dict[int, set[str]] = field(default_factory=dict)
    result: Items | None = None

    def add(self, other: Reading) -> None:
        self.operations.update(other.operations)
        self.tables.update(other.tables)
        self.columns.update(other.columns)
        self.functions.update(other.functions)
        self.databases.update(other.databases)
        for number, names in other.parameters.items():
            self.parameters.setdefault(number, set()).update(names)


class Expressions:
    """Reads the expressions of one parsed statement of `dialect`; what they are in is read by who derives from it."""

    def __init__(self, dialect: str) -> None:
        self.reading = Reading()
        self._dialect = dialect
        self._effects = functions.effects(dialect)
        self._work = 0

    def _statement(self, node: Any, outer: Scope | None) -> Items:
        """A query or a change of data within another; its output columns."""
        raise NotImplementedError

    def _spend(self, names: int) -> None:
        self._work += names
        if self._work > MAX_WORK:
            raise Doubtful("it has more columns and tables than are read")

    def _does(self, operation: str) -> None:
        self.reading.operations[operation] = None

    def _expression(self, node: Any, scope: Scope) -> Names:
        """What the value of an expression comes from; everything in it is touched."""
        if not isinstance(node, exp.Expression):
            return NOTHING
        if isinstance(node, exp.Column):
            return self._column(node, scope)
        if isinstance(node, (exp.Literal, exp.DataType, exp.Identifier, exp.Star, exp.Var, exp.Null, exp.Boolean)):
            return NOTHING
        if isinstance(node, exp.Query):
            return all_of(self._statement(node, scope))
        if isinstance(node, exp.Anonymous):
            return self._function(node, scope)
        if isinstance(node, _REFUSED):
            raise Doubtful(f"{type(node).__name__} in an expression is not read")
        if isinstance(node, exp.Parameter):
            return ANYTHING
        if isinstance(node, exp.Dot):
            return self._dot(node, scope)
        sources = self._rest(node, scope, skip=())
        if isinstance(node, (exp.Binary, exp.In, exp.Between)) and not isinstance(node, exp.Connector):
            self._compared(node, scope)
        return sources

    def _rest(self, node: Any, scope: Scope, *, skip: tuple[str, ...]) -> Names:
        """All parts of a node but those that were read already."""
        found: set[str] = set()
        for name, value in node.args.items():
            if name in skip or value is None or isinstance(value, (str, bool, int)):
                continue
            for one in value if isinstance(value, list) else [value]:
                found |= self._expression(one, scope)
        return frozenset(found)

    def _column(self, node: exp.Column, scope: Scope) -> Names:
        if isinstance(node.this, exp.Star):
            source = scope.source(self._table_name(node))
            sources = all_of(source.items) if source is not None else ANYTHING
            self._touch(sources)
            return sources
        name = self._column_of(node.this)
        self._spend(scope.width)
        number = _parameter(node)
        if number:
            self.reading.parameters.setdefault(number, set())
            return NOTHING
        if not node.args.get("table"):
            sources = scope.column(name)
            if not sources and not any(s.has(name) for s in scope.sources):
                row = scope.source(self._name(node.this))
                sources = all_of(row.items) if row is not None else frozenset({name})
            elif (row := scope.source(self._name(node.this))) is not None:
                sources |= all_of(row.items)  # the whole row, by the table's name
            self._touch(sources)
            return sources
        source = scope.source(self._table_name(node))
        # Else of a composite value, or of a table that is not there.
        sources = source.of(name) if source is not None else self._by_full_name(node, name, scope)
        self._touch(sources)
        return sources

    def _by_full_name(self, node: exp.Column, name: str, scope: Scope) -> Names:
        row = scope.column(self._column_of(node.args["table"]))
        return row | {name}

    def _dot(self, node: exp.Dot, scope: Scope) -> Names:
        """A function of a schema, or a field of a row."""
        if isinstance(node.expression, exp.Anonymous):
            return self._function(node.expression, scope, schema=self._schema(node.this))
        if isinstance(node.expression, exp.Func):
            raise Doubtful("a function of a schema that is a form of the grammar")
        sources = self._expression(node.this, scope)
        if isinstance(node.expression, exp.Identifier):
            sources |= {self._column_of(node.expression)}
            self._touch(sources)
        return sources

    def _function(self, node: exp.Anonymous, scope: Scope, schema: str = "") -> Names:
        name = self._function_name(node)
        sources = self._rest(node, scope, skip=("this",))
        known = self._effects.get(name) if schema in ("", "pg_catalog") else None
        if known is None:
            self.reading.functions[f"{schema}.{name}" if schema else name] = None
            return sources | ANYTHING
        if name == "set_config" and _sets_what_is_harmless(node):
            known = READ
        if name == "last_insert_id" and node.expressions:
            known = WRITE  # it keeps what it is given
        if known != READ:
            self._does(known)
        return sources | ANYTHING if known == ADMIN or name in _REMEMBERED else sources

    def _compared(self, node: Any, scope: Scope) -> None:
        """Parameters meet the columns on the other side."""
        sides = [side for value in node.args.values() for side in (value if isinstance(value, list) else [value])]
        sides = [side for side in sides if isinstance(side, exp.Expression)]
        for side in sides:
            if self._parameters_in(side):
                for other in sides:
                    if other is not side and not self._parameters_in(other):
                        self._meets(side, self._quietly(other, scope))

    def _quietly(self, node: Any, scope: Scope) -> Names:
        """As `_expression`: what is touched again is touched already."""
        return self._expression(node, scope) if not isinstance(node, exp.Query) else NOTHING

    def _meets(self, node: Any, columns: Names) -> None:
        for number in self._parameters_in(node):
            self.reading.parameters.setdefault(number, set()).update(columns)

    @staticmethod
    def _parameters_in(node: Any) -> list[int]:
        if not isinstance(node, exp.Expression) or isinstance(node, exp.Query):
            return []
        return [number for column in node.find_all(exp.Column) if (number := _parameter(column))]

    # Names.

    def _touch(self, names: Collection[str]) -> None:
        self._spend(len(names))
        self.reading.columns.update(dict.fromkeys(sorted(names)))

    def _name(self, node: Any) -> str:
        return folded(node.name, bool(node.args.get("quoted")), self._dialect) if node is not None else ""

    def _column_of(self, node: Any) -> str:
        return folded_column(node.name, bool(node.args.get("quoted")), self._dialect) if node is not None else ""

    def _alias(self, node: Any) -> str:
        alias = node.args.get("alias")
        return self._name(alias.this) if alias is not None and alias.this is not None else ""

    def _table_name(self, column: exp.Column) -> str:
        return self._name(column.args.get("table"))

    def _qualified(self, node: exp.Table) -> str:
        parts = [part for part in (node.args.get("catalog"), node.args.get("db"), node.this) if part is not None]
        return ".".join(self._plain(self._name(part)) for part in parts)

    def _schema(self, node: Any) -> str:
        if isinstance(node, exp.Column) and not node.args.get("table"):
            node = node.this
        if not isinstance(node, exp.Identifier):
            raise Doubtful("a function whose schema is not read")
        return self._name(node)

    def _function_name(self, node: exp.Anonymous) -> str:
        this = node.this
        if isinstance(this, exp.Identifier):
            return folded(this.name, True, self._dialect)
        return str(this).lower()

    @staticmethod
    def _plain(name: str) -> str:
        if not name or any(sign in name for sign in ".,*\0"):
            raise Doubtful("a name that is no plain name")
        return name


def _sets_what_is_harmless(node: exp.Anonymous) -> bool:
    arguments: list[Any] = [*node.expressions, None, None]
    name, value = arguments[:2]
    if isinstance(name, exp.Column):
        name = _pinned(name, node)
    if not isinstance(name, exp.Literal) or not isinstance(value, exp.Literal):
        return False
    return settings.is_harmless(name.name.lower(), f"'{value.name}'")


def _pinned(column: exp.Column, node: exp.Anonymous) -> Any:
    """The literal that a column can only be where `node` is computed for it: `SELECT f(c) FROM t WHERE c = 'literal'`,
    as pg_dump sets what not every server has."""
    select = node.parent
    where = select.args.get("where") if isinstance(select, exp.Select) and node.arg_key == "expressions" else None
    condition = where.this if where is not None else None
    return condition.expression if isinstance(condition, exp.EQ) and condition.this == column else None


def _parameter(column: exp.Column) -> int:
    """Its number, which a shape has as a name in quotes; 0 for a real column."""
    name = column.this
    if not isinstance(name, exp.Identifier) or not name.args.get("quoted") or not name.name.startswith("$"):
        return 0
    digits = name.name[1:]
    return int(digits) if digits.isdecimal() and len(digits) <= MAX_DIGITS else 0
