"""Step 4 of 6, inspect: where the members of a JSON text stand, and what they are called, for who tries out a mask.

Gets a text that is JSON; hands on places and names, `$.items[0].card`. Only the command line asks for them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from enforcer.masking import jsonpath

_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:,]|[^\s{}\[\]:,"]+', re.DOTALL)
_SHORT: Final = re.compile(r"[A-Za-z_\u0080-\U0010ffff][0-9A-Za-z_\u0080-\U0010ffff]*")


@dataclass(slots=True)
class _Open:
    """An object or array that has begun. `key`: of its member that comes; None in an object, before its name."""

    name: str
    start: int
    key: str | int | None


def spans(text: bytes) -> dict[str, tuple[int, int]]:
    """Where each value stands, by its name; of members of the same name the last."""
    found: dict[str, tuple[int, int]] = {}
    opened: list[_Open] = []
    for token in _TOKEN.finditer(text):
        sign, within = token[0], opened[-1] if opened else None
        name = "$" if within is None else _below(within.name, within.key)
        if sign in (b"{", b"["):
            opened.append(_Open(name, token.start(), 0 if sign == b"[" else None))
        elif sign in (b"}", b"]") and within is not None:
            found[within.name] = within.start, token.end()
            opened.pop()
        elif sign == b"," and within is not None:
            within.key = within.key + 1 if isinstance(within.key, int) else None
        elif within is not None and within.key is None:
            within.key = orjson.loads(sign)
        elif sign != b":":
            found[name] = token.span()
    return found


def selected(text: bytes, path: jsonpath.Path) -> list[str]:
    """The names of the members that `path` selects."""
    root = [orjson.loads(text)]
    names: dict[int, str] = {}
    waiting: list[tuple[Any, str]] = [(root[0], "$")]
    while waiting:
        node, name = waiting.pop()
        names[id(node)] = name
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            if isinstance(value, dict | list):
                waiting.append((value, _below(name, key)))
    return [
        "$" if container is root else _below(names[id(container)], key)
        for container, key in jsonpath.locations(root, path)
    ]


def _below(name: str, key: str | int | None) -> str:
    if isinstance(key, int):
        return f"{name}[{key}]"
    return f"{name}.{key}" if key is not None and _SHORT.fullmatch(key) else f"{name}[{orjson.dumps(key).decode()}]"
