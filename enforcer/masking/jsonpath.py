"""Step 4 of 6, inspect: JSON values named by path.

A subset of RFC 9535: `$`, `.name`, `['name']`, `[*]`, `.*`, `[n]` and the descendants `..name`, `..*`, `..[...]`.
Walks without recursion, so that no document is too deep for it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import orjson

Location = tuple[Any, Any]
"""A container (list or dict) and the index or name of a value in it."""

# RFC 9535, 2.5.1.1 member-name-shorthand, 2.3.3.1 index, 2.3.1.1 quoted names.
_SEGMENT: Final = re.compile(
    r"""(?P<dots>\.\.?)(?P<name>\*|[A-Za-z_\u0080-\U0010ffff][0-9A-Za-z_\u0080-\U0010ffff]*)
      | (?P<descend>\.\.)?\[\ *(?:
            (?P<star>\*) | (?P<index>0|-?[1-9][0-9]{0,15})
          | '(?P<single>(?:[^'\\]|\\.)*)' | "(?P<double>(?:[^"\\]|\\.)*)"
        )\ *\]""",
    re.VERBOSE,
)
_SINGLE_ESCAPES: Final = re.compile(r"""\\'|\\.|"|[^\\"]+""", re.DOTALL)
_REQUOTED: Final = {"\\'": "'", '"': '\\"'}


@dataclass(frozen=True, slots=True)
class Segment:
    """One step: the children `selector` selects (a name, an index, None for all), of all `descendants` if set."""

    selector: str | int | None
    descendants: bool


@dataclass(frozen=True, slots=True)
class Path:
    text: str
    segments: tuple[Segment, ...]


def parse(path: str) -> Path:
    """Reads a path. Raises ValueError that says which part is wrong and what is understood."""
    if not path.startswith("$"):
        raise ValueError(f"JSON path {path!r} must begin with '$'; write e.g. $.user.ssn or $..ssn")
    segments, at = [], 1
    while at < len(path):
        match = _SEGMENT.match(path, at)
        if match is None:
            raise ValueError(
                f"JSON path {path!r} is not understood at {path[at:]!r}; "
                "use .name, ['any name'], [*], .*, [n] or ..name"
            )
        segments.append(_segment(match, path))
        at = match.end()
    return Path(path, tuple(segments))


def _segment(match: re.Match[str], path: str) -> Segment:
    name, index = match["name"], match["index"]
    descendants = match["dots"] == ".." or match["descend"] is not None
    if name == "*" or match["star"]:
        return Segment(None, descendants)
    if name:
        return Segment(name, descendants)
    if index:
        return Segment(int(index), descendants)
    quoted = match["double"]
    if quoted is None:
        quoted = _SINGLE_ESCAPES.sub(lambda part: _REQUOTED.get(part[0], part[0]), match["single"])
    try:
        return Segment(str(orjson.loads(f'"{quoted}"')), descendants)
    except orjson.JSONDecodeError:
        raise ValueError(f"JSON path {path!r} has a bad escape in {match[0]!r}; use those of JSON strings") from None


def apply(document: Any, paths: Iterable[Path], replace: Callable[[Any], Any]) -> tuple[Any, int]:
    """`document` with `replace(value)` in place of each value a path selects, and how many values that changed.

    Changes `document` itself; only where `$` alone is a path is the result another object."""
    root = [document]
    changed = 0
    for path in paths:
        for container, key in locations(root, path):
            value = container[key]
            replaced = replace(value)
            if replaced is not value:
                container[key] = replaced
                changed += 1
    return root[0], changed


def locations(root: list[Any], path: Path) -> list[Location]:
    """Where what `path` selects is, of the document that is the only item of `root`."""
    found: list[Location] = [(root, 0)]
    for segment in path.segments:
        nodes = [container[key] for container, key in found]
        if segment.descendants:
            nodes = list(_descendants(nodes))
        found = [location for node in nodes for location in _children(node, segment.selector)]
    return found


def _descendants(nodes: list[Any]) -> Iterator[Any]:
    """The containers among the nodes and below them, each once."""
    seen: set[int] = set()
    waiting = nodes
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict | list) and id(node) not in seen:
            seen.add(id(node))
            yield node
            waiting.extend(node.values() if isinstance(node, dict) else node)


def _children(node: Any, selector: str | int | None) -> Iterator[Location]:
    if isinstance(node, dict):
        if selector is None:
            yield from ((node, name) for name in list(node))
        elif isinstance(selector, str) and selector in node:
            yield node, selector
    elif isinstance(node, list):
        if selector is None:
            yield from ((node, index) for index in range(len(node)))
        elif isinstance(selector, int) and -len(node) <= selector < len(node):
            yield node, selector
