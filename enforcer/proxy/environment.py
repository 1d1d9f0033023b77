"""What every session of a worker shares: policy and tables of the current generation, the journal, limits.

Replaced in parts when the supervisor hands down a new generation; sessions notice by the generation's number.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enforcer.config import OnReload
from enforcer.geo.table import GeoTable
from enforcer.masking.keys import Keys
from enforcer.masking.masker import Masker
from enforcer.policy.compiled import PolicySet
from enforcer.proxy.inbox import Inbox
from enforcer.proxy.journal import Journal
from enforcer.proxy.tls import Certificates
from enforcer.proxy.told import Names
from enforcer.proxy.vaults import Store

if TYPE_CHECKING:
    from enforcer.proxy.ledger import Ledger
    from enforcer.proxy.session import Session

# Seconds that the row of a batched exchange waits for its outcome, at most twice: as long as the writer's own interval.
HOLD = 0.2


@dataclass(slots=True)
class Environment:
    """`generation` numbers policy and table together; it is the kernel's too. Times are seconds. `vaults`: pseudonyms
    of executors."""

    loop: asyncio.AbstractEventLoop
    journal: Journal
    inbox: Inbox
    policies: PolicySet
    table: GeoTable
    generation: int
    identify_timeout: float
    connect_timeout: float
    record_masker: Masker
    on_reload: OnReload
    certificates: Certificates
    mask_keys: Keys = field(default_factory=Keys)
    vaults: Store | None = None
    sessions: set[Session] = field(default_factory=set)
    names: Names = field(init=False)
    _holding: set[Ledger] = field(default_factory=set)
    _releasing: bool = False

    def __post_init__(self) -> None:
        self.names = Names(self.loop)

    def holds(self, ledger: Ledger) -> None:
        """`ledger` keeps a row back for its outcome: most exchanges end at once, and one row costs half of two."""
        self._holding.add(ledger)
        if not self._releasing:
            self._releasing = True
            self.loop.call_later(HOLD, self._release)

    def _release(self) -> None:
        before = time.monotonic() - HOLD
        self._holding = {ledger for ledger in self._holding if ledger.release(before)}
        self._releasing = bool(self._holding)
        if self._releasing:
            self.loop.call_later(HOLD, self._release)
