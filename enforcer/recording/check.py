"""Step 6 of 6, record: the check that each row passes on arrival.

Gets decoded JSON objects; hands on `Row`s that cannot fail in the database because of what they hold. Never touches
the database: one bad row must be refused here, before it shares a transaction with the rows of other flows. A worker
parses hostile bytes and is trusted less than the supervisor, so nothing about a row is assumed.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import orjson

from enforcer.recording.rows import AnyRow, InvalidRow
from enforcer.verdict import Action

# Bytes of UTF-8. The exact statement is evidence, so the limit is the largest message the protocols take (16 MiB);
# what is longer is cut, with its full length and SHA-256 kept beside it.
TEXT_LIMIT = 16 * 1024 * 1024
# Bytes of JSON. A list (parameters, argv) is cut to this in whole elements; a mapping that exceeds it is refused.
LIST_LIMIT = 16 * 1024 * 1024
MAPPING_LIMIT = 1024 * 1024
# Characters. Names, paths and reasons; the longest true one is a path (PATH_MAX, 4096) with words around it.
NAME_LIMIT = 64 * 1024

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1
_SESSION_ID = re.compile(r"[0-9a-f]{16}").fullmatch
_ACTIONS = frozenset(action.value for action in Action)

SqlValue = str | int | None


class Row(NamedTuple):
    """A checked row: `values` is (time_ns, columns in schema order); `tail` is their canonical JSON without the
    opening bracket, to which the chain adds what only the writer knows."""

    table: str
    values: tuple[SqlValue, ...]
    tail: bytes

    @property
    def durable(self) -> bool:
        """Announces a request that does not go on unless this row is on disk."""
        return self.table == "exchanges" and self.values[_DURABLE_AT] == 1


Converter = Callable[[Any], SqlValue]


def _session_id(value: str) -> str:
    if not _SESSION_ID(value):
        raise ValueError("16 lower-case hexadecimal digits")
    return value


def _action(value: str) -> str:
    if value not in _ACTIONS:
        raise ValueError(f"one of {', '.join(sorted(_ACTIONS))}")
    return value


def _integer(value: int) -> int:
    if not _INT64_MIN <= value <= _INT64_MAX:
        raise ValueError("a 64-bit integer")
    return value


def _list_of(*types: type) -> Converter:
    allowed = frozenset(types)

    def convert(value: list[str | None]) -> str:
        if not value:
            return "[]"
        if not allowed.issuperset(map(type, value)):
            raise ValueError(f"a list of {' or '.join(kind.__name__ for kind in types)}")
        encoded = orjson.dumps(value)
        return (encoded if len(encoded) <= LIST_LIMIT else _cut_list(value, encoded)).decode()

    return convert


def _mapping_of(*types: type) -> Converter:
    allowed = frozenset(types)

    def convert(value: dict[str, object]) -> str:
        if not value:
            return "{}"
        if object not in allowed and not allowed.issuperset(map(type, value.values())):
            raise ValueError(f"a mapping of text to {' or '.join(kind.__name__ for kind in types)}")
        encoded = orjson.dumps(value)
        if len(encoded) > MAPPING_LIMIT:
            raise ValueError(f"a mapping of at most {MAPPING_LIMIT} bytes")
        return encoded.decode()

    return convert


def _cut_list(values: list[str | None], encoded: bytes) -> bytes:
    """As many leading elements as fit, then one object that says what is missing. No element can be mistaken for
    it: elements are text or null."""
    note = {
        "cut_bytes": len(encoded),
        "cut_sha256": hashlib.sha256(encoded).hexdigest(),
        "cut_elements": len(values),
    }
    room = LIST_LIMIT - 256  # the note with its largest numbers, and the brackets
    kept: list[object] = []
    for value in values:
        room -= len(orjson.dumps(value)) + 1
        if room < 0:
            break
        kept.append(value)
    return orjson.dumps([*kept, note])


def _cut_text(text: str) -> tuple[str, int | None, str | None]:
    """`text` within TEXT_LIMIT, and, where it was cut, its full length in bytes and SHA-256."""
    if len(text) <= TEXT_LIMIT // 4:  # no character takes more than four bytes
        return text, None, None
    encoded = text.encode()
    if len(encoded) <= TEXT_LIMIT:
        return text, None, None
    return encoded[:TEXT_LIMIT].decode(errors="ignore"), len(encoded), hashlib.sha256(encoded).hexdigest()


# What a value of each type needs beyond being of that type; plain text has its length checked for the row as a whole.
_CONVERTERS: dict[object, Converter | None] = {
    str: None,
    int: _integer,
    bool: int,
    list[str]: _list_of(str),
    list[str | None]: _list_of(str, NoneType),
    dict[str, str]: _mapping_of(str),
    dict[str, int]: _mapping_of(int),
    dict[str, object]: _mapping_of(object),
}
_STRICTER: dict[str, Converter] = {
    "sessions.id": _session_id,
    "exchanges.session": _session_id,
    "outcomes.session": _session_id,
    "session_ends.session": _session_id,
    "sessions.action": _action,
    "exchanges.action": _action,
}
_UNBOUNDED = frozenset({"exchanges.text"})  # cut instead


@dataclass(frozen=True, slots=True)
class _Shape:
    """What rows of one table look like. `signatures`: every allowed combination of the columns' types, so that one
    look-up judges a whole row. `converters` and `names_at`: by position in `names`."""

    names: tuple[str, ...]
    keys: frozenset[str]
    types: tuple[tuple[type, ...], ...]
    signatures: frozenset[tuple[type, ...]]
    converters: tuple[tuple[int, Converter], ...]
    names_at: tuple[int, ...]


# An exchange's row has its outcome or not; only `rows` may be missing from one.
_OUTCOME = frozenset({"status", "failed", "bytes_up", "bytes_down", "duration_ns", "masked"})


def _whole_outcome(names: tuple[str, ...]) -> Callable[[tuple[type, ...]], bool]:
    """Does a combination of types have all of an outcome's columns, or none?"""
    places = [at for at, name in enumerate(names) if name in _OUTCOME]
    return lambda types: len({types[at] is NoneType for at in places}) < 2


