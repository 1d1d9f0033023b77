"""Step 6 of 6, record: the hash chain over all tables, and its canonical form.

Gets the canonical JSON of a checked row; hands on its hash. Never reads or writes the database.

    hash      = SHA-256( prev_hash || canonical )
    prev_hash = hash of the row with the previous seq, in whichever table; 32 zero bytes for seq 1
    canonical = UTF-8 of the JSON array [form, table, seq, time_ns, column, column, ...]

The array holds the table's columns in the order that `schema.FORMS[form]` lists them, without white space. Integers are
decimal; text is a JSON string in which only `"`, `\\` and U+0000 to U+001F are escaped (`\\b \\t \\n \\f \\r`, else
`\\u00xx` in lower case); NULL is `null`. A column that holds JSON is hashed as the text it is stored as. This is what
orjson writes, and what Python's `json.dumps(row, ensure_ascii=False, separators=(",", ":"))` writes.

It is unambiguous: prev_hash has a fixed length, and the array names its form and table before anything else. `form` is
the version of the column lists that the row was written under, so that rows stay verifiable after a migration.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import orjson

GENESIS = bytes(32)

Value = str | int | None


@dataclass(frozen=True, slots=True)
class Head:
    """The newest row of the chain: its seq and hash. `Head(0, GENESIS)` before the first row."""

    seq: int
    hash: bytes


def link(prev_hash: bytes, form: int, table: str, seq: int, tail: bytes) -> bytes:
    """The hash of a row; `tail` is the canonical JSON of time_ns and the columns, less its opening bracket."""
    return hashlib.sha256(b'%b[%d,"%b",%d,%b' % (prev_hash, form, table.encode(), seq, tail)).digest()


def row_hash(prev_hash: bytes, form: int, table: str, seq: int, values: tuple[Value, ...]) -> bytes:
    """The hash of a stored row; `values` is (time_ns, columns in the order of its form).

    Raises orjson.JSONEncodeError (a TypeError) when `values` hold what was never written: bytes, invalid Unicode.
    """
    return link(prev_hash, form, table, seq, orjson.dumps(values)[1:])
