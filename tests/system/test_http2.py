"""HTTP/2 of real clients in an executor, against real servers: judged, masked and recorded stream by stream."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from enforcer.demo.instance import Instance
from enforcer.demo.world import FRANKFURT, VIRGINIA, World
from enforcer.tls.authority import Authority
from tests.fixtures.world import CARD, LOCATIONS, MASKED_CARD, NOBODY_SILENT, Shell, Watch, enforcing, session_list
from tests.system import grpc_server

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

# nginx with HTTP/2 in TLS, with HTTP/1.1 only, and with HTTP/2 in clear; gRPC in TLS.
TLS_PORT, OLD_PORT, CLEAR_PORT, GRPC_PORT = 9643, 9644, 9645, 9646
POLICY = """
    policy: h2
    rules:
      - name: denied-host
        to: {host: [denied.example]}
        action: deny
      - name: germany
        to: {region: [DE], protocol: [http]}
        action: allow
        mask: {response: [credit_card]}
      - name: nowhere-else
        to: {region: ["*"]}
        action: deny
"""
NAMES = ("api.example", "denied.example")
BIG = bytes(range(256)) * 40_000  # 10 MB
NGINX = """
daemon off; worker_processes 1; pid {root}/pid; error_log {root}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log {root}/access.log; client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
  uwsgi_temp_path uwsgi; scgi_temp_path scgi; client_max_body_size 64m; root {root}/www; keepalive_requests 100000;
  server {{
    listen {address}:{tls} ssl http2; listen {address}:{old} ssl; listen {address}:{clear} http2;
    ssl_certificate {pem}; ssl_certificate_key {pem}; default_type application/json;
    location /upload {{ default_type application/octet-stream; dav_methods PUT; create_full_put_path on; }}
    location /old {{ return 200 '$server_protocol $ssl_alpn_protocol'; }}
    location /files {{ default_type application/octet-stream; }}
    {locations}
  }}
}}
"""


@pytest.fixture(scope="module")
def public(world: World) -> Path:
    """The authority that the servers' certificates are signed by, which the enforcer is told to trust."""
    directory = world.directory / "h2-public"
    authority = Authority.create(directory)
    for name in NAMES:
        (directory / f"{name}.pem").write_text(authority.leaf(name).pem)
    return directory


@pytest.fixture(scope="module")
def instance(world: World, public: Path) -> Iterator[Instance]:
    for site in (FRANKFURT, VIRGINIA):
        root = world.directory / f"h2-{site.name}"
        (root / "www/upload").mkdir(parents=True)
        (root / "www/files").mkdir()
        (root / "www/files/big").write_bytes(BIG)
        for path in (root, root / "www", root / "www/upload"):
            path.chmod(0o777)
        ports = {"tls": TLS_PORT, "old": OLD_PORT, "clear": CLEAR_PORT}
        text = NGINX.format(
            root=root, address=site.address, pem=public / "api.example.pem", locations=LOCATIONS, **ports
        )
        (root / "nginx.conf").write_text(text)
        command = ("nginx", "-p", str(root), "-c", str(root / "nginx.conf"))
        world.spawn(site.name, *command, log=f"h2-{site.name}.log")
        world.wait_for(site, CLEAR_PORT)
    program = (sys.executable, grpc_server.__file__, FRANKFURT.address, str(GRPC_PORT), str(public / "api.example.pem"))
    world.spawn(FRANKFURT.name, *program, log="grpc.log")
    world.wait_for(FRANKFURT, GRPC_PORT)
    settings = {"tls": {"trust": [str(public / "ca.pem")]}, **NOBODY_SILENT}
    with enforcing(world, "h2", files={"h2": POLICY}, **settings) as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        yield running


def curl(shell: Shell, *options: str, name: str = "api.example", port: int = TLS_PORT, site: str = FRANKFURT.address):  # type: ignore[no-untyped-def]
    *options_, path = options
    return shell.curl("--noproxy", "*", "--resolve", f"{name}:{port}:{site}", *options_, f"https://{name}:{port}{path}")


def test_http2_over_tls_is_masked_and_recorded(instance: Instance, shell: Shell) -> None:
    """curl agrees on HTTP/2 with us as with the server, reads a masked answer, and the exchange is on record."""
    done = curl(shell, "--http2", "-w", " %{http_version} %{ssl_verify_result}", "/orders")
    assert done.returncode == 0, done.stderr
    body, version, verified = done.stdout.rsplit(" ", 2)
    assert (json.loads(body)["card"], version, verified) == (MASKED_CARD, "2", "0")
    session = session_list(instance)[0]
    assert (session["protocol"], session["region"], session["rule"]) == ("http", "DE", "germany")
    shown = instance.json("sessions", "show", "--json", session["id"])
    facts = shown["exchanges"][0]["facts"]
    assert (facts["version"], facts["host"], facts["path"]) == ("2", "api.example", "/orders")
    assert facts["tls"].startswith("TLSv1")
    assert CARD not in json.dumps(shown)


