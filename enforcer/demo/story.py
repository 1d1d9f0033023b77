"""The demo: one executor, two continents, and what each step must show."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, VIRGINIA, Site, World

CARD, MASKED_CARD = "4111111111111111", "************1111"
EMAIL = "ada@example.org"
CUSTOMERS = f"""
CREATE TABLE customers (name text, email text, card text, ssn text);
INSERT INTO customers VALUES ('Ada', '{EMAIL}', '{CARD}', '536-90-4399'), ('Grace', 'grace@example.org',
  '5500005555555559', '219-09-9999');
"""
LOCATIONS = f"""
location /orders {{ return 200 '{{"order": 17, "card": "{CARD}", "contact": "{EMAIL}"}}\\n'; }}
location / {{ return 200 '{{"hello": "from $server_addr"}}\\n'; }}
"""
# Debian's own, which every user can read, wherever this checkout lies.
PYTHON = "/usr/bin/python3"
# What an executor might try instead of a connection. Run by the same interpreter, outside and inside.
SEND = {
    "UDP datagram": "import socket; socket.socket(2, 2).sendto(b'x', ('{to}', 9999))",
    "ICMP echo": "import socket; socket.socket(2, 3, 1).sendto(bytes.fromhex('0800f7ff00000000'), ('{to}', 0))",
    "raw IP packet": "import socket; socket.socket(2, 3, 253).sendto(b'x', ('{to}', 0))",
    "TCP to port 9999": "import socket; socket.create_connection(('{to}', 9999), 2)",
}
ARRIVES = {
    "UDP datagram": "UDP 9999",
    "ICMP echo": "ICMP 8",
    "raw IP packet": "protocol 253",
    "TCP to port 9999": "TCP 9999 SYN",
}


@dataclass(frozen=True, slots=True)
class Step:
    """One line of the table: what was tried, what came of it, and whether that is what was promised."""

    tried: str
    came: str
    held: bool


class Story:
    """Runs the steps on an instance in a world, one after another."""

    def __init__(self, world: World, instance: Instance) -> None:
        self._world = world
        self._instance = instance
        self._witnesses = {site: world.witness(site) for site in world.sites}

    def steps(self) -> Iterator[Step]:
        yield self._psql_allowed()
        yield self._curl_allowed()
        yield from (self._psql_denied(), self._curl_denied())
        yield from (self._goes_nowhere(kind) for kind in SEND)
        yield self._recorded()
        yield self._nothing_leaked_into_records()
        yield self._chain_verified()

    def _psql(self, site: Site) -> subprocess.CompletedProcess[str]:
        url = f"postgresql://postgres@{site.address}/postgres?connect_timeout=10"
        return self._instance.execute("psql", "-X", url, "-Atc", "SELECT name, card FROM customers ORDER BY name")

    def _curl(self, site: Site, path: str) -> subprocess.CompletedProcess[str]:
        return self._instance.execute("curl", "-sS", "--max-time", "10", f"http://{site.address}{path}")

    def _psql_allowed(self) -> Step:
        done = self._psql(FRANKFURT)
        rows = done.stdout.strip().replace("\n", "; ")
        held = done.returncode == 0 and f"Ada|{MASKED_CARD}" in rows and CARD not in rows
        return Step("psql, Frankfurt: SELECT name, card", rows or _last_line(done.stderr), held)

    def _curl_allowed(self) -> Step:
        done = self._curl(FRANKFURT, "/orders")
        held = done.returncode == 0 and '"order": 17' in done.stdout
        held = held and MASKED_CARD in done.stdout and EMAIL not in done.stdout
        return Step("curl, Frankfurt: GET /orders", done.stdout.strip() or _last_line(done.stderr), held)

    def _psql_denied(self) -> Step:
        done = self._psql(VIRGINIA)
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        text = " ".join(lines)
        held = done.returncode != 0 and "region US" in text and "52.0.0.0/12" in text and "rule eu-only/" in text
        held = held and not self._witnesses[VIRGINIA].arrived(VIRGINIA.address)
        return Step("psql, Virginia: SELECT name, card", "; ".join(line.split("failed: ")[-1] for line in lines), held)

    def _curl_denied(self) -> Step:
        done = self._curl(VIRGINIA, "/")
        try:
            problem = json.loads(done.stdout)
        except json.JSONDecodeError:
            return Step("curl, Virginia: GET /", done.stdout.strip() or _last_line(done.stderr), held=False)
        held = (problem["status"], problem["region"], problem["prefix"]) == (403, "US", "52.0.0.0/12")
        held = held and problem["policy"] == "eu-only" and not self._witnesses[VIRGINIA].arrived(VIRGINIA.address)
        return Step("curl, Virginia: GET /", f"{problem['status']} {problem['title']} ({problem['detail']})", held)

    def _goes_nowhere(self, kind: str) -> Step:
        """Outside first: the witness must see it there, or its silence inside would prove nothing."""
        witness, code = self._witnesses[VIRGINIA], SEND[kind].format(to=VIRGINIA.address)
        python = [PYTHON, "-c", code]
        witness.arrived(VIRGINIA.address)
        subprocess.run(self._world.command("host", *python), capture_output=True, check=False, timeout=30)
        outside = ARRIVES[kind] in witness.arrived(VIRGINIA.address)
        inside = self._instance.execute(*python)
        leaked = witness.arrived(VIRGINIA.address)
        came = f"arrived: {', '.join(leaked)}" if leaked else f"nothing arrived ({_last_line(inside.stderr)})"
        if not outside:
            came = "the control outside did not arrive either: proves nothing"
        return Step(f"{kind} to Virginia", came, outside and not leaked)

    def _recorded(self) -> Step:
        sessions = self._instance.json("sessions", "list", "--json")
        allowed = [one for one in sessions if one["action"] == "allow"]
        denied = [one for one in sessions if one["action"] == "deny" and one["region"] == "US"]
        held = len(allowed) == 2 and len(denied) >= 2
        return Step("sessions recorded", f"{len(allowed)} allowed, {len(denied)} denied", held)

    def _nothing_leaked_into_records(self) -> Step:
        database = self._instance.root / "var/lib/enforcer/sessions.db"
        held = not any(
            secret.encode() in path.read_bytes()
            for path in database.parent.glob("sessions.db*")
            for secret in (CARD, EMAIL)
        )
        return Step("card numbers in the database", "none" if held else "found", held)

    def _chain_verified(self) -> Step:
        done = self._instance.run("sessions", "verify")
        return Step("hash chain verified", (done.stdout or done.stderr).strip().splitlines()[-1], done.returncode == 0)


def tell(show: Callable[[str], None]) -> bool:
    """Runs the whole demo, showing it as it goes. Returns whether every promise held."""
    show("building a world: an agent host, Frankfurt (DE) and Virginia (US), namespaces with no route to the outside")
    with World(FRANKFURT, VIRGINIA) as world:
        for site in world.sites:
            world.nginx(site, LOCATIONS)
            world.postgres(site, CUSTOMERS)
        show("starting the enforcer on the agent host with policy eu-only")
        with Instance(world, policies=["eu-only"], packs=shipped_policies()) as instance:
            show("")
            steps = []
            for step in Story(world, instance).steps():
                steps.append(step)
                show(f"{'ok  ' if step.held else 'FAIL'} {step.tried:<36} {step.came}")
            show("")
            show(instance.run("sessions", "list").stdout.rstrip())
            show("")
            show(instance.run("sessions", "verify").stdout.rstrip())
    return all(step.held for step in steps)


def _last_line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[-1] if lines else "no output"
