"""Step 4 of 6, inspect: the values of a MongoDB message, handed out to be masked and put back in.

Gets a server's message and the names of its values; hands on one row per document and one text per error message, and
then the message with everything in it replaced that came back other than it was. Of a client's message it rewrites the
values at once. Values keep their types, or become null; what is not touched stays byte for byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from enforcer.errors import ProtocolError
from enforcer.flow import Side
from enforcer.protocols.base import Rewrite, Rows, Text
from enforcer.protocols.mongodb import bson
from enforcer.protocols.mongodb.bson import Element
from enforcer.protocols.mongodb.columns import Naming
from enforcer.protocols.mongodb.commands import Command
from enforcer.protocols.mongodb.wire import Message, rewritten

_BATCHES: Final = frozenset((b"firstBatch", b"nextBatch"))
_ENVELOPE: Final = frozenset(
    b"""ok code codeName n nModified operationTime $clusterTime electionId opTime topologyVersion errorLabels
    $configTime $topologyTime recoveryToken atClusterTime""".split()
)
"""Of replies: never a value, and drivers need them."""
_CURSOR: Final = frozenset((b"id", b"ns", b"partialResultsReturned", b"postBatchResumeToken", b"atClusterTime"))
_ERROR_LISTS: Final = frozenset((b"writeErrors", b"writeConcernError", b"writeConcernErrors", b"upserted"))
_ERROR_NUMBERS: Final = frozenset((b"index", b"code", b"codeName"))
_OF_NAMES: Final = frozenset(
    (
        *(6, 7, 13, 18, 26, 27, 43, 48, 50, 59, 64, 67, 68, 72, 73, 79, 85, 86, 89, 91, 100, 112, 133, 165, 168, 189),
        *(211, 225, 226, 246, 251, 262, 263, 291, 10107, 11000, 11600, 11601, 11602, 13435, 13436, 40324, 40415),
    )
)
"""Codes of errors that tell of names, rights, states and limits; and of keys that are there already, as `hide_quoted`
knows them. Of all others, such as a value that cannot be converted, anything may be data."""
_OF_WORDS: Final = frozenset((2, 9, 14))
"""BadValue, FailedToParse, TypeMismatch: of the command's own words, unless a pipeline computes."""
_NAMES_END: Final = b"\0\0"
"""Between field names: none holds a NUL."""


@dataclass(slots=True)
class Part:
    """What is handed out at once: one document's values, or an error's message. `elements`: where they stand. `names`:
    the places of field names, which are a row's last cell. `made`: of values, it may be; then rules on columns hide
    them."""

    event: Rows | Text
    elements: list[Element]
    names: list[Element]
    made: bool = False


@dataclass(slots=True)
class Assembly:
    """A server's message whose values are being masked."""

    message: Message
    exchange: int
    parts: Iterator[Part]
    edits: bson.Edits = field(default_factory=dict)
    names: bson.Names = field(default_factory=dict)
    part: Part | None = None

    def next(self) -> Rows | Text | None:
        """The next part; what comes back of it belongs to it until the one after."""
        self.part = next(self.parts, None)
        return None if self.part is None else self.part.event

    def hide_row(self, row: Rows, values: list[bytes | None]) -> None:
        """Takes what came back of a document."""
        part = self._current(row)
        for element, before, value in zip(part.elements, row.values, values, strict=False):
            if value != before:
                self.edits[element.start] = _written(element, value)
        if values[-1] != row.values[-1]:
            _rename(self.names, part.names, values[-1] or b"", made=part.made)

    def hide_text(self, text: Text, data: bytes) -> None:
        """The same of an error's message."""
        if data != text.data:
            element = self._current(text).elements[0]
            self.edits[element.start] = _written(element, data)

    def _current(self, event: Rows | Text) -> Part:
        if self.part is None or self.part.event is not event:
            raise RuntimeError("this part was not handed on last")
        return self.part

    def finish(self) -> bytes:
        """The message as it may go on."""
        if not self.edits and not self.names:
            return self.message.raw
        return rewritten(self.message, self.edits, self.names)


def assemble(message: Message, exchange: int, command: Command, naming: Naming) -> Assembly:
    """Begins to mask the answer `message` to `command`."""
    assembly = Assembly(message, exchange, iter(()))
    assembly.parts = _Parts(assembly, command, naming).all()
    return assembly


