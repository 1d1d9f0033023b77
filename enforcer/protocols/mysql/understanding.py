"""Step 4 of 6, inspect: what is known of a MySQL statement, and of the columns it returns.

Gets a statement's bytes, and what the server says of its result; hands on facts and names. Pure.
"""

from __future__ import annotations

import re
from typing import Final

from enforcer.protocols import statement_facts
from enforcer.protocols.mysql.handshake import decode
from enforcer.protocols.mysql.results import Definition
from enforcer.sql.understanding import UNKNOWN

DIALECT: Final = "mysql"

_SHOWS_SETTINGS: Final = re.compile(
    rb"(?is)\s*SHOW\s+(?:(?:GLOBAL|SESSION|LOCAL|FULL|EXTENDED)\s+)*"
    rb"(?:VARIABLES|STATUS|TABLES|DATABASES|SCHEMAS|COLUMNS|FIELDS|INDEX|INDEXES|KEYS|COLLATION|CHARACTER|CHARSET|ENGINES|"
    rb"PLUGINS|TABLE\s+STATUS|CREATE|TRIGGERS|GRANTS|PRIVILEGES|FUNCTION|PROCEDURE|EVENTS)\b[^;]*;?\s*"
    rb"|\s*(?:DESC|DESCRIBE|EXPLAIN)\s+[`\w.$]+\s*;?\s*"
)
"""Statements whose answers hold names and settings. Not SHOW WARNINGS or PROCESSLIST, which quote data."""


def facts_of(text: bytes, database: str, user: str) -> dict[str, str]:
    """Those of a statement; `encoding` for one that is not UTF-8, so that nobody takes its letters at face value."""
    written = decode(text)
    facts = statement_facts.facts_of(written, DIALECT, database=database, user=user)
    if not statement_facts.is_utf8(text):
        obscure = statement_facts.illegible(written, DIALECT)
        if obscure:
            said = {statement_facts.DATABASE: database, statement_facts.USER: user}
            facts = {name: value for name, value in said.items() if value} | obscure
        facts["encoding"] = "latin-1"
    return facts


def misread(facts: dict[str, str], text: bytes, characters: bytes) -> dict[str, str]:
    """The facts of a statement where the server's sql_mode gives `characters` another meaning than the usual one."""
    if not any(character in text for character in characters):
        return facts
    return unread(facts, "the sql_mode changes what its quotes and backslashes mean")


def unread(facts: dict[str, str], why: str) -> dict[str, str]:
    """Facts of a statement of which it is not known what the server reads."""
    kept = {name: facts[name] for name in (statement_facts.DATABASE, statement_facts.USER) if name in facts}
    return {**kept, statement_facts.OPERATION: UNKNOWN, statement_facts.DOUBT: why}


def parameters_of(text: bytes, count: int) -> tuple[str, ...]:
    """For masking: the columns that each of `count` parameters meets; empty where that may be any."""
    known = [statement_facts.JOINED.join(columns) for columns in statement_facts.parameters_of(decode(text), DIALECT)]
    return tuple((known + [""] * count)[:count])


def names_of(text: bytes, definitions: list[Definition], number: int) -> tuple[str, ...]:
    """For masking: of each column of the result of statement `number` all columns that it may come from, by the
    statement and by what the server says; empty where that is not known."""
    told = [one.shown for one in definitions]
    names = tuple(told)
    if not _SHOWS_SETTINGS.fullmatch(text):
        called = [one.rpartition(".")[2] for one in told]
        names = statement_facts.columns_of(decode(text), DIALECT, called, number)
    return tuple(
        _joined(name, one) if name and one.legible else "" for name, one in zip(names, definitions, strict=True)
    )


def _joined(name: str, definition: Definition) -> str:
    said = (name, definition.origin, definition.shown)
    return statement_facts.JOINED.join(dict.fromkeys(filter(None, said)))
