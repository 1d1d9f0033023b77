"""Policy eu-only, every client, every way to write an address: Frankfurt answers masked, Virginia sees nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
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
    MASKED_IBAN,
    MASKED_SSN,
    NOWHERE,
    SECRETS,
    SSN,
    Shell,
    Watch,
    conninfo,
    database_files,
    enforcing,
    forms,
    url,
)
from tests.system.far_side import HTTP_PORT

pytest_plugins = ["tests.system.plugin"]
pytestmark = pytest.mark.world

FORMS = ("IPv4", "IPv6", "IPv4-mapped")
MASKED_ROW = [
    "Ada",
    MASKED_EMAIL,
    MASKED_CARD,
    MASKED_SSN,
    MASKED_IBAN,
    {"card": MASKED_CARD, "contact": {"email": MASKED_EMAIL}},
]
SELECT = "SELECT name, email, card, ssn, iban, payment FROM customers"

# Each fetches the one row of `query` and leaves it in `answer`, with the client library's own way of doing it.
POSTGRES_CLIENTS = {
    "psycopg, simple query": """
        with psycopg.connect(conninfo) as db:
            answer = psycopg.ClientCursor(db).execute(query).fetchone()
    """,
    "psycopg, extended query": """
        with psycopg.connect(conninfo) as db:
            answer = db.execute(query + " WHERE id = %s", (1,)).fetchone()
    """,
    "psycopg, binary results": """
        with psycopg.connect(conninfo) as db:
            answer = db.cursor(binary=True).execute(query + " WHERE id = %s", (1,)).fetchone()
    """,
    "psycopg, prepared and executed again": """
        with psycopg.connect(conninfo) as db:
            for _ in range(3):
                answer = db.execute(query + " WHERE id = %s", (1,), prepare=True).fetchone()
    """,
    "psycopg, pipeline": """
        with psycopg.connect(conninfo) as db, db.pipeline():
            cursors = [db.execute(query + " WHERE id = %s", (1,)) for _ in range(3)]
            answer = [cursor.fetchone() for cursor in cursors][-1]
    """,
    "psycopg, server-side cursor": """
        with psycopg.connect(conninfo) as db, db.cursor("named") as cursor:
            answer = cursor.execute(query).fetchone()
    """,
    "asyncpg": """
        async def fetch():
            db = await asyncpg.connect(host=host, user="postgres", database="postgres", timeout=10)
            try:
                return list(await db.fetchrow(query + " WHERE id = $1", 1))
            finally:
                await db.close()
        answer = asyncio.run(fetch())
    """,
}

# Clients that ask for binary cells. Text is the same in binary; jsonb has a layout of its own, so it becomes NULL.
BINARY_CLIENTS = ("psycopg, binary results", "asyncpg")


@pytest.fixture(scope="module")
def instance(world: World) -> Iterator[Instance]:
    with enforcing(world, "eu-only") as running:
        yield running


@pytest.fixture(scope="module")
def shell(instance: Instance) -> Iterator[Shell]:
    with Shell(instance) as running:
        running.run("import asyncio, http.client, json, socket, asyncpg, psycopg")
        yield running


def problem_of(text: str, site_address: str) -> dict[str, Any]:
    """A refusal in HTTP's words, after checking what every denial must name."""
    problem: dict[str, Any] = json.loads(text)
    assert problem["status"] == 403
    assert (problem["policy"], problem["rule"]) == ("eu-only", "outside-eea")
    assert ip_address(site_address) in ip_network(problem["prefix"])
    assert problem["session"] in problem["detail"]
    return problem


def assert_postgres_denial(text: str, site_address: str) -> None:
    """A FATAL of PostgreSQL that names destination, rule, region, prefix and session."""
    assert site_address in text
    assert "rule eu-only/outside-eea forbids region US" in text
    found = re.search(r"region US \((\S+)\), rule eu-only/outside-eea, session [0-9a-f]{16}", text)
    assert found is not None
    assert ip_address(site_address) in ip_network(found[1])
    assert "enforcer explain" in text


