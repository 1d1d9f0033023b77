"""Step 3 of 6, decide: what a rule's `only` asks of each exchange that the rule allows.

Gets a clause and what a request says of itself; hands on the first thing that does not fit, in words. Doubt closes:
what is missing, ambiguous or was not read does not fit. What is compared is in `only_http` and `only_database`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol, Self

from enforcer.policy import only_database, only_http
from enforcer.policy.words import some

# What each family of protocols can be asked. The words are those of policies.
FAMILIES: dict[str, tuple[str, ...]] = {
    "http": ("method", "path", "header", "content_type", "grpc", "graphql", "rpc", "tool", "model"),
    "databases": ("operation", "table", "database", "user"),
    "SQL": ("column", "function"),
    "databases of commands": ("command",),
}
# The protocols of each family.
PROTOCOLS: dict[str, frozenset[str]] = {
    "http": frozenset({"http"}),
    "databases": frozenset({"postgres", "mysql", "mongodb", "redis"}),
    "SQL": frozenset({"postgres", "mysql"}),
    "databases of commands": frozenset({"mongodb", "redis"}),
}


class Asked(Protocol):
    """What a clause looks at of an exchange: `protocols.base.Request` has it."""

    @property
    def text(self) -> str: ...
    @property
    def facts(self) -> Mapping[str, str]: ...
    @property
    def fields(self) -> Sequence[tuple[bytes, bytes]]: ...
    @property
    def bodiless(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Only:
    """One clause; every part that is not empty has to hold. All but methods, types and operations are globs or
    templates."""

    method: tuple[str, ...] = ()
    path: tuple[str, ...] = ()
    header: tuple[tuple[str, tuple[str, ...]], ...] = ()
    content_type: tuple[str, ...] = ()
    grpc: tuple[str, ...] = ()
    graphql_type: tuple[str, ...] = ()
    graphql_name: tuple[str, ...] = ()
    rpc: tuple[str, ...] = ()
    tool: tuple[str, ...] = ()
    model: tuple[str, ...] = ()
    operation: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    table: tuple[str, ...] = ()
    column: tuple[str, ...] = ()
    function: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    user: tuple[str, ...] = ()
    parts: tuple[Callable[[Only, Asked], str | None], ...] = field(init=False, compare=False, repr=False)
    """What compares each part that is not empty."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "parts", tuple(differ for name, differ in _PARTS.items() if getattr(self, name)))

    @property
    def reads_bodies(self) -> bool:
        return bool(self.graphql_type or self.graphql_name or self.rpc or self.tool or self.model)

    def to_plain(self) -> dict[str, Any]:
        """What JSON can carry; parts that are empty are left out."""
        plain = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        plain["header"] = [[name, list(globs)] for name, globs in self.header]
        return {name: list(words) for name, words in plain.items() if words}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        parts = {name: tuple(words) for name, words in plain.items() if name != "header"}
        header = tuple((name, tuple(globs)) for name, globs in plain.get("header", ()))
        return cls(header=header, **parts)

    def words(self) -> list[str]:
        """The clause part by part, as `explain` prints it."""
        parts = [
            ("method", self.method),
            ("path", self.path),
            *((f"header {name}", globs) for name, globs in self.header),
            ("content type", self.content_type),
            ("gRPC", self.grpc),
            ("GraphQL", self.graphql_type),
            ("GraphQL name", self.graphql_name),
            ("JSON-RPC method", self.rpc),
            ("tool", self.tool),
            ("model", self.model),
            ("operation", self.operation),
            ("command", self.command),
            ("table", self.table),
            ("column", self.column),
            ("function", self.function),
            ("database", self.database),
            ("user", self.user),
        ]
        return [f"{name} {some(words)}" for name, words in parts if words]


def first_difference(only: Only, asked: Asked) -> str | None:
    """The first thing in which the exchange differs from the clause, in words; None where the clause holds."""
    for differ in only.parts:
        difference = differ(only, asked)
        if difference is not None:
            return difference
    return None


# In the order in which a request is read.
_PARTS: dict[str, Callable[[Only, Asked], str | None]] = {**only_http.PARTS, **only_database.PARTS}
