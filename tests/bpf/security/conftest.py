"""One set with the security hooks, for the tests of them; all other tests do without, to see what is behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from enforcer.capture.abi import ExecutorMode
from tests.bpf.conftest import TABLE
from tests.fixtures.kernel import Executor, Kernel, Process

ATTACHED = ExecutorMode.ATTACHED


@pytest.fixture(scope="package")
def kernel() -> Iterator[Kernel]:
    with Kernel(TABLE, security=True) as kernel:
        yield kernel


@pytest.fixture(scope="package")
def in_force(kernel: Kernel) -> bool:
    """Does this kernel ask the programs on its security hooks? Where it does not, nothing that rests on them holds."""
    return kernel.tables.is_security_asked()


@pytest.fixture
def executor(kernel: Kernel, host: int) -> Iterator[Executor]:
    with kernel.executor(mode=ATTACHED, netns=host) as executor:
        yield executor


@pytest.fixture
def outsider(kernel: Kernel, host: int) -> Iterator[Process]:
    with kernel.outsider(host) as outsider:
        yield outsider


def check(kernel: Kernel, executor: Executor, moved: dict[str, int], reason: str, times: int) -> None:
    """Refused that often, counted and queued with the executor, where the hooks are in force; else nothing of it."""
    wanted = times if kernel.tables.is_security_asked() else 0
    assert moved.get(reason, 0) == wanted
    assert [refusal.reason for refusal in kernel.refusals(executor)].count(reason) == wanted
