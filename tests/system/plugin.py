"""Fixtures of the world layer. Load them with `pytest_plugins = ["tests.system.plugin"]`."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import LOCATIONS, NOWHERE, TABLES, Watch
from tests.system import far_side


@pytest.fixture(scope="session")
def world() -> Iterator[World]:
    """Frankfurt and Virginia with nginx, PostgreSQL and the far side's own servers; nowhere with nginx."""
    with World(FRANKFURT, VIRGINIA, NOWHERE) as built:
        for site in built.sites:
            built.nginx(site, LOCATIONS)
        for site in (FRANKFURT, VIRGINIA):
            built.postgres(site, TABLES)
            built.spawn(
                site.name, sys.executable, far_side.__file__, site.address, site.address6, log=f"far-{site.name}.log"
            )
            built.wait_for(site, far_side.HTTP_PORT)
            built.wait_for(site, far_side.RAW_PORT)
        yield built


@pytest.fixture
def virginia(world: World) -> Watch:
    """What arrives in Virginia during the test."""
    return Watch(world, VIRGINIA)


@pytest.fixture
def frankfurt(world: World) -> Watch:
    return Watch(world, FRANKFURT)


@pytest.fixture
def nowhere(world: World) -> Watch:
    return Watch(world, NOWHERE)
