"""Step 4 of 6, inspect: sqlglot as a parser of one statement's shape, and nothing else of it.

Functions are left as they are written: sqlglot knows those of twenty dialects and would take a user's function for one
of them. Raises `Doubtful` for whatever it cannot parse.
"""

from __future__ import annotations

from typing import Final

from sqlglot import exp
from sqlglot.dialects.mysql import MySQL
from sqlglot.dialects.postgres import Postgres
from sqlglot.errors import ErrorLevel, SqlglotError
from sqlglot.parser import Parser
from sqlglot.parsers.mysql import MySQLParser
from sqlglot.parsers.postgres import PostgresParser

from enforcer.sql.shape import MAX_BRACKETS, MAX_DEPTH, MYSQL, POSTGRES, Doubtful

# Calls that the grammar has forms of its own for.
_FORMS: Final = {
    POSTGRES: "CAST EXTRACT OVERLAY POSITION SUBSTRING TRIM XMLTABLE XMLELEMENT JSON_OBJECT JSON_TABLE NORMALIZE",
    MYSQL: "CAST CONVERT EXTRACT GROUP_CONCAT MATCH CHAR POSITION SUBSTRING SUBSTR TRIM VALUES JSON_VALUE JSON_TABLE "
    "WEIGHT_STRING",
}


STEPS_PER_TOKEN: Final = 20
"""How often the parser may go on or back, for each token; statements that people write take 1 to 2. Where it tries two
ways, the tries within them multiply: `ARRAY[ARRAY[...` to a depth of 16 would take seconds."""


class _Bounded(Parser):
    """A parser that gives up."""

    left = 0

    def _advance(self, times: int = 1) -> None:
        self.left -= 1
        if self.left < 0:
            raise Doubtful("it takes too long to parse")
        super()._advance(times)

    def _warn_unsupported(self) -> None:
        raise Doubtful("it is not parsed")


class _PostgresParser(_Bounded, PostgresParser):
    FUNCTIONS = {}  # noqa: RUF012 - as the parser declares it
    FUNCTION_PARSERS = {  # noqa: RUF012
        name: parse for name, parse in PostgresParser.FUNCTION_PARSERS.items() if name in _FORMS[POSTGRES].split()
    }


class _MySQLParser(_Bounded, MySQLParser):
    FUNCTIONS = {}  # noqa: RUF012
    FUNCTION_PARSERS = {  # noqa: RUF012
        name: parse for name, parse in MySQLParser.FUNCTION_PARSERS.items() if name in _FORMS[MYSQL].split()
    }


_DIALECTS: Final = {POSTGRES: Postgres(), MYSQL: MySQL()}
_PARSERS: Final = {POSTGRES: _PostgresParser, MYSQL: _MySQLParser}


def parse(shape: str, dialect: str) -> exp.Expression:
    """The one statement that `shape` is."""
    _check_depth(shape)
    language = _DIALECTS[dialect]
    try:
        tokens = language.tokenize(shape)
        parser = _PARSERS[dialect](dialect=language, error_level=ErrorLevel.IMMEDIATE)
        parser.left = STEPS_PER_TOKEN * (len(tokens) + 10)
        parsed = [one for one in parser.parse(tokens, shape) if one is not None]
    except (SqlglotError, RecursionError, ValueError, TypeError, AttributeError, IndexError, KeyError) as error:
        raise Doubtful("it is not parsed") from error
    if len(parsed) != 1 or not isinstance(parsed[0], exp.Expression):
        raise Doubtful("it is not parsed")
    return parsed[0]


def _check_depth(shape: str) -> None:
    if shape.count("[") > MAX_BRACKETS:
        raise Doubtful(f"it has more than {MAX_BRACKETS} square brackets")
    depth = 0
    for sign in shape:
        if sign in "([":
            depth += 1
            if depth > MAX_DEPTH:
                raise Doubtful(f"it is nested deeper than {MAX_DEPTH}")
        elif sign in ")]":
            depth -= 1
