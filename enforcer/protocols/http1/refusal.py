"""Step 4 of 6, inspect: a denial in HTTP's words: problem details (RFC 9457) that people and programs can read."""

from __future__ import annotations

import json
from http import HTTPStatus

from enforcer.verdict import Denial

# RFC 9457, section 4.2.1: `about:blank` says no more than the status itself does.
PROBLEM_TYPES = {HTTPStatus.FORBIDDEN: "urn:enforcer:egress-denied"}


def refusal(status: HTTPStatus, denial: Denial, *, close: bool, bodiless: bool) -> bytes:
    """A complete response. `close`: announces the connection's end; `bodiless`: it answers HEAD."""
    problem = {
        "type": PROBLEM_TYPES.get(status, "about:blank"),
        "title": denial.title,
        "status": status.value,
        "detail": denial.explanation,
        "destination": denial.destination,
        "region": denial.region,
        "prefix": denial.prefix,
        "policy": denial.policy,
        "rule": denial.rule,
        "session": denial.session,
        "how_to_ask": denial.how_to_ask,
    }
    body = json.dumps(problem, indent=2).encode("ascii") + b"\n"
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        "Content-Type: application/problem+json\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n" + ("Connection: close\r\n" if close else "") + "\r\n"
    ).encode("ascii")
    return head if bodiless else head + body