def real(form: str, host: str) -> str:
    """The address a denial names: IPv4-mapped is IPv4 on the wire."""
    return host.removeprefix("::ffff:") if form == "IPv4-mapped" else host


# --- the witness itself


def test_the_witness_sees_what_the_host_sends(world: World, virginia: Watch) -> None:
    """Outside an executor both of Virginia's addresses are reached and seen, so its silence below means something."""
    for host in (VIRGINIA.address, VIRGINIA.address6):
        code = f"import socket; socket.create_connection(('{host}', 80), 5)"
        process = world.spawn("host", "python3", "-c", code, log="control.log")
        assert process.wait(10) == 0
        assert "TCP 80 SYN" in virginia.arrived()


# --- allowed


@pytest.mark.parametrize("form", FORMS)
def test_psql_reads_masked_rows(shell: Shell, form: str) -> None:
    """psql in Frankfurt gets the row with card, e-mail, SSN and IBAN masked."""
    done = shell.psql(forms(FRANKFURT)[form], "SELECT name, email, card, ssn, iban FROM customers")
    assert (done.stderr, done.stdout) == ("", "|".join(map(str, MASKED_ROW[:5])) + "\n")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("client", POSTGRES_CLIENTS)
def test_postgres_libraries_read_masked_rows(shell: Shell, client: str, form: str) -> None:
    """Every way to query returns the same row, text cells and JSON masked, or NULL where that cannot be done."""
    host = forms(FRANKFURT)[form]
    row = shell.run(POSTGRES_CLIENTS[client], conninfo=conninfo(host), host=host, query=SELECT)
    assert row == ([*MASKED_ROW[:5], None] if client in BINARY_CLIENTS else MASKED_ROW)


def test_copy_to_stdout_is_masked(shell: Shell) -> None:
    """Rows that leave through COPY are masked as well."""
    code = """
        with psycopg.connect(conninfo) as db, db.cursor() as cursor:
            with cursor.copy("COPY customers (name, email, card, ssn, iban) TO STDOUT") as copy:
                answer = [list(row) for row in copy.rows()]
    """
    assert shell.run(code, conninfo=conninfo(FRANKFURT.address)) == [MASKED_ROW[:5]]


def test_binary_copy_leaks_nothing(shell: Shell) -> None:
    """COPY in the binary format is masked or refused, never passed on as it is."""
    code = """
        with psycopg.connect(conninfo) as db, db.cursor() as cursor:
            try:
                with cursor.copy("COPY customers (name, email, card) TO STDOUT (FORMAT binary)") as copy:
                    answer = b"".join(copy).decode("latin-1")
            except psycopg.Error as error:
                answer = str(error)
    """
    answer = shell.run(code, conninfo=conninfo(FRANKFURT.address))
    assert not [secret for secret in SECRETS if secret in answer]
    assert answer


def test_an_errors_detail_is_masked(shell: Shell) -> None:
    """A unique violation quotes the e-mail address that is there already: masked."""
    code = """
        with psycopg.connect(conninfo) as db:
            try:
                db.execute("INSERT INTO customers (id, email) VALUES (2, %s)", (email,))
            except psycopg.errors.UniqueViolation as error:
                answer = error.diag.message_detail
    """
    answer = shell.run(code, conninfo=conninfo(FRANKFURT.address), email=EMAIL)
    assert answer == f"Key (email)=({MASKED_EMAIL}) already exists."


@pytest.mark.parametrize("form", FORMS)
def test_curl_gets_masked_json(shell: Shell, form: str) -> None:
    """GET returns the server's JSON with the four kinds of value masked and all else as it was."""
    done = shell.curl(url(forms(FRANKFURT)[form], "/orders"))
    assert done.stderr == ""
    assert json.loads(done.stdout) == {
        "order": 17,
        "card": MASKED_CARD,
        "contact": MASKED_EMAIL,
        "ssn": MASKED_SSN,
        "iban": MASKED_IBAN,
    }


