"""Names in a world: what executors ask is judged before anything is sent, answered as dig expects, and on record."""

from __future__ import annotations

import json
import os
import secrets
import signal
import sqlite3
import ssl
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from enforcer.capture import cgroup
from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from enforcer.tls.authority import Authority
from tests.fixtures.world import (
    MASKED_CARD,
    MASKED_EMAIL,
    Shell,
    Watch,
    enforcing,
    eventually,
    log_of,
    session_list,
    url,
    write_policy,
)
from tests.system import name_server, tls_server

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

MANY = [f"3.120.9.{number}" for number in range(1, 100)]
ZONE = {
    "www.home.example.": {"A": [FRANKFURT.address]},
    "db.home.example.": {"AAAA": [FRANKFURT.address6]},
    "alias.home.example.": {"CNAME": ["www.home.example."]},
    "both.home.example.": {"A": [VIRGINIA.address, FRANKFURT.address]},
    "away.home.example.": {"A": [VIRGINIA.address]},
    "inside.home.example.": {"A": ["127.0.0.1", "10.0.0.5", "169.254.169.254"]},
    "many.home.example.": {"A": MANY},
    "secret.evil.example.": {"A": [FRANKFURT.address]},
}
RULES = """
    policy: names
    applies_to: [{executor: "*"}, {cgroup: "SLICE/agent-*.service"}]
    rules:
      - {name: evil, to: {host: ["*.evil.example"]}, action: deny}
      - name: database
        to: {region: [DE], host: [db.home.example], protocol: [postgres]}
        action: allow
        mask: {response: [email]}
      - {name: unread, to: {region: [DE], host: [www.home.example], protocol: [tls]}, action: allow}
      - name: web
        to: {region: [DE], protocol: [http]}
        action: allow
        mask: {response: [credit_card]}
"""
# Every address is the resolver's at port 53: some nobody, the host's stub, the far side itself, over IPv6 too.
SERVERS = ("192.0.2.53", "127.0.0.53", VIRGINIA.address, VIRGINIA.address6, "::1")


class NameServer:
    """The one in Frankfurt that the enforcer asks."""

    def __init__(self, world: World) -> None:
        zone = world.directory / "zone"
        sets = [(name, kind, values) for name, found in ZONE.items() for kind, values in found.items()]
        zone.write_text("\n".join(f"{name} {kind} {'|'.join(values)}" for name, kind, values in sets))
        self._log = world.directory / "questions"
        self._log.touch()
        world.spawn(
            FRANKFURT.name,
            sys.executable,
            name_server.__file__,
            FRANKFURT.address,
            str(zone),
            str(self._log),
            log="name-server.log",
        )
        world.wait_for(FRANKFURT, 53)

    def asked(self) -> list[str]:
        """Every question since the start, as `name type`."""
        lines = self._log.read_text().splitlines()
        return [line.replace(". IN ", " ") for line in lines]


@pytest.fixture(scope="module")
def slice_() -> Iterator[Path]:
    path = cgroup.find_mount() / f"enftest{secrets.token_hex(3)}.slice"
    path.mkdir()
    yield path
    cgroup.remove(path)


@pytest.fixture(scope="module")
def name_server_(world: World) -> NameServer:
    return NameServer(world)


@pytest.fixture(scope="module")
def instance(world: World, name_server_: NameServer, slice_: Path) -> Iterator[Instance]:
    rules = RULES.replace("SLICE", slice_.name)
    upstreams = [{"address": FRANKFURT.address}]
    with enforcing(world, "names", files={"names": rules}, resolver={"upstreams": upstreams}, workers=1) as running:
        yield running


@pytest.fixture(scope="module")
def isolated(instance: Instance) -> Iterator[Shell]:
    with Shell(instance, "isolated") as shell:
        yield shell


@pytest.fixture(scope="module")
def attached(instance: Instance, slice_: Path) -> Iterator[Shell]:
    path = slice_ / "agent-1.service"
    path.mkdir()
    with Shell.beside(instance.world, "sh", "-c", f'echo $$ > {path}/cgroup.procs; exec "$@"', "sh") as shell:
        eventually(lambda: any(one["ports"] for one in instance.status()["attached"]), "the tree is taken over")
        yield shell
    cgroup.remove(path)


