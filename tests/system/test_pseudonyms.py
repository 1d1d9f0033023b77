"""Pseudonyms of an executor, through real workers: the far side never sees a value, the executor always does."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator

import psutil
import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from tests.fixtures.world import EMAIL, ExecutorFailed, Shell, enforcing, eventually
from tests.system.far_side import HTTP_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = [pytest.mark.world, pytest.mark.full]

POLICY = """
    policy: pseudonyms
    rules:
      - name: seen
        to: {region: [DE], host: [seen.example], protocol: [http]}
        action: allow
      - name: model
        to: {region: [DE], host: [model.example], protocol: [http]}
        action: allow
        mask:
          request: [{detector: email, operator: pseudonymise}, {header: x-user, operator: hmac}]
          pseudonyms: {scope: executor, expires: 1h}
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "pseudonyms", files={"pseudonyms": POLICY}) as running:
        yield running


def ask(shell: Shell, host: str, method: str, path: str, body: str | None = None) -> str:
    code = """
        import http.client
        connection = http.client.HTTPConnection(address, port, timeout=30)
        connection.request(method, path, body=body, headers={"Host": host, "X-User": "Anna"})
        answer = connection.getresponse().read().decode()
        connection.close()
    """
    text: str = shell.run(
        code, address=FRANKFURT.address, port=HTTP_PORT, host=f"{host}.example", method=method, path=path, body=body
    )
    return text


def workers(instance: Instance) -> set[int]:
    children = psutil.Process(instance.pid).children(recursive=True)
    return {child.pid for child in children if "enforcer.worker" in child.cmdline()}


def answers(shell: Shell) -> bool:
    try:
        return bool(ask(shell, "seen", "GET", "/seen"))
    except ExecutorFailed:
        return False


def check(shell: Shell) -> None:
    """The far side gets a pseudonym, always the same; whoever reads what it got by the same rule gets the address."""
    ask(shell, "model", "POST", "/v1/chat", json.dumps({"to": EMAIL}))
    sent = ask(shell, "seen", "GET", "/seen")
    assert [json.loads(body) for *_, body in json.loads(sent)["seen"]] == [{"to": "EMAIL_1"}]
    ask(shell, "model", "POST", "/v1/chat", json.dumps({"to": EMAIL}))
    restored = ask(shell, "model", "GET", "/seen")
    assert [json.loads(body) for *_, body in json.loads(restored)["seen"]] == [{"to": EMAIL}]


def test_pseudonyms_outlive_connections_and_workers(instance: Instance) -> None:
    """Two connections, and one through a worker that took a dead one's place, give an address the same name; the
    answer has the address again; neither records nor files of the instance hold it."""
    with Shell(instance) as shell:
        check(shell)
        before = workers(instance)
        for pid in before:
            os.kill(pid, signal.SIGKILL)
        eventually(lambda: len(workers(instance) - before) == len(before) and answers(shell), "other workers")
        check(shell)
    state = instance.root / "var/lib/enforcer"
    assert (state / "mask.keys").stat().st_mode & 0o777 == 0o600
    sealed = (state / "pseudonyms.sealed").read_bytes()
    assert len(sealed) > 16
    assert EMAIL.encode() not in sealed
