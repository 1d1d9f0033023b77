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
from functools import lru_cache, partial
from itertools import accumulate
from typing import Any

import orjson

from enforcer.masking import detectors, jsonpath, language
from enforcer.masking.detectors import DETECTORS, GROUPS, NAMES, expand
from enforcer.masking.errors import MaskError
from enforcer.masking.escapes import unescape
from enforcer.masking.events import Events
from enforcer.masking.fields import ColumnRules, hide_cells, hide_json
from enforcer.masking.form import Form
from enforcer.masking.keys import Keys
from enforcer.masking.multipart import Multipart
from enforcer.masking.naming import Names, word_of
from enforcer.masking.operators import Operators, fits
from enforcer.masking.places import replace_members
from enforcer.masking.pseudonyms import Forms, Pseudonymiser, SessionVault, Vault
from enforcer.masking.rewriting import rewriting
from enforcer.masking.scanner import PIECE, Scanner
from enforcer.masking.tables import Cell, Table
from enforcer.masking.text import (
    JsonWindow,
    Lines,
    Refused,
    TextMask,
    Untouched,
    Whole,
    Window,
    hide_parts,
    hide_quoted,
)
from enforcer.verdict import PSEUDONYMISE, Masked, MaskSpec, Operator

__all__ = ["MaskError", "Masker", "TextMask", "masker_for"]

_CELLS = b"\x00\x00"
"""Between the cells of a row while they are scanned: no value of any detector holds a NUL; one alone may be UTF-16."""


@lru_cache(maxsize=32)
def scanner_of(names: frozenset[str]) -> Scanner:
    """The scanner for these detectors, made once."""
    return Scanner(tuple(detector for detector in (*DETECTORS, *language.ROWS) if detector.name in names))


_LEFT_ALONE = frozenset(
    (
        *("set-cookie", "www-authenticate", "proxy-authenticate", "authentication-info", "proxy-authentication-info"),
        *("date", "etag", "expires", "last-modified"),
    )
)
_CLEAN_FIELDS, _CLEAN_FIELD = 1024, 256
"""Header fields that are remembered, and bytes of one."""
_PACKED = frozenset(
    (
        *("application/grpc", "application/octet-stream", "application/pdf", "application/zip", "application/gzip"),
        *("application/protobuf", "application/x-protobuf", "application/msgpack", "application/cbor"),
    )
)
_PACKED_FAMILIES = ("image/", "audio/", "video/", "font/")


class Kind(Enum):
    """What a media type says of how a text is built."""

    TEXT = "text, or bytes that nobody reads as anything else"
    JSON = "JSON text, also in sequences"
    LINES = "JSON, a document per line"
    FORM = "pairs in percent-encoding"
    PARTS = "parts, each of its own type"
    EVENTS = "server-sent events"
    CSV = "rows of a table"
    PACKED = "bytes in a form of their own, in which nothing may become longer or shorter"


@lru_cache(maxsize=256)
def kind_of(media: str) -> Kind:
    """Of a media type, whatever its parameters."""
    essence = media.partition(";")[0].lower()
    if any(word in essence for word in ("ndjson", "jsonl", "json-lines")):
        return Kind.LINES
    if "json" in essence:
        return Kind.JSON
    if essence == "application/x-www-form-urlencoded":
        return Kind.FORM
    if essence == "text/event-stream":
        return Kind.EVENTS
    if essence in ("text/csv", "application/csv"):
        return Kind.CSV
    if essence in _PACKED or essence.startswith(_PACKED_FAMILIES):
        return Kind.PACKED
    return Kind.PARTS if essence.startswith("multipart/") else Kind.TEXT


