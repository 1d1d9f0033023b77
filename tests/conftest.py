"""Fixtures every layer shares. Kernel and world tests need root and fail, never skip, without it."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

from enforcer import compiled

settings.register_profile("fast", max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", max_examples=5000, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fast"))


def pytest_configure(config: pytest.Config) -> None:
    """Where a compiled tree is to be tested, it must be what is tested (see `tools/compile.py`)."""
    wanted = os.environ.get("ENFORCER_TREE")
    if wanted is not None and str(compiled.running_from()) != wanted:
        raise pytest.UsageError(f"tests would run on {compiled.running_from()}, not on {wanted}")


def pytest_runtest_setup(item: pytest.Item) -> None:
    needs_root = [mark.name for mark in item.iter_markers() if mark.name in ("kernel", "world")]
    if needs_root and os.geteuid() != 0:
        pytest.fail(f"{needs_root[0]} tests need root: run them with sudo make test", pytrace=False)
