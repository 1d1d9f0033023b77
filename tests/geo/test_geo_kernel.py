"""The kernel's tries and the Python table say the same of every address, and go on doing so while they are swapped."""

from __future__ import annotations

import errno
import random
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Literal

import pytest

from enforcer.capture.original_dst import flow_record
from enforcer.geo.address import BITS, VERSIONS, normalise, to_address
from enforcer.geo.table import GeoTable
from tests.fixtures.kernel import PATIENCE, Executor, Kernel, Prefixes
from tests.fixtures.world import measured

from .tries import Trie, in_kernel

pytestmark = pytest.mark.kernel

Pair = dict[Literal[4, 6], Trie]


@pytest.fixture(scope="module")
def tries(full: GeoTable) -> Iterator[Pair]:
    """The full table in the kernel."""
    with in_kernel(full) as tries:
        yield tries


def rows(table: GeoTable, version: Literal[4, 6]) -> list[tuple[int, int]]:
    width = BITS[version] // 8
    chunks = (keys for _, keys, _ in table.kernel_entries(version))
    return [(int.from_bytes(raw), length) for keys in chunks for length, raw in struct.iter_unpack(f"=I{width}s", keys)]


def compare(table: GeoTable, trie: Trie, version: Literal[4, 6], values: Iterator[int]) -> int:
    """How many addresses were compared; a difference fails with the address. Both sides get the normalised form."""
    count = 0
    for value in values:
        if not 0 <= value < 1 << BITS[version]:
            continue
        address = to_address(version, value)
        if normalise(address) != address:
            continue
        found = trie.find(value)
        assert table.set_id(address) == found, address
        count += 1
    return count


def edges(version: Literal[4, 6], prefixes: list[tuple[int, int]]) -> Iterator[int]:
    """Both ends of every prefix, one inside and one outside."""
    for first, length in prefixes:
        last = first + (1 << BITS[version] - length) - 1
        yield from {first - 1, first, first + 1, last - 1, last, last + 1}


