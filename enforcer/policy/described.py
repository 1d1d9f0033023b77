"""Step 3 of 6, decide: a request as a person describes it, for `explain` and for expectations: what clauses look at,
without a byte of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.policy.only_http import values_of
from enforcer.protocols.body_facts import GRAPHQL, MODEL, RPC, SEPARATOR, TOOL, TOOLS_CALL, facts_of
from enforcer.protocols.statement_facts import COLUMN, COMMAND, DATABASE, FUNCTION, OPERATION, TABLE, USER
from enforcer.protocols.statement_facts import facts_of as facts_of_statement

# The facts of statements, and of bodies, that a person may state.
OF_STATEMENTS = (OPERATION, COMMAND, TABLE, COLUMN, FUNCTION, DATABASE)
STATED = (GRAPHQL, RPC, TOOL, MODEL, *OF_STATEMENTS)
# The protocols whose statements are read from their text.
DIALECTS = ("postgres", "mysql")
# Methods whose requests usually have no body: taken so where none is described.
_WITHOUT_BODY = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})


@dataclass(frozen=True, slots=True)
class Described:
    """What `only.Asked` wants of a request."""

    text: str = ""
    facts: Mapping[str, str] = field(default_factory=dict)
    fields: Sequence[tuple[bytes, bytes]] = ()
    bodiless: bool = False


def described(
    *,
    host: str | None = None,
    method: str | None = None,
    path: str | None = None,
    header: Mapping[str, str] | None = None,
    content_type: str | None = None,
    grpc: str | None = None,
    stated: Mapping[str, str] | None = None,
    statement: str | None = None,
    protocol: str = "",
    database_user: str | None = None,
) -> Described:
    """`path` may have a query; what it says is read as of a real request. `grpc`: `package.Service/Method`,
    short for its path and content type. `stated`: facts of its body by name (`STATED`), several in one with commas.
    `statement`: SQL as it is sent to a server of `protocol`, whose facts come before those that are stated."""
    if grpc:
        method, path, content_type = method or "POST", path or f"/{grpc}", content_type or "application/grpc"
    header_fields = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in (header or {}).items()]
    if content_type:
        header_fields.append((b"content-type", content_type.encode("utf-8")))
    facts = _facts(path or "", dict(stated or {}))
    target = f"{method or ''} {path or ''}".strip()
    if statement is not None and protocol in DIALECTS:
        database = facts.pop(DATABASE, "")
        facts = {**facts, **facts_of_statement(statement, protocol, database=database)}
    path = path and path.partition("?")[0]
    for name, value in (("host", host), ("method", method), ("path", path), (USER, database_user)):
        if value:
            facts[name] = value
    bodiless = not stated and method in _WITHOUT_BODY and not values_of(header_fields, "content-type")
    return Described(statement or target, facts, header_fields, bodiless)


def _facts(target: str, stated: dict[str, str]) -> dict[str, str]:
    if TOOL in stated:
        stated.setdefault(RPC, TOOLS_CALL)
    facts = facts_of("", target, b"")
    for name, text in stated.items():
        words = [*(word.strip() for word in text.split(",")), *facts.get(name, "").split(SEPARATOR)]
        facts[name] = SEPARATOR.join(sorted({word for word in words if word}))
    return facts
