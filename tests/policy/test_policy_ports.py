"""Arithmetic on ranges of ports, compared with sets of ports."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from enforcer.policy.ports import Ports, both, minus, union

RANGES = st.lists(
    st.tuples(st.integers(1, 30), st.integers(0, 8)).map(lambda one: (one[0], one[0] + one[1])), max_size=6
)


def ports(ranges: list[Ports]) -> set[int]:
    return {port for low, high in ranges for port in range(low, high + 1)}


@given(RANGES, RANGES)
def test_ranges_hold_the_ports_of_the_sets_they_stand_for(one: list[Ports], two: list[Ports]) -> None:
    """Union, intersection and difference are those of sets, in ascending ranges with a gap between any two."""
    for result, expected in (
        (union(one), ports(one)),
        (both(one, two), ports(one) & ports(two)),
        (minus(one, two), ports(one) - ports(two)),
    ):
        assert ports(result) == expected
        assert all(low <= high for low, high in result)
        assert all(high + 1 < low for (_, high), (low, _) in pairwise(result))
