"""Step 4 of 6, inspect: MySQL and MariaDB, client/server protocol 10: login, text and prepared statements, results.

Read in this order: `packets` (how bytes become messages), `handshake` (greeting and login), `conversation` (the state
both halves share, and the table of what may be answered when), `client`, `statements`, `server`, `results`,
`inspector`.
"""

from __future__ import annotations

from typing import Final

from enforcer.protocols.base import ServerFirst
from enforcer.protocols.mysql.inspector import MySql

PROTOCOL: Final[ServerFirst] = MySql()
"""What the registry holds."""
