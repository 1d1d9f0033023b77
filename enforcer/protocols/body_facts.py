"""Step 4 of 6, inspect: what a request says in its body and target that a rule's `only` may ask for.

Gets a whole body, decoded; hands on a few short texts by name: `graphql` (operations), `rpc` (JSON-RPC methods), `tool`
(MCP tools called), `model` (models asked). What is said several times, as in a batch, is listed: sorted, `, ` between.
Where two servers might read something else, there is `body`, which says so, and no other fact. Pure; never raises.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

from enforcer.protocols.graphql import operations
from enforcer.protocols.target import Ambiguous, decoded, parameters, plain_path

BODY, GRAPHQL, RPC, TOOL, MODEL = "body", "graphql", "rpc", "tool", "model"
SEPARATOR = ", "
# JSON-RPC 2.0 section 5: an answer to what the server asked, as MCP's clients send it. No method can be confused with
# it: a rule that names it means answers.
RESPONSE = "(response)"
TOOLS_CALL = "tools/call"

# Characters of one name, and of all names of one kind. The longest are Bedrock's ARNs, around 150.
NAME_LIMIT = 200
LIST_LIMIT = 1000

_GRAPHQL_TYPE = "application/graphql"
_JSON_TYPES = ("application/json", "text/json", "application/json-rpc", "application/jsonrequest")
_CHARSET = re.compile(r""";\s*charset\s*=\s*"?([^";\s]*)""", re.IGNORECASE)
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii"})
# Names that are read, at the top of an object and in `params`. Many servers (Go's, .NET's) take a name in any case, so
# one that is only nearly such a name is read by some and not by others.
_TOP = ("query", "documentId", "jsonrpc", "method", "params", "model", "models")
_PARAMS = ("name",)
# Of the query: GraphQL over HTTP by GET, JSON-RPC as some servers take it, models as OpenAI's Realtime API names them.
_IN_QUERY = ("query", "method", "jsonrpc", "model")
# Segments of a path after which comes the model's name: Gemini, Vertex, Bedrock, Azure OpenAI.
_BEFORE_MODEL = frozenset({"models", "tunedmodels", "model", "deployments"})
# Where a verb follows the name: `NAME:generateContent`. Bedrock's names have colons of their own.
_WITH_VERB = frozenset({"models", "tunedmodels"})

Plain = dict[str, Any]


def is_read(content_type: str) -> bool:
    """Are bodies of this type read for facts? `content_type` as it was sent, parameters included."""
    kind = _kind(content_type)
    return kind in _JSON_TYPES or kind == _GRAPHQL_TYPE or (kind.startswith("application/") and kind.endswith("+json"))


def facts_of(content_type: str, path: str, body: bytes) -> dict[str, str]:
    """The facts of one request. `path`: its target as it was sent, query included; `body`: without transfer and
    content encodings, empty where there is none. A fact that is not there is not known."""
    try:
        facts = _facts(content_type, path, body)
        return {name: _listed(name, values) for name, values in facts.items() if values}
    except Ambiguous as doubt:
        return {BODY: f"ambiguous: {doubt}"}


def _facts(content_type: str, target: str, body: bytes) -> dict[str, list[str]]:
    asked = _exactly(_IN_QUERY, parameters(target), "in the query") if "?" in target else {}
    members = _members(content_type, body)
    facts = {
        GRAPHQL: _of_all(members, _operations),
        RPC: _of_all(members, _methods),
        TOOL: [tool for member in members for tool in _tools(member)],
        MODEL: _of_all(members, _models) if members else [],
    }
    if "query" in asked:
        of_query = operations(asked["query"])
        facts[GRAPHQL] = [*facts[GRAPHQL], *of_query] if of_query and (facts[GRAPHQL] or not body) else []
    if not body and "method" in asked:
        facts[RPC] = [asked["method"]]
    in_path = _models_in_path(target)
    # A body that names no model is fine beside a target that does; one that names another makes it two.
    in_query = [asked["model"]] if "model" in asked else []
    facts[MODEL] = [] if in_path is None else [*facts[MODEL], *in_path, *in_query]
    return facts


def _members(content_type: str, body: bytes) -> list[Plain]:
    """The body as objects: one, or those of a batch. Empty where it is of another kind."""
    if not body or not is_read(content_type):
        return []
    charset = _CHARSET.search(content_type)
    if charset is not None and charset[1].lower() not in _UTF8:
        raise Ambiguous("its charset is not UTF-8")
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError:
        raise Ambiguous("it is not UTF-8") from None
    if _kind(content_type) == _GRAPHQL_TYPE:
        return [{"query": text}]
    try:
        document = _DECODER.decode(text)
    except Ambiguous:
        raise
    except (ValueError, RecursionError):
        raise Ambiguous("it is not JSON, or nested too deep") from None
    members = document if isinstance(document, list) else [document]
    objects = [member for member in members if isinstance(member, dict)]
    if objects and len(objects) != len(members):
        raise Ambiguous("a batch of objects and other values")
    for member in objects:
        _exactly(_TOP, member.items(), "in an object")
    return objects


def _of_all(members: list[Plain], read: Callable[[Plain], list[str]]) -> list[str]:
    """What all members say; nothing where one says nothing, as that one is not known."""
    found = [read(member) for member in members]
    return [one for values in found for one in values] if all(found) else []


def _operations(member: Plain) -> list[str]:
    document = member.get("query")
    # Beside an operation that the server has stored, the text may not be what it runs.
    if not isinstance(document, str) or "documentId" in member:
        return []
    return operations(document) or []


def _methods(member: Plain) -> list[str]:
    if member.get("jsonrpc") != "2.0":
        return []
    answers = "result" in member or "error" in member
    if "method" not in member:
        return [RESPONSE] if answers else []
    if answers or member["method"] == RESPONSE:
        raise Ambiguous("a JSON-RPC request that is an answer too")
    return [_text(member["method"], "method")]


def _tools(member: Plain) -> list[str]:
    if _methods(member) != [TOOLS_CALL]:
        return []
    params = member.get("params")
    if not isinstance(params, dict):
        raise Ambiguous("a call of a tool without its name")
    return [_text(_exactly(_PARAMS, params.items(), "in params").get("name"), "name")]


def _models(member: Plain) -> list[str]:
    """`models`: others that the server may turn to, as routers of several providers take them."""
    model, others = member.get("model"), member.get("models")
    if others is not None and not isinstance(others, list):
        raise Ambiguous("models is not a list")
    return [*([] if model is None else [_text(model, "model")]), *(_text(other, "models") for other in others or [])]


def _models_in_path(target: str) -> list[str] | None:
    """The models that the path names. None for a path that may be read in two ways."""
    try:
        # Words of the path are taken in any case: some of these servers do.
        segments = [decoded(segment) for segment in plain_path(target).split("/")]
    except Ambiguous:
        return None
    found = []
    for before, name in pairwise(segments):
        word = before.lower()
        if word in _BEFORE_MODEL and name:
            found.append((name.rpartition(":")[0] or name) if word in _WITH_VERB else name)
    return found


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise Ambiguous(f"{name} is not text")
    return value


def _exactly(known: tuple[str, ...], pairs: Iterable[tuple[str, Any]], where: str) -> dict[str, Any]:
    """The pairs whose names are `known`. Raises Ambiguous where one is there twice, or is spelled nearly so: in another
    case, or with what follows a NUL, where some readers stop."""
    nearly = {name.casefold(): name for name in known}
    found: dict[str, Any] = {}
    for name, value in pairs:
        exact = nearly.get(name.partition("\0")[0].casefold())
        if exact is None:
            continue
        if name != exact or name in found:
            raise Ambiguous(f"{exact} is {where} twice, or in another spelling")
        found[name] = value
    return found


def _listed(name: str, values: list[str]) -> str:
    """In one canonical text, from which each can be told again. Raises Ambiguous where that is not possible."""
    for value in values:
        if not 0 < len(value) <= NAME_LIMIT or not value.isprintable() or "," in value or value != value.strip():
            raise Ambiguous(f"a {name} that is no plain name")
    text = SEPARATOR.join(sorted(set(values)))
    if len(text) > LIST_LIMIT:
        raise Ambiguous(f"too many of {name} at once")
    return text


def _without_duplicates(pairs: list[tuple[str, Any]]) -> Plain:
    """Some servers take the first, some the last."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Ambiguous("an object has a name twice")
    return members


def _no_constant(_: str) -> None:
    raise ValueError("NaN and Infinity are not JSON")


_DECODER = json.JSONDecoder(object_pairs_hook=_without_duplicates, parse_constant=_no_constant)


def _kind(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()
