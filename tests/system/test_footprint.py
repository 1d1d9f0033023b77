"""Memory, and the time from start to first verdict, with the full shipped tables."""

from __future__ import annotations

import time
from collections.abc import Iterator

import psutil
import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import Shell, conninfo, enforcing, measured, url

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

RESIDENT_LIMIT = 100_000_000
START_LIMIT = 5.0
REQUESTS = 2000


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only") as running:
        yield running


def resident(instance: Instance) -> dict[str, int]:
    status = instance.status()
    pids = {"supervisor": status["pid"]} | {f"worker {one['pid']}": one["pid"] for one in status["workers"]}
    return {name: psutil.Process(pid).memory_info().rss for name, pid in pids.items()}


def test_memory_stays_under_its_limit(instance: Instance) -> None:
    """After 2,000 masked and recorded requests over many connections, each process is below 100 MB resident."""
    assert instance.status()["table"]["prefixes"]["v4"] > 400_000
    fresh = resident(instance)
    with Shell(instance) as shell:
        shell.run(
            """
            import http.client, psycopg
            for _ in range(20):
                connection = http.client.HTTPConnection(host, 80, timeout=30)
                for _ in range(requests // 20 - 5):
                    connection.request("GET", "/orders")
                    connection.getresponse().read()
                connection.close()
                with psycopg.connect(conninfo, autocommit=True) as db:
                    for _ in range(5):
                        db.execute("SELECT * FROM customers").fetchall()
            """,
            host=FRANKFURT.address,
            conninfo=conninfo(FRANKFURT.address),
            requests=REQUESTS,
        )
    used = resident(instance)
    for name, size in used.items():
        measured(f"{name}: {fresh[name] / 1e6:.0f} MB fresh, {size / 1e6:.0f} MB after {REQUESTS} requests")
    assert max(used.values()) < RESIDENT_LIMIT


@pytest.mark.full
def test_the_first_verdict_comes_within_five_seconds_of_the_start(instance: Instance) -> None:
    """From `enforcer run` to the first answer that an executor gets, tables compiled before: the best of three."""
    took = []
    with Shell(instance) as shell:
        for _ in range(3):
            instance.stop()
            begun = time.monotonic()
            answers = instance.start()
            while '"region": "US"' not in shell.curl(url(VIRGINIA.address)).stdout:
                time.sleep(0.01)
                assert time.monotonic() - begun < 60
            took.append(time.monotonic() - begun)
            measured(f"start to first verdict {took[-1]:.2f} s, control socket answers after {answers:.2f} s")
    assert min(took) < START_LIMIT
