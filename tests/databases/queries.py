"""Queries at random, over two tables whose every cell says which column it is of."""

from __future__ import annotations

from random import Random

# Column -> what each of its cells holds. No query has these letters in capitals.
TABLES = {
    "people": {"id": "1", "ssn": "QQQ", "email": "XXX", "note": "JJJ"},
    "orders": {"id": "1", "iban": "ZZZ", "total": "WWW", "note": "VVV", "person": "YYY"},
}
MARKS = {
    f"{table}.{column}": mark for table, columns in TABLES.items() for column, mark in columns.items() if mark > "A"
}
DEFINITIONS = [
    f"CREATE TABLE {table} ({', '.join(f'{column} varchar(20)' for column in columns)})"
    for table, columns in TABLES.items()
] + [
    f"INSERT INTO {table} VALUES ({', '.join(repr(mark) for mark in columns.values())})"
    for table, columns in TABLES.items()
]

Columns = list[str]


class Queries:
    """Of one seed always the same. `postgres`: with what only PostgreSQL has."""

    def __init__(self, seed: int, *, postgres: bool) -> None:
        self._random = Random(seed)
        self._postgres = postgres
        self._names = 0

    def query(self) -> str:
        return self._with(3)[0]

    def _maybe(self, chance: float) -> bool:
        return self._random.random() < chance

    def _name(self, kind: str) -> str:
        self._names += 1
        # Aliases also take the names of tables and columns.
        if self._maybe(0.15):
            return self._random.choice(["people", "orders", "ssn", "note", "iban"])
        return f"{kind}{self._names}"

    def _with(self, depth: int, known: dict[str, Columns] | None = None) -> tuple[str, Columns]:
        ctes = dict(known or {})
        parts = []
        for _ in range(self._random.choice([0, 0, 1, 2]) if depth > 1 else 0):
            name = self._name("w")
            if name in ctes or any(part.startswith(f"{name} ") for part in parts):
                continue
            sql, columns = self._set(depth - 1, ctes)
            listed = ""
            if self._maybe(0.3) and len(set(columns)) == len(columns):
                columns = [self._name("c") for _ in columns]
                listed = f" ({', '.join(columns)})" if len(set(columns)) == len(columns) else ""
            ctes[name] = columns
            parts.append(f"{name}{listed} AS ({sql})")
        sql, columns = self._set(depth, ctes)
        return (f"WITH {', '.join(parts)} {sql}" if parts else sql), columns

    def _set(self, depth: int, ctes: dict[str, Columns]) -> tuple[str, Columns]:
        sql, columns = self._select(depth, ctes)
        if depth > 1 and self._maybe(0.2):
            other, others = self._select(depth - 1, ctes)
            width = min(len(columns), len(others))
            if len(columns) == len(others) and width:
                word = self._random.choice(["UNION ALL", "UNION", "UNION ALL"])
                return f"{sql} {word} {other}", columns
        return sql, columns

    def _select(self, depth: int, ctes: dict[str, Columns]) -> tuple[str, Columns]:
        sources: dict[str, Columns] = {}
        joined = ""
        for number in range(self._random.choice([1, 1, 2, 3])):
            sql, alias, columns = self._source(depth, ctes, sources)
            if alias in sources:
                continue
            joint = ""
            if number and sources:
                ways = ["CROSS JOIN {}", "JOIN {} ON true" if self._postgres else "JOIN {} ON 1=1"]
                if "id" in columns and all("id" in other for other in sources.values()):
                    ways += ["JOIN {} USING (id)"]
                joint = self._random.choice(ways).format(sql)
            joined += f" {joint}" if joint else sql
            sources[alias] = columns
        items, names = self._items(depth, ctes, sources)
        where = " WHERE " + self._scalar(sources) + " IS NOT NULL" if self._maybe(0.3) else ""
        return f"SELECT {', '.join(items)} FROM {joined}{where}", names

    def _source(self, depth: int, ctes: dict[str, Columns], before: dict[str, Columns]) -> tuple[str, str, Columns]:
        choice = self._random.random()
        if choice < 0.3 and depth > 1:
            lateral = bool(before) and self._postgres and self._maybe(0.5)
            sql, columns = self._with(depth - 1, ctes)
            if lateral:
                columns = [self._name("l")]
                sql = f"SELECT {self._scalar(before)} AS {columns[0]}"
            alias = self._name("q")
            if self._postgres and self._maybe(0.3) and len(set(columns)) == len(columns) and not lateral:
                columns = [self._name("c") for _ in columns]
                return f"({sql}) AS {alias} ({', '.join(columns)})", alias, columns
            return f"{'LATERAL ' if lateral else ''}({sql}) AS {alias}", alias, columns
        if choice < 0.5 and ctes:
            name = self._random.choice(sorted(ctes))
            return name, name, ctes[name]
        table = self._random.choice(sorted(TABLES))
        columns = ctes.get(table, list(TABLES[table]))
        if self._maybe(0.5):
            alias = self._name("t")
            return f"{table} {alias}", alias, columns
        return table, table, columns

    def _items(self, depth: int, ctes: dict[str, Columns], sources: dict[str, Columns]) -> tuple[list[str], Columns]:
        items: list[str] = []
        names: Columns = []
        for _ in range(self._random.choice([1, 2, 3])):
            choice = self._random.random()
            alias = self._random.choice(sorted(sources))
            if choice < 0.1 and not items:
                items.append("*")
                names += [name for columns in sources.values() for name in columns]
            elif choice < 0.25:
                items.append(f"{alias}.*")
                names += sources[alias]
            elif choice < 0.35 and depth > 1:
                sql, columns = self._set(depth - 1, ctes)
                if len(columns) == 1 and "UNION" not in sql:
                    items.append(f"({sql} LIMIT 1) AS {(name := self._name('s'))}")
                    names.append(name)
            elif choice < 0.45 and self._postgres:
                whole = self._random.choice(
                    ["row_to_json({})::text", "{}::text", "to_jsonb({}) ->> 'ssn'", "concat({})"]
                )
                items.append(f"{whole.format(alias)} AS {(name := self._name('r'))}")
                names.append(name)
            else:
                items.append(f"{self._scalar(sources)} AS {(name := self._name('e'))}")
                names.append(name)
        if not items:
            return ["1 AS one"], ["one"]
        return items, names

    def _scalar(self, sources: dict[str, Columns]) -> str:
        alias = self._random.choice(sorted(sources))
        if not sources[alias]:
            return "'a'"
        column = self._random.choice(sources[alias])
        said = f"{alias}.{column}" if self._maybe(0.6) else column
        forms = [
            "{}",
            "{}",
            "concat('a', {})",
            "coalesce({}, 'b')",
            "CASE WHEN 1 = 1 THEN {} ELSE 'c' END",
            "reverse({})",
        ]
        return self._random.choice(forms).format(said)
