"""Every fuzz target on its seeds, on what Hypothesis makes of them, and on every input that once failed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.target import Target
from tests.fuzz.targets import TARGETS

# Made once: some are made by OpenSSL or read from files.
SEEDS = {name: list(target.seeds()) for name, target in TARGETS.items()}
EACH = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)


@EACH
def test_seeds_keep_their_promises(target: Target) -> None:
    """What a target begins with is no fault, and neither is what once was one."""
    assert len(SEEDS[target.name]) >= 5
    for seed in SEEDS[target.name]:
        target.judge(seed)
    for path in target.kept():
        target.judge(path.read_bytes())


@EACH
@settings(max_examples=60)
@given(data=st.data())
def test_damaged_seeds_keep_their_promises(target: Target, data: st.DataObject) -> None:
    """Seeds cut, joined and sprinkled with the target's own words are no fault either."""
    damaged = bytearray(data.draw(st.sampled_from(SEEDS[target.name])))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged)))
        what = data.draw(st.sampled_from(target.words) | st.binary(max_size=3))
        damaged[at : at + data.draw(st.sampled_from((0, 0, 1, 2, len(what), 40)))] = what
    target.judge(bytes(damaged))
