"""One loaded set and one world for all kernel tests: compiling takes a second. Each test makes cgroups of its own."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.bpf.far import Far
from tests.fixtures.kernel import Kernel, Prefixes

TABLE = Prefixes(
    {
        "3.120.0.0/14": 7,
        "3.120.0.0/24": 8,
        "8.8.8.0/24": 9,
        "52.0.0.0/24": 10,
        "2a05:d014::/36": 17,
        "2a05:d014:1::/48": 18,
        "2600:1f18::/32": 19,
        "224.0.0.0/4": Kernel.REFUSED_SET,
        "2001:db8::/32": Kernel.REFUSED_SET,
    }
)


@pytest.fixture(scope="package")
def kernel() -> Iterator[Kernel]:
    with Kernel(TABLE) as kernel:
        yield kernel


@pytest.fixture(scope="package")
def world() -> Iterator[World]:
    with World(FRANKFURT, VIRGINIA) as world:
        yield world


@pytest.fixture(scope="package")
def host(world: World) -> Iterator[int]:
    """The shared network namespace of the agent host, as a descriptor."""
    fd = os.open(world.path("host"), os.O_RDONLY | os.O_CLOEXEC)
    yield fd
    os.close(fd)


@pytest.fixture(scope="package")
def frankfurt(world: World, host: int) -> Iterator[Far]:
    with Far(world, FRANKFURT, host) as far:
        yield far


@pytest.fixture(scope="package")
def virginia(world: World, host: int) -> Iterator[Far]:
    with Far(world, VIRGINIA, host) as far:
        yield far
