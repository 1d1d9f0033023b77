"""Step 3 of 6, decide: what a clause asks of a database's statement or command.

Gets a clause and a request; hands on how the request differs from each part, in words, or None where it does not. A
request that has neither an operation nor a command is of the connection itself, as its opening is: it touches nothing.
What may do more than its words say (a function that nobody knows, a statement that was not understood) fits no table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from enforcer.policy.words import any_glob, shown, some
from enforcer.protocols.body_facts import SEPARATOR
from enforcer.protocols.statement_facts import COLUMN, COMMAND, DATABASE, DOUBT, FUNCTION, OPERATION, TABLE, USER

if TYPE_CHECKING:
    from enforcer.policy.only import Asked, Only

ADMIN, UNKNOWN = "admin", "unknown"


def _operation(only: Only, asked: Asked) -> str | None:
    operations = _listed(asked, OPERATION)
    if not operations:
        return "no operation is known" if COMMAND in asked.facts else None
    for operation in operations:
        if operation not in only.operation:
            return _unread(asked) or f"operation {shown(operation)} is not in {some(only.operation)}"
    return None if UNKNOWN in only.operation else _function(only, asked)


def _command(only: Only, asked: Asked) -> str | None:
    command = asked.facts.get(COMMAND)
    if not command:
        return "no command is known" if OPERATION in asked.facts else None
    # Servers take commands in any case.
    fits = any_glob(only.command, command.lower())
    return None if fits else f"command {shown(command)} is not in {some(only.command)}"


def _table(only: Only, asked: Asked) -> str | None:
    return _reaches(only, asked) or _outside("table", _listed(asked, TABLE), only.table)


def _column(only: Only, asked: Asked) -> str | None:
    return _reaches(only, asked) or _outside("column", _listed(asked, COLUMN), only.column)


def _function(only: Only, asked: Asked) -> str | None:
    doubt = _unread(asked)
    if doubt is not None:
        return doubt
    for function in _listed(asked, FUNCTION):
        if not any_glob(only.function, function):
            return f"function {shown(function)} may do anything"
    return None


def _database(only: Only, asked: Asked) -> str | None:
    return _of_connection("database", asked, DATABASE, only.database)


def _user(only: Only, asked: Asked) -> str | None:
    return _of_connection("user", asked, USER, only.user)


# In the order in which a statement is told.
PARTS: dict[str, Callable[[Only, Asked], str | None]] = {
    "user": _user,
    "database": _database,
    "operation": _operation,
    "command": _command,
    "function": _function,
    "table": _table,
    "column": _column,
}


def _reaches(only: Only, asked: Asked) -> str | None:
    """Why a statement may touch more than the tables and columns it names."""
    difference = _function(only, asked)
    if difference is None and ADMIN in _listed(asked, OPERATION) and ADMIN not in only.operation:
        return "an admin operation may touch any table"
    return difference


def _unread(asked: Asked) -> str | None:
    """Why it is not known what the statement does."""
    doubt = asked.facts.get(DOUBT)
    if doubt:
        return f"the statement is not understood: {shown(doubt)}"
    return "the operation is unknown" if UNKNOWN in _listed(asked, OPERATION) else None


def _of_connection(what: str, asked: Asked, name: str, globs: tuple[str, ...]) -> str | None:
    names = _listed(asked, name)
    if not names:  # before anybody has said so
        return f"no {what} is known" if {OPERATION, COMMAND} & asked.facts.keys() else None
    return _outside(what, names, globs)


def _listed(asked: Asked, name: str) -> list[str]:
    text = asked.facts.get(name, "")
    return text.split(SEPARATOR) if text else []


def _outside(what: str, names: list[str], globs: tuple[str, ...]) -> str | None:
    for name in names:
        if not any_glob(globs, name):
            return f"{what} {shown(name)} is not in {some(globs)}"
    return None
