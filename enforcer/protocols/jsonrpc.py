"""Step 4 of 6, inspect: a denial in the words of JSON-RPC 2.0, which MCP speaks.

Gets the request that is denied; hands on the answer that its sender waits for, with the same id. HTTP carries it with
status 200, as JSON-RPC's errors are carried: clients take any other status for a broken connection.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

import orjson

from enforcer.protocols.http import problem
from enforcer.verdict import Denial

# Of the range that JSON-RPC 2.0 section 5.1 leaves to servers. MCP and its libraries use -32000 to -32002 and -32042.
DENIED = -32003


def refusal_of(document: bytes, denial: Denial) -> bytes | None:
    """The answer to the JSON-RPC request, or batch of them, that `document` is. None where it is none, or waits for no
    answer (a notification)."""
    try:
        said: Any = orjson.loads(document)
    except orjson.JSONDecodeError:
        return None
    answers = [_error(member["id"], denial) for member in (said if isinstance(said, list) else [said]) if _asks(member)]
    if not answers:
        return None
    return orjson.dumps(answers if isinstance(said, list) else answers[0])


def _asks(member: Any) -> bool:
    if not isinstance(member, dict) or member.get("jsonrpc") != "2.0" or not isinstance(member.get("method"), str):
        return False
    return isinstance(member.get("id"), str | int | float)


def _error(identity: str | float, denial: Denial) -> dict[str, Any]:
    data = json.loads(problem(HTTPStatus.FORBIDDEN, denial))
    return {"jsonrpc": "2.0", "id": identity, "error": {"code": DENIED, "message": denial.title, "data": data}}
