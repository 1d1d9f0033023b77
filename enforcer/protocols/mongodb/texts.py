"""Step 4 of 6, inspect: a MongoDB command as it is recorded: extended JSON, without credentials.

Gets a command's message; hands on its text, and whom it logs in as. What is left out never depends on policy:
credentials are in no record. Sessions' own fields (`lsid`, `$clusterTime`) say nothing, and are left out as well.
"""

from __future__ import annotations

import base64
import re
from typing import Final

from enforcer.protocols.mongodb import bson
from enforcer.protocols.mongodb.bson import Element
from enforcer.protocols.mongodb.wire import Message

TEXT_LIMIT: Final = 4096
"""Characters of a command that are recorded: enough to recognise it, and a row stays a row."""

_LEFT_OUT: Final = frozenset((b"lsid", b"$clusterTime"))
_SECRETS: Final = frozenset((b"payload", b"pwd", b"key", b"password", b"nonce", b"proof", b"kmsProviders"))
_OF_CREDENTIALS: Final = frozenset(
    ("hello", "isMaster", "ismaster", "saslStart", "saslContinue", "authenticate", "createUser", "updateUser")
)
_HIDDEN: Final = '"(hidden)"'
_ESCAPED: Final = re.compile(r'["\\\x00-\x1f\x7f-\x9f\ud800-\udfff]')
_UNCERTAIN_TAIL: Final = re.compile(r"[\w.%+'@ -]{1,400}\Z")
"""What a recorded beginning must not end in: a part of a value would not be recognised, and so not be masked."""


def describe(message: Message, name: str) -> str:
    """The command in relaxed extended JSON, at most TEXT_LIMIT characters, its sections of documents as lists."""
    writer = _Writer(message.raw, _SECRETS if name in _OF_CREDENTIALS else frozenset())
    writer.fields(message.body, message.end, 0, _LEFT_OUT)
    for sequence in message.sequences:
        if writer.left <= 0:
            break
        writer.put(f', "{_escape(sequence.name)}": [')
        for number, place in enumerate(sequence.documents):
            if writer.left <= 0:
                break
            writer.put(", " if number else "")
            writer.document(place, sequence.end, 0)
        writer.put("]")
    text = "{" + "".join(writer.parts) + "}"
    return text if writer.left >= 0 else _UNCERTAIN_TAIL.sub("", text[:TEXT_LIMIT]) + "…"


class _Writer:
    """Writes until `left` characters are used up."""

    def __init__(self, data: bytes, secrets: frozenset[bytes]) -> None:
        self.parts: list[str] = []
        self.left = TEXT_LIMIT
        self._data = data
        self._secrets = secrets

    def put(self, text: str) -> None:
        self.parts.append(text)
        self.left -= len(text)

    def document(self, start: int, limit: int, depth: int) -> None:
        self.put("{")
        self.fields(start, limit, depth, frozenset())
        self.put("}")

    def fields(self, start: int, limit: int, depth: int, left_out: frozenset[bytes]) -> None:
        first = True
        for element in bson.elements(self._data, start, limit):
            if self.left <= 0 or depth > bson.MAX_DEPTH:
                self.left = min(self.left, -1)
                return
            if element.name in left_out:
                continue
            name = _escape(element.name.decode("utf-8", "backslashreplace")[:TEXT_LIMIT])
            self.put(f'{"" if first else ", "}"{name}": ')
            first = False
            if element.name in self._secrets:
                self.put(_HIDDEN)
            else:
                self.value(element, depth)

    def value(self, element: Element, depth: int) -> None:
        if element.kind == bson.DOCUMENT:
            self.document(element.start, element.end, depth + 1)
        elif element.kind == bson.ARRAY:
            self.put("[")
            for number, item in enumerate(bson.elements(self._data, element.start, element.end)):
                if self.left <= 0:
                    break
                self.put(", " if number else "")
                self.value(item, depth + 1)
            self.put("]")
        else:
            self.put(_scalar(self._data, element))


