"""Step 4 of 6, inspect: a denial as an answer on one stream: problem details, gRPC's trailers, or an error of
JSON-RPC where the request is one."""

from __future__ import annotations

from http import HTTPStatus

from enforcer.protocols.http import problem
from enforcer.protocols.http2.compression import Fields
from enforcer.protocols.http2.heads import RequestHead
from enforcer.protocols.jsonrpc import refusal_of
from enforcer.verdict import Denial

# gRPC's status codes, which its core documentation lists.
_PERMISSION_DENIED, _UNIMPLEMENTED, _INTERNAL, _UNAVAILABLE = b"7", b"12", b"13", b"14"
_VISIBLE = range(0x20, 0x7F)
_OF_STATUS = {
    HTTPStatus.FORBIDDEN: _PERMISSION_DENIED,
    HTTPStatus.BAD_GATEWAY: _UNAVAILABLE,
    HTTPStatus.NOT_IMPLEMENTED: _UNIMPLEMENTED,
}


def refusal(head: RequestHead, status: HTTPStatus, denial: Denial, document: bytes = b"") -> tuple[Fields, bytes]:
    """The answer's fields and body. Without a body the fields end the stream. `document`: the request's body, where it
    was read."""
    if head.grpc is not None:
        return grpc_refusal(head.grpc, status, denial), b""
    said = refusal_of(document, denial) if document and status is HTTPStatus.FORBIDDEN else None
    media, body = b"application/problem+json", problem(status, denial)
    if said is not None:
        media, body, status = b"application/json", said, HTTPStatus.OK
    fields = [
        (b":status", b"%d" % status.value),
        (b"content-type", media),
        (b"content-length", b"%d" % len(body)),
        (b"cache-control", b"no-store"),
    ]
    return fields, b"" if head.method == b"HEAD" else body


def grpc_refusal(kind: str, status: HTTPStatus, denial: Denial) -> Fields:
    """A whole answer in one block, as the protocol has it for calls that fail at once ("Trailers-Only")."""
    return [(b":status", b"200"), (b"content-type", b"application/grpc" + kind.encode()), *grpc_status(status, denial)]


def grpc_status(status: HTTPStatus, denial: Denial) -> Fields:
    words = f"{denial.title} ({denial.explanation}); {denial.how_to_ask}".encode()
    # gRPC over HTTP/2, "Responses": percent-encoded but for visible ASCII and space.
    coded = b"".join([bytes((one,)) if one in _VISIBLE and one != 0x25 else b"%%%02X" % one for one in words])
    return [(b"grpc-status", _OF_STATUS.get(status, _INTERNAL)), (b"grpc-message", coded)]
