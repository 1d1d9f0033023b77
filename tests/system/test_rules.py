"""What rules can say beyond regions: hosts and raw bytes by address; reloading them, and only observing."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
from collections.abc import Iterator
from typing import Any

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import (
    CARD,
    EMAIL,
    MASKED_CARD,
    Shell,
    Watch,
    conninfo,
    enforcing,
    eventually,
    log_of,
    session_list,
    url,
    write_policy,
)
from tests.system.far_side import BANNER

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

SHOP = f"""
    policy: shop
    rules:
      - name: raw
        to: {{address: ["{FRANKFURT.address}/32", "{FRANKFURT.address6}/128"], port: ["9000"], protocol: [opaque]}}
        action: allow
      - name: the-shop
        to: {{region: [DE], host: [shop.example], protocol: [http]}}
        action: allow
        mask: {{response: [credit_card]}}
      - name: databases
        to: {{region: [DE], protocol: [postgres]}}
        action: allow
      - name: everything-else
        to: {{region: ["*"]}}
        action: deny
"""


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "shop", files={"shop": SHOP}) as running:
        yield running


@pytest.fixture
def enabled(instance: Instance) -> Iterator[Instance]:
    """The instance, with policy `shop` in force again afterwards."""
    yield instance
    write_policy(instance, "shop", SHOP)
    reload(instance, "shop")


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run("import http.client, socket, psycopg")
        yield running


def reload(instance: Instance, *policies: str, **settings: Any) -> None:
    """Enables `policies`, sends SIGHUP, waits until a new generation is in force."""
    before = instance.status()["generation"]
    instance.configure(policies=list(policies), **settings)
    os.kill(instance.pid, signal.SIGHUP)

    def in_force() -> bool:
        now = instance.status()
        return now["generation"] != before and now["policies"] == list(policies)

    eventually(in_force, "the new generation")


def events(instance: Instance, kind: str) -> list[dict[str, Any]]:
    """The enforcer's own records of one kind, oldest first."""
    database = sqlite3.connect(f"file:{instance.root}/var/lib/enforcer/sessions.db?mode=ro", uri=True)
    try:
        rows = database.execute("SELECT detail FROM events WHERE kind = ? ORDER BY seq", (kind,)).fetchall()
    finally:
        database.close()
    return [json.loads(detail) for (detail,) in rows]


ASK = """
    connection.request("GET", "/orders", headers={"Host": host})
    response = connection.getresponse()
    answer = [response.status, response.read().decode(), connection.sock.getsockname()[1]]
"""


# --- hosts and raw bytes


def test_a_denied_host_keeps_the_connection_of_an_allowed_one(shell: Shell, frankfurt: Watch) -> None:
    """Allowed, denied and allowed hosts alternate on one connection; only the allowed ones' requests go upstream."""
    shell.run("connection = http.client.HTTPConnection(address, 80, timeout=10)", address=FRANKFURT.address)
    answers = [shell.run(ASK, host=host) for host in ("shop.example", "other.example", "shop.example")]
    shell.run("connection.close()")
    assert [status for status, _, _ in answers] == [200, 403, 200]
    assert len({port for _, _, port in answers}) == 1
    assert MASKED_CARD in answers[0][1]
    assert json.loads(answers[1][1])["rule"] == "everything-else"
    assert answers[2][1] == answers[0][1]
    assert len([line for line in frankfurt.arrived() if line.endswith("SYN")]) == 1


@pytest.mark.parametrize("host", [FRANKFURT.address, FRANKFURT.address6, f"::ffff:{FRANKFURT.address}"])
def test_raw_bytes_pass_both_ways_where_a_rule_names_the_address(shell: Shell, host: str) -> None:
    """The server's first words and half a megabyte of echo arrive as they were sent; nothing is masked in them."""
    code = """
        def read(count):
            data = b""
            while len(data) < count and (more := sock.recv(65536)):
                data += more
            return data
        with socket.create_connection((host, 9000), 10) as sock:
            banner = read(len_banner).decode("latin-1")
            sent = (bytes(range(256)) + card.encode()) * 2000
            sender = threading.Thread(target=sock.sendall, args=(sent,))
            sender.start()
            same = read(len(sent)) == sent
            sender.join()
            sock.shutdown(socket.SHUT_WR)
            answer = [banner, same, sock.recv(1).decode()]
    """
    shell.run("import threading")
    assert shell.run(code, host=host, len_banner=len(BANNER), card=CARD) == [BANNER.decode("latin-1"), True, ""]


