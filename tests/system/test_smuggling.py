"""Request smuggling through the whole proxy: raw bytes from an executor, nginx's log at the far side, our records."""

from __future__ import annotations

import base64
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, World
from enforcer.protocols.base import Probe
from enforcer.protocols.http1 import PROTOCOL
from tests.fixtures.world import Shell, enforcing, eventually
from tests.fuzz import smuggling
from tests.fuzz.readers import NGINX

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

PORT = 9480
POLICY = """
    policy: smuggling
    rules:
      - name: germany
        to: {region: [DE], protocol: [http]}
        action: allow
"""
# Every case on a connection of its own, which the client half-closes behind it; what came back, by name.
SEND = """
    import base64, socket
    answer = {}
    for name, raw in cases.items():
        with socket.create_connection((host, port), 30) as connection:
            try:
                connection.sendall(base64.b64decode(raw))
                connection.shutdown(socket.SHUT_WR)
                got = b"".join(iter(lambda: connection.recv(65536), b""))
            except ConnectionError as error:
                got = repr(error).encode()
        answer[name] = base64.b64encode(got).decode()
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    directory = world.directory / "smuggling"
    directory.mkdir()
    directory.chmod(0o755)
    configuration = directory / "nginx.conf"
    configuration.write_text(NGINX.format(root=directory, address=FRANKFURT.address, port=PORT))
    world.spawn(FRANKFURT.name, "nginx", "-p", str(directory), "-c", str(configuration), log="nginx-smuggling.log")
    world.wait_for(FRANKFURT, PORT)
    with enforcing(world, "smuggling", files={"smuggling": POLICY}) as running:
        yield running


def test_nothing_reaches_the_server_but_what_is_on_record(world: World, instance: Instance) -> None:
    """Of every case of the corpus: nginx logs no request without an allowed exchange on record, all that were whole,
    none that would have been smuggled; and what is refused is told so in our words."""
    cases = {case.name: case for case in smuggling.cases()}
    raw = {name: base64.b64encode(case.raw).decode() for name, case in cases.items()}
    with Shell(instance) as shell:
        answers = shell.run(SEND, cases=raw, host=FRANKFURT.address, port=PORT)
    seen = Counter(line.split(" ", 1)[1].rsplit(" ", 1)[0] for line in _log(world))
    allowed = eventually(lambda: _allowed(instance, seen), "what the server saw is on record")
    assert seen - allowed == Counter()
    whole = Counter(request for case in cases.values() for request in case.upstream)
    assert whole - seen == Counter({"GET /trace-body/evil": 1})  # nginx answers TRACE with 405 and closes
    smuggled = {f"GET /{name}/evil" for name, case in cases.items()} - set(whole)
    assert not smuggled & set(seen)
    for name, case in cases.items():
        told = base64.b64decode(answers[name])
        if not case.upstream and PROTOCOL.probe(case.raw) is Probe.YES:  # what does not begin like HTTP is just ended
            if b"\r\nServer: nginx" in told and f"POST /{name}" in seen:
                continue  # a head whose body never comes, which nginx may answer (200, 413) before the client ends
            assert b"HTTP/1.1 400 " in told, (name, told)
            assert b"how_to_ask" in told, (name, told)


def _log(world: World) -> list[str]:
    return (world.directory / "smuggling/nginx.seen").read_text().splitlines()


def _allowed(instance: Instance, seen: Counter[str]) -> Counter[str] | None:
    """Allowed exchanges on record, once they cover what the server saw; the records are written in batches."""
    with closing(sqlite3.connect(f"file:{instance.root}/var/lib/enforcer/sessions.db?mode=ro", uri=True)) as database:
        rows = database.execute("SELECT text FROM exchanges WHERE action = 'allow' AND protocol = 'http'").fetchall()
    allowed = Counter(text for (text,) in rows)
    return allowed if not seen - allowed else None
