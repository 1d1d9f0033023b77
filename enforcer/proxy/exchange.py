"""Step 4 of 6, inspect: what a session keeps of an allowed request until its answer is complete."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from enforcer.masking.masker import Masker
from enforcer.masking.text import TextMask
from enforcer.protocols.base import Request


@dataclass(slots=True)
class Exchange:
    """`masker`: for its answer, where the rule masks; `text`: the text of it that is being masked. `bytes_up` and
    `bytes_down`: what the session had moved when it began. `masked`: values hidden so far, by name."""

    request: Request
    masker: Masker | None
    text: TextMask | None
    started_ns: int
    bytes_up: int
    bytes_down: int
    masked: Counter[str] = field(default_factory=Counter)