class Masker:
    """What `spec` asks for, compiled. Raises MaskError for a detector or JSON path that does not exist.

    `keys`: of the deployment, for HMACs. `vault`: where pseudonyms are kept, if there are any; without one, in memory.
    `operated`: does it do more than to hide values in place, as by default? `names_fields`: has each header field or
    pair of a query to be looked at? `clean`: heads of answers that `field` leaves as they are, see `protocols.base`.
    """

    def __init__(self, spec: MaskSpec, keys: Keys | None = None, vault: Vault | None = None) -> None:
        unknown = sorted(set(spec.detectors) - NAMES - language.NAMES)
        if unknown:
            raise MaskError(detectors.unknown(unknown[0]))
        self._scanner = scanner_of(expand(spec.detectors)) if spec.detectors else None
        self._columns = ColumnRules(spec.columns) if spec.columns else None
        try:
            self._paths = tuple(jsonpath.parse(path.path) for path in spec.json_paths)
        except ValueError as error:
            raise MaskError(str(error)) from error
        self._spec = spec
        self.operated = bool(spec.operators or spec.fields)
        self.names_fields = bool(spec.detectors) or any(field.kind in ("header", "query") for field in spec.fields)
        self.clean: set[object] | None = set()
        self._clean: set[tuple[str, bytes]] = set()  # header fields with nothing to hide, seen lately
        self._in_place = self._scanner
        self._names: Names | None = None
        self._by_name: dict[str, Operator] = {}
        self._path_operators: list[tuple[jsonpath.Path, Operator | None, str]] = []
        self._apply: Operators | None = None
        if self.operated:
            self._operate(spec, keys or Keys(), vault)

    def _operate(self, spec: MaskSpec, keys: Keys, vault: Vault | None) -> None:
        operators = dict(reversed(spec.operators))
        pseudonyms = None if spec.pseudonyms is None else pseudonymiser(spec, vault or SessionVault())
        apply = self._apply = Operators(keys, pseudonyms)
        for operator in operators.values():
            apply.check(operator)
        self._names = Names(spec, operators, apply)
        if any(path in operators for path in spec.json_paths):
            texts = zip(self._paths, spec.json_paths, strict=True)
            self._path_operators = [(path, operators.get(said), word_of(said)) for path, said in texts]
        by_name = self._by_name = _by_detector(spec.detectors, operators)
        if by_name or pseudonyms is not None:
            words = None if pseudonyms is None else pseudonyms.forms.words
            alike = pseudonyms is not None and pseudonyms.forms.alike
            base = rewriting(expand(spec.detectors), frozenset(by_name), words, alike)
            self._scanner = base.bound(by_name, apply)

    def field(self, name: str, value: bytes, counts: Counter[str]) -> bytes:
        """A header field of an answer: as the item of the rule says that names it, else by the detectors, behind its
        name as behind a label. What keeps a client logged in stays, as in requests."""
        new = None if self._names is None else self._names.replaced("header", name, value, counts)
        if new is not None:
            return new
        said = (name, value)
        if self._scanner is None or said in self._clean or name.lower() in _LEFT_ALONE:
            return value
        label = name.encode("latin-1", "replace") + b": "
        masked = self.mask(label + value, counts)
        if masked == label + value:
            if len(self._clean) >= _CLEAN_FIELDS:
                self._clean.clear()
            if len(value) <= _CLEAN_FIELD:
                self._clean.add(said)
            return value
        return masked.removeprefix(label) if masked.startswith(label) else self.mask(value, counts)

    def replaced(self, kind: str, name: str, value: bytes, counts: Counter[str]) -> bytes | None:
        """What stands for a request's header field or a pair of its query; None where no item names it."""
        return None if self._names is None else self._names.replaced(kind, name, value, counts)

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
        *,
        strings: tuple[bool, ...] = (),
    ) -> list[bytes | None] | None:
        """Rows of the same columns, one after another, by columns and detectors; None when nothing changes. Operators
        heed `strings`, see `protocols.base.Rows`. Raises MaskError if the three do not fit."""
        width = len(columns)
        strings = strings or (False,) * width
        if width != len(binary) or len(values) % (width or len(values) + 1):
            raise MaskError("a row does not have the columns that were announced; ask the server's operator")
        hidden = self._columns.hidden(columns) if self._columns is not None else {}
        suspects = self._suspects(self._scanner, values) if self._scanner is not None else ()
        if self._names is not None and hidden:
            return self._named_rows(self._names, (hidden, suspects), values, (binary, strings), counts)
        if not suspects and not hidden:
            return None
        masked = list(values)
        for index in suspects:
            if index % width not in hidden:
                column = index % width
                masked[index] = self._cell(values[index], (binary[column], strings[column]), counts)
        for index, rule in hidden.items():
            masked[index::width] = hide_cells(values[index::width], binary[index], rule, counts)
        return None if masked == values else masked

    def _named_rows(
        self,
        names: Names,
        found: tuple[dict[int, str], Collection[int]],
        values: list[bytes | None],
        kinds: tuple[tuple[bool, ...], tuple[bool, ...]],
        counts: Counter[str],
    ) -> list[bytes | None] | None:
        """Rows by operators. `found`: the pattern by column, and the cells that may hold a value. `kinds`: which
        columns are binary, and which are strings."""
        (hidden, suspects), (binary, strings) = found, kinds
        masked = list(values)
        for index, value in enumerate(values):
            column = index % len(binary)
            packed, string = binary[column], strings[column]
            if column in hidden:
                masked[index] = names.cell(hidden[column], value, counts, binary=packed, string=string)
            elif index in suspects:
                masked[index] = self._cell(value, (packed, string), counts)
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

    def _cell(self, value: bytes | None, kind: tuple[bool, bool], counts: Counter[str]) -> bytes | None:
        """One cell by the detectors. A binary one with a value in it becomes NULL: its layout is not known here.
        `kind`: is it that, and is it a string?"""
        binary, string = kind
        if not value or self._scanner is None:
            return value
        # Documents and arrays must stay ones: a number in them becomes null, which both understand.
        hidden = self._value(self._scanner, value, counts, json=0 if value[:1] in (b"{", b"[") else None)
        if self.operated and not binary and not string and not fits(value, hidden):
            return None
        return None if binary and hidden != value else hidden

    def text(self, media: str) -> TextMask:
        """A mask for one text of the type `media`, to be fed piece by piece.

        JSON is unescaped on its way (`text.JsonWindow`): `\\u0034` is a digit that no scan sees. With JSON paths it
        is held back whole (`text.MAX_DOCUMENT`) and always written anew: what its reader gets is then what was masked,
        without second members of the same name; integers beyond 64 bits come out as doubles. Empty text stays empty;
        text that is not JSON although it says so raises MaskError. With column rules, COPY output is refused, for it
        has no column names, errors lose every value they quote, and what may be anything is hidden as a whole.
        """
        if self._columns is not None and media in ("copy", "error", "anything"):
            if media == "copy":
                return Refused(self.unmaskable(media))
            return Whole("an error", self._error if media == "error" else hide_parts)
        kind = kind_of(media)
        if self._names is not None and (named := self._named_text(kind, media)) is not None:
            return named
        if self._scanner is None and (not self._paths or kind in (Kind.TEXT, Kind.CSV, Kind.PACKED)):
            return Untouched()
        if kind is Kind.LINES:
            return Lines(self._json)
        if kind is Kind.FORM:
            return Form(self._piece)
        if kind is Kind.EVENTS:
            return Events(self._piece, self.mask)
        if kind is Kind.PARTS:
            return self._parts(media)
        if kind is Kind.JSON and self._paths:
            return Whole("JSON", self._document)
        if self._scanner is None:
            return Untouched()
        if self._scanner.reads_whole:
            return Whole("a text", self._json if kind is Kind.JSON else self.mask)
        return self._window(self._scanner, json=kind is Kind.JSON)

    def _window(self, scanner: Scanner, *, json: bool) -> TextMask:
        """For what detectors alone read."""
        return JsonWindow(scanner) if json else Window(scanner)

    def unmaskable(self, media: str) -> str:
        """Why no text of the type `media` can be masked; empty where it can."""
        if media == "binary copy":
            return "COPY's binary format cannot be masked; use its text format, or SELECT"
        if media == "copy" and self._columns is not None:
            return "COPY in this format cannot be masked by column; use its text format, or SELECT"
        return ""

    def _parts(self, media: str) -> TextMask:
        boundary = media.partition("boundary=")[2]
        if not boundary:
            return Refused("a multipart body without its boundary cannot be masked")
        return Multipart(boundary.encode("latin-1"), self.text, self.mask, self._form_part)

    def _named_text(self, kind: Kind, media: str) -> TextMask | None:
        """What fields, and operators, do to a kind of text; None where it is masked as any."""
        if kind is Kind.PACKED:
            return Untouched() if self._in_place is None else self._window(self._in_place, json=False)
        if kind is Kind.CSV and self._names is not None and (self._names.kinds & {"csv"} or self._columns is not None):
            if "header=absent" in media.lower():
                return Refused("a CSV text without a first line cannot be masked by column; ask for one with names")
            return Table(self._csv, None if self._scanner is None else self._window(self._scanner, json=False))
        if kind is Kind.FORM and self._names is not None and "form" in self._names.kinds:
            return Form(self._piece, partial(self._names.replaced, "form"))
        if kind is Kind.PARTS and self._names is not None and "form" in self._names.kinds:
            return self._parts(media)
        return None

    def _csv(self, name: str) -> Cell | None:
        """What replaces the cells of a column of CSV."""
        return None if self._names is None else self._names.csv(name)

    def _form_part(self, name: str) -> TextMask | None:
        """For a part of a form that an item names, whatever its type."""
        names = self._names
        if names is None or names.replaced("form", name, b"", Counter()) is None:
            return None
        return Whole("a form field", lambda text, counts: names.replaced("form", name, text, counts) or b"")

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
        if self._path_operators and self._apply is not None:
            written, stand_ins = replace_members(text, self._path_operators, self._apply, counts)
            if self._scanner is not None:
                written = JsonWindow(self._scanner).feed(written, True, counts)
            return stand_ins.fill(written)
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


