"""Pytest plugin for slow or mortal machines: a failure is told when it happens, not when everything has ended."""

from __future__ import annotations

import pytest


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.failed:
        print(f"\n{report.longreprtext}", flush=True)  # noqa: T201 - reports run outside of pytest's capturing
