"""Step 3 of 6, decide: YAML text in, plain data and the line of each of its fields out.

A narrow YAML on purpose. Every scalar is text as it is written (`NO` is Norway, not false; `0600` is no octal number),
an empty one is None. Anchors, aliases, tags, duplicate keys and deep nesting are refused, so that what a reviewer reads
is what is meant and a small file stays small. No Python object is ever constructed from the file.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import yaml
from yaml.composer import Composer, ComposerError
from yaml.events import AliasEvent
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from yaml.parser import Parser
from yaml.reader import Reader
from yaml.resolver import BaseResolver
from yaml.scanner import Scanner

Plain = None | str | list["Plain"] | dict[str, "Plain"]
Location = tuple[str | int, ...]

# The schema is 6 levels deep (rules, rule, mask, response, item, value); the rest is room for a clear message.
MAX_DEPTH = 16
_NULLS = frozenset({"", "~", "null"})
_PLAIN_TAGS = frozenset(
    {BaseResolver.DEFAULT_SCALAR_TAG, BaseResolver.DEFAULT_SEQUENCE_TAG, BaseResolver.DEFAULT_MAPPING_TAG}
)


@dataclass(slots=True)
class Document:
    """`data` as written, `lines` (from 1) by location, and the structural `faults` as (line, location, message)."""

    data: Plain = None
    lines: dict[Location, int] = field(default_factory=dict)
    faults: list[tuple[int, Location, str]] = field(default_factory=list)

    def line(self, location: Location) -> int:
        """The line of `location`, or of the nearest field around it that the file holds."""
        while location and location not in self.lines:
            location = location[:-1]
        return self.lines.get(location, 1)


def read_document(text: str) -> Document:
    """Parses `text`; whatever is wrong with it is in `faults`, nothing is raised."""
    document = Document()
    try:
        root = _NodeComposer(text).get_single_node()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = error.problem or error.context or "malformed"
        document.faults.append((mark.line + 1 if mark else 1, (), f"not YAML: {problem}; correct the syntax"))
    except yaml.YAMLError:
        document.faults.append((1, (), "not YAML: a control character; remove it"))
    except (ValueError, OverflowError):
        # PyYAML lets these out of int() and chr() for absurd directives and for escapes beyond U+10FFFF.
        document.faults.append((1, (), "not YAML: a number or escape out of range; correct it"))
    else:
        if root is not None:
            document.data = _plain(root, (), document)
    return document


class _NodeComposer(Reader, Scanner, Parser, Composer, BaseResolver):
    """PyYAML down to the node graph: no implicit types (BaseResolver has no resolvers), no constructor at all."""

    def __init__(self, text: str) -> None:
        Reader.__init__(self, text)
        Scanner.__init__(self)
        Parser.__init__(self)
        Composer.__init__(self)
        BaseResolver.__init__(self)
        self._depth = 0

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        if isinstance(event, AliasEvent) or getattr(event, "anchor", None) is not None:
            raise ComposerError(
                None, None, "anchors and aliases are not accepted, write the value out", event.start_mark
            )
        if self._depth == MAX_DEPTH:
            raise ComposerError(None, None, f"nested deeper than {MAX_DEPTH} levels", event.start_mark)
        self._depth += 1
        node: Node | None = super().compose_node(parent, index)
        self._depth -= 1
        return node


def _plain(node: Node, location: Location, document: Document) -> Plain:
    line = node.start_mark.line + 1
    document.lines.setdefault(location, line)
    if node.tag not in _PLAIN_TAGS:
        document.faults.append((line, location, f"the tag {node.tag!r} is not accepted; remove it"))
    if isinstance(node, MappingNode):
        return _mapping(node, location, document)
    if isinstance(node, SequenceNode):
        return [_plain(item, (*location, number), document) for number, item in enumerate(node.value)]
    return _scalar(node, location, document)


def _mapping(node: MappingNode, location: Location, document: Document) -> dict[str, Plain]:
    mapping: dict[str, Plain] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, ScalarNode):
            document.faults.append((line, location, "a key is not text; write 'key: value'"))
            continue
        key = _scalar(key_node, location, document) or ""
        if key in mapping:
            document.faults.append((line, (*location, key), "the key is given twice; remove one"))
            continue
        document.lines[(*location, key)] = line
        mapping[key] = _plain(value_node, (*location, key), document)
    return mapping


def _scalar(node: Node, location: Location, document: Document) -> str | None:
    text = str(node.value)
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        # A "\ud800" escape: no UTF-8 can carry it, so it could be neither printed nor recorded.
        document.faults.append(
            (node.start_mark.line + 1, location, "holds half a character (a lone surrogate); remove it")
        )
        return text.encode("utf-8", "replace").decode()
    plain_style = getattr(node, "style", None) is None
    return None if plain_style and text in _NULLS else text