def test_a_server_without_http2_is_spoken_to_in_http1(shell: Shell) -> None:
    """What the client offers and the server does not speak is not agreed on."""
    done = curl(shell, "--http2", "-w", " %{http_version}", "/old", port=OLD_PORT)
    assert done.stdout == "HTTP/1.1 http/1.1 1.1"


def test_http1_goes_on_as_http1(shell: Shell) -> None:
    """A client that offers HTTP/1.1 alone reaches a server that would prefer HTTP/2 in HTTP/1.1."""
    done = curl(shell, "--http1.1", "-w", " %{http_version}", "/old")
    assert done.stdout == "HTTP/1.1 http/1.1 1.1"


def test_prior_knowledge(shell: Shell) -> None:
    """HTTP/2 in clear, by its preface."""
    url = f"http://{FRANKFURT.address}:{CLEAR_PORT}/orders"
    done = shell.curl("--noproxy", "*", "--http2-prior-knowledge", "-w", " %{http_version}", url)
    assert done.returncode == 0, done.stderr
    body, version = done.stdout.rsplit(" ", 1)
    assert (json.loads(body)["card"], version) == (MASKED_CARD, "2")


def test_a_denial_is_an_answer_in_http2(shell: Shell, virginia: Watch) -> None:
    """403 with problem details on the stream; not even a SYN reaches the other country."""
    virginia.arrived()
    done = curl(shell, "--http2", "-w", " %{http_version} %{http_code}", "/orders", site=VIRGINIA.address)
    assert done.returncode == 0, done.stderr
    body, version, code = done.stdout.rsplit(" ", 2)
    assert (json.loads(body)["rule"], version, code) == ("nowhere-else", "2", "403")
    assert virginia.arrived() == []


def test_what_a_server_learns_before_the_verdict(world: World, shell: Shell) -> None:
    """To learn what it speaks, it is met with its own name; a request that is then refused never reaches it."""
    done = curl(shell, "--http2", "-H", "Host: other.example", "-w", " %{http_version}", "/misdirected")
    problem, version = done.stdout.rsplit(" ", 1)
    assert version == "2"
    assert "the request is for 'other.example', the TLS connection for 'api.example'" in json.loads(problem)["title"]
    assert curl(shell, "--http2", "/orders?after").returncode == 0
    log = (world.directory / f"h2-{FRANKFURT.name}/access.log").read_text()
    assert "/orders?after" in log
    assert "/misdirected" not in log


def test_streams_side_by_side(shell: Shell) -> None:
    """nghttp asks for twenty resources on one connection."""
    code = """
        import subprocess
        urls = [f"http://{host}:{port}/{n}" for n in range(20)]
        done = subprocess.run(["nghttp", "-v", *urls], capture_output=True, text=True, timeout=60)
        answer = done.stdout.count(":status: 200")
    """
    assert shell.run(code, host=FRANKFURT.address, port=CLEAR_PORT) == 20


def test_bytes_are_what_they_were(shell: Shell) -> None:
    """Ten megabytes down and up, in TLS: the same SHA-256, and the file on the far side is the one that was sent."""
    shell.run("open('/tmp/big', 'wb').write(bytes(range(256)) * 40_000)")
    down = curl(shell, "--http2", "-o", "/tmp/down", "-w", "%{http_code}", "/files/big")
    assert down.stdout == "200", down.stderr
    digest = shell.run("import hashlib; answer = hashlib.sha256(open('/tmp/down', 'rb').read()).hexdigest()")
    assert digest == hashlib.sha256(BIG).hexdigest()
    up = curl(shell, "--http2", "-T", "/tmp/big", "-w", "%{http_code}", "/upload/big")
    assert up.stdout[-3:] == "201", (up.stdout, up.stderr)
    back = curl(shell, "--http2", "-o", "/tmp/back", "-w", "%{http_code}", "/upload/big")
    assert back.stdout == "200"
    assert shell.run("answer = hashlib.sha256(open('/tmp/back', 'rb').read()).hexdigest()") == digest


def test_many_streams_of_many_connections(shell: Shell) -> None:
    """h2load: two thousand requests, a hundred streams at a time on each of four connections; all are answered."""
    url = f"http://{FRANKFURT.address}:{CLEAR_PORT}/orders"
    done = shell.command("h2load", "-n2000", "-c4", "-m100", url)
    assert "2000 succeeded, 0 failed, 0 errored" in done.stdout, done.stdout
    assert "2000 2xx" in done.stdout, done.stdout


