"""Step 4 of 6, inspect: a denial as an HTTP/1.1 response: problem details (RFC 9457), or an error of JSON-RPC where the
request is one."""

from __future__ import annotations

from http import HTTPStatus

from enforcer.protocols.http import problem
from enforcer.protocols.jsonrpc import refusal_of
from enforcer.verdict import Denial


def refusal(status: HTTPStatus, denial: Denial, *, close: bool, bodiless: bool, document: bytes = b"") -> bytes:
    """A complete response. `close`: announces the connection's end; `bodiless`: it answers HEAD. `document`: the
    request's body, where it was read."""
    said = refusal_of(document, denial) if document and status is HTTPStatus.FORBIDDEN else None
    media, body = "application/problem+json", problem(status, denial)
    if said is not None:
        media, body, status = "application/json", said, HTTPStatus.OK
    head = (
        f"HTTP/1.1 {status.value} {status.phrase}\r\n"
        f"Content-Type: {media}\r\n"
        f"Content-Length: {len(body)}\r\n"
        "Cache-Control: no-store\r\n" + ("Connection: close\r\n" if close else "") + "\r\n"
    ).encode("ascii")
    return head if bodiless else head + body
