"""Step 4 of 6, inspect: masking as one rule asks for it.

Gets a `MaskSpec` and what servers answer (rows, texts, single values); hands on the same with everything hidden that
the specification names, and counts by name. Pure. Belongs to one thread, like the process that uses it: Hyperscan's
scratch space is shared by all maskers with the same detectors.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection
from enum import Enum
from functools import lru_cache
from itertools import accumulate
from typing import Any

import orjson

from enforcer.masking import detectors, jsonpath, language
from enforcer.masking.detectors import DETECTORS, NAMES, expand
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import unescape
from enforcer.masking.events import Events
from enforcer.masking.fields import ColumnRules, hide_cells, hide_json
from enforcer.masking.form import Form
from enforcer.masking.multipart import Multipart
from enforcer.masking.scanner import PIECE, Scanner
from enforcer.masking.text import JsonWindow, Lines, Refused, TextMask, Untouched, Whole, Window, hide_quoted
from enforcer.verdict import MaskSpec

__all__ = ["MaskError", "Masker", "TextMask", "masker_for"]

_CELLS = b"\x00\x00"
"""Between the cells of a row while they are scanned: no value of any detector holds a NUL; one alone may be UTF-16."""


@lru_cache(maxsize=32)
def scanner_of(names: frozenset[str]) -> Scanner:
    """The scanner for these detectors, made once."""
    return Scanner(tuple(detector for detector in (*DETECTORS, *language.ROWS) if detector.name in names))


class _Kind(Enum):
    """What a media type says of how a text is built."""

    TEXT = "text, or bytes that nobody reads as anything else"
    JSON = "JSON text, also in sequences"
    LINES = "JSON, a document per line"
    FORM = "pairs in percent-encoding"
    PARTS = "parts, each of its own type"
    EVENTS = "server-sent events"


@lru_cache(maxsize=256)
def _kind(media: str) -> _Kind:
    """Of a media type, whatever its parameters."""
    essence = media.partition(";")[0].lower()
    if any(word in essence for word in ("ndjson", "jsonl", "json-lines")):
        return _Kind.LINES
    if "json" in essence:
        return _Kind.JSON
    if essence == "application/x-www-form-urlencoded":
        return _Kind.FORM
    if essence == "text/event-stream":
        return _Kind.EVENTS
    return _Kind.PARTS if essence.startswith("multipart/") else _Kind.TEXT


class Masker:
    """What `spec` asks for, compiled. Raises MaskError for a detector or JSON path that does not exist."""

    def __init__(self, spec: MaskSpec) -> None:
        unknown = sorted(set(spec.detectors) - NAMES - language.NAMES)
        if unknown:
            raise MaskError(detectors.unknown(unknown[0]))
        self._scanner = scanner_of(expand(spec.detectors)) if spec.detectors else None
        self._columns = ColumnRules(spec.columns) if spec.columns else None
        try:
            self._paths = tuple(jsonpath.parse(path.path) for path in spec.json_paths)
        except ValueError as error:
            raise MaskError(str(error)) from error

    def mask(self, data: bytes, counts: Counter[str]) -> bytes:
        """A whole value by the detectors; `data` itself when nothing was found.

        A value spelt with `\\uXXXX` (JSON within a column, a statement) is returned written out if that shows something
        to hide.
        """
        if self._scanner is None:
            return data
        return self._value(self._scanner, data, counts, json=None)

    def _value(self, scanner: Scanner, data: bytes, counts: Counter[str], json: int | None) -> bytes:
        if b"\\u" in data:
            plain = unescape(data)
            hidden = self._detect(scanner, plain, counts, json)
            if hidden is not plain:
                return hidden
        return self._detect(scanner, data, counts, json)

    @staticmethod
    def _detect(scanner: Scanner, data: bytes, counts: Counter[str], json: int | None) -> bytes:
        if len(data) <= PIECE:
            return scanner.hide(data, counts, json=json)
        window = Window(scanner) if json is None else JsonWindow(scanner)
        hidden = window.feed(data, True, counts)
        return data if hidden == data else hidden

    def mask_text(self, text: str) -> str:
        """`text` as it may be written down: masked, and what is not Unicode spelled out in escapes."""
        raw = text.encode("utf-8", "surrogateescape")
        return self.mask(raw, Counter()).decode("utf-8", "backslashreplace")

    def rows(
        self,
        columns: tuple[str, ...],
        values: list[bytes | None],
        binary: tuple[bool, ...],
        counts: Counter[str],
    ) -> list[bytes | None] | None:
        """Rows of the same columns, one after another, by columns and detectors; None when nothing changes. Raises
        MaskError if the three do not fit."""
        width = len(columns)
        if width != len(binary) or len(values) % (width or len(values) + 1):
            raise MaskError("a row does not have the columns that were announced; ask the server's operator")
        hidden = self._columns.hidden(columns) if self._columns is not None else {}
        suspects = self._suspects(self._scanner, values) if self._scanner is not None else ()
        if not suspects and not hidden:
            return None
        masked = list(values)
        for index in suspects:
            if index % width not in hidden:
                masked[index] = self._cell(values[index], binary[index % width], counts)
        for index, rule in hidden.items():
            masked[index::width] = hide_cells(values[index::width], binary[index], rule, counts)
        return None if masked == values else masked

    @staticmethod
    def _suspects(scanner: Scanner, values: list[bytes | None]) -> Collection[int]:
        """Indexes of the cells that may hold a value: one scan of them all, and a closer look only if it finds some."""
        joined = _CELLS.join(filter(None, values))
        if b"\\u" in joined or scanner.reads_whole:
            return range(len(values))
        suspects = scanner.suspects(joined)
        if not suspects:
            return ()
        edges = list(accumulate(len(value) + len(_CELLS) if value else 0 for value in values))
        return {bisect_right(edges, place) for place in suspects}

    def _cell(self, value: bytes | None, binary: bool, counts: Counter[str]) -> bytes | None:
        """One cell by the detectors. A binary one with a value in it becomes NULL: its layout is not known here."""
        if not value or self._scanner is None:
            return value
        # Documents and arrays must stay ones: a number in them becomes null, which both understand.
        hidden = self._value(self._scanner, value, counts, json=0 if value[:1] in (b"{", b"[") else None)
        return None if binary and hidden != value else hidden

    def text(self, media: str) -> TextMask:
        """A mask for one text of the type `media`, to be fed piece by piece.

        JSON is unescaped on its way (`text.JsonWindow`): `\\u0034` is a digit that no scan sees. With JSON paths it
        is held back whole (`text.MAX_DOCUMENT`) and always written anew: what its reader gets is then what was masked,
        without second members of the same name; integers beyond 64 bits come out as doubles. Empty text stays empty;
        text that is not JSON although it says so raises MaskError. With column rules, COPY output is refused, for it
        has no column names, and errors lose every value they quote.
        """
        if self._columns is not None and media in ("copy", "error"):
            if media == "copy":
                return Refused("COPY output cannot be masked by column; use SELECT")
            return Whole("an error", self._error)
        kind = _kind(media)
        if self._scanner is None and (not self._paths or kind is _Kind.TEXT):
            return Untouched()
        if kind is _Kind.LINES:
            return Lines(self._json)
        if kind is _Kind.FORM:
            return Form(self._piece)
        if kind is _Kind.EVENTS:
            return Events(self._piece, self.mask)
        if kind is _Kind.PARTS:
            return self._parts(media)
        if kind is _Kind.JSON and self._paths:
            return Whole("JSON", self._document)
        if self._scanner is None:
            return Untouched()
        if self._scanner.reads_whole:
            return Whole("a text", self._json if kind is _Kind.JSON else self.mask)
        return JsonWindow(self._scanner) if kind is _Kind.JSON else Window(self._scanner)

    def _parts(self, media: str) -> TextMask:
        boundary = media.partition("boundary=")[2]
        if not boundary:
            return Refused("a multipart body without its boundary cannot be masked")
        return Multipart(boundary.encode("latin-1"), self.text, self.mask)

    def _piece(self, text: bytes, counts: Counter[str]) -> bytes:
        """A value that does not say what it is: a form's, an event's. JSON where it looks like it."""
        start = text.lstrip(b" \t\r\n")[:1]
        if start not in (b"{", b"["):
            return self.mask(text, counts)
        if self._paths:
            try:
                return self._document(text, counts)
            except MaskError:
                if start == b"{":
                    raise
        return self._json(text, counts) if not self._paths else self.mask(text, counts)

    def _json(self, text: bytes, counts: Counter[str]) -> bytes:
        """A JSON text that is there as a whole."""
        if self._paths:
            return self._document(text, counts)
        return text if self._scanner is None else self._value(self._scanner, text, counts, json=0)

    def _error(self, text: bytes, counts: Counter[str]) -> bytes:
        return self.mask(hide_quoted(text, counts), counts)

    def _document(self, text: bytes, counts: Counter[str]) -> bytes:
        if not text.strip():
            return text
        try:
            document: Any = orjson.loads(text)
            for path in self._paths:
                document, changed = jsonpath.apply(document, (path,), hide_json)
                if changed:
                    counts[path.text] += changed
            written = orjson.dumps(document)
        except (orjson.JSONDecodeError, orjson.JSONEncodeError) as error:
            raise MaskError("a text that should be JSON cannot be read; ask whoever wrote it") from error
        return written if self._scanner is None else JsonWindow(self._scanner).feed(written, True, counts)


@lru_cache(maxsize=256)
def masker_for(spec: MaskSpec) -> Masker:
    """The masker for `spec`, made once: this is the one to call per exchange."""
    return Masker(spec)
