"""TLS that ends at the enforcer: real clients in an executor, real servers; judged, masked and recorded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from enforcer.tls.authority import Authority
from tests.fixtures.world import CARD, MASKED_CARD, NOBODY_SILENT, Shell, Watch, enforcing, session_list
from tests.system import connect_proxy, tls_server

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

PORT, PASSED_PORT, CLIENT_PORT, PROXY_PORT = 9443, 9444, 9445, 3128
POLICY = f"""
    policy: tls
    rules:
      - name: unread
        to: {{region: [DE], port: ["{PASSED_PORT}"], protocol: [tls]}}
        action: allow
      - name: denied-host
        to: {{host: [denied.example]}}
        action: deny
      - name: germany
        to: {{region: [DE], protocol: [http]}}
        action: allow
        mask: {{response: [credit_card]}}
      - name: nowhere-else
        to: {{region: ["*"]}}
        action: deny
"""
NAMES = ("api.example", "denied.example", "wrong.example")


@pytest.fixture(scope="module")
def public(world: World) -> Path:
    """The authority that the servers' certificates are signed by, which the enforcer is told to trust."""
    directory = world.directory / "public"
    authority = Authority.create(directory)
    for name in (*NAMES, FRANKFURT.address):
        (directory / f"{name}.pem").write_text(authority.leaf(name).pem)
    # Proves another name than the one it is asked for.
    (directory / "wrong.example.pem").write_text(authority.leaf("other.example").pem)
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += ["-subj", "/CN=client.example", "-keyout", "client.key", "-out", "client.crt"]
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    stranger = Authority.create(world.directory / "stranger")
    (directory / "stranger.pem").write_text(stranger.leaf("api.example").pem)
    return directory


@pytest.fixture(scope="module")
def instance(world: World, public: Path) -> Iterator[Instance]:
    served = {
        PORT: ("api.example.pem",),
        PASSED_PORT: ("api.example.pem",),
        CLIENT_PORT: ("api.example.pem", str(public / "client.crt")),
        PORT + 10: ("wrong.example.pem",),
        PORT + 11: ("stranger.pem",),
        PORT + 12: (f"{FRANKFURT.address}.pem",),
    }
    for site, ports in ((FRANKFURT, served), (VIRGINIA, {PORT: ("api.example.pem",)})):
        for port, (pem, *more) in ports.items():
            program = (sys.executable, tls_server.__file__, site.address, str(port), str(public / pem), *more)
            world.spawn(site.name, *program, log=f"tls-{site.name}-{port}.log")
            world.wait_for(site, port)
    program = (sys.executable, connect_proxy.__file__, FRANKFURT.address, str(PROXY_PORT))
    world.spawn(FRANKFURT.name, *program, log="connect-proxy.log")
    world.wait_for(FRANKFURT, PROXY_PORT)
    client = {"certificate": str(public / "client.crt"), "key": str(public / "client.key")}
    settings = {
        "trust": [str(public / "ca.pem")],
        "client_certificates": [{"host": "api.example", **client}],
    }
    with enforcing(world, "tls", files={"tls": POLICY}, tls=settings, **NOBODY_SILENT) as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run("import hashlib, http.client, json, socket, ssl")
        yield running


def curl(shell: Shell, name: str, *options: str, port: int = PORT, path: str = "/", site: str = FRANKFURT.address):  # type: ignore[no-untyped-def]
    return shell.curl("--noproxy", "*", "--resolve", f"{name}:{port}:{site}", *options, f"https://{name}:{port}{path}")


@pytest.mark.parametrize("version", ["--tlsv1.2", "--tlsv1.3"])
def test_https_is_masked_and_recorded_like_http(instance: Instance, shell: Shell, version: str) -> None:
    """curl verifies our certificate for the name, the server's is verified by us, and the answer is masked."""
    options = (version, "--tls-max", version[-3:], "-w", "%{ssl_verify_result} %{http_version}")
    done = curl(shell, "api.example", *options, path=f"/orders{version}")
    assert done.returncode == 0, done.stderr
    body, status = done.stdout[: done.stdout.index("}") + 1], done.stdout[done.stdout.index("}") + 1 :]
    answer = json.loads(body)
    assert (answer.get("card"), answer.get("host")) == (MASKED_CARD, f"api.example:{PORT}"), answer
    assert status == "0 1.1"
    session = session_list(instance)[0]
    assert (session["protocol"], session["region"], session["rule"]) == ("http", "DE", "germany")
    shown = instance.json("sessions", "show", "--json", session["id"])
    exchange = shown["exchanges"][0]
    assert exchange["facts"]["tls"] == f"TLSv{version[-3:]}"
    assert exchange["facts"]["host"].startswith("api.example")
    assert CARD not in json.dumps(shown)


