"""Step 4 of 6, inspect: what kind of statement each is, by its first words. Queries and changes of data: `reading`.

`read` is what a read-only transaction may do and what only concerns the session's own state; what a statement's words
do not settle is `unknown`. Raises `Doubtful`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from enforcer.sql import settings
from enforcer.sql.expressions import Reading
from enforcer.sql.functions import ADMIN, READ, WRITE
from enforcer.sql.names import folded, folded_column
from enforcer.sql.parsing import parse
from enforcer.sql.reading import DDL, Reader
from enforcer.sql.scopes import NOTHING, Output
from enforcer.sql.shape import MYSQL, NAME_START, POSTGRES, WORD, Doubtful

ANY: Final = "*"
"""A table or column that is not known: only a rule that allows all of them lets it through."""

_WORDS: Final = re.compile(r"[A-Za-z_]+")
_HEAD: Final = re.compile(r"[\s(]*([A-Za-z_]+)")
_NAME: Final = rf"""(?:{NAME_START}{WORD}*|"(?:[^"]|"")+"|`(?:[^`]|``)+`)"""
_QUALIFIED: Final = rf"{_NAME}(?:\s*\.\s*{_NAME})*"
_COPY: Final = re.compile(
    rf"copy\s+(?:binary\s+)?(?:(?P<table>{_QUALIFIED})\s*(?:\((?P<columns>[^()]*)\))?|\((?P<query>.*)\))\s*"
    r"(?P<way>from|to)\s+(?P<end>program\b|stdin\b|stdout\b|'s'|\w+)(?P<options>.*)",
    re.IGNORECASE | re.DOTALL,
)
_EXPLAIN: Final = re.compile(
    r"(?:explain|describe|desc)\s*(?P<options>\((?:[^()]|\([^()]*\))*\)(?=\s*[A-Za-z(])"
    r"|(?:(?:analyze|analyse|verbose|extended|partitions|format\s*=\s*\w+)\b\s*)*)\s*(?P<rest>.*)",
    re.IGNORECASE | re.DOTALL,
)
_CURSOR: Final = re.compile(
    rf"declare\s+{_NAME}\s+(?:[a-z]+\s+)*?cursor\s+(?:(?:with|without)\s+hold\s+)?for\s+(.*)", re.I | re.S
)
_PREPARE: Final = re.compile(rf"prepare\s+{_NAME}\s*(?:\((?:[^()]|\([^()]*\))*\)\s*)?as\s+(.*)", re.I | re.S)
_TABLES: Final = rf"((?:only\s+)?{_QUALIFIED}\s*\*?(?:\s*,\s*(?:only\s+)?{_QUALIFIED}\s*\*?)*)"
_TRUNCATE: Final = re.compile(
    rf"truncate\s+(?:table\s+)?{_TABLES}(?:\s+(?:restart|continue)\s+identity)?(?:\s+(?:cascade|restrict))?",
    re.IGNORECASE,
)
_LOCK: Final = re.compile(rf"lock\s+(?:table\s+)?{_TABLES}\s+in\s+access\s+share\s+mode(?:\s+nowait)?", re.IGNORECASE)
_USE: Final = re.compile(rf"use\s+({_NAME})", re.IGNORECASE)
_OUTFILE: Final = re.compile(r"\binto\s+(?:outfile|dumpfile)\b", re.IGNORECASE)
_SETTING: Final = re.compile(
    rf"(?:session\s+|local\s+|@@(?:session\s*\.|local\s*\.)?\s*)?({_NAME}(?:\.{_NAME})*)\s*(?:=|:=|to\b)?(.*)",
    re.IGNORECASE | re.DOTALL,
)
# Of MySQL: a variable of the session's own, from a literal or another.
_VARIABLE: Final = re.compile(r"@\w+\s*:?=\s*(?:@@?[\w.]+|'[^']*'|-?1|null|true|false)", re.IGNORECASE)
# A setting that keeps what a variable holds, which may be anything.
_FROM_VARIABLE: Final = re.compile(r"(?<!@)@(?!@)")
# As drivers do: modes beside those that there are.
_ADDED_MODES: Final = re.compile(r"\bsql_mode\s*=\s*concat\(@@sql_mode,\s*('[A-Za-z_,]*')\)", re.IGNORECASE)
# Commas outside literals.
_BETWEEN: Final = re.compile(r",(?=(?:[^']*'[^']*')*[^']*\Z)")

_ADMIN_OBJECTS: Final = frozenset(
    [
        "role",
        "user",
        "group",
        "database",
        "tablespace",
        "extension",
        "server",
        "subscription",
        "publication",
        "language",
        "system",
        "foreign",
        "transform",
        "access",
        "instance",
        "resource",
        "event",
        "spatial",
        "undo",
        "logfile",
        "policy",
        "conversion",
        "large",
        "default",
    ]
)