def test_raw_bytes_to_another_port_are_denied(shell: Shell, frankfurt: Watch) -> None:
    """The rule for port 9000 opens no other port of the same address, and what is inside TLS is judged as ever."""
    done = shell.curl("-k", f"https://{FRANKFURT.address}:8080/")
    assert json.loads(done.stdout)["rule"] == "everything-else"
    assert frankfurt.arrived() == []


# --- reloading


def test_a_reload_changes_the_verdict_on_an_open_http_connection(
    enabled: Instance, shell: Shell, frankfurt: Watch
) -> None:
    """After SIGHUP the next request of the same connection is judged by the new policy, in both directions."""
    shell.run("connection = http.client.HTTPConnection(address, 80, timeout=10)", address=FRANKFURT.address)
    first = shell.run(ASK, host="shop.example")
    reload(enabled, "us-only")
    frankfurt.arrived()
    second = shell.run(ASK, host="shop.example")
    assert [line for line in frankfurt.arrived() if "SYN" in line] == []
    reload(enabled, "shop")
    third = shell.run(ASK, host="shop.example")
    shell.run("connection.close()")
    assert [first[0], second[0], third[0]] == [200, 403, 200]
    assert first[2] == second[2] == third[2]
    problem = json.loads(second[1])
    assert (problem["policy"], problem["rule"], problem["region"]) == ("us-only", "outside-us", "DE")


def test_a_reload_changes_the_verdict_on_an_open_postgres_session(enabled: Instance, shell: Shell) -> None:
    """A query after the reload gets a native error, and the same session answers again once it may."""
    shell.run("db = psycopg.connect(conninfo, autocommit=True)", conninfo=conninfo(FRANKFURT.address))
    ask = """
        try:
            answer = ["", db.execute("SELECT pg_backend_pid()").fetchone()[0]]
        except psycopg.Error as error:
            answer = [error.sqlstate, str(error)]
    """
    first = shell.run(ask)
    reload(enabled, "us-only")
    second = shell.run(ask)
    reload(enabled, "shop")
    third = shell.run(ask)
    shell.run("db.close()")
    assert second[0] == "42501"
    assert "rule us-only/outside-us forbids region DE" in second[1]
    assert first == third
    assert first[0] == ""


@pytest.mark.parametrize(("on_reload", "lives"), [("keep", True), ("recheck", False), ("close", False)])
def test_a_reload_and_a_flow_that_is_passed_on_unread(
    enabled: Instance, shell: Shell, on_reload: str, lives: bool
) -> None:
    """What the new policy denies goes on, or is cut off at once, as the configuration says."""
    reload(enabled, "shop", on_reload=on_reload)
    code = """
        sock = socket.create_connection((host, 9000), 10)
        answer = sock.recv(100).decode("latin-1")
    """
    assert shell.run(code, host=FRANKFURT.address) == BANNER.decode("latin-1")
    reload(enabled, "us-only", on_reload=on_reload)
    code = """
        try:
            sock.sendall(b"still there?")
            answer = sock.recv(100).decode()
        except OSError as error:
            answer = type(error).__name__
        sock.close()
    """
    if lives:
        assert shell.run(code) == "still there?"
    else:
        eventually(lambda: shell.run(code) in ("ConnectionResetError", "BrokenPipeError", "OSError"), "the reset")


def test_a_host_that_is_elsewhere_runs_no_executor(enabled: Instance, shell: Shell) -> None:
    """Its interfaces carry an American address: nothing that runs reaches anything, nothing new starts, status and
    record say why; with `warn` it goes on as before."""
    ask = ("--noproxy", "*", "-H", "Host: shop.example", url(FRANKFURT.address))
    assert "hello" in shell.curl(*ask).stdout
    # The host's own name servers have to be at home too, which these need not be.
    here = {"resolver": {"enabled": False}}
    reload(enabled, "shop", home={"regions": ["DE"]}, **here)
    fault = "address 52.0.0.1 is in US"
    assert any(line.startswith(fault) for line in enabled.status()["away"])
    problem = json.loads(shell.curl(*ask).stdout)
    assert (problem["policy"], problem["rule"]) == ("home", "host-is-elsewhere")
    started = enabled.run("exec", "--user", "root", "--", "true")
    assert started.returncode == 6
    assert started.stderr.startswith("enforcer: no executor runs here: address ")
    assert "AWAY        address " in enabled.run("status").stdout
    assert any(line.startswith(fault) for line in events(enabled, "generation")[-1]["away"])
    reload(enabled, "shop", home={"regions": ["DE"], "elsewhere": "warn"}, **here)
    assert "hello" in shell.curl(*ask).stdout
    assert enabled.run("exec", "--user", "root", "--", "true").returncode == 0