@pytest.fixture(params=["isolated", "attached"])
def shell(request: pytest.FixtureRequest) -> Shell:
    chosen: Shell = request.getfixturevalue(request.param)
    return chosen


def dig(shell: Shell, *arguments: str) -> list[str]:
    """The records of an answer, as dig prints them without their TTLs."""
    done = shell.command("dig", "+noall", "+answer", "+nottlid", "+tries=1", "+time=15", *arguments)
    return [" ".join(line.split()) for line in done.stdout.splitlines() if not line.startswith(";")]


@pytest.mark.parametrize("server", SERVERS)
def test_dig_is_answered_whomever_it_asks(shell: Shell, server: str) -> None:
    """Over UDP and over TCP; the answer comes from where it was asked, or dig would not take it."""
    expected = [f"www.home.example. IN A {FRANKFURT.address}"]
    assert dig(shell, f"@{server}", "www.home.example") == expected
    assert dig(shell, f"@{server}", "+tcp", "www.home.example") == expected


def test_aliases_and_large_answers_are_as_dig_expects(shell: Shell) -> None:
    """A chain in its order; a hundred addresses, for which dig comes again over TCP by itself."""
    assert dig(shell, "@192.0.2.53", "alias.home.example") == [
        "alias.home.example. IN CNAME www.home.example.", f"www.home.example. IN A {FRANKFURT.address}",
    ]  # fmt: skip
    assert dig(shell, "@192.0.2.53", "many.home.example") == [f"many.home.example. IN A {one}" for one in MANY]


def test_the_system_resolver_and_clients_work_unchanged(shell: Shell) -> None:
    """getent, Python and curl, by whatever resolv.conf of the host names; the request is judged and masked as ever."""
    assert FRANKFURT.address in shell.command("getent", "ahosts", "www.home.example").stdout
    found = shell.run("import socket; answer = socket.getaddrinfo('www.home.example', 80, type=socket.SOCK_STREAM)")
    assert [one[4][0] for one in found] == [FRANKFURT.address]
    assert MASKED_CARD in shell.curl(url("www.home.example", "/orders")).stdout


def test_a_denied_name_never_leaves(shell: Shell, name_server_: NameServer) -> None:
    """By suffix, in any case, over UDP and TCP and through the system's resolver: clients get a clear no at once, and
    the name server never heard of it."""
    for arguments in (["secret.evil.example"], ["SECRET.Evil.example"], ["+tcp", "secret.evil.example"]):
        done = shell.command("dig", "@192.0.2.53", "+tries=1", *arguments)
        assert "status: NXDOMAIN" in done.stdout
        assert "rule names/evil" in done.stdout
    assert shell.command("getent", "ahosts", "secret.evil.example").returncode == 2
    assert [line for line in name_server_.asked() if "evil" in line.lower()] == []


def test_questions_of_other_kinds_are_refused(shell: Shell, name_server_: NameServer) -> None:
    """ANY, NULL, a zone transfer, the server's version: refused, and asked nowhere."""
    before = len(name_server_.asked())
    for kind in (["ANY"], ["NULL"], ["AXFR"], ["TXT", "CH"]):
        done = shell.command("dig", "@192.0.2.53", "+tries=1", "www.home.example", *kind)
        assert "REFUSED" in done.stdout or "Transfer failed" in done.stdout
    assert len(name_server_.asked()) == before


def test_addresses_of_the_host_and_its_network_are_not_told(shell: Shell) -> None:
    """A public name that leads inside leads nowhere, and dig is told why."""
    done = shell.command("dig", "@192.0.2.53", "inside.home.example")
    assert "status: NOERROR" in done.stdout
    assert "ANSWER: 0" in done.stdout
    assert "169.254.169.254 (metadata)" in done.stdout


