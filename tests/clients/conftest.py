"""Fixtures of the clients: one place, one executor in it, and what arrives in the denied region."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from enforcer.demo.world import VIRGINIA
from tests.clients.client import Client
from tests.clients.place import Place, built
from tests.fixtures.world import Shell, Watch

# What the caller's host tells clients about proxies, indexes and mirrors of its own.
_STRANGE = ("PIP_", "NPM_", "npm_", "GIT_", "AWS_", "JAVA_", "NODE_")


@pytest.fixture(scope="session")
def place() -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        for name in os.environ:
            if name.startswith(_STRANGE) or name.lower().endswith("_proxy"):
                patch.delenv(name)
        with built() as made:
            yield made


@pytest.fixture(scope="session")
def client(place: Place) -> Iterator[Client]:
    home = place.world.directory / "home"
    home.mkdir()
    with Shell(place.instance) as shell:
        yield Client(place, shell, home)


@pytest.fixture
def virginia(place: Place) -> Watch:
    """What arrives in the denied region during the test."""
    return Watch(place.world, VIRGINIA)