@pytest.mark.parametrize(
    ("breakage", "words"),
    [
        (("shop", "policy: shop\nrules: []\n"), "would deny everything"),
        (("shop", "policy: shop\nrulez: []\n"), "unknown key"),
        (("shop", "policy: [shop\n"), "shop.yaml:"),
    ],
    ids=["no rules", "unknown key", "no YAML"],
)
def test_a_bad_policy_leaves_the_old_generation(
    world: World, enabled: Instance, shell: Shell, breakage: tuple[str, str], words: str
) -> None:
    """The reload is refused, recorded and logged; verdicts stay as they were."""
    before, logged = enabled.status(), len(log_of(world))
    refusals = len(events(enabled, "reload refused"))
    write_policy(enabled, *breakage)
    os.kill(enabled.pid, signal.SIGHUP)
    eventually(lambda: len(events(enabled, "reload refused")) > refusals, "the refused reload in the records")
    assert words in events(enabled, "reload refused")[-1]["error"]
    eventually(lambda: "reload refused" in log_of(world)[logged:], "the refused reload in the log")
    after = enabled.status()
    assert (after["generation"], after["policy_hash"]) == (before["generation"], before["policy_hash"])
    assert after["reload_fault"].startswith("refused, ")
    assert words in after["reload_fault"]
    assert shell.curl("-H", "Host: shop.example", url(FRANKFURT.address)).returncode == 0
    assert '"status": 403' in shell.curl(url(VIRGINIA.address)).stdout


def test_a_policy_that_does_not_exist_leaves_the_old_generation(enabled: Instance, shell: Shell) -> None:
    """Naming a missing file in enforcer.yaml refuses the reload."""
    before, refusals = enabled.status(), len(events(enabled, "reload refused"))
    enabled.configure(policies=["nosuch"])
    os.kill(enabled.pid, signal.SIGHUP)
    eventually(lambda: len(events(enabled, "reload refused")) > refusals, "the refused reload in the records")
    assert enabled.status()["policy_hash"] == before["policy_hash"]
    assert '"status": 403' in shell.curl(url(VIRGINIA.address)).stdout
    assert "RELOAD      the last one: refused, " in enabled.run("status").stdout
    reload(enabled, "shop")
    assert enabled.status()["reload_fault"] == ""


def test_reloads_in_a_storm_open_nothing(enabled: Instance, shell: Shell, virginia: Watch) -> None:
    """Ten SIGHUPs at once while an executor asks for a denied site: every answer is 403, nothing arrives there."""
    shell.start(
        """
        answer = []
        connection = http.client.HTTPConnection(host, 80, timeout=10)
        for _ in range(300):
            connection.request("GET", "/")
            response = connection.getresponse()
            response.read()
            answer.append(response.status)
        connection.close()
        """,
        host=VIRGINIA.address,
    )
    for _ in range(10):
        os.kill(enabled.pid, signal.SIGHUP)
    assert set(shell.result()) == {403}
    assert virginia.arrived() == []


# --- observing


def test_observe_mode_lets_pass_and_records_a_denial(enabled: Instance, shell: Shell, virginia: Watch) -> None:
    """What would be denied goes through, and is recorded as denied and observed; status says so."""
    reload(enabled, "observe")
    assert enabled.status()["observing"] == ["observe"]
    assert "OBSERVE" in enabled.run("status").stdout
    done = shell.curl(url(VIRGINIA.address, "/orders"))
    assert json.loads(done.stdout)["contact"] == EMAIL
    assert "TCP 80 SYN" in virginia.arrived()
    session = eventually(
        lambda: [one for one in session_list(enabled) if one["destination"] == f"{VIRGINIA.address}:80"], "the session"
    )[0]
    assert (session["action"], session["observed"], session["rule"]) == ("deny", True, "everything")
    exchange = enabled.json("sessions", "show", session["id"], "--json")["exchanges"][0]
    assert (exchange["action"], exchange["observed"], exchange["text"]) == ("deny", True, "GET /orders")
