"""Step 4 of 6, inspect: a request whose body is read before it is judged, because rules ask for what it says.

Gets the pieces of one request; keeps them until the body is complete, or too large; hands on the facts, and the pieces
as they came.
"""

from __future__ import annotations

from collections import deque

from enforcer.protocols.body_facts import facts_of, is_read
from enforcer.protocols.codings import CodingError, Decoder
from enforcer.protocols.http1.reader import END, Piece
from enforcer.protocols.http1.request import RequestHead

# Bytes of a body that is read for facts, as it came and decoded. Calls of APIs are smaller; Claw Patrol stops here too.
BODY_LIMIT = 1 << 20
# Stands for a body of a kind that is not read: facts of the target alone differ with there being one.
_SOME = b"\0"


class Held:
    """The request `head`. `complete`: all that is waited for is here. `pieces`: what came of its body, in order.
    `document`: the body, decoded, where it was read."""

    __slots__ = ("_size", "_why", "complete", "document", "head", "pieces")

    def __init__(self, head: RequestHead) -> None:
        self.head = head
        self.pieces: deque[Piece] = deque()
        self.document = b""
        self._size = 0
        self._why = ""
        reads = len(head.terms.types) == 1 and is_read(head.terms.types[0].decode("latin-1"))
        if head.terms.has_body and len(head.terms.types) > 1:
            self._why = "more than one Content-Type"
        elif reads and head.terms.length > BODY_LIMIT:
            self._why = f"more than {BODY_LIMIT} bytes"
        self.complete = not head.terms.has_body or not reads or bool(self._why)

    def take(self, piece: Piece) -> None:
        """One piece more of the body, or its end."""
        self.pieces.append(piece)
        if type(piece) is bytes:
            self._size += len(piece)
            if self._size > BODY_LIMIT:
                self._why = f"more than {BODY_LIMIT} bytes"
                self.complete = True
        elif piece is END:
            self.complete = True

    def facts(self) -> dict[str, str]:
        """What target and body say, once `complete`."""
        terms = self.head.terms
        if not self._why and self.pieces:
            self._why = self._read()
        if self._why:
            return {"body": f"unread: {self._why}"}
        types = terms.types[0].decode("latin-1") if terms.types else ""
        body = self.document if self.pieces else _SOME if self.head.terms.has_body else b""
        return facts_of(types, self.head.target, body)

    def _read(self) -> str:
        """Why the body cannot be read; nothing where `document` holds it."""
        body = self.head.terms.body
        if body.unmaskable:
            return body.unmaskable
        data = b"".join([piece for piece in self.pieces if type(piece) is bytes])
        if body.codings:
            try:
                data = Decoder(body.codings).feed(data, final=True)
            except CodingError as error:
                return str(error)
        if len(data) > BODY_LIMIT:
            return f"more than {BODY_LIMIT} bytes"
        self.document = data
        return ""
