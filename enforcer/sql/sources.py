"""Step 4 of 6, inspect: what a statement reads from: common table expressions and the FROM clause.

Gets nodes of a parsed statement; fills scopes with what names may stand for.
"""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp

from enforcer.sql.expressions import Expressions
from enforcer.sql.names import folded
from enforcer.sql.scopes import ANYTHING, NOTHING, Items, Output, Scope, Source, Star, all_of
from enforcer.sql.shape import MYSQL, Doubtful

_ROUNDS: Final = 6
"""How often a recursive query is read, until nothing new comes through it."""


class Sources(Expressions):
    """Reads what a statement reads from."""

    def __init__(self, dialect: str) -> None:
        super().__init__(dialect)
        self._ctes: list[dict[str, Items]] = []

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
            self._spend(scope.width)
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
        scope.sources.append(Source(alias, items))

    def _computed(self, node: Any, scope: Scope) -> None:
        """A function in FROM: whatever it gives comes from what it is given."""
        sources = self._rest(node, scope, skip=("alias", "joins", "rows_from"))
        for one in node.args.get("rows_from") or ():
            sources |= self._rest(one, scope, skip=("alias", "joins"))
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


def _alias_columns(node: Any) -> list[Any]:
    alias = node.args.get("alias")
    return list(alias.args.get("columns") or ()) if isinstance(alias, exp.TableAlias) else []


def _is_join(node: exp.Subquery) -> bool:
    """Is it a join in parentheses, not a query?"""
    inner = node.this
    return isinstance(inner, exp.Table) or inner.args.get("alias") is not None or bool(inner.args.get("joins"))
