"""The HTTP clients of programming languages, unchanged in an executor: allowed, masked and denied."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from enforcer.demo.world import FRANKFURT, VIRGINIA
from tests.clients.client import Client
from tests.clients.place import DENIED, MASKED, ORDER, PLAIN
from tests.fixtures.world import MASKED_CARD, MASKED_EMAIL, Watch

pytestmark = [pytest.mark.world, pytest.mark.clients]

HIDDEN = ORDER | {"card": MASKED_CARD, "contact": MASKED_EMAIL}
NODE = "fetch(process.argv[1]).then(r => r.text()).then(t => process.stdout.write(t))"
RUBY = "require 'net/http'; print Net::HTTP.get(URI(ARGV[0]))"
REQUESTS = "import sys, requests; sys.stdout.write(requests.get(sys.argv[1]).text)"
HTTPX = "import sys, httpx; sys.stdout.write(httpx.Client(http2={http2}).get(sys.argv[1]).text)"
AIOHTTP = """
import aiohttp, asyncio, sys
async def main():
    async with aiohttp.ClientSession() as session, session.get(sys.argv[1]) as answer:
        sys.stdout.write(await answer.text())
asyncio.run(main())
"""
# By name: how a program prints the body of an answer, whatever its status. Debian's gron is written in Go.
RUNTIMES = {
    "node": ("node", "-e", NODE),
    "java": ("java", str(Path(__file__).parent / "Fetch.java")),
    "go": ("sh", "-c", 'gron "$0" | gron --ungron'),
    "ruby": ("ruby", "-e", RUBY),
    "requests": (sys.executable, "-c", REQUESTS),
    "httpx": (sys.executable, "-c", HTTPX.format(http2=False)),
    "httpx-http2": (sys.executable, "-c", HTTPX.format(http2=True)),
    "aiohttp": (sys.executable, "-c", AIOHTTP),
}
runtimes = pytest.mark.parametrize("runtime", RUNTIMES)


@runtimes
def test_a_document_is_fetched(client: Client, runtime: str) -> None:
    """What the server has, by one request."""
    before = len(client.place.asked(FRANKFURT))
    assert json.loads(client.must(*RUNTIMES[runtime], f"https://{PLAIN}/order.json")) == ORDER
    (asked,) = client.place.asked(FRANKFURT)[before:]
    assert asked.startswith(f"https {PLAIN} GET /order.json 200 ")


@runtimes
def test_a_document_is_masked(client: Client, runtime: str) -> None:
    """The program gets what is left of card and address; the record counts both."""
    path = f"/order.json?{runtime}"
    assert json.loads(client.must(*RUNTIMES[runtime], f"https://{MASKED}{path}")) == HIDDEN
    exchange = client.recorded(MASKED, path)
    assert (exchange["rule"], exchange["masked"]) == ("masked", {"credit_card": 1, "email": 1})


@runtimes
def test_a_document_is_denied(client: Client, virginia: Watch, runtime: str) -> None:
    """The program gets the problem; not even a SYN reaches the other region."""
    virginia.arrived()
    path = f"/order.json?{runtime}"
    problem = json.loads(client.must(*RUNTIMES[runtime], f"https://{DENIED}{path}"))
    assert (problem["status"], problem["rule"]) == (403, "nowhere-else")
    assert virginia.arrived() == []
    assert client.place.asked(VIRGINIA) == []
    assert client.recorded(DENIED, path, denied=True)["action"] == "deny"


def test_java_reads_our_store_and_the_systems(client: Client) -> None:
    """By the variable, and where a program takes it away, by what lies over the system's own store."""
    command = RUNTIMES["java"]
    assert "Picked up JAVA_TOOL_OPTIONS" in client.run(*command, f"https://{PLAIN}/order.json").stderr
    done = client.run("env", "-u", "JAVA_TOOL_OPTIONS", *command, f"https://{PLAIN}/order.json")
    assert (json.loads(done.stdout), done.stderr) == (ORDER, "")
