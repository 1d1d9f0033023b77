"""Fixtures every layer shares. Kernel and world tests need root and fail, never skip, without it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from enforcer import compiled

# What takes long goes first: at the end, where processes have nothing left to share, only short files remain.
LONG_FIRST = ("world", "kernel")

_PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The gate says the same of the same code. New ones are looked for by `make test-full`, and by whoever asks for more.
settings.register_profile("fast", _PATIENT, max_examples=50, derandomize=True)
settings.register_profile("search", _PATIENT, max_examples=500)
settings.register_profile("deep", _PATIENT, max_examples=5000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_configure(config: pytest.Config) -> None:
    """Where a compiled tree is to be tested, it must be what is tested (see `tools/compile.py`)."""
    wanted = os.environ.get("ENFORCER_TREE")
    if wanted is not None and str(compiled.running_from()) != wanted:
        raise pytest.UsageError(f"tests would run on {compiled.running_from()}, not on {wanted}")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files in the order of how long they take, as far as their marks tell; within a file nothing moves."""
    ranks: dict[Path, int] = {}
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        rank = next((rank for rank, name in enumerate(LONG_FIRST) if name in marks), len(LONG_FIRST))
        ranks[item.path] = min(rank, ranks.get(item.path, rank))
    items.sort(key=lambda item: ranks[item.path])


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs_root = [mark.name for mark in item.iter_markers() if mark.name in ("kernel", "world")]
    if needs_root and os.geteuid() != 0:
        pytest.fail(f"{needs_root[0]} tests need root: run them with sudo make test", pytrace=False)
