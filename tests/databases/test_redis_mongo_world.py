"""Redis and MongoDB from an executor, through the whole enforcer: what arrived, what came back, what is kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.databases.mongo_server import SERVER
from tests.fixtures.world import CARD, MASKED_CARD, Shell, Watch, enforcing, eventually, session_list

pytestmark = [pytest.mark.world, pytest.mark.full]

REDIS, MONGO = 6379, 27017
POLICY = """
    policy: stores
    rules:
      - name: cache
        to: {region: [DE], protocol: [redis]}
        action: allow
        only: {operation: [read, write], table: ["user:*"]}
        mask: {response: [credit_card]}
      - name: documents
        to: {region: [DE], protocol: [mongodb]}
        action: allow
        only: {operation: [read], table: [shop.customers]}
        mask: {response: [credit_card]}
      - name: nowhere-else
        to: {region: ["*"]}
        action: deny
"""


@pytest.fixture(scope="module")
def places() -> Iterator[World]:
    """Frankfurt with Redis and a MongoDB server, Virginia with Redis."""
    with World(FRANKFURT, VIRGINIA) as world:
        for site in world.sites:
            options = ("--bind", site.address, "127.0.0.1", "--protected-mode", "no", "--slowlog-log-slower-than", "0")
            world.spawn(site.name, "redis-server", "--save", "", *options, log=f"redis-{site.name}.log")
        command = [str(SERVER), "--host", "0.0.0.0", "--storage-path", str(world.directory / "mongo"), "--standalone"]
        world.spawn(FRANKFURT.name, *command, log="mongo.log")
        for site, port in ((FRANKFURT, REDIS), (VIRGINIA, REDIS), (FRANKFURT, MONGO)):
            world.wait_for(site, port)
        yield world


@pytest.fixture(scope="module")
def instance(places: World) -> Iterator[Instance]:
    with enforcing(places, "stores", files={"stores": POLICY}) as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run("import pymongo, redis")
        yield running


def redis_cli(world: World, *command: str) -> str:
    """Asked at the server itself."""
    program = world.command(FRANKFURT.name, "redis-cli", "-h", "127.0.0.1", *command)
    return subprocess.run(program, capture_output=True, text=True, check=True, timeout=30).stdout


def exchanges(instance: Instance, protocol: str) -> list[dict[str, Any]]:
    """What is recorded of the newest session of that protocol that is over."""
    ended = eventually(
        lambda: [one for one in session_list(instance, "--protocol", protocol) if one["ended"]],
        f"a session of {protocol} is over",
    )
    found: dict[str, Any] = instance.json("sessions", "show", ended[0]["id"], "--json")
    return list(found["exchanges"])


def test_redis_is_judged_masked_and_recorded(places: World, instance: Instance, shell: Shell) -> None:
    """Keys of users come masked, others are refused with the rule and never asked for, and the connection lives."""
    redis_cli(places, "mset", "user:1", f"card {CARD}", "other", "secret")
    said = shell.run(
        """
        db = redis.Redis(host=address, socket_timeout=30, decode_responses=True)
        answer = [db.get("user:1")]
        try:
            db.get("other")
        except redis.exceptions.NoPermissionError as error:
            answer.append(str(error))
        db.set("user:2", "kept")
        answer.append(db.get("user:2"))
        db.close()
        """,
        address=FRANKFURT.address,
    )
    assert (said[0], said[2]) == (f"card {MASKED_CARD}", "kept")
    assert "region DE" in said[1]
    assert "rule stores/cache" in said[1]
    asked = redis_cli(places, "slowlog", "get", "-1")
    assert "user:2" in asked
    assert "get\nother" not in asked.lower()
    rows = [(row["text"], row["action"]) for row in exchanges(instance, "redis") if row["operation"] == "GET"]
    assert rows == [("GET user:1", "allow"), ("GET other", "deny"), ("GET user:2", "allow")]


def test_mongodb_is_judged_masked_and_recorded(instance: Instance, shell: Shell) -> None:
    """pymongo finds a masked document, cannot write, reads on, and what it sent is recorded without the card."""
    said = shell.run(
        """
        db = pymongo.MongoClient(address, directConnection=True, serverSelectionTimeoutMS=30000)
        answer = []
        for act in (
            lambda: db.shop.customers.insert_one({"_id": 1}),
            lambda: list(db.shop.customers.aggregate([{"$documents": []}, {"$out": "x"}])),
            lambda: db.shop.customers.count_documents({}),
            lambda: list(db.shop.customers.aggregate([{"$limit": 1}])),
            lambda: db.shop.orders.find_one({"card": card}),
            lambda: db.shop.customers.find_one({"card": card}),
        ):
            try:
                answer.append(act())
            except pymongo.errors.OperationFailure as error:
                answer.append([error.code, str(error)])
        db.close()
        """,
        address=FRANKFURT.address,
        card=CARD,
    )
    refused = [one[0] for one in said if isinstance(one, list) and one]
    assert refused == [13, 13, 13]
    assert "rule stores/documents" in said[0][1]
    assert said[2] == 0  # nothing was written
    assert said[5] is None
    rows = [row for row in exchanges(instance, "mongodb") if row["operation"] == "find"]
    assert [row["action"] for row in rows] == ["deny", "allow"]
    assert CARD not in json.dumps(rows)
    assert MASKED_CARD in rows[1]["text"]


def test_virginia_sees_nothing(places: World, shell: Shell) -> None:
    """The same client, the same commands, another region: not a packet arrives there."""
    there = Watch(places, VIRGINIA)
    refused = shell.run(
        """
        try:
            redis.Redis(host=address, socket_timeout=30, socket_connect_timeout=30).get("user:1")
            answer = ""
        except redis.RedisError as error:
            answer = repr(error)
        """,
        address=VIRGINIA.address,
    )
    assert refused
    assert there.arrived() == []
