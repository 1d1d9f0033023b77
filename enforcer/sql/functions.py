"""Step 4 of 6, inspect: what is known of the functions that statements call.

Of those that come with a server most only compute. Those that write, or that reach out of the tables a statement names
(files, other servers, other sessions, settings, SQL in a text), are listed as what they are. A function that is in no
list may do anything.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from typing import Final

READ: Final = "read"
WRITE: Final = "write"
ADMIN: Final = "admin"


@cache
def effects(dialect: str) -> dict[str, str]:
    """Function -> `read` (it computes), `write` or `admin`, as the package's lists have it."""
    known: dict[str, str] = {}
    section = ""
    for line in resources.files("enforcer.sql").joinpath(f"{dialect}_functions.txt").read_text("ascii").splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif not line.startswith("#"):
            known.update(dict.fromkeys(line.split(), section))
    return known
