"""Step 3 of 6, decide: the words that policies may use and that other packages own.

The composition roots fill one `Vocabulary` from geography, protocols and masking, so that policy imports none of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Vocabulary:
    """`regions(name)`: the ISO codes that a region or group name stands for; ValueError on an unknown name.

    `protocols`: names of the protocols, `opaque` among them. `detectors`: names of the masking detectors; `withheld`:
    those that this instance cannot have, and what they need.
    `check_json_path(path)`: raises ValueError when `path` is outside the supported subset; its result is not used.
    """

    regions: Callable[[str], frozenset[str]]
    protocols: frozenset[str]
    detectors: frozenset[str]
    check_json_path: Callable[[str], object]
    withheld: Mapping[str, str] = field(default_factory=dict)
