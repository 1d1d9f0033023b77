"""Step 3 of 6, decide: what names may carry. A name that is asked for somewhere is a message to whoever serves its
zone.

Gets a name that would go upstream; answers why it must not. Answers from the cache reach nobody and cost nothing here.
A limit, not a wall: short names, a few a minute, still get through to a zone that policy lets be asked.
"""

from __future__ import annotations

import math
from collections import Counter

# Seconds over which names are counted.
WINDOW = 60.0
# Characters below the registered domain. The long names of clouds and content networks have some sixty.
MAX_BELOW_ZONE = 100
# A label from which on its letters are looked at; no identifier in use is as long (a UUID has 36).
LONG_LABEL = 40
# Bits per character, and share of digits: encoded data has about 4 and a tenth or more; words have few digits.
MAX_ENTROPY, MAX_DIGITS = 3.3, 0.1
# Zones an executor may ask in one window, and names in all of them.
MAX_ZONES, MAX_NAMES = 1024, 4096
# Second-level labels below which a country lets register: `example.co.uk` is one domain.
_SECOND_LEVEL = frozenset({"ac", "co", "com", "edu", "go", "gob", "gov", "ne", "net", "nom", "or", "org"})
_ARPA = 3  # labels of a reverse zone that stand for one network: 3.in-addr.arpa


def zone_of(name: str) -> str:
    """The registered domain of a name, approximately: its last two labels, or three below `co.uk` and the like."""
    labels = name.split(".")
    if labels[-1] == "arpa":
        return ".".join(labels[-_ARPA:])
    deep = len(labels) > 2 and len(labels[-1]) == 2 and labels[-2] in _SECOND_LEVEL
    return ".".join(labels[-3 if deep else -2 :])


def entropy(text: str) -> float:
    """Shannon's, in bits per character."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values()) if total else 0.0


def looks_encoded(label: str) -> bool:
    """Is it rather data than a word?"""
    digits = sum(character.isdigit() for character in label)
    return len(label) >= LONG_LABEL and digits >= MAX_DIGITS * len(label) and entropy(label) > MAX_ENTROPY


class Limits:
    """What one executor has sent upstream in this window. Times are monotonic seconds."""

    def __init__(self, names_per_minute: int) -> None:
        self.names_per_minute = names_per_minute
        self._since = -math.inf
        self._zones: dict[str, set[str]] = {}
        self._names = 0

    def refuses(self, name: str, now: float) -> str:
        """Why `name` may not go upstream now, or an empty text, and then it is counted."""
        zone = zone_of(name)
        below = name[: -len(zone)].rstrip(".")
        if not name.endswith(".arpa"):
            if len(below) > MAX_BELOW_ZONE:
                return f"a name of {len(below)} characters below {zone}; at most {MAX_BELOW_ZONE} are let through"
            if any(looks_encoded(label) for label in name.split(".")):
                return "a label that looks like data"
        if now - self._since >= WINDOW:
            self._since = now
            self._zones.clear()
            self._names = 0
        seen = self._zones.get(zone)
        if seen is not None and name in seen:
            return ""
        if len(seen or ()) >= self.names_per_minute:
            return f"more than {self.names_per_minute} names of {zone} in a minute"
        if self._names >= MAX_NAMES or (seen is None and len(self._zones) >= MAX_ZONES):
            return f"more than {MAX_NAMES} names or {MAX_ZONES} zones in a minute"
        self._zones.setdefault(zone, set()).add(name)
        self._names += 1
        return ""