def read(shape: str, dialect: str) -> Reading:
    """One statement, without the semicolon that ends it."""
    head = _HEAD.match(shape)
    if head is None:
        raise Doubtful("it does not begin with a word")
    word = head[1].lower()
    if word in _QUERIES[dialect]:
        return _query(shape, dialect)
    if shape.lstrip()[0] == "(":
        raise Doubtful("it is not a query in parentheses")
    handler = _HANDLERS[dialect].get(word)
    if handler is None:
        raise Doubtful(f"{word[:20]} is not a statement that is read")
    if callable(handler):
        return handler(shape, dialect)
    return _simply(handler, ANY if handler == ADMIN else "")


def _simply(operation: str, tables: str = "") -> Reading:
    reading = Reading({operation: None})
    if tables:
        reading.tables[tables] = reading.columns[tables] = None
    return reading


def _query(shape: str, dialect: str) -> Reading:
    if dialect == MYSQL:
        if _OUTFILE.search(shape):
            return _simply(ADMIN, ANY)
        shape = re.sub(r"^\s*replace\b", "INSERT", shape, count=1, flags=re.IGNORECASE)
    try:
        return Reader(dialect).read(parse(shape, dialect))
    except RecursionError:
        raise Doubtful("it is nested too deep") from None


def _writes_any(_shape: str, _dialect: str) -> Reading:
    return _simply(WRITE, ANY)


def _reads_any(_shape: str, _dialect: str) -> Reading:
    return _simply(READ, ANY)


def _unknown(shape: str, _dialect: str) -> Reading:
    word = _words(shape)[0]
    raise Doubtful(f"{word} does what its words do not say")


def _ddl(shape: str, _dialect: str) -> Reading:
    """Of the tables of a definition only that they are not known."""
    words = set(_words(shape)[1:5])
    return _simply(ADMIN if words & _ADMIN_OBJECTS else DDL, ANY)


def _set(shape: str, dialect: str) -> Reading:
    """`SET name = value, ...`: what is set decides. A value may be computed."""
    if dialect == MYSQL:
        shape = _ADDED_MODES.sub(r"sql_mode = \1", shape)
    if "(" in shape or re.search(r"\bselect\b", shape, re.IGNORECASE):
        raise Doubtful("it sets what it computes")
    words = _words(shape)
    if "statement" in words[:3] and dialect == MYSQL:
        raise Doubtful("it sets something for a statement")
    if dialect == POSTGRES and words[1:3] == ["session", "characteristics"]:
        return _simply(READ)
    entries = _BETWEEN.split(shape[3:]) if dialect == MYSQL else [shape[3:]]
    return _simply(READ if all(_is_harmless(entry.strip(), dialect) for entry in entries) else ADMIN)


def _is_harmless(entry: str, dialect: str) -> bool:
    if dialect == MYSQL and _VARIABLE.fullmatch(entry):
        return True
    if dialect == MYSQL and _FROM_VARIABLE.search(entry):
        return False
    found = _SETTING.match(entry)
    return found is not None and settings.is_harmless(found[1].lower(), found[2].strip())


def _lock(shape: str, dialect: str) -> Reading:
    """PostgreSQL's weakest lock is that of any query."""
    found = _LOCK.fullmatch(shape)
    if found is None or dialect == MYSQL:
        return _simply(ADMIN, ANY)
    return _of_tables(READ, found[1], dialect)


_FREE: Final = re.compile(r"application_name|search_path|time\s*zone", re.IGNORECASE)


# What MySQL shows of other sessions, and of what was done by statements of the past.
_SHOWS_OTHERS: Final = re.compile(
    r"show\s+(?:full\s+)?(?:processlist|binlog\s+events|relaylog|engine|explain|analyze)\b", re.IGNORECASE
)


def _show(shape: str, dialect: str) -> Reading:
    if dialect == MYSQL and _SHOWS_OTHERS.match(shape):
        return _simply(ADMIN, ANY)
    reading = _simply(READ)
    # Settings of the client's own, and those in which a client writes what it likes, may hold anything.
    if "." not in shape and not _FREE.search(shape):
        reading.result = (Output("", NOTHING),) if dialect == POSTGRES and _words(shape)[1:] != ["all"] else None
    return reading


def _explain(shape: str, dialect: str) -> Reading:
    found = _EXPLAIN.fullmatch(shape)
    if found is None:
        raise Doubtful("an EXPLAIN that is not read")
    if (dialect == MYSQL and not _HEAD.match(found["rest"])) or _words(found["rest"])[0] not in _EXPLAINED:
        if dialect == MYSQL:  # the columns of a table, or of a connection
            return _simply(READ)
        raise Doubtful("it explains what is not read")
    inner = read(found["rest"], dialect)
    if not re.search(r"analy[sz]e", found["options"], re.IGNORECASE):
        inner.operations = {READ: None}
    # A plan shows what a function that is said to be immutable gave.
    inner.result = (Output("QUERY PLAN", NOTHING),) if dialect == POSTGRES and not inner.functions else None
    return inner