CALLS = """
    import grpc
    roots = open("/etc/ssl/certs/ca-certificates.crt", "rb").read()

    def channel(host, port, name="api.example"):
        options = [("grpc.ssl_target_name_override", name), ("grpc.default_authority", name)]
        return grpc.secure_channel(f"{host}:{port}", grpc.ssl_channel_credentials(roots), options)

    def told(error):
        return [error.code().name, error.details()]
"""


def message(card: str) -> bytes:
    """Field 1: a text; field 2: a message with a text; field 3: a number (Protocol Buffers' encoding)."""
    text = card.encode()
    inner = b"\x0a" + bytes((len(text),)) + text
    return b"\x0a" + bytes((len(text),)) + text + b"\x12" + bytes((len(inner),)) + inner + b"\x18\x2a"


def test_grpc_is_masked_message_by_message(instance: Instance, shell: Shell) -> None:
    """Unary and streaming calls of grpcio: texts in answers are masked in place, and the call ends well."""
    code = (
        CALLS
        + """
    with channel(host, port) as server:
        unary = server.unary_unary("/echo.Echo/Unary")(bytes.fromhex(sent), timeout=20)
        stream = list(server.stream_stream("/echo.Echo/Stream")(iter([bytes.fromhex(sent)] * 5), timeout=20))
    answer = [unary.hex(), [one.hex() for one in stream]]
    """
    )
    unary, stream = shell.run(code, host=FRANKFURT.address, port=GRPC_PORT, sent=message(CARD).hex())
    assert bytes.fromhex(unary) == message(MASKED_CARD)
    assert [bytes.fromhex(one) for one in stream] == [message(MASKED_CARD)] * 5
    shown = instance.json("sessions", "show", "--json", session_list(instance)[0]["id"])
    told = [(one["operation"], one["facts"]["grpc"], one["status"]) for one in shown["exchanges"]]
    assert told == [("/echo.Echo/Unary", "echo.Echo/Unary", "0"), ("/echo.Echo/Stream", "echo.Echo/Stream", "0")]


def test_grpc_errors_are_masked(shell: Shell) -> None:
    """A status with a message that quotes a card number keeps its code and loses the number."""
    code = (
        CALLS
        + """
    try:
        with channel(host, port) as server:
            server.unary_unary("/echo.Echo/Fails")(b"", timeout=20)
    except grpc.RpcError as error:
        answer = told(error)
    """
    )
    answer = shell.run(code, host=FRANKFURT.address, port=GRPC_PORT)
    assert answer == ["NOT_FOUND", f"no order for card {MASKED_CARD}"]


def test_grpc_is_refused_in_its_own_words(shell: Shell, virginia: Watch) -> None:
    """PERMISSION_DENIED with rule and region, and UNAVAILABLE where nobody listens."""
    virginia.arrived()
    code = (
        CALLS
        + """
    answer = []
    for host, port in places:
        try:
            with channel(host, port) as server:
                server.unary_unary("/echo.Echo/Unary")(b"", timeout=20)
        except grpc.RpcError as error:
            answer.append(told(error))
    """
    )
    places = [(VIRGINIA.address, GRPC_PORT), (FRANKFURT.address, 9)]
    denied, unreachable = shell.run(code, places=places)
    assert denied[0] == "PERMISSION_DENIED"
    assert "rule h2/nowhere-else forbids region US" in denied[1]
    assert unreachable[0] == "UNAVAILABLE"
    assert "cannot be reached" in unreachable[1]
    assert virginia.arrived() == []


def test_tls_sessions_are_resumed(shell: Shell) -> None:
    """A client that comes again does so with the ticket that it got, whichever protocol it agrees on."""
    code = """
        import socket, ssl

        def connect(session=None):
            plain = socket.create_connection((host, port), 20)
            with context.wrap_socket(plain, server_hostname="api.example", session=session) as secured:
                secured.sendall(b"GET /old HTTP/1.1\\r\\nHost: api.example\\r\\n\\r\\n")
                secured.recv(100)  # tickets of TLS 1.3 come after the handshake
                return secured.session_reused, secured.session

        answer = []
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            context = ssl.create_default_context()
            context.minimum_version = context.maximum_version = version
            context.set_alpn_protocols(["http/1.1"])
            _, session = connect()
            # Each worker has keys of its own: of ten connections some meet the same one again.
            answer.append(any(connect(session)[0] for _ in range(10)))
    """
    assert shell.run(code, host=FRANKFURT.address, port=TLS_PORT) == [True, True]