def anywhere(version: Literal[4, 6], prefixes: list[tuple[int, int]], count: int) -> Iterator[int]:
    """Half of the addresses from the whole space, half inside rows: most of the IPv6 space is empty."""
    rng = random.Random(8)
    for _ in range(count // 2):
        yield rng.getrandbits(BITS[version])
        first, length = rng.choice(prefixes)
        yield first | rng.getrandbits(BITS[version]) >> length


@pytest.mark.parametrize("version", VERSIONS)
def test_kernel_and_python_agree(full: GeoTable, tries: Pair, version: Literal[4, 6]) -> None:
    """On the boundaries ±1 of sampled prefixes, and on random addresses, both find the same set."""
    prefixes = rows(full, version)
    some = random.Random(7).sample(prefixes, 4000)
    assert compare(full, tries[version], version, edges(version, some)) > 12_000
    assert compare(full, tries[version], version, anywhere(version, prefixes, 20_000)) > 19_000


@pytest.mark.full
@pytest.mark.parametrize("version", VERSIONS)
def test_kernel_and_python_agree_everywhere(full: GeoTable, tries: Pair, version: Literal[4, 6]) -> None:
    """On every boundary ±1 of the full table, and on a million random addresses, both find the same set."""
    prefixes = rows(full, version)
    assert compare(full, tries[version], version, edges(version, prefixes)) > 2 * len(prefixes)
    assert compare(full, tries[version], version, anywhere(version, prefixes, 1_000_000)) > 999_000


def test_the_comparison_sees_a_difference(full: GeoTable, tries: Pair) -> None:
    """A trie of another table is found out: the comparison can fail."""
    with in_kernel(Prefixes({"8.0.0.0/8": 1})) as other, pytest.raises(AssertionError):
        compare(full, other[4], 4, edges(4, rows(full, 4)[:50]))


# Three tables in turn. What each says of both destinations differs, so that a verdict from the table after next shows.
SETS = ({"3.120.0.0/14": 7, "52.0.0.0/24": 10}, {"3.120.0.0/14": 8, "52.0.0.0/24": Kernel.REFUSED_SET},
        {"3.120.0.0/14": 9, "52.0.0.0/24": 11})  # fmt: skip
TAG = struct.Struct("!I")
CONNECTS = """
counts = {}
deadline = time.monotonic() + SECONDS
number = 0
while time.monotonic() < deadline and number < LIMIT:
    batch = []
    for _ in range(64):
        number += 1
        sock = socket.socket()
        code = attempt(sock.connect, ("3.120.0.10" if number % 2 else "52.0.0.10", 443))
        key = ("frankfurt" if number % 2 else "virginia") + " " + str(code)
        counts[key] = counts.get(key, 0) + 1
        if code:
            sock.close()
        else:
            sock.sendall(b"?")
            batch.append(sock)
    for sock in batch:
        sock.recv(1)
        sock.close()
answer["counts"], answer["number"], answer["seconds"] = counts, number, time.monotonic() - deadline + SECONDS
"""


class Judging:
    """Accepts everything that an executor's listener gets, and counts what the kernel says of it."""

    def __init__(self, executor: Executor) -> None:
        self.seen: Counter[tuple[str, int, int]] = Counter()
        self.unmapped = 0
        self._executor = executor
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Judging:
        self._executor.listener4.settimeout(0.05)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while True:
            try:
                accepted, _ = self._executor.listener4.accept()
            except TimeoutError:
                if self._stop.is_set():
                    return
                continue
            record = flow_record(accepted)
            if record is None:
                self.unmapped += 1
            else:
                address = socket.inet_ntoa(struct.pack("=I", record.address[0]))
                place = "frankfurt" if address == "3.120.0.10" else "virginia"
                self.seen[place, record.region_set, record.generation] += 1
            with accepted:
                accepted.recv(1)  # closed with bytes that nobody read, it would be reset
                accepted.send(b"!")


def storm(kernel: Kernel, *, seconds: float, limit: int, swaps: int) -> None:
    """Connects in a tight loop while tables are swapped, and holds every verdict against the generation it names."""
    by_generation: dict[int, int] = {}

    def load(turn: int) -> None:
        by_generation[kernel.load(Prefixes(dict(SETS[turn % 3])))] = turn % 3

    load(0)
    with kernel.executor() as executor, Judging(executor) as judging:
        executor.start(CONNECTS.replace("SECONDS", str(seconds)).replace("LIMIT", str(limit)))
        deadline = time.monotonic() + seconds
        turn = 0
        while time.monotonic() < deadline and turn < swaps:
            turn += 1
            load(turn)
        answer = executor.result()
    measured(f"{answer['number'] / answer['seconds']:.0f} connects/s through {turn} swaps")
    counts = answer["counts"]
    assert counts.keys() <= {"frankfurt 0", "virginia 0", f"virginia {errno.EPERM}"}, counts
    assert judging.unmapped == 0
    assert sum(judging.seen.values()) == counts["frankfurt 0"] + counts.get("virginia 0", 0)
    for (place, region_set, generation), count in judging.seen.items():
        expected = SETS[by_generation[generation]]["3.120.0.0/14" if place == "frankfurt" else "52.0.0.0/24"]
        assert region_set == expected != Kernel.REFUSED_SET, (place, region_set, generation, count)
    used = {by_generation[generation] for _, _, generation in judging.seen}
    assert used == {0, 1, 2}, "the storm ended before all three tables were in force"


@pytest.fixture(scope="module")
def kernel() -> Iterator[Kernel]:
    with Kernel(Prefixes(dict(SETS[0]))) as kernel:
        yield kernel


def test_no_verdict_is_lost_or_wrong_while_tables_are_swapped(kernel: Kernel) -> None:
    """Each connect() gets the verdict of the generation that it names, whole, and none gets neither."""
    storm(kernel, seconds=PATIENCE, limit=6_000, swaps=60)


@pytest.mark.full
def test_no_verdict_is_lost_or_wrong_in_a_long_storm(kernel: Kernel) -> None:
    """The same for half a minute, as fast as this machine connects and swaps."""
    storm(kernel, seconds=30, limit=10**9, swaps=10**9)
