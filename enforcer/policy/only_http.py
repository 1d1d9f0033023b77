"""Step 3 of 6, decide: what a clause asks of a request of HTTP.

Gets a clause and a request; hands on how the request differs from each part, in words, or None where it does not. The
words never quote a path or the value of a header field, which may be secret.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from enforcer.policy.paths import template_matches
from enforcer.policy.words import any_glob, shown, some
from enforcer.protocols.body_facts import BODY, GRAPHQL, MODEL, RPC, SEPARATOR, TOOL, TOOLS_CALL
from enforcer.protocols.target import Ambiguous, parameters, plain_path

if TYPE_CHECKING:
    from enforcer.policy.only import Asked, Only

# One media type without parameters (RFC 9110 section 8.3.1).
_MEDIA_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+/[!#$%&'*+.^_`|~0-9a-z-]+")
# gRPC over HTTP/2, and gRPC-Web, which puts the same paths and messages into HTTP/1.1.
_GRPC_TYPE = re.compile(r"application/grpc(-web|-web-text)?(\+[a-z0-9.+-]+)?")
# In which a client of MCP asks for the stream of answers, and ends its session.
_STREAM_METHODS = frozenset({"GET", "DELETE"})


def _method(only: Only, asked: Asked) -> str | None:
    method = asked.facts.get("method")
    if not method:
        return "no method is known"
    return None if method in only.method else f"method {shown(method)} is not in {some(only.method)}"


def _path(only: Only, asked: Asked) -> str | None:
    path = asked.facts.get("path")
    if not path:
        return "no path is known"
    try:
        normal = plain_path(path)
    except Ambiguous as doubt:
        return f"the path may be read in two ways: {doubt}"
    for template in only.path:
        if template_matches(template, normal):
            return None
    return f"the path is not in {some(only.path)}"


def _header(only: Only, asked: Asked) -> str | None:
    for name, globs in only.header:
        values = values_of(asked.fields, name)
        if not values:
            return f"there is no header field {name}"
        if not all(any_glob(globs, value) for value in values):
            return f"header field {name} is not in {some(globs)}"
    return None


def _content_type(only: Only, asked: Asked) -> str | None:
    values = values_of(asked.fields, "content-type")
    if not values:
        # Nothing comes, so it is of no type that would have to be named.
        return None if asked.bodiless else "there is no content type"
    for value in values:
        kind = media_type(value)
        if not kind:
            return "the content type may be read in two ways"
        if not any_glob(only.content_type, kind):
            return f"content type {shown(kind)} is not in {some(only.content_type)}"
    return None


def _grpc(only: Only, asked: Asked) -> str | None:
    types = [media_type(value) for value in values_of(asked.fields, "content-type")]
    if len(types) != 1 or not _GRPC_TYPE.fullmatch(types[0]):
        return "it is not gRPC"
    try:
        segments = plain_path(asked.facts.get("path", "")).split("/")[1:]
    except Ambiguous as doubt:
        return f"the path may be read in two ways: {doubt}"
    if len(segments) != 2:
        return "no gRPC method is known"
    wanted = [glob.split("/") for glob in only.grpc]
    if any(all(any_glob([glob], word) for glob, word in zip(globs, segments, strict=True)) for globs in wanted):
        return None
    return f"gRPC method {shown('/'.join(segments))} is not in {some(only.grpc)}"


def _graphql_type(only: Only, asked: Asked) -> str | None:
    operations = _listed(asked, GRAPHQL)
    if not operations:
        return _unknown(asked, "no GraphQL operation is known")
    kinds = [operation.partition(" ")[0] for operation in operations]
    return _outside("GraphQL", kinds, only.graphql_type)


def _graphql_name(only: Only, asked: Asked) -> str | None:
    operations = _listed(asked, GRAPHQL)
    if not operations:
        return _unknown(asked, "no GraphQL operation is known")
    names = [operation.partition(" ")[2] for operation in operations]
    return _outside("GraphQL operation", names, only.graphql_name) if all(names) else "a GraphQL operation has no name"


def _rpc(only: Only, asked: Asked) -> str | None:
    if _asks_nothing(asked):
        return None
    methods = _listed(asked, RPC)
    if not methods:
        return _unknown(asked, "no JSON-RPC method is known")
    return _outside("JSON-RPC method", methods, only.rpc)


def _tool(only: Only, asked: Asked) -> str | None:
    if _asks_nothing(asked):
        return None
    methods, tools = _listed(asked, RPC), _listed(asked, TOOL)
    if not methods:
        return _unknown(asked, "no JSON-RPC method is known")
    if TOOLS_CALL in methods and not tools:
        return "no tool is known"
    return _outside("tool", tools, only.tool)


def _model(only: Only, asked: Asked) -> str | None:
    models = _listed(asked, MODEL)
    return _outside("model", models, only.model) if models else _unknown(asked, "no model is known")


# In the order in which a request is read.
PARTS: dict[str, Callable[[Only, Asked], str | None]] = {
    "method": _method,
    "path": _path,
    "header": _header,
    "content_type": _content_type,
    "grpc": _grpc,
    "graphql_type": _graphql_type,
    "graphql_name": _graphql_name,
    "rpc": _rpc,
    "tool": _tool,
    "model": _model,
}


def values_of(header_fields: Iterable[tuple[bytes, bytes]], name: str) -> list[str]:
    """The values of a header field, each as it was sent. Also of fields whose name has an underscore for a hyphen:
    servers that hand fields on as variables (CGI, WSGI) take both for the same."""
    wanted = name.encode("ascii").replace(b"_", b"-")
    return [
        value.decode("latin-1").strip(" \t")
        for key, value in header_fields
        if len(key) == len(wanted) and key.lower().replace(b"_", b"-") == wanted
    ]


def media_type(value: str) -> str:
    """The type without parameters, lower case; empty where it is not plainly one."""
    kind = value.partition(";")[0].strip(" \t").lower()
    return kind if _MEDIA_TYPE.fullmatch(kind) else ""


def _listed(asked: Asked, name: str) -> list[str]:
    """The names of a fact; none where the body is in doubt."""
    text = "" if BODY in asked.facts else asked.facts.get(name, "")
    return text.split(SEPARATOR) if text else []


def _unknown(asked: Asked, otherwise: str) -> str:
    doubt = asked.facts.get(BODY)
    return f"the body is {shown(doubt)}" if doubt else otherwise


def _outside(what: str, names: list[str], globs: tuple[str, ...]) -> str | None:
    outside = [name for name in names if not any_glob(globs, name)]
    return f"{what} {shown(outside[0])} is not in {some(globs)}" if outside else None


def _asks_nothing(asked: Asked) -> bool:
    """Is it one of the requests of MCP's transport that carry no message: for the stream of answers, or the end?"""
    if not asked.bodiless or asked.facts.get("method") not in _STREAM_METHODS or {BODY, RPC} & asked.facts.keys():
        return False
    try:
        return all(name.casefold() != "method" for name, _ in parameters(asked.text.partition(" ")[2]))
    except Ambiguous:
        return False
