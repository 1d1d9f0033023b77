"""Step 4 of 6, inspect: queries and changes of data: which tables and columns they touch, and where each column of
their result comes from.

Gets one statement's shape; hands on a `Reading`, or raises `Doubtful`. Nothing of the schema is known: a column that
may be of several tables is taken to be of each of them.
"""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp

from enforcer.sql.expressions import Reading
from enforcer.sql.functions import READ, WRITE
from enforcer.sql.scopes import ANYTHING, NOTHING, Items, Output, Scope, Source, Star, all_of, union
from enforcer.sql.shape import MYSQL, POSTGRES, Doubtful
from enforcer.sql.sources import Sources

DDL: Final = "ddl"

# Parts of a query that are read in an order of their own.
_CLAUSES: Final = ("from_", "joins", "laterals", "with_", "expressions", "order", "group", "having", "locks", "into")


class Reader(Sources):
    """Reads one parsed statement of `dialect`."""

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
        self._spend(len(left) + len(right))
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
            self._spend(sum(len(source.items) for source in scope.sources))
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
        scope.sources.append(Source(alias, (Star((table,)),)))
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