def test_a_rule_for_a_host_holds_where_the_protocol_names_none(
    instance: Instance, isolated: Shell, attached: Shell
) -> None:
    """PostgreSQL by its name is allowed and masked, and so is the address that was told for it, to this executor alone;
    the same server's other address, told for another name, is not."""
    done = isolated.psql("db.home.example", "SELECT email FROM customers")
    assert done.stdout.strip() == MASKED_EMAIL
    assert isolated.psql(FRANKFURT.address6, "SELECT 1").returncode == 0
    assert isolated.psql(FRANKFURT.address, "SELECT 1").returncode != 0
    assert attached.psql(FRANKFURT.address6, "SELECT 1").returncode != 0
    found = session_list(instance, "--protocol", "postgres", "--executor", "isolated", "--action", "allow")
    assert {one["rule"] for one in found} == {"database"}
    shown = instance.json("sessions", "show", found[-1]["id"], "--json")
    assert "told this address for db.home.example" in shown["detail"]


def test_a_name_elsewhere_is_told_and_its_address_denied(shell: Shell, virginia: Watch) -> None:
    """Being told an address opens nothing: the flow to it is judged by its region."""
    assert dig(shell, "@192.0.2.53", "away.home.example") == [f"away.home.example. IN A {VIRGINIA.address}"]
    virginia.arrived()
    assert "403" in shell.curl("-o", "/dev/null", "-w", "%{http_code}", url("away.home.example")).stdout
    assert virginia.arrived() == []


def test_every_question_is_on_record(instance: Instance, shell: Shell) -> None:
    """Who asked for what, which rule let it, what the answer was and who gave it; the chain verifies."""
    name = f"n{secrets.token_hex(4)}.home.example"
    shell.command("dig", "@192.0.2.53", name)
    # Many questions: who asked is looked up while it runs.
    shell.command("dig", "@192.0.2.53", "+tcp", *["www.home.example"] * 20)

    def row() -> tuple[str, ...] | None:
        with closing(sqlite3.connect(f"file:{instance.root}/var/lib/enforcer/sessions.db?mode=ro", uri=True)) as db:
            query = "SELECT operation, action, status, facts FROM exchanges WHERE text = ?"
            found: tuple[str, ...] | None = db.execute(query, (name,)).fetchone()
            return found

    operation, action, status, facts = eventually(row, "the question is on record")
    assert (operation, action, status) == ("A", "allow", "NXDOMAIN")
    assert json.loads(facts) == {"from": f"{FRANKFURT.address}:53"}
    listed = session_list(instance, "--protocol", "dns")
    assert {one["destination"] for one in listed} >= {"any:53", "192.0.2.53:53"}
    over_tcp = [one for one in listed if one["destination"] == "192.0.2.53:53" and str(one["exe"]).endswith("/dig")]
    page = instance.run("sessions", "show", over_tcp[0]["id"]).stdout
    assert "resolver: what was asked for, and told" in page
    assert "/dig" in page
    assert instance.run("sessions", "verify").returncode == 0


def test_tls_passes_unread_for_a_name_that_leads_to_its_address(world: World, instance: Instance) -> None:
    """Told the address for the name: the server's own certificate arrives. Not told, or told for another name: refused,
    whatever the hello says. A name that no rule passes on: TLS ends here."""
    authority = Authority.create(world.directory / "bank")
    pem = authority.leaf("www.home.example").pem
    (world.directory / "bank.pem").write_text(pem)
    program = (sys.executable, tls_server.__file__, FRANKFURT.address, "9543", str(world.directory / "bank.pem"))
    world.spawn(FRANKFURT.name, *program, log="bank.log")
    world.wait_for(FRANKFURT, 9543)
    code = """
        import socket, ssl
        context = ssl._create_unverified_context()
        try:
            with socket.create_connection((host, 9543), 15) as sock:
                with context.wrap_socket(sock, server_hostname=name) as secure:
                    answer = ssl.DER_cert_to_PEM_cert(secure.getpeercert(True))
        except ssl.SSLError as error:
            answer = error.reason
    """
    own = ssl.DER_cert_to_PEM_cert(ssl.PEM_cert_to_DER_cert(pem[: pem.index("-----BEGIN PRIVATE")]))
    with Shell(instance, "fresh") as fresh:
        asked = {"host": FRANKFURT.address, "name": "www.home.example"}
        assert fresh.run(code, **asked) == "TLSV1_ALERT_ACCESS_DENIED"
        assert dig(fresh, "@192.0.2.53", "both.home.example") != []
        assert fresh.run(code, **asked) == "TLSV1_ALERT_ACCESS_DENIED"
        assert dig(fresh, "@192.0.2.53", "alias.home.example") != []
        assert dig(fresh, "@192.0.2.53", "www.home.example") != []
        assert fresh.run(code, **asked) == own
        other = fresh.run(code, host=FRANKFURT.address, name="secret.evil.example")
        assert other.startswith("-----BEGIN CERTIFICATE-----")
        assert other != own


