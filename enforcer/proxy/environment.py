"""What every session of a worker shares: policy and tables of the current generation, the journal, limits.

Replaced in parts when the supervisor hands down a new generation; sessions notice by the generation's number.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from enforcer.geo.table import GeoTable
from enforcer.masking.masker import Masker
from enforcer.policy.compiled import PolicySet
from enforcer.proxy.journal import Journal

if TYPE_CHECKING:
    from enforcer.proxy.session import Session


@dataclass(slots=True)
class Environment:
    """`generation` numbers policy and table together; it is the kernel's too. Times are seconds."""

    loop: asyncio.AbstractEventLoop
    journal: Journal
    policies: PolicySet
    table: GeoTable
    generation: int
    identify_timeout: float
    connect_timeout: float
    record_masker: Masker
    sessions: set[Session] = field(default_factory=set)