@pytest.mark.parametrize("form", FORMS)
def test_a_posted_body_arrives_whole(shell: Shell, form: str) -> None:
    """POST: the far side receives method, target and every byte of the body."""
    body = "field=" + "0123456789abcdef" * 20_000
    done = shell.command(
        "curl", "-sS", "--data-binary", "@-", url(forms(FRANKFURT)[form], "/in?x=1", HTTP_PORT), text=body
    )
    received = json.loads(done.stdout)
    assert (received["method"], received["target"], received["body"]) == ("POST", "/in?x=1", body)


def test_a_chunked_upload_arrives_whole(shell: Shell) -> None:
    """An upload of unknown length goes through, and the far side puts the same bytes together."""
    body = "chunk by chunk " * 10_000
    arguments = ["-T", "-", "-H", "Transfer-Encoding: chunked", "-H", "Expect:"]
    done = shell.command("curl", "-sS", *arguments, url(FRANKFURT.address, "/up", HTTP_PORT), text=body)
    received = json.loads(done.stdout)
    assert (received["method"], received["body"]) == ("PUT", body)


def test_curl_reuses_its_connection(shell: Shell) -> None:
    """Keep-alive: the second URL of one curl needs no new connection."""
    address = url(FRANKFURT.address)
    arguments = ["-sS", "-w", "%{http_code} %{num_connects} ", "-o", "/dev/null", "-o", "/dev/null"]
    assert shell.command("curl", *arguments, address, address).stdout == "200 1 200 0 "


def test_head_is_answered_without_a_body(shell: Shell) -> None:
    """HEAD returns the headers of GET and ends there."""
    done = shell.curl("-I", url(FRANKFURT.address, "/orders"))
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 200 OK\r\n")
    assert done.stdout.endswith("\r\n\r\n")


@pytest.mark.parametrize("form", FORMS)
def test_http_client_sees_the_address_it_asked_for(shell: Shell, form: str) -> None:
    """Python's http.client works unchanged, and its socket's peer is the server, not the proxy."""
    code = """
        connection = http.client.HTTPConnection(host, 80, timeout=10)
        connection.request("GET", "/")
        peer = connection.sock.getpeername()[:2]
        answer = [connection.getresponse().status, *peer]
        connection.close()
    """
    host = forms(FRANKFURT)[form]
    assert shell.run(code, host=host) == [200, host, 80]


# --- denied


@pytest.mark.parametrize("form", FORMS)
def test_psql_is_denied(shell: Shell, virginia: Watch, form: str) -> None:
    """psql to Virginia prints rule, region, prefix, session and how to ask; no packet leaves for it."""
    host = forms(VIRGINIA)[form]
    done = shell.psql(host, "SELECT 1")
    assert done.returncode == 2  # psql(1): the connection went bad
    assert_postgres_denial(done.stderr, real(form, host))
    assert virginia.arrived() == []


@pytest.mark.parametrize("form", FORMS)
def test_psycopg_is_denied(shell: Shell, virginia: Watch, form: str) -> None:
    """psycopg raises its own OperationalError with the denial's words."""
    code = """
        try:
            psycopg.connect(conninfo)
        except psycopg.OperationalError as error:
            answer = str(error)
    """
    host = forms(VIRGINIA)[form]
    assert_postgres_denial(shell.run(code, conninfo=conninfo(host)), real(form, host))
    assert virginia.arrived() == []


@pytest.mark.parametrize("form", FORMS)
def test_asyncpg_is_denied(shell: Shell, virginia: Watch, form: str) -> None:
    """asyncpg raises PostgreSQL's insufficient_privilege (42501) with detail and hint."""
    code = """
        async def attempt():
            try:
                await asyncpg.connect(host=host, user="postgres", database="postgres", timeout=10)
            except asyncpg.PostgresError as error:
                return [error.sqlstate, f"{error} {error.detail} {error.hint}"]
        answer = asyncio.run(attempt())
    """
    host = forms(VIRGINIA)[form]
    state, text = shell.run(code, host=host)
    assert state == "42501"
    assert_postgres_denial(text, real(form, host))
    assert virginia.arrived() == []


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "arguments", [(), ("--data", "card=4111111111111111"), ("-X", "DELETE")], ids=["GET", "POST", "DELETE"]
)
def test_curl_is_denied(shell: Shell, virginia: Watch, form: str, arguments: tuple[str, ...]) -> None:
    """HTTP to Virginia is a readable 403 with rule, region and prefix; nothing arrives there."""
    host = forms(VIRGINIA)[form]
    done = shell.curl(*arguments, url(host, "/orders"))
    assert problem_of(done.stdout, real(form, host))["region"] == "US"
    assert virginia.arrived() == []


