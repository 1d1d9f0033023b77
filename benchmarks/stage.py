"""The stage of the HTTP benchmarks: one nginx far away, and the contenders between it and a load generator.

HAProxy has one thread, mitmproxy is one process, the enforcer has one worker (its supervisor, which writes the records,
is a second process). HAProxy inspects nothing; mitmproxy and the enforcer look for the same four kinds of values in
answers, and the enforcer records every exchange.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from enforcer.capture.namespace import run_inside
from enforcer.demo.instance import Instance, shipped_policies
from enforcer.demo.world import FRANKFURT, World
from enforcer.tls.authority import Authority

NAME = "api.example"
PLAIN = json.dumps({"order": 17, "state": "shipped", "note": "x" * 151}).ljust(200)
CARRIES = json.dumps({"order": 17, "contact": "ada@example.org", "note": "x" * 138}).ljust(200)
NGINX = """
daemon off; worker_processes 1; pid {root}/nginx.pid; error_log {root}/error.log; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
    access_log off; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi; keepalive_requests 100000000; keepalive_timeout 900s;
    default_type application/json;
    server {{
        listen {address}:80 backlog=8192; listen {address}:443 ssl http2 backlog=8192;
        ssl_certificate {pem}; ssl_certificate_key {pem}; ssl_protocols TLSv1.3;
        location /plain {{ return 200 '{plain}'; }}
        location /carries {{ return 200 '{carries}'; }}
    }}
}}
"""
HAPROXY = """
global
  nbthread 1
  maxconn 4000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend plain
  bind 127.0.0.1:8080
  default_backend plain
frontend tls
  bind 127.0.0.1:8443 ssl crt {pem} alpn h2,http/1.1 ssl-min-ver TLSv1.3
  use_backend two if {{ ssl_fc_alpn h2 }}
  default_backend tls
backend plain
  server s {address}:80
backend tls
  server s {address}:443 ssl verify required ca-file {authority} alpn http/1.1
backend two
  server s {address}:443 ssl verify required ca-file {authority} alpn h2
"""
MITMPROXY_VERSION = "11.0.2"
MITMPROXY = Path(__file__).resolve().parent.parent / "build" / "mitmproxy" / "bin" / "mitmdump"
# The same four kinds of values as the pack `eu-only` masks, with the checksums that keep numbers from being cards.
ADDON = r"""
import re
EMAIL = re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+")
CARD = re.compile(r"\b(?:\d[ -]?){13,19}\b")
IBAN = re.compile(r"\b[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){3,7}(?: ?[A-Z0-9]{1,3})?\b")
SSN = re.compile(r"\b(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}\b")

def luhn(digits):
    pairs = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return sum(number - 9 if number > 9 else number for number in pairs) % 10 == 0

def card(match):
    digits = re.sub(r"\D", "", match[0])
    return "*" * (len(digits) - 4) + digits[-4:] if luhn(digits) else match[0]

def iban(match):
    plain = match[0].replace(" ", "")
    number = "".join(str(int(one, 36)) for one in plain[4:] + plain[:4])
    return "*" * (len(plain) - 4) + plain[-4:] if int(number) % 97 == 1 else match[0]

def response(flow):
    text = flow.response.get_text(strict=False)
    if text is not None:
        masked = SSN.sub("***-**-****", IBAN.sub(iban, CARD.sub(card, EMAIL.sub("***@***", text))))
        if masked != text:
            flow.response.text = masked
