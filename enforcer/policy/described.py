"""Step 3 of 6, decide: a request as a person describes it, for `explain` and for expectations: what clauses look at,
without a byte of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from enforcer.policy.only import values_of
from enforcer.protocols.body_facts import GRAPHQL, MODEL, RPC, SEPARATOR, TOOL, TOOLS_CALL, facts_of

# The facts of bodies that a person may state.
STATED = (GRAPHQL, RPC, TOOL, MODEL)
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
) -> Described:
    """`path` may have a query; what it says is read as of a real request. `grpc`: `package.Service/Method`,
    short for its path and content type. `stated`: facts of its body by name (`STATED`), several in one with commas."""
    if grpc:
        method, path, content_type = method or "POST", path or f"/{grpc}", content_type or "application/grpc"
    header_fields = [(name.encode("utf-8"), value.encode("utf-8")) for name, value in (header or {}).items()]
    if content_type:
        header_fields.append((b"content-type", content_type.encode("utf-8")))
    facts = _facts(path or "", dict(stated or {}))
    for name, value in (("host", host), ("method", method), ("path", path and path.partition("?")[0])):
        if value:
            facts[name] = value
    bodiless = not stated and method in _WITHOUT_BODY and not values_of(header_fields, "content-type")
    return Described(f"{method or ''} {path or ''}".strip(), facts, header_fields, bodiless)


def _facts(target: str, stated: dict[str, str]) -> dict[str, str]:
    if TOOL in stated:
        stated.setdefault(RPC, TOOLS_CALL)
    facts = facts_of("", target, b"")
    for name, text in stated.items():
        words = [*(word.strip() for word in text.split(",")), *facts.get(name, "").split(SEPARATOR)]
        facts[name] = SEPARATOR.join(sorted({word for word in words if word}))
    return facts
