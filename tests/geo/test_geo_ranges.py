"""Ranges, CIDRs and layers against brute force on an address space of eight bits."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from enforcer.geo.ranges import OverlapError, Steps, addresses, cidrs, combine, flatten, over

BITS = 8
SPACE = 1 << BITS

blocks = st.tuples(st.integers(0, SPACE - 1), st.integers(0, BITS)).map(
    lambda pair: (pair[0] >> BITS - pair[1] << BITS - pair[1], pair[1])
)
rows = st.lists(st.tuples(blocks, st.integers(1, 4)), max_size=12, unique_by=lambda row: row[0])


def spread(steps: Steps) -> list[int]:
    """The id of every address, read off the definition of Steps."""
    found = [0] * SPACE
    for first, end, ident in zip(steps.starts, [*steps.starts[1:], SPACE], steps.ids, strict=True):
        found[first:end] = [ident] * (end - first)
    return found


def longest_prefix(table: list[tuple[tuple[int, int], int]], address: int) -> int:
    best, answer = -1, 0
    for (first, length), ident in table:
        if address >> BITS - length == first >> BITS - length and length > best:
            best, answer = length, ident
    return answer


def as_ranges(table: list[tuple[tuple[int, int], int]]) -> list[tuple[int, int, int]]:
    return [(first, first + (SPACE >> length) - 1, ident) for (first, length), ident in table]


@given(rows)
def test_flatten_is_longest_prefix_match(table: list[tuple[tuple[int, int], int]]) -> None:
    """Nested rows give every address the id of the narrowest row around it, in canonical form."""
    steps = flatten(as_ranges(table), BITS)
    assert spread(steps) == [longest_prefix(table, address) for address in range(SPACE)]
    assert steps.starts[0] == 0
    assert steps.starts == sorted(set(steps.starts))
    assert steps.starts[-1] < SPACE
    assert all(one != two for one, two in pairwise(steps.ids))


@given(rows)
def test_cidrs_cover_each_step_exactly(table: list[tuple[tuple[int, int], int]]) -> None:
    """Decomposition covers what has an id, once, with aligned blocks, and no two neighbours could be one."""
    steps = flatten(as_ranges(table), BITS)
    found = [0] * SPACE
    out = list(cidrs(steps))
    for first, length, ident in out:
        size = SPACE >> length
        assert first % size == 0
        assert not any(found[first : first + size])
        found[first : first + size] = [ident] * size
    assert found == spread(steps)
    assert [first for first, _, _ in out] == sorted(first for first, _, _ in out)
    for (a, length_a, id_a), (b, length_b, id_b) in pairwise(out):
        siblings = length_a == length_b and a ^ b == SPACE >> length_a and b > a
        assert not (siblings and id_a == id_b)


@given(rows, rows)
def test_combine_is_pointwise(one: list[tuple[tuple[int, int], int]], two: list[tuple[tuple[int, int], int]]) -> None:
    """Combining two functions equals combining their values at every address; `over` lets the upper one win."""
    a, b = flatten(as_ranges(one), BITS), flatten(as_ranges(two), BITS)
    both = combine(a, b, lambda x, y: 10 * x + y)
    assert spread(both) == [10 * x + y for x, y in zip(spread(a), spread(b), strict=True)]
    assert spread(over(a, b)) == [y or x for x, y in zip(spread(a), spread(b), strict=True)]
    assert addresses(both, bool) == sum(map(bool, spread(both)))


def test_range_that_is_no_cidr() -> None:
    """10.0.0.1 to 10.0.0.6 is .1/32 .2/31 .4/31 .6/32, as RFC 4632 blocks must be aligned."""
    base = 10 << 24
    steps = flatten([(base + 1, base + 6, 1)], 32)
    assert list(cidrs(steps)) == [(base + 1, 32, 1), (base + 2, 31, 1), (base + 4, 31, 1), (base + 6, 32, 1)]


def test_whole_space() -> None:
    """A row over the whole space is one CIDR of length 0, in both families."""
    assert list(cidrs(flatten([(0, 2**32 - 1, 1)], 32))) == [(0, 0, 1)]
    assert list(cidrs(flatten([(0, 2**128 - 1, 1)], 128))) == [(0, 0, 1)]


def test_crossing_ranges_are_refused() -> None:
    """Ranges that overlap without nesting contradict each other and are an error, never a guess."""
    with pytest.raises(OverlapError):
        flatten([(0, 10, 1), (5, 15, 2)], BITS)
