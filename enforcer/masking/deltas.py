"""Step 4 of 6, inspect: pseudonyms taken back in answers that come as many small documents, as language models stream
them: server-sent events, JSON in lines, messages of WebSocket and gRPC.

A pseudonym may be spread over several of them, `{"delta":"EMA"}` and `{"delta":"IL_1"}`: the strings at the same place
of documents that follow each other are one text. What may be the beginning of a pseudonym holds back its document, and
those behind it, until it is known, or nothing has come for a while; a value then stands where its pseudonym began.
Documents of JSON-RPC are whole.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import orjson

from enforcer.masking.events import Splitter
from enforcer.masking.pseudonyms import Pseudonymiser
from enforcer.masking.restore import JSON_NUMBER, Chain, is_json, json_string
from enforcer.masking.text import TextMask

HELD_MAX: Final = 64
"""Documents that wait: a pseudonym has fewer letters. Beyond, they go on as they are."""
_HELD_BYTES: Final = 1 << 20
_KEYS_MAX: Final = 4096

PAUSE: Final = 1.0
"""Seconds without a document after which those that wait go on: slow models write a few words in that time, and a
message that was complete is not much late."""
SHORT_PAUSE: Final = 0.1
"""The same where what may be a beginning stands right behind a letter, as the end of `ACTIVE` does: nearly always a
word, and answers to questions end in such."""

# Members by which several texts that are streamed at once are told apart.
_TELLING: Final = ("index", "output_index", "content_index", "item_id", "response_id", "request_id", "stream_id")
_RPC: Final = "jsonrpc"

Key = tuple[Any, ...]


@dataclass(slots=True)
class Leaf:
    """A string in a document: where, and what it is now."""

    container: Any
    name: Any
    text: bytes

    def write(self, text: bytes) -> None:
        self.text = text
        self.container[self.name] = text.decode("utf-8", "surrogateescape")


@dataclass(slots=True)
class _Document:
    """One that came: as it was, its tree, whether that is of JSON, and whether it changed."""

    raw: bytes
    write: Callable[[bytes], bytes]
    tree: Any
    json: bool = False
    changed: bool = False

    def written(self) -> bytes:
        if not self.changed:
            return self.raw
        tree = self.tree[0]
        return self.write(orjson.dumps(tree) if self.json else tree.encode("utf-8", "surrogateescape"))

    def read(self, text: bytes) -> None:
        """A word of digits is a text where it is all that came, as are others that are no JSON."""
        if is_json(text) or text[:1] == b'"':
            try:
                self.tree[0], self.json = orjson.loads(text), True
                return
            except orjson.JSONDecodeError:
                pass
        self.tree[0] = text.decode("utf-8", "surrogateescape")


@dataclass(slots=True)
class _Open:
    """The end of one text that may be the beginning of a pseudonym: its parts, with the documents they are in."""

    parts: list[tuple[_Document, Leaf, int]] = field(default_factory=list)  # from so many bytes of the leaf on

    @property
    def within_word(self) -> bool:
        _, leaf, at = self.parts[0]
        return leaf.text[max(0, at - 1) : at].isalnum()

    @property
    def text(self) -> bytes:
        return b"".join([leaf.text[at:] for _, leaf, at in self.parts])


class Deltas:
    """One stream of documents."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        self._pseudonyms = pseudonyms
        self._waiting: list[_Document] = []
        self._size = 0
        self._open: dict[Key, _Open] = {}
        self._nested: dict[Key, bool] = {}

    @property
    def patience(self) -> float:
        """Seconds after which `release` is due, if nothing comes; 0 where nothing waits."""
        if not self._open:
            return 0
        return SHORT_PAUSE if all(opened.within_word for opened in self._open.values()) else PAUSE

    def take(self, raw: bytes, text: bytes | None, write: Callable[[bytes], bytes]) -> list[bytes]:
        """The documents that may go on now that `raw` has come: its `text` (None: it has none), and what makes it anew
        with another one."""
        document = _Document(raw, write, [None])
        if text is not None:
            self._read(document, text)
        self._waiting.append(document)
        self._size += len(raw)
        if len(self._waiting) > HELD_MAX or self._size > _HELD_BYTES:
            return self.release()
        return self._released()

    def release(self) -> list[bytes]:
        """All that waits: what was begun goes no further."""
        for key, opened in list(self._open.items()):
            self._settle(key, opened, None)
        self._open.clear()
        return self._released()

    def finish(self) -> list[bytes]:
        """The same at the end of the stream."""
        self._nested.clear()
        return self.release()

    def _released(self) -> list[bytes]:
        kept = {id(document) for opened in self._open.values() for document, _, _ in opened.parts}
        out = []
        while self._waiting and id(self._waiting[0]) not in kept:
            document = self._waiting.pop(0)
            self._size -= len(document.raw)
            out.append(document.written())
        return out

    def _read(self, document: _Document, text: bytes) -> None:
        document.read(text)
        if self._pseudonyms.forms.pattern.search(text) or b"\\u" in text:
            self._restore_others(document)
        goes_on = not (isinstance(document.tree[0], dict) and _RPC in document.tree[0])
        for key, leaf in _leaves(document.tree):
            self._restore(document, key, leaf, goes_on=goes_on)

    def _restore(self, document: _Document, key: Key, leaf: Leaf, *, goes_on: bool) -> None:
        opened = self._open.get(key)
        if opened is None:
            if key not in self._nested:
                self._nested[key] = is_json(leaf.text) and len(key) > 1
                if len(self._nested) > _KEYS_MAX:
                    self._nested.clear()
        else:
            if goes_on and self._held(opened.text + leaf.text) == 0:
                opened.parts.append((document, leaf, 0))
                return
            del self._open[key]
            if self._settle(key, opened, leaf):
                document.changed = True
        end = self._held(leaf.text) if goes_on else len(leaf.text)
        tail, body = leaf.text[end:], leaf.text[:end]
        restored = self._pseudonyms.restored(body, lambda value, _place: self._spelt(key, value))
        if restored != body:
            leaf.write(restored + tail)
            document.changed = True
        if tail:
            self._open[key] = _Open([(document, leaf, len(leaf.text) - len(tail))])

    def _restore_others(self, document: _Document) -> None:
        """Names of members, and numbers: they are whole."""
        waiting: list[Any] = [document.tree]
        while waiting:
            node = waiting.pop()
            if isinstance(node, dict):
                names = [self._restored_name(name) for name in node]
                if names != list(node) and len(set(names)) == len(names):
                    values = list(node.values())
                    node.clear()
                    node.update(zip(names, values, strict=True))
                    document.changed = True
            for name, value in list(node.items() if isinstance(node, dict) else enumerate(node)):
                if isinstance(value, dict | list):
                    waiting.append(value)
                elif type(value) is int and (number := self._restored_number(value)) != value:
                    node[name] = number
                    document.changed = True

    def _restored_name(self, name: str) -> str:
        return self._pseudonyms.restored(name.encode("utf-8", "surrogatepass")).decode("utf-8", "surrogateescape")

    def _restored_number(self, number: int) -> int | str:
        text = b"%d" % number
        restored = self._pseudonyms.restored(text)
        if restored == text:
            return number
        return int(restored) if JSON_NUMBER.fullmatch(restored) and restored.isdigit() else restored.decode()

    def _settle(self, key: Key, opened: _Open, leaf: Leaf | None) -> bool:
        """What was begun has ended, within `leaf` perhaps. Where it is a pseudonym, the value takes the place of its
        first part, and the rest of it goes. Whether `leaf` is another now."""
        begun, more = opened.text, b"" if leaf is None else leaf.text
        found = [one for one in self._pseudonyms.found(begun + more) if one[0] < len(begun)]
        if not found:
            return False
        start, end, value = found[0]
        written = begun[:start] + self._spelt(key, value.encode("utf-8", "surrogateescape")) + begun[end:]
        for number, (document, part, at) in enumerate(opened.parts):
            part.write(part.text[:at] + (written if number == 0 else b""))
            document.changed = True
        if leaf is None or end <= len(begun):
            return False
        leaf.write(more[end - len(begun) :])
        return True

    def _held(self, text: bytes) -> int:
        """From where on `text` may go on as a pseudonym in the next document; its length if nowhere."""
        place = self._pseudonyms.forms.held(text)
        return place if place < len(text) and self._pseudonyms.may_go_on(text[place:]) else len(text)

    def _spelt(self, key: Key, value: bytes) -> bytes:
        return json_string(value) if self._nested.get(key, False) else value


