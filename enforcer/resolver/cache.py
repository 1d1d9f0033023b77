"""Step 5 of 6, forward: answers that need not be asked for again, in bounded memory.

Gets answers as we rendered them; hands them on with their TTLs counted down (RFC 1035 section 3.2.1, RFC 2308). What an
executor may see of an answer is decided when it asks, not when it is stored: the cache is everybody's.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from enforcer.flow import Address
from enforcer.resolver.wire import ttl_offsets
from enforcer.verdict import Verdict

Key = tuple[bytes, int]
# Octets of an entry besides its messages: keys, offsets, addresses and the objects around them, as measured.
OVERHEAD, ADDRESS_OVERHEAD = 1200, 160


@dataclass(slots=True)
class View:
    """One message as somebody may see it. `wire`: with id 0, flags of an answer and the question in lower case.

    `addresses`: those in it. `note`: why it holds less than was answered, or nothing. `dropped`: the addresses left
    out, with their regions. `denied`: it is a refusal, by this verdict.
    """

    wire: bytes
    rcode: int
    records: int
    addresses: tuple[Address, ...] = ()
    note: str = ""
    dropped: str = ""
    denied: Verdict | None = None
    offsets: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        self.offsets = ttl_offsets(self.wire)

    @property
    def size(self) -> int:
        return len(self.wire) + ADDRESS_OVERHEAD * (len(self.addresses) + len(self.offsets))


@dataclass(slots=True)
class Entry:
    """One answer. `names`: further names it leads over. `special`: it holds an address that is no public place's.

    `stored` and `expires`: monotonic seconds. `views`: by executor where they see it differently, as of `generation`.
    """

    full: View
    source: str
    names: tuple[str, ...]
    special: bool
    stored: float
    expires: float
    views: dict[int, View] = field(default_factory=dict)
    generation: int = -1
    size: int = 0

    def __post_init__(self) -> None:
        self.size = OVERHEAD + self.full.size + sum(map(len, self.names))


class Cache:
    """Least recently used goes first when `limit` octets are reached. `now` is the monotonic clock."""

    def __init__(self, limit: int, now: Callable[[], float]) -> None:
        self.limit = limit
        self.size = 0
        self._now = now
        self._entries: OrderedDict[Key, Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key) -> Entry | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry.expires <= self._now():
            self._remove(key)
            return None
        self._entries.move_to_end(key)
        return entry

    def put(self, key: Key, entry: Entry) -> None:
        """Keeps `entry`, unless it is stale already or larger than all there is room for."""
        self._remove(key)
        if entry.expires <= self._now() or entry.size + len(key[0]) > self.limit:
            return
        self._entries[key] = entry
        self.size += entry.size + len(key[0])
        self._trim()

    def keep_view(self, key: Key, entry: Entry, executor: int, view: View) -> None:
        """Remembers what `executor` may see of `entry`; it counts against the same limit."""
        entry.views[executor] = view
        if self._entries.get(key) is entry:
            entry.size += view.size
            self.size += view.size
            self._trim()

    def forget_views(self, key: Key, entry: Entry, generation: int) -> None:
        """What executors may see was judged by another generation."""
        freed = sum(view.size for view in entry.views.values())
        entry.views.clear()
        entry.generation = generation
        if self._entries.get(key) is entry:
            entry.size -= freed
            self.size -= freed

    def resize(self, limit: int) -> None:
        self.limit = limit
        self._trim()

    def _trim(self) -> None:
        while self.size > self.limit:
            self._remove(next(iter(self._entries)))

    def _remove(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.size -= entry.size + len(key[0])
