"""Step 4 of 6, inspect: queries and changes of data: which tables and columns they touch, and where each column of
their result comes from.

Gets one statement's shape; hands on a `Reading`, or raises `Doubtful`. Nothing of the schema is known: a column that
may be of several tables is taken to be of each of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from sqlglot import exp

from enforcer.sql import functions
from enforcer.sql.names import folded, folded_column
from enforcer.sql.scopes import ANYTHING, NOTHING, Items, Names, Output, Scope, Source, Star, all_of, union
from enforcer.sql.shape import MYSQL, POSTGRES, Doubtful

READ, WRITE, DDL, ADMIN, UNKNOWN = "read", "write", "ddl", "admin", "unknown"

_ROUNDS: Final = 6
"""How often a recursive query is read, until nothing new comes through it."""

# What the values of session settings and variables come from was said in another statement.
_REMEMBERED: Final = frozenset({"current_setting", "currval", "lastval"})

# What has no place within an expression.
_REFUSED: Final = (exp.DDL, exp.DML, exp.Command, exp.Table)

# Parts of a query that are read in an order of their own.
_CLAUSES: Final = ("from_", "joins", "laterals", "with_", "expressions", "order", "group", "having", "locks", "into")


@dataclass(slots=True)
class Reading:
    """What a statement does. The dictionaries are ordered sets. `result`: the columns it returns, None where that is
    not known. `parameters`: number -> the columns it is compared with or written to."""

    operations: dict[str, None] = field(default_factory=dict)
    tables: dict[str, None] = field(default_factory=dict)
    columns: dict[str, None] = field(default_factory=dict)
    functions: dict[str, None] = field(default_factory=dict)
    parameters: dict[int, set[str]] = field(default_factory=dict)
    result: Items | None = None

    def add(self, other: Reading) -> None:
        self.operations.update(other.operations)
        self.tables.update(other.tables)
        self.columns.update(other.columns)
        self.functions.update(other.functions)
        for number, names in other.parameters.items():
            self.parameters.setdefault(number, set()).update(names)


class Reader:
    """Reads one parsed statement of `dialect`."""

    def __init__(self, dialect: str) -> None:
        self.reading = Reading()
        self._dialect = dialect
        self._effects = functions.effects(dialect)
        self._ctes: list[dict[str, Items]] = []

    def read(self, statement: exp.Expression) -> Reading:
        """Raises Doubtful where something in it is not understood."""
        self.reading.result = self._statement(statement, None)
        return self.reading

    # Statements.

    def _statement(self, node: Any, outer: Scope | None) -> Items:
        """A query or a change of data, also within another; its output columns."""
        pushed = self._with(node.args.get("with_"), outer)
        try:
            if isinstance(node, exp.Insert):
                return self._insert(node, outer)
            if isinstance(node, exp.Update):
                return self._update(node, outer)
            if isinstance(node, exp.Delete):
                return self._delete(node, outer)
            if isinstance(node, exp.Merge):
                return self._merge(node, outer)
            return self._query(node, outer)
        finally:
            if pushed:
                self._ctes.pop()

    def _does(self, operation: str) -> None:
        self.reading.operations[operation] = None

    def _query(self, node: Any, outer: Scope | None) -> Items:
        if isinstance(node, exp.SetOperation):
            return self._set_operation(node, outer)
        if isinstance(node, exp.Select):
            return self._select(node, outer)
        if isinstance(node, exp.Values):
            self._does(READ)
            return self._values(node, Scope(outer))
        if isinstance(node, (exp.Subquery, exp.Paren)):
            items = self._statement(node.this, outer)
            self._rest(node, Scope(outer, [Source("", items)]), skip=("this", "with_", "alias", "joins"))
            return items
        if isinstance(node, exp.Table):
            scope = Scope(outer)
            self._from(node, scope)
            return scope.star()
        raise Doubtful(f"{type(node).__name__} is not a statement that is read")

    def _set_operation(self, node: exp.SetOperation, outer: Scope | None) -> Items:
        left = self._statement(node.this, outer)
        right = self._statement(node.expression, outer)
        if node.args.get("on") or node.args.get("by_name"):
            raise Doubtful("a set operation by name")
        items = union(left, right)
        self._rest(node, Scope(outer, [Source("", items)]), skip=("this", "expression", "with_"))
        return items

    def _select(self, node: exp.Select, outer: Scope | None) -> Items:
        self._does(READ)
        if node.args.get("into") is not None:
            self._into(node.args["into"])
        scope = Scope(outer)
        from_ = node.args.get("from_")
        if from_ is not None:
            self._from(from_.this, scope)
        for join in node.args.get("joins") or ():
            self._join(join, scope)
        for lateral in node.args.get("laterals") or ():
            self._from(lateral, scope)
        items = tuple(item for expression in node.expressions for item in self._items(expression, scope))
        aliases = {item.name for item in items if isinstance(item, Output) and item.name}
        for lock in node.args.get("locks") or ():
            if lock.args.get("update") is not None:
                self._does(WRITE)
        for part in ("group", "having", "order"):
            by_alias = part == "order" or (part == "having" and self._dialect == MYSQL)
            self._ordered(node.args.get(part), scope, aliases if by_alias else set())
        self._rest(node, scope, skip=_CLAUSES)
        return items

    def _into(self, into: exp.Into) -> None:
        """SELECT INTO makes a table; MySQL's variables are the session's."""
        target = into.this
        if isinstance(target, exp.Table) and isinstance(target.this, exp.Identifier):
            self._does(DDL)
            self._target(target)
        elif self._dialect != MYSQL or not isinstance(getattr(target, "this", None), exp.Parameter):
            raise Doubtful("INTO what is not known")

    def _ordered(self, node: Any, scope: Scope, aliases: set[str]) -> None:
        """GROUP BY, HAVING and ORDER BY; a name alone may be that of an output column, which has been read."""
        if node is None:
            return
        for ordered in node.expressions or [node.this]:
            inner = ordered.this if isinstance(ordered, exp.Ordered) else ordered
            if isinstance(inner, exp.Column) and not inner.args.get("table") and self._name(inner.this) in aliases:
                continue
            self._expression(ordered, scope)
        self._rest(node, scope, skip=("expressions",) if node.expressions else ("this",))

    def _items(self, expression: exp.Expression, scope: Scope) -> Items:
        """One entry of a select list: a column, or as many as a `*` stands for."""
        name = ""
        if isinstance(expression, exp.Alias):
            name = self._name(expression.args.get("alias"))
            expression = expression.this
        if isinstance(expression, exp.Star):
            items = scope.star()
            self._touch(all_of(tuple(item for item in items if isinstance(item, Star))))
            return items
        if isinstance(expression, exp.Column) and isinstance(expression.this, exp.Star):
            return self._table_star(expression, scope)
        sources = self._expression(expression, scope)
        if isinstance(expression, exp.Dot) and isinstance(expression.expression, exp.Star):
            return (Star(other=sources | ANYTHING),)
        if not name and isinstance(expression, exp.Column):
            name = self._name(expression.this)
        return (Output(name, sources),)

    def _table_star(self, column: exp.Column, scope: Scope) -> Items:
        source = scope.source(self._table_name(column))
        if source is None:
            raise Doubtful("a table that is not in the query")
        self._touch(all_of(tuple(item for item in source.items if isinstance(item, Star))))
        return source.items

    def _values(self, node: exp.Values, scope: Scope) -> Items:
        rows = [
            [self._expression(cell, scope) for cell in (row.expressions if isinstance(row, exp.Tuple) else [row])]
            for row in node.expressions
        ]
        width = max(map(len, rows), default=0)
        self._rest(node, scope, skip=("expressions", "alias"))
        return tuple(
            Output(f"column{number + 1}", NOTHING.union(*(row[number] for row in rows if number < len(row))))
            for number in range(width)
        )

    # Changes of data.

    def _insert(self, node: exp.Insert, outer: Scope | None) -> Items:
        self._does(WRITE)
        schema = node.this
        target = schema.this if isinstance(schema, exp.Schema) else schema
        table, scope = self._target_scope(target, outer)
        columns = [self._column_of(one) for one in schema.expressions] if isinstance(schema, exp.Schema) else None
        self._touch([f"{table}.{name}" for name in columns] if columns else [f"{table}.*"])
        rows = node.args.get("expression")
        if isinstance(rows, exp.Values):
            self._values(rows, Scope(outer))
            if columns:
                for row in rows.expressions:
                    self._write(columns, row.expressions if isinstance(row, exp.Tuple) else [row], table)
        elif rows is not None:
            self._statement(rows, outer)
            if columns and isinstance(rows, exp.Select):
                self._write(columns, rows.expressions, table)
        conflict = node.args.get("conflict")
        if conflict is not None:
            scope.sources.append(Source("excluded", (Star((table,)),)))
            for entry in conflict.args.get("expressions") or ():
                self._assign(entry, scope)
            self._rest(conflict, scope, skip=("expressions", "constraint", "action"))
            del scope.sources[-1]
        self._rest(node, scope, skip=("this", "expression", "conflict", "returning", "with_", "alias"))
        return self._returning(node, scope)

    def _update(self, node: exp.Update, outer: Scope | None) -> Items:
        self._does(WRITE)
        _, scope = self._target_scope(node.this, outer)
        from_ = node.args.get("from_")
        if from_ is not None:
            self._from(from_.this, scope)
        for join in node.args.get("joins") or ():
            self._join(join, scope)
        for entry in node.expressions:
            self._assign(entry, scope)
        self._rest(node, scope, skip=("this", "from_", "joins", "expressions", "returning", "with_"))
        return self._returning(node, scope)

    def _delete(self, node: exp.Delete, outer: Scope | None) -> Items:
        self._does(WRITE)
        scope = Scope(outer)
        using, targets = node.args.get("using") or [], node.args.get("tables") or []
        if node.this is not None:
            table, scope = self._target_scope(node.this, outer)
            if not targets and table:
                self._touch([f"{table}.*"])
        for entry in using:
            self._from(entry, scope)
        for target in targets:  # tables of FROM, by name or alias
            source = scope.source(self._name(target.this))
            self._touch(all_of(source.items) if source is not None else [f"{self._target(target)}.*"])
        self._rest(node, scope, skip=("this", "using", "tables", "returning", "with_"))
        return self._returning(node, scope)

    def _merge(self, node: exp.Merge, outer: Scope | None) -> Items:
        self._does(WRITE)
        table, scope = self._target_scope(node.this, outer)
        self._touch([f"{table}.*"])
        self._from(node.args["using"], scope)
        self._expression(node.args.get("on"), scope)
        whens = node.args.get("whens")
        for when in whens.expressions if whens is not None else ():
            then = when.args.get("then")
            if isinstance(then, exp.Insert):
                for part in (then.this, then.args.get("expression")):
                    if isinstance(part, exp.Tuple):
                        self._rest(part, scope if part is not then.this else Scope(None, [scope.sources[0]]), skip=())
            elif isinstance(then, exp.Update):
                for entry in then.expressions:
                    self._assign(entry, scope)
            self._expression(when.args.get("condition"), scope)
        return self._returning(node, scope)

    def _returning(self, node: Any, scope: Scope) -> Items:
        returning = node.args.get("returning")
        if returning is None:
            return ()
        return tuple(item for expression in returning.expressions for item in self._items(expression, scope))

    def _assign(self, entry: Any, scope: Scope) -> None:
        """`column = value`, or `(columns) = (values)`."""
        if not isinstance(entry, exp.EQ):
            raise Doubtful("an assignment that is not read")
        targets = entry.this.expressions if isinstance(entry.this, exp.Tuple) else [entry.this]
        value = entry.expression
        values = value.expressions if isinstance(value, exp.Tuple) and isinstance(entry.this, exp.Tuple) else [value]
        # A name without its table is of the first: the target.
        target_scope = Scope(None, scope.sources[:1]) if self._dialect == POSTGRES else scope
        found = [self._expression(target, target_scope) for target in targets]
        self._expression(value, scope)
        for number, one in enumerate(values):
            self._meets(one, found[number] if len(values) == len(found) else NOTHING.union(*found))

    def _write(self, columns: list[str], values: list[Any], table: str) -> None:
        for name, value in zip(columns, values, strict=False):
            self._meets(value, frozenset({f"{table}.{name}"}))

    def _target_scope(self, node: Any, outer: Scope | None) -> tuple[str, Scope]:
        """The table that is changed, and the scope it opens."""
        scope = Scope(outer)
        if not isinstance(node, exp.Table):
            raise Doubtful("what is changed is not a table")
        table = self._target(node)
        alias = self._alias(node) or self._name(node.this)
        scope.sources.append(Source(alias, (Star((table,)),), table))
        for join in node.args.get("joins") or ():
            self._join(join, scope)
        self._rest(node, scope, skip=("this", "db", "catalog", "alias", "joins"))
        return table, scope

    def _target(self, node: exp.Table) -> str:
        if not isinstance(node.this, exp.Identifier):
            raise Doubtful("a table that has no name")
        table = self._qualified(node)
        self.reading.tables[table] = None
        return table

    # The FROM clause.

    def _with(self, node: Any, outer: Scope | None) -> bool:
        """Reads common table expressions; those that follow, and the statement itself, see them."""
        if node is None:
            return False
        ctes: dict[str, Items] = {}
        self._ctes.append(ctes)
        recursive = bool(node.args.get("recursive"))
        if recursive:  # each may refer to any other, in whatever order they come
            ctes.update((self._alias(cte), (Star(other=ANYTHING),)) for cte in node.expressions)
        for cte in node.expressions:
            name = self._alias(cte)
            items = self._recursive(cte, name, ctes, outer) if recursive else self._cte(cte, outer)
            ctes[name] = items
        self._rest(node, Scope(outer), skip=("expressions", "recursive"))
        return True

    def _cte(self, cte: exp.CTE, outer: Scope | None) -> Items:
        return self._renamed(cte, self._statement(cte.this, outer))

    def _recursive(self, cte: exp.CTE, name: str, ctes: dict[str, Items], outer: Scope | None) -> Items:
        query = cte.this
        if isinstance(query, exp.Subquery):
            query = query.this
        if not isinstance(query, exp.SetOperation):
            return self._cte(cte, outer)
        items = self._renamed(cte, self._statement(query.this, outer))
        for _ in range(_ROUNDS):
            ctes[name] = items
            again = self._cte(cte, outer)
            if again == items:
                return items
            items = again
        return tuple(
            Output(item.name, ANYTHING) if isinstance(item, Output) else Star(other=ANYTHING) for item in items
        )

    def _join(self, join: Any, scope: Scope) -> None:
        if not isinstance(join, exp.Join):
            raise Doubtful("a join that is not read")
        self._from(join.this, scope)
        if join.args.get("method") == "NATURAL" or join.args.get("using"):
            scope.merged = True
        for column in join.args.get("using") or ():
            self._touch(scope.column(self._column_of(column)))
        self._rest(join, scope, skip=("this", "using"))

    def _from(self, node: Any, scope: Scope) -> None:
        """One entry of FROM, and what is joined to it."""
        if isinstance(node, exp.Table):
            self._table(node, scope)
        elif isinstance(node, exp.Subquery) and isinstance(node.this, (exp.Table, exp.Subquery)) and _is_join(node):
            inner = Scope(scope.outer)
            self._from(node.this, inner)
            if node.args.get("alias") is not None:
                scope.sources.append(Source(self._alias(node), self._renamed(node, inner.star())))
            else:
                scope.sources.extend(inner.sources)
                scope.merged |= inner.merged
        elif isinstance(node, exp.Subquery):
            items = self._renamed(node, self._statement(node, scope.outer))
            scope.sources.append(Source(self._alias(node), items))
        elif isinstance(node, exp.Values):
            items = self._renamed(node, self._values(node, Scope(scope.outer)))
            scope.sources.append(Source(self._alias(node), items))
        elif isinstance(node, exp.Lateral) and isinstance(node.this, exp.Subquery):
            items = self._renamed(node, self._statement(node.this, scope))
            scope.sources.append(Source(self._alias(node), items))
        elif isinstance(node, (exp.Lateral, exp.Unnest, exp.Func)):
            self._computed(node, scope)
        else:
            raise Doubtful(f"{type(node).__name__} in FROM is not read")
        for join in node.args.get("joins") or ():
            self._join(join, scope)

    def _table(self, node: exp.Table, scope: Scope) -> None:
        this = node.this
        if not isinstance(this, exp.Identifier):
            self._computed(node, scope)
            return
        self._rest(node, scope, skip=("this", "db", "catalog", "alias", "joins", "only"))
        alias = self._alias(node) or self._name(this)
        common = self._common(this.name, bool(this.args.get("quoted"))) if not node.args.get("db") else None
        if common is not None:
            scope.sources.append(Source(alias, self._renamed(node, common)))
            return
        table = self._qualified(node)
        self.reading.tables[table] = None
        renames = _alias_columns(node)
        items: Items = (Star(other=frozenset({f"{table}.*"})),) if renames else (Star((table,)),)
        scope.sources.append(Source(alias, items, table))

    def _computed(self, node: Any, scope: Scope) -> None:
        """A function in FROM: whatever it gives comes from what it is given."""
        sources = self._rest(node, scope, skip=("alias", "joins"))
        alias = self._alias(node)
        if not alias and isinstance(node, exp.Table) and isinstance(node.this, exp.Anonymous):
            alias = self._function_name(node.this)
        # A single column has its name, or one that the alias gives.
        names = [self._column_of(name) for name in _alias_columns(node)] or [alias]
        scope.sources.append(Source(alias, (Star((), tuple(Output(name, sources) for name in names), sources),)))

    def _common(self, name: str, quoted: bool) -> Items | None:
        wanted = folded(name, quoted, self._dialect)
        for ctes in reversed(self._ctes):
            for known, items in ctes.items():
                if known == wanted or (self._dialect == MYSQL and known.lower() == wanted.lower()):
                    return items
        return None

    def _renamed(self, node: Any, items: Items) -> Items:
        """With the names that `AS alias(names)` gives."""
        names = [self._column_of(name) for name in _alias_columns(node)]
        if not names:
            return items
        if any(isinstance(item, Star) for item in items):
            return (Star(other=all_of(items)),)
        outputs = [item for item in items if isinstance(item, Output)]
        return tuple(
            Output(names[number] if number < len(names) else output.name, output.sources)
            for number, output in enumerate(outputs)
        )

    # Expressions.

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
        if name.startswith("$"):
            number = int(name[1:])
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
        if source is not None:
            sources = source.of(name)
        else:  # of a composite value, or of a table by its full name
            sources = self._by_full_name(node, name, scope)
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
        return [
            int(column.name[1:])
            for column in node.find_all(exp.Column)
            if column.name.startswith("$") and column.name[1:].isdigit()
        ]

    # Names.

    def _touch(self, names: Iterable[str]) -> None:
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


def _alias_columns(node: Any) -> list[Any]:
    alias = node.args.get("alias")
    return list(alias.args.get("columns") or ()) if isinstance(alias, exp.TableAlias) else []


def _is_join(node: exp.Subquery) -> bool:
    """Is it a join in parentheses, not a query?"""
    inner = node.this
    return isinstance(inner, exp.Table) or inner.args.get("alias") is not None or bool(inner.args.get("joins"))
