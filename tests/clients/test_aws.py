"""aws-cli with an object store, unchanged in an executor: allowed, masked, denied."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.clients.client import Client
from tests.clients.place import DENIED, MASKED, ORDER, PLAIN
from tests.fixtures.world import MASKED_CARD, MASKED_EMAIL, Watch

pytestmark = [pytest.mark.world, pytest.mark.clients]

AWS = str(Path(sys.executable).parent / "aws")


def aws(client: Client, host: str, *command: str) -> subprocess.CompletedProcess[str]:
    # Nobody's: the store looks at no signature.
    identity = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "eu-central-1"}
    once = {"AWS_MAX_ATTEMPTS": "1", "AWS_EC2_METADATA_DISABLED": "true"}
    return client.run(AWS, "--endpoint-url", f"https://{host}/objects", *command, **identity, **once)


def test_objects_go_up_and_down_and_are_listed(client: Client) -> None:
    """What was sent is what lies in the store, and what comes back."""
    data = os.urandom(3_000_000)
    (client.home / "up").write_bytes(data)
    for command in (("cp", "up", "s3://bucket/thing"), ("cp", "s3://bucket/thing", "down")):
        done = aws(client, PLAIN, "s3", *command)
        assert done.returncode == 0, done.stderr
    assert (client.place.tree(PLAIN) / "bucket/thing").read_bytes() == data
    assert (client.home / "down").read_bytes() == data
    assert " 3000000 thing" in aws(client, PLAIN, "s3", "ls", "s3://bucket/").stdout


def test_an_object_is_masked(client: Client) -> None:
    """Without the checksum of what it was before, which the client would hold against it."""
    done = aws(client, MASKED, "s3", "cp", "s3://bucket/order.json", "-")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == ORDER | {"card": MASKED_CARD, "contact": MASKED_EMAIL}
    exchange = client.recorded(MASKED, "GET /objects/bucket/order.json")
    assert exchange["masked"] == {"credit_card": 1, "email": 1}


@pytest.mark.parametrize("command", [("cp", "s3://bucket/order.json", "-"), ("cp", "up", "s3://bucket/order.json")])
def test_objects_are_denied(client: Client, virginia: Watch, command: tuple[str, ...]) -> None:
    """aws tells of a 403; nothing arrives."""
    (client.home / "up").write_bytes(b"nothing")
    virginia.arrived()
    done = aws(client, DENIED, "s3", *command)
    assert done.returncode != 0
    assert "403" in done.stderr or "Forbidden" in done.stderr, done.stderr
    assert virginia.arrived() == []