class _Parts:
    """Takes a reply apart."""

    def __init__(self, assembly: Assembly, command: Command, naming: Naming) -> None:
        self._assembly = assembly
        self._raw = assembly.message.raw
        self._command = command
        self._naming = naming

    def all(self) -> Iterator[Part]:
        message = self._assembly.message
        rest: list[tuple[Element, str]] = []
        for element in bson.elements(self._raw, message.body, message.end):
            if element.name in _ENVELOPE:
                continue
            if element.name == b"cursor" and element.kind == bson.DOCUMENT:
                yield from self._cursor(element)
            elif element.name == b"errmsg":
                yield self._error(element, message.body, message.end)
            elif element.name == b"errInfo":
                yield self._document([(element, "errInfo")], self._naming.nameless())
            elif element.name in _ERROR_LISTS and element.kind in bson.CONTAINERS:
                yield from self._errors(element, 0)
            elif element.name == b"value" and self._command.name in ("findAndModify", "findandmodify"):
                yield self._document([(element, "")])
            elif element.name == b"values" and self._command.field_name:
                yield self._document([(element, self._command.field_name)])
            else:
                rest.append((element, _text(element.name)))
        if rest:
            yield self._document(rest)
        for sequence in message.sequences:
            for place in sequence.documents:
                yield self._document([(Element(bson.DOCUMENT, b"", place, place, sequence.end), "")])

    def _cursor(self, cursor: Element) -> Iterator[Part]:
        for element in bson.elements(self._raw, cursor.start, cursor.end):
            if element.name in _BATCHES and element.kind == bson.ARRAY:
                for item in bson.elements(self._raw, element.start, element.end):
                    yield self._document([(item, "")])
            elif element.name not in _CURSOR:
                yield self._document([(element, _text(element.name))])

    def _errors(self, listed: Element, depth: int) -> Iterator[Part]:
        """Errors of writes: their messages, and the keys and documents that they quote."""
        if depth > bson.MAX_DEPTH:
            raise ProtocolError(Side.SERVER, "a reply nests too many documents")
        for element in bson.elements(self._raw, listed.start, listed.end):
            if element.name == b"errmsg":
                yield self._error(element, listed.start, listed.end)
            elif element.name == b"errInfo":
                yield self._document([(element, "errInfo")], self._naming.nameless())
            elif element.name in (b"keyValue", b"keyPattern"):
                yield self._document([(element, "")])
            elif listed.kind == bson.ARRAY and element.kind == bson.DOCUMENT:
                yield from self._errors(element, depth + 1)
            elif element.name not in _ERROR_NUMBERS:
                yield self._document([(element, _text(element.name))])

    def _error(self, element: Element, start: int, end: int) -> Part:
        """The message of an error whose document is there."""
        data = bson.spelt(self._raw, element) or b""
        codes = [bson.number(self._raw, one) for one in bson.elements(self._raw, start, end) if one.name == b"code"]
        known = _OF_NAMES if self._command.name == "aggregate" else _OF_NAMES | _OF_WORDS
        media = "error" if codes and known.issuperset(codes) else "anything"
        return Part(Text(self._assembly.exchange, media, data, True, b""), [element], [])

    def _document(self, roots: list[tuple[Element, str]], naming: Naming | None = None) -> Part:
        """The values of `roots`, each below its path."""
        naming = naming or self._naming
        cells = _Cells(self._raw, naming)
        for root, path in roots:
            if path:
                cells.add(root, path)
            if root.kind in bson.CONTAINERS:
                cells.add_below(root, path, 0)
        # Rules on columns leave field names alone where none is made of a value, see `_rename`.
        columns, binary = (*cells.columns, "" if naming.makes_names else naming.prefix), (*cells.binary, False)
        values = [*cells.values, _joined(cells.names)]
        strings = (*cells.strings, True)
        row = Rows(self._assembly.exchange, columns, values, binary, b"", strings)
        return Part(row, cells.elements, cells.names, naming.makes_names)


