"""Step 4 of 6, inspect: PostgreSQL, protocol 3.0 and 3.2: simple and extended query, COPY, errors and notices.

Read in this order: `startup` (the opening packets), `messages` (what is in a message), `conversation` (the state both
halves share, and the table of what may be said when), `client`, `server`, `inspector`.
"""

from __future__ import annotations

from typing import Final

from enforcer.protocols.base import Protocol
from enforcer.protocols.postgres.inspector import Postgres

PROTOCOL: Final[Protocol] = Postgres()
"""What the registry holds."""
