"""Steps 2 to 5 of 6, of one session: what it waits for."""

from __future__ import annotations

from enum import Enum


class State(Enum):
    """What the session waits for. Only READY takes events from the inspector."""

    IDENTIFYING = "the client's first bytes"
    READY = "bytes of either side"
    COMMITTING = "the audit row to be on disk"
    SECURING = "a certificate for the name that the client asks for"
    DIALLING = "the server to accept"
    CLOSED = "nothing more"