class _Cells:
    """Collects the values of one document. Lists and documents are cells as well, of no words: a rule on them hides all
    that is below."""

    def __init__(self, raw: bytes, naming: Naming) -> None:
        self.elements: list[Element] = []
        self.names: list[Element] = []
        self.columns: list[str] = []
        self.values: list[bytes | None] = []
        self.binary: list[bool] = []
        self.strings: list[bool] = []
        self._raw = raw
        self._naming = naming

    def add(self, element: Element, path: str) -> None:
        self.elements.append(element)
        self.columns.append(self._naming.column(path) if path else self._naming.prefix)
        self.values.append(bson.spelt(self._raw, element))
        string = element.kind in bson.TEXTS
        self.strings.append(string)
        self.binary.append(not string and element.kind not in bson.NUMBERS)

    def add_below(self, container: Element, path: str, depth: int) -> None:
        if depth > bson.MAX_DEPTH:
            raise ProtocolError(Side.SERVER, f"a document nests more than {bson.MAX_DEPTH} others")
        listed = container.kind == bson.ARRAY
        for element in bson.elements(self._raw, container.start, container.end):
            below = path
            if not listed:
                self.names.append(element)
                below = f"{path}.{_text(element.name)}" if path else _text(element.name)
            self.add(element, below)
            if element.kind in bson.CONTAINERS:
                self.add_below(element, below, depth + 1)


def rewrite_request(message: Message, rewrite: Rewrite, edits: bson.Edits) -> bytes:
    """The client's `message` with what `rewrite` hides in the values of its documents: of all but the command's first
    field, which names its collection, and what belongs to sessions. `edits`: further ones."""
    raw, names = message.raw, dict[int, bytes]()
    for number, element in enumerate(bson.elements(raw, message.body, message.end)):
        if (number or element.kind in bson.CONTAINERS) and element.name not in _NOT_WRITTEN:
            _rewrite(raw, [element], rewrite, edits, names)
    for sequence in message.sequences:
        for place in sequence.documents:
            whole = Element(bson.DOCUMENT, b"", place, place, place + bson.size_of(raw, place, sequence.end))
            _rewrite(raw, [whole], rewrite, edits, names)
    return rewritten(message, edits, names) if edits or names else raw


_NOT_WRITTEN: Final = frozenset(
    b"""$db lsid $clusterTime txnNumber collection readConcern writeConcern $readPreference ordered limit skip batchSize
    maxTimeMS cursor cursors autocommit startTransaction singleBatch nsInfo""".split()
)


def _rewrite(raw: bytes, pending: list[Element], rewrite: Rewrite, edits: bson.Edits, names: bson.Names) -> None:
    named: list[Element] = []
    while pending:
        element = pending.pop()
        if element.kind in bson.CONTAINERS:
            inner = list(bson.elements(raw, element.start, element.end))
            pending += inner
            if element.kind == bson.DOCUMENT:
                named += inner
            continue
        value = bson.spelt(raw, element)
        if value:
            hidden = rewrite(value)
            if hidden != value:
                edits[element.start] = _written(element, hidden)
    if named:
        joined = _joined(named)
        hidden = rewrite(joined)
        if hidden != joined:
            _rename(names, named, hidden)


def _joined(elements: list[Element]) -> bytes:
    return _NAMES_END.join([b"", *(one.name for one in elements), b""])


def _rename(names: bson.Names, elements: list[Element], joined: bytes, *, made: bool = False) -> None:
    """Field names that hold values are hidden as well. What no longer begins and ends as `_joined` made it was hidden
    as a column, which names are not, unless they may be `made` of values: then they are numbered."""
    parts = joined.split(_NAMES_END)
    hidden = parts[1:-1]
    if parts[0] or parts[-1] or len(hidden) != len(elements):
        if not made:
            return
        hidden = [one.name if one.name == b"_id" else b"*%d" % number for number, one in enumerate(elements)]
    names.update({one.at: name for one, name in zip(elements, hidden, strict=True) if name != one.name})


def _written(element: Element, value: bytes | None) -> tuple[int, bytes]:
    """A value's new type and bytes."""
    if value is not None and element.kind in bson.TEXTS:
        return element.kind, bson.string(value)
    number = None if value is None or element.kind not in bson.NUMBERS else bson.numeric(element.kind, value)
    return (bson.NULL, b"") if number is None else (element.kind, number)


def _text(name: bytes) -> str:
    return name.decode("utf-8", "backslashreplace")