def _shape(kind: type) -> tuple[str, _Shape]:
    hints = get_type_hints(kind)
    table: str = get_args(hints.pop("table"))[0]
    types: list[tuple[type, ...]] = []
    converters: list[tuple[int, Converter]] = []
    names_at: list[int] = []
    for at, (name, hint) in enumerate(hints.items()):
        nullable = get_origin(hint) in (Union, UnionType)
        plain = next(arg for arg in get_args(hint) if arg is not NoneType) if nullable else hint
        python_type: type = get_origin(plain) or plain
        types.append((python_type, NoneType) if nullable else (python_type,))
        convert = _STRICTER.get(f"{table}.{name}", _CONVERTERS[plain])
        if convert is not None:
            converters.append((at, convert))
        elif f"{table}.{name}" not in _UNBOUNDED:
            names_at.append(at)
    return table, _Shape(
        names=tuple(hints),
        keys=frozenset(hints) | {"table"},
        types=tuple(types),
        signatures=frozenset(filter(_whole_outcome(tuple(hints)), product(*types))),
        converters=tuple(converters),
        names_at=tuple(names_at),
    )


_SHAPES: dict[str, _Shape] = dict(_shape(kind) for kind in get_args(AnyRow))

# What is stored per table after time_ns, in order. The two columns of a cut text are filled in here, never by senders.
STORED: dict[str, tuple[str, ...]] = {
    table: tuple(name for name in shape.names if name != "time_ns")
    + (("cut_bytes", "cut_sha256") if table == "exchanges" else ())
    for table, shape in _SHAPES.items()
}
_TEXT_AT = 1 + STORED["exchanges"].index("text")
_DURABLE_AT = 1 + STORED["exchanges"].index("durable")


def check(row: Mapping[str, Any]) -> Row:
    """`row` as it will be stored.

    Raises InvalidRow when the table or a key is unknown, a value is missing or of the wrong type or too long, or
    text is not valid Unicode. The message names the column and never quotes the value.
    """
    table = row.get("table")
    shape = _SHAPES.get(table) if type(table) is str else None
    if type(table) is not str or shape is None:
        raise InvalidRow("record row refused: its table is unknown; the sender and the supervisor differ in version")
    if not shape.keys.issuperset(row):
        raise _refused(table, "has unknown columns")
    values: list[Any] = list(map(row.get, shape.names))
    if tuple(map(type, values)) not in shape.signatures:
        raise _refused(table, _wrong_type(shape, values))
    at = 0
    try:
        for at, convert in shape.converters:
            if values[at] is not None:
                values[at] = convert(values[at])
        if table == "exchanges":
            values[_TEXT_AT], *cut = _cut_text(values[_TEXT_AT])
            values += cut
        tail = orjson.dumps(values)[1:]
    except (orjson.JSONEncodeError, UnicodeEncodeError):
        raise _refused(table, "holds what JSON cannot (text that is not Unicode)") from None
    except ValueError as error:
        raise _refused(table, f"column {shape.names[at]} must be {error}") from None
    if len(tail) > NAME_LIMIT:  # only then can one of its texts be too long
        for at in shape.names_at:
            if values[at] is not None and len(values[at]) > NAME_LIMIT:
                raise _refused(table, f"column {shape.names[at]} must be at most {NAME_LIMIT} characters")
    return Row(table, tuple(values), tail)


def _wrong_type(shape: _Shape, values: list[Any]) -> str:
    for name, types, value in zip(shape.names, shape.types, values, strict=True):
        if type(value) not in types:
            return f"column {name} must be {' or '.join(kind.__name__ for kind in types)}"
    return f"must have all of {', '.join(sorted(_OUTCOME))}, or none"


def _refused(table: str, what: str) -> InvalidRow:
    return InvalidRow(f"record row refused: {table} {what}; the sender is at fault or differs in version")