def _copy(shape: str, dialect: str) -> Reading:
    found = _COPY.fullmatch(shape)
    if found is None:
        raise Doubtful("a COPY that is not read")
    if found["query"] is not None:
        reading = read(found["query"], dialect)
    else:
        table = _qualified(found["table"], dialect)
        reading = Reading({WRITE if found["way"].lower() == "from" else READ: None}, {table: None})
        columns = [_one(name, dialect, column=True) for name in (found["columns"] or "").split(",") if name.strip()]
        reading.columns.update(dict.fromkeys(f"{table}.{name}" for name in columns or [ANY]))
        if "where" in found["options"].lower():
            reading.columns[f"{table}.{ANY}"] = None
    reading.result = None
    end = found["end"].lower()
    if end not in ("stdin", "stdout"):
        reading.operations[ADMIN] = None
    return reading


def _declare(shape: str, dialect: str) -> Reading:
    return _within(_CURSOR, shape, dialect)


def _use(shape: str, dialect: str) -> Reading:
    found = _USE.fullmatch(shape)
    if found is None:
        raise Doubtful("a USE that is not read")
    return Reading({READ: None}, databases={_one(found[1], dialect): None})


def _prepare(shape: str, dialect: str) -> Reading:
    if dialect == MYSQL or _words(shape)[1:2] == ["transaction"]:
        return _unknown(shape, dialect) if dialect == MYSQL else _simply(ADMIN)
    return _within(_PREPARE, shape, dialect)


def _within(pattern: re.Pattern[str], shape: str, dialect: str) -> Reading:
    """A statement that another one names; its rows come at another time."""
    found = pattern.fullmatch(shape)
    if found is None:
        raise Doubtful("a statement within another that is not read")
    reading = read(found[1], dialect)
    reading.result = None
    return reading


def _truncate(shape: str, dialect: str) -> Reading:
    found = _TRUNCATE.fullmatch(shape)
    if found is None:
        return _simply(WRITE, ANY)
    return _of_tables(WRITE, found[1], dialect)


def _of_tables(operation: str, tables: str, dialect: str) -> Reading:
    """What is done to whole tables."""
    reading = Reading({operation: None})
    for part in tables.split(","):
        name = re.sub(r"^\s*only\s+(?=[\w\"])", "", part, flags=re.IGNORECASE).strip(" \t\r\n\f*")
        table = _qualified(name, dialect)
        reading.tables[table] = reading.columns[f"{table}.{ANY}"] = None
    return reading


def _transaction(shape: str, _dialect: str) -> Reading:
    """BEGIN, COMMIT and the like; two-phase commit is administration."""
    words = _words(shape)
    two_phase = "prepared" in words or (words[0] == "start" and words[1:2] != ["transaction"])
    return _simply(ADMIN if two_phase else READ)


def _values_of(
    words: str, meaning: str | Callable[[str, str], Reading]
) -> dict[str, str | Callable[[str, str], Reading]]:
    return dict.fromkeys(words.split(), meaning)


def _words(shape: str) -> list[str]:
    return [word.lower() for word in _WORDS.findall(shape[:400])] or [""]


def _qualified(name: str, dialect: str) -> str:
    return ".".join(_one(part, dialect) for part in re.findall(_NAME, name))


def _one(name: str, dialect: str, *, column: bool = False) -> str:
    name = name.strip()
    quoted = name[:1] in ('"', "`")
    plain = name[1:-1].replace(name[0] * 2, name[0]) if quoted else name
    if not plain or any(sign in plain for sign in ".,*\0"):
        raise Doubtful("a name that is no plain name")
    return (folded_column if column else folded)(plain, quoted, dialect)


_QUERIES: Final = {
    POSTGRES: frozenset(["select", "with", "values", "table", "insert", "update", "delete", "merge"]),
    MYSQL: frozenset(["select", "with", "values", "table", "insert", "update", "delete", "replace"]),
}
_EXPLAINED: Final = _QUERIES[POSTGRES] | _QUERIES[MYSQL] | {"declare", "execute", "create", "refresh"}

_Handlers = dict[str, str | Callable[[str, str], Reading]]
_BOTH: Final[_Handlers] = {
    **_values_of("begin commit rollback savepoint release start", _transaction),
    **_values_of("create alter drop comment", _ddl),
    **_values_of("grant revoke load vacuum reindex checkpoint", ADMIN),
    **_values_of("do call execute", _unknown),
    "set": _set,
    "show": _show,
    "explain": _explain,
    "prepare": _prepare,
    "lock": _lock,
    "truncate": _truncate,
    "deallocate": READ,
}
_HANDLERS: Final[dict[str, _Handlers]] = {
    POSTGRES: {
        **_BOTH,
        **_values_of("end abort", _transaction),
        **_values_of("close fetch move listen unlisten discard reset", READ),
        **_values_of("analyze analyse cluster reassign", ADMIN),
        **_values_of("security import", _ddl),
        "copy": _copy,
        "declare": _declare,
        "notify": WRITE,
        "refresh": _writes_any,
    },
    MYSQL: {
        **_BOTH,
        "use": _use,
        "help": READ,
        **_values_of("describe desc", _explain),
        "rename": _ddl,
        "handler": _reads_any,
        **_values_of(
            "analyze optimize repair check checksum cache kill flush purge reset shutdown restart install uninstall "
            "change stop unlock xa binlog clone backup import",
            ADMIN,
        ),
    },
}