"""


@dataclass(frozen=True)
class Contender:
    """`command`: what the load generator is started by. `plain`, `tls`: where it reaches this one."""

    name: str
    command: Sequence[str]
    plain: str
    tls: str


@dataclass(frozen=True)
class Stage:
    """Everything running. `contenders` by name: `direct`, `HAProxy`, `mitmproxy` (where installed), `enforcer`."""

    world: World
    instance: Instance
    contenders: dict[str, Contender]

    def executor(self, name: str) -> list[str]:
        """What starts a command in an executor of its own."""
        return self.world.command("host", *self.instance.command("exec", "--name", name, "--user", "nobody", "--"))


@contextmanager
def stage(*, workers: int = 1, peers: bool = True) -> Iterator[Stage]:
    """`peers`: HAProxy and mitmproxy as well. `workers`: of the enforcer."""
    with World(FRANKFURT) as world:
        authority = Authority.create(world.directory / "public")
        pem = world.directory / "public" / "server.pem"
        pem.write_text(authority.leaf(NAME).pem)
        # wrk writes whatever it is given into its hello, and an address does not belong there: it looks the name up.
        hosts = [f"--host-record={NAME},{FRANKFURT.address}", f"--listen-address={FRANKFURT.address}"]
        quiet = [
            "--no-daemon",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--conf-file=/dev/null",
            "--bind-interfaces",
        ]
        world.spawn(FRANKFURT.name, "dnsmasq", *quiet, *hosts, log="dnsmasq.log")
        _nginx(world, pem)
        trust = str(world.directory / "public" / "ca.pem")
        settings: dict[str, Any] = {
            "workers": workers,
            "tls": {"trust": [trust]},
            "resolver": {"upstreams": [{"address": FRANKFURT.address}]},
        }
        outside = world.command("host")
        far = FRANKFURT.address
        found = {"direct": Contender("direct", outside, f"http://{far}", f"https://{far}")}
        if peers:
            found["HAProxy"] = _haproxy(world, pem, trust)
            if MITMPROXY.exists():
                found["mitmproxy"] = _mitmproxy(world)
        with Instance(world, policies=["eu-only"], packs=shipped_policies(), settings=settings) as instance:
            built = Stage(world, instance, found)
            found["enforcer"] = Contender("enforcer", built.executor("load"), f"http://{far}", f"https://{NAME}")
            yield built


def _nginx(world: World, pem: Path) -> None:
    root = world.directory / "nginx"
    root.mkdir()
    root.chmod(0o755)
    text = NGINX.format(root=root, address=FRANKFURT.address, pem=pem, plain=PLAIN, carries=CARRIES)
    (root / "nginx.conf").write_text(text)
    world.spawn(FRANKFURT.name, "nginx", "-p", str(root), "-c", str(root / "nginx.conf"), log="nginx.log")
    for port in (80, 443):
        world.wait_for(FRANKFURT, port)


def _haproxy(world: World, pem: Path, trust: str) -> Contender:
    configuration = world.directory / "haproxy.cfg"
    configuration.write_text(HAPROXY.format(address=FRANKFURT.address, pem=pem, authority=trust))
    world.spawn("host", "haproxy", "-f", str(configuration), "-db", log="haproxy.log")
    _wait(world, 8080, 8443)
    return Contender("HAProxy", world.command("host"), "http://127.0.0.1:8080", "https://127.0.0.1:8443")


def _mitmproxy(world: World) -> Contender:
    addon = world.directory / "addon.py"
    addon.write_text(ADDON)
    common = [str(MITMPROXY), "-q", "--set", f"confdir={world.directory}/mitm", "--ssl-insecure", "-s", str(addon)]
    for port, scheme in ((8081, "http"), (8444, "https")):
        mode = ["--mode", f"reverse:{scheme}://{FRANKFURT.address}", "--listen-host", "127.0.0.1", "-p", str(port)]
        world.spawn("host", *common, *mode, log=f"mitmproxy-{scheme}.log")
    _wait(world, 8081, 8444)
    return Contender("mitmproxy", world.command("host"), "http://127.0.0.1:8081", "https://127.0.0.1:8444")


def _wait(world: World, *ports: int) -> None:
    """Returns once the agent host's own ports accept."""
    fd = os.open(world.path("host"), os.O_RDONLY | os.O_CLOEXEC)
    deadline = time.monotonic() + 60
    try:
        for port in ports:
            while True:
                try:
                    run_inside(fd, lambda port=port: socket.create_connection(("127.0.0.1", port), 1).close())  # type: ignore[misc]
                    break
                except OSError:
                    if time.monotonic() > deadline:
                        raise SystemExit(f"nothing accepts on port {port}; see {world.directory}") from None
                    time.sleep(0.1)
    finally:
        os.close(fd)


def missing() -> str:
    """What is not installed and what to do about it; empty where all is there."""
    if subprocess.run(["which", "h2load"], capture_output=True, check=False).returncode:
        return "h2load is missing; benchmarks/setup.sh installs it (Debian's nghttp2-client)"
    if not MITMPROXY.exists():
        return f"mitmproxy {MITMPROXY_VERSION} is missing; benchmarks/setup.sh installs it into build/mitmproxy"
    return ""
