"""Step 4 of 6, inspect: which operations a GraphQL document holds.

Reads tokens and brackets (GraphQL specification, sections 2.1 to 2.4), strictly, and nothing of what is inside them.
Every operation of a document counts, whichever of them the request names: so nothing rests on who reads that name.
"""

from __future__ import annotations

import re

TYPES = ("query", "mutation", "subscription")

# Characters of a document; larger ones are the server's own, stored there and asked for by name.
DOCUMENT_LIMIT = 256 * 1024

_TOKEN = re.compile(
    r'''[\ufeff \t\r\n,]+ | \#[^\r\n]*
      | (?P<name>[A-Za-z_][A-Za-z0-9_]*)
      | (?P<sign>\.\.\.|[!$&():=@\[\]{|}])
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![0-9A-Za-z_.]))
      | (?P<text>"""(?>(?:\\"""|(?!""")[\s\S])*)"""
        | "(?!"")(?>(?:[^"\\\r\n]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\}))*)")''',
    re.VERBOSE,
)
# Section 2.1.1, as it was up to 2021: what older servers refuse is refused.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_CLOSERS = {"(": ")", "[": "]", "{": "}"}

_Token = tuple[str, str]
_END: _Token = ("", "")


def operations(document: str) -> list[str] | None:
    """`query`, `mutation Name` and so on, one per operation, in order. None where it is not a document of operations
    and fragments that every server would read so."""
    if len(document) > DOCUMENT_LIMIT:
        return None
    tokens = _tokens(document)
    if tokens is None:
        return None
    found: list[str] = []
    at = 0
    while tokens[at] != _END:
        definition = _definition(tokens, at)
        if definition is None:
            return None
        operation, at = definition
        if operation:
            found.append(operation)
    return found or None


def _tokens(document: str) -> list[_Token] | None:
    """Kind and text of each token, and `_END`."""
    if _CONTROL.search(document):
        return None
    tokens: list[_Token] = []
    at = 0
    while at < len(document):
        match = _TOKEN.match(document, at)
        if match is None:
            return None
        if match.lastgroup is not None:
            tokens.append((match.lastgroup, match[0]))
        at = match.end()
    tokens.append(_END)
    return tokens


def _definition(tokens: list[_Token], at: int) -> tuple[str, int] | None:
    """The operation that begins at `at` (empty for a fragment), and where the next definition begins."""
    if tokens[at] == ("sign", "{"):
        return _then("query", _closed(tokens, at))
    if tokens[at][0] == "text":  # a description
        at += 1
    kind, operation = tokens[at]
    at += 1
    if kind == "name" and operation in TYPES:
        if tokens[at][0] == "name":
            operation = f"{operation} {tokens[at][1]}"
            at += 1
        if tokens[at] == ("sign", "("):
            at = _closed(tokens, at)
    elif (kind, operation) == ("name", "fragment"):
        head = tokens[at : at + 3]
        if [word for word, _ in head] != ["name"] * 3 or head[1][1] != "on":
            return None
        operation = ""
        at += 3
    else:
        return None
    at = _past_directives(tokens, at)
    return _then(operation, _closed(tokens, at)) if tokens[at] == ("sign", "{") else None


def _past_directives(tokens: list[_Token], at: int) -> int:
    while tokens[at] == ("sign", "@") and tokens[at + 1][0] == "name":
        at += 2
        if tokens[at] == ("sign", "("):
            at = _closed(tokens, at)
    return at


def _closed(tokens: list[_Token], at: int) -> int:
    """The place after the bracket that closes the one at `at`; that of `_END`'s where none does."""
    open_brackets: list[str] = []
    for place in range(at, len(tokens)):
        kind, text = tokens[place]
        if kind != "sign":
            continue
        if text in _CLOSERS:
            open_brackets.append(_CLOSERS[text])
        elif text in _CLOSERS.values():
            if open_brackets.pop() != text:
                break
            if not open_brackets:
                return place + 1
    return -1


def _then(operation: str, end: int) -> tuple[str, int] | None:
    return None if end < 0 else (operation, end)