def test_a_denial_inside_tls_has_words(shell: Shell, virginia: Watch) -> None:
    """403 with problem details in the client's own TLS connection; not even a SYN reaches the other country."""
    virginia.arrived()
    done = curl(shell, "api.example", "-w", "%{http_code}", site=VIRGINIA.address)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("403")
    assert json.loads(done.stdout[:-3])["rule"] == "nowhere-else"
    assert virginia.arrived() == []


def test_a_host_is_denied_by_its_name(shell: Shell, frankfurt: Watch) -> None:
    """Whatever the region; and nothing reaches the server."""
    frankfurt.arrived()
    done = curl(shell, "denied.example")
    assert json.loads(done.stdout)["rule"] == "denied-host"
    assert frankfurt.arrived() == []


def test_the_host_of_a_request_is_the_name_of_the_connection(shell: Shell, frankfurt: Watch) -> None:
    """An allowed name in the hello and another in the request is refused before anything leaves."""
    frankfurt.arrived()
    done = curl(shell, "api.example", "--http1.1", "-H", "Host: other.example")
    problem = json.loads(done.stdout)
    assert "the request is for 'other.example', the TLS connection for 'api.example'" in problem["title"]
    assert frankfurt.arrived() == []


@pytest.mark.parametrize(
    ("port", "words"), [(PORT + 10, "Hostname mismatch"), (PORT + 11, "unable to get local issuer")]
)
def test_a_server_that_cannot_prove_its_name_is_not_spoken_to(shell: Shell, port: int, words: str) -> None:
    """A certificate for another name, or of an authority that nobody trusts: no request leaves; the client is told."""
    done = curl(shell, "api.example", "-w", "%{http_code}", port=port)
    assert done.stdout.endswith("502") or done.stdout.endswith("503") or done.stdout.endswith("504")
    assert words.lower() in done.stdout.lower()


def test_a_server_without_a_name_proves_its_address(shell: Shell) -> None:
    """No name in the hello: certificates for the address, both ways."""
    done = shell.curl("--noproxy", "*", f"https://{FRANKFURT.address}:{PORT + 12}/")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["card"] == MASKED_CARD