def _scalar(data: bytes, element: Element) -> str:
    kind, start, end = element.kind, element.start, element.end
    if kind == bson.STRING:
        return (
            f'"{_escape(data[start + 4 : min(end - 1, start + 4 + TEXT_LIMIT)].decode("utf-8", "backslashreplace"))}"'
        )
    if kind in (bson.INT32, bson.INT64, bson.DOUBLE):
        return (bson.spelt(data, element) or b"").decode()
    if kind == bson.BOOL:
        return "true" if data[start] else "false"
    if kind == bson.NULL:
        return "null"
    if kind == bson.OBJECT_ID:
        return f'{{"$oid": "{data[start:end].hex()}"}}'
    if kind == bson.DATE:
        return f'{{"$date": {{"$numberLong": "{int.from_bytes(data[start:end], "little", signed=True)}"}}}}'
    if kind == bson.BINARY:
        shown = base64.b64encode(data[start + 5 : min(end, start + 5 + TEXT_LIMIT)]).decode()
        return f'{{"$binary": {{"base64": "{shown}", "subType": "{data[start + 4]:02x}"}}}}'
    if kind == bson.DECIMAL:
        return f'{{"$numberDecimal": "{bson.decimal(data, start)}"}}'
    if kind in (bson.CODE, bson.SYMBOL):
        word = "$code" if kind == bson.CODE else "$symbol"
        return f'{{"{word}": "{_escape(bson.text(data, element)[:TEXT_LIMIT])}"}}'
    if kind == bson.REGEX:
        pattern, options, _ = data[start:end].decode("utf-8", "backslashreplace").split("\0")
        escaped = _escape(pattern[:TEXT_LIMIT])
        return f'{{"$regularExpression": {{"pattern": "{escaped}", "options": "{_escape(options)}"}}}}'
    if kind == bson.TIMESTAMP:
        increment, seconds = (
            int.from_bytes(data[start : start + 4], "little"),
            int.from_bytes(data[start + 4 : end], "little"),
        )
        return f'{{"$timestamp": {{"t": {seconds}, "i": {increment}}}}}'
    words = {bson.MIN_KEY: '{"$minKey": 1}', bson.MAX_KEY: '{"$maxKey": 1}', bson.UNDEFINED: '{"$undefined": true}'}
    shown = _escape(data[start : min(end, start + TEXT_LIMIT)].decode("latin-1"))
    return words.get(kind) or f'{{"type {kind:#04x}": "{shown}"}}'


def _escape(text: str) -> str:
    return _ESCAPED.sub(lambda found: f"\\u{ord(found[0]):04x}" if found[0] not in '"\\' else "\\" + found[0], text)


def user_of(message: Message, name: str) -> str:
    """Whom a command logs in as: of SCRAM and PLAIN the name in the first message, of X.509 the field; else empty."""
    raw, start, end = message.raw, message.body, message.end
    if name in ("hello", "isMaster", "ismaster"):
        found = next((one for one in bson.elements(raw, start, end) if one.name == b"speculativeAuthenticate"), None)
        if found is None or found.kind != bson.DOCUMENT:
            return ""
        start, end = found.start, found.end
    elif name not in ("saslStart", "authenticate"):
        return ""
    fields = {one.name: one for one in bson.elements(raw, start, end)}
    user, payload = fields.get(b"user"), fields.get(b"payload")
    if user is not None:
        return bson.text(raw, user)
    said = bson.spelt(raw, payload) if payload is not None else None
    if not said:
        return ""
    if b"\0" in said:  # RFC 4616: authorization identity, name, password
        return said.split(b"\0")[1].decode("utf-8", "backslashreplace")
    scram = re.search(rb"(?:\A|,)n=([^,]*)", said[said.find(b",,") + 2 :])  # RFC 5802
    return scram[1].replace(b"=2C", b",").replace(b"=3D", b"=").decode("utf-8", "backslashreplace") if scram else ""