def test_without_the_resolver_nothing_is_asked_and_it_comes_back(
    instance: Instance, isolated: Shell, name_server_: NameServer
) -> None:
    """Killed: the kernel still sends every question to its port, where nobody is, so none leaves; the supervisor starts
    another, which serves the executors that run."""
    (process,) = instance.status()["resolver"]["processes"]
    os.kill(process["pid"], signal.SIGSTOP)
    os.kill(process["pid"], signal.SIGKILL)
    before = len(name_server_.asked())
    eventually(lambda: instance.status()["resolver"]["restarts"] == 1, "the resolver's end is noticed")
    eventually(lambda: dig(isolated, "@192.0.2.53", "+time=1", "www.home.example") != [], "names are answered again")
    assert set(name_server_.asked()[before:]) == {"www.home.example A"}
    eventually(lambda: dig(isolated, "@192.0.2.53", "+tcp", "+time=1", "www.home.example") != [], "also over TCP")
    assert instance.status()["resolver"]["counters"]["REFUSED_NAME"] > 0
    text = instance.run("status").stdout
    assert f"asks {FRANKFURT.address}:53" in text
    assert "DNS_QUERIES" in text


def test_a_reload_steers_and_judges_names_anew(instance: Instance, isolated: Shell, slice_: Path) -> None:
    """`steer` leaves only the replica at home; a name that a new rule denies is denied although it is in the cache."""
    both = sorted(f"both.home.example. IN A {one}" for one in (VIRGINIA.address, FRANKFURT.address))
    assert sorted(dig(isolated, "@192.0.2.53", "both.home.example")) == both
    rules = RULES.replace("SLICE", slice_.name).replace('"*.evil.example"', '"*.evil.example", www.home.example')
    write_policy(instance, "names", rules)
    upstreams = [{"address": FRANKFURT.address}]
    before = instance.status()["generation"]
    instance.configure(policies=["names"], resolver={"upstreams": upstreams, "steer": True}, workers=1)
    os.kill(instance.pid, signal.SIGHUP)
    eventually(lambda: instance.status()["generation"] != before, "the new generation is in force")
    home = [f"both.home.example. IN A {FRANKFURT.address}"]
    eventually(lambda: dig(isolated, "@192.0.2.53", "both.home.example") == home, "only the replica at home is told")
    assert dig(isolated, "@192.0.2.53", "www.home.example") == []


def test_an_upstream_outside_the_home_is_refused(instance: Instance, isolated: Shell) -> None:
    """A reload that names one leaves the old generation, and the log says what mends it."""
    upstreams = [{"address": VIRGINIA.address}]
    instance.configure(policies=["names"], resolver={"upstreams": upstreams}, home={"regions": ["EEA"]}, workers=1)
    before = instance.status()["generation"]
    os.kill(instance.pid, signal.SIGHUP)
    line = f"upstream {VIRGINIA.address} is in US, outside home.regions (EEA)"
    eventually(lambda: line in log_of(instance.world), "the refusal is in the log")
    assert instance.status()["generation"] == before
    assert dig(isolated, "@192.0.2.53", "both.home.example") != []
