"""Pseudonyms of an executor, through real workers: the far side never sees a value, the executor always does."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator

import psutil
import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from tests.fixtures.world import EMAIL, ExecutorFailed, Shell, enforcing, eventually
from tests.system import talking_server
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
      - name: forgetful
        to: {region: [DE], host: [forgetful.example], protocol: [http]}
        action: allow
        mask:
          request: [{detector: email, operator: pseudonymise}]
          pseudonyms: {scope: executor, expires: 10s}
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


def test_a_pseudonym_expires(instance: Instance) -> None:
    """Its value comes back for as long as the rule says; then it stays a pseudonym, and nobody is given it again."""
    with Shell(instance, "forgetful") as shell:

        def answered() -> list[str]:
            return [json.loads(body)["to"] for *_, body in json.loads(ask(shell, "forgetful", "GET", "/seen"))["seen"]]

        ask(shell, "seen", "GET", "/seen")
        ask(shell, "forgetful", "POST", "/v1/chat", json.dumps({"to": EMAIL}))
        sent = ask(shell, "seen", "GET", "/seen")
        assert [json.loads(body) for *_, body in json.loads(sent)["seen"]] == [{"to": "EMAIL_1"}]
        ask(shell, "forgetful", "POST", "/v1/chat", json.dumps({"to": EMAIL}))
        assert answered() == [EMAIL]

        def forgotten() -> bool:
            ask(shell, "seen", "POST", "/v1/chat", json.dumps({"to": "EMAIL_1"}))
            return answered()[-1] == "EMAIL_1"

        eventually(forgotten, "the end of its ten seconds", 60)
        ask(shell, "forgetful", "POST", "/v1/chat", json.dumps({"to": EMAIL}))
        sent = ask(shell, "seen", "GET", "/seen")
        assert json.loads(json.loads(sent)["seen"][-1][-1]) == {"to": "EMAIL_2"}


@pytest.fixture(scope="module")
def talking(world: World) -> None:
    world.spawn(FRANKFURT.name, sys.executable, talking_server.__file__, FRANKFURT.address, log="talking.log")
    world.wait_for(FRANKFURT, talking_server.PORT)


def talk(shell: Shell, text: str, until: str) -> list[dict[str, str]]:
    """What comes back over a WebSocket for `text`, up to what ends in `until`."""
    code = """
        import json, socket
        from websockets.sync.client import connect
        with connect(f"ws://model.example:{port}/", sock=socket.create_connection((address, port)), proxy=None) as ws:
            ws.send(text)
            answer = [json.loads(ws.recv(timeout=30))]
            while not list(answer[-1].values())[0].endswith(until):
                answer.append(json.loads(ws.recv(timeout=30)))
    """
    given = {"address": FRANKFURT.address, "port": talking_server.PORT, "text": text, "until": until}
    answer: list[dict[str, str]] = shell.run(code, **given)
    return answer


def test_a_model_that_talks_over_a_websocket(instance: Instance, talking: None) -> None:
    """Real ends of a WebSocket: the address leaves as a pseudonym, comes back over several messages as itself, and the
    last message comes also where the model says no more."""
    with Shell(instance, "talker") as shell:
        *said, got = talk(shell, f"write to {EMAIL}!", "etirw")
        assert got == {"got": "!1_LIAME ot etirw"}
        assert "".join(one["delta"] for one in said) == f"write to {EMAIL}!"
        assert len(said) == len("write to EMAIL_1!") // 2 + 1
        said = talk(shell, f"to {EMAIL} in EM...", "EM")
        assert "".join(one["delta"] for one in said) == f"to {EMAIL} in EM"


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