def through_proxy(shell: Shell, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    return shell.curl("--proxy", f"http://{FRANKFURT.address}:{PROXY_PORT}", *options, url)


def test_an_address_as_the_servers_name_is_the_one_connected_to(instance: Instance, shell: Shell) -> None:
    """Some clients write it there: read like none, but it has to be the one that is connected to."""

    def greet(name: str, port: int) -> str:
        # OpenSSL's own client, as Python's leaves addresses out.
        command = f"openssl s_client -quiet -connect {FRANKFURT.address}:{port} -servername {name}".split()
        return shell.command(*command, text=f"GET / HTTP/1.1\r\nHost: {name}\r\nConnection: close\r\n\r\n").stdout

    assert MASKED_CARD in greet(FRANKFURT.address, PORT + 12)
    assert greet(VIRGINIA.address, PORT + 12).startswith("HTTP/1.1 502 ")  # the server cannot prove that one
    assert CARD in greet(FRANKFURT.address, PASSED_PORT)
    assert greet(VIRGINIA.address, PASSED_PORT) == ""
    shown = instance.run("sessions", "show", session_list(instance)[0]["id"]).stdout
    assert "is not where it goes" in shown, shown


def test_tls_inside_a_tunnel_ends_here_as_well(instance: Instance, shell: Shell) -> None:
    """CONNECT through a proxy: both are judged, and what is inside is masked, in a session to the tunnel's target."""
    done = through_proxy(shell, f"https://{FRANKFURT.address}:{PORT + 12}/tunnelled")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert (answer["card"], answer["path"]) == (MASKED_CARD, "/tunnelled")
    inside, outside = session_list(instance)[:2]
    assert (outside["destination"], inside["destination"]) == (
        f"{FRANKFURT.address}:{PROXY_PORT}",
        f"{FRANKFURT.address}:{PORT + 12}",
    )
    exchange = instance.json("sessions", "show", "--json", inside["id"])["exchanges"][0]
    assert exchange["facts"]["via"] == f"{FRANKFURT.address}:{PROXY_PORT}"


def test_tls_inside_a_tunnel_that_a_rule_passes_on(shell: Shell) -> None:
    """A rule for `tls` holds for the tunnel's target: its connection is not read."""
    done = through_proxy(shell, f"https://{FRANKFURT.address}:{PASSED_PORT}/", "--insecure")
    assert json.loads(done.stdout)["card"] == CARD


def test_a_tunnel_to_another_country_is_denied(shell: Shell, frankfurt: Watch, virginia: Watch) -> None:
    """A proxy where policy allows everything is not even asked to go where it does not."""
    frankfurt.arrived()
    virginia.arrived()
    done = through_proxy(shell, f"https://{VIRGINIA.address}:{PORT}/", "-w", "%{http_connect}")
    assert done.stdout == "403"
    assert (frankfurt.arrived(), virginia.arrived()) == ([], [])


def test_the_operators_certificate_is_shown_to_the_server(shell: Shell) -> None:
    """The executor has none; the server wants one and gets the one of the configuration."""
    answer = json.loads(curl(shell, "api.example", port=CLIENT_PORT).stdout)
    assert answer["client"] == ["client.example"]


def test_a_rule_for_tls_passes_it_on_unread(shell: Shell, public: Path) -> None:
    """The server's own certificate reaches the client, and nothing is masked."""
    done = shell.command("cat", str(public / "ca.pem"))
    shell.run("open('/tmp/public.pem', 'w').write(pem)", pem=done.stdout)
    answer = json.loads(curl(shell, "api.example", "--cacert", "/tmp/public.pem", port=PASSED_PORT).stdout)
    assert answer["card"] == CARD


def test_a_client_that_does_not_trust_us_is_on_record(instance: Instance, shell: Shell, frankfurt: Watch) -> None:
    """It ends the handshake; the session says why, and nothing reached the server."""
    frankfurt.arrived()
    done = curl(shell, "api.example", "--http1.1", "--cacert", "/tmp/public.pem")
    assert done.returncode == 60  # curl(1): cannot be verified
    assert f"TCP {PORT}" not in frankfurt.arrived()
    session = session_list(instance)[0]
    assert (session["protocol"], session["action"]) == ("tls", "deny")
    shown = instance.run("sessions", "show", session["id"]).stdout
    assert "does not trust the enforcer's authority" in shown, shown


def test_bytes_are_what_they_were(shell: Shell) -> None:
    """Thirty megabytes down and up through both ends of TLS: the same SHA-256."""
    code = """
        import hashlib, urllib.request
        size = 30_000_000
        context = ssl.create_default_context()
        connection = http.client.HTTPSConnection("api.example", port, context=context, timeout=60)
        connection.sock = context.wrap_socket(socket.create_connection((host, port), 60), server_hostname="api.example")
        connection.request("GET", f"/stream?{size}")
        digest = hashlib.sha256()
        response = connection.getresponse()
        while piece := response.read(65536):
            digest.update(piece)
        body = (bytes(range(256)) * 256 * (size // 65536 + 1))[:size]
        connection.request("POST", "/", body=body, headers={"Content-Type": "application/octet-stream"})
        answer = [digest.hexdigest(), connection.getresponse().read().decode(), hashlib.sha256(body).hexdigest()]
    """
    down, up, expected = shell.run(code, host=FRANKFURT.address, port=PORT)
    assert down == up == expected


def test_what_executors_trust_names_one_authority_more(instance: Instance, shell: Shell) -> None:
    """The system's bundle and the variables lead to the same file: the system's authorities and ours."""
    mine = Authority.open(instance.root / "var/lib/enforcer/tls").certificate
    seen = shell.run("answer = open('/etc/ssl/certs/ca-certificates.crt').read()")
    assert mine in seen
    assert shell.run("import os\nanswer = open(os.environ['SSL_CERT_FILE']).read()") == seen
    system = Path("/etc/ssl/certs/ca-certificates.crt").read_text()
    assert seen.startswith(system)
    assert mine not in system
