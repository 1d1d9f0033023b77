"""Step 4 of 6, inspect: HTTP/2 (RFC 9113), with gRPC on top: every stream an exchange, judged for itself.

Reading order: `frames`, `compression` (the wire), `peer` (one side's connection and windows), `heads`, `texts` and
`grpc` (bodies that are rewritten), `stream` (one exchange), `connection` and `exchanges` (frames of both sides), then
`inspector` and `refusal`.
"""

from __future__ import annotations

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.http2.frames import PREFACE
from enforcer.protocols.http2.inspector import Http2Inspector


class Http2:
    """The registry's entry. Policies say `http` for it, as for HTTP/1."""

    name = "http"

    def probe(self, data: bytes) -> Probe:
        if data.startswith(PREFACE):
            return Probe.YES
        return Probe.MORE if PREFACE.startswith(data) else Probe.NO

    def inspector(self) -> Http2Inspector:
        return Http2Inspector()


PROTOCOL: Protocol = Http2()
