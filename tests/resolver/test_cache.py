"""The cache: bounded in octets, least recently used first, gone when its time is over."""

from __future__ import annotations

import tracemalloc
from ipaddress import ip_address

import dns.message
import dns.rrset

from enforcer.resolver.cache import Cache, Entry, View
from enforcer.resolver.wire import wire_name


def view(name: str = "db.example", records: int = 1) -> View:
    message = dns.message.make_response(dns.message.make_query(name, "A", use_edns=False, id=0))
    addresses = [f"3.120.0.{number + 1}" for number in range(records)]
    message.answer.append(dns.rrset.from_text_list(name + ".", 60, "IN", "A", addresses))
    return View(message.to_wire(), 0, records, tuple(map(ip_address, addresses)))


def entry(name: str = "db.example", records: int = 1, stored: float = 0.0, lifetime: float = 60.0) -> Entry:
    return Entry(view(name, records), "test", (), special=False, stored=stored, expires=stored + lifetime)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_answer_is_kept_until_its_time_is_over() -> None:
    """To the second of its TTL, and then its room is free again."""
    clock = Clock()
    cache = Cache(100_000, clock)
    key = (wire_name("db.example"), 1)
    cache.put(key, entry())
    clock.now = 59.9
    assert cache.get(key) is not None
    clock.now = 60.0
    assert cache.get(key) is None
    assert (len(cache), cache.size) == (0, 0)


def test_what_has_no_lifetime_is_not_kept() -> None:
    """A TTL of 0, or a negative answer without its SOA (RFC 2308 section 5)."""
    cache = Cache(100_000, Clock())
    cache.put((b"\0", 1), entry(lifetime=0))
    assert len(cache) == 0


def test_the_least_recently_used_goes_first() -> None:
    """At the bound; what was asked for meanwhile stays."""
    one = entry().size + len(wire_name("n0.example"))
    cache = Cache(one * 3 + 10, Clock())
    for number in range(3):
        cache.put((wire_name(f"n{number}.example"), 1), entry())
    cache.get((wire_name("n0.example"), 1))
    cache.put((wire_name("n3.example"), 1), entry())
    assert [cache.get((wire_name(f"n{number}.example"), 1)) is not None for number in range(4)] == [
        True, False, True, True,
    ]  # fmt: skip


def test_an_answer_larger_than_the_cache_is_not_kept() -> None:
    """And throws nothing else out."""
    cache = Cache(entry().size + 100, Clock())
    cache.put((b"\x01a\0", 1), entry())
    cache.put((b"\x01b\0", 1), entry(records=200))
    assert cache.get((b"\x01a\0", 1)) is not None


def test_views_count_against_the_bound() -> None:
    """What executors see differently is memory too; with another generation it is free again."""
    cache = Cache(1_000_000, Clock())
    key, kept = (b"\x01a\0", 1), entry()
    cache.put(key, kept)
    before = cache.size
    for executor in range(50):
        cache.keep_view(key, kept, executor, view(records=3))
    assert cache.size > before + 50 * len(view(records=3).wire)
    cache.forget_views(key, kept, 2)
    assert (cache.size, kept.views) == (before, {})
    cache.resize(before - 1)
    assert (len(cache), cache.size) == (0, 0)


def test_memory_stays_below_the_bound() -> None:
    """4,000 different answers through a cache of 1.5 MB: what Python holds for it is less than that, and a tenth."""
    limit = 1_500_000
    cache = Cache(limit, Clock())
    template = view(records=2).wire
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for number in range(4_000):
            addresses = (ip_address(f"3.{number >> 8 & 255}.{number & 255}.1"),)
            made = View(bytes(bytearray(template)), 0, 1, addresses)
            cache.put((wire_name(f"n{number}.example"), 1), Entry(made, "test", (), False, 0.0, 60.0))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 500 < len(cache) < 4_000
    assert grown < limit * 1.1
