"""What is recorded of real traffic: who, where, what, verdict, outcome; verifiable, and nothing sensitive in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from tests.fixtures.world import (
    CARD,
    EMAIL,
    IBAN,
    MASKED_CARD,
    MASKED_EMAIL,
    SECRETS,
    SSN,
    Shell,
    conninfo,
    database_files,
    enforcing,
    eventually,
    session_list,
    url,
)

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    """An enforcer that has seen secrets everywhere a request can hold them."""
    with enforcing(world, "eu-only") as running, Shell(running, "recorded") as shell:
        shell.run("import psycopg")
        for host in (FRANKFURT.address, VIRGINIA.address):
            shell.psql(host, f"SELECT '{CARD}', '{EMAIL}', '{SSN}', '{IBAN}' -- {EMAIL}")
            shell.run(
                """
                try:
                    with psycopg.connect(conninfo) as db:
                        db.execute("SELECT %s::text, %s::text, name FROM customers", (card, email)).fetchall()
                except psycopg.OperationalError:
                    pass
                """,
                conninfo=conninfo(host),
                card=CARD,
                email=EMAIL,
            )
            shell.curl(url(host, f"/orders?card={CARD}&mail={EMAIL}"), "--data", f"iban={IBAN}&ssn={SSN}")
            shell.curl("-H", f"X-Card: {CARD}", "-u", f"{EMAIL}:x", url(host, f"/people/{EMAIL}"))
        eventually(lambda: ended(running) == 10, "the end of all sessions in the records")
        yield running


def ended(instance: Instance) -> int:
    return sum(one["ended"] is not None for one in session_list(instance, "--executor", "recorded"))


def find(instance: Instance, **facts: Any) -> list[dict[str, Any]]:
    """Sessions with these facts, whole, oldest first."""
    listed = [one for one in session_list(instance) if all(one[name] == value for name, value in facts.items())]
    return [instance.json("sessions", "show", one["id"], "--json") for one in reversed(listed)]


def test_what_the_kernel_refuses_bears_the_executor(instance: Instance) -> None:
    """A command that sends a datagram and ends at once is named in the row, though its cgroup is gone by then."""
    send = f"import socket; socket.socket(2, 2).sendto(b'x', ('{VIRGINIA.address}', 9999))"
    for _ in range(3):
        instance.execute("/usr/bin/python3", "-c", send, name="short")
    database = instance.root / "var/lib/enforcer/sessions.db"
    asked = "SELECT executor, destination, reason, sum(count) FROM refusals GROUP BY 1, 2, 3"

    def rows() -> list[tuple[str, str, str, int]]:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as db:
            return [row for row in db.execute(asked) if row[2] == "REFUSED_UDP"]

    eventually(lambda: sum(row[3] for row in rows()) >= 3, "the refusals in the records")
    assert rows() == [("short", f"{VIRGINIA.address}:9999", "REFUSED_UDP", 3)]


def test_sessions_are_listed_with_verdict_region_and_rule(instance: Instance) -> None:
    """Four clients to each site: allowed in DE by protocol, denied in US by the rule that says so. Denied in TLS, libpq
    tries again in clear."""
    facts = [(one["region"], one["protocol"], one["action"], one["rule"]) for one in session_list(instance)]
    assert sorted(facts) == [
        ("DE", "http", "allow", "eea-http"),
        ("DE", "http", "allow", "eea-http"),
        ("DE", "postgres", "allow", "eea-databases"),
        ("DE", "postgres", "allow", "eea-databases"),
        ("US", "http", "deny", "outside-eea"),
        ("US", "http", "deny", "outside-eea"),
        *[("US", "postgres", "deny", "outside-eea")] * 4,
    ]


def test_filters_narrow_the_list(instance: Instance) -> None:
    """--action, --region and --protocol each leave what they say."""
    assert {one["region"] for one in session_list(instance, "--action", "deny")} == {"US"}
    assert len(session_list(instance, "--region", "DE", "--protocol", "http")) == 2
    assert session_list(instance, "--executor", "nobody") == []


def test_a_session_says_who_and_where(instance: Instance) -> None:
    """Executor, process, program, destination, prefix and table are there."""
    session = find(instance, region="DE", protocol="postgres")[0]
    assert session["executor"] == "recorded"
    assert session["executor_ident"].startswith("recorded-")
    assert session["exe"].endswith("/psql")
    assert session["destination"] == f"{FRANKFURT.address}:5432"
    assert session["pid"] > 0


def test_exchanges_hold_the_masked_text_and_the_outcome(instance: Instance) -> None:
    """The statement is there word for word but for its secrets, with rows and what was masked in the answer."""
    session = find(instance, region="DE", protocol="postgres")[0]
    query = next(one for one in session["exchanges"] if one["operation"] == "Query")
    assert f"SELECT '{MASKED_CARD}', '{MASKED_EMAIL}'" in query["text"]
    assert query["text"].endswith(f"-- {MASKED_EMAIL}")
    assert (query["status"], query["rows"], query["failed"]) == ("SELECT", 1, False)
    assert query["masked"] == {"credit_card": 1, "email": 1, "iban": 1, "us_ssn": 1}


def test_parameters_are_recorded_masked(instance: Instance) -> None:
    """Bind parameters are in the record, masked like text."""
    session = find(instance, region="DE", protocol="postgres")[1]
    params = [one["params"] for one in session["exchanges"] if one["params"]]
    assert [MASKED_CARD, MASKED_EMAIL] in params


def test_http_requests_are_recorded_masked(instance: Instance) -> None:
    """Method and target, secrets in path and query masked, status and counts of the answer."""
    sessions = find(instance, region="DE", protocol="http")
    texts = [exchange["text"] for session in sessions for exchange in session["exchanges"]]
    assert any(text.startswith("POST /orders?card=************1111") for text in texts)
    assert [exchange["status"] for session in sessions for exchange in session["exchanges"]] == ["200", "200"]


def test_show_is_readable(instance: Instance) -> None:
    """`sessions show` prints the session as a page for people."""
    session = find(instance, region="US", protocol="http")[0]
    page = instance.run("sessions", "show", session["id"][:8]).stdout
    assert "verdict      deny, rule eu-only/outside-eea" in page
    assert f"destination  {VIRGINIA.address}:80" in page


def test_the_chain_verifies(instance: Instance) -> None:
    """`sessions verify` finds every row to be the one its hash was made of."""
    done = instance.run("sessions", "verify")
    assert done.returncode == 0
    assert "the chain is whole" in done.stdout


def test_no_secret_is_on_the_disk_in_clear(instance: Instance) -> None:
    """The raw bytes of database, log and shared memory file hold none of the four."""
    files = database_files(instance)
    assert files
    found = [(path.name, secret) for path in files for secret in SECRETS if secret.encode() in path.read_bytes()]
    assert found == []


def test_no_secret_is_in_the_supervisors_log(instance: Instance, world: World) -> None:
    """Log lines of supervisor and workers quote no payload."""
    log = (world.directory / "supervisor.log").read_text()
    assert [secret for secret in SECRETS if secret in log] == []