def pseudonymiser(spec: MaskSpec, vault: Vault) -> Pseudonymiser:
    """Puts the pseudonyms of `spec` in, and takes them back."""
    made = [(masked, operator) for masked, operator in spec.operators if operator.name == PSEUDONYMISE]
    names = {word for masked, _ in made for word in _words(masked)}
    return Pseudonymiser(Forms(names, alike=any(operator.alike for _, operator in made)), vault)


def _words(masked: Masked) -> set[str]:
    """The words of the pseudonyms that an item makes: a set of detectors has one for each."""
    return {word_of(name) for name in expand((masked,))} if isinstance(masked, str) else {word_of(masked)}


def _by_detector(names: tuple[str, ...], operators: dict[Masked, Operator]) -> dict[str, Operator]:
    """Detector -> operator. What is named by itself comes before the sets that it is in."""
    listed = sorted((name for name in names if name in operators), key=lambda name: name in GROUPS)
    by_detector: dict[str, Operator] = {}
    for name in listed:
        for one in sorted(expand((name,))):
            by_detector.setdefault(one, operators[name])
    return {one: operator for one, operator in by_detector.items() if one not in names or one in operators}


@lru_cache(maxsize=256)
def masker_for(spec: MaskSpec, keys: Keys | None = None) -> Masker:
    """The masker for `spec`, made once: this is the one to call per exchange."""
    return Masker(spec, keys)