def test_a_denied_upload_stays_here(shell: Shell, virginia: Watch) -> None:
    """Not one byte of a megabyte's upload leaves before, during or after its refusal."""
    done = shell.command("curl", "-sS", "-H", "Expect:", "-T", "-", url(VIRGINIA.address, "/up"), text="x" * 1_000_000)
    assert "region US" in done.stdout
    assert virginia.arrived() == []


def test_a_denied_head_has_no_body(shell: Shell, virginia: Watch) -> None:
    """The refusal of HEAD is headers only, as HTTP demands, and curl understands it."""
    done = shell.curl("-I", url(VIRGINIA.address))
    assert done.returncode == 0
    assert done.stdout.startswith("HTTP/1.1 403 Forbidden\r\n")
    assert virginia.arrived() == []


@pytest.mark.parametrize("form", FORMS)
def test_http_keep_alive_survives_a_denial(shell: Shell, virginia: Watch, form: str) -> None:
    """http.client asks three times on one connection and is refused three times on it."""
    code = """
        connection = http.client.HTTPConnection(host, 80, timeout=10)
        answer = []
        for _ in range(3):
            connection.request("GET", "/")
            port, response = connection.sock.getsockname()[1], connection.getresponse()
            answer.append([response.status, port])
            response.read()
        connection.close()
    """
    answers = shell.run(code, host=forms(VIRGINIA)[form])
    assert [status for status, _ in answers] == [403, 403, 403]
    assert len({port for _, port in answers}) == 1
    assert virginia.arrived() == []


@pytest.mark.parametrize(("host", "kind"), [(NOWHERE.address, "documentation"), (NOWHERE.address6, "unknown")])
def test_an_unknown_region_is_denied(shell: Shell, nowhere: Watch, host: str, kind: str) -> None:
    """An address that no table places is refused, whatever is there."""
    problem = problem_of(shell.curl(url(host)).stdout, host)
    assert problem["region"] == kind
    assert nowhere.arrived() == []


def test_bytes_of_no_protocol_are_denied(shell: Shell, frankfurt: Watch) -> None:
    """An unknown protocol is closed without an answer; nothing of it arrives in Frankfurt."""
    code = """
        with socket.create_connection((host, 9000), 10) as sock:
            sock.sendall(b"\\x16\\x03\\x00 not a protocol " * 10)
            try:
                answer = sock.recv(100).decode()
            except ConnectionResetError:
                answer = ""
    """
    assert shell.run(code, host=FRANKFURT.address) == ""
    assert frankfurt.arrived() == []


def test_a_silent_client_reaches_nothing(shell: Shell, frankfurt: Watch) -> None:
    """Where the server would speak first, the client hears nothing and is closed within identify_timeout's second."""
    code = """
        with socket.create_connection((host, 22), 10) as sock:
            try:
                answer = sock.recv(100).decode()
            except ConnectionResetError:
                answer = ""
    """
    assert shell.run(code, host=FRANKFURT.address) == ""
    assert frankfurt.arrived() == []


# --- what is recorded of all this


def test_every_secret_above_is_masked_in_the_records(instance: Instance) -> None:
    """The database's files hold no card number, e-mail address, SSN or IBAN in clear after all that was said above."""
    found = [
        (path.name, secret)
        for path in database_files(instance)
        for secret in (CARD, EMAIL, SSN, IBAN)
        if secret.encode() in path.read_bytes()
    ]
    assert found == []
