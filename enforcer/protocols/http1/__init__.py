"""Step 4 of 6, inspect: HTTP/1.1 and HTTP/1.0 (RFC 9112), parsed by llhttp and spoken anew on both sides.

Reading order: `fields` (what both heads share), `request`, `response` (the heads), `reader` (llhttp), `answer`,
`inspector` (the exchange), `refusal`.
"""

from __future__ import annotations

import re

from enforcer.protocols.base import Probe, Protocol
from enforcer.protocols.http1.inspector import Http1Inspector

# Characters of a method. The longest registered ones (BASELINE-CONTROL, UPDATEREDIRECTREF) have 16 and 17.
METHOD_LIMIT = 24

# An upper-case token, then the start of a target. `PRI` is HTTP/2's preface, which this protocol does not read.
_METHOD = re.compile(rb"([A-Z][A-Z0-9_-]{0,%d})( ?)" % (METHOD_LIMIT - 1))


class Http1:
    """The registry's entry."""

    name = "http"

    def probe(self, data: bytes) -> Probe:
        match = _METHOD.match(data.lstrip(b"\r\n"))  # RFC 9112 section 2.2: empty lines before a request are skipped
        if match is None:
            return Probe.NO if data.strip(b"\r\n") else Probe.MORE
        method, space = match.groups()
        if method == b"PRI" and space:
            return Probe.NO
        if space:
            return Probe.YES
        whole = match.end() == len(data.lstrip(b"\r\n"))
        return Probe.MORE if whole and len(method) < METHOD_LIMIT else Probe.NO

    def inspector(self) -> Http1Inspector:
        return Http1Inspector()


PROTOCOL: Protocol = Http1()