def _leaves(tree: Any) -> list[tuple[Key, Leaf]]:
    """The strings of a document, each with its place and what tells it from others at the same place."""
    found: list[tuple[Key, Leaf]] = []
    waiting: list[tuple[Any, Key]] = [(tree, ())]
    while waiting:
        node, key = waiting.pop()
        if isinstance(node, dict):
            key = (*key, *(node[name] for name in _TELLING if isinstance(node.get(name), str | int)))
        for name, value in node.items() if isinstance(node, dict) else enumerate(node):
            if isinstance(value, str):
                found.append(((*key, name), Leaf(node, name, value.encode("utf-8", "surrogatepass"))))
            elif isinstance(value, dict | list):
                waiting.append((value, (*key, name)))
    return found


class Waiting(ABC):
    """A text in which whole documents may wait for those behind them."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        self._deltas = Deltas(pseudonyms)

    @abstractmethod
    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:
        """See `text.TextMask`."""

    @property
    def patience(self) -> float:
        """See `Deltas`."""
        return self._deltas.patience

    def release(self) -> bytes:
        """The documents that wait, as they are."""
        return b"".join(self._deltas.release())


def waiting_of(mask: TextMask) -> Waiting | None:
    """What documents may wait in, if `mask` has some."""
    last = mask.second if isinstance(mask, Chain) else mask
    return last if isinstance(last, Waiting) else None


class RestoredEvents(Waiting):
    """Server-sent events."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        super().__init__(pseudonyms)
        self._splitter = Splitter()

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:  # noqa: ARG002 - the interface
        out: list[bytes] = []
        for event in self._splitter.feed(data, final):
            out += self._deltas.take(event.raw, event.data, event.written)
        if final:
            out += self._deltas.finish()
        return b"".join(out)


_LINE: Final = re.compile(rb"[^\n]*\n|[^\n]+")


def _joined(end: bytes, line: bytes) -> bytes:
    return line + end


class RestoredLines(Waiting):
    """JSON in lines, each as soon as it has ended."""

    def __init__(self, pseudonyms: Pseudonymiser) -> None:
        super().__init__(pseudonyms)
        self._held: list[bytes] = []

    def feed(self, data: bytes, final: bool, counts: Counter[str]) -> bytes:  # noqa: ARG002 - the interface
        end = len(data) if final else data.rfind(b"\n") + 1
        text = b"".join([*self._held, data[:end]]) if end else b""
        self._held = [data[end:]] if end else [*self._held, data]
        out: list[bytes] = []
        for line in _LINE.findall(text):
            body = line.rstrip(b"\r\n")
            out += self._deltas.take(line, body or None, partial(_joined, line[len(body) :]))
        if final:
            self._held = []
            out += self._deltas.finish()
        return b"".join(out)
